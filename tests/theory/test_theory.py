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

"""The theory's estimators against exact values for Markov chains.

Oracle, teacher and student are Markov chains: given a token, the next one's
distribution is a row of a table. Everything that the estimators estimate then
follows by sums over the table.
"""

import itertools
import math

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest
import seqio

from salt_t5x import models
from salt_t5x.inference import sampler
from salt_t5x.theory import (
  bounds,
  completions,
  deviations,
  divergences,
)
from t5x import adafactor

V, T, RHO, OMEGA = (
  5,
  6,
  0.5,
  0.4,
)  # The token 0 is padding; a text begins there.


class Chain(nn.Module):
  """A table of logits; it needs no cache."""

  @nn.compact
  def __call__(self, decoder_input_tokens, decoder_target_tokens, **options):
    del decoder_target_tokens, options
    table = self.param('table', nn.initializers.zeros, (V, V))
    return table[decoder_input_tokens.astype(jnp.int32)]


def model():
  return models.SaltDecoderOnlyModel(
    module=Chain(),
    vocabulary=seqio.PassThroughVocabulary(V),
    optimizer_def=adafactor.Adafactor(),
  )


def table(seed, scale=1.0):
  """[V, V] log-probabilities without padding among the successors."""
  logits = np.random.default_rng(seed).normal(size=(V, V)) * scale
  logits[:, 0] = -40
  return logits - np.log(np.exp(logits).sum(1, keepdims=True))


ORACLE, TEACHER, STUDENT = table(0, 1.5), table(1), table(2)


def params(log_p):
  return {'table': jnp.asarray(log_p, jnp.float32)}


MODELS = dict.fromkeys(('student', 'teacher', 'oracle'), model())
PARAMS = {
  'student': params(STUDENT),
  'teacher': params(TEACHER),
  'oracle': params(ORACLE),
}


class Truth:
  """What the estimators estimate, in float64 by sums."""

  def __init__(self, omega):
    tempered = np.exp(RHO * TEACHER)
    self.teacher = tempered / tempered.sum(1, keepdims=True)
    self.d = np.exp(ORACLE)
    distilled = -(self.teacher * STUDENT).sum(1)
    # [a, b]: the loss of the token b after a.
    self.cost = (1 - omega) * -STUDENT + omega * distilled[:, None]
    # [s][a]: the expected loss of the tokens after s, where x_s = a.
    self.rest = [np.zeros(V)]
    for _ in range(T):
      expected = (self.d * (self.cost + self.rest[0])).sum(1)
      self.rest.insert(0, expected)

  def xi(self, x, t):
    a, b = ([0, *x][i] for i in (t - 1, t))
    return (
      self.rest[t - 1][a] - self.cost[a, b] - self.rest[t][b]
    ) / T  # fmt: skip

  def v(self, x, t):
    """E[ξ_t² | x_<t]."""
    of = [self.xi([*x[: t - 1], b, *x[t:]], t) ** 2 for b in range(V)]
    return float(self.d[[0, *x][t - 1]] @ of)

  def marginals(self):
    """[T, V]: the distribution of the token before each."""
    rows = [np.eye(V)[0]]
    for _ in range(T - 1):
      rows.append(rows[-1] @ self.d)
    return np.stack(rows)


def draw(lengths, names, tokens=None, seed=0):
  if tokens is None:
    tokens = np.zeros((len(lengths), T), np.int32)
  return np.asarray(
    sampler.draw(
      model(),
      params(ORACLE),
      jnp.asarray(tokens),
      jnp.asarray(lengths),
      jnp.asarray(names),
      seed=seed,
    )
  )


def ids_of(n):
  return np.stack([np.zeros(n), np.arange(n)], axis=1).astype(np.int32)


def sequences(n, seed=7):
  return draw(np.zeros(n, np.int32), ids_of(n), seed=seed)


