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

"""The process in which `sandbox` runs a program; standard library only.

`python sandbox_child.py JOB REPLY` takes two descriptors of files: JOB holds
the sources, seconds and megabytes, and then the token; to REPLY the process
writes the token once all tests have passed, or the error.
"""

# Each import delays each program; json's or ast's would double that.
import _ast
import ctypes
import marshal
import os
import resource
import struct
import sys
import types

TOKEN_BYTES = 32
_REPLY_BYTES = 4096

# {machine: AUDIT_ARCH of its system calls}
ARCHITECTURES = {'x86_64': 0xC000003E, 'aarch64': 0xC00000B7}

# {system call: numbers on x86_64 and aarch64}: all that computing and importing
# modules take. An allow-list, so that what a newer kernel offers is forbidden,
# too; the standard library's pure computation needs no more, and all 500
# reference solutions of MBPP's test split run with it. Threads are not in it:
# with `clone` come processes.
_ALLOWED = {
  'access': (21, None),
  'arch_prctl': (158, None),
  'brk': (12, 214),
  'clock_getres': (229, 114),
  'clock_gettime': (228, 113),
  'clock_nanosleep': (230, 115),
  'close': (3, 57),
  'dup': (32, 23),
  # Python's `selectors` tries whether there is one. It holds nothing.
  'epoll_create1': (291, 20),
  'exit': (60, 93),
  'exit_group': (231, 94),
  'faccessat': (269, 48),
  'faccessat2': (439, 439),
  'fstat': (5, 80),
  'futex': (202, 98),
  'getcwd': (79, 17),
  'getdents64': (217, 61),
  'getegid': (108, 177),
  'geteuid': (107, 175),
  'getgid': (104, 176),
  'getpid': (39, 172),
  'getppid': (110, 173),
  'getrandom': (318, 278),
  'getrusage': (98, 165),
  'gettid': (186, 178),
  'gettimeofday': (96, 169),
  'getuid': (102, 174),
  'lseek': (8, 62),
  'lstat': (6, None),
  'mmap': (9, 222),
  'mprotect': (10, 226),
  'mremap': (25, 216),
  'munmap': (11, 215),
  'nanosleep': (35, 101),
  'newfstatat': (262, 79),
  'pread64': (17, 67),
  'read': (0, 63),
  'readlink': (89, None),
  'readlinkat': (267, 78),
  'readv': (19, 65),
  'rt_sigaction': (13, 134),
  'rt_sigprocmask': (14, 135),
  'rt_sigreturn': (15, 139),
  'sched_getaffinity': (204, 123),
  'sched_yield': (24, 124),
  'sigaltstack': (131, 132),
  'stat': (4, None),
  'statx': (332, 291),
  'sysinfo': (99, 179),
  'time': (201, None),
  'times': (100, 153),
  'uname': (63, 160),
  # Only the two files of the parent and the null device are open for writing.
  'write': (1, 64),
  'writev': (20, 66),
}
# {system call: (numbers, argument, values that are allowed)}
_WITH_VALUES = {
  'fcntl': ((72, 25), 1, (1, 2, 3, 1030)),  # GETFD, SETFD, GETFL, DUPFD
  # Is it a terminal, how large; close on exec.
  'ioctl': ((16, 29), 1, (0x5401, 0x5413, 0x5450, 0x5451)),
  # Allocators need it; root could ask to poison pages of the machine.
  'madvise': ((28, 233), 2, (4, 8, 14, 15)),
  'prctl': ((157, 167), 0, (22,)),  # PR_SET_SECCOMP, for the second filter
}
# {system call: (numbers, argument)}: none of the flags may be set.
_WITHOUT_FLAGS = {'open': ((2, None), 1), 'openat': ((257, 56), 2)}
# O_WRONLY, O_RDWR, O_CREAT, O_TRUNC, O_APPEND and O_TMPFILE's own bit.
_WRITING = 0o3 | 0o100 | 0o1000 | 0o2000 | 0o20000000

