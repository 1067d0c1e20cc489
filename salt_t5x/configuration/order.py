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

"""Refuses gin files whose order loses what an earlier one binds.

Later files win, so what a user's file binds before one of ours is lost where
the latter binds it, too, and so is the teacher of a recipe before another.
"""

from collections.abc import Iterator, Sequence
import contextlib
import inspect
import itertools
import os
import sys
from typing import Any, NamedTuple

import gin
from gin import config_parser

from salt_t5x import engine
from salt_t5x.configuration import flags

_TEACHER = 'trainer.SaltTrainer.teacher'  # As our files write it.
_FLAGS = 'the flags'


class _Reference(str):
  """A macro or configurable as gin writes it."""

  __repr__ = str.__str__


class _References(config_parser.ParserDelegate):
  """References and macros are not looked up."""

  def configurable_reference(self, scoped_configurable_name, evaluate):
    name = scoped_configurable_name
    return _Reference(f'@{name}()' if evaluate else f'@{name}')

  def macro(self, macro_name):
    return _Reference(f'%{macro_name}')


class _Binding(NamedTuple):
  named: str  # The file on the command line,
  file: str  # and the one that it includes.
  name: str
  key: Any  # The same, whatever the file's imports; a macro's name.
  value: Any

  @property
  def is_own(self) -> bool:
    """Whether it is the user's, and not in a file of the package."""
    return engine.packaged_name(self.file) is None


def check(argv: Sequence[str]) -> None:
  """Checks the order of the gin files of a command.

  Args:
    argv: with `--gin_file=PATH` or `--gin_file PATH`, and the flags of
      `flags.bindings`, among them.

  Raises:
    ValueError: a binding of a user's file is lost, or a recipe's teacher.
  """
  own, lost = {}, {}
  teacher = taken = None
  for binding in _all_bindings(argv):
    key, before = binding.key, own.get(binding.key)
    if binding.is_own:
      own[key] = binding
    if binding.is_own or (before and before.value == binding.value):
      lost.pop(key, None)
    elif before and not _chooses(binding, own):
      lost[key] = binding
    if binding.name == _TEACHER or (teacher and key == teacher.key):
      is_taken = teacher and binding.value is None and not binding.is_own
      taken = binding if is_taken else None
      teacher = teacher if taken else binding
      teacher = teacher if teacher.value else None
  for key, later in lost.items():
    mine = own[key]
    remedy = f'name {mine.named} last'
    if mine.named == later.named:
      remedy = 'put the line below the includes'
    raise ValueError(
      f'{mine.name} = {mine.value!r} in {mine.file} has no effect: '
      f'{later.file} comes after it and sets {later.value!r}. Later files win: '
      f'{remedy}.'
    )
  if taken:
    raise ValueError(
      f'The teacher of {teacher.named} has no effect: {taken.named} comes '
      f'after it, and {_TEACHER} = None in {taken.file}. Name one recipe.'
    )


def _chooses(binding: _Binding, own: dict[Any, _Binding]) -> bool:
  """Whether a run's file chooses another of the user's models."""
  return binding.name == 'MODEL' and str(binding.value)[1:] in own


def own_macros(argv: Sequence[str]) -> set[str]:
  """Returns the names of the macros that the user's files and flags bind.

  Args:
    argv: see `check`.
  """
  return {x.name for x in _all_bindings(argv) if x.is_own and x.key == x.name}


def _all_bindings(argv: Sequence[str]) -> Iterator[_Binding]:
  """Yields the bindings of a command's files and flags, in order."""
  pairs = itertools.pairwise([*argv, ''])
  for x, y in pairs:
    if x.startswith('--gin_file=') or x == '--gin_file':
      file = y if x == '--gin_file' else x.removeprefix('--gin_file=')
      yield from _bindings(file, *_read(file))
  # gin reads them as one file after the others.
  bound = ['='.join(filter(None, x)) for x in flags.bindings(argv)]
  yield from _bindings(_FLAGS, _FLAGS, '\n'.join(bound))


def _bindings(named: str, path: str, text: str) -> Iterator[_Binding]:
  """Yields the bindings of a file and of those that it includes, in order."""
  context = gin.config.ParseContext()
  for statement in config_parser.ConfigParser(text, _References()):
    if isinstance(statement, config_parser.IncludeStatement):
      yield from _bindings(named, *_read(statement.filename))
    elif isinstance(statement, config_parser.ImportStatement):
      # gin has imported them.
      if (
        statement.module.startswith('__gin__')
        or statement.module in sys.modules
      ):
        context.process_import(statement)
    elif isinstance(statement, config_parser.BindingStatement):
      scope, selector, parameter, value, _ = statement
      name = '.'.join(filter(None, (selector, parameter)))
      name = key = '/'.join(filter(None, (scope, name)))
      if parameter:
        key = scope, _configurable(context, selector), parameter
      yield _Binding(named, path, name, key, value)


def _configurable(context: gin.config.ParseContext, selector: str) -> Any:
  """Finds what a file means by a name; the name if gin does not know it."""
  with contextlib.suppress(AttributeError, NameError):
    return inspect.unwrap(context._resolve_selector(selector)[1][-1])
  with contextlib.suppress(LookupError, ValueError):
    found = gin.config._REGISTRY.get_match(selector)
    return inspect.unwrap(found.wrapped) if found else selector
  return selector


def _read(file: str) -> tuple[str, str]:
  """Reads a file where gin found it; returns its path and its text."""
  for prefix in gin.config._LOCATION_PREFIXES:
    path = os.path.join(prefix, file)
    if engine.packaged_name(path):
      with contextlib.suppress(FileNotFoundError):
        return path, engine.read_gin(path)
    for reader, exists in gin.config._FILE_READERS:
      if exists(path):
        with reader(path) as opened:
          return path, opened.read()
  raise FileNotFoundError(file)