def test_samples_follow_the_distribution():
  n = 4000
  drawn = sequences(n)
  assert drawn.shape == (n, T) and drawn.min() > 0
  before, after = np.pad(drawn, ((0, 0), (1, 0)))[:, :-1].ravel(), drawn.ravel()
  expected = np.exp(ORACLE)
  for a in range(V):
    seen = after[before == a]
    for b in range(1, V):
      share, p = np.mean(seen == b), expected[a, b]
      assert abs(share - p) < 4.5 * math.sqrt(p * (1 - p) / len(seen))


def test_samples_keep_the_prefix_and_depend_only_on_ids():
  x = sequences(8)
  lengths = np.arange(8) % (T + 1)
  drawn = draw(lengths, ids_of(8), x)
  for row, s in enumerate(lengths):
    assert drawn[row, :s].tolist() == x[row, :s].tolist()
  order = np.array([5, 2, 7])
  some = draw(lengths[order], ids_of(8)[order], x[order])
  np.testing.assert_array_equal(some, drawn[order])
  # Tokens after the prefix have no effect.
  hidden = np.where(np.arange(T) < lengths[:, None], x, 1)
  np.testing.assert_array_equal(draw(lengths, ids_of(8), hidden), drawn)
  assert (draw(lengths, ids_of(8), x, seed=1) != drawn).any()


def sequence_losses(tokens, chunk=16):
  return [
    np.mean(np.asarray(x), axis=1, dtype=np.float64)
    for x in completions.token_losses(
      MODELS,
      PARAMS,
      jnp.asarray(tokens),
      teacher_temperature=RHO,
      chunk=chunk,
    )
  ]


@pytest.mark.parametrize('chunk', [1, 7, 100])
def test_sequence_losses_are_those_of_eq_4(chunk):
  x = sequences(5)
  ours, distilled = sequence_losses(x, chunk)
  for omega in 0.0, OMEGA, 1.0:
    truth = Truth(omega)
    expected = [
      np.mean([truth.cost[a, b] for a, b in itertools.pairwise([0, *row])])
      for row in x
    ]
    np.testing.assert_allclose(
      (1 - omega) * ours + omega * distilled, expected, rtol=1e-5
    )


def estimates(x, t, n_com, seed=0):
  """`Deviations` of the sequences x at t from sampled completions."""
  found = {}
  for s in deviations.prefix_lengths([t]):
    names = [(i, s, j) for i in range(len(x)) for j in range(n_com)]
    tokens = np.repeat(x, n_com, axis=0)
    drawn = draw(np.full(len(names), s), np.array(names), tokens, seed)
    ours, distilled = sequence_losses(drawn, chunk=len(drawn) * T)
    found[s] = ((1 - OMEGA) * ours + OMEGA * distilled).reshape(len(x), n_com)
  return deviations.by_prefix(found, [t])[t]


@pytest.mark.parametrize('t', [1, 3, T])
def test_deviations_are_those_of_eq_8(t):
  x, n_com, truth = sequences(3), 4000, Truth(OMEGA)
  found = estimates(x, t, n_com)
  noise = np.sqrt(found.squared - found.corrected)  # The standard error.
  for i, row in enumerate(x):
    assert abs(found.xi[i] - truth.xi(row, t)) < 4.5 * noise[i]


def test_correction_removes_the_bias_of_the_plug_in():
  """The bias of the plug-in estimate of V_t falls as one over n_com."""
  t, n, truth = 3, 400, Truth(OMEGA)
  x = sequences(n)
  # Of the sequences that were drawn, not of all.
  exact = np.mean([truth.xi(row, t) ** 2 for row in x])
  # And so does V_t itself, which the mean over x estimates.
  v_t = np.array([truth.v(row, t) for row in x])
  bias = {}
  for n_com in 2, 8, 32:
    found = estimates(x, t, n_com)
    bias[n_com] = np.mean(found.squared) - exact
    error = np.std(found.corrected - [truth.xi(r, t) ** 2 for r in x], ddof=1)
    assert abs(np.mean(found.corrected) - exact) < 4.5 * error / math.sqrt(n)
    error = np.std(found.corrected - v_t, ddof=1) / math.sqrt(n)
    assert abs(np.mean(found.corrected - v_t)) < 4.5 * error
  assert bias[2] > bias[8] > bias[32] > 0
  for n_com in 2, 8:
    assert bias[n_com] / bias[4 * n_com] == pytest.approx(4, rel=0.35)


