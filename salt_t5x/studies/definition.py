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
import dataclasses
import itertools
import os
import re
import tokenize
from typing import Any

import gin

from salt_t5x import engine

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
  """What all runs of a study are given beside their recipes.

  Attributes:
    file: a gin file, or None.
    bindings: gin bindings, 'NAME = value'.
  """

  def __init__(self, bindings: Sequence[str] = (), setting: str | None = None):
    """Constructor.

    Args:
      bindings: of all runs.
      setting: the path of a gin file for all runs, or the name of one of
        `gin/settings/`; None for the recipes as they are.

    Raises:
      StudyError: there is no such file.
    """
    self.bindings, self.file = list(bindings), setting
    if setting is None:
      return
    if not setting.endswith('.gin'):
      self.file = f'{_GIN}/settings/{setting}.gin'
    try:
      engine.flat_gin(self.file)
    except OSError as e:
      raise StudyError(f'--setting={setting}: {e}') from e

  def with_bindings(self, bindings: Sequence[str]) -> 'Setting':
    """The same, with further bindings, which win."""
    return Setting([*self.bindings, *bindings], self.file)

  def files(self, recipe: str) -> list[str]:
    """The gin files of a recipe's run; later ones win."""
    return [f'{_GIN}/recipes/tiny_{recipe}.gin', *filter(None, [self.file])]

  def text(self, recipe: str) -> str:
    """What a recipe's run is configured with; later lines win."""
    texts = map(engine.flat_gin, self.files(recipe))
    return '\n'.join([*texts, *self.bindings])

  def macro(self, name: str, recipe: str = 'salt') -> str:
    """The text of a macro's value.

    gin itself would want the train binary's `__main__`.
    """
    values = re.findall(rf'^{name} *=(.*)', self.text(recipe), re.M)
    if not values:
      raise StudyError(f'No recipe binds {name}.')
    value = values[-1].split('#')[0].strip()
    return self.macro(value[1:], recipe) if value[:1] == '%' else value

  def check_macros(
    self, bindings: Sequence[str], recipes: Iterable[str], where: str
  ) -> None:
    """Refuses macros that no recipe has: gin would take and forget them.

    Args:
      bindings: 'NAME = value'.
      recipes: where they may be.
      where: they were given.

    Raises:
      StudyError: one is nowhere.
    """
    files = [path for recipe in recipes for path in self.files(recipe)]
    texts = '\n'.join(engine.flat_gin(path) for path in dict.fromkeys(files))
    known = re.sub('#.*', '', texts)
    for binding in bindings:
      match = re.match(r'(\w+) *=', binding)
      if match and not re.search(rf'\b{match[1]}\b', known):
        raise StudyError(
          f'{where}: no recipe has a macro {match[1]}, so nothing would '
          'change. Check its spelling; gin/recipes/ and what they include have '
          'them all.'
        )

  def number(self, name: str, recipe: str = 'salt') -> int:
    """`macro`, if it is a whole number.

    Raises:
      StudyError: it is not.
    """
    value = self.macro(name, recipe)
    if not value.isdecimal():
      raise StudyError(f'--gin={name}={value}: {name} must be a number here.')
    return int(value)

  def step(self, text: str) -> int:
    """A step: of '40%' of the run, or the value of a macro."""
    if match := re.fullmatch(r'(\d+(?:\.\d+)?)%', text):
      return round(float(match[1]) / 100 * self.number('TRAIN_STEPS'))
    return self.number(text)

  def format(self, bindings: Mapping[str, Any]) -> list[str]:
    """Writes bindings as gin reads them."""

    def value(x):
      if isinstance(x, str) and x.endswith('%'):
        return str(self.step(x))
      # References and calls stand as they are.
      if isinstance(x, str) and x.startswith(('@', '%')):
        return x
      return repr(x)

    return [f'{name} = {value(x)}' for name, x in bindings.items()]

  def changes(self, recipe: str, bindings: Mapping[str, Any]) -> list[str]:
    """`format`, without what the recipe has anyway: that is the same run."""

    def has(binding):
      name, value = binding.split(' = ', 1)
      try:
        return self.macro(name, recipe) == value
      except StudyError:
        return False

    return [b for b in self.format(bindings) if not has(b)]


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
