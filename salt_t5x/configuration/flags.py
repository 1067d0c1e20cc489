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

"""gin bindings on the command line."""

from collections.abc import Sequence
import itertools
import re
import tokenize

from gin import config_parser

_WORDS = {'true': 'True', 'false': 'False', 'none': 'None', 'null': 'None'}


class _Unread(config_parser.ParserDelegate):
  """References and macros are not looked up."""

  def configurable_reference(self, scoped_configurable_name, evaluate):
    del scoped_configurable_name, evaluate

  def macro(self, macro_name):
    del macro_name


def bindings(argv: Sequence[str]) -> list[tuple[str, str]]:
  """Lists the bindings that flags make.

  Args:
    argv: with `--gin.NAME=VALUE`, `--gin_bindings=NAME=VALUE` and
      `--gin_bindings NAME=VALUE` among them.

  Returns:
    (name, value) of each, as text; the value is '' where there is no '='.
  """
  parts = [x.partition('=') for _, x in _texts(argv)]
  return [(name.strip(), value.strip()) for name, _, value in parts]


def _texts(argv: Sequence[str]) -> list[tuple[str, str]]:
  """Lists the flags, '--gin.' or '--gin_bindings=', and what follows each."""
  flag = re.compile(r'(--gin(?:\.|_bindings=))(.*)', re.DOTALL)
  found = [match.groups() for x in argv if (match := flag.fullmatch(x))]
  return found + [
    ('--gin_bindings=', x)
    for before, x in itertools.pairwise(argv)
    if before == '--gin_bindings'
  ]


def check(argv: Sequence[str]) -> None:
  """Checks that gin can read the bindings; it would name neither.

  Args:
    argv: see `bindings`.

  Raises:
    ValueError: a name or a value is not what gin reads.
  """
  for flag, text in _texts(argv):
    name, _, value = (x.strip() for x in text.partition('='))
    # --gin_bindings may hold all that a gin file may: includes, several lines.
    is_one = flag == '--gin.'
    if is_one and _count(f'{name} = None') != 1:
      raise ValueError(
        f'--gin.{name}: this is no name. Write --gin.NAME=VALUE; NAME is a '
        'macro, or [scope/]module.Class.parameter.'
      )
    count = _count(f'{name} = {value}' if is_one else text)
    if count is None or (is_one and count != 1):
      raise ValueError(
        f'{flag}{name}={value}: gin cannot read this value. '
        f'{_remedy(flag + name, value)}'
      )


def _count(text: str) -> int | None:
  """Returns the number of statements, or None if gin cannot read them."""
  try:
    return len(list(config_parser.ConfigParser(text, _Unread())))
  except (SyntaxError, tokenize.TokenError, ValueError):
    return None


def _remedy(flag: str, value: str) -> str:
  if word := _WORDS.get(value.lower()):
    return f'Write {flag}={word}.'
  if not value:
    return f'Write {flag}=VALUE, with a Python literal as the value.'
  if value[0] in '([{\'"':
    return 'Close its brackets and quotes, and put text inside it in quotes.'
  return (
    'Text needs quotes, and the shell takes one pair away: write '
    f'{flag}="{value!r}".'
  )
