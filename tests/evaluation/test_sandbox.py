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

import os
import pathlib
import platform
import signal
import struct
import subprocess
import sys
import time

import pytest

from salt_t5x.evaluation.few_shot import sandbox, sandbox_child

pytestmark = pytest.mark.skipif(
  sys.platform != 'linux'
  or platform.machine() not in sandbox_child.ARCHITECTURES,
  reason='Programs run only on Linux, x86_64 or aarch64.',
)

# Seconds, enough on a busy machine.
AMPLE = 60.0
PASSED = sandbox.Outcome(True, 'passed')
FORBIDDEN = sandbox.Outcome(False, 'forbidden')


def run(program, *tests, **options):
  return sandbox.run(program, tests, **({'seconds': AMPLE} | options))


def test_right_and_wrong():
  program = 'def add(a, b):\n  return a + b'
  assert run(program, 'assert add(1, 2) == 3') == PASSED
  tests = ['assert add(1, 2) == 3', 'assert add(1, 2) == 4', 'assert add(1, 1)']
  assert run(program, *tests) == sandbox.Outcome(False, 'assertion')
  assert run('def add(a b)', tests[0]).reason.startswith('SyntaxError')
  assert run('', tests[0]).reason.startswith('NameError')
  assert run('', 'assert y == 2', setup='y = 2') == PASSED
  # A class may say that it equals everything.
  program = 'class Add:\n  def __eq__(self, x): return True\ndef add(a, b): '
  assert run(program + 'return Add()', *tests) == PASSED


def test_a_program_always_does_the_same():
  """Sets of strings have one order, which a program's result may hang on."""
  program = (
    'raise ValueError(list({"salt", "pepper", "mint", "dill", "thyme"}))'
  )
  reasons = {run(program).reason for _ in range(12)}
  assert len(reasons) == 1 and reasons.pop().startswith("ValueError: ['")


def test_main_block_is_not_run():
  program = 'def f(): return 1\nif __name__ == "__main__": print(input())'
  assert run(program, 'assert f() == 1') == PASSED


MODULES = """
array bisect calendar cmath codecs collections contextlib copy csv dataclasses
datetime decimal difflib enum fractions functools hashlib heapq inspect io
itertools json math numbers operator os.path pprint queue random re socket
statistics string struct subprocess sys textwrap threading time timeit traceback
typing unittest uuid warnings zoneinfo
"""


def test_allowed_imports():
  assert run(f'import {", ".join(MODULES.split())}', 'assert sys') == PASSED
  # They are found where they are used, too.
  program = 'def f():\n  from colorsys import rgb_to_hsv\n  return rgb_to_hsv'
  assert run(program, 'assert f()(0, 0, 0) == (0, 0, 0)') == PASSED
  # A program may do without a missing module.
  program = 'try: import numpy\nexcept ImportError: numpy = None'
  assert run(program, 'assert numpy is None') == PASSED
  # A name is not an import.
  assert run('this = trace = readline = 1', 'assert trace') == PASSED


@pytest.mark.parametrize(
  'program',
  [
    'from collections import Counter\n'
    'assert Counter("aab").most_common(1) == [("a", 2)]',
    'import collections; assert collections.Counter("a").copy() == {"a": 1}',
    'import statistics; assert statistics.mode("aab") == "a"',
    'from datetime import datetime\n'
    'assert datetime.strptime("2020", "%Y").year == 2020',
    'import time; assert time.strptime("2020", "%Y").tm_year == 2020',
    'import datetime; datetime.datetime.now().astimezone()',
    'import codecs; assert codecs.encode("abc", "rot13") == "nop"',
    'assert len("a".encode("utf-16")) == 4',
    'assert "\\N{BULLET}".encode("ascii", "namereplace") == b"\\\\N{BULLET}"',
    'import fractions, decimal as d\n'
    'assert fractions.Fraction.from_decimal(d.Decimal("1.5")) == 1.5',
    'import functools\n@functools.singledispatch\ndef kind(x): return "any"\n'
    '@kind.register\ndef _(x: int): return "int"\nassert kind(1) == "int"',
    'import dataclasses, typing\n@dataclasses.dataclass\n'
    'class Node:\n  next: "Node"\n'
    'assert typing.get_type_hints(Node) == {"next": Node}',
    'import json, traceback\ntry: json.loads("{")\n'
    'except ValueError: assert "JSONDecodeError" in traceback.format_exc()',
    'import warnings; warnings.warn("w")',
    'import re; assert re.sub("a", "b", "aa", 1) == "ba"',
    'import uuid; assert uuid.uuid3(uuid.NAMESPACE_DNS, "a").version == 3',
    'import random; random.seed("x"); assert 0 <= random.random() < 1',
    'import sys; sys.set_int_max_str_digits(0)\n'
    'assert int(str(7 ** 100000)) == 7 ** 100000',
    'def deep(n): return n and 1 + deep(n - 1)\nassert deep(900) == 900',
    'import time; time.sleep(0.001); print("x")',
  ],
)  # fmt: skip
def test_allowed_calls(program):
  # Some functions import more when they run.
  assert run(program) == PASSED


