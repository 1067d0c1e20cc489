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

The folder of a job records the job's options, which files and results of other
jobs it read, and whether it has finished. A finished job is skipped; one that
was interrupted is started again and resumes as far as its program can; one that
began with other options or inputs is refused.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import hashlib
import os
import pathlib
import re
import subprocess
import sys
import time
from typing import Any
import uuid

import tqdm

from salt_t5x import files

# {module: (unit of its progress bar, pattern of the progress in its log)}
_PROGRESS = {
  'salt_t5x.train': ('step', r'\[(\d+)\] collection=train '),
  'salt_t5x.score': ('sequence', r'Shard \d+: (\d+) of '),
}
_ENVIRONMENT = {
  # Jobs share the machine, so none preallocates its memory.
  'XLA_PYTHON_CLIENT_PREALLOCATE': 'false',
  # A step's arrays are new memory: without huge pages, page faults took a fifth
  # of the time.
  'GLIBC_TUNABLES': 'glibc.malloc.hugetlb=1',
}


class JobError(RuntimeError):
  """A job failed, or cannot begin."""


@dataclasses.dataclass(eq=False)
class Job:
  """A module of this package, run in a process of its own.

  Attributes:
    name: for messages; unique.
    folder: where it writes; made if missing.
    command: the module and its flags.
    options: the job's configuration, JSON by name; a folder that was begun with
      another is refused.
    needs: the jobs that must finish before it.
    environment: variables added to those of this process.
    prepare: prepares the folder of a job that may have been interrupted.
    alone: whether no other job may run at the same time, since it is timed.
    total: the length of the progress bar, if known.
    inputs: {role: a file that says what the job reads in that role}, besides
      the results of `needs`.
  """

  name: str
  folder: str
  command: Sequence[str]
  options: Mapping[str, Any]
  needs: Sequence['Job'] = ()
  environment: Mapping[str, str] = dataclasses.field(default_factory=dict)
  prepare: Callable[[], None] | None = None
  alone: bool = False
  total: int | None = None
  inputs: Mapping[str, str] = dataclasses.field(default_factory=dict)

  def _path(self, name: str) -> pathlib.Path:
    return pathlib.Path(self.folder, name)

  def _record(self) -> dict[str, Any]:
    """The options, and what identifies the inputs that are there."""
    record = dict(self.options)
    for role, path in self.inputs.items():
      if os.path.exists(path):
        content = pathlib.Path(path).read_bytes()
        record[role] = hashlib.sha256(content).hexdigest()[:16]
    for need in self.needs:
      if (done := need._path('done')).exists():
        record[f'results of {need.name}'] = done.read_text(encoding='utf-8')
    return record

  def is_done(self) -> bool:
    """Tells whether the job has finished.

    Raises:
      ValueError: it was begun with other options or inputs than it has now.
    """
    files.claim(
      str(self._path('options.json')),
      self._record(),
      what=self.folder,
      remedy='Delete that folder and those of the runs that were made with it, '
      'or choose another --work_dir.',
      write=False,
    )
    return self._path('done').exists()

  def start(self) -> None:
    """Starts the process and its progress bar.

    Raises:
      JobError: see `is_done`; jobs that it needs may have run since.
    """
    os.makedirs(self.folder, exist_ok=True)
    try:
      self.is_done()
    except ValueError as e:
      raise JobError(str(e)) from e
    if self.prepare:
      self.prepare()
    files.write_json(str(self._path('options.json')), self._record())
    xla_flags = os.environ.get('XLA_FLAGS', '')
    with self._path('log.txt').open('w', encoding='utf-8') as log:
      self._process = subprocess.Popen(
        [sys.executable, '-m', *self.command],
        env={
          **os.environ,
          **_ENVIRONMENT,
          'XLA_FLAGS': f'{xla_flags} --xla_cpu_multi_thread_eigen=false',
          **self.environment,
        },
        stdout=log,
        stderr=subprocess.STDOUT,
        # Keeps this process's signals from the job; see `stop`.
        start_new_session=True,
      )
    unit, self._pattern = _PROGRESS.get(self.command[0], ('', None))
    self._bar = tqdm.tqdm(desc=self.name, unit=unit, total=self.total)

  def poll(self) -> bool:
    """Updates the progress bar; True once the job has finished.

    Raises:
      JobError: it failed; the message ends with its log's last lines.
    """
    code = self._process.poll()
    path = self._path('log.txt')
    log = path.read_text(encoding='utf-8', errors='replace')
    if self._pattern and (found := re.findall(self._pattern, log)):
      self._bar.update(int(found[-1]) - self._bar.n)
    if code is None:
      return False
    self._bar.close()
    if code:
      tail = '\n'.join(log.splitlines()[-15:])
      raise JobError(f'{self.name} failed; the end of {path}:\n{tail}')
    # Results of the same options have another mark when they are made again.
    files.write_whole(str(self._path('done')), uuid.uuid4().hex.encode())
    return True

  def stop(self) -> None:
    """Kills the process if it is running."""
    if self._process.poll() is None:
      # At SIGTERM a run would save a checkpoint at once. t5x would count its
      # periods from there and skip checkpoints and evaluations that a study
      # needs.
      self._process.kill()
      self._process.wait()


def run_all(jobs: Sequence[Job], workers: int) -> None:
  """Runs the unfinished jobs, each after those that it needs.

  Jobs that run alone come last; no other job may need them.

  Args:
    jobs: in the order of starting, as far as their needs allow.
    workers: jobs that run at a time.

  Raises:
    JobError: a job cannot begin, or failed; the others are stopped and can be
      resumed.
  """
  todo = _unfinished(jobs)
  if done := len(jobs) - len(todo):
    print(f'{done} of {len(jobs)} jobs are done already.')
  _run([job for job in todo if not job.alone], workers)
  _run([job for job in todo if job.alone], workers=1)


def _run(waiting: list[Job], workers: int) -> None:
  running: list[Job] = []
  try:
    while waiting or running:
      unfinished = {*waiting, *running}
      for job in list(waiting):
        if len(running) < workers and unfinished.isdisjoint(job.needs):
          waiting.remove(job)
          job.start()
          running.append(job)
      time.sleep(1)
      running = [job for job in running if not job.poll()]
  finally:
    for job in running:
      job.stop()


def _unfinished(jobs: Sequence[Job]) -> list[Job]:
  """Returns the jobs to run, or raises one error for all that cannot begin."""
  todo, errors = [], []
  for job in jobs:
    try:
      if not job.is_done():
        todo.append(job)
    except ValueError as e:
      errors.append(str(e))
  errors += [
    f'{job.folder} is done, but {need.folder}, which it was made with, is '
    'missing. Delete the former as well.'
    for job in jobs
    for need in job.needs
    if need in todo and job not in todo
  ]
  if errors:
    raise JobError('\n'.join(errors))
  return todo
