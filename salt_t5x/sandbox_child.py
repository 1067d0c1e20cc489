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


"""The process that `sandbox` shuts a program in; the standard library alone.

`python sandbox_child.py JOB REPLY`: JOB and REPLY are descriptors of pipes. The
job is 8 bytes of its length, JSON, and a token; the reply is the token once all
tests have passed, or what went wrong.
"""

import ctypes
import json
import math
import os
import platform
import resource
import struct
import sys

# {machine: AUDIT_ARCH of its system calls}
ARCHITECTURES = {'x86_64': 0xC000003E, 'aarch64': 0xC00000B7}

# {system call: numbers on x86_64 and aarch64}: all that computing, reading
# files and importing modules take. An allow-list, so that what a newer kernel
# offers is forbidden, too.
_ALLOWED = {
  'access': (21, None),
  'arch_prctl': (158, None),
  'brk': (12, 214),
  'clock_getres': (229, 114),
  'clock_gettime': (228, 113),
  'clock_nanosleep': (230, 115),
  'close': (3, 57),
  'dup': (32, 23),
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
  'madvise': (28, 233),
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
  # What is open for writing is a pipe and the null device.
  'write': (1, 64),
  'writev': (20, 66),
}
# {system call: (numbers, argument, values that are allowed)}
_WITH_VALUES = {
  'fcntl': ((72, 25), 1, (1, 2, 3, 1030)),  # F_GETFD, F_SETFD, F_GETFL, dup
  'ioctl': ((16, 29), 1, (0x5401, 0x5450, 0x5451)),  # is it a terminal; cloexec
}
# {system call: (numbers, argument)}: none of the flags may be set.
_WITHOUT_FLAGS = {'open': ((2, None), 1), 'openat': ((257, 56), 2)}
# O_WRONLY, O_RDWR, O_CREAT, O_TRUNC, O_APPEND and O_TMPFILE's own bit.
_WRITING = 0o3 | 0o100 | 0o1000 | 0o2000 | 0o20000000

# Of <linux/filter.h>, <linux/seccomp.h> and <linux/prctl.h>.
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL = 0x7FFF0000, 0x80000000
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16
_SET_NO_NEW_PRIVILEGES, _SET_SECCOMP, _FILTER = 38, 22, 2


def _filter(machine: str) -> bytes:
  """The seccomp program: (code, jump if true, jump if false, operand) each."""
  column = list(ARCHITECTURES).index(machine)
  program = [
    (_LOAD, 0, 0, _ARCHITECTURE),
    (_EQUAL, 1, 0, ARCHITECTURES[machine]),
    (_RETURN, 0, 0, _KILL),
    (_LOAD, 0, 0, _NUMBER),
    # x86_64's other numbering, x32.
    (_AT_LEAST, 0, 1, 0x40000000),
    (_RETURN, 0, 0, _KILL),
  ]
  for numbers in _ALLOWED.values():
    if numbers[column] is not None:
      program += [
        (_EQUAL, 0, 1, numbers[column]),
        (_RETURN, 0, 0, _ALLOW),
      ]
  for numbers, argument, values in _WITH_VALUES.values():
    body = [(_LOAD, 0, 0, _ARGUMENTS + 8 * argument)]
    for value in values:
      body += [(_EQUAL, 0, 1, value), (_RETURN, 0, 0, _ALLOW)]
    body.append((_RETURN, 0, 0, _KILL))
    program += [(_EQUAL, 0, len(body), numbers[column]), *body]
  for numbers, argument in _WITHOUT_FLAGS.values():
    if numbers[column] is not None:
      program += [
        (_EQUAL, 0, 4, numbers[column]),
        (_LOAD, 0, 0, _ARGUMENTS + 8 * argument),
        (_ANY_BIT, 0, 1, _WRITING),
        (_RETURN, 0, 0, _KILL),
        (_RETURN, 0, 0, _ALLOW),
      ]
  program.append((_RETURN, 0, 0, _KILL))
  return b''.join(struct.pack('=HBBI', *x) for x in program)


def _shut_in(seconds: float, megabytes: int) -> None:
  """From here on the process can compute and read, within limits."""
  limits = {
    resource.RLIMIT_AS: megabytes * 2**20,
    resource.RLIMIT_CPU: math.ceil(seconds),
    resource.RLIMIT_CORE: 0,
    resource.RLIMIT_FSIZE: 0,
    resource.RLIMIT_NOFILE: 32,
  }
  for name, limit in limits.items():
    resource.setrlimit(name, (limit, limit))
  code = _filter(platform.machine())
  buffer = ctypes.create_string_buffer(code, len(code))

  class Program(ctypes.Structure):
    _fields_ = [('length', ctypes.c_ushort), ('filter', ctypes.c_void_p)]

  program = Program(len(code) // 8, ctypes.addressof(buffer))
  libc = ctypes.CDLL(None, use_errno=True)
  for arguments in [
    (_SET_NO_NEW_PRIVILEGES, 1, 0, 0, 0),
    (_SET_SECCOMP, _FILTER, ctypes.byref(program), 0, 0),
  ]:
    if libc.prctl(*arguments):
      raise OSError(ctypes.get_errno(), 'prctl failed')


def _read_exactly(file: int, count: int) -> bytes:
  data = b''
  while len(data) < count:
    data += os.read(file, count - len(data)) or _end()
  return data


def _end():
  raise EOFError('The job is cut off.')


def main(job: int, reply: int) -> None:
  # A program may replace them.
  write, leave, read = os.write, os._exit, _read_exactly
  try:
    length = int.from_bytes(read(job, 8), 'big')
    program, setup, tests, seconds, megabytes = json.loads(read(job, length))
    _shut_in(seconds, megabytes)
    namespace = {'__name__': '__main__'}
    for source in [program, setup, *tests]:
      exec(compile(source, '<program>', 'exec'), namespace)
  except BaseException as e:  # SystemExit, too: it is no success.
    write(reply, f'{type(e).__name__}: {e}'[:200].encode(errors='replace'))
    leave(1)
  write(reply, read(job, 32))
  leave(0)


if __name__ == '__main__':
  main(int(sys.argv[1]), int(sys.argv[2]))
