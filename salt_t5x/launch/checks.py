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

"""Checks of the launchers' flags.

Every error names the flag, its value and the remedy.
"""

from collections.abc import Iterable, Mapping, Sequence
import os
import re

# (regular expression, what values look like), for `matches`.
NAME = (
  '[a-z]([-a-z0-9]{0,61}[a-z0-9])?',
  'salt-1: at most 63 lower-case letters, digits and, inside, hyphens',
)
WHEEL = (
  r'(.*/)?salt_t5x-[^/]+\.whl',
  'dist/salt_t5x-0.1.0-py3-none-any.whl, as pip builds it (docs/launch.md)',
)
_VARIABLE = re.compile(r'[A-Za-z_]\w*', re.ASCII)


class FlagError(ValueError):
  """A flag's value is invalid."""


class Secret(str):
  """A string whose `repr` hides its value.

  Libraries print objects that hold environment variables, e.g. in tracebacks.
  """

  def __repr__(self) -> str:
    return f'<secret of {len(self)} characters>'


def matches(
  values: Mapping[str, str | None], patterns: Mapping[str, tuple[str, str]]
) -> None:
  """Checks flags against regular expressions; ignores those that are None.

  Args:
    values: {flag: value}.
    patterns: {flag: (regular expression, what values look like)}.
  """
  for flag, (pattern, example) in patterns.items():
    value = values.get(flag)
    if value is not None and not re.fullmatch(pattern, value):
      raise FlagError(f'--{flag}={value!r} must look like {example}.')


def files(**flags: Sequence[str | None]) -> list[str]:
  """Checks that files or folders exist and have different names.

  Args:
    **flags: {flag: its paths}; paths that are None are ignored.

  Returns:
    The absolute paths, each once.
  """
  named = {}
  for flag, paths in flags.items():
    for path in (x for x in paths if x is not None):
      if not os.path.exists(path):
        raise FlagError(f'--{flag}={path!r} does not exist.')
      if os.path.basename(path.rstrip('/')) in ('', '.', '..'):
        raise FlagError(
          f'--{flag}={path!r} has no name: name the folder itself.'
        )
      path = os.path.abspath(path)
      other = named.setdefault(os.path.basename(path), path)
      if other != path:
        raise FlagError(
          f'{other!r} and {path!r} have the same name and would overwrite each '
          'other: rename one of them.'
        )
  return list(named.values())


def environment(values: Iterable[str]) -> dict[str, str]:
  """Parses NAME=VALUE settings."""
  parsed = {}
  for value in values:
    variable, equals, setting = value.partition('=')
    if not equals or not _VARIABLE.fullmatch(variable) or variable in parsed:
      raise FlagError(
        f'--env={value!r} must look like NAME=VALUE, and each NAME occur once.'
      )
    parsed[variable] = setting
  return parsed


def secrets(
  variables: Iterable[str], env: Mapping[str, str], words: Sequence[str]
) -> dict[str, Secret]:
  """Reads secrets from this process's environment variables.

  Args:
    variables: names of the variables.
    env: the jobs' other variables, which are printed.
    words: words of all command lines, which are printed.

  Raises:
    FlagError: a variable is not set, or `env` or `words` have it, too.
  """
  found = {}
  for variable in variables:
    value = os.environ.get(variable)
    is_name = _VARIABLE.fullmatch(variable)
    if not (value and is_name):
      # Not printed if it may be the secret itself.
      name = variable if is_name else '...'
      raise FlagError(
        f'--secret_env={name}: no environment variable of this launcher has '
        "this name. Give the variable's name, not its value, and set it, e.g. "
        'from a password manager.'
      )
    if variable in env or any(value in x for x in [*words, *env.values()]):
      raise FlagError(
        f'--secret_env={variable}: --env sets it, or its value is in the '
        'command line, which everybody on the machines can read. Let the '
        f'program read ${variable} instead.'
      )
    found[variable] = Secret(value)
  return found
