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

"""Runs programs that a model wrote, so that they harm nothing (MBPP, App. F).

A program runs in a process of its own, which has an empty folder, limits of
time and memory, and two seccomp filters. It may compute. When it asks for a
file to write, a socket, another process or a signal to one, the kernel kills
it; a file to read is refused. Linux only; no privileges and no containers are
needed, and root's privileges do not help a program.

No program harms the machine, and none passes because it exits early, catches
what it raised or changes builtins. One that is written to cheat this module
can: it shares its process with the tests, as every program under test does.
"""

from collections.abc import Sequence
import dataclasses
import functools
import marshal
import pathlib
import platform
import secrets
import signal
import subprocess
import sys
import tempfile

from salt_t5x.evaluation.few_shot import sandbox_child

_CHILD = pathlib.Path(sandbox_child.__file__)
_REASON_CHARACTERS = 200


@dataclasses.dataclass(frozen=True)
class Outcome:
  """How a program did.

  Attributes:
    passed: whether it ran to the end of its tests.
    reason: 'passed', or what went wrong in one line: 'assertion', 'time',
      'memory', 'forbidden', an exception's type and message, or how the process
      ended.
  """

  passed: bool
  reason: str


@functools.cache
def check() -> None:
  """Makes sure that programs can be shut in here.

  Raises:
    RuntimeError: they cannot; the message says why.
  """
  machine = platform.machine()
  if sys.platform != 'linux' or machine not in sandbox_child.ARCHITECTURES:
    raise RuntimeError(
      f'Programs can only be run safely on Linux on '
      f'{list(sandbox_child.ARCHITECTURES)}, not on {sys.platform}, {machine}: '
      'set RUN_PROGRAMS = False, or evaluate on another machine.'
    )
  harmless = run('x = 1', ['assert x == 1'], seconds=60.0)
  harmful = run('import socket\nsocket.socket()', [], seconds=60.0)
  if not harmless.passed or harmful.reason != 'forbidden':
    raise RuntimeError(
      f'Programs cannot be run safely here: a harmless one ended with '
      f'{harmless.reason!r}, and one that opens a socket with '
      f'{harmful.reason!r}. The kernel needs seccomp filters '
      '(CONFIG_SECCOMP_FILTER), and a container must not forbid to install '
      'them. Set RUN_PROGRAMS = False, or evaluate on another machine.'
    )


def run(
  program: str,
  tests: Sequence[str],
  setup: str = '',
  seconds: float = 10.0,
  megabytes: int = 256,
) -> Outcome:
  """Runs a program, and then its tests; or nothing where it cannot be shut in.

  `check` tells the two apart.

  Args:
    program: Python source.
    tests: statements that raise if the program is wrong; challenge tests are
      left out by the caller.
    setup: source that runs between the program and the tests.
    seconds: wall-clock limit, including Python's start.
    megabytes: limit of address space, MiB, including Python's own 30.

  Returns:
    Passed only if the last test ran to its end: a program that exits before is
    wrong.
  """
  # The process reads the token, and replies with it, after the last test.
  token = secrets.token_hex(sandbox_child.TOKEN_BYTES // 2).encode()
  with (
    tempfile.TemporaryDirectory() as folder,
    tempfile.TemporaryFile() as job,
    # Files, because a pipe that nobody reads or writes would block.
    tempfile.TemporaryFile() as reply_file,
  ):
    sources = map(str, [program, setup, *tests])
    marshal.dump([*sources, float(seconds), int(megabytes)], job)
    job.write(token)
    job.seek(0)
    files = [job.fileno(), reply_file.fileno()]
    try:
      # It has no children to outlive it: the filter lets none be born.
      code = subprocess.run(
        # Without site-packages and .pyc files, and with no other path.
        [sys.executable, *['-P', '-s', '-S', '-B'], _CHILD, *map(str, files)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=folder,
        # Without HOME, some modules ask a name service for it, over a socket.
        # Sets have one order, so that a program always does the same.
        env={'HOME': folder, 'PYTHONHASHSEED': '0'},
        pass_fds=files,
        start_new_session=True,
        timeout=seconds,
        check=False,
      ).returncode
    except subprocess.TimeoutExpired:
      return Outcome(False, 'time')
    reply_file.seek(0)
    reply = reply_file.read()
  if reply == token and code == 0:
    return Outcome(True, 'passed')
  if code == -signal.SIGSYS:
    return Outcome(False, 'forbidden')
  # A program can have written anything, and the reason goes to logs.
  text = ' '.join(reply.decode(errors='replace').split())
  text = ''.join(x if x.isprintable() else '?' for x in text)
  if code < 0:
    text = f'killed: {signal.Signals(-code).name}'
  return Outcome(False, text[:_REASON_CHARACTERS] or f'it ended early ({code})')
