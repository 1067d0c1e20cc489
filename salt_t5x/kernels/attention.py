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

"""Masks, rotary positions, and softmax attention with one softmax in all.

The plain derivative of softmax(Q Kᵀ) V keeps the [T, S] probabilities, or
computes them again, sums included. With each row's log-sum-exp kept the
probabilities are one exponential of the scores, and the sum in softmax's
derivative is that of the output times its cotangent: [T, h] arrays.

Under `jax.checkpoint` the policy `SAVED` keeps the output and the log-sum-exp,
so that nothing of the forward pass but Q, K, V and the scores is done twice.

Shapes: B batch, T queries, S keys, H query heads, K key and value heads,
G = H / K queries of a head, h head width.
"""

import math

import jax
from jax.ad_checkpoint import checkpoint_name
import jax.numpy as jnp
import numpy as np

Array = jax.Array

_NAME = 'salt_t5x_attention'
SAVED = jax.checkpoint_policies.save_only_these_names(_NAME)


def make_mask(
  decoder_target_tokens: Array,
  decoder_segment_ids: Array | None,
  decoder_causal_attention: Array | None,
) -> Array | None:
  """Makes the mask of a causal, prefix or packed language model.

  Args:
    decoder_target_tokens: [B, T]; 0 is padding, and nothing else is read from
      it: t5x passes a 0/1 mask here when it fills the cache.
    decoder_segment_ids: [B, T] or None; sequences packed into one row are
      numbered from 1 and do not see each other, 0 is padding.
    decoder_causal_attention: [B, T] or None; positions with 1 (the prefix of a
      prefix LM) attend to each other in both directions.

  Returns:
    [B, 1, T, T] bool (query, key), or None if that is plainly causal. Padding
    on the right needs no key mask: real positions look ahead only within a
    prefix, which excludes padding.
  """
  if decoder_segment_ids is None and decoder_causal_attention is None:
    return None
  length = decoder_target_tokens.shape[1]
  mask = jnp.tril(jnp.ones((1, length, length), bool))
  if decoder_causal_attention is not None:
    occupied = decoder_segment_ids
    if occupied is None:
      occupied = decoder_target_tokens
    prefix = (decoder_causal_attention != 0) & (occupied != 0)
    mask |= prefix[:, :, None] & prefix[:, None, :]
  if decoder_segment_ids is not None:
    # Padding (0) equals padding, so no row of the mask is empty.
    mask &= decoder_segment_ids[:, :, None] == decoder_segment_ids[:, None, :]
  return mask[:, None]


def rotate(x: Array, positions: Array, max_wavelength: float) -> Array:
  """RoPE: turns the pairs (i, i + h / 2) of x by their positions.

  x and result: [B, T, heads, h]; positions: [B or 1, T] integers. Computed in
  float32, as bfloat16 cannot even count positions above 256.
  """
  half = x.shape[-1] // 2
  frequency = np.float32(max_wavelength ** (-np.arange(half) / half))
  angle = positions[:, :, None, None].astype(jnp.float32) * frequency
  sin, cos = jnp.sin(angle), jnp.cos(angle)
  first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
  turned = (first * cos - second * sin, second * cos + first * sin)
  return jnp.concatenate(turned, axis=-1).astype(x.dtype)


def attend(query: Array, key: Array, value: Array, mask: Array | None) -> Array:
  """softmax(Q Kᵀ / sqrt(h)) V, with softmax in at least float32.

  Args:
    query: [B, T, H, h] float.
    key: [B, S, K, h] in the same dtype; K divides H, whose heads share keys.
    value: [B, S, K, h].
    mask: [B or 1, 1, T or 1, S] bool, True where a query sees a key; None is
      causal. A row that sees nothing is NaN.

  Returns:
    [B, T, H, h] in the dtype of `query`. It has no forward-mode derivative.
  """
  batch, length, _, dim = query.shape
  heads = key.shape[2]
  query = query.reshape(batch, length, heads, -1, dim)
  if mask is None:
    mask = jnp.tril(jnp.ones((length, key.shape[1]), bool))[None, None]
  out = _attend(query, key, value, mask[:, :, None])
  return out.reshape(batch, length, -1, dim)


@jax.custom_vjp
def _attend(query, key, value, mask):
  return _forward(query, key, value, mask)[0]


def _product(axes: str, a: Array, b: Array) -> Array:
  dtype = jnp.promote_types(a.dtype, jnp.float32)
  return jnp.einsum(axes, a, b, preferred_element_type=dtype)


def _scores(query, key, mask) -> Array:
  """[B, K, G, T, S] in at least float32."""
  scores = _product('btkgh,bskh->bkgts', query, key)
  scores = scores / math.sqrt(query.shape[-1])
  return jnp.where(mask, scores, -jnp.inf)


def _forward(query, key, value, mask):
  scores = _scores(query, key, mask)
  highest = jnp.max(scores, axis=-1)
  p = jnp.exp(scores - highest[..., None]).astype(value.dtype)
  # The product gives the sums of p as well, which saves a pass over [T, S].
  ones = jnp.ones((*value.shape[:-1], 1), value.dtype)
  out = _product('bkgts,bskh->btkgh', p, jnp.concatenate([value, ones], -1))
  out, z = out[..., :-1], out[..., -1:]
  log_z = highest + jnp.log(jnp.moveaxis(z[..., 0], 1, -1))
  out = (out / z).astype(query.dtype)
  out, log_z = checkpoint_name(out, _NAME), checkpoint_name(log_z, _NAME)
  return out, (query, key, value, mask, out, log_z)


def _backward(saved, d_out):
  query, key, value, mask, out, log_z = saved
  dtype = log_z.dtype
  p = jnp.exp(_scores(query, key, mask) - log_z[..., None])
  # Kept for both of its uses, rather than the scores in twice the bytes.
  p = jax.lax.optimization_barrier(p.astype(d_out.dtype))
  d_value = _product('bkgts,btkgh->bskh', p, d_out)
  # Σ_s p ∂p, as out = Σ_s p v.
  total = jnp.sum(out.astype(dtype) * d_out.astype(dtype), axis=-1)
  d_p = _product('btkgh,bskh->bkgts', d_out, value)
  d_scores = p * (d_p - jnp.moveaxis(total, 1, -1)[..., None])
  d_scores = (d_scores / math.sqrt(query.shape[-1])).astype(query.dtype)
  d_query = _product('bkgts,bskh->btkgh', d_scores, key)
  d_key = _product('bkgts,btkgh->bskh', d_scores, query)
  gradients = zip((d_query, d_key, d_value), (query, key, value), strict=True)
  return (*(d.astype(x.dtype) for d, x in gradients), None)


_attend.defvjp(_forward, _backward)
