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

"""Runs a program on a TPU VM, from the VM's creation to the program's end."""

import argparse
from collections.abc import Callable
import contextlib
import dataclasses
import os
import pathlib
import re
import shlex
import signal
import tempfile
import time

from salt_t5x.launch import tpu_vm

# States that a VM does not leave by itself.
_GONE = ('PREEMPTED', 'STOPPED', 'TERMINATED')

# The script that workers run.
REMOTE = os.path.join(os.path.dirname(__file__), 'remote.sh')
# Exit codes after which the program restarts: `runs.preemption.EXIT_CODE`, or
# 'lost' for a worker that was rebooted and left none.
_AGAIN = {str(os.EX_TEMPFAIL), 'lost'}
_KILLED = {str(128 + signal.SIGTERM), str(128 + signal.SIGKILL)}

_PAUSE = 30  # seconds between requests
_GRACE = 600  # seconds within which all workers end after the first one
_STEADY = 300  # seconds after which a connection counts as stable
_CONNECTIONS = 10  # consecutive failures that end the run


@dataclasses.dataclass
class TpuRun:
  """A program on a TPU VM.

  Attributes:
    vm: the VM.
    flags: the flags of `gce`, and `command`, `environment`, `secrets` and
      `files` as checked values.
    owns_vm: whether this object created or took over the VM, and its creator
      therefore deletes it.
  """

  vm: tpu_vm.TpuVm
  flags: argparse.Namespace
  owns_vm: bool = False

  def run(self) -> None:
    """Runs the program to its end, on new VMs if need be.

    Raises:
      RunError: there is a VM of this name, a step failed on a VM that still
        exists, or the program failed or was interrupted too often.
    """
    if state := self.vm.state(pretend=''):
      raise tpu_vm.RunError(
        f'--name={self.vm.name}: a VM of this name exists already ({state}). '
        'It was not changed: choose another name, follow its run with '
        '`attach`, or delete it with `delete`.'
      )
    # If the first creation fails, e.g. for lack of quota, so does the run.
    self._create()
    self._finish(self._install, self._start)

  def attach(self) -> None:
    """Follows a run to its end; restarts one whose VM is gone.

    Raises:
      RunError: as in `run`, or there is no such VM or no run on it.
    """
    state = self.vm.state()
    if state == tpu_vm.READY:
      self._find_run()
      self.owns_vm = True
      self._finish()
    elif state in _GONE:
      self.vm.delete()
      self._create()
      self._finish(self._install, self._start)
    else:
      raise tpu_vm.RunError(
        f'--name={self.vm.name}: the VM is {state or "missing"}. Repeat '
        '`attach` when it is READY; if it is missing, use `run` to restart the '
        'run from its last checkpoint.'
      )

  def _find_run(self) -> None:
    question = ('ls', f'{tpu_vm.FOLDER}/pid')
    try:
      self.vm.ssh('Does the VM have a run?', '0', *question, pretend='')
    except tpu_vm.GcloudError as e:
      raise tpu_vm.RunError(
        f'{self.vm.name} has no run, and was not changed: {e}\n'
        f'To delete the VM:\n  {self.vm.delete_command}'
      ) from e

  def _create(self) -> None:
    try:
      self.vm.create()
    except tpu_vm.GcloudError as e:
      # A failed creation may leave a VM, unless somebody else created it.
      self.owns_vm |= 'ALREADY_EXISTS' not in str(e)
      raise
    self.owns_vm = True

  def _install(self) -> None:
    flags = self.flags
    # A new VM is tpu_vm.READY some time before it accepts connections.
    self._connect(
      lambda: self.vm.ssh(
        'Make a folder on every worker.',
        'all',
        *('mkdir', '-p', '-m', '700', tpu_vm.FOLDER, tpu_vm.FILES),
      )
    )
    self.vm.copy("Copy the run's files.", flags.files, f'{tpu_vm.FILES}/')
    paths = (flags.wheel, flags.setup_script or '', flags.requirements or '')
    words = (flags.python, *map(os.path.basename, paths))
    self.vm.remote('Install this package.', 'all', 'install', *words)

  def _start(self) -> None:
    if secrets := self.flags.secrets:
      with tempfile.TemporaryDirectory() as folder:
        # scp keeps the mode: the file is private on the workers, too.
        path = pathlib.Path(folder, 'secrets')
        path.touch(0o600)
        if not self.vm.dry_run:
          path.write_text(
            ''.join(f'{k}={shlex.quote(v)}\n' for k, v in secrets.items())
          )
        self.vm.copy(
          f'Copy the secrets ({", ".join(secrets)}); the run reads and deletes '
          'the file.',
          [str(path)],
          tpu_vm.SECRETS,
        )
    settings = [f'{k}={v}' for k, v in self.flags.environment.items()]
    command = [*(['env', *settings] if settings else []), *self.flags.command]
    purpose = 'Start the run, detached from this connection.'
    self.vm.remote(purpose, 'all', 'start', *command)

  def _follow(self) -> str:
    """Shows the log until the run ends; returns what `result` prints."""
    self.vm.remote('Show the log of the first worker.', '0', 'follow')
    return self.vm.remote(
      'Read the exit code of every worker.',
      *('all', 'result', str(_GRACE)),
      pretend='exit_code=0',
    )

  def _connect(self, action: Callable[[], str]) -> str:
    """Repeats an action until it succeeds or the VM is gone."""
    failed = 0
    while True:
      start = time.monotonic()
      try:
        return action()
      except tpu_vm.GcloudError:
        failed = 1 if time.monotonic() - start > _STEADY else failed + 1
        if failed == _CONNECTIONS or not self._may_be_ready():
          raise
        tpu_vm.say('The connection failed. A run that was started continues.')
        time.sleep(_PAUSE)

  def _may_be_ready(self) -> bool:
    try:
      return self.vm.state() == tpu_vm.READY
    except tpu_vm.GcloudError:
      return True  # This machine may have lost its network.

  def _finish(self, *steps: Callable[[], None]) -> None:
    """Takes the steps that lead to a running program, and follows it."""
    restarts = 0
    while True:
      codes, error = set(), None
      try:
        for step in steps:
          step()
        said = self._connect(self._follow)
        codes = set(re.findall(r'^exit_code=(\w+)$', said, re.M))
      except tpu_vm.GcloudError as e:
        error = e
      if codes == {'0'}:
        return
      if not (codes or error):
        raise tpu_vm.RunError(f'The workers reported no exit codes: {said!r}.')
      if error or codes & (_AGAIN | _KILLED):
        # A preemption changes the VM's state only after a while.
        time.sleep(_PAUSE)
      state = self.vm.state()
      if state == tpu_vm.READY and error:
        raise error
      why = error or f'The run ended with exit code {", ".join(sorted(codes))}'
      if state == tpu_vm.READY and codes - _AGAIN - {'0'}:
        raise tpu_vm.RunError(
          f'{why}, which a restart does not mend. Its log is above.'
        )
      tpu_vm.say(f'{why}. The VM is {state or "gone"}.')
      if restarts >= self.flags.max_restarts:
        raise tpu_vm.RunError(
          'The run was interrupted more than --max_restarts='
          f'{self.flags.max_restarts} times. The same command resumes from its '
          'last checkpoint.'
        )
      restarts += 1
      tpu_vm.say(f'Restart {restarts} of {self.flags.max_restarts}.')
      steps = [self._start]
      if state != tpu_vm.READY:
        steps = [self._create, self._install, self._start]
        time.sleep(_PAUSE)
        if state:
          # If this fails, the creation of the next VM reports it.
          with contextlib.suppress(tpu_vm.GcloudError):
            self.vm.delete()
