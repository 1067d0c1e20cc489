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
# States that a VM does not leave by itself.
GONE = ('PREEMPTED', 'STOPPED', 'TERMINATED')

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


class RunError(RuntimeError):
  """The run ended without finishing."""


@dataclasses.dataclass(frozen=True)
class Program:
  """A command for every worker, and the files and variables it needs.

  Attributes:
    command: the command's arguments.
    environment: environment variables of the command.
    secrets: environment variables whose values are never shown.
    files: paths on this machine, copied into the command's working directory;
      `REMOTE` and the next three are among them.
    wheel: this package's wheel.
    setup_script: a bash script that runs before the installation, or None.
    requirements: pip's requirements file, or None.
    python: the workers' Python, which creates the virtual environment.
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
  """Deletes a VM if it exists.

  Raises:
    CommandError: the VM may still exist.
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
    max_restarts: how often the program may be restarted.
    shell: runs gcloud.
    owns_vm: whether this object created or took over the VM, and therefore
      deletes it.
  """

  vm: tpu_vm.TpuVm
  program: Program
  max_restarts: int
  shell: Shell
  owns_vm: bool = False

  def state(self, pretend: str = READY) -> str:
    """Returns the VM's state, '' if there is no VM; `pretend` in a dry run.

    Raises:
      CommandError: the state is unknown.
    """
    try:
      state = self.shell.run(
        self.vm.describe(), 'Read the state of the VM.', pretend
      )
    except CommandError as e:
      if 'NOT_FOUND' in e.stderr:
        return ''
      raise
    return state.strip()

  def take_over(self) -> None:
    """Finds the run on the VM, and owns the VM from then on.

    Raises:
      RunError: the VM has no run.
    """
    try:
      self.shell.run(
        self.vm.ssh('0', ['ls', f'{tpu_vm.FOLDER}/pid']),
        'Does the VM have a run?',
        '',
      )
    except CommandError as e:
      raise RunError(
        f'{self.vm.name} has no run, and was not changed: {e}\n'
        'To delete the VM:\n'
        f'  {shlex.join(self.vm.delete())}'
      ) from e
    self.owns_vm = True

  def create(self) -> None:
    """Creates the VM."""
    owned = self.owns_vm
    self.owns_vm = True  # It may exist even if this fails.
    try:
      self.shell.run(self.vm.create(), 'Create the VM.')
    except CommandError as e:
      if not owned and 'ALREADY_EXISTS' in e.stderr:
        self.owns_vm = False  # Somebody else created it.
      raise

  def _install(self) -> None:
    run, vm, program = self.shell.run, self.vm, self.program
    self._make_folder()
    run(
      vm.copy(program.files, f'{tpu_vm.FILES}/'),
      "Copy the run's files.",
    )
    words = [program.python]
    for path in (program.wheel, program.setup_script, program.requirements):
      words.append(os.path.basename(path or ''))
    run(vm.remote('all', 'install', *words), 'Install this package.')

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
        # A new VM is READY some time before it accepts connections.
        if attempt == _CONNECTIONS or not self._may_be_ready():
          raise
        time.sleep(_PAUSE)

  def _start(self) -> None:
    program = self.program
    if program.secrets:
      with self._secrets_file() as path:
        self.shell.run(
          self.vm.copy([path], tpu_vm.SECRETS),
          f'Copy the secrets ({", ".join(program.secrets)}); the run reads '
          'and deletes the file.',
        )
    command = list(program.command)
    if program.environment:
      settings = [f'{k}={v}' for k, v in program.environment.items()]
      command = ['env', *settings, *command]
    self.shell.run(
      self.vm.remote('all', 'start', *command),
      'Start the run, detached from this connection.',
    )

  @contextlib.contextmanager
  def _secrets_file(self) -> Iterator[str]:
    if self.shell.dry_run:
      yield os.path.join(tempfile.gettempdir(), '...', 'secrets')
      return
    # scp keeps the mode: the file is private on the workers, too.
    with tempfile.TemporaryDirectory() as folder:
      path = os.path.join(folder, 'secrets')
      with open(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600), 'w') as f:
        f.write(checks.shell_settings(self.program.secrets))
      yield path

  def _follow(self) -> set[str]:
    """Shows the log until the run ends.

    Returns:
      The workers' exit codes; 'lost' for a worker that left none.

    Raises:
      CommandError: the workers cannot be reached.
      RunError: the workers reported no exit codes.
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
          'Read the exit code of every worker.',
          pretend='exit_code=0',
        )
        break
      except CommandError:
        failed = 1 if time.monotonic() - start > _STEADY else failed + 1
        if failed == _CONNECTIONS or not self._may_be_ready():
          raise
        self.shell.say('The connection was lost; the run may continue.')
        time.sleep(_PAUSE)
    codes = set(re.findall(r'^exit_code=(\w+)$', said, re.M))
    if not codes:
      raise RunError(f'The workers reported no exit codes: {said!r}.')
    return codes

  def _may_be_ready(self) -> bool:
    try:
      return self.state() == READY
    except CommandError:
      return True  # This machine may have lost its network.

  def run(self, is_running: bool = False) -> None:
    """Runs the program to its end, on new VMs if need be.

    Args:
      is_running: whether the program already runs on the VM.

    Raises:
      CommandError: a step failed on a VM that still exists.
      RunError: the program failed, or was interrupted too often.
    """
    if not is_running:
      # If the first creation fails, e.g. for lack of quota, so does the run.
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
        # A preemption changes the VM's state only after a while.
        time.sleep(_PAUSE)
      state = self.state()
      has_vm = is_installed = state == READY
      is_running = False
      if has_vm and error:
        raise error
      if has_vm and codes - _AGAIN - {'0'}:
        raise RunError(
          f'The run ended with exit code {", ".join(sorted(codes))}, which a '
          'restart does not mend. Its log is above.'
        )
      why = error or f'The run ended with exit code {", ".join(sorted(codes))}'
      self.shell.say(f'{why}. The VM is {state or "gone"}.')
      if restart < self.max_restarts:
        self.shell.say(f'Restart {restart + 1} of {self.max_restarts}.')
        if not has_vm:
          time.sleep(_PAUSE)
        if state and not has_vm:
          # If this fails, the creation of the next VM reports it.
          with contextlib.suppress(CommandError):
            delete(self.vm, self.shell)
    raise RunError(
      f'The run was interrupted more than --max_restarts={self.max_restarts} '
      'times. The same command resumes from its last checkpoint.'
    )
