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

"""Runs the processes of a study: some wait for others, all can resume.

The folder of a job records the job's options and whether it has finished. A
finished job is skipped; one that was interrupted is started again and resumes
as far as its program can.
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


# {module: (unit of its progress bar, pattern of the progress in its log)}
_PROGRESS = {
  'salt_t5x.train': ('step', r'\[(\d+)\] collection=train '),
  'salt_t5x.score': ('sequence', r'Shard \d+: (\d+) of '),
}


class Job:
  """A module of this package, run in a process of its own.

  Attributes:
    name: for messages; unique.
    folder: where it writes.
    command: the module and its flags.
    needs: the jobs that must finish before it.
    alone: whether no other job may run at the same time.
    progress: its progress bar, while it runs.
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
    total: int | None = None,
  ):
    """Constructor.

    Args:
      name: for messages.
      folder: is made if missing.
      command: the module and its flags.
      options: the job's configuration, JSON by name; a folder that was begun
        with another is refused.
      needs: the jobs that must finish before it.
      environment: variables added to those of this process.
      ready: prepares the folder of a job that may have been interrupted.
      alone: whether no other job may run at the same time, since it is timed.
      total: the length of the progress bar, if known.
    """
    self.name, self.folder, self.needs = name, folder, tuple(needs)
    self.command, self.options = list(command), options
    self._environment, self._ready = environment or {}, ready
    self.alone, self._total = alone, total
    self._process = self.progress = None
    self._log = os.path.join(folder, 'log.txt')
    self._options_file = os.path.join(folder, 'options.json')
    self._done_file = os.path.join(folder, 'done')

  def is_done(self) -> bool:
    """Tells whether the job has finished.

    Raises:
      JobError: it was begun with other options than it has now.
    """
    try:
      files.claim(
        self._options_file,
        self.options,
        what=self.folder,
        remedy='Delete that folder and those of the runs that were made with '
        'it, or choose another --work_dir.',
        write=False,
      )
    except ValueError as e:
      raise JobError(str(e)) from e
    return os.path.exists(self._done_file)

  def start(self, position: int) -> None:
    """Starts the process, with a progress bar in line `position`."""
    os.makedirs(self.folder, exist_ok=True)
    if self._ready:
      self._ready()
    files.write_json(self._options_file, self.options)
    # Jobs share the machine, so none preallocates its memory.
    xla_flags = os.environ.get('XLA_FLAGS', '')
    environment = {
      **os.environ,
      'XLA_FLAGS': f'{xla_flags} --xla_cpu_multi_thread_eigen=false',
      'XLA_PYTHON_CLIENT_PREALLOCATE': 'false',
      # A step's arrays are new memory: without huge pages, page faults took a
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
        # Keeps this process's signals from the job; see `stop`.
        start_new_session=True,
      )
    unit, _ = _PROGRESS.get(self.command[0], ('', None))
    self.progress = tqdm.tqdm(
      desc=self.name, position=position, unit=unit, total=self._total
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
      _, pattern = _PROGRESS[self.command[0]]
      if found := re.findall(pattern, log):
        self.progress.update(int(found[-1]) - self.progress.n)
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
    """Kills the process if it is running."""
    if self._process is not None and self._process.poll() is None:
      # At SIGTERM a run would save a checkpoint at once. t5x would count its
      # periods from there and skip checkpoints and evaluations that a study
      # needs.
      self._process.kill()
      self._process.wait()


def run_all(jobs: Sequence[Job], workers: int) -> None:
  """Runs the unfinished jobs, each after those that it needs.

  Jobs that run alone come last.

  Args:
    jobs: in the order of starting, as far as their needs allow.
    workers: jobs that run at a time.

  Raises:
    JobError: a job cannot begin, or failed; the others are stopped and can be
      resumed.
  """
  waiting = _unfinished(jobs)
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


def _unfinished(jobs: Sequence[Job]) -> list[Job]:
  """Returns the jobs to run, or raises one error for all that cannot begin."""
  waiting, errors = [], []
  for job in jobs:
    try:
      if not job.is_done():
        waiting.append(job)
    except JobError as e:
      errors.append(str(e))
  errors += [
    f'{job.folder} is done, but {need.folder}, which it was made with, is '
    'missing. Delete the former as well.'
    for job in jobs
    for need in job.needs
    if need in waiting and job not in waiting
  ]
  if errors:
    raise JobError('\n'.join(errors))
  return waiting
