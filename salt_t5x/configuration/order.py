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

"""Refuses bindings of a user's gin file that a later file of ours replaces.

Later files win, so what a file binds before a recipe is lost where the recipe
binds it, too.
"""

from collections.abc import Iterator, Sequence
import contextlib
import itertools
import os
from typing import Any, NamedTuple

import gin
from gin import config_parser

from salt_t5x import engine
from salt_t5x.configuration import flags

# Folders of files that are made to follow a recipe, and to change it.
_FOLLOWERS = 'data', 'layouts', 'settings'
# Files of runs choose among the models that others bind.
_CHOSEN = 'MODEL'


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
  value: Any


def check(argv: Sequence[str]) -> None:
  """Checks the order of the gin files of a command.

  Args:
    argv: with `--gin_file=PATH` or `--gin_file PATH` among them.

  Raises:
    ValueError: a binding of a user's file is lost.
  """
  pairs = itertools.pairwise([*argv, ''])
  files = [
    y if x == '--gin_file' else x.removeprefix('--gin_file=')
    for x, y in pairs
    if x.startswith('--gin_file=') or x == '--gin_file'
  ]
  own, lost = {}, {}
  for named in files:
    for binding in _bindings(named, named):
      packaged = engine.packaged_name(binding.file)
      before = own.get(binding.name)
      if packaged is None:
        own[binding.name] = binding
      if packaged is None or (before and before.value == binding.value):
        lost.pop(binding.name, None)
      elif before and not packaged.startswith(_FOLLOWERS):
        lost[binding.name] = binding
  flagged = {_CHOSEN, *(name for name, _ in flags.bindings(argv))}
  for name, later in lost.items():
    if name in flagged:
      continue
    mine = own[name]
    remedy = f'name {mine.named} last'
    if mine.named == later.named:
      remedy = 'put the line below the includes'
    raise ValueError(
      f'{name} = {mine.value!r} in {mine.file} has no effect: {later.file} '
      f'comes after it and sets {later.value!r}. Later files win: {remedy}.'
    )


def _bindings(named: str, file: str) -> Iterator[_Binding]:
  """Yields the bindings of a file and of those that it includes, in order."""
  path, text = _read(file)
  for statement in config_parser.ConfigParser(text, _References()):
    if isinstance(statement, config_parser.IncludeStatement):
      yield from _bindings(named, statement.filename)
    elif isinstance(statement, config_parser.BindingStatement):
      scope, selector, parameter, value, _ = statement
      name = '.'.join(filter(None, (selector, parameter)))
      yield _Binding(named, path, '/'.join(filter(None, (scope, name))), value)


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
