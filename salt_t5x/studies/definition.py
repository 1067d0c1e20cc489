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

"""A study: runs that differ in one thing, compared.

A gin file in `gin/studies/` names the variants; `jobs` makes of them the
processes that are run.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
import copy
import dataclasses
import functools
import itertools
import os
import re
import tokenize
from typing import Any

import gin

from salt_t5x.studies import gin_files

_GIN = 'salt_t5x/gin'
# {recipe: what its run needs before it}
NEEDS = {
  'teacher': (),
  'oracle': (),
  'baseline': (),
  'baseline_ez': ('selection',),
  'rkd': ('teacher',),
  'salt': ('teacher',),
  'salt_ds': ('teacher', 'selection'),
}
# The teacher's name in tables, as in the paper.
SLM = 'SLM'
ORACLE = 'ORACLE'
# How labels call what a grid varies.
_SYMBOLS = {
  'DISTILLATION_WEIGHT': 'ω',
  'TEACHER_TEMPERATURE': 'ρ',
  'KD_STEPS': 'n_KD',
}


class StudyError(ValueError):
  """A study's file says what cannot be."""


@dataclasses.dataclass(frozen=True)
class Study:
  """What a gin file of `gin/studies/` configures.

  Attributes:
    title: of the tables.
    about: what the paper found, and where; a sentence or two.
    variants: {label: {'recipe': the end of a recipe's name, 'teacher': bindings
      of the teacher's run ('recipe' among them, if it is another), 'models':
      bindings of the models, which all runs of the variant get, 'selection':
      flags of `salt_t5x.select`, any other: a gin binding}}. A binding with a
      list of values makes a variant of each (with several, of each
      combination). '40%' is 40% of TRAIN_STEPS of the students.
    report_at: the steps of the tables: names of macros, or percentages.
    buckets_at: the steps at which held-out text is split into what is easy,
      medium and hard for the teacher, the variant 'SLM' (section 5.4).
    benchmarks_at: the steps at which students, and SLM, are measured on the
      paper's few-shot tasks (App. F), as far as the package registry has them.
    costs: whether to time steps, and to tell what is saved (App. J).
    theory: whether to estimate the theory's quantities for the reference as the
      student, 'SLM' as its teacher and the variant 'ORACLE' (App. C and D).
    reference: the variant that others are compared with.
    best_of: whether the least final log-perplexity is to be pointed out.
    in_the_paper: {variant: 'better' or 'worse' than the reference at the end of
      training}.
    passes_in_the_paper: {variant: the share of the steps at which the paper's
      has the reference's final quality}.
  """

  title: str
  about: str
  variants: Mapping[str, Mapping[str, Any]]
  report_at: Sequence[str] = ('100%',)
  buckets_at: Sequence[str] = ()
  benchmarks_at: Sequence[str] = ()
  costs: bool = False
  theory: bool = False
  reference: str = 'BASELINE'
  best_of: bool = False
  in_the_paper: Mapping[str, str] = dataclasses.field(default_factory=dict)
  passes_in_the_paper: Mapping[str, float] = dataclasses.field(
    default_factory=dict
  )

  def __post_init__(self):
    labels = [v.label for v in expand(self.variants)]
    if self.reference not in labels:
      raise StudyError(
        f'studies.Study.reference = {self.reference!r} is none of the variants '
        f'{labels}.'
      )
    for name in ('in_the_paper', 'passes_in_the_paper'):
      if unknown := set(getattr(self, name)) - set(labels):
        raise StudyError(
          f'studies.Study.{name}: {sorted(unknown)} are none of the variants '
          f'{labels}.'
        )
    for label in labels:
      if re.search(r'[/|@]', label):
        raise StudyError(
          f'studies.Study.variants: {label!r} has one of the characters / | @, '
          'which names of checkpoints and tables cannot have.'
        )
    if self.theory and not {SLM, ORACLE} <= set(labels):
      raise StudyError(
        f'studies.Study.theory: among the variants must be {SLM!r} and '
        f'{ORACLE!r}, not only {labels}.'
      )
    for name in ('buckets_at', 'benchmarks_at'):
      if getattr(self, name) and SLM not in labels:
        raise StudyError(
          f'studies.Study.{name} = {getattr(self, name)!r}, but no variant is '
          f'{SLM!r}, the teacher.'
        )


