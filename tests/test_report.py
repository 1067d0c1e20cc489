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

"""Scalars, the table, the curves and the comparison's order of runs."""

import json
import os

from clu import metric_writers
import pytest

from salt_t5x import compare, report


def curves(accuracy, log_perplexity, steps=(100, 200, 300)):
  return {
    'accuracy': list(zip(steps, accuracy, strict=True)),
    'log_perplexity': list(zip(steps, log_perplexity, strict=True)),
  }


SEED = {
  'teacher': curves([0.1, 0.2, 0.3], [4.0, 3.8, 3.6]),
  'baseline': curves([0.1, 0.2, 0.25], [5.0, 4.5, 4.0]),
  'rkd': curves([0.2, 0.2, 0.2], [4.6, 4.5, 4.4]),
  'salt': curves([0.2, 0.25, 0.35], [4.6, 3.9, 3.7]),
  'salt_ds': curves([0.2, 0.25, 0.36], [4.6, 4.1, 3.8]),
}
OTHER_SEED = SEED | {'salt': curves([0.3, 0.25, 0.25], [4.4, 4.2, 3.9])}


def test_read_scalars(tmp_path):
  writer = metric_writers.create_default_writer(
    str(tmp_path), asynchronous=False
  )
  for step in (2, 1, 3):
    writer.write_scalars(step, {'a': step / 2, 'salt/b': -step})
  writer.close()
  assert report.read_scalars(str(tmp_path)) == {
    'a': [(1, 0.5), (2, 1.0), (3, 1.5)],
    'salt/b': [(1, -1.0), (2, -2.0), (3, -3.0)],
  }


def test_read_scalars_keeps_the_later_run(tmp_path):
  for value in (1.0, 2.0):
    writer = metric_writers.create_default_writer(
      str(tmp_path), asynchronous=False
    )
    writer.write_scalars(7, {'loss': value})
    writer.close()
    for name in os.listdir(tmp_path):  # Two files within one second.
      if 'kept' not in name:
        os.rename(
          tmp_path / name, tmp_path / f'events.out.tfevents.{value}.kept'
        )
  assert report.read_scalars(str(tmp_path)) == {'loss': [(7, 2.0)]}


@pytest.mark.parametrize(
  'values, expected',
  [
    ([5, 3, 2], 2),
    ([5, 3, 4, 2], 4),  # Passing once is not enough.
    ([5, 4], None),
    ([3], 1),
  ],
)
def test_first_step_below(values, expected):
  assert report.first_step_below(list(enumerate(values, 1)), 3) == expected


def test_summary_is_table_1():
  results = report.summarize([SEED], kd_steps=100)
  rows = {(r['run'], r['stage']): r for r in results['rows']}
  assert rows['salt', 'n_KD']['accuracy'] == [20.0]
  assert rows['baseline', 'final']['log_perplexity'] == [4.0]
  assert rows['teacher', 'final']['step'] == 300
  assert rows['salt_ds', 'n_KD']['log_perplexity'] == [4.6]
  assert results['passes_baseline'] == {
    'rkd': [None],
    'salt': [200 / 300],
    'salt_ds': [1.0],
  }
  text = report.markdown(results)
  assert '| SALT | final (300) | 35.00 | 3.700 |' in text
  assert "SALT passes BASELINE's final log-perplexity after 67% of" in text
  assert "RKD does not reach BASELINE's final log-perplexity" in text


def test_summary_over_seeds():
  results = report.summarize([SEED, OTHER_SEED], kd_steps=100)
  text = report.markdown(results)
  assert '| SALT | n_KD (100) | 25.00 ± 7.07 | 4.500 ± 0.141 |' in text
  assert 'over 2 seeds' in text


def test_summary_says_when_salt_does_not_pass():
  worse = SEED | {'salt': curves([0, 0, 0], [9.0, 9.0, 9.0])}
  results = report.summarize([SEED, worse], kd_steps=100)
  assert results['passes_baseline']['salt'] == [200 / 300, None]
  assert '67% of the steps (1 of 2)' in report.markdown(results)


