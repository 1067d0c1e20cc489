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

"""What SALT saves in time (App. J, Table 20).

Times are in plain training steps of the student, the unit of Table 20.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from salt_t5x.studies import curves as curves_lib

_RATE = 'timing/steps_per_second'


def saving(
  steps: int,
  total_steps: int,
  kd_steps: int,
  ratio: float,
  teacher_time: float = 0.0,
) -> float:
  """The share of BASELINE's time that a student saves.

  Args:
    steps: after which it has BASELINE's final quality.
    total_steps: of BASELINE.
    kd_steps: n_KD; the first ones of the student.
    ratio: the time of a distillation step over that of a plain one.
    teacher_time: of the teacher's training, as far as this student pays for it,
      in plain steps of the student.

  Returns:
    A share; negative where the student takes longer.
  """
  distilled = min(steps, kd_steps)
  time = (steps - distilled) + ratio * distilled + teacher_time
  return 1 - time / total_steps


def step_time(curves: curves_lib.Curves) -> float:
  """Seconds of a step: the median of a run's own.

  Args:
    curves: of the run's `train` directory. The first value holds compilation
      and is left out.
  """
  rates = [rate for _, rate in curves[_RATE]]
  return float(np.median([1 / rate for rate in rates[1:]]))


def measure(
  passes: Mapping[str, Sequence[float | None]],
  kd_steps: Mapping[str, int],
  kd_times: Sequence[float],
  plain_times: Sequence[float],
  teacher_steps: int,
  teacher_times: Sequence[float],
  total_steps: int,
  students: int,
) -> dict:
  """The savings of a study's variants.

  Args:
    passes: {variant: share of the steps at which it passes BASELINE, or None,
      for each seed}.
    kd_steps: {variant: n_KD}, for those whose savings are wanted.
    kd_times: seconds of a distillation step, for each seed.
    plain_times: of a plain one.
    teacher_steps: of the teacher's run.
    teacher_times: seconds of a step of it, for each seed.
    total_steps: of the students.
    students: among how many the teacher's training may be shared.

  Returns:
    A JSON-able dict, lists over seeds: 'ratio' of a distillation step to a
    plain one, 'teacher_step' to a plain one, and 'savings': {variant: {'alone',
    'with_teacher', 'shared': shares of BASELINE's time, of the seeds that reach
    it}}.
  """
  ratio = np.divide(kd_times, plain_times).tolist()
  teacher = np.divide(teacher_times, plain_times).tolist()
  savings = {}
  for variant, of_variant in kd_steps.items():
    found = {'alone': [], 'with_teacher': [], 'shared': []}
    for share, r, t in zip(passes[variant], ratio, teacher, strict=True):
      if share is None:
        continue
      whole = teacher_steps * t
      for name, part in (
        ('alone', 0.0), ('with_teacher', whole), ('shared', whole / students)
      ):  # fmt: skip
        found[name].append(
          saving(round(share * total_steps), total_steps, of_variant, r, part)
        )
    savings[variant] = found
  return {
    'ratio': ratio,
    'teacher_step': teacher,
    'students': students,
    'savings': savings,
  }
