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

"""The jobs of an experiment: a teacher, its scores, a selection, students.

A job is a command and the jobs that must finish before it. Each point of a
sweep over omega, rho and n_KD has a student with its own MODEL_DIR.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
import dataclasses
import itertools
import math
import posixpath
import re

from salt_t5x.launch import checks

# Macros that the experiment binds: {macro: the flag that sets it}.
_BOUND = {
  'MODEL_DIR': 'output',
  'SCORES_DIR': 'output',
  'SELECTION_PATH': 'output',
  'TEACHER_PATH': 'teacher_path',
  'DISTILLATION_WEIGHT': 'distillation_weight',
  'TEACHER_TEMPERATURE': 'teacher_temperature',
  'KD_STEPS': 'kd_steps',
  'BATCH_SIZE': 'batch_size',
}


@dataclasses.dataclass(frozen=True)
class Job:
  """A command of the experiment.

  Attributes:
    name: a unique name.
    stage: 'teacher', 'scores', 'selection' or 'student'.
    args: arguments of `python -m`.
    needs: names of the jobs that must finish first.
  """

  name: str
  stage: str
  args: tuple[str, ...]
  needs: tuple[str, ...] = ()

  @property
  def needs_accelerator(self) -> bool:
    """Whether the job runs a model; selections do not."""
    return self.stage != 'selection'


@dataclasses.dataclass(frozen=True)
class Experiment:
  """Recipes and hyperparameters of an experiment.

  Attributes:
    output: the folder of the jobs' output folders.
    student: gin files of the student's recipe.
    teacher: gin files of the teacher's recipe; () to take `teacher_path`.
    teacher_path: model directory of a trained teacher; None to train one.
    scores: gin files of the scoring recipe, for SALT_DS; () for SALT.
    gin_file: gin files read after every recipe; e.g. the data.
    gin: bindings for all recipes.
    distillation_weight: values of omega; () keeps the recipe's.
    teacher_temperature: values of rho; () keeps the recipe's.
    kd_steps: values of n_KD; () keeps the recipe's.
    batch_size: B, the training batch size; None keeps the recipes'.
    only: stages or names of the jobs to run, if the results of all others
      exist; () runs all jobs.
  """

  output: str
  student: Sequence[str]
  teacher: Sequence[str] = ()
  teacher_path: str | None = None
  scores: Sequence[str] = ()
  gin_file: Sequence[str] = ()
  gin: Sequence[str] = ()
  distillation_weight: Sequence[str] = ()
  teacher_temperature: Sequence[str] = ()
  kd_steps: Sequence[str] = ()
  batch_size: int | None = None
  only: Sequence[str] = ()


def make(experiment: Experiment) -> list[Job]:
  """Returns an experiment's jobs, in an order in which they can run.

  Raises:
    checks.FlagError: a value is invalid or missing, or two students would
      share a MODEL_DIR.
  """
  _check(experiment)
  e = experiment
  teacher_path = e.teacher_path or posixpath.join(e.output, 'teacher')
  scores_dir = posixpath.join(e.output, 'scores')
  batch_size = {} if e.batch_size is None else {'BATCH_SIZE': e.batch_size}
  jobs = []
  if e.teacher:
    macros = {'MODEL_DIR': teacher_path, **batch_size}
    args = _gin('salt_t5x.train', e, e.teacher, macros)
    jobs.append(Job('teacher', 'teacher', args))
  if e.scores:
    macros = {'SCORES_DIR': scores_dir, 'TEACHER_PATH': teacher_path}
    args = _gin('salt_t5x.score', e, e.scores, macros)
    jobs.append(Job('scores', 'scores', args, ('teacher',)))
  for point in _points(e):
    macros = {'TEACHER_PATH': teacher_path, **point, **batch_size}
    needs = 'teacher'
    if e.scores:
      # The number of selected sequences, n_KD B, depends on n_KD.
      needs = f'selection_{point["KD_STEPS"]}'
      path = posixpath.join(e.output, f'{needs}.json')
      macros['SELECTION_PATH'] = path
      if needs not in (job.name for job in jobs):
        args = (
          'salt_t5x.select',
          f'--scores={scores_dir}',
          f'--output={path}',
          f'--kd_steps={point["KD_STEPS"]}',
          f'--batch_size={e.batch_size}',
        )
        jobs.append(Job(needs, 'selection', args, ('scores',)))
    name = _student_name(point)
    macros['MODEL_DIR'] = posixpath.join(e.output, name)
    args = _gin('salt_t5x.train', e, e.student, macros)
    jobs.append(Job(name, 'student', args, (needs,)))
  known = {name for job in jobs for name in (job.name, job.stage)}
  for name in e.only:
    if name not in known:
      raise checks.FlagError(
        f'--only={",".join(e.only)}: {name!r} is not one of this '
        f"experiment's jobs: {', '.join(job.name for job in jobs)}."
      )
  chosen = [
    job for job in jobs if not e.only or {job.name, job.stage} & set(e.only)
  ]
  return _with_chosen_needs(chosen, jobs)


def _with_chosen_needs(chosen: Sequence[Job], jobs: Sequence[Job]) -> list[Job]:
  """Replaces needs that are not chosen by the chosen jobs they depend on."""
  named = {job.name: job for job in jobs}
  names = {job.name for job in chosen}

  def resolve(job: Job) -> Iterator[str]:
    for need in job.needs:
      if need in names:
        yield need
      elif need in named:
        yield from resolve(named[need])

  return [dataclasses.replace(j, needs=tuple(resolve(j))) for j in chosen]


def _gin(
  module: str,
  experiment: Experiment,
  recipe: Sequence[str],
  macros: Mapping[str, str | float],
) -> tuple[str, ...]:
  """Returns the arguments of a job that reads gin files."""
  bindings = [f'{name}={value!r}' for name, value in macros.items()]
  return (
    module,
    *(f'--gin_file={path}' for path in [*recipe, *experiment.gin_file]),
    *(f'--gin.{binding}' for binding in [*experiment.gin, *bindings]),
  )


# The axes of a sweep: {macro: (flag, short name, type, is valid, meaning)}.
_AXES = {
  'DISTILLATION_WEIGHT': (
    *('distillation_weight', 'omega', float, lambda x: 0 <= x <= 1),
    'omega, between 0 and 1',
  ),
  'TEACHER_TEMPERATURE': (
    *('teacher_temperature', 'rho', float, lambda x: 0 < x < math.inf),
    'rho, above 0',
  ),
  'KD_STEPS': ('kd_steps', 'nkd', int, lambda x: x > 0, 'n_KD, at least 1'),
}


def _student_name(point: dict[str, float]) -> str:
  return '_'.join(
    ['student', *(f'{_AXES[n][1]}_{v}' for n, v in point.items())]
  )


def _points(experiment: Experiment) -> list[dict[str, float]]:
  """Returns the points of the sweep, each as {macro: value}."""
  axes = {macro: _numbers(experiment, *_AXES[macro]) for macro in _AXES}
  axes = {macro: values for macro, values in axes.items() if values}
  return [
    dict(zip(axes, values, strict=True))
    for values in itertools.product(*axes.values())
  ]


def _numbers(
  experiment: Experiment,
  flag: str,
  _: str,
  kind: type[int] | type[float],
  is_valid: Callable[[float], bool],
  meaning: str,
) -> list[float]:
  """Parses a flag's values, which must differ."""
  values, texts = [], getattr(experiment, flag)
  for text in texts:
    try:
      value = kind(text)
    except ValueError:
      value = math.nan
    if not is_valid(value):
      raise checks.FlagError(f'--{flag}={text!r} is not {meaning}.')
    if value in values:
      raise checks.FlagError(
        f'--{flag}={",".join(texts)}: {value} is given twice, and two students '
        'would share a MODEL_DIR. Remove one of them.'
      )
    values.append(value)
  return values


def _check(e: Experiment) -> None:
  if not e.student:
    raise checks.FlagError(
      "--student is missing: name the student's recipe, e.g. "
      'salt_t5x/gin/recipes/2p8b_from_1p5b.gin.'
    )
  if bool(e.teacher) == bool(e.teacher_path):
    raise checks.FlagError(
      'Give either --teacher, the recipe of a teacher, or --teacher_path, the '
      'model directory of a trained one.'
    )
  if e.scores and not (e.kd_steps and e.batch_size):
    raise checks.FlagError(
      '--scores needs --kd_steps and --batch_size: n_KD B sequences are '
      'selected.'
    )
  for binding in e.gin:
    match = re.match(r'\s*(\w+)\s*=', binding)
    if match and match[1] in _BOUND:
      raise checks.FlagError(
        f'--gin={binding!r}: the experiment binds {match[1]} for each job; '
        f'use --{_BOUND[match[1]]}.'
      )
