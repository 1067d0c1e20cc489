# Copyright 2026 The salt_t5x Authors.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

"""Jobs: what waits for what, what is done, and how failures end."""

import json
import os
import shutil
import types

import pytest

from salt_t5x.studies import processes

# {job: what it needs}, as `make salt` has them.
NEEDS = {
  'teacher': (),
  'baseline': (),
  'scores': ('teacher',),
  'rkd': ('teacher',),
  'selection': ('scores',),
  'salt_ds': ('teacher', 'selection'),
  'salt': ('teacher',),
}


class FakeJob:
  """Finishes when polled twice; remembers who ran beside it."""

  log: list = []

  folder = alone = None

  def __init__(self, name, needs=(), alone=False):
    self.name, self.needs, self.polls = name, needs, 0
    self.alone = alone

  def is_done(self):
    return False

  def start(self):
    self.log.append(('start', self.name))

  def poll(self):
    self.polls += 1
    if self.polls == 2:
      self.log.append(('end', self.name))
    return self.polls == 2

  def stop(self):
    self.log.append(('stop', self.name))


@pytest.fixture
def log(monkeypatch):
  monkeypatch.setattr(processes.time, 'sleep', lambda _: None)
  FakeJob.log = []
  return FakeJob.log


@pytest.mark.parametrize('workers', [1, 2])
def test_jobs_follow_their_dependencies(log, workers):
  made = {}
  for name, needs in NEEDS.items():
    made[name] = FakeJob(name, [made[x] for x in needs])
  processes.run_all(list(made.values()), workers)
  index = {entry: i for i, entry in enumerate(log)}
  for name, needs in NEEDS.items():
    for needed in needs:
      assert index['end', needed] < index['start', name]
  assert {e[1] for e in log if e[0] == 'end'} == set(NEEDS)
  if workers == 2:
    assert index['start', 'baseline'] < index['end', 'teacher']


def test_finished_jobs_are_not_rerun(log):
  class Done(FakeJob):
    def is_done(self):
      return True

  done = Done('teacher')
  processes.run_all([done, FakeJob('salt', [done])], 1)
  assert {e[1] for e in log} == {'salt'}


def test_timed_jobs_run_alone(log):
  timed = [FakeJob('timed', alone=True), FakeJob('too', alone=True)]
  processes.run_all([*timed, FakeJob('salt'), FakeJob('rkd')], 3)
  assert {e[1] for e in log[:4]} == {'salt', 'rkd'}
  assert log[4:] == [
    (what, name) for name in ('timed', 'too') for what in ('start', 'end')
  ]


def test_all_that_cannot_begin_is_named(log):
  class Changed(FakeJob):
    def is_done(self):
      raise ValueError(f'{self.name} was begun with others')

  class Done(FakeJob):
    def is_done(self):
      return True

  teacher = FakeJob('teacher')
  made = [Changed('a'), Changed('b'), teacher, Done('salt', [teacher])]
  with pytest.raises(
    processes.JobError, match=r'a was(.|\n)*b was(.|\n)*is done, '
  ):
    processes.run_all(made, 2)
  assert not log


def test_failure_stops_the_others(log):
  class Failing(FakeJob):
    def poll(self):
      raise processes.JobError('no')

  with pytest.raises(processes.JobError):
    processes.run_all([FakeJob('baseline'), Failing('teacher')], 2)
  assert ('stop', 'baseline') in log


def test_a_finished_job_with_other_options_is_refused(tmp_path):
  job = lambda steps: processes.Job(
    'baseline', str(tmp_path), [], {'flags': 'same', 'steps': steps}
  )
  assert not job(5).is_done()
  (tmp_path / 'options.json').write_text(
    json.dumps({'flags': 'same', 'steps': 5})
  )
  assert not job(5).is_done()  # Begun, but not finished.
  (tmp_path / 'done').touch()
  assert job(5).is_done()
  with pytest.raises(ValueError, match='steps was 5 and is now 6') as e:
    job(6).is_done()
  assert '--work_dir' in str(e.value) and 'same' not in str(e.value)


def finish(job):
  job.start()
  job._process.wait()
  assert job.poll() and job.is_done()


def test_jobs_know_the_results_and_data_they_were_made_with(tmp_path):
  data = tmp_path / 'data' / 'info.json'
  data.parent.mkdir()
  data.write_text('{"fingerprint": "a"}')
  make = lambda name, *needs: processes.Job(
    name,
    str(tmp_path / name),
    ['platform', '--terse'],
    {},
    needs,
    inputs={'corpus': str(data)},
  )
  teacher = make('teacher')
  finish(teacher)
  student = make('student', teacher)
  finish(student)
  # A corpus that was built again, with other text.
  data.write_text('{"fingerprint": "b"}')
  for job in teacher, student:
    with pytest.raises(ValueError, match='corpus was'):
      job.is_done()
  data.write_text('{"fingerprint": "a"}')
  assert teacher.is_done() and student.is_done()
  # A teacher that was trained again, with the same options.
  shutil.rmtree(tmp_path / 'teacher')
  (tmp_path / 'student' / 'done').unlink()
  assert not student.is_done()
  finish(teacher)
  with pytest.raises(processes.JobError, match='results of teacher was'):
    student.start()


def test_a_job_runs_and_is_done(tmp_path):
  leftover = tmp_path / 'left.json'
  leftover.touch()
  job = processes.Job(
    'version',
    str(tmp_path),
    ['platform', '--terse'],
    {'a': 1},
    prepare=leftover.unlink,
  )
  job.start()
  job._process.wait()
  assert job.poll() and job.is_done()
  assert not leftover.exists()
  assert os.path.getsize(tmp_path / 'log.txt') > 5
  assert json.loads((tmp_path / 'options.json').read_text()) == {'a': 1}


def test_a_failed_job_shows_its_log(tmp_path):
  job = processes.Job('baseline', str(tmp_path), ['no_such_module'], {})
  job.start()
  job._process.wait()
  with pytest.raises(processes.JobError, match='no_such_module'):
    job.poll()
  assert not job.is_done()


@pytest.mark.parametrize(
  'module, log, done',
  [
    ('train', '[25] collection=train a=1\nx\n[50] collection=train a=1\n', 50),
    ('score', 'Shard 0: 64 of 256 sequences\nShard 1: 128 of 256', 128),
    ('select', '[25] collection=train a=1', 0),
  ],
)
def test_progress_is_read_from_logs(tmp_path, monkeypatch, module, log, done):
  job = processes.Job('a', str(tmp_path), [f'salt_t5x.{module}'], {}, total=256)
  monkeypatch.setattr(
    processes.subprocess,
    'Popen',
    lambda *args, **options: types.SimpleNamespace(poll=lambda: None),
  )
  job.start()
  (tmp_path / 'log.txt').write_text(log)
  assert not job.poll() and job._bar.n == done