@pytest.mark.parametrize(
  'program',
  [
    'import socket; socket.socket()',
    'try:\n  import socket; socket.socket()\nexcept BaseException: pass',
    'import _socket; _socket.socket()',
    'import signal, socket\nsignal.signal(signal.SIGSYS, signal.SIG_IGN)\n'
    'socket.socket()',
    'import os; os.system("true")',
    'import subprocess; subprocess.run(["true"])',
    'import os\nwhile True: os.fork()',
    'import threading; threading.Thread(target=print).start()',
    'import os; os.kill(os.getppid(), 9)',
    'import os; os.kill(-1, 9)',
    'import os; os.execv("/bin/true", ["true"])',
    'import ctypes; ctypes.CDLL(None).prctl(22, 2, 0)',
    'import mmap; mmap.mmap(-1, 4096).madvise(100)',  # MADV_HWPOISON
    'import ctypes; ctypes.CDLL(None).syscall(425, 8, 0)',  # io_uring_setup
    'import resource; resource.setrlimit(7, (9, 9))',
    'import os; os.setuid(12345)',
    'import os; os.memfd_create("x")',
    'import os; os.pipe()',
    'import fcntl, os; fcntl.fcntl(1, 8, os.getppid())',  # F_SETOWN
  ],
)
def test_kills_forbidden_calls(program):
  # A program that catches the error is wrong, too.
  assert run(program, 'assert True') == FORBIDDEN


@pytest.mark.parametrize(
  'file', ['/etc/passwd', '{parent}', 'pipe', '/dev/tty']
)
def test_nothing_can_be_read(file, tmp_path):
  os.mkfifo(tmp_path / 'pipe')
  file = file.format(parent=f'/proc/{os.getpid()}/mem')
  found = run(f'open({str(tmp_path / file)!r}, "rb")', 'assert True')
  assert not found.passed and found.reason.startswith('PermissionError')
  # Where it did not matter, it does not count.
  program = f'import os\ntry: os.listdir({str(tmp_path)!r})\nexcept OSError: '
  assert run(program + 'x = 1', 'assert x') == PASSED


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
  assert found == FORBIDDEN
  assert old.read_text() == 'kept'
  assert [x.name for x in tmp_path.iterdir()] == ['old']
  after = old.stat()
  assert (after.st_mode, after.st_mtime) == (before.st_mode, before.st_mtime)


def test_a_folder_that_cannot_be_read_stays(tmp_path):
  (tmp_path / 'old').write_text('kept')
  program = (
    f'import shutil; shutil.rmtree({str(tmp_path)!r}, ignore_errors=True)'
  )
  # It is refused the list of files, and does not get as far as to be killed.
  run(program)
  assert (tmp_path / 'old').read_text() == 'kept'


@pytest.mark.parametrize(
  'program, reason',
  [
    ('import sys; sys.exit(0)', 'SystemExit: 0'),
    ('raise SystemExit', 'SystemExit'),
    ('import os; os._exit(0)', 'it ended early (0)'),
    ('raise KeyboardInterrupt', 'KeyboardInterrupt'),
    ('import signal; signal.raise_signal(9)', 'forbidden'),
    ('import sys; raise ValueError(sys.argv)', "ValueError: ['program']"),
    # It writes to the reply, but not the token.
    ('import os\nfor f in range(3, 512):\n  try: os.write(f, b"passed")\n'
     '  except OSError: pass\nos._exit(0)', 'passed'),
    ('import os; os.write = os._exit = print; raise ValueError("a")',
     'ValueError: a'),
    ('raise ValueError("\\udcff" * 9)', 'ValueError: ?????????'),
    # Neither bytes that are no text nor a terminal's commands reach the reason.
    ('import sys\nsys.stderr.buffer.write(b"\\xff" * 9)\n'
     'raise ValueError("a\\n\\x1b[2J")', 'ValueError: a ?[2J'),
    ('x = "\\udcff"; import sys; sys.stdout.write(x); raise ValueError(len(x))',
     'ValueError: 1'),
    ('raise ValueError("a" * 9999)', 'ValueError: ' + 'a' * 188),
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
    'import builtins; builtins.exec = builtins.compile = print',
    'import builtins; AssertionError = builtins.AssertionError = ValueError',
    'import os, sys; sys.exit = sys.excepthook = os._exit = print',
    'import atexit, os; atexit.register(os._exit, 0)',
    'import sys; sys.argv = sys.modules = None',
    '__builtins__ = {}',
  ],
)
def test_no_change_makes_a_wrong_program_right(program):
  assert not run(program, 'assert False').passed


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
  assert found.reason.startswith(('memory', 'OSError: [Errno 12]'))


