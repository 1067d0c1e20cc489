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
import contextlib
import dataclasses
import functools
import marshal
import os
import pathlib
import platform
import secrets
import select
import signal
import subprocess
import sys
import tempfile
import time

from salt_t5x.evaluation.few_shot import sandbox_child

_CHILD = pathlib.Path(sandbox_child.__file__)
# Limits of the reply.
_REPLY_BYTES = 4096
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
  harmless = _run('x = 1', ['assert x == 1'], '', 60.0, 256)
  harmful = _run('import socket\nsocket.socket()', [], '', 60.0, 256)
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
  """Runs a program, and then its tests.

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

  Raises:
    RuntimeError: programs cannot be run safely here.
  """
  check()
  return _run(program, tests, setup, seconds, megabytes)


def _run(
  program: str,
  tests: Sequence[str],
  setup: str,
  seconds: float,
  megabytes: int,
) -> Outcome:
  deadline = time.monotonic() + seconds
  # The process reads the token, and replies with it, after the last test.
  token = secrets.token_hex(sandbox_child.TOKEN_BYTES // 2).encode()
  with contextlib.ExitStack() as stack:
    folder = stack.enter_context(tempfile.TemporaryDirectory())
    # A file, because a pipe that nobody reads would block.
    job = stack.enter_context(tempfile.TemporaryFile())
    sources = map(str, [program, setup, *tests])
    marshal.dump([*sources, float(seconds), int(megabytes)], job)
    job.seek(0)
    token_out, token_in = _pipe(stack)
    token_in.write(token)
    token_in.close()
    reply_out, reply_in = _pipe(stack)
    files = [x.fileno() for x in (job, token_out, reply_in)]
    process = subprocess.Popen(
      # Without site-packages, the environment's variables and .pyc files.
      [sys.executable, '-I', '-S', '-B', _CHILD, *map(str, files)],
      stdin=subprocess.DEVNULL,
      stdout=subprocess.DEVNULL,
      stderr=subprocess.DEVNULL,
      cwd=folder,
      # Without it, some modules ask a name service for it, over a socket.
      env={'HOME': folder},
      pass_fds=files,
      start_new_session=True,
    )
    try:
      reply_in.close()
      reply = _read(reply_out.fileno(), deadline)
      # A program that still writes finds the pipe closed.
      reply_out.close()
      process.wait(max(0.0, deadline - time.monotonic()))
    except (TimeoutError, subprocess.TimeoutExpired):
      return Outcome(False, 'time')
    finally:
      # It has no children: the filter lets none be born.
      process.kill()
      process.wait()
  if reply == token and process.returncode == 0:
    return Outcome(True, 'passed')
  if process.returncode == -signal.SIGSYS:
    return Outcome(False, 'forbidden')
  # A program can have written anything, and the reason goes to logs.
  text = ' '.join(reply.decode(errors='replace').split())
  text = ''.join(x if x.isprintable() else '?' for x in text)
  if process.returncode < 0:
    text = f'killed: {signal.Signals(-process.returncode).name}'
  return Outcome(
    False,
    text[:_REASON_CHARACTERS] or f'it ended early ({process.returncode})',
  )


def _pipe(stack: contextlib.ExitStack):
  """A pipe's ends, to read and to write; closed with the stack."""
  out, into = os.pipe()
  return (
    stack.enter_context(os.fdopen(out, 'rb', 0)),
    stack.enter_context(os.fdopen(into, 'wb', 0)),
  )


def _read(file: int, deadline: float) -> bytes:
  """Reads at most `_REPLY_BYTES`, until the other end is closed.

  Raises:
    TimeoutError: it is still open at the deadline.
  """
  data = b''
  poll = select.poll()
  poll.register(file, select.POLLIN)
  while len(data) < _REPLY_BYTES:
    left = deadline - time.monotonic()
    if left <= 0 or not poll.poll(1000 * left):
      raise TimeoutError
    part = os.read(file, _REPLY_BYTES - len(data))
    if not part:
      break
    data += part
  return data
