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
time and memory, and a seccomp filter: it may compute and read files, and the
kernel kills it when it asks for anything else, such as a file to write, a
socket or another process. What it reads has no way out. Linux only; no
privileges and no containers are needed.
"""

from collections.abc import Sequence
import contextlib
import dataclasses
import functools
import json
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

from salt_t5x import sandbox_child

_CHILD = pathlib.Path(sandbox_child.__file__)
# Of what a program may say about its end.
_REPLY_BYTES = 4096


@dataclasses.dataclass(frozen=True)
class Outcome:
  """How a program did.

  Attributes:
    passed: whether it ran to the end of its tests.
    reason: 'passed', or what went wrong.
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
  if not harmless.passed or 'forbidden' not in harmful.reason:
    raise RuntimeError(
      f'Programs cannot be run safely here: a harmless one ended with '
      f'{harmless.reason!r}, and one that opens a socket with '
      f'{harmful.reason!r}. The kernel needs seccomp filters. Set RUN_PROGRAMS '
      '= False, or evaluate on another machine.'
    )


def run(
  program: str,
  tests: Sequence[str],
  setup: str = '',
  seconds: float = 3.0,
  megabytes: int = 256,
) -> Outcome:
  """Runs a program, and then its tests.

  Args:
    program: Python source.
    tests: statements that raise if the program is wrong; challenge tests are
      left out by the caller.
    setup: source that runs before the tests.
    seconds: of time, waiting included.
    megabytes: of address space, Python's own 30 included.

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
  job = json.dumps([program, setup, list(tests), seconds, megabytes]).encode()
  # The process says it after the last test, and reads it only then.
  token = secrets.token_hex(16).encode()
  job_out, job_in = os.pipe()
  reply_out, reply_in = os.pipe()
  with tempfile.TemporaryDirectory() as folder:
    process = subprocess.Popen(
      # Without site-packages, the environment's variables and .pyc files.
      [sys.executable, '-I', '-S', '-B', _CHILD, str(job_out), str(reply_in)],
      stdin=subprocess.DEVNULL,
      stdout=subprocess.DEVNULL,
      stderr=subprocess.DEVNULL,
      cwd=folder,
      env={},
      pass_fds=(job_out, reply_in),
      start_new_session=True,
    )
    os.close(job_out)
    os.close(reply_in)
    try:
      deadline = time.monotonic() + seconds
      # If it has ended already, its reply says how.
      with contextlib.suppress(BrokenPipeError), os.fdopen(job_in, 'wb') as f:
        f.write(len(job).to_bytes(8, 'big') + job + token)
      reply = _read(reply_out, deadline)
      if reply is None:
        return Outcome(False, 'time')
      if len(reply) > _REPLY_BYTES:
        return Outcome(False, 'it says too much')
      # A program may close its end of the pipe and go on.
      process.wait(max(deadline - time.monotonic(), 0.0))
    except subprocess.TimeoutExpired:
      return Outcome(False, 'time')
    finally:
      os.close(reply_out)
      process.kill()
      process.wait()
  if reply == token and process.returncode == 0:
    return Outcome(True, 'passed')
  if process.returncode == -signal.SIGSYS:
    return Outcome(False, 'forbidden: it asked for more than to compute')
  if process.returncode == -signal.SIGXCPU:
    return Outcome(False, 'time')
  text = reply.decode(errors='replace').strip()
  return Outcome(False, text or f'it ended early ({process.returncode})')


def _read(file: int, deadline: float) -> bytes | None:
  """What is written until the other end is closed; None if that takes long.

  Of more than `_REPLY_BYTES`, the beginning.
  """
  data = b''
  while len(data) <= _REPLY_BYTES:
    left = deadline - time.monotonic()
    if left <= 0 or not select.select([file], [], [], left)[0]:
      return None
    part = os.read(file, _REPLY_BYTES)
    if not part:
      return data
    data += part
  return data