def test_recursion_is_limited():
  assert run('def f(): f()\nf()').reason.startswith('RecursionError')
  program = (
    'import sys\nsys.setrecursionlimit(10**9)\n'
    'class A:\n  def __lt__(self, other): return self < other\nA() < A()'
  )
  assert not run(program, 'assert True', seconds=2).passed


def test_endless_replies_are_cut():
  program = (
    'import os\nwhile True:\n  for f in range(3, 9):\n'
    '    try: os.write(f, b"x" * 10000)\n    except OSError: pass'
  )
  assert run(program, seconds=0.7) == sandbox.Outcome(False, 'time')


def test_a_closed_reply_ends_nothing():
  program = (
    'import os\nfor f in range(3, 32):\n  try: os.close(f)\n'
    '  except OSError: pass\nwhile True: pass'
  )
  assert run(program, seconds=0.7) == sandbox.Outcome(False, 'time')


def children(parent):
  found = []
  for file in pathlib.Path('/proc').glob('[0-9]*/stat'):
    try:
      # The name before it, in parentheses, may hold spaces.
      fields = file.read_text().rpartition(')')[2].split()
    except (FileNotFoundError, ProcessLookupError):
      continue  # It ended meanwhile.
    if int(fields[1]) == parent and fields[0] != 'Z':
      found.append(int(file.parent.name))
  return found


def wait_for(condition):
  deadline = time.monotonic() + AMPLE
  while not (value := condition()):
    assert time.monotonic() < deadline
    time.sleep(0.02)
  return value


def test_no_program_outlives_its_parent():
  code = (
    'from salt_t5x.evaluation.few_shot import sandbox\nsandbox.check()\n'
    'print("checked", flush=True)\n'
    'sandbox.run("import time; time.sleep(1000)", [], seconds=1000)'
  )
  parent = subprocess.Popen(
    [sys.executable, '-c', code],
    stdout=subprocess.PIPE,
    env=os.environ | {'PYTHONPATH': os.pathsep.join(sys.path)},
  )
  assert parent.stdout.readline() == b'checked\n'
  (program,) = wait_for(lambda: children(parent.pid))
  # Until it is shut in, it is nobody's child but does no harm, either.
  status = pathlib.Path(f'/proc/{program}/status')
  wait_for(lambda: 'Seccomp:\t2' in status.read_text())
  parent.send_signal(signal.SIGKILL)
  parent.wait()
  wait_for(lambda: not status.exists() or 'State:\tZ' in status.read_text())


# System calls by their numbers in the kernel's headers.
NUMBERS = {
  'x86_64': {
    'harmless': {'read': 0, 'write': 1, 'mmap': 9, 'futex': 202},
    'open': 257,
    'prctl': 157,
    'harmful': {
      'socket': 41, 'connect': 42, 'clone': 56, 'fork': 57, 'vfork': 58,
      'execve': 59, 'kill': 62, 'truncate': 76, 'ftruncate': 77, 'rename': 82,
      'mkdir': 83, 'rmdir': 84, 'creat': 85, 'link': 86, 'unlink': 87,
      'symlink': 88, 'chmod': 90, 'chown': 92, 'ptrace': 101, 'utime': 132,
      'mknod': 133, 'chroot': 161, 'mount': 165, 'setxattr': 188, 'tkill': 200,
      'tgkill': 234, 'keyctl': 250, 'unshare': 272, 'perf_event_open': 298,
      'setns': 308, 'process_vm_readv': 310, 'renameat2': 316, 'seccomp': 317,
      'memfd_create': 319, 'bpf': 321, 'io_uring_setup': 425,
      'pidfd_open': 434, 'clone3': 435, 'openat2': 437,
      'read, of x32': 0x40000000,
    },
  },
  'aarch64': {
    'harmless': {'read': 63, 'write': 64, 'mmap': 222, 'futex': 98},
    'open': 56,
    'prctl': 167,
    'harmful': {
      'setxattr': 5, 'mknodat': 33, 'mkdirat': 34, 'unlinkat': 35,
      'symlinkat': 36, 'linkat': 37, 'renameat': 38, 'mount': 40,
      'truncate': 45, 'ftruncate': 46, 'chroot': 51, 'fchmodat': 53,
      'fchownat': 54, 'utimensat': 88, 'unshare': 97, 'ptrace': 117,
      'kill': 129, 'tkill': 130, 'tgkill': 131, 'socket': 198, 'connect': 203,
      'keyctl': 219, 'clone': 220, 'execve': 221, 'perf_event_open': 241,
      'setns': 268, 'process_vm_readv': 270, 'renameat2': 276, 'seccomp': 277,
      'memfd_create': 279, 'bpf': 280, 'io_uring_setup': 425,
      'pidfd_open': 434, 'clone3': 435, 'openat2': 437,
    },
  },
}  # fmt: skip
KILL, REFUSE, ALLOW = 0x80000000, 0x5000D, 0x7FFF0000


