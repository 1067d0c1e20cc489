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


"""Programs that want to do harm, and some that do not."""

import platform
import sys

import pytest

from salt_t5x import sandbox, sandbox_child

pytestmark = pytest.mark.skipif(
  sys.platform != 'linux'
  or platform.machine() not in sandbox_child.ARCHITECTURES,
  reason='Programs run only on Linux, x86_64 or aarch64.',
)

# Of a machine that does much else.
AMPLE = 60.0
FORBIDDEN = 'forbidden: it asked for more than to compute'


def run(program, *tests, **options):
  return sandbox.run(program, tests, **({'seconds': AMPLE} | options))


def test_right_and_wrong():
  program = 'def add(a, b):\n  return a + b'
  assert run(program, 'assert add(1, 2) == 3') == sandbox.Outcome(
    True, 'passed'
  )
  tests = ['assert add(1, 2) == 3', 'assert add(1, 2) == 4']
  assert run(program, *tests).reason.startswith('AssertionError')
  assert run('def add(a b)', tests[0]).reason.startswith('SyntaxError')
  assert run('', tests[0]).reason.startswith('NameError')
  assert run('', 'assert y == 2', setup='y = 2').passed


MODULES = (
  'array bisect calendar cmath collections copy dataclasses datetime decimal '
  'enum fractions functools hashlib heapq itertools json math operator random '
  're statistics string textwrap time typing'
)


def test_what_solutions_import():
  program = f'import {", ".join(MODULES.split())}\n' + (
    'print("x")\ntime.sleep(0.001)\nassert 0 <= random.random() < 1\n'
    'datetime.datetime.now().astimezone()\nopen(re.__file__).read()\n'
    'def deep(n):\n  return n and 1 + deep(n - 1)\n'
  )
  assert run(program, 'assert deep(500) == 500').passed


@pytest.mark.parametrize(
  'program',
  [
    'import socket; socket.socket()',
    'try:\n  import socket; socket.socket()\nexcept BaseException: pass',
    'import os; os.system("true")',
    'import subprocess; subprocess.run(["true"])',
    'import os\nwhile True: os.fork()',
    'import threading; threading.Thread(target=print).start()',
    'import os; os.kill(os.getppid(), 9)',
    'import os; os.kill(-1, 9)',
    'import os; os.execv("/bin/true", ["true"])',
    'import ctypes; ctypes.CDLL(None).prctl(22, 0)',
    'import ctypes; ctypes.CDLL(None).syscall(425, 8, 0)',  # io_uring_setup
    'import resource; resource.setrlimit(7, (9, 9))',
    'import os; os.setuid(12345)',
    'import os; os.memfd_create("x")',
    'import os; os.pipe()',
    'import fcntl, os; fcntl.fcntl(1, 8, os.getppid())',  # F_SETOWN
  ],
)
def test_what_is_forbidden(program):
  # Even a program that goes on as if nothing had happened is wrong.
  assert run(program, 'assert True') == sandbox.Outcome(False, FORBIDDEN)


@pytest.mark.parametrize(
  'program',
  [
    'open({new!r}, "w")',
    'open({old!r}, "w")',
    'open({old!r}, "a")',
    'open({old!r}, "r+")',
    'import os; os.open({new!r}, os.O_CREAT)',
    'import os; os.open({old!r}, os.O_TRUNC)',
    'import os; os.open({folder!r}, os.O_TMPFILE | os.O_RDWR)',
    'import os; os.remove({old!r})',
    'import os; os.rename({old!r}, {new!r})',
    'import os; os.mkdir({new!r})',
    'import os; os.symlink({old!r}, {new!r})',
    'import os; os.link({old!r}, {new!r})',
    'import os; os.truncate({old!r}, 0)',
    'import os; os.chmod({old!r}, 0)',
    'import os; os.utime({old!r}, (1, 1))',
    'import os; os.setxattr({old!r}, "user.x", b"1")',
    'import os; os.mkfifo({new!r})',
    'import shutil; shutil.rmtree({folder!r})',
    'import tempfile; tempfile.TemporaryFile()',
    'open("here", "w")',
  ],
)
def test_files_stay_as_they_are(program, tmp_path):
  old = tmp_path / 'old'
  old.write_text('kept')
  before = old.stat()
  names = {
    'old': str(old),
    'new': str(tmp_path / 'new'),
    'folder': str(tmp_path),
  }
  program = program.format(**names)
  found = run(f'try:\n  {program}\nexcept Exception: pass', 'assert True')
  assert found == sandbox.Outcome(False, FORBIDDEN)
  assert old.read_text() == 'kept'
  assert [x.name for x in tmp_path.iterdir()] == ['old']
  after = old.stat()
  assert (after.st_mode, after.st_mtime) == (before.st_mode, before.st_mtime)


