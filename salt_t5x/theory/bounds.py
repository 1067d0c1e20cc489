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

"""The paper's bounds on the excess risk, evaluated (Theorems B.3, 3.4, B.7).

All three bound R(θ̂) - R(θ*), in nats per token: the excess risk of a student
that minimises the distillation loss of N sequences over the best one of its
class. Their assumptions are about suprema (over the class, over all contexts).
With estimates, means or maxima of a sample, a bound is an illustration: its
terms can be compared, for instance over ω, but it guarantees nothing.

Misprints are corrected here. In eq. (23) the terms in 1/(N - 1) belong outside
the roots, as in Theorem 3.2 and in the inequalities behind it. The risk of
eq. (63) sums over t where R averages; `excess_error` is per token. The inverse
exists up to log 2, and calibration holds against the best of all predictors
rather than the best of a class.

Notation: N sequences of T tokens, ω `distillation_weight`, M `largest_loss`
(Assumption 3.1), δ `delta`, the probability that a bound fails.
"""

import dataclasses
import math

import numpy as np
from scipy import optimize


@dataclasses.dataclass(frozen=True)
class Bound:
  """A bound by its terms, in nats per token.

  Attributes:
    divergence: the bias, from the teacher's distance to the data.
    variance: the term that decays with the square root of N.
    tail: the term that decays with N.
  """

  divergence: float
  variance: float
  tail: float

  @property
  def total(self) -> float:
    """The right-hand side of the bound."""
    return self.divergence + self.variance + self.tail


@dataclasses.dataclass(frozen=True)
class Setting:
  """The numbers that all three bounds share.

  Attributes:
    sequences: N, at least 16 (the inequality behind Theorem B.3).
    largest_loss: M, nats.
    distillation_weight: ω.
    total_variation: D_TV(P_ζ^ρ, D), the mean over t of its expectation.
    delta: δ.
  """

  sequences: int
  largest_loss: float
  distillation_weight: float
  total_variation: float
  delta: float

  @property
  def divergence(self) -> float:
    """The first term of eq. (18): 4 M ω / T · Σ_t E[D_TV(P_ζ^ρ, D)]."""
    return (
      4 * self.largest_loss * self.distillation_weight * self.total_variation
    )

  def sequence_bound(
    self, variance: float, best_variance: float, log_cover: float
  ) -> Bound:
    """Theorem B.3, the formal version of Theorem 3.2, corrected.

    Args:
      variance: U_N of the distillation loss of the student θ̂, nats².
      best_variance: U_N for θ*, the best of the class.
      log_cover: log of M(N) = 10 · N_∞(1/N, F, 2N), eq. (22).

    Returns:
      The bound.
    """
    n = self.sequences
    cover = math.log(2 / self.delta) + log_cover
    single = math.log(4 / self.delta)
    return Bound(
      divergence=self.divergence,
      variance=math.sqrt(18 * variance * cover / n)
      + math.sqrt(2 * best_variance * single / n),
      tail=self.largest_loss * (15 * cover + 7 / 3 * single) / (n - 1),
    )

  def token_bound(
    self, largest_deviation: float, summed_variance: float, log_class: float
  ) -> Bound:
    """Theorem 3.4, for a finite class Θ.

    Args:
      largest_deviation: C of eq. (9), nats.
      summed_variance: Σ_t V_t of eq. (9), nats².
      log_class: log |Θ|.

    Returns:
      The bound.
    """
    single = math.log(2 / self.delta)
    terms = single + log_class, single
    return Bound(
      divergence=self.divergence,
      variance=math.sqrt(2 * summed_variance / self.sequences)
      * sum(map(math.sqrt, terms)),
      tail=2 * largest_deviation / (3 * self.sequences) * sum(terms),
    )

  def subgaussian_bound(self, summed_proxy: float, log_class: float) -> Bound:
    """Theorem B.7, for a finite class Θ.

    Args:
      summed_proxy: Σ_t σ_t of eq. (49), the mean over the N sequences, nats².
        By Hoeffding's lemma C_t² is a proxy wherever |ξ_t| is at most C_t.
      log_class: log |Θ|.

    Returns:
      The bound, without a tail.
    """
    # (1/N) √(2 Σ_i Σ_t σ_t^(i)), where the inner sum over i is N times its
    # mean: Theorem 3.4's term in the proxy.
    return self.token_bound(
      largest_deviation=0.0, summed_variance=summed_proxy, log_class=log_class
    )


def sample_variance(losses: np.ndarray) -> float:
  """U_N of eq. (24) for the losses of N sequences, nats².

  The mean over pairs of half the squared difference equals the unbiased
  variance.
  """
  return float(np.var(losses, ddof=1))


def calibration(excess_error: float) -> float:
  """g of eq. (64): the excess cross-entropy that an excess error implies.

  Args:
    excess_error: ε in [0, 1], the excess probability of a wrong next token.

  Returns:
    Nats, from 0 to log 2.
  """
  terms = 1 - excess_error, 1 + excess_error
  return 0.5 * sum(x * math.log(x) for x in terms if x)


def excess_error(excess_risk: float) -> float:
  """g⁻¹ of eq. (64): how much likelier a wrong next token can be.

  Args:
    excess_risk: against the best of all predictors, nats per token.

  Returns:
    In [0, 1]: 0 for a negative excess risk, 1 (vacuous) from log 2 nats on.
  """
  if excess_risk <= 0:
    return 0.0
  if excess_risk >= math.log(2):
    return 1.0
  return optimize.brentq(lambda e: calibration(e) - excess_risk, 0.0, 1.0)
