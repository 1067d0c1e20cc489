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

"""A command on a TPU VM, from the VM's creation to the command's end."""

from collections.abc import Iterator, Mapping, Sequence
import contextlib
import dataclasses
import os
import re
import shlex
import signal
import tempfile
import time

from salt_t5x.launch import checks, tpu_vm
from salt_t5x.launch.shell import CommandError, Shell

READY = 'READY'
# States of a VM that does not come back by itself.
GONE = ('PREEMPTED', 'STOPPED', 'TERMINATED')

# What workers run.
REMOTE = os.path.join(os.path.dirname(__file__), 'remote.sh')
# Exit codes after which the same command runs again:
# `runs.preemption.EXIT_CODE`; a worker that was restarted leaves none.
_AGAIN = {str(os.EX_TEMPFAIL), 'lost'}
_KILLED = {str(128 + signal.SIGTERM), str(128 + signal.SIGKILL)}

_PAUSE = 30  # seconds, before the cloud is asked again
_GRACE = 600  # seconds that other workers have to end after the first one
_STEADY = 300  # seconds after which a connection counts as a good one
_CONNECTIONS = 10  # that may fail one after the other


class RunError(RuntimeError):
  """The run is over, and has not finished."""


@dataclasses.dataclass(frozen=True)
class Program:
  """What is to run on every worker, and what it needs.

  Attributes:
    command: its arguments.
    environment: variables for it.
    secrets: variables whose values no command line and no log may show.
    files: paths on this machine, copied into the command's working directory;
      `REMOTE` and the next three are among them.
    wheel: of this package.
    setup_script: run by bash before the installation, or None.
    requirements: of pip, or None.
    python: Python there, which makes the virtual environment.
  """

  command: Sequence[str]
  environment: Mapping[str, str]
  secrets: Mapping[str, checks.Secret]
  files: Sequence[str]
  wheel: str
  setup_script: str | None
  requirements: str | None
  python: str


def delete(vm: tpu_vm.TpuVm, shell: Shell) -> None:
  """Deletes a VM, if it is there.

  Raises:
    CommandError: it may still be there.
  """
  try:
    shell.run(vm.delete(), 'Delete the VM.')
  except CommandError as e:
    if 'NOT_FOUND' not in e.stderr:
      raise


