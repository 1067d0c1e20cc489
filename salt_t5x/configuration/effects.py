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

from collections.abc import Iterator, Mapping
import difflib
import re
import sys
from typing import Any

import gin

from salt_t5x import engine
from salt_t5x.configuration import flags, order

Config = Mapping[tuple[str, str], Mapping[str, Any]]

_MACRO = 'gin.macro'
_OF_DISTILLATION = {
  'trainer.SaltTrainer.teacher_temperature',
  'trainer.SaltTrainer.top_k',
}
# A user who sets these means a method, and not only some of several commands.
_OF_THE_METHOD = {'KD_STEPS', 'SELECTION_PATH', 'TEACHER_PATH'}
# What only references in gin files call; a command calls its own function.
_ONLY_BY_REFERENCE = re.compile(
  r'(salt_t5x|schedules|optax)\.(?!(\w+)\.\2$).+|t5x\.utils\.DatasetConfig'
)


def check(config: Config) -> None:
  """Checks a configuration.

  Args:
    config: {(scope, configurable): {parameter: value}}; the scope of a macro is
      its name.

  Raises:
    ValueError: a binding has no effect.
  """
  # What is meant for this command; --gin_bindings is as good as a file.
  own = [x for x in sys.argv if x.startswith('--gin.')]
  bound = {name for name, _ in flags.bindings(own)}
  uses = uses_of(config)
  read = uses.get(_MACRO, set())
  # Files may serve several commands, and each reads some of their macros.
  named = engine.gin_macros() | {
    x.config_key[0] for x in _references(config) if x.config_key[1] == _MACRO
  }
  of_method = _OF_THE_METHOD & order.own_macros(sys.argv) - read
  bound |= {x for x in of_method if _is_taken_away(config, uses, x)}
  for name in sorted(x for x, selector in config if selector == _MACRO):
    if name not in (read if name in bound else named):
      value = config[name, _MACRO]['value']
      near = difflib.get_close_matches(name, read, n=1, cutoff=0.7)
      remedy = f'Did you mean {near[0]}?' if near else ''
      _refuse(name, value, _unused_reader(config, uses, name) or remedy)
  for (scope, selector), parameters in config.items():
    if selector == _MACRO:
      continue
    of_scope = {
      f'.{x.rpartition("/")[2]}' for x in bound if x.rpartition('/')[0] == scope
    }
    for parameter, value in parameters.items():
      name = f'{selector}.{parameter}'
      if any(f'.{name}'.endswith(x) for x in of_scope):
        _check_flag(config, uses, scope, selector, parameter, value)


def uses_of(config: Config) -> dict[str, set[str]]:
  """Lists what bindings with an effect refer to.

  Args:
    config: see `check`.

  Returns:
    {configurable: the scopes in which they refer to it}.
  """
  uses, seen = {}, set()
  todo = [
    (scope, selector)
    for scope, selector in config
    if selector != _MACRO and not _ONLY_BY_REFERENCE.fullmatch(selector)
  ]
  while todo:
    key = todo.pop()
    if key in seen:
      continue
    seen.add(key)
    for reference in _references(config.get(key, {})):
      scope, selector = reference.config_key
      uses.setdefault(selector, set()).add(scope)
      if selector == _MACRO:
        todo.append((scope, selector))
      else:
        todo += [x for x in config if x[1] == selector]
  return uses


def used(config: Config) -> Config:
  """Returns the bindings of what bindings with an effect refer to.

  Args:
    config: see `check`.
  """
  uses = uses_of(config)
  scopes = _scopes(uses)
  return {
    (scope, selector): bound
    for (scope, selector), bound in config.items()
    if not _ONLY_BY_REFERENCE.fullmatch(selector)
    or (selector in uses and scopes.issuperset(filter(None, scope.split('/'))))
  }


def _scopes(uses: Mapping[str, set[str]]) -> set[str]:
  """The parts of all scopes in which bindings refer to something."""
  return {part for x in uses.values() for y in x for part in y.split('/')}