def test_deviations_have_mean_zero():
  """ξ_t of eq. (8) is a martingale's difference: of the reference itself."""
  truth = Truth(OMEGA)
  marginals = truth.marginals()
  for t in 1, 2, T:
    for a in np.flatnonzero(marginals[t - 1] > 1e-9):
      x = [1] * T
      if t > 1:
        x[t - 2] = int(a)
      xi = [truth.xi([*x[: t - 1], b, *x[t:]], t) for b in range(V)]
      assert abs(truth.d[[0, *x][t - 1]] @ xi) < 1e-12


@pytest.mark.parametrize('omega', [0.0, OMEGA, 1.0])
def test_variances_of_deviations_add_up(omega):
  """Σ_t E[ξ_t²] is the variance of ℓ^ω(x) where x is as the oracle expects."""
  truth = Truth(omega)
  summed, marginals = 0.0, truth.marginals()
  for t in range(1, T + 1):
    for a in range(V):
      x = [1] * T
      if t > 1:
        x[t - 2] = a
      if marginals[t - 1][a]:
        summed += marginals[t - 1][a] * truth.v(x, t)
  mean = square = 0.0
  for x in itertools.product(range(1, V), repeat=T):
    pairs = list(itertools.pairwise([0, *x]))
    p = math.prod(truth.d[a, b] for a, b in pairs)
    loss = sum(truth.cost[a, b] for a, b in pairs) / T
    mean, square = mean + p * loss, square + p * loss**2
  assert summed == pytest.approx(square - mean**2, rel=1e-9)


def test_summaries_and_sums():
  before = np.array([[1.0, 3.0], [2.0, 2.0]])
  after = np.array([[1.0, 1.0], [3.0, 5.0]])
  found = deviations.deviations(before, after)
  assert found.xi.tolist() == [1.0, -2.0]
  # Variances 2 and 0, 0 and 2, over two completions.
  assert found.corrected.tolist() == [0.0, 3.0]
  summary = found.summary()
  assert summary['mean_absolute_xi'] == 1.5
  assert summary['plug_in_v'] == 2.5 and summary['v'] == 1.5
  assert summary['largest_absolute_xi'] == 2
  assert summary['mean_xi'] == -0.5
  # Its variance is 1.
  assert summary['absolute_noise'] == pytest.approx(math.sqrt(2 / math.pi))
  assert summary['v_error'] == pytest.approx(1.5)
  assert deviations.prefix_lengths([1, 2, 7]) == [0, 1, 2, 6, 7]
  assert deviations.sum_over_positions({2: 1.0, 4: 3.0}, 5) == 10
  with pytest.raises(ValueError, match='at least 2 completions'):
    deviations.deviations(before[:, :1], after[:, :1])


# --- Divergences -------------------------------------------------------------


