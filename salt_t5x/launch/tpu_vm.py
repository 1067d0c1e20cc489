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

"""A TPU VM, reached with gcloud."""

from collections.abc import Sequence
import dataclasses
import shlex
import subprocess
import sys

READY = 'READY'

# Paths in the home directory of each worker.
FOLDER = 'salt_t5x_run'
FILES = f'{FOLDER}/files'
SECRETS = f'{FOLDER}/secrets'


class RunError(RuntimeError):
  """The run ended without finishing."""


class GcloudError(RunError):
  """A gcloud command failed."""


def say(text: str) -> None:
  """Shows a comment."""
  for line in text.splitlines():
    print(f'# {line}', flush=True)


@dataclasses.dataclass(frozen=True)
class TpuVm:
  """A TPU VM: a slice with one worker or several.

  The methods show the commands that they run, and raise `GcloudError` if one
  fails.

  Attributes:
    name: the VM's name.
    zone: the VM's zone.
    project: the VM's project; None for gcloud's default.
    accelerator_type: e.g. 'v5litepod-16'.
    version: the software version.
    spot: whether it may be preempted.
    dry_run: whether commands are only shown.
  """

  name: str
  zone: str
  project: str | None = None
  accelerator_type: str | None = None
  version: str | None = None
  spot: bool = False
  dry_run: bool = False

  def _command(self, *words: str) -> list[str]:
    where = [f'--zone={self.zone}']
    if self.project:
      where.append(f'--project={self.project}')
    # --quiet: gcloud must not ask questions.
    return ['gcloud', 'compute', 'tpus', 'tpu-vm', *words, *where, '--quiet']

  def _run(self, purpose: str, *words: str, pretend: str | None = None) -> str:
    """Runs gcloud.

    Args:
      purpose: a comment that is shown before the command.
      *words: the command's arguments.
      pretend: the command's output in a dry run. If given, the output is
        returned, not shown.
    """
    argv = self._command(*words)
    say(purpose)
    print(shlex.join(argv), flush=True)
    if self.dry_run:
      return pretend or ''
    try:
      done = subprocess.run(
        argv,
        stdin=subprocess.DEVNULL,
        capture_output=pretend is not None,
        text=True,
        errors='replace',
        check=False,
      )
    except FileNotFoundError as e:
      raise GcloudError('gcloud is not on the PATH: install it.') from e
    errors = done.stderr or ''
    if done.returncode:
      raise GcloudError(
        f'Exit code {done.returncode} of: {shlex.join(argv)}\n{errors}'.rstrip()
      )
    print(errors, end='', file=sys.stderr)
    return done.stdout or ''

  def state(self, pretend: str = READY) -> str:
    """Returns the VM's state, '' if there is no VM; `pretend` in a dry run."""
    words = ('describe', self.name, '--format=value(state)')
    try:
      return self._run('Read the VM state.', *words, pretend=pretend).strip()
    except GcloudError as e:
      if 'NOT_FOUND' in str(e):
        return ''
      raise

  def create(self) -> None:
    """Creates the VM."""
    self._run(
      'Create the VM.',
      'create',
      self.name,
      f'--accelerator-type={self.accelerator_type}',
      f'--version={self.version}',
      *(['--spot'] if self.spot else []),
      pretend='',
    )

  @property
  def delete_command(self) -> str:
    """The command that deletes the VM."""
    return shlex.join(self._command('delete', self.name))

  def delete(self) -> None:
    """Deletes the VM if it exists."""
    try:
      self._run('Delete the VM.', 'delete', self.name, pretend='')
    except GcloudError as e:
      if 'NOT_FOUND' not in str(e):
        raise

  def copy(self, purpose: str, paths: Sequence[str], target: str) -> None:
    """Copies files and folders to all workers."""
    words = ('--recurse', '--worker=all', *paths, f'{self.name}:{target}')
    self._run(purpose, 'scp', *words)

  def ssh(
    self, purpose: str, worker: str, *words: str, pretend: str | None = None
  ) -> str:
    """Runs a command on one worker or on 'all'; see `_run` for `pretend`."""
    # A shell on the worker parses it.
    where = ('ssh', self.name, f'--worker={worker}')
    command = f'--command={shlex.join(words)}'
    return self._run(purpose, *where, command, pretend=pretend)

  def remote(
    self, purpose: str, worker: str, *words: str, pretend: str | None = None
  ) -> str:
    """Runs a function of `remote.sh` on workers, after `copy`."""
    script = ('bash', f'{FILES}/remote.sh')
    return self.ssh(purpose, worker, *script, *words, pretend=pretend)
