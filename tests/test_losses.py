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

"""The losses against NumPy references, finite differences and identities."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import reference
from salt_t5x import losses

B, T, D, D_T, V = 2, 5, 7, 4, 11

OMEGAS = [0.0, 1 / 3, 2 / 3, 1.0]
RHOS = [0.1, 0.25, 1.0, 2.0]


def make_inputs(seed=0, v_student=V, v_teacher=V, dtype=np.float32):
  """Random hidden states, embeddings, targets and weights with padding."""
  rng = np.random.default_rng(seed)
  normal = lambda *shape: rng.normal(size=shape).astype(dtype)
  weights = rng.uniform(0.2, 1.0, size=(B, T)).astype(dtype)
  weights[-1, -2:] = 0.0
  return dict(
    student_hidden=normal(B, T, D),
    student_embedding=normal(v_student, D),
    teacher_hidden=normal(B, T, D_T),
    teacher_embedding=normal(v_teacher, D_T),
    targets=rng.integers(0, min(v_student, v_teacher), size=(B, T)),
    weights=weights,
  )


def dense_logits(x):
  f64 = lambda k: x[k].astype(np.float64)
  return (
    f64('student_hidden') @ f64('student_embedding').T,
    f64('teacher_hidden') @ f64('teacher_embedding').T,
  )


def plain(x, **kwargs):
  return losses.next_token_loss(
    x['student_hidden'],
    x['student_embedding'],
    x['targets'],
    x['weights'],
    **kwargs,
  )


@pytest.mark.parametrize('top_k', [None, 1, 3, V])
def test_equals_the_reference(top_k):
  x = make_inputs()
  omegas, rhos = map(np.ravel, np.meshgrid(OMEGAS, RHOS))
  expected = [
    reference.salt_loss(
      *dense_logits(x), x['targets'], x['weights'], omega, rho, top_k
    )
    for omega, rho in zip(omegas, rhos, strict=True)
  ]
  got = jax.vmap(
    lambda omega, rho: losses.distillation_loss(
      **x, distillation_weight=omega, teacher_temperature=rho, top_k=top_k
    )
  )(omegas, rhos)
  np.testing.assert_allclose(got.loss, expected, rtol=1e-6)
  assert got.loss.dtype == jnp.float32


def test_parts_equal_the_reference():
  x = make_inputs(1)
  u, t = dense_logits(x)
  got = losses.distillation_loss(
    **x, distillation_weight=0.4, teacher_temperature=0.25
  )
  hard = soft = entropy = teacher = agree = correct = 0.0
  for b, i in np.ndindex(B, T):
    w, target = x['weights'][b, i], x['targets'][b, i]
    h, s, e = reference.token_parts(u[b, i], t[b, i], target, 0.25)
    hard, soft, entropy = hard + w * h, soft + w * s, entropy + w * e
    teacher += -w * np.log(reference.softmax(t[b, i])[target])
    agree += w * (np.argmax(u[b, i]) == np.argmax(t[b, i]))
    correct += w * (np.argmax(u[b, i]) == target)
  close = lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-6)
  close(got.weight, x['weights'].sum())
  close(got.cross_entropy, hard)
  close(got.correct, correct)
  close(got.distillation.cross_entropy, soft)
  close(got.distillation.teacher_entropy, entropy)
  close(got.distillation.teacher_cross_entropy, teacher)
  close(got.distillation.agreement, agree)


@pytest.mark.parametrize('top_k', [None, 3])
def test_gradient_equals_finite_differences(top_k):
  with jax.enable_x64(True):
    x = make_inputs(2, dtype=np.float64)

    def loss(hidden, embedding):
      return losses.distillation_loss(
        **(x | dict(student_hidden=hidden, student_embedding=embedding)),
        distillation_weight=0.667,
        teacher_temperature=0.25,
        top_k=top_k,
        z_loss=0.01,
      ).loss

    arguments = [x['student_hidden'], x['student_embedding']]
    grads = jax.grad(loss, argnums=(0, 1))(*arguments)
    rng = np.random.default_rng(0)
    for which, grad in enumerate(grads):
      for _ in range(6):
        index = tuple(rng.integers(0, n) for n in grad.shape)
        step = np.zeros(grad.shape)
        step[index] = 1e-6
        ahead, behind = list(arguments), list(arguments)
        ahead[which] = arguments[which] + step
        behind[which] = arguments[which] - step
        slope = (loss(*ahead) - loss(*behind)) / 2e-6
        np.testing.assert_allclose(grad[index], slope, rtol=1e-6, atol=1e-8)


def test_gradient_by_logits_is_prediction_minus_mixed_target():
  """Eq. (4) is one cross-entropy against a mixed target."""
  x = make_inputs(3)
  u, t = dense_logits(x)
  omega, rho = 0.667, 0.25
  grad = jax.grad(
    lambda logits: (
      losses.distillation_loss(
        logits,
        None,
        x['teacher_hidden'],
        x['teacher_embedding'],
        x['targets'],
        x['weights'],
        distillation_weight=omega,
        teacher_temperature=rho,
      ).loss
    )
  )(jnp.asarray(u, jnp.float32))
  for b, i in np.ndindex(B, T):
    target = omega * reference.tempered(reference.softmax(t[b, i]), rho)
    target[x['targets'][b, i]] += 1 - omega
    expected = x['weights'][b, i] * (reference.softmax(u[b, i]) - target)
    np.testing.assert_allclose(grad[b, i], expected, atol=1e-6)


def test_teacher_equal_to_student_leaves_its_entropy():
  x = make_inputs(4)
  x['teacher_hidden'] = x['student_hidden']
  x['teacher_embedding'] = x['student_embedding']
  got = losses.distillation_loss(
    **x, distillation_weight=1.0, teacher_temperature=1.0
  )
  np.testing.assert_allclose(
    got.loss, got.distillation.teacher_entropy, rtol=1e-6
  )
  assert got.distillation.agreement == got.weight


def test_no_gradient_reaches_the_teacher():
  x = make_inputs(5)
  grad = jax.grad(
    lambda h: (
      losses.distillation_loss(
        **(x | dict(teacher_hidden=h)),
        distillation_weight=1.0,
        teacher_temperature=1.0,
      ).loss
    )
  )(x['teacher_hidden'])
  assert not np.any(grad)


def test_weight_zero_is_the_plain_loss():
  x = make_inputs(6)
  mixed = losses.distillation_loss(
    **x, distillation_weight=0.0, teacher_temperature=0.25, z_loss=1e-3
  )
  np.testing.assert_allclose(mixed.loss, plain(x, z_loss=1e-3).loss, rtol=1e-6)


def test_z_loss_is_apart_from_cross_entropy():
  x = make_inputs(7)
  u, _ = dense_logits(x)
  log_z = np.log(np.exp(u).sum(-1))
  expected = 0.1 * np.sum(x['weights'] * log_z**2)
  without, with_z = plain(x), plain(x, z_loss=0.1)
  np.testing.assert_allclose(with_z.z_loss, expected, rtol=1e-5)
  np.testing.assert_allclose(
    with_z.loss, with_z.cross_entropy + expected, rtol=1e-6
  )
  assert with_z.cross_entropy == without.cross_entropy
  assert without.z_loss == 0


@pytest.mark.parametrize('splits', [1, 2, 4])
def test_sums_add_up_over_microbatches(splits):
  rng = np.random.default_rng(8)
  x = make_inputs(8)
  x = {
    k: v if 'embedding' in k else np.concatenate([v, v[::-1]])
    for k, v in x.items()
  }
  x['weights'] = (rng.uniform(size=(2 * B, T)) > 0.3).astype(np.float32)
  options = dict(distillation_weight=0.667, teacher_temperature=0.25)
  whole = losses.distillation_loss(**x, **options)
  parts = [
    losses.distillation_loss(
      **{
        k: v if 'embedding' in k else np.split(v, splits)[i]
        for k, v in x.items()
      },
      **options,
    )
    for i in range(splits)
  ]
  total = jax.tree.map(lambda *leaves: sum(leaves), *parts)
  for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(total), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-6)


def test_padding_adds_nothing():
  x = make_inputs(9)
  wider = {
    k: v
    if 'embedding' in k
    else np.pad(v, [(0, 1), (0, 3), *[(0, 0)] * (v.ndim - 2)])
    for k, v in x.items()
  }
  options = dict(distillation_weight=0.667, teacher_temperature=0.25)
  a = losses.distillation_loss(**x, **options)
  b = losses.distillation_loss(**wider, **options)
  for one, other in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
    np.testing.assert_allclose(one, other, rtol=1e-6)


@pytest.mark.parametrize('v_student,v_teacher', [(V, V + 3), (V + 3, V)])
@pytest.mark.parametrize('top_k', [None, 2])
def test_padding_rows_may_differ(v_student, v_teacher, top_k):
  """The teacher is taken over the rows both have."""
  x = make_inputs(10, v_student, v_teacher)
  got = losses.distillation_loss(
    **x, distillation_weight=1.0, teacher_temperature=0.25, top_k=top_k
  )
  u, t = dense_logits(x)
  expected = 0.0
  for b, i in np.ndindex(B, T):
    p_student = reference.softmax(u[b, i])[:V]
    if top_k is None:
      goal = reference.tempered(reference.softmax(t[b, i][:V]), 0.25)
      soft = reference.cross_entropy(goal, p_student)
    else:
      _, soft, _ = reference.token_parts(
        u[b, i][:V], t[b, i][:V], x['targets'][b, i], 0.25, top_k
      )
    expected += x['weights'][b, i] * soft
  np.testing.assert_allclose(got.loss, expected, rtol=1e-6)
  assert np.isfinite(got.distillation.teacher_entropy)


@pytest.mark.parametrize('top_k', [None, 2])
def test_padding_rows_of_the_teacher_take_no_part(top_k):
  """Rows past the vocabulary may be many, and ρ < 1 would raise them."""
  options = dict(distillation_weight=1.0, teacher_temperature=0.25, top_k=top_k)
  x = make_inputs(14)
  padded = x | dict(
    teacher_embedding=np.concatenate(
      [x['teacher_embedding'], np.random.default_rng(0).normal(size=(50, D_T))]
    ).astype(np.float32)
  )
  exact = losses.distillation_loss(**x, **options)
  got = losses.distillation_loss(**padded, **options, vocab_size=V)
  np.testing.assert_allclose(got.loss, exact.loss, rtol=1e-6)
  np.testing.assert_allclose(
    got.distillation.teacher_cross_entropy,
    exact.distillation.teacher_cross_entropy,
    rtol=1e-6,
  )


def test_logits_serve_as_hidden_states():
  x = make_inputs(11)
  options = dict(distillation_weight=0.5, teacher_temperature=0.25)
  u, t = (a.astype(np.float32) for a in dense_logits(x))
  a = losses.distillation_loss(**x, **options)
  b = losses.distillation_loss(
    u, None, t, None, x['targets'], x['weights'], **options
  )
  np.testing.assert_allclose(a.loss, b.loss, rtol=1e-5)


def test_without_weights_every_token_counts_once():
  x = make_inputs(12)
  got = losses.next_token_loss(
    x['student_hidden'], x['student_embedding'], x['targets']
  )
  assert got.weight == B * T


def test_bfloat16_inputs_accumulate_in_float32():
  x = make_inputs(13)
  rounded = {
    k: jnp.asarray(v, jnp.bfloat16)
    if k.endswith(('hidden', 'embedding'))
    else v
    for k, v in x.items()
  }
  exact = {
    k: np.asarray(v, np.float32) if k in rounded else v
    for k, v in rounded.items()
  }
  exact['targets'] = x['targets']
  options = dict(distillation_weight=0.667, teacher_temperature=0.25)
  got = losses.distillation_loss(**rounded, **options)
  assert got.loss.dtype == jnp.float32
  np.testing.assert_allclose(
    got.loss, losses.distillation_loss(**exact, **options).loss, rtol=1e-5
  )


@pytest.mark.parametrize('top_k', [0, V + 1])
def test_top_k_out_of_range_is_refused(top_k):
  with pytest.raises(ValueError, match=f'top_k = {top_k}'):
    losses.distillation_loss(
      **make_inputs(),
      distillation_weight=0.5,
      teacher_temperature=1.0,
      top_k=top_k,
    )
