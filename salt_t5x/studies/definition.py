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

"""A study compares runs that differ in one thing.

A gin file in `gin/studies/` names the variants; `jobs` turns them into
processes.
"""

from collections.abc import Iterable, Mapping, Sequence
import dataclasses
import itertools
import os
import re
import tokenize
from typing import Any

import gin

from salt_t5x.studies import gin_files

_GIN = 'salt_t5x/gin'
# {recipe: what must exist before its run}
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
# Names of varied parameters in labels.
_SYMBOLS = {
  'DISTILLATION_WEIGHT': 'ω',
  'TEACHER_TEMPERATURE': 'ρ',
  'KD_STEPS': 'n_KD',
}


class StudyError(ValueError):
  """A study or a setting is not valid."""


@dataclasses.dataclass(frozen=True)
class Study:
  """The variants and measurements of a study, bound by its gin file.

  Attributes:
    title: the heading of the report.
    about: the paper's findings and where they are, in a sentence or two.
    variants: {label: options}. The options are 'recipe' (`NEEDS` lists them),
      'teacher' (gin bindings of the teacher's run, which may name another
      'recipe'), 'models' (gin bindings of all runs of the variant), 'selection'
      (flags of `salt_t5x.select`) and gin bindings. A binding with a list of
      values makes one variant of each value, several lists one of each
      combination. '40%' is 40% of TRAIN_STEPS of the students.
    report_at: the steps of the tables: names of macros, or percentages.
    buckets_at: the steps at which students are compared on held-out text that
      is easy, medium and hard for the teacher, the variant 'SLM' (section 5.4).
    benchmarks_at: the steps at which students and 'SLM' are measured on those
      of the paper's few-shot tasks (App. F) that the package registry has.
    costs: whether to time steps and report the time saved (App. J).
    theory: whether to estimate the theory's quantities with the reference as
      the student, 'SLM' as its teacher and the variant 'ORACLE' (App. C and D).
    reference: the variant that others are compared with.
    best_of: whether to name the variant with the lowest final log-perplexity.
    in_the_paper: {variant: 'better' or 'worse'}, how it ends in the paper
      compared with the reference.
    passes_in_the_paper: {variant: share of the steps after which it matches the
      reference's final few-shot scores in the paper}.
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
    labels = [v.label for v in self.expand()]
    is_valid = all(re.fullmatch(r'[^./|@\n][^/|@\n]*', x) for x in labels)
    if len({*labels}) < len(labels) or not is_valid:
      raise StudyError(
        f'studies.Study.variants: {labels} must all differ, begin with no dot, '
        'and have none of / | @ and line breaks, which names of checkpoints '
        'and tables cannot have.'
      )
    needed = {
      'reference': [self.reference],
      'in_the_paper': self.in_the_paper,
      'passes_in_the_paper': self.passes_in_the_paper,
      'theory': [SLM, ORACLE],
      'buckets_at': [SLM],
      'benchmarks_at': [SLM],
    }
    for name, variants in needed.items():
      if getattr(self, name) and (missing := {*variants} - {*labels}):
        raise StudyError(
          f'studies.Study.{name} = {getattr(self, name)!r} needs the variants '
          f'{sorted(missing)}, but variants has only {labels}.'
        )

  def expand(self) -> list['Variant']:
    """Returns a variant for each combination of values.

    Raises:
      StudyError: a variant is not what `variants` describes.
    """
    found = []
    for label, options in self.variants.items():
      bindings = dict(options)
      parts = ('recipe', 'models', 'teacher', 'selection')
      parts = {k: bindings.pop(k) for k in parts if k in bindings}
      varied = {
        k: v for k, v in bindings.items() if isinstance(v, list | tuple)
      }
      for values in itertools.product(*varied.values()):
        chosen = dict(zip(varied, values, strict=True))
        names = [f'{_SYMBOLS.get(k, k)} = {v}' for k, v in chosen.items()]
        label_of = ', '.join([label, *names])
        found.append(Variant(label_of, bindings=bindings | chosen, **parts))
    return found


@dataclasses.dataclass(frozen=True)
class Variant:
  """A run of a study, made once for each seed; see `Study.variants`.

  Attributes:
    label: its name in tables and figures.
    recipe: the end of the recipe's name.
    bindings: {gin parameter: value}.
    models: gin bindings of the models.
    teacher: gin bindings of the teacher's run.
    selection: flags of `salt_t5x.select`.
  """

  label: str
  recipe: str | None = None
  bindings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  models: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  teacher: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  selection: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  def __post_init__(self):
    parts = self.models, self.teacher, self.selection
    if self.recipe not in NEEDS or not all(isinstance(x, dict) for x in parts):
      raise StudyError(
        f'studies.Study.variants: {self}: recipe must be one of '
        f'{sorted(NEEDS)}; models, teacher and selection are dicts.'
      )


@dataclasses.dataclass(frozen=True)
class Setting:
  """The gin files and bindings that all runs of a study share.

  Attributes:
    bindings: gin bindings for all runs, 'NAME = value'.
    file: the path of a gin file for all runs, or the name of one of
      `gin/settings/`; None for the recipes as they are.

  Raises:
    StudyError: the file does not exist, or gin cannot read it or a binding.
  """

  bindings: Sequence[str] = ()
  file: str | None = None

  def __post_init__(self):
    try:
      self.configs('teacher')
    except (OSError, SyntaxError) as e:
      raise StudyError(f'--setting={self.file}: {e}') from e
    parse_bindings(self.bindings)

  @property
  def bound(self) -> Mapping[str, Any]:
    """The values of the bindings."""
    return parse_bindings(self.bindings)

  def with_bindings(self, bindings: Sequence[str]) -> 'Setting':
    """Returns a setting with further bindings, which win."""
    return Setting([*self.bindings, *bindings], self.file)

  def files(self, recipe: str) -> list[str]:
    """Returns the gin files of a recipe's run; later ones win."""
    files = [_path('recipes', f'tiny_{recipe}')]
    return [*files, _path('settings', self.file)] if self.file else files

  def configs(self, recipe: str) -> list[gin_files.Config]:
    """Returns the content of `files`."""
    return [gin_files.read(path) for path in self.files(recipe)]

  def value(self, name: str, recipe: str = 'salt') -> Any:
    """Returns the value of a macro or parameter in a recipe's run.

    Raises:
      StudyError: it is not bound.
    """
    values = {}
    for config in self.configs(recipe):
      values |= config.values
    values |= self.bound
    if name not in values:
      raise StudyError(f'No recipe binds {name}.')
    value = values[name]
    if isinstance(value, gin_files.Reference) and value.startswith('%'):
      return self.value(value[1:], recipe)
    return value

  def check_macros(
    self, names: Iterable[str], recipes: Iterable[str], where: str
  ) -> None:
    """Refuses macros that none of the recipes has, which gin would ignore.

    Args:
      names: macros, and parameters, which are not checked.
      recipes: the recipes of the runs that get the bindings.
      where: the flag or parameter that binds the names.

    Raises:
      StudyError: there is one.
    """
    configs = [config for recipe in recipes for config in self.configs(recipe)]
    known = frozenset().union(*(config.macros for config in configs))
    for name in names:
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

    def is_new(name, text):
      try:
        return text != f'{name} = {self.value(name, recipe)!r}'
      except StudyError:
        return True

    texts = self.format(bindings)
    return [
      x for name, x in zip(bindings, texts, strict=True) if is_new(name, x)
    ]