@pytest.mark.parametrize(
  'program, reason',
  [
    ('import sys; sys.exit(0)', 'SystemExit: 0'),
    ('raise SystemExit', 'SystemExit'),
    ('import os; os._exit(0)', 'it ended early (0)'),
    ('raise KeyboardInterrupt', 'KeyboardInterrupt'),
    ('import signal; signal.raise_signal(9)', FORBIDDEN),
    # What it writes to the pipe is not the token.
    ('import os\nfor f in range(3, 512):\n  try: os.write(f, b"passed")\n'
     '  except OSError: pass\nos._exit(0)', 'passed'),
    ('import os; os.write = os._exit = print; raise ValueError("a")',
     'ValueError: a'),
    ('raise ValueError("\\udcff" * 9)', 'ValueError: ?????????'),
    ('class E(Exception):\n  def __str__(self): raise self\nraise E',
     'it ended early (1)'),
  ],
)  # fmt: skip
def test_ending_early_is_no_success(program, reason):
  found = run(program, 'assert True')
  assert not found.passed and found.reason.startswith(reason)


@pytest.mark.parametrize(
  'program',
  [
    'while True: pass',
    'while True: print("x" * 10000)',
    'import time; time.sleep(1000)',
    'import signal\nfor s in (2, 15, 24): signal.signal(s, signal.SIG_IGN)\n'
    'while True: pass',
    'print(9 ** 9 ** 9)',
  ],
)
def test_time_is_limited(program):
  assert run(program, seconds=0.7) == sandbox.Outcome(False, 'time')


@pytest.mark.parametrize(
  'program',
  [
    'x = []\nwhile True: x.append("x" * 10**6)',
    'bytearray(10**12)',
    'import mmap; mmap.mmap(-1, 10**10)',
  ],
)
def test_memory_is_limited(program):
  found = run(program)
  assert not found.passed
  assert found.reason.startswith(('MemoryError', 'OSError', 'it ended early'))


def test_endless_replies_are_cut():
  program = (
    'import os\nwhile True:\n  for f in range(3, 512):\n'
    '    try: os.write(f, b"x" * 10000)\n    except OSError: pass'
  )
  assert run(program) == sandbox.Outcome(False, 'it says too much')


def test_a_closed_reply_ends_nothing():
  program = (
    'import os\nfor f in range(3, 512):\n  try: os.close(f)\n'
    '  except OSError: pass\nwhile True: pass'
  )
  assert run(program, seconds=0.7) == sandbox.Outcome(False, 'time')


def test_where_there_is_no_filter(monkeypatch):
  monkeypatch.setattr(platform, 'machine', lambda: 'riscv64')
  sandbox.check.cache_clear()
  with pytest.raises(RuntimeError, match='not on linux, riscv64.*RUN_PROGRAMS'):
    run('x = 1')
  monkeypatch.undo()
  sandbox.check.cache_clear()
  outcome = sandbox.Outcome(True, 'passed')
  monkeypatch.setattr(sandbox, '_run', lambda *args: outcome)
  with pytest.raises(RuntimeError, match='The kernel needs seccomp'):
    run('x = 1')