def test_write(tmp_path):
  results = report.summarize([SEED], kd_steps=100)
  report.write(
    str(tmp_path), results, report.markdown(results), {'0': SEED}, kd_steps=2
  )
  with open(tmp_path / 'results.json') as f:
    assert json.load(f) == results
  with open(tmp_path / 'curves.png', 'rb') as f:
    assert f.read(8) == b'\x89PNG\r\n\x1a\n'


class FakeRun:
  """Finishes when polled twice; remembers who ran beside it."""

  log: list = []

  def __init__(self, name):
    self.name, self.needs, self.polls = name, compare.STAGES[name].needs, 0
    self.progress = None

  def is_done(self):
    return False

  def start(self, position):
    self.progress = type('Bar', (), {'pos': -position})()
    self.log.append(('start', self.name, position))

  def poll(self):
    self.polls += 1
    if self.polls == 2:
      self.log.append(('end', self.name))
    return self.polls == 2

  def stop(self):
    self.log.append(('stop', self.name))


@pytest.mark.parametrize('workers', [1, 2])
def test_each_stage_comes_after_what_it_needs(monkeypatch, workers):
  monkeypatch.setattr(compare.time, 'sleep', lambda _: None)
  FakeRun.log = log = []
  compare.run_all([FakeRun(n) for n in compare.STAGES], workers)
  index = {entry[:2]: i for i, entry in enumerate(log)}
  for name, stage in compare.STAGES.items():
    for needed in stage.needs:
      assert index['end', needed] < index['start', name]
  assert {e[1] for e in log if e[0] == 'end'} == set(compare.STAGES)
  if workers == 2:
    assert index['start', 'baseline'] < index['end', 'teacher']
  positions = [e[2] for e in log if e[0] == 'start']
  assert max(positions) == workers - 1


def test_failure_stops_the_others(monkeypatch):
  monkeypatch.setattr(compare.time, 'sleep', lambda _: None)

  class Failing(FakeRun):
    def poll(self):
      raise compare.RunError('no')

  FakeRun.log = log = []
  with pytest.raises(compare.RunError):
    compare.run_all([FakeRun('baseline'), Failing('teacher')], 2)
  assert ('stop', 'teacher') in log


def test_finished_run_with_other_options_is_refused(tmp_path):
  run = compare.Run('baseline', '0', str(tmp_path), ['TRAIN_STEPS=5'])
  assert not run.is_done()
  os.makedirs(run.folder)
  with open(os.path.join(run.folder, 'options.json'), 'w') as f:
    json.dump(run._options, f)
  assert not run.is_done()  # Begun, but not finished.
  open(os.path.join(run.folder, 'done'), 'w').close()
  assert run.is_done()
  other = compare.Run('baseline', '0', str(tmp_path), ['TRAIN_STEPS=6'])
  with pytest.raises(compare.RunError, match=r'was begun with.*--work_dir'):
    other.is_done()


def test_failed_run_shows_its_log(tmp_path):
  run = compare.Run('baseline', '0', str(tmp_path), ['NO_SUCH.thing=5'])
  run.start(0)
  run._process.wait()
  with pytest.raises(compare.RunError, match='NO_SUCH'):
    run.poll()


@pytest.mark.parametrize(
  'bindings, expected',
  [([], 300), (['KD_STEPS=200', 'TRAIN_STEPS = 9'], 200)],
)
def test_the_selection_is_for_the_recipes_first_stage(
  tmp_path, bindings, expected
):
  run = compare.Run('selection', '0', str(tmp_path), bindings)
  command = compare.STAGES['selection'].command(run)
  assert command[-2:] == [f'--kd_steps={expected}', '--batch_size=4']


def test_scoring_gets_no_parameters_of_training(tmp_path):
  bindings = ['trainer.SaltTrainer.top_k=5', 'TOP_K = 5']
  run = compare.Run('scores', '0', str(tmp_path), bindings)
  command = compare.STAGES['scores'].command(run)
  assert command[-2:] == ['--gin.RANDOM_SEED=0', '--gin.TOP_K = 5']
  run = compare.Run('salt', '0', str(tmp_path), bindings)
  command = compare.STAGES['salt'].command(run)
  assert '--gin.trainer.SaltTrainer.top_k=5' in command