def _path(kind: str, name: str) -> str:
  """Returns a gin file of the package for a name, and a path as it is."""
  return name if name.endswith('.gin') else f'{_GIN}/{kind}/{name}.gin'


def parse_bindings(bindings: Sequence[str]) -> Mapping[str, Any]:
  """Parses 'NAME = value'.

  Raises:
    StudyError: gin cannot read them.
  """
  try:
    return gin_files.parse('\n'.join(bindings)).values
  except (SyntaxError, ValueError, tokenize.TokenError) as e:
    listed = ' '.join(f'--gin={x}' for x in bindings)
    raise StudyError(f'{listed}: {e.args[0]} Write NAME=VALUE.') from e


def read(paths: Sequence[str]) -> dict[str, Study]:
  """Reads gin files of studies.

  Args:
    paths: gin files, or the names of those in `gin/studies/`.

  Returns:
    {the file's name: its study}.

  Raises:
    StudyError: there is no such file, it configures no study, or two files have
      one name.
  """
  found = {}
  for path in paths:
    name = os.path.splitext(os.path.basename(path))[0]
    if name in found:
      raise StudyError(f'--study: two studies have one name, {name}.')
    path = _path('studies', path)
    with gin.unlock_config():
      gin.clear_config()
      try:
        gin.parse_config_file(path)
        found[name] = gin.get_configurable(Study)()
      except (
        OSError,
        ValueError,
        TypeError,
        SyntaxError,
        tokenize.TokenError,
      ) as e:
        raise StudyError(f'{path}: {e}') from e
  return found