def test_divergences_are_those_of_the_chain():
  n, truth = 3000, Truth(0.0)
  x = sequences(n)
  found = completions.token_divergences(
    MODELS,
    PARAMS,
    jnp.asarray(x),
    teacher_temperature=RHO,
    chunk=n,
  )
  distance = 0.5 * np.abs(truth.teacher - truth.d).sum(1)
  before = np.pad(x, ((0, 0), (1, 0)))[:, :-1]
  np.testing.assert_allclose(
    found['total_variation'], distance[before], rtol=1e-4
  )
  # Its expectation over contexts, exactly.
  exact = truth.marginals() @ distance
  error = np.std(found['total_variation'], axis=0) / math.sqrt(n)
  assert (
    np.abs(np.mean(found['total_variation'], axis=0) - exact)
    < 4.5 * error + 1e-6
  ).all()
  mean = (truth.d * STUDENT).sum(1)
  variance = (truth.d * (STUDENT - mean[:, None]) ** 2).sum(1)
  np.testing.assert_allclose(
    found['log_likelihood_variance'], variance[before], rtol=1e-4
  )
  np.testing.assert_allclose(
    found['largest_loss'], -STUDENT.min(1)[before], rtol=1e-5
  )
  for role, log_p in (
    ('student', STUDENT), ('teacher', TEACHER), ('oracle', ORACLE)
  ):  # fmt: skip
    np.testing.assert_allclose(
      found[f'{role}_loss'], -log_p[before, x], rtol=1e-4
    )
  excess = (truth.d * (ORACLE - STUDENT)).sum(1)
  np.testing.assert_allclose(
    found['excess_loss'], excess[before], rtol=1e-4, atol=1e-5
  )
  error = truth.d.max(1) - truth.d[np.arange(V), STUDENT.argmax(1)]
  np.testing.assert_allclose(
    found['excess_error'], error[before], rtol=1e-4, atol=1e-6
  )


@pytest.mark.parametrize('omega', [0.0, 0.3, 1.0])
def test_the_last_deviation_has_the_variance_of_eq_69(omega):
  """With (1 - ω)²; as it is printed, with (1 - ω), it does not."""
  truth = Truth(omega)
  oracle, student = jnp.asarray(ORACLE), jnp.asarray(STUDENT)
  variance = divergences.log_likelihood_variance(student, oracle)
  found = divergences.last_variance(variance, omega, T)
  for a in range(1, V):
    x = [1] * T
    x[T - 2] = a
    exact = truth.v(x, T)
    assert exact == pytest.approx(float(found[a]), rel=1e-4, abs=1e-12)
    if omega == 0.3:
      printed = (1 - omega) / T**2 * float(variance[a])
      assert exact != pytest.approx(printed, rel=0.1)


def test_total_variation_without_overlap():
  far = jnp.asarray([[0.0, -60.0], [-60.0, 0.0]])
  found = divergences.total_variation(far, far[::-1], 1.0)
  np.testing.assert_allclose(found, 1.0, rtol=1e-6)
  assert divergences.total_variation(far, far, 1.0).tolist() == [0, 0]


# --- Bounds ------------------------------------------------------------------


def test_calibration_bounds_excess_errors():
  """Excess errors against excess cross-entropy, per token, over the chain."""
  truth = Truth(0.0)
  for student in STUDENT, TEACHER, table(9, 0.3):
    excess_risk = (truth.d * (ORACLE - student)).sum(1)
    chosen = student.argmax(1)
    excess_error = truth.d.max(1) - truth.d[np.arange(V), chosen]
    for risk, error in zip(excess_risk, excess_error, strict=True):
      assert error <= bounds.excess_error(float(risk)) + 1e-12


def test_eq_18_bounds_the_bias_of_distillation():
  """R(θ̂) - R(θ*) <= 4 M ω D_TV + R^ω(θ̂) - R^ω(θ*), for any two students."""
  truth = Truth(0.0)
  marginals = truth.marginals().mean(0)
  distance = marginals @ (0.5 * np.abs(truth.teacher - truth.d).sum(1))
  mixed = (1 - OMEGA) * truth.d + OMEGA * truth.teacher
  risk = lambda p, target: marginals @ -(target * p).sum(1)
  for a, b in itertools.permutations([STUDENT, TEACHER, table(9)], 2):
    m = max(-a[:, 1:].min(), -b[:, 1:].min())
    excess = risk(a, truth.d) - risk(b, truth.d)
    surrogate = risk(a, mixed) - risk(b, mixed)
    bias = bounds.Setting(20, m, OMEGA, distance, delta=0.1).divergence
    assert excess <= bias + surrogate + 1e-3