def _unused_reader(
  config: Config, uses: Mapping[str, set[str]], name: str
) -> str:
  """Names what reads a macro, but is not referred to itself."""
  for (scope, selector), bound in config.items():
    if selector == _MACRO or name not in _macros(bound):
      continue
    selector = _short(selector)
    reader = '/'.join(filter(None, (scope, selector)))
    text = f'Only {reader} does, which nothing refers to: '
    used = _schedule(uses)
    if used and selector.startswith('schedules.'):
      macros = ' and '.join(sorted(_macros(config.get(('', used), {}))))
      text += f'the schedule is {_short(used)}, which reads {macros}. Set '
      return f'{text}those, or make @{reader}() the schedule.'
    return f'{text}bind @{reader}().'
  return ''


def _is_taken_away(
  config: Config, uses: Mapping[str, set[str]], name: str
) -> bool:
  """Whether what reads a macro is bound, and nothing takes its place."""
  has_other = name == 'KD_STEPS' and _schedule(uses)
  return bool(_unused_reader(config, uses, name)) and not has_other


def _schedule(uses: Mapping[str, set[str]]) -> str | None:
  """Returns the schedule that the trainer refers to, if there is one."""
  return next((x for x in uses if _short(x).startswith('schedules.')), None)


def _short(selector: str) -> str:
  return '.'.join(selector.split('.')[-2:])


def _macros(bound: Any) -> set[str]:
  """The names of the macros that bindings read."""
  keys = (x.config_key for x in _references(bound))
  return {name for name, selector in keys if selector == _MACRO}


def _check_flag(
  config: Config,
  uses: Mapping[str, set[str]],
  scope: str,
  selector: str,
  parameter: str,
  value: Any,
):
  """Raises ValueError if a parameter that a flag binds has no effect."""
  name = f'{_short(selector)}.{parameter}'
  if scope:
    scopes = _scopes(uses)
    unknown = [x for x in scope.split('/') if x not in scopes]
    if unknown:
      near = difflib.get_close_matches(unknown[0], scopes, n=1)
      remedy = f'Did you mean {near[0]}/{name}?' if near else ''
      _refuse(f'{scope}/{name}', value, remedy)
    return
  if selector not in uses and _ONLY_BY_REFERENCE.fullmatch(selector):
    same = [x for x in uses if parameter in config.get(('', x), ())]
    near = difflib.get_close_matches(selector, same, n=1)
    remedy = f'Did you mean {near[0]}.{parameter}?' if near else ''
    _refuse(name, value, remedy or f'Refer to it: @{selector}().')
  is_distilled = config.get(('', selector), {}).get('schedule')
  if name in _OF_DISTILLATION and not is_distilled:
    _refuse(name, value, 'Bind trainer.SaltTrainer.schedule.')
  overrides = {
    x
    for x in uses.get(selector, ())
    if parameter in config.get((x, selector), ())
  }
  if overrides and overrides == uses[selector] and '' not in overrides:
    names = ' and '.join(f'{x}/{name}' for x in sorted(overrides))
    _refuse(name, value, f'It is overridden: bind {names}.')


def check_bound(config: Config) -> None:
  """Checks that all macros have values.

  Args:
    config: see `check`.

  Raises:
    ValueError: nothing sets a macro that is required, or that is read.
  """
  is_set = {
    scope: not _is_required(bound['value'])
    for (scope, selector), bound in config.items()
    if selector == _MACRO
  }
  if missing := [name for name, value in is_set.items() if not value]:
    raise ValueError(
      f'{", ".join(missing)}: required, but not set. Set it in a gin file, or '
      f'with --gin.{missing[0]}=VALUE.'
    )
  for bound in config.values():
    for reference in _references(bound):
      name, selector = reference.config_key
      if selector == _MACRO and name not in is_set:
        near = difflib.get_close_matches(name, is_set, n=1, cutoff=0.8)
        remedy = f'Did you mean {near[0]}?' if near else 'Set it.'
        if name.endswith('MODEL'):
          remedy = 'Include a file of students/, teachers/ or oracles/ first.'
        raise ValueError(f'%{name}: nothing sets this macro. {remedy}')


def _refuse(name: str, value: Any, remedy: str):
  raise ValueError(
    f'{name} = {value!r} has no effect: nothing in this configuration reads '
    f'it. {remedy or "Correct the name, or remove it."}'
  )


def _is_required(value: Any) -> bool:
  is_reference = isinstance(value, gin.config.ConfigurableReference)
  return is_reference and value.config_key[0] == 'gin.REQUIRED'


def _references(value: Any) -> Iterator[gin.config.ConfigurableReference]:
  return gin.config.iterate_references({'': value})
