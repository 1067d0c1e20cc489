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

"""Runs commands and shows them, or only shows them."""

from collections.abc import Sequence
import shlex
import subprocess
import sys


class CommandError(RuntimeError):
  """A command failed.

  Attributes:
    stderr: what it wrote there.
  """

  def __init__(self, argv: Sequence[str], code: int, stderr: str, shown: bool):
    """Constructor.

    Args:
      argv: of the command.
      code: its exit code.
      stderr: what it wrote there.
      shown: whether that was seen; if not, the message has it.
    """
    unseen = '' if shown else f'\n{stderr.rstrip()}'
    super().__init__(f'Exit code {code} of: {shlex.join(argv)}{unseen}')
    self.stderr = stderr


class Shell:
  """Runs commands one after the other.

  Attributes:
    dry_run: whether commands are only shown. What is shown is the same.
  """

  def __init__(self, dry_run: bool):
    self.dry_run = dry_run

  def say(self, text: str) -> None:
    """Shows a comment."""
    for line in text.splitlines():
      print(f'# {line}', flush=True)

  def run(
    self,
    argv: Sequence[str],
    purpose: str,
    pretend: str | None = None,
  ) -> str:
    """Runs a command.

    Args:
      argv: of it; no shell reads them.
      purpose: a comment.
      pretend: in a dry run, what the command would write. If given, its
        output is returned, not shown.

    Returns:
      What it wrote to stdout if `pretend` is given.

    Raises:
      CommandError: it failed.
    """
    self.say(purpose)
    print(shlex.join(argv), flush=True)
    if self.dry_run:
      return pretend or ''
    try:
      process = subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE if pretend is not None else None,
        # Both shown and kept: an error's kind is told by its text alone.
        stderr=subprocess.PIPE,
        text=True,
        errors='replace',
      )
    except FileNotFoundError as e:
      stderr = f'{argv[0]} is not on the PATH: install it.'
      raise CommandError(argv, 127, stderr, shown=False) from e
    try:
      if pretend is not None:
        stdout, stderr = process.communicate()
      else:
        stdout, lines = '', []
        for line in process.stderr:
          sys.stderr.write(line)
          sys.stderr.flush()
          lines = [*lines[-99:], line]
        stderr = ''.join(lines)
        process.wait()
    except BaseException:
      process.terminate()
      process.wait()
      raise
    if process.returncode:
      raise CommandError(
        argv, process.returncode, stderr, shown=pretend is None
      )
    return stdout