@dataclasses.dataclass(frozen=True)
class Variant:
  """One run of a study, for each seed.

  Attributes:
    label: in tables and figures.
    recipe: the end of its name.
    bindings: {gin parameter: value}, values as in `Study.variants`.
    models: bindings of the models.
    teacher: bindings of the teacher's run.
    selection: flags of `salt_t5x.select`.
  """

  label: str
  recipe: str
  bindings: Mapping[str, Any]
  models: Mapping[str, Any]
  teacher: Mapping[str, Any]
  selection: Mapping[str, Any]


def expand(variants: Mapping[str, Mapping[str, Any]]) -> list[Variant]:
  """Makes a variant of each combination of values.

  Raises:
    StudyError: a variant is not what `Study.variants` says.
  """
  found = []
  for label, options in variants.items():
    options = dict(options)
    recipe = options.pop('recipe', None)
    if recipe not in NEEDS:
      raise StudyError(
        f'studies.Study.variants[{label!r}]: recipe = {recipe!r} is none of '
        f'{sorted(NEEDS)}.'
      )
    parts = {k: options.pop(k, {}) for k in ('models', 'teacher', 'selection')}
    for name, part in parts.items():
      if not isinstance(part, Mapping):
        raise StudyError(
          f'studies.Study.variants[{label!r}]: {name} = {part!r} is no dict.'
        )
    varied = {k: v for k, v in options.items() if isinstance(v, list | tuple)}
    for values in itertools.product(*varied.values()):
      chosen = dict(zip(varied, values, strict=True))
      names = [f'{_SYMBOLS.get(k, k)} = {v}' for k, v in chosen.items()]
      found.append(
        Variant(
          label=', '.join([label, *names]),
          recipe=recipe,
          bindings=options | chosen,
          **parts,
        )
      )
  labels = [v.label for v in found]
  if len(set(labels)) < len(labels):
    raise StudyError(f'studies.Study.variants: {labels} are not all different.')
  return found


