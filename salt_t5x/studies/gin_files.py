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

"""Reads gin files with gin's parser, without importing what they configure."""

from collections.abc import Mapping
import dataclasses
import functools
from typing import Any

from gin import config_parser

from salt_t5x import engine


class Reference(str):
  """A macro or configurable as gin writes it: '%NAME', '@module.name()'."""

  __repr__ = str.__str__


@dataclasses.dataclass(frozen=True)
class Config:
  """The content of a gin file.

  Attributes:
    text: the file, with the files that it includes in place.
    values: {parameter or macro: value}; the last binding wins.
    macros: names of all macros that are bound or used.
  """

  text: str
  values: Mapping[str, Any]
  macros: frozenset[str]


class _Delegate(config_parser.ParserDelegate):
  def __init__(self):
    self.macros = set()

  def configurable_reference(self, name, evaluate):
    return Reference(f'@{name}()' if evaluate else f'@{name}')

  def macro(self, name):
    self.macros.add(name)
    return Reference(f'%{name}')


def parse(text: str) -> Config:
  """Parses the text of a gin file.

  Raises:
    OSError: an included file does not exist.
    SyntaxError: gin cannot read it.
  """
  delegate, values, lines = _Delegate(), {}, text.split('\n')
  for statement in config_parser.ConfigParser(text, delegate):
    if isinstance(statement, config_parser.IncludeStatement):
      included = read(statement.filename)
      lines[statement.location.line_num - 1] = included.text
      values |= included.values
      delegate.macros |= included.macros
    elif isinstance(statement, config_parser.BindingStatement):
      scope, selector, parameter, value, _ = statement
      name = '.'.join(filter(None, (selector, parameter)))
      values['/'.join(filter(None, (scope, name)))] = value
      if not scope and not parameter:
        delegate.macros.add(name)
  return Config('\n'.join(lines), values, frozenset(delegate.macros))


@functools.cache
def read(path: str) -> Config:
  """Reads 'salt_t5x/gin/...' or a file on disk; see `parse`."""
  return parse(engine.read_gin(path))