def answer(filters, architecture, number, *arguments):
  """The strictest answer, as the kernel's interpreter finds it."""
  values = [*arguments, *[0] * (6 - len(arguments))]
  data = struct.pack('=IIQ6Q', number, architecture, 0, *values)
  answers = []
  for program in filters:
    loaded, i = 0, 0
    while program[i][0] != 0x06:
      code, if_true, if_false, operand = program[i]
      if code == 0x20:
        (loaded,) = struct.unpack_from('=I', data, operand)
        i += 1
      else:
        tests = {
          0x15: loaded == operand,
          0x35: loaded >= operand,
          0x45: bool(loaded & operand),
        }
        i += 1 + (if_true if tests[code] else if_false)
    answers.append(program[i][3])
  return min(answers, key=lambda x: (x != KILL, x))


@pytest.mark.parametrize('machine', list(NUMBERS))
def test_filters_of_either_architecture(machine):
  this = sandbox_child.ARCHITECTURES[machine]
  (other,) = set(sandbox_child.ARCHITECTURES.values()) - {this}
  importing = [sandbox_child.computing_and_reading(machine)]
  running = importing + [sandbox_child.computing(machine)]
  assert max(map(len, running)) <= 4096  # The kernel's limit.
  numbers = NUMBERS[machine]
  for number in numbers['harmless'].values():
    assert answer(running, this, number) == ALLOW
    assert answer(running, other, number) == KILL
  for name, number in numbers['harmful'].items():
    assert answer(importing, this, number) == KILL, name
    assert answer(running, this, number) == KILL, name
  close_on_exec = 0o2000000
  assert answer(importing, this, numbers['open'], 0, 0, close_on_exec) == ALLOW
  assert answer(running, this, numbers['open'], 0, 0, close_on_exec) == REFUSE
  for flags in (1, 2, 0o100, 0o1000, 0o2001, 0o20000000, 1 << 63 | 1):
    assert answer(running, this, numbers['open'], 0, 0, flags) == KILL
  assert answer(importing, this, numbers['prctl'], 22) == ALLOW
  assert answer(importing, this, numbers['prctl'], 4) == KILL
  assert answer(running, this, numbers['prctl'], 22) == KILL


def test_rejects_machines_without_filters(monkeypatch):
  scores = pytest.importorskip('salt_t5x.evaluation.few_shot.scores')
  monkeypatch.setattr(platform, 'machine', lambda: 'riscv64')
  sandbox.check.cache_clear()
  with pytest.raises(RuntimeError, match='not on linux, riscv64.*RUN_PROGRAMS'):
    scores.pass_at_1({'test_list': []}, ['x = 1'])
  monkeypatch.undo()
  sandbox.check.cache_clear()
  monkeypatch.setattr(sandbox, 'run', lambda *args, **options: PASSED)
  for _ in range(2):
    with pytest.raises(RuntimeError, match='The kernel needs seccomp'):
      sandbox.check()


def test_runs_nothing_without_filters(monkeypatch, tmp_path):
  child = tmp_path / 'child.py'
  text = pathlib.Path(sandbox_child.__file__).read_text()
  child.write_text(
    text.replace('ARCHITECTURES = {', 'ARCHITECTURES, _ = {}, {')
  )
  monkeypatch.setattr(sandbox, '_CHILD', child)
  assert run('x = 1').reason.startswith('ValueError')