class Setting:
  """The gin files and bindings that all runs of a study share.

  Attributes:
    file: a gin file, or None.
    bindings: gin bindings, 'NAME = value'.
  """

  def __init__(self, bindings: Sequence[str] = (), setting: str | None = None):
    """Reads the setting's file.

    Args:
      bindings: for all runs.
      setting: the path of a gin file for all runs, or the name of one of
        `gin/settings/`; None for the recipes as they are.

    Raises:
      StudyError: the file does not exist, or gin cannot read it or a binding.
    """
    self.file = setting
    if setting and not setting.endswith('.gin'):
      self.file = f'{_GIN}/settings/{setting}.gin'
    self._read = functools.cache(gin_files.read)
    self._bind(bindings)
    try:
      self.configs('teacher')
    except (OSError, SyntaxError) as e:
      raise StudyError(f'--setting={setting}: {e}') from e

  def _bind(self, bindings: Sequence[str]) -> None:
    self.bindings = list(bindings)
    self.bound = parse_bindings(bindings).values

  def with_bindings(self, bindings: Sequence[str]) -> 'Setting':
    """Returns a setting with further bindings, which win."""
    result = copy.copy(self)
    result._bind([*self.bindings, *bindings])
    return result

  def files(self, recipe: str) -> list[str]:
    """Returns the gin files of a recipe's run; later ones win."""
    return [f'{_GIN}/recipes/tiny_{recipe}.gin', *filter(None, [self.file])]

  def configs(self, recipe: str) -> list[gin_files.Config]:
    """Returns the content of `files`."""
    return [self._read(path) for path in self.files(recipe)]

  def value(self, name: str, recipe: str = 'salt') -> Any:
    """Returns the value of a macro or parameter in a recipe's run.

    Raises:
      StudyError: it is not bound.
    """
    for values in self.bound, *(c.values for c in self.configs(recipe)[::-1]):
      if name in values:
        value = values[name]
        if isinstance(value, gin_files.Reference) and value.startswith('%'):
          return self.value(value[1:], recipe)
        return value
    raise StudyError(f'No recipe binds {name}.')

  def check_macros(
    self, bindings: Sequence[str], recipes: Iterable[str], where: str
  ) -> None:
    """Refuses macros that no recipe has, which gin would ignore.

    Args:
      bindings: 'NAME = value'.
      recipes: the recipes that may have them.
      where: begins the error message: the flag or parameter of `bindings`.

    Raises:
      StudyError: no recipe has a macro.
    """
    configs = [config for x in recipes for config in self.configs(x)]
    known = frozenset().union(*(config.macros for config in configs))
    for name in parse_bindings(bindings).values:
      if name.isidentifier() and name not in known:
        raise StudyError(
          f'{where}: no recipe has a macro {name}, so it would change nothing. '
          'Check its spelling; gin/recipes/ and the files they include have '
          'them all.'
        )

  def number(self, name: str, recipe: str = 'salt') -> int:
    """Returns `value` if it is a whole number.

    Raises:
      StudyError: it is not.
    """
    value = self.value(name, recipe)
    if type(value) is not int or value < 0:
      raise StudyError(f'--gin={name}={value!r}: {name} must be a number here.')
    return value

  def step(self, text: str) -> int:
    """Returns the step of '40%' of TRAIN_STEPS, or the value of a macro."""
    if match := re.fullmatch(r'(\d+(?:\.\d+)?)%', text):
      return round(float(match[1]) / 100 * self.number('TRAIN_STEPS'))
    return self.number(text)

  def format(self, bindings: Mapping[str, Any]) -> list[str]:
    """Writes bindings as gin reads them; percentages become steps."""

    def text(x):
      if isinstance(x, str) and x.endswith('%'):
        return self.step(x)
      # References and calls are written without quotes.
      is_reference = isinstance(x, str) and x.startswith(('@', '%'))
      return x if is_reference else repr(x)

    return [f'{name} = {text(x)}' for name, x in bindings.items()]

  def changes(self, recipe: str, bindings: Mapping[str, Any]) -> list[str]:
    """`format`, without bindings that the recipe has: that is the same run."""

    def is_new(binding):
      name, text = binding.split(' = ', 1)
      try:
        return repr(self.value(name, recipe)) != text
      except StudyError:
        return True

    return [b for b in self.format(bindings) if is_new(b)]


def parse_bindings(bindings: Sequence[str]) -> gin_files.Config:
  """Parses 'NAME = value'.

  Raises:
    StudyError: gin cannot read them.
  """
  try:
    return gin_files.parse('\n'.join(bindings))
  except (SyntaxError, ValueError, tokenize.TokenError) as e:
    listed = ' '.join(f'--gin={x}' for x in bindings)
    raise StudyError(f'{listed}: {e.args[0]} Write NAME=VALUE.') from e


def read(paths: Sequence[str]) -> Iterator[tuple[str, Study]]:
  """Reads gin files of studies.

  Args:
    paths: of gin files, or the names of those in `gin/studies/`.

  Yields:
    (the file's name, its study).

  Raises:
    StudyError: there is no such file, or it configures no study.
  """
  for path in paths:
    name = os.path.splitext(os.path.basename(path))[0]
    if not path.endswith('.gin'):
      path = f'{_GIN}/studies/{path}.gin'
    with gin.unlock_config():
      gin.clear_config()
      try:
        gin.parse_config_file(path)
        study = gin.get_configurable(Study)()
      except (
        OSError,
        ValueError,
        TypeError,
        SyntaxError,
        tokenize.TokenError,
      ) as e:
        raise StudyError(f'{path}: {e}') from e
    yield name, study
