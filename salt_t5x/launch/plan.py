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

"""The jobs of an experiment: a teacher, its scores, selections, students.

A job is a command and the jobs that must finish before it. Each point of a
sweep over omega, rho and n_KD has a student with its own MODEL_DIR.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import itertools
import math
import os
import posixpath
from typing import Any

from salt_t5x.launch import checks

# The axes of a sweep: {macro, whose flag is in lower case:
# (short name, type, is valid, range)}.
AXES = {
  'DISTILLATION_WEIGHT': ('omega', float, lambda x: 0 <= x <= 1, '[0, 1]'),
  'TEACHER_TEMPERATURE': ('rho', float, lambda x: 0 < x < math.inf, '(0, inf)'),
  'KD_STEPS': ('nkd', int, lambda x: x > 0, '{1, 2, ...}'),
}
# Macros that the experiment binds: {macro: the flag that sets it}.
_BOUND = {
  **dict.fromkeys(('MODEL_DIR', 'SCORES_DIR', 'SELECTION_PATH'), 'output'),
  **{m: m.lower() for m in ('TEACHER_PATH', 'BATCH_SIZE', *AXES)},
}


@dataclasses.dataclass(frozen=True)
class Job:
  """A command of the experiment.

  Attributes:
    name: a unique name, whose first word is the stage: 'teacher', 'scores',
      'selection' or 'student'.
    args: arguments of `python -m`.
    needs: names of the jobs that must finish first.
  """

  name: str
  args: tuple[str, ...]
  needs: tuple[str, ...] = ()

  @property
  def stage(self) -> str:
    """The first word of the name."""
    return self.name.split('_')[0]


def parse_values(macro: str, text: str) -> list[float]:
  """Parses different values of an axis, separated by commas; '' for none.

  Raises:
    ValueError: a value is outside the axis's range, or given twice.
  """
  _, kind, is_valid, valid_range = AXES[macro]
  values = []
  for word in text.split(',') if text else ():
    try:
      value = kind(word)
    except ValueError:
      value = math.nan
    if not is_valid(value):
      raise ValueError(f'{word!r} is not in {valid_range}.')
    if value in values:
      raise ValueError(
        f'{value} is given twice, and two students would share a MODEL_DIR. '
        'Remove one of them.'
      )
    values.append(value)
  return values


def make(flags: Any) -> list[Job]:
  """Returns an experiment's jobs, in an order in which they can run.

  Args:
    flags: the flags of `xm_salt`, as attributes.

  Raises:
    checks.FlagError: a value is invalid or missing.
  """
  if bool(flags.teacher) == bool(flags.teacher_path):
    raise checks.FlagError(
      'Give either --teacher, the recipe of a teacher, or --teacher_path, the '
      'model directory of a trained one.'
    )
  if flags.scores and not (flags.kd_steps and flags.batch_size):
    raise checks.FlagError(
      '--scores needs --kd_steps and --batch_size: n_KD B sequences are '
      'selected.'
    )
  for binding in flags.gin:
    name = binding.partition('=')[0].strip()
    if name in _BOUND:
      raise checks.FlagError(
        f'--gin={binding!r}: the launcher binds {name} for each job. Remove it '
        f'and use --{_BOUND[name]}.'
      )
  # A shell leaves the `~` of --output=~/folder to us.
  output = os.path.expanduser(flags.output)
  path = lambda name: posixpath.join(output, name)
  teacher_path = flags.teacher_path or path('teacher')
  batch_size = {'BATCH_SIZE': flags.batch_size} if flags.batch_size else {}
  jobs, needs = [], ('teacher',)
  if flags.teacher:
    macros = {'MODEL_DIR': teacher_path, **batch_size}
    args = _arguments('salt_t5x.train', flags, flags.teacher, macros)
    jobs.append(Job('teacher', args))
  if flags.scores:
    macros = {'SCORES_DIR': path('scores'), 'TEACHER_PATH': teacher_path}
    args = _arguments('salt_t5x.score', flags, flags.scores, macros)
    jobs.append(Job('scores', args, needs))
    needs += ('scores',)
    for kd_steps in flags.kd_steps:
      name = f'selection_{kd_steps}'
      args = (
        'salt_t5x.select',
        f'--scores={path("scores")}',
        f'--output={path(name)}.json',
        f'--kd_steps={kd_steps}',
        f'--batch_size={flags.batch_size}',
      )
      jobs.append(Job(name, args, needs))
  axes = {m: v for m in AXES if (v := getattr(flags, m.lower()))}
  for values in itertools.product(*axes.values()):
    point = dict(zip(axes, values, strict=True))
    name = '_'.join(
      ['student', *(f'{AXES[m][0]}_{v}' for m, v in point.items())]
    )
    macros = {'TEACHER_PATH': teacher_path, **point, **batch_size}
    macros['MODEL_DIR'] = path(name)
    own_needs = needs
    if flags.scores:
      selection = f'selection_{point["KD_STEPS"]}'
      macros['SELECTION_PATH'] = f'{path(selection)}.json'
      own_needs += (selection,)
    args = _arguments('salt_t5x.train', flags, flags.student, macros)
    jobs.append(Job(name, args, own_needs))
  return _choose(jobs, flags.only or ())


def _arguments(
  module: str, flags: Any, recipe: Sequence[str], macros: Mapping[str, Any]
) -> tuple[str, ...]:
  """Returns the arguments of a job that reads gin files."""
  bindings = [f'{name}={value!r}' for name, value in macros.items()]
  return (
    module,
    *(f'--gin_file={path}' for path in [*recipe, *flags.gin_file]),
    # As in a file: jobs that share them read some of them.
    *(f'--gin_bindings={binding}' for binding in [*flags.gin, *bindings]),
  )


def _choose(jobs: Sequence[Job], only: Sequence[str]) -> list[Job]:
  """Returns the jobs of some names or stages, without needs that have none."""
  names = [job.name for job in jobs]
  if unknown := set(only) - {x for job in jobs for x in (job.name, job.stage)}:
    raise checks.FlagError(
      f'--only={",".join(only)}: {sorted(unknown)} are not among this '
      f"experiment's jobs: {', '.join(names)}."
    )
  chosen = {
    job.name: job for job in jobs if not only or {job.name, job.stage} & {*only}
  }
  return [
    dataclasses.replace(job, needs=tuple(n for n in job.needs if n in chosen))
    for job in chosen.values()
  ]
