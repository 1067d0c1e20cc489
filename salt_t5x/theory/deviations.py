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

"""ξ_t and V_t of Assumption 3.3, from completions (App. C, eq. 8 and 66).

ξ_t(x; θ) is the decrease of a sequence's expected loss when its t-th token
becomes known. Losses are those of whole sequences, in nats per token;
`completions` computes them.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import math

import numpy as np

from salt_t5x import standard_errors


@dataclasses.dataclass(frozen=True)
class Deviations:
  """Estimates for one t and some sequences x.

  Attributes:
    xi: [n], ξ̂_t(x) of eq. (66), nats.
    squared: [n], ξ̂_t(x)², the plug-in estimate of V_t(x), nats². It is too
      large by the variance that finitely many completions add.
    corrected: [n], `squared` less an estimate of that variance. Its mean over x
      is unbiased for any number of completions; single values may be negative.
  """

  xi: np.ndarray
  squared: np.ndarray
  corrected: np.ndarray

  def summary(self) -> dict[str, float]:
    """Means over x with standard errors, and the largest |ξ̂_t|.

    'absolute_noise' is the mean |ξ̂_t| that normal noise of the completions
    alone would give: √(2/π) times its standard deviation.
    """
    found = {}
    for name, values in {
      'mean_xi': self.xi,
      'mean_absolute_xi': np.abs(self.xi),
      'plug_in_v': self.squared,
      'v': self.corrected,
    }.items():
      found[name] = float(np.mean(values))
      found[f'{name}_error'] = standard_errors.standard_error(values)
    noise = max(found['plug_in_v'] - found['v'], 0.0)
    return found | {
      'absolute_noise': math.sqrt(2 / math.pi * noise),
      'largest_absolute_xi': float(np.max(np.abs(self.xi))),
    }


def deviations(before: np.ndarray, after: np.ndarray) -> Deviations:
  """Estimates ξ_t and its square.

  Args:
    before: [n, n_com] float, losses of completions of x_1 ... x_{t-1}.
    after: [n, n_com] float, of completions of x_1 ... x_t, drawn independently;
      for t = T of x itself, n_com times.

  Returns:
    The estimates, float64.

  Raises:
    ValueError: the shapes differ, or there are fewer than 2 completions.
  """
  if before.shape != after.shape or before.ndim != 2 or before.shape[1] < 2:
    raise ValueError(
      f'Losses of shapes {before.shape} and {after.shape}: [n, n_com], with at '
      'least 2 completions.'
    )
  before, after = (np.asarray(x, np.float64) for x in (before, after))
  xi = before.mean(axis=1) - after.mean(axis=1)
  # The two means are independent given x: their variances add up.
  noise = (before.var(axis=1, ddof=1) + after.var(axis=1, ddof=1)) / (
    before.shape[1]
  )
  return Deviations(xi, xi**2, xi**2 - noise)


def prefix_lengths(prefixes: Sequence[int]) -> list[int]:
  """Returns the lengths of the prefixes to complete: t - 1 and t for each t."""
  return sorted({s for t in prefixes for s in (t - 1, t)})


def by_prefix(
  losses: Mapping[int, np.ndarray], prefixes: Sequence[int]
) -> dict[int, Deviations]:
  """Estimates for several t.

  Args:
    losses: {s: [n, n_com] losses of completions of x_1 ... x_s}.
    prefixes: the t's.

  Returns:
    {t: estimates}.
  """
  return {t: deviations(losses[t - 1], losses[t]) for t in prefixes}


def sum_over_positions(values: Mapping[int, float], length: int) -> float:
  """Sums over all t by linear interpolation between some.

  Args:
    values: {t: value}, constant before the first t and after the last.
    length: T.
  """
  positions = sorted(values)
  return float(
    np.interp(
      np.arange(1, length + 1), positions, [values[t] for t in positions]
    ).sum()
  )
