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

"""Processes that a study consists of: some wait for others, all can resume.

A job has a folder, which says what it was begun with and whether it is done. A
job that is done is not done again; one that was stopped goes on, as far as its
program does.
"""

from collections.abc import Callable, Mapping, Sequence
import os
import re
import subprocess
import sys
import time

import tqdm

from salt_t5x import files


class JobError(RuntimeError):
  """A job failed, or cannot begin."""


def _training_progress(folder: str, log: str) -> tuple[int, int | None]:
  """(steps that are done, steps of the run if known)."""
  steps = re.findall(r'\[(\d+)\] collection=train ', log)
  total = None
  config = os.path.join(folder, 'config.gin')
  if os.path.exists(config):
    with open(config, encoding='utf-8') as f:
      macros = dict(re.findall(r'^(\w+) = (.*)$', f.read(), re.M))
    value = macros.get('TRAIN_STEPS', '')
    while value.startswith('%'):
      value = macros.get(value[1:], '')
    total = int(value) if value.isdecimal() else None
  return int(steps[-1]) if steps else 0, total


def _scoring_progress(folder: str, log: str) -> tuple[int, int | None]:
  """(sequences that are scored, sequences to score if known)."""
  del folder
  found = re.findall(r'Shard \d+: (\d+) of (\d+) sequences', log)
  return tuple(map(int, found[-1])) if found else (0, None)


_PROGRESS = {
  'salt_t5x.train': ('step', _training_progress),
  'salt_t5x.score': ('sequence', _scoring_progress),
}


class Job:
  """A module of this package, run in a process of its own.

  Attributes:
    name: for messages, unlike that of others.
    folder: where it writes.
    command: the module and its flags.
    needs: the jobs that come before it.
    alone: whether no other job may run beside it.
    progress: its bar, while it runs.
  """

  def __init__(
    self,
    name: str,
    folder: str,
    command: Sequence[str],
    options: Mapping[str, object],
    needs: Sequence['Job'] = (),
    environment: dict[str, str] | None = None,
    ready: Callable[[], None] | None = None,
    alone: bool = False,
  ):
    """Constructor.

    Args:
      name: for messages.
      folder: is made if it is not there.
      command: the module and its flags.
      options: what the job is made with, JSON by name; a folder that was begun
        with others is refused.
      needs: what comes before it.
      environment: variables beside those of this process.
      ready: makes the folder ready for the start of a job that may have been
        stopped.
      alone: whether no other job may run beside it, since it is timed.
    """
    self.name, self.folder, self.needs = name, folder, tuple(needs)
    self.command, self._options = list(command), options
    self._environment, self._ready = environment or {}, ready
    self.alone = alone
    self._process = self.progress = None
    self._log = os.path.join(folder, 'log.txt')
    self._options_file = os.path.join(folder, 'options.json')
    self._done_file = os.path.join(folder, 'done')

  def is_done(self) -> bool:
    """Tells whether the job has finished.

    Raises:
      JobError: it was begun with other options than it has now.
    """
    if os.path.exists(self._options_file):
      try:
        begun_with = files.read_json(self._options_file)
      except ValueError as e:
        raise JobError(
          f'{self._options_file} is damaged ({e}), so that nobody knows what '
          f'{self.folder} was begun with. Delete that folder, or choose '
          'another --work_dir.'
        ) from e
      if begun_with != self._options:
        raise JobError(
          f'{self.folder} was begun with other options:\n'
          f'{_differences(begun_with, self._options)}\n'
          'Delete that folder and those of the runs that were made with it, or '
          'choose another --work_dir.'
        )
    return os.path.exists(self._done_file)

  def start(self, position: int) -> None:
    """Starts the process, with a progress bar in line `position`."""
    os.makedirs(self.folder, exist_ok=True)
    if self._ready:
      self._ready()
    files.write_json(self._options_file, self._options)
    # Jobs share the machine: no memory of their own.
    xla_flags = os.environ.get('XLA_FLAGS', '')
    environment = {
      **os.environ,
      'XLA_FLAGS': f'{xla_flags} --xla_cpu_multi_thread_eigen=false',
      'XLA_PYTHON_CLIENT_PREALLOCATE': 'false',
      # Huge pages: a step's arrays are new memory, and page faults took a
      # fifth of the time.
      'GLIBC_TUNABLES': 'glibc.malloc.hugetlb=1',
      **self._environment,
    }
    with open(self._log, 'w', encoding='utf-8') as log:
      self._process = subprocess.Popen(
        [sys.executable, '-m', *self.command],
        env=environment,
        stdout=log,
        stderr=subprocess.STDOUT,
        # Signals for this process are not for the job: at SIGTERM it would save
        # here and now. See `stop`.
        start_new_session=True,
      )
    unit, _ = _PROGRESS.get(self.command[0], ('', None))
    self.progress = tqdm.tqdm(
      desc=self.name, position=position, unit=unit, leave=True
    )

  def poll(self) -> bool:
    """Updates the progress bar; True once the job has finished.

    Raises:
      JobError: it failed; the message ends with its log's last lines.
    """
    code = self._process.poll()
    with open(self._log, encoding='utf-8', errors='replace') as f:
      log = f.read()
    if self.command[0] in _PROGRESS:
      _, of_log = _PROGRESS[self.command[0]]
      done, total = of_log(self.folder, log)
      if (done, total) != (self.progress.n, self.progress.total):
        self.progress.n, self.progress.total = done, total
        self.progress.refresh()
    if code is None:
      return False
    self.progress.close()
    if code:
      tail = '\n'.join(log.splitlines()[-15:])
      raise JobError(f'{self.name} failed; the end of {self._log}:\n{tail}')
    with open(self._done_file, 'w', encoding='utf-8'):
      pass
    return True

  def stop(self) -> None:
    if self._process is not None and self._process.poll() is None:
      # Not SIGTERM, at which a run would save a checkpoint here and now: t5x
      # would then count its periods from there, and the checkpoints and
      # evaluations that a study needs would not come.
      self._process.kill()
      self._process.wait()