# {module: what it imports only when one of its functions is called}, of the
# modules that solutions use, in CPython 3.11 to 3.13. What an entry imports may
# be a key below it.
_IMPORTED_LATE = {
  'codecs': ('encodings.base64_codec', 'encodings.hex_codec',
             'encodings.rot_13'),
  'uuid': ('hashlib', 'random'),
  'random': ('hashlib',),
  'fractions': ('decimal',),
  'traceback': ('_suggestions', 'tokenize'),
  'datetime': ('_strptime',),
  'time': ('_strptime',),
  'functools': ('typing',),
  'typing': ('inspect',),
  'collections': ('collections.abc', 'copy', 'heapq'),
  'builtins': ('_pylong', 'encodings.utf_16', 'encodings.utf_32',
               'unicodedata', 'warnings'),
}  # fmt: skip

# Of <linux/filter.h>, <linux/seccomp.h> and <linux/prctl.h>.
_LOAD, _EQUAL, _ANY_BIT, _RETURN = 0x20, 0x15, 0x45, 0x06
_ALLOW, _REFUSE, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16
_SET_PARENT_DEATH_SIGNAL, _SET_NO_NEW_PRIVILEGES, _SET_SECCOMP = 1, 38, 22
_FILTER = 2
_PERMISSION_DENIED = 13  # EACCES

# (code, jump if true, jump if false, operand) of each instruction.
_Program = list[tuple[int, int, int, int]]


def _answer(value: int) -> _Program:
  return [(_RETURN, 0, 0, value)]


def _load(offset: int) -> _Program:
  return [(_LOAD, 0, 0, offset)]


def _when(number: int | None, body: _Program) -> _Program:
  """Runs the body, which ends with an answer, if this number is loaded."""
  return [] if number is None else [(_EQUAL, 0, len(body), number), *body]


def computing_and_reading(machine: str) -> _Program:
  """The filter of a process that may compute, and import modules."""
  column = list(ARCHITECTURES).index(machine)
  architecture = (_EQUAL, 1, 0, ARCHITECTURES[machine])
  program = [*_load(_ARCHITECTURE), architecture, *_answer(_KILL)]
  # Those of x86_64's other numbering, x32, are greater than any below.
  program += _load(_NUMBER)
  for numbers in _ALLOWED.values():
    program += _when(numbers[column], _answer(_ALLOW))
  # The arguments below are ints: the kernel, too, sees their low half alone.
  for numbers, argument, values in _WITH_VALUES.values():
    body = _load(_ARGUMENTS + 8 * argument)
    for value in values:
      body += _when(value, _answer(_ALLOW))
    program += _when(numbers[column], body + _answer(_KILL))
  for numbers, argument in _WITHOUT_FLAGS.values():
    body = _load(_ARGUMENTS + 8 * argument)
    body += [(_ANY_BIT, 0, 1, _WRITING), *_answer(_KILL), *_answer(_ALLOW)]
    program += _when(numbers[column], body)
  return program + _answer(_KILL)


def computing(machine: str) -> _Program:
  """The second filter; the kernel applies the strictest answer of both.

  Programs may not even read files, because devices, named pipes and the memory
  of the process that knows the token are files, too. The refusal is an error
  that the program can catch, because it may look for a missing module.
  """
  column = list(ARCHITECTURES).index(machine)
  program = _load(_NUMBER)
  for numbers, _ in _WITHOUT_FLAGS.values():
    program += _when(numbers[column], _answer(_REFUSE | _PERMISSION_DENIED))
  program += _when(_WITH_VALUES['prctl'][0][column], _answer(_KILL))
  return program + _answer(_ALLOW)


def _prctl(option: int, *arguments: int) -> None:
  call = ctypes.CDLL(None, use_errno=True).prctl
  # Unused arguments must be 0, in all of their 64 bits.
  words = [ctypes.c_ulong(x) for x in (*arguments, 0, 0, 0, 0)[:4]]
  if call(option, *words):
    raise OSError(ctypes.get_errno(), f'prctl({option}) failed')


