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

"""The time that SALT saves (App. J, Table 20).

Times are in plain training steps of the student, the unit of Table 20.
"""

from collections.abc import Mapping, Sequence
import math
from typing import Any

import numpy as np

from salt_t5x.studies import curves as curves_lib


def saving(
  steps: int,
  total_steps: int,
  kd_steps: int,
  ratio: float,
  teacher_time: float = 0.0,
) -> float:
  """Returns the share of BASELINE's time that a student saves.

  Args:
    steps: the student's steps until it matches BASELINE's final quality.
    total_steps: the steps of BASELINE.
    kd_steps: n_KD, the student's first steps.
    ratio: the time of a distillation step over that of a plain one.
    teacher_time: the part of the teacher's training that this student pays for,
      in plain steps of the student.

  Returns:
    A share; negative where the student takes longer.
  """
  distilled = min(steps, kd_steps)
  time = (steps - distilled) + ratio * distilled + teacher_time
  return 1 - time / total_steps


def step_time(curves: curves_lib.Curves) -> float:
  """Returns the seconds of a step, the median over a run.

  Args:
    curves: the scalars of the run's `train` directory. The first value includes
      compilation and is left out.
  """
  rates = [rate for _, rate in curves['timing/steps_per_second']]
  return float(np.median([1 / rate for rate in rates[1:]]))


def measure(
  passes: Mapping[str, Sequence[float | None]],
  kd_steps: Mapping[str, int],
  times: Mapping[str, Sequence[float]],
  teacher_steps: int,
  total_steps: int,
  students: int,
) -> dict[str, Any]:
  """Measures the savings of a study's variants.

  Args:
    passes: {variant: for each seed, the share of the steps after which it
      matches BASELINE, or None}.
    kd_steps: {variant: n_KD}, for those whose savings are wanted.
    times: {'RKD', 'BASELINE' or 'SLM': for each seed, the seconds of a
      distillation step, a plain step or a step of the teacher's training}.
    teacher_steps: the steps of the teacher's run.
    total_steps: the steps of the students.
    students: the number of students that may share the teacher's training.

  Returns:
    A JSON-able dict, lists over seeds: 'ratio' of a distillation step to a
    plain one, 'teacher_step' to a plain one, and 'savings': {variant: {'alone',
    'with_teacher', 'shared': shares of BASELINE's time, for the seeds that
    match it}}.
  """
  ratio, teacher = (
    np.divide(times[x], times['BASELINE']).tolist() for x in ('RKD', 'SLM')
  )
  # The students among whom the teacher's training is shared.
  payers = {'alone': math.inf, 'with_teacher': 1, 'shared': students}
  savings = {}
  for variant, n_kd in kd_steps.items():
    of_seeds = zip(passes[variant], ratio, teacher, strict=True)
    matching = [x for x in of_seeds if x[0] is not None]
    savings[variant] = {
      name: [
        saving(
          round(x * total_steps), total_steps, n_kd, r, teacher_steps * t / n
        )
        for x, r, t in matching
      ]
      for name, n in payers.items()
    }
  return {
    'ratio': ratio,
    'teacher_step': teacher,
    'students': students,
    'savings': savings,
  }
