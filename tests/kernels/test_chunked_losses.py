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


"""The chunked losses equal the dense ones, values and gradients."""

from hypothesis import given, settings
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from salt_t5x import losses
from salt_t5x.kernels import chunked_losses, loss_passes

# Few values make many equal logits, so that ties are met.
VALUES = st.sampled_from(['normal', 'ties'])


@st.composite
def inputs(draw):
  """Arguments of a loss, of any small shape."""
  batch, length = draw(st.integers(1, 3)), draw(st.integers(1, 9))
  width, teacher_width = draw(st.integers(1, 5)), draw(st.integers(1, 5))
  student_rows, teacher_rows = draw(st.integers(3, 9)), draw(st.integers(3, 9))
  tokens = draw(st.integers(2, min(student_rows, teacher_rows)))
  rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
  is_tied = draw(VALUES) == 'ties'

  def normal(*shape):
    x = rng.normal(size=shape)
    return (np.round(x) if is_tied else x).astype(np.float32)

  return dict(
    student_hidden=normal(batch, length, width),
    student_embedding=normal(student_rows, width),
    teacher_hidden=normal(batch, length, teacher_width),
    teacher_embedding=normal(teacher_rows, teacher_width),
    targets=rng.integers(0, tokens, (batch, length)),
    weights=rng.integers(0, 3, (batch, length)) / np.float32(2),
  ), tokens


def with_gradients(loss, x, **options):
  """(all sums, gradients by the student's hidden states and embedding)."""

  def value(hidden, embedding):
    arguments = x | {'student_hidden': hidden, 'student_embedding': embedding}
    sums = loss(**arguments, **options)
    return sums.loss, sums

  # Compiled: one by one, the operations of new shapes take far longer.
  run = jax.jit(jax.value_and_grad(value, (0, 1), has_aux=True))
  (_, sums), gradients = run(x['student_hidden'], x['student_embedding'])
  return sums, gradients


def assert_equal(found, expected, rtol=1e-5, atol=1e-5):
  assert jax.tree.structure(found) == jax.tree.structure(expected)
  for a, b in zip(
    jax.tree.leaves(found), jax.tree.leaves(expected), strict=True
  ):
    assert (a.shape, a.dtype) == (b.shape, b.dtype)
    a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
    np.testing.assert_allclose(a, b, rtol=rtol, atol=atol)


@settings(max_examples=15)
@given(
  inputs(),
  st.integers(1, 11),
  st.sampled_from([0.0, 0.3, 1.0]),
  st.sampled_from([0.25, 1.0, 2.0]),
  st.sampled_from([0.0, 0.01]),
  st.sampled_from([None, 1, 2]),
  st.booleans(),
  st.booleans(),
  st.sampled_from([2, 16_384]),
)
def test_distillation_equals_dense(
  drawn, chunk, omega, rho, z_loss, top_k, from_logits, is_padded, tile
):
  x, tokens = drawn
  if from_logits:
    x['teacher_hidden'] = losses.logits(
      x['teacher_hidden'], x.pop('teacher_embedding')
    )
    x['teacher_embedding'] = None
  options = dict(
    distillation_weight=omega,
    teacher_temperature=rho,
    top_k=top_k,
    vocab_size=tokens if is_padded else None,
    z_loss=z_loss,
  )
  expected = with_gradients(losses.distillation_loss, x, **options)
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(loss_passes, '_TILE', tile)
    found = with_gradients(
      chunked_losses.distillation_loss, x, **options, chunk=chunk
    )
  assert_equal(found, expected)


@settings(max_examples=10)
@given(inputs(), st.integers(1, 11), st.sampled_from([0.0, 0.01]))
def test_next_token_loss_equals_dense(drawn, chunk, z_loss):
  x, _ = drawn
  x = {k: v for k, v in x.items() if 'teacher' not in k}
  expected = with_gradients(losses.next_token_loss, x, z_loss=z_loss)
  found = with_gradients(
    chunked_losses.next_token_loss, x, z_loss=z_loss, chunk=chunk
  )
  assert_equal(found, expected)


def test_the_loss_scales_its_gradients():
  x = fixed()
  found = jax.grad(
    lambda h: (
      3
      * chunked_losses.next_token_loss(
        **(x | {'student_hidden': h}), chunk=4
      ).loss
    )
  )(x['student_hidden'])
  expected = jax.grad(
    lambda h: 3 * losses.next_token_loss(**(x | {'student_hidden': h})).loss
  )(x['student_hidden'])
  assert_equal(found, expected)


def fixed(teacher=False, dtype=np.float32, length=12, rows=64):
  rng = np.random.default_rng(0)
  normal = lambda *shape: jnp.asarray(rng.normal(size=shape), dtype)
  x = dict(
    student_hidden=normal(8, length, 16) / 4,
    student_embedding=normal(rows, 16).astype(np.float32),
    targets=rng.integers(0, rows, (8, length)),
  )
  if teacher:
    x |= dict(
      teacher_hidden=normal(8, length, 8) / 3,
      teacher_embedding=normal(rows, 8),
    )
  return x


DISTILLATION = dict(distillation_weight=0.667, teacher_temperature=0.25)


