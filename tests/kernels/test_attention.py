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

"""Attention equals JAX's own, and its backward pass skips what it says."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from salt_t5x.kernels import attention

BATCH, LENGTH, DIM = 3, 10, 8
HEADS = [(4, 4), (4, 1), (4, 2)]


def inputs(heads, kv_heads, dtype=np.float32, queries=LENGTH):
  rng = np.random.default_rng(0)
  normal = lambda *shape: jnp.asarray(rng.normal(size=shape), dtype)
  return (
    normal(BATCH, queries, heads, DIM),
    normal(BATCH, LENGTH, kv_heads, DIM),
    normal(BATCH, LENGTH, kv_heads, DIM),
  )


def masks():
  prefix = np.arange(LENGTH) < np.array([[2], [5], [0]])
  causal = np.tril(np.ones((LENGTH, LENGTH), bool))[None]
  seen = causal | (prefix[:, :, None] & prefix[:, None, :])
  return {'causal': None, 'prefix': jnp.asarray(seen)[:, None]}


def run(attend, arrays, mask):
  """(output, gradients of a function of it)."""
  weights = jnp.linspace(-1, 1, arrays[0].size).reshape(arrays[0].shape)

  def value(*arrays):
    out = attend(*arrays, mask)
    return jnp.sum(weights * jnp.sin(out.astype(jnp.float32))), out

  (_, out), gradients = jax.jit(
    jax.value_and_grad(value, (0, 1, 2), has_aux=True)
  )(*arrays)
  return out, gradients


def of_jax(query, key, value, mask):
  return jax.nn.dot_product_attention(
    query, key, value, mask=mask, is_causal=mask is None
  )


@pytest.mark.parametrize('heads, kv_heads', HEADS)
@pytest.mark.parametrize('mask', ['causal', 'prefix'])
@pytest.mark.parametrize(
  'dtype, tolerance', [('float32', 1e-5), ('bfloat16', 2**-6)]
)
def test_equals_jax(heads, kv_heads, mask, dtype, tolerance):
  # The reference in float32, as bfloat16's own differs as much.
  arrays = inputs(heads, kv_heads, dtype)
  exact = [x.astype(np.float32) for x in arrays]
  found = run(attention.attend, arrays, masks()[mask])
  expected = run(of_jax, exact, masks()[mask])
  for a, b in zip(
    jax.tree.leaves(found), jax.tree.leaves(expected), strict=True
  ):
    assert a.dtype == dtype
    a, b = np.asarray(a, np.float32), np.asarray(b)
    np.testing.assert_allclose(a, b, atol=tolerance * np.abs(b).max())


def test_one_query_and_many_keys():
  arrays = inputs(4, 1, queries=1)
  mask = (jnp.arange(LENGTH) < jnp.array([[3], [10], [1]]))[:, None, None]
  found = attention.attend(*arrays, mask)
  np.testing.assert_allclose(found, of_jax(*arrays, mask), atol=1e-6)


def test_large_scores_do_not_overflow():
  query, key, value = inputs(4, 4)
  found = attention.attend(1e3 * query, key, value, None)
  expected = of_jax(1e3 * query, key, value, None)
  np.testing.assert_allclose(found, expected, atol=1e-5)


def test_with_saved_outputs_the_forward_pass_is_not_done_again():
  def exponentials(policy):
    """Of [T, S] arrays in a gradient, remat included."""

    function = jax.checkpoint(
      lambda *x: attention.attend(*x, None), policy=policy
    )
    gradient = jax.grad(lambda *x: jnp.sum(jnp.sin(function(*x))))
    text = jax.jit(gradient).lower(*inputs(4, 4)).as_text()
    return text.count('stablehlo.exponential')

  # Forward and backward; without, forward, forward again and backward.
  assert exponentials(attention.SAVED) == 2
  assert exponentials(None) == 3