def _install(program: _Program) -> None:
  """Filters this process's system calls from here on."""
  code = b''.join(struct.pack('=HBBI', *x) for x in program)
  buffer = ctypes.create_string_buffer(code, len(code))

  class Program(ctypes.Structure):
    _fields_ = [('length', ctypes.c_ushort), ('filter', ctypes.c_void_p)]

  header = Program(len(program), ctypes.addressof(buffer))
  _prctl(_SET_SECCOMP, _FILTER, ctypes.addressof(header))


def _limit(seconds: float, megabytes: int) -> None:
  """Limits the resources of the process, even after its parent has died."""
  limits = {
    resource.RLIMIT_AS: megabytes * 2**20,
    # The parent is stricter, while it lives.
    resource.RLIMIT_CPU: int(seconds) + 2,
    resource.RLIMIT_CORE: 0,
    resource.RLIMIT_FSIZE: _REPLY_BYTES,
    resource.RLIMIT_NOFILE: 32,
  }
  for name, limit in limits.items():
    resource.setrlimit(name, (limit, limit))
  _prctl(_SET_PARENT_DEATH_SIGNAL, 9)
  _prctl(_SET_NO_NEW_PRIVILEGES, 1)


def _compile(source, flags: int = 0):
  # Before the program runs, which may replace `compile`.
  return compile(source, '<program>', 'exec', flags, dont_inherit=True)


def _imported_by(tree: _ast.Module) -> list[str]:
  """Names that a source may import: modules, and names in modules."""
  names = []
  nodes = [tree]
  for node in nodes:  # It grows as it is read.
    if isinstance(node, _ast.Import):
      names += [x.name for x in node.names]
    elif isinstance(node, _ast.ImportFrom) and node.module:
      names += [node.module, *(f'{node.module}.{x.name}' for x in node.names)]
    for field in node._fields:
      value = getattr(node, field)
      values = value if isinstance(value, list) else [value]
      nodes += [x for x in values if isinstance(x, _ast.AST)]
  return names


def _import(names: list[str]) -> None:
  """Imports modules, and what these may import later."""
  before = set(sys.modules)
  for name, late in {'': names, **_IMPORTED_LATE}.items():
    if not name or name in names or name in sys.modules.keys() - before:
      for module in late:
        try:
          __import__(module)
        except Exception:
          continue  # The program will see the same, if it gets there.


def main(job: int, reply: int) -> None:
  """Runs the program of `job` and replies with `token` if it succeeds."""
  # A program may replace them.
  execute, leave, read, write = exec, os._exit, os.read, os.write
  module = types.ModuleType('program')
  try:
    with open(job, 'rb', buffering=0, closefd=False) as f:
      *sources, seconds, megabytes = marshal.load(f)
    machine = os.uname().machine
    _limit(seconds, megabytes)
    _install(computing_and_reading(machine))
    trees = [_compile(x, _ast.PyCF_ONLY_AST) for x in sources]
    codes = [_compile(x) for x in trees]
    _import(['builtins', *(y for x in trees for y in _imported_by(x))])
    # Not as __main__: functions are tested, not what a script does with them.
    # Under a name, because dataclasses and others look their modules up.
    sys.modules[module.__name__] = module
    sys.argv = [module.__name__]
    _install(computing(machine))
    for code in codes:
      execute(code, module.__dict__)
    answer, status = read(job, TOKEN_BYTES), 0
  except AssertionError:
    answer, status = b'assertion', 1
  except MemoryError:
    answer, status = b'memory', 1
  except BaseException as e:  # SystemExit, too: it is no success.
    text = f'{type(e).__name__}: {e}'[:200]
    answer, status = text.encode(errors='replace'), 1
  write(reply, answer)
  leave(status)


if __name__ == '__main__':
  main(*map(int, sys.argv[1:]))
