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

"""The gcloud commands for a TPU VM, as lists of arguments."""

from collections.abc import Sequence
import dataclasses
import shlex

_GCLOUD = ('gcloud', 'compute', 'tpus', 'tpu-vm')

# Paths in the home directory of each worker.
FOLDER = 'salt_t5x_run'
FILES = f'{FOLDER}/files'
SECRETS = f'{FOLDER}/secrets'


@dataclasses.dataclass(frozen=True)
class TpuVm:
  """A TPU VM: a slice with one worker or several.

  Attributes:
    name: the VM's name.
    zone: the VM's zone.
    project: the VM's project; None for gcloud's default.
    accelerator_type: e.g. 'v5litepod-16'.
    version: the software version.
    spot: whether it may be preempted.
  """

  name: str
  zone: str
  project: str | None = None
  accelerator_type: str = ''
  version: str = ''
  spot: bool = False

  def _command(self, *words: str) -> list[str]:
    where = [f'--zone={self.zone}']
    if self.project:
      where.append(f'--project={self.project}')
    # --quiet: gcloud must not ask questions.
    return [*_GCLOUD, *words, *where, '--quiet']

  def describe(self) -> list[str]:
    """Prints the VM's state, such as READY."""
    return self._command('describe', self.name, '--format=value(state)')

  def create(self) -> list[str]:
    """Creates the VM."""
    return self._command(
      'create',
      self.name,
      f'--accelerator-type={self.accelerator_type}',
      f'--version={self.version}',
      *(['--spot'] if self.spot else []),
    )

  def delete(self) -> list[str]:
    """Deletes the VM."""
    return self._command('delete', self.name)

  def copy(self, paths: Sequence[str], target: str) -> list[str]:
    """Copies files and folders to all workers."""
    return self._command(
      'scp', '--recurse', '--worker=all', *paths, f'{self.name}:{target}'
    )

  def ssh(self, worker: str, command: Sequence[str]) -> list[str]:
    """Runs a command, given as its arguments, on one worker or on 'all'."""
    # A shell on the worker parses it.
    command = f'--command={shlex.join(command)}'
    return self._command('ssh', self.name, f'--worker={worker}', command)

  def remote(self, worker: str, *words: str) -> list[str]:
    """Runs a function of `remote.sh` on workers, after `copy`."""
    return self.ssh(worker, ['bash', f'{FILES}/remote.sh', *words])