@pytest.mark.parametrize('top_k, tile', [(None, 16), (5, 16), (None, 16_384)])
def test_bfloat16_rounds_as_dense_does(top_k, tile, monkeypatch):
  """Products of bfloat16 with float32 sums; the embedding stays float32."""
  monkeypatch.setattr(loss_passes, '_TILE', tile)
  x = fixed(True, jnp.bfloat16)
  options = DISTILLATION | {'top_k': top_k}
  expected = with_gradients(losses.distillation_loss, x, **options)
  found = with_gradients(
    chunked_losses.distillation_loss, x, **options, chunk=5
  )
  assert_equal(found[0], expected[0])
  assert found[1][0].dtype == jnp.bfloat16
  assert found[1][1].dtype == jnp.float32
  for a, b in zip(found[1], expected[1], strict=True):
    a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
    np.testing.assert_allclose(a, b, atol=2**-7 * np.abs(b).max())


def test_k_beyond_the_vocabulary_is_an_error():
  with pytest.raises(
    ValueError, match='top_k = 65 is not between 1 and the 64'
  ):
    chunked_losses.distillation_loss(
      **fixed(True), **DISTILLATION, top_k=65, chunk=4
    )


def test_negative_zero_ties_with_zero():
  x = dict(
    student_hidden=jnp.zeros((1, 1, 3)),
    student_embedding=jnp.arange(9.0).reshape(3, 3),
    teacher_hidden=jnp.array([[[-0.0, 0.0, -1.0]]]),
    teacher_embedding=None,
    targets=jnp.zeros((1, 1), int),
  )
  options = DISTILLATION | {'top_k': 1}
  for loss, more in (
    (losses.distillation_loss, {}),
    (chunked_losses.distillation_loss, {'chunk': 1}),
  ):
    sums = loss(**x, **options, **more)
    # One token, the lower one: no entropy.
    assert sums.distillation.teacher_entropy == 0


@pytest.mark.parametrize('nan', [slice(None), 0, 2])
@pytest.mark.parametrize(
  'models', [('student',), ('teacher',), ('student', 'teacher')]
)
def test_nan_is_neither_correct_nor_agreement(nan, models):
  logits = {x: np.zeros((1, 3, 4), np.float32) for x in ('student', 'teacher')}
  for model in models:
    logits[model][..., nan] = np.nan
  x = dict(
    student_hidden=jnp.ones((1, 3, 1)),
    student_embedding=jnp.array(logits['student'][0, :1].T),
    teacher_hidden=jnp.asarray(logits['teacher']),
    teacher_embedding=None,
    targets=jnp.array([[0, 1, 2]]),
  )
  for loss, more in (
    (losses.distillation_loss, {}),
    (chunked_losses.distillation_loss, {'chunk': 2}),
  ):
    sums = loss(**x, **DISTILLATION, **more)
    assert sums.distillation.agreement == 0
    # A student without NaN chooses the lowest token.
    assert sums.correct == ('student' not in models)


@pytest.mark.parametrize('gap', [10, 87, 88, 89, 1000])
def test_a_top_k_far_below_the_students_choice(gap):
  x = dict(
    student_hidden=jnp.ones((1, 1, 1)),
    student_embedding=jnp.array([[0.0], [1.0], [gap]]),
    teacher_hidden=jnp.ones((1, 1, 1)),
    teacher_embedding=jnp.array([[5.0], [1.0], [0.0]]),
    targets=jnp.zeros((1, 1), int),
  )
  options = DISTILLATION | {'top_k': 2}
  expected = with_gradients(losses.distillation_loss, x, **options)
  found = with_gradients(
    chunked_losses.distillation_loss, x, **options, chunk=1
  )
  assert np.isfinite(expected[0].loss)
  assert_equal(found, expected)


@pytest.mark.parametrize('name', ['teacher_hidden', 'targets', 'weights'])
def test_arrays_of_another_length_are_an_error(name):
  x = fixed(True)
  x['weights'] = jnp.ones(x['targets'].shape)
  x[name] = x[name][:, :-2]
  with pytest.raises(ValueError, match='one batch and one length|broadcast'):
    chunked_losses.distillation_loss(**x, **DISTILLATION, chunk=4)


def test_weights_broadcast_as_in_dense():
  x = fixed() | {'weights': jnp.linspace(0, 1, 8)[:, None]}
  assert_equal(
    with_gradients(chunked_losses.next_token_loss, x, chunk=5),
    with_gradients(losses.next_token_loss, x),
  )


@pytest.mark.parametrize('target', [-100, 64, 99])
def test_a_target_that_is_no_row_is_nan(target):
  x = fixed()
  x['targets'][0, 0] = target
  assert np.isnan(losses.next_token_loss(**x).loss)
  assert np.isnan(chunked_losses.next_token_loss(**x, chunk=5).loss)


def test_no_positions():
  x = fixed(True, length=0)
  sums, gradients = with_gradients(
    chunked_losses.distillation_loss, x, **DISTILLATION, chunk=5
  )
  assert sums.loss == sums.weight == 0
  assert gradients[0].shape == x['student_hidden'].shape


def test_an_empty_chunk_is_an_error():
  with pytest.raises(ValueError, match='chunk = 0'):
    chunked_losses.next_token_loss(**fixed(), chunk=0)