@dataclasses.dataclass
class TpuRun:
  """Runs a program on a TPU VM.

  Attributes:
    vm: the VM.
    program: the program.
    max_restarts: how often the program may be started again.
    shell: runs gcloud.
    owns_vm: whether this object may have created or taken over the VM, and so
      must delete it.
  """

  vm: tpu_vm.TpuVm
  program: Program
  max_restarts: int
  shell: Shell
  owns_vm: bool = False

  def state(self, pretend: str = READY) -> str:
    """Returns the VM's state, '' if there is no VM; `pretend` in a dry run.

    Raises:
      CommandError: it cannot be told.
    """
    try:
      state = self.shell.run(
        self.vm.describe(), 'Which state is the VM in?', pretend
      )
    except CommandError as e:
      if 'NOT_FOUND' in e.stderr:
        return ''
      raise
    return state.strip()

  def take_up(self) -> None:
    """Finds the run that is on the VM, which is this object's from here on.

    Raises:
      RunError: there is none.
    """
    try:
      self.shell.run(
        self.vm.ssh('0', ['ls', f'{tpu_vm.FOLDER}/pid']), 'Is a run there?', ''
      )
    except CommandError as e:
      raise RunError(
        f'No run was found on {self.vm.name}, which is left as it is: {e}\n'
        'If it is of no use, delete it with:\n'
        f'  {shlex.join(self.vm.delete())}'
      ) from e
    self.owns_vm = True

  def create(self) -> None:
    """Creates the VM."""
    owned = self.owns_vm
    self.owns_vm = True  # It may be there even if this fails.
    try:
      self.shell.run(self.vm.create(), 'Create the VM.')
    except CommandError as e:
      if not owned and 'ALREADY_EXISTS' in e.stderr:
        self.owns_vm = False  # Somebody was quicker: it is theirs.
      raise

  def _install(self) -> None:
    run, vm, program = self.shell.run, self.vm, self.program
    self._make_folder()
    run(
      vm.copy(program.files, f'{tpu_vm.FILES}/'),
      'Copy what the run needs.',
    )
    words = [program.python]
    for path in (program.wheel, program.setup_script, program.requirements):
      words.append(os.path.basename(path or ''))
    run(vm.remote('all', 'install', *words), 'Install it.')

  def _make_folder(self) -> None:
    folders = [tpu_vm.FOLDER, tpu_vm.FILES]
    for attempt in range(1, _CONNECTIONS + 1):
      try:
        self.shell.run(
          self.vm.ssh('all', ['mkdir', '-p', '-m', '700', *folders]),
          'Make a folder on every worker.',
        )
        break
      except CommandError:
        # A new VM is READY some time before it answers.
        if attempt == _CONNECTIONS or not self._may_be_ready():
          raise
        time.sleep(_PAUSE)

  def _start(self) -> None:
    program = self.program
    if program.secrets:
      with self._secrets_file() as path:
        self.shell.run(
          self.vm.copy([path], tpu_vm.SECRETS),
          f'Copy the secrets ({", ".join(program.secrets)}); the run deletes '
          'the file once it has read it.',
        )
    command = list(program.command)
    if program.environment:
      settings = [f'{k}={v}' for k, v in program.environment.items()]
      command = ['env', *settings, *command]
    self.shell.run(
      self.vm.remote('all', 'start', *command),
      'Start the run; it does not need this connection.',
    )

  @contextlib.contextmanager
  def _secrets_file(self) -> Iterator[str]:
    if self.shell.dry_run:
      yield os.path.join(tempfile.gettempdir(), '...', 'secrets')
      return
    # On the workers it is as private as here: scp keeps the mode.
    with tempfile.TemporaryDirectory() as folder:
      path = os.path.join(folder, 'secrets')
      with open(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600), 'w') as f:
        f.write(checks.shell_settings(self.program.secrets))
      yield path

  def _follow(self) -> set[str]:
    """Shows the log to the run's end.

    Returns:
      The workers' exit codes; 'lost' of a worker that left none.

    Raises:
      CommandError: the workers cannot be reached.
      RunError: they did not say how the run ended.
    """
    failed = 0
    while True:
      start = time.monotonic()
      try:
        self.shell.run(
          self.vm.remote('0', 'follow'), 'Show the log of the first worker.'
        )
        said = self.shell.run(
          self.vm.remote('all', 'result', str(_GRACE)),
          'How did the run end on every worker?',
          pretend='exit_code=0',
        )
        break
      except CommandError:
        failed = 1 if time.monotonic() - start > _STEADY else failed + 1
        if failed == _CONNECTIONS or not self._may_be_ready():
          raise
        self.shell.say('The connection broke, and the run may go on.')
        time.sleep(_PAUSE)
    codes = set(re.findall(r'^exit_code=(\w+)$', said, re.M))
    if not codes:
      raise RunError(f'The workers did not say how the run ended: {said!r}.')
    return codes

  def _may_be_ready(self) -> bool:
    try:
      return self.state() == READY
    except CommandError:
      return True  # This machine may have lost its network.

  def run(self, is_running: bool = False) -> None:
    """Runs the program to its end, on a new VM.

    Args:
      is_running: whether it already runs on the VM, see `take_up`.

    Raises:
      CommandError: a step failed, and the VM is not gone.
      RunError: the program failed, or was stopped too often.
    """
    if not is_running:
      # Of the first creation a failure is final: the name, the quota, ...
      self.create()
    has_vm, is_installed = True, is_running
    for restart in range(self.max_restarts + 1):
      codes, error = set(), None
      try:
        if not has_vm:
          self.create()
        if not is_installed:
          self._install()
        if not is_running:
          self._start()
        codes = self._follow()
      except CommandError as e:
        error = e
      if codes == {'0'}:
        return
      if error or codes & (_AGAIN | _KILLED):
        # A VM that is being taken away does not say so at once.
        time.sleep(_PAUSE)
      state = self.state()
      has_vm = is_installed = state == READY
      is_running = False
      if has_vm and error:
        raise error
      if has_vm and codes - _AGAIN - {'0'}:
        raise RunError(
          f'The run ended with exit code {", ".join(sorted(codes))}; to start '
          'it again would not mend that. Its log is above.'
        )
      why = error or f'The run ended with exit code {", ".join(sorted(codes))}'
      self.shell.say(f'{why}. The VM is {state or "gone"}.')
      if restart < self.max_restarts:
        self.shell.say(f'Restart {restart + 1} of {self.max_restarts}.')
        if not has_vm:
          time.sleep(_PAUSE)
        if state and not has_vm:
          # What stops it from being deleted stops the next one's creation.
          with contextlib.suppress(CommandError):
            delete(self.vm, self.shell)
    raise RunError(
      f'The run was stopped, and --max_restarts={self.max_restarts} is used '
      'up. The same command goes on from its last checkpoint.'
    )
