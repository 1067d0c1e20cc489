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

"""Sampling from a language model.

Each sample depends only on the seed and its own ids and prefix, not on
batches or devices.
"""

from typing import Any

import jax
import jax.numpy as jnp

from t5x import models as t5x_models

Array = jax.Array
PyTree = Any


def only_tokens(logits: Array, vocab_size: int) -> Array:
  """Excludes padding (0) and rows past the vocabulary from a distribution."""
  rows = jnp.arange(logits.shape[-1])
  return jnp.where((rows > 0) & (rows < vocab_size), logits, -jnp.inf)


def draw(
  model: t5x_models.DecoderOnlyModel,
  params: PyTree,
  tokens: Array,
  lengths: Array,
  ids: Array,
  *,
  seed: int,
) -> Array:
  """Continues x_1 ... x_s to T tokens, each drawn from P(·|x_<t).

  An end-of-sequence token does not end a sequence: another document follows
  it, as in the training data.

  Args:
    model: its module follows t5x's decoding contract (`decode` with the
      collection `cache`), which reads causally.
    params: its parameters.
    tokens: [B, T] int; tokens after the prefix have no effect.
    lengths: [B] int, s from 0 to T.
    ids: [B, n] int, unique for each sample.
    seed: of all samples.

  Returns:
    [B, T] int32, the completed sequences.
  """
  vocab_size = model.output_vocabulary.vocab_size
  length = tokens.shape[1]

  def apply(cache, inputs):
    return model.module.apply(
      {'params': params, **cache},
      inputs,
      inputs,
      enable_dropout=False,
      decode=True,
      max_decode_length=length,
      mutable=['cache'],
    )

  keys = jnp.broadcast_to(jax.random.key(seed), tokens.shape[:1])
  for i in range(ids.shape[1]):
    keys = jax.vmap(jax.random.fold_in)(keys, ids[:, i])

  def step(carry, position):
    cache, previous = carry
    logits, cache = apply(cache, previous[:, None])
    drawn = jax.vmap(jax.random.categorical)(
      jax.vmap(jax.random.fold_in, (0, None))(keys, position),
      only_tokens(logits[:, 0].astype(jnp.float32), vocab_size),
    )
    given = jax.lax.dynamic_index_in_dim(tokens, position, 1, keepdims=False)
    token = jnp.where(position < lengths, given, drawn).astype(jnp.int32)
    return (cache, token), token

  # The first call creates an empty cache.
  _, cache = apply({}, jnp.zeros(tokens.shape, jnp.int32))
  start = cache, jnp.zeros(tokens.shape[:1], jnp.int32)
  _, drawn = jax.lax.scan(step, start, jnp.arange(length))
  return jnp.swapaxes(drawn, 0, 1)
