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

"""Refuses gin bindings without effect, on either engine and in every command.

gin calls `check` when it has read all files and flags, and before it constructs
anything. A macro that no binding reads, and a binding without a scope that all
uses override in theirs, would be accepted by gin and change nothing.
"""

from collections.abc import Iterator, Mapping, Sequence
import difflib
import re
import sys
from typing import Any

import gin

from salt_t5x import engine

Config = Mapping[tuple[str, str], Mapping[str, Any]]

_MACRO = 'gin.macro'
# Functions that only references in gin files call.
_ONLY_BY_REFERENCE = ('schedules.', 'salt_t5x.schedules.', 'optax.')


def check(config: Config) -> None:
  """Checks a configuration.

  Args:
    config: {(scope, configurable): {parameter: value}}; the scope of a macro is
      its name.

  Raises:
    ValueError: a binding has no effect.
  """
  flags = _bound_by_flags(sys.argv)
  macros = {scope for scope, selector in config if selector == _MACRO}
  uses = _uses(config)
  read = _read_macros(config, uses)
  for name in sorted(macros - read):
    # Files may serve several commands, and each reads some of their macros.
    if name in flags or name not in engine.gin_macros():
      value = config[name, _MACRO]['value']
      near = difflib.get_close_matches(name, read, n=1, cutoff=0.7)
      _refuse(name, value, f'Did you mean {near[0]}?' if near else '')
  for (scope, selector), parameters in config.items():
    if scope or selector == _MACRO:
      continue
    for parameter, value in parameters.items():
      name = f'{selector}.{parameter}'
      if not any(f'.{name}'.endswith(f'.{x}') for x in flags):
        continue
      if selector not in uses and selector.startswith(_ONLY_BY_REFERENCE):
        _refuse(name, value, f'Refer to it: @{selector}().')
      overrides = {
        x
        for x in uses.get(selector, ())
        if parameter in config.get((x, selector), ())
      }
      if overrides and overrides == uses[selector] and '' not in overrides:
        bound = ' and '.join(f'{x}/{name}' for x in sorted(overrides))
        _refuse(name, value, f'Bind {bound}, which overrides it.')


def _refuse(name: str, value: Any, remedy: str):
  raise ValueError(
    f'{name} = {value!r} has no effect: nothing in this configuration reads '
    f'it. {remedy or "Correct the name, or remove it."}'
  )


def _bound_by_flags(argv: Sequence[str]) -> set[str]:
  """Names bound by --gin.NAME=VALUE and --gin_bindings=NAME=VALUE."""
  matches = (re.match(r'--gin(?:\.|_bindings=)\s*([^=\s]+)', x) for x in argv)
  return {match[1] for match in matches if match}


def _references(value: Any) -> Iterator[gin.config.ConfigurableReference]:
  return gin.config.iterate_references({'': value})


def _read_macros(config: Config, uses: Mapping[str, set[str]]) -> set[str]:
  """Names of the macros that a binding with an effect reads."""
  of_macro, read = {}, set()
  for (scope, selector), parameters in config.items():
    found = {
      x.config_key[0]
      for x in _references(parameters)
      if x.config_key[1] == _MACRO
    }
    if selector == _MACRO:
      of_macro[scope] = found
    elif selector in uses or not selector.startswith(_ONLY_BY_REFERENCE):
      read |= found
  todo = list(read)
  while todo:
    new = of_macro.get(todo.pop(), set()) - read
    read |= new
    todo += new
  return read


def _uses(config: Config) -> dict[str, set[str]]:
  """{configurable: the scopes in which bindings refer to it}."""
  uses = {}
  for parameters in config.values():
    for reference in _references(parameters):
      scope, selector = reference.config_key
      uses.setdefault(selector, set()).add(scope)
  return uses
