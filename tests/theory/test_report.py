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

"""The bounds by hand, and the estimates that the report puts into them."""

import dataclasses
import itertools
import math

import numpy as np
import pytest

from salt_t5x.theory import bounds
from salt_t5x.theory import report as theory_report


def test_bounds_by_hand():
  """N = 101, M = 2, ω = 1/2, D_TV = 1/10, δ = 1/e, classes of size e."""
  setting = bounds.Setting(
    sequences=101,
    largest_loss=2.0,
    distillation_weight=0.5,
    total_variation=0.1,
    delta=math.exp(-1),
  )
  l2, l4 = math.log(2) + 1, math.log(4) + 1  # log(2/δ), log(4/δ)
  found = setting.sequence_bound(variance=0.04, best_variance=0.09, log_cover=3)
  assert found.divergence == pytest.approx(0.4)  # 4 · 2 · 1/2 · 1/10
  assert found.variance == pytest.approx(
    math.sqrt(18 * 0.04 * (l2 + 3) / 101) + math.sqrt(2 * 0.09 * l4 / 101)
  )
  assert found.tail == pytest.approx(
    15 * 2 * (l2 + 3) / 100 + 7 * 2 * l4 / (3 * 100)
  )
  setting = dataclasses.replace(setting, sequences=50)
  found = setting.token_bound(
    largest_deviation=0.3, summed_variance=0.25, log_class=1.0
  )
  # √(2 · 0.25 / 50) = 0.1
  variance = pytest.approx(0.1 * (math.sqrt(l2 + 1) + math.sqrt(l2)))
  assert found.variance == variance
  assert found.tail == pytest.approx(2 * 0.3 / 150 * (2 * l2 + 1))
  assert found.total == pytest.approx(0.4 + found.variance + found.tail)
  found = setting.subgaussian_bound(summed_proxy=0.25, log_class=1.0)
  assert found.variance == variance
  assert found.tail == 0


def test_sample_variance_is_eq_24():
  f = np.array([1.0, 2.0, 5.0, 7.0])
  pairs = sum((a - b) ** 2 for a, b in itertools.combinations(f, 2))
  assert bounds.sample_variance(f) == pytest.approx(pairs / (4 * 3))


def test_calibration_and_its_inverse():
  assert bounds.calibration(0.0) == 0
  assert bounds.calibration(1.0) == pytest.approx(math.log(2))
  for excess in 0.0, 0.01, 0.5, 0.693:
    error = bounds.excess_error(excess)
    assert bounds.calibration(error) == pytest.approx(excess, abs=1e-9)
  assert bounds.excess_error(math.log(2)) == bounds.excess_error(5.0) == 1
  assert bounds.excess_error(-0.1) == 0


def test_estimates_reach_the_bounds():
  """Two sequences of two tokens, all numbers chosen."""
  n, length = 2, 2
  tokens = {
    'total_variation': np.array([[0.1, 0.3], [0.2, 0.2]]),  # 0.2
    'log_likelihood_variance': np.array([[9.0, 1.0], [9.0, 3.0]]),  # last: 2
    'largest_loss': np.array([[1.0, 5.0], [2.0, 3.0]]),
    'excess_loss': np.full((n, length), 0.1),
    'excess_error': np.full((n, length), 0.05),
  }
  tokens |= {
    f'{role}_loss': np.full((n, length), i)
    for i, role in enumerate(('student', 'teacher', 'oracle'))
  }
  # ℓ^ω of completions for ω = 0, where the second part has no weight.
  parts = {
    0: np.array([[4.0, 4.0], [2.0, 2.0]]),
    1: np.array([[3.0, 3.0], [2.5, 2.5]]),  # ξ_1 = 1, -1/2
    2: np.array([[3.2, 3.2], [2.5, 2.5]]),  # ξ_2 = -1/5, 0
  }
  zeros = np.zeros((n, 2))
  results = theory_report.Results(
    models={'student': 'a', 'teacher': 'b', 'oracle': 'c'},
    held_out='d',
    distillation_weight=0.0,
    teacher_temperature=1.0,
    prefixes=[1, 2],
    training_sequences=20,
    delta=0.1,
    parts={s: {length: (x, zeros)} for s, x in parts.items()},
    losses=(np.array([3.0, 2.0]), np.zeros(n)),
    tokens=tokens,
    log_class=1.0,
  )
  row = theory_report.at_omega(results, 0.0)
  v = (1 + 0.25) / 2 + 0.04 / 2
  assert row['summed_v'] == pytest.approx(v)
  assert row['variance'] == pytest.approx(np.var([4, 4, 2, 2], ddof=1))
  assert row['last_v'] == pytest.approx(2 / length**2)
  setting = bounds.Setting(
    sequences=20,
    largest_loss=5.0,
    distillation_weight=0.0,
    total_variation=0.2,
    delta=0.1,
  )
  expected = {
    'theorem_3_2': setting.sequence_bound(
      variance=0.5, best_variance=0.5, log_cover=math.log(10) + 1
    ),
    'theorem_3_4': setting.token_bound(
      largest_deviation=1.0, summed_variance=v, log_class=1.0
    ),
    'theorem_b_7': setting.subgaussian_bound(
      summed_proxy=1 + 0.04, log_class=1.0
    ),
  }
  for name, bound in expected.items():
    assert row[name] == pytest.approx(bound.total)
  half = theory_report.at_omega(results, 0.5)
  assert half['div'] == pytest.approx(0.5 * 2 * 0.2)
  summary = theory_report.summarize(results)
  assert summary['losses'] == {'student': 0, 'teacher': 1, 'oracle': 2}
  text = theory_report.markdown(summary)
  assert "exceeds the oracle's by 0.100" in text and 'it is by 0.050' in text
  assert "**The oracle's loss is not the smallest of the three" in text
  losses = {'student': 3.0, 'teacher': 4.0, 'oracle': 3.0}
  text = theory_report.markdown(summary | {'losses': losses})
  assert 'not the smallest' not in text
  assert '| 2 | 0.2500 ± 0.7500 | -0.1000 ± 0.1000 |' in text
