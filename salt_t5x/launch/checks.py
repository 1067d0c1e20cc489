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
import shlex


class FlagError(ValueError):
  """A flag's value is invalid."""


class Secret(str):
  """A string whose `repr` hides its value.

  Libraries print objects that hold environment variables, e.g. in tracebacks.
  """

  def __repr__(self) -> str:
    return f'<secret of {len(self)} characters>'


def name(flag: str, value: str) -> str:
  """Checks a resource's name by the rules of Google Cloud (RFC 1035)."""
  if not re.fullmatch('[a-z]([-a-z0-9]{0,61}[a-z0-9])?', value):
    raise FlagError(
      f'--{flag}={value!r}: a name has 1 to 63 lower-case letters, digits and '
      'hyphens, begins with a letter and does not end with a hyphen.'
    )
  return value


def matches(flag: str, value: str, pattern: str, example: str) -> str:
  """Checks a value against a regular expression."""
  if not re.fullmatch(pattern, value):
    raise FlagError(f'--{flag}={value!r} must look like {example!r}.')
  return value


def wheel(value: str) -> str:
  """Checks that a file is this package's wheel."""
  if not re.fullmatch(r'salt_t5x-[^/]+\.whl', os.path.basename(value)):
    raise FlagError(
      f'--wheel={value!r} is no wheel of salt_t5x: build one with `python '
      '-m pip wheel --no-deps --wheel-dir=dist .`.'
    )
  return files('wheel', [value])[0]


def files(flag: str, paths: Iterable[str]) -> list[str]:
  """Checks that files or folders exist and have different names.

  Returns:
    The paths without trailing slashes.
  """
  paths = [path.rstrip('/') for path in paths]
  names = {}
  for path in paths:
    if not os.path.exists(path):
      raise FlagError(f'--{flag}={path!r} does not exist.')
    base = os.path.basename(path)
    if base in ('', '.', '..'):
      raise FlagError(f'--{flag}={path!r} has no name: name the folder itself.')
    if names.setdefault(base, path) != path:
      raise FlagError(
        f'{names[base]!r} and {path!r} have the same name and would overwrite '
        'each other: rename one of them.'
      )
  return paths


def environment(values: Iterable[str]) -> dict[str, str]:
  """Parses NAME=VALUE settings."""
  parsed = {}
  for value in values:
    variable, equals, setting = value.partition('=')
    if not equals or not re.fullmatch('[A-Za-z_][A-Za-z0-9_]*', variable):
      raise FlagError(f'--env={value!r} must look like NAME=VALUE.')
    if variable in parsed:
      raise FlagError(f'--env={value!r}: {variable} is given twice.')
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
    FlagError: a variable is not set, or `words` or `env` contains its value.
  """
  found = {}
  for variable in variables:
    if not re.fullmatch('[A-Za-z_][A-Za-z0-9_]*', variable):
      # Not printed: it may be the secret itself.
      raise FlagError(
        "--secret_env takes an environment variable's name, not its value."
      )
    value = os.environ.get(variable)
    if not value:
      raise FlagError(
        f'--secret_env={variable}: the environment variable is not set. '
        'Set it for this launcher, e.g. from a password manager.'
      )
    if variable in env:
      raise FlagError(
        f'--secret_env={variable}: --env also sets it. Remove one of them.'
      )
    if any(value in word for word in [*words, *env.values()]):
      raise FlagError(
        f'--secret_env={variable}: its value is in the command line, which '
        'everybody on the machines can read. Let the program read '
        f'${variable} instead.'
      )
    found[variable] = Secret(value)
  return found


def shell_settings(values: Mapping[str, str]) -> str:
  """Formats environment variables as a shell script."""
  return ''.join(f'{k}={shlex.quote(v)}\n' for k, v in values.items())
