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


"""Means and their standard errors, and how tables show them."""

from collections.abc import Sequence
import math

import numpy as np
from scipy import stats


def standard_error(values: Sequence[float]) -> float:
  """Standard error of the mean; NaN for fewer than two values."""
  return float(stats.sem(values)) if len(values) > 1 else math.nan


def with_error(
  value: float | None,
  error: float | None,
  digits: int,
  scale: float = 1,
  sign: str = '',
) -> str:
  """Formats '1.23 ± 0.04', or '1.23' if the error is None or NaN.

  A value of None, as JSON files store NaN, is shown as 'nan'.
  """
  value = math.nan if value is None else value
  text = f'{scale * value:{sign}.{digits}f}'
  if error is None or math.isnan(error):
    return text
  return f'{text} ± {scale * error:.{digits}f}'


def per_seed(values: Sequence[float], digits: int, sign: str = '') -> str:
  """Formats the mean over seeds and its standard error."""
  mean = float(np.mean(values))
  return with_error(mean, standard_error(values), digits, sign=sign)
