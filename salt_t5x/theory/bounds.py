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

All three bound R(θ̂) - R(θ*), in nats per token: what a student that minimises
the distillation loss of N sequences gives away against the best one of its
class. Their assumptions are about suprema (over the class, over all contexts);
put in estimates, means or maxima of a sample, and a bound becomes an
illustration: its terms can be compared, over ω say, but it guarantees nothing.

Misprints are corrected here. In eq. (23) the terms in 1/(N - 1) belong outside
the roots, as in Theorem 3.2 and in the inequalities it is made from. The
risk of eq. (63) sums over t what R averages; `excess_error` is per token. Its
inverse exists up to log 2, and calibration holds against the best of all
predictors rather than the best of a class.

Notation: N sequences of T tokens, ω `distillation_weight`, M `largest_loss`
(Assumption 3.1), δ `delta`: the probability with which a bound may fail.
"""

import dataclasses
import math

import numpy as np
from scipy import optimize


@dataclasses.dataclass(frozen=True)
class Bound:
  """A bound by its terms, in nats per token.

  Attributes:
    divergence: what the teacher's difference from the data adds: the bias.
    variance: what decays with the square root of N.
    tail: what decays with N.
  """

  divergence: float
  variance: float
  tail: float

  @property
  def total(self) -> float:
    """The right-hand side of the bound."""
    return self.divergence + self.variance + self.tail


def _check(
  sequences: int, at_least: int, distillation_weight: float, delta: float
) -> None:
  if sequences < at_least:
    raise ValueError(f'N = {sequences} sequences: at least {at_least}.')
  if not 0 <= distillation_weight <= 1:
    raise ValueError(f'distillation_weight = {distillation_weight}: in [0, 1].')
  if not 0 < delta < 1:
    raise ValueError(f'delta = {delta}: between 0 and 1.')


def divergence_term(
  largest_loss: float, distillation_weight: float, total_variation: float
) -> float:
  """The first term of eq. (18): 4 M ω / T · Σ_t E[D_TV(P_ζ^ρ, D)].

  Args:
    largest_loss: M, nats.
    distillation_weight: ω.
    total_variation: the mean over t of the expected distance, in [0, 1].

  Returns:
    Nats per token.
  """
  if not 0 <= total_variation <= 1:
    raise ValueError(f'total_variation = {total_variation}: in [0, 1].')
  return 4 * largest_loss * distillation_weight * total_variation


def sample_variance(losses: np.ndarray) -> float:
  """U_N of eq. (24) for the losses of N sequences, nats².

  The mean over pairs of half the squared difference, which is the unbiased
  variance.
  """
  return float(np.var(losses, ddof=1))


def sequence_bound(
  *,
  sequences: int,
  largest_loss: float,
  distillation_weight: float,
  total_variation: float,
  variance: float,
  best_variance: float,
  log_cover: float,
  delta: float,
) -> Bound:
  """Theorem B.3, the formal version of Theorem 3.2, corrected.

  Args:
    sequences: N, at least 16 (what the inequality behind it asks for).
    largest_loss: M, nats.
    distillation_weight: ω.
    total_variation: see `divergence_term`.
    variance: U_N of the distillation loss of the student θ̂, nats².
    best_variance: that of θ*, the best of the class.
    log_cover: log of M(N) = 10 · N_∞(1/N, F, 2N), eq. (22).
    delta: δ.

  Returns:
    The bound.

  Raises:
    ValueError: a value is out of range.
  """
  _check(sequences, 16, distillation_weight, delta)
  cover = math.log(2 / delta) + log_cover
  single = math.log(4 / delta)
  return Bound(
    divergence=divergence_term(
      largest_loss, distillation_weight, total_variation
    ),
    variance=math.sqrt(18 * variance * cover / sequences)
    + math.sqrt(2 * best_variance * single / sequences),
    tail=largest_loss * (15 * cover + 7 / 3 * single) / (sequences - 1),
  )


def token_bound(
  *,
  sequences: int,
  largest_loss: float,
  distillation_weight: float,
  total_variation: float,
  largest_deviation: float,
  summed_variance: float,
  log_class: float,
  delta: float,
) -> Bound:
  """Theorem 3.4, for a finite class Θ.

  Args:
    sequences: N.
    largest_loss: M, nats.
    distillation_weight: ω.
    total_variation: see `divergence_term`.
    largest_deviation: C of eq. (9), nats.
    summed_variance: Σ_t V_t of eq. (9), nats².
    log_class: log |Θ|.
    delta: δ.

  Returns:
    The bound.

  Raises:
    ValueError: a value is out of range.
  """
  terms = _finite_class(sequences, distillation_weight, log_class, delta)
  return Bound(
    divergence=divergence_term(
      largest_loss, distillation_weight, total_variation
    ),
    variance=math.sqrt(2 * summed_variance / sequences)
    * sum(map(math.sqrt, terms)),
    tail=2 * largest_deviation / (3 * sequences) * sum(terms),
  )


def subgaussian_bound(
  *,
  sequences: int,
  largest_loss: float,
  distillation_weight: float,
  total_variation: float,
  summed_proxy: float,
  log_class: float,
  delta: float,
) -> Bound:
  """Theorem B.7, for a finite class Θ.

  Args:
    sequences: N.
    largest_loss: M, nats.
    distillation_weight: ω.
    total_variation: see `divergence_term`.
    summed_proxy: Σ_t σ_t of eq. (49), the mean over the N sequences, nats². By
      Hoeffding's lemma C_t² is a proxy wherever |ξ_t| is at most C_t.
    log_class: log |Θ|.
    delta: δ.

  Returns:
    The bound; it has no tail.

  Raises:
    ValueError: a value is out of range.
  """
  terms = _finite_class(sequences, distillation_weight, log_class, delta)
  return Bound(
    divergence=divergence_term(
      largest_loss, distillation_weight, total_variation
    ),
    # (1/N) √(2 Σ_i Σ_t σ_t^(i)), and the inner sum over i is N times its mean.
    variance=math.sqrt(2 * summed_proxy / sequences)
    * sum(map(math.sqrt, terms)),
    tail=0.0,
  )


def _finite_class(
  sequences: int, distillation_weight: float, log_class: float, delta: float
) -> tuple[float, float]:
  """Checks, and returns log(2 |Θ| / δ) and log(2 / δ)."""
  _check(sequences, 1, distillation_weight, delta)
  single = math.log(2 / delta)
  return single + log_class, single


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
    excess_risk: against the best of all predictors, nats per token; at least 0.

  Returns:
    In [0, 1]; 1, which says nothing, from log 2 nats on.

  Raises:
    ValueError: the excess risk is negative.
  """
  if excess_risk < 0:
    raise ValueError(f'excess_risk = {excess_risk}: at least 0.')
  if excess_risk >= math.log(2):
    return 1.0
  return optimize.brentq(lambda e: calibration(e) - excess_risk, 0.0, 1.0)
