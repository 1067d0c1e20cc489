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

"""The distillation weight ω as a function of the step (§4, App. K).

Steps count from 0: a schedule with `kd_steps = n` distils in the steps 0 to
n - 1, which are the steps 1 to n_KD of Algorithm 1.
"""

from collections.abc import Callable
import dataclasses
import math

import jax
import jax.numpy as jnp

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class Schedule:
  """A distillation weight over the run.

  Attributes:
    weight: maps a step (int or traced int []) to ω, float32 [].
    kd_steps: n_KD, the first step from which ω is 0 for good; None if that
      step never comes; 0 if nothing is distilled at all.
    parameter: the gin parameter that sets `kd_steps`, for error messages.
    description: the function and its arguments; equal schedules have equal
      ones.
  """

  weight: Callable[[Array | int], Array]
  kd_steps: int | None
  parameter: str
  description: str


def _check_weight(function: str, distillation_weight: float):
  is_number = type(distillation_weight) in (int, float)
  if not (is_number and 0.0 <= distillation_weight <= 1.0):
    raise ValueError(
      f'schedules.{function}.distillation_weight = {distillation_weight!r}: '
      'ω mixes two losses (eq. 4) and lies in [0, 1]; the paper uses 0.667.'
    )


def _check_steps(function: str, **steps: int):
  for name, value in steps.items():
    if type(value) is not int:
      raise ValueError(
        f'schedules.{function}.{name} = {value!r}: steps are whole numbers.'
      )


def _check_window(function: str, decay_start: int, decay_end: int):
  _check_steps(function, decay_start=decay_start, decay_end=decay_end)
  if not 0 <= decay_start < decay_end:
    raise ValueError(
      f'schedules.{function}.decay_start = {decay_start}, '
      f'schedules.{function}.decay_end = {decay_end}: the window is empty; '
      'choose 0 <= decay_start < decay_end (the paper: 32000 and 36000), or '
      'schedules.step for an abrupt end.'
    )


def _remaining(step: Array | int, start: int, end: int) -> Array:
  """1 up to `start`, 0 from `end` on, linear between."""
  step = jnp.asarray(step, jnp.float32)
  return jnp.clip((end - step) / (end - start), 0.0, 1.0)


def constant(distillation_weight: float) -> Schedule:
  """ω in every step: RKD, distillation throughout pre-training (§5)."""
  _check_weight('constant', distillation_weight)
  return Schedule(
    weight=lambda step: jnp.float32(distillation_weight),
    kd_steps=None if distillation_weight else 0,
    parameter='schedules.constant.distillation_weight',
    description=f'constant({distillation_weight})',
  )


def step(distillation_weight: float, kd_steps: int) -> Schedule:
  """ω for n_KD steps, then 0: SALT's own transition (Algorithm 1).

  Args:
    distillation_weight: ω in [0, 1].
    kd_steps: n_KD >= 0.

  Raises:
    ValueError: a parameter is out of range.
  """
  _check_weight('step', distillation_weight)
  _check_steps('step', kd_steps=kd_steps)
  if kd_steps < 0:
    raise ValueError(
      f'schedules.step.kd_steps = {kd_steps}: n_KD counts steps; use 0 for '
      'no distillation.'
    )
  return Schedule(
    weight=lambda step: jnp.where(
      jnp.asarray(step) < kd_steps, jnp.float32(distillation_weight), 0.0
    ),
    kd_steps=kd_steps if distillation_weight else 0,
    parameter='schedules.step.kd_steps',
    description=f'step({distillation_weight}, {kd_steps})',
  )


def linear_decay(
  distillation_weight: float, decay_start: int, decay_end: int
) -> Schedule:
  """ω until step n_1, then linearly to 0 at step n_2 (App. K).

  Args:
    distillation_weight: ω in [0, 1].
    decay_start: n_1.
    decay_end: n_2 > n_1; it is this schedule's n_KD.

  Raises:
    ValueError: a parameter is out of range, or the window is empty.
  """
  _check_weight('linear_decay', distillation_weight)
  _check_window('linear_decay', decay_start, decay_end)
  return Schedule(
    weight=lambda step: (
      jnp.float32(distillation_weight)
      * _remaining(step, decay_start, decay_end)
    ),
    kd_steps=decay_end if distillation_weight else 0,
    parameter='schedules.linear_decay.decay_end',
    description=(
      f'linear_decay({distillation_weight}, {decay_start}, {decay_end})'
    ),
  )


def linear_ratio_decay(
  distillation_weight: float, decay_start: int, decay_end: int
) -> Schedule:
  """The ratio ω/(1 - ω) linearly to 0 between the steps n_1 and n_2 (App. K).

  Args:
    distillation_weight: ω in [0, 1).
    decay_start: n_1.
    decay_end: n_2 > n_1; it is this schedule's n_KD.

  Raises:
    ValueError: a parameter is out of range, the window is empty, or ω = 1,
      whose ratio is infinite.
  """
  _check_weight('linear_ratio_decay', distillation_weight)
  _check_window('linear_ratio_decay', decay_start, decay_end)
  if distillation_weight == 1.0:
    raise ValueError(
      'schedules.linear_ratio_decay.distillation_weight = 1.0: the ratio '
      'ω/(1 - ω) is infinite; choose ω < 1 or schedules.linear_decay.'
    )
  ratio = distillation_weight / (1.0 - distillation_weight)

  def weight(step):
    r = jnp.float32(ratio) * _remaining(step, decay_start, decay_end)
    return r / (1.0 + r)

  return Schedule(
    weight=weight,
    kd_steps=decay_end if distillation_weight else 0,
    parameter='schedules.linear_ratio_decay.decay_end',
    description=(
      f'linear_ratio_decay({distillation_weight}, {decay_start}, {decay_end})'
    ),
  )


def kd_steps_of(schedule: Schedule | None, total_steps: int) -> int | float:
  """The schedule's n_KD; infinity for one without end.

  Raises:
    ValueError: distillation would not end within the run.
  """
  if schedule is None:
    return 0
  if schedule.kd_steps is None:
    return math.inf
  if schedule.kd_steps > total_steps:
    raise ValueError(
      f'{schedule.parameter} = {schedule.kd_steps} lies past the run, '
      f'trainer.SaltTrainer.total_steps = {total_steps} (TRAIN_STEPS): end '
      'distillation within the run, or use schedules.constant for RKD.'
    )
  return schedule.kd_steps
