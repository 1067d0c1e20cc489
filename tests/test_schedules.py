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

"""The schedules' values, ends and errors."""

import jax
import numpy as np
import pytest

from salt_t5x import schedules


def values(schedule, steps):
  return [float(schedule.weight(s)) for s in steps]


def test_step_ends_abruptly():
  schedule = schedules.step(0.667, 36_000)
  assert values(schedule, [0, 35_999]) == [np.float32(0.667)] * 2
  assert values(schedule, [36_000, 200_000]) == [0.0, 0.0]
  assert schedule.kd_steps == 36_000


def test_linear_decay_acts_in_its_window():
  schedule = schedules.linear_decay(0.6, 32_000, 36_000)
  np.testing.assert_allclose(
    values(schedule, [0, 32_000, 33_000, 34_000, 36_000, 50_000]),
    [0.6, 0.6, 0.45, 0.3, 0.0, 0.0],
    rtol=1e-6,
  )
  assert schedule.kd_steps == 36_000


def test_linear_ratio_decay_is_linear_in_the_ratio():
  schedule = schedules.linear_ratio_decay(2 / 3, 32_000, 36_000)
  w = np.array(values(schedule, [0, 32_000, 33_000, 34_000, 35_000, 36_000]))
  np.testing.assert_allclose(w / (1 - w), [2, 2, 1.5, 1, 0.5, 0], rtol=1e-5)


def test_constant_never_ends():
  schedule = schedules.constant(1.0)
  assert values(schedule, [0, 10**9]) == [1.0, 1.0]
  assert schedule.kd_steps is None


@pytest.mark.parametrize(
  'schedule',
  [
    schedules.step(0.0, 5),
    schedules.constant(0.0),
    schedules.linear_decay(0.0, 1, 5),
    schedules.linear_ratio_decay(0.0, 1, 5),
  ],
)
def test_weight_zero_distils_nothing(schedule):
  assert schedule.kd_steps == 0
  assert values(schedule, range(6)) == [0.0] * 6


@pytest.mark.parametrize(
  'schedule',
  [
    schedules.step(0.5, 3),
    schedules.linear_decay(0.5, 1, 3),
    schedules.linear_ratio_decay(0.5, 1, 3),
  ],
)
def test_positive_before_kd_steps_and_zero_from_there(schedule):
  traced = jax.jit(schedule.weight)
  assert all(float(traced(s)) > 0 for s in range(3))
  assert all(float(traced(s)) == 0 for s in range(3, 6))


@pytest.mark.parametrize('weight', [-0.1, 1.1, float('nan')])
@pytest.mark.parametrize(
  'make',
  [
    lambda w: schedules.step(w, 5),
    schedules.constant,
    lambda w: schedules.linear_decay(w, 1, 5),
    lambda w: schedules.linear_ratio_decay(w, 1, 5),
  ],
)
def test_weight_out_of_range(make, weight):
  with pytest.raises(ValueError, match=r'distillation_weight = .*\[0, 1\]'):
    make(weight)


@pytest.mark.parametrize('window', [(5, 5), (6, 5), (-1, 5)])
@pytest.mark.parametrize(
  'make', [schedules.linear_decay, schedules.linear_ratio_decay]
)
def test_empty_window(make, window):
  with pytest.raises(ValueError, match='decay_start = .*the window is empty'):
    make(0.5, *window)


def test_negative_kd_steps():
  with pytest.raises(ValueError, match=r'schedules.step.kd_steps = -1'):
    schedules.step(0.5, -1)


@pytest.mark.parametrize('steps', [36_000.0, '36000'])
def test_steps_are_whole(steps):
  with pytest.raises(ValueError, match=r'step.kd_steps = .*whole'):
    schedules.step(0.5, steps)
  with pytest.raises(ValueError, match=r'decay_end = .*whole'):
    schedules.linear_decay(0.5, 0, steps)


def test_ratio_from_one():
  with pytest.raises(ValueError, match='linear_ratio_decay.*= 1.0'):
    schedules.linear_ratio_decay(1.0, 1, 5)