def _differences(begun_with: object, now: Mapping[str, object]) -> str:
  if not isinstance(begun_with, Mapping):
    return f'  {begun_with} then, {now} now'
  return '\n'.join(
    f'  {name}: {begun_with.get(name)} then, {now.get(name)} now'
    for name in sorted({*begun_with, *now})
    if begun_with.get(name) != now.get(name)
  )


def run_all(jobs: Sequence[Job], workers: int) -> None:
  """Runs what is not done yet, `workers` at a time, each after what it needs.

  Jobs that are timed come last.

  Raises:
    JobError: a job cannot begin, or failed; the others are stopped and can be
      resumed.
  """
  waiting = _not_done(jobs)
  if done := len(jobs) - len(waiting):
    print(f'{done} of {len(jobs)} jobs are done already.')
  running: list[Job] = []
  try:
    while waiting or running:
      for job in list(waiting):
        unfinished = {*waiting, *running}
        if any(x.alone for x in running):
          break
        if job.alone and (running or not all(x.alone for x in waiting)):
          continue
        if len(running) < workers and unfinished.isdisjoint(job.needs):
          waiting.remove(job)
          taken = {other.progress.pos for other in running}
          job.start(min(i for i in range(workers) if -i not in taken))
          running.append(job)
      time.sleep(1)
      running = [job for job in running if not job.poll()]
  finally:
    for job in running:
      job.stop()


def _not_done(jobs: Sequence[Job]) -> list[Job]:
  """Those to run.

  Raises:
    JobError: folders were begun with other options, or are older than what they
      were made of; all of them are named.
  """
  waiting, errors = [], []
  for job in jobs:
    try:
      if not job.is_done():
        waiting.append(job)
    except JobError as e:
      errors.append(str(e))
  errors += [
    f'{job.folder} is done, and {need.folder}, which it was made with, is not '
    'there any more. Delete the former, too.'
    for job in jobs
    for need in job.needs
    if need in waiting and job not in waiting
  ]
  if errors:
    raise JobError('\n'.join(errors))
  return waiting
