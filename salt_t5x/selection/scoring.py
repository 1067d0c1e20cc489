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

"""How hard a sequence is for the teacher: one function for each kind of score.

A new kind of score is a function of the signature below in `_SCORES`; the
scoring job, its files and `salt_t5x.select --kind` follow `KINDS`.

All take, from the teacher's predictions for B sequences of T tokens:
  log_perplexity: [B, T] float32, the loss of each token, nats.
  learnable: [B, T] bool, whether it is among the teacher's top k; False for
    padding.
  tokens: [B, T] bool, False for padding.
They return [B] float32, finite and at least 0: 0 for a sequence without tokens.
The first token counts like all others: as in training, the teacher predicts it
from the empty prefix. Higher is harder, except for `easy`.
"""

import jax
import jax.numpy as jnp

Array = jax.Array


def zero(log_perplexity: Array, learnable: Array, tokens: Array) -> Array:
  """Eq. (10) as printed: the median loss, 0 for tokens outside the top k."""
  # Never a product: -1{...} · log P makes -0.0, which sorts before 0.
  return _median(jnp.where(learnable, log_perplexity, 0.0), tokens)


def drop(log_perplexity: Array, learnable: Array, tokens: Array) -> Array:
  """Eq. (10) as its text describes it: the median loss inside the top k."""
  del tokens
  return _median(log_perplexity, learnable)


def easy(log_perplexity: Array, learnable: Array, tokens: Array) -> Array:
  """Eq. (70): the share of tokens inside the top k."""
  del log_perplexity
  return jnp.sum(learnable, axis=-1) / _count(tokens)


def mean(log_perplexity: Array, learnable: Array, tokens: Array) -> Array:
  """The mean loss."""
  del learnable
  return jnp.sum(jnp.where(tokens, log_perplexity, 0.0), -1) / _count(tokens)


def median(log_perplexity: Array, learnable: Array, tokens: Array) -> Array:
  """The median loss."""
  del learnable
  return _median(log_perplexity, tokens)


# In the order of their columns in files of scores.
_SCORES = {f.__name__: f for f in (zero, drop, easy, mean, median)}
KINDS = tuple(_SCORES)


def scores(
  log_perplexity: Array, learnable: Array, weights: Array
) -> dict[str, Array]:
  """Computes all kinds of scores.

  Args:
    log_perplexity: [B, T] float32, from `token_statistics`.
    learnable: [B, T] bool, from `token_statistics`.
    weights: [B, T]; 0 marks padding, all other tokens count once.

  Returns:
    {kind: [B] float32}; `jax.jit` sorts the kinds.
  """
  tokens = weights > 0
  learnable = learnable & tokens
  return {
    kind: score(log_perplexity, learnable, tokens)
    for kind, score in _SCORES.items()
  }


def _count(tokens: Array) -> Array:
  return jnp.maximum(jnp.sum(tokens, axis=-1), 1).astype(jnp.float32)


def _median(values: Array, among: Array) -> Array:
  """Median of the values that `among` marks, as NumPy's; 0 if there is none."""
  ordered = jnp.sort(jnp.where(among, values, jnp.inf), axis=-1)
  count = jnp.sum(among, axis=-1, keepdims=True)
  # The two middle values; the same one twice if the count is odd.
  middle = jnp.concatenate([(count - 1) // 2, count // 2], axis=-1)
  pair = jnp.take_along_axis(ordered, jnp.maximum(middle, 0), axis=-1)
  return jnp.where(count[:, 0] > 0, jnp.mean(pair, axis=-1), 0.0)
