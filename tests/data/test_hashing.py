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

"""Draws that depend on names alone."""

import pytest

from salt_t5x.data import hashing


def test_draws_are_pinned():
  # Splits, orders and samples of mini-Pile depend on them.
  assert hashing.uniform('split', 'books/a') == 0.7480866777178017


def test_draws_are_uniform_and_independent_of_other_salts():
  keys = [str(i) for i in range(4000)]
  first = [hashing.uniform('a', key) for key in keys]
  second = [hashing.uniform('b', key) for key in keys]
  assert all(0 <= value < 1 for value in first)
  assert sum(value < 0.25 for value in first) == pytest.approx(1000, abs=120)
  both = sum(a < 0.5 and b < 0.5 for a, b in zip(first, second, strict=True))
  assert both == pytest.approx(1000, abs=120)
