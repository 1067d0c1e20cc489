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

A gin file in `gin/studies/` names the variants; `jobs_of` makes of them the
processes that `jobs.run_all` runs. Studies that want the same run share it.
"""

from collections.abc import Iterator, Mapping, Sequence
import dataclasses
import itertools
import os
import pathlib
import re
from typing import Any

import gin

from salt_t5x import engine, jobs

_GIN = 'salt_t5x/gin'
# What a recipe's run needs before it.
_NEEDS = {
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
    theory: whether to estimate the theory's quantities for the reference as the
      student, 'SLM' as its teacher and the variant 'ORACLE' (App. C and D).
    reference: the variant that others are compared with.
    best_of: whether the least final log-perplexity is to be pointed out.
  """

  title: str
  about: str
  variants: Mapping[str, Mapping[str, Any]]
  report_at: Sequence[str] = ('100%',)
  buckets_at: Sequence[str] = ()
  theory: bool = False
  reference: str = 'BASELINE'
  best_of: bool = False

  def __post_init__(self):
    labels = [v.label for v in expand(self.variants)]
    if self.reference not in labels:
      raise StudyError(
        f'studies.Study.reference = {self.reference!r} is none of the variants '
        f'{labels}.'
      )
    if self.theory and not {SLM, ORACLE} <= set(labels):
      raise StudyError(
        f'studies.Study.theory: among the variants must be {SLM!r} and '
        f'{ORACLE!r}, not only {labels}.'
      )
    if self.buckets_at and SLM not in labels:
      raise StudyError(
        f'studies.Study.buckets_at = {self.buckets_at!r}, but no variant is '
        f'{SLM!r}, the teacher who says what is easy.'
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
    if recipe not in _NEEDS:
      raise StudyError(
        f'studies.Study.variants[{label!r}]: recipe = {recipe!r} is none of '
        f'{sorted(_NEEDS)}.'
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
    self.bindings, self.file, self._text = list(bindings), setting, ''
    if setting is None:
      return
    if not setting.endswith('.gin'):
      self.file = f'{_GIN}/settings/{setting}.gin'
    try:
      if self.file.startswith(f'{_GIN}/'):
        self._text = engine.read_gin(self.file)
      else:
        self._text = pathlib.Path(self.file).read_text(encoding='utf-8')
    except OSError as e:
      raise StudyError(f'--setting={setting}: {e}') from e

  def files(self, recipe: str) -> list[str]:
    """The gin files of a recipe's run; later ones win."""
    return [f'{_GIN}/recipes/tiny_{recipe}.gin', *filter(None, [self.file])]

  def macro(self, name: str, recipe: str = 'salt') -> str:
    """The text of a macro's value.

    gin itself would want the train binary's `__main__`.
    """
    texts = [
      *reversed(self.bindings),
      self._text,
      engine.read_gin(f'{_GIN}/recipes/tiny_{recipe}.gin'),
      engine.read_gin(f'{_GIN}/recipes/tiny.gin'),
    ]
    for text in texts:
      if match := re.search(rf'^{name} *=(.*)', text, re.M):
        value = match[1].split('#')[0].strip()
        return self.macro(value[1:], recipe) if value[:1] == '%' else value
    raise StudyError(f'No recipe binds {name}.')

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


def _folder_name(recipe: str, *bindings: str) -> str:
  """'salt', or 'salt,KD_STEPS=90': readable, and fit for a path."""
  words = [re.sub(r'[^\w.=-]+', '_', x.replace(' ', '')) for x in bindings]
  return ','.join([recipe, *words])


class JobsOfSeed:
  """Makes the jobs of one seed; runs that are wanted twice are one."""

  def __init__(self, work_dir: str, seed: str, setting: Setting):
    """Constructor.

    Args:
      work_dir: holds 'data', and gets a folder for the seed.
      seed: RANDOM_SEED of initialisation; the data order is fixed.
      setting: what all runs are given.
    """
    self._folder = os.path.join(work_dir, f'seed_{seed}')
    self._environment = {
      'SALT_T5X_DATA': os.path.abspath(os.path.join(work_dir, 'data')),
      # Most runs compile the same programs.
      'JAX_COMPILATION_CACHE_DIR': os.path.abspath(
        os.path.join(work_dir, 'compiled')
      ),
    }
    self._seed, self._setting = seed, setting
    self._jobs: dict[str, jobs.Job] = {}

  @property
  def all(self) -> list[jobs.Job]:
    """In the order of waiting: what most others need comes first."""
    return sorted(self._jobs.values(), key=_depth)

  def of(self, variant: Variant) -> jobs.Job:
    """The job that trains a variant; those that it needs are made, too."""
    setting, needs = self._setting, _NEEDS[variant.recipe]
    models = setting.format(variant.models)
    bindings = models + setting.changes(variant.recipe, variant.bindings)
    paths, before, suffix = {}, [], []
    if 'teacher' in needs:
      teacher = self._teacher(variant, models)
      paths['TEACHER_PATH'] = teacher.folder
      before.append(teacher)
      if variant.teacher:
        suffix.append(f'by={os.path.basename(teacher.folder)}')
    if 'selection' in needs:
      selection = self._selection(variant, models, bindings)
      paths['SELECTION_PATH'] = os.path.join(selection.folder, 'selection.json')
      before.append(selection)
      if variant.selection:
        suffix.append(f'on={os.path.basename(selection.folder)}')
    return self._train(variant.recipe, bindings, paths, before, suffix)

  def evaluation(
    self, name: str, students: Mapping[str, jobs.Job], steps: Sequence[int]
  ) -> jobs.Job:
    """The job that judges held-out text by checkpoints of students.

    Args:
      name: of the job.
      students: {label: job}, among them `SLM`, of which the end is judged.
      steps: of the checkpoints; they are called 'label @step'.
    """
    students = dict(students)
    teacher = students.pop(SLM)
    checkpoints = {
      f'{label} @{step}': os.path.join(job.folder, f'checkpoint_{step}')
      for step in steps
      for label, job in students.items()
    }
    return self._job(
      name,
      'salt_t5x.evaluate',
      'evaluate',
      'OUTPUT_DIR',
      ['SUITE = ()'],
      {'TEACHER_PATH': teacher.folder, 'CHECKPOINTS': checkpoints},
      [teacher, *students.values()],
    )

  def theory(
    self, name: str, trained: Mapping[str, jobs.Job], reference: str
  ) -> jobs.Job:
    """The job that estimates the theory's quantities.

    Args:
      name: of the job.
      trained: {label: job}, among them the student (`reference`), `SLM` and
        `ORACLE`.
      reference: the student's label.
    """
    student, teacher, oracle = (trained[x] for x in (reference, SLM, ORACLE))
    return self._job(
      name,
      'salt_t5x.analyze',
      'analyze',
      'OUTPUT_DIR',
      [],
      {
        'STUDENT_PATH': student.folder,
        'TEACHER_PATH': teacher.folder,
        'ORACLE_PATH': oracle.folder,
      },
      [student, teacher, oracle],
    )

  def _teacher(self, variant: Variant, models: Sequence[str]) -> jobs.Job:
    options = dict(variant.teacher)
    recipe = options.pop('recipe', 'teacher')
    bindings = [*models, *self._setting.changes(recipe, options)]
    return self._train(recipe, bindings, {}, [], [])

  def _train(self, recipe, bindings, paths, before, suffix) -> jobs.Job:
    name = _folder_name(recipe, *bindings, *suffix)
    return self._job(
      name, 'salt_t5x.train', recipe, 'MODEL_DIR', bindings, paths, before
    )

  def _job(
    self, name, module, recipe, output, bindings, paths, before, **options
  ) -> jobs.Job:
    folder = os.path.join(self._folder, name)
    bindings = [
      f'RANDOM_SEED={self._seed}', *self._setting.bindings, *bindings
    ]  # fmt: skip
    if module != 'salt_t5x.train':
      # Parameters of training mean nothing to others; macros they may share.
      bindings = [b for b in bindings if re.match(r'(\w+|size_\w+/.*) *=', b)]
    paths = {output: folder, **paths}
    command = [
      module,
      *(f'--gin_file={path}' for path in self._setting.files(recipe)),
      *(f'--gin.{k}={v!r}' for k, v in paths.items()),
      *(f'--gin.{b}' for b in bindings),
    ]
    return self._add(name, folder, command, bindings, before)

  def _add(
    self, name, folder, command, options, before, leftovers=None
  ) -> jobs.Job:
    if name not in self._jobs:
      self._jobs[name] = jobs.Job(
        f'{name} [{self._seed}]',
        folder,
        command,
        # The gin files count, too.
        {'options': options, 'gin_files': engine.gin_fingerprint()},
        before,
        self._environment,
        leftovers,
      )
    return self._jobs[name]

  def _selection(
    self, variant: Variant, models: Sequence[str], bindings: Sequence[str]
  ) -> jobs.Job:
    teacher = self._teacher(variant, models)
    name = _folder_name('scores', *models)
    scores = self._job(
      name,
      'salt_t5x.score',
      'scores',
      'SCORES_DIR',
      models,
      {'TEACHER_PATH': teacher.folder},
      [teacher],
    )
    own = Setting([*self._setting.bindings, *bindings], self._setting.file)
    flags = {
      'kd_steps': own.number('KD_STEPS', variant.recipe),
      'batch_size': own.number('BATCH_SIZE', variant.recipe),
      **variant.selection,
    }
    name = _folder_name(
      'selection',
      *models,
      *(f'{k}={v}' for k, v in variant.selection.items()),
      *(
        [f'kd_steps={flags["kd_steps"]}'] if 'KD_STEPS' in str(bindings) else []
      ),
    )
    folder = os.path.join(self._folder, name)
    flags = [f'--{k}={v}' for k, v in flags.items()]
    return self._add(
      name,
      folder,
      [
        'salt_t5x.select',
        f'--scores={scores.folder}',
        f'--output={os.path.join(folder, "selection.json")}',
        *flags,
      ],
      flags,
      [scores],
      leftovers='selection.*',
    )


def _depth(job: jobs.Job) -> int:
  return 1 + max(map(_depth, job.needs), default=0)


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
      except (OSError, ValueError, TypeError) as e:
        raise StudyError(f'{path}: {e}') from e
    yield name, study
