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

import collections
from collections.abc import Sequence
import dataclasses
import shlex
import subprocess
import sys


class CommandError(RuntimeError):
  """A command failed.

  Attributes:
    stderr: the end of its standard error.
  """

  def __init__(self, argv: Sequence[str], code: int, stderr: str, shown: bool):
    """Constructor.

    Args:
      argv: the command's arguments.
      code: its exit code.
      stderr: the end of its standard error.
      shown: whether `stderr` was shown; if not, the message includes it.
    """
    unseen = '' if shown else f'\n{stderr.rstrip()}'
    super().__init__(f'Exit code {code} of: {shlex.join(argv)}{unseen}')
    self.stderr = stderr


@dataclasses.dataclass
class Shell:
  """Runs commands one after the other.

  Attributes:
    dry_run: whether commands are only shown. What is shown is the same.
  """

  dry_run: bool

  def say(self, text: str) -> None:
    """Shows a comment."""
    for line in text.splitlines():
      print(f'# {line}', flush=True)

  def run(
    self, argv: Sequence[str], purpose: str, pretend: str | None = None
  ) -> str:
    """Runs a command.

    Args:
      argv: the command's arguments, without shell syntax.
      purpose: a comment that is shown before the command.
      pretend: the output of the command in a dry run. If given, the output is
        returned, not shown.

    Returns:
      The command's standard output if `pretend` is given, else ''.

    Raises:
      CommandError: the command failed.
    """
    self.say(purpose)
    print(shlex.join(argv), flush=True)
    if self.dry_run:
      return pretend or ''
    shown = pretend is None
    try:
      process = subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=None if shown else subprocess.PIPE,
        # Shown and kept: only its text says what kind of error it is.
        stderr=subprocess.PIPE,
        text=True,
        errors='replace',
      )
    except FileNotFoundError as e:
      stderr = f'{argv[0]} is not on the PATH: install it.'
      raise CommandError(argv, 127, stderr, shown=False) from e
    lines = collections.deque(maxlen=100)
    try:
      if shown:
        for line in process.stderr:
          print(line, end='', file=sys.stderr, flush=True)
          lines.append(line)
      stdout, rest = process.communicate()
    except BaseException:
      process.terminate()
      process.wait()
      raise
    if process.returncode:
      stderr = ''.join(lines) + rest
      raise CommandError(argv, process.returncode, stderr, shown)
    return stdout or ''
