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

"""How hard a sequence is for the teacher: several kinds of score."""

import jax
import jax.numpy as jnp

Array = jax.Array

# In the order of their columns in files of scores.
KINDS = ('zero', 'drop', 'easy', 'mean', 'median')


def scores(
  log_perplexity: Array, learnable: Array, weights: Array
) -> dict[str, Array]:
  """Computes all kinds of scores; higher is harder, except for `easy`.

  The first token counts like all others: as in training, the teacher predicts
  it from the empty prefix. The scoring job, its files and `salt_t5x.select`
  follow `KINDS`, so a new kind is a name there and a line here.

  Args:
    log_perplexity: [B, T] float32, the loss of each token, nats, from
      `token_statistics`.
    learnable: [B, T] bool, whether a token is among the teacher's top k, from
      `token_statistics`.
    weights: [B, T]; 0 marks padding, all other tokens count once.

  Returns:
    {kind: [B] float32}, finite and at least 0: 0 for a sequence without tokens.
  """
  tokens = weights > 0
  learnable = learnable & tokens
  count = jnp.maximum(jnp.sum(tokens, axis=-1), 1).astype(jnp.float32)
  return {
    # Eq. (10) as printed: the loss is 0 for tokens outside the top k. Never a
    # product: -1{...} · log P makes -0.0, which sorts before 0.
    'zero': _median(jnp.where(learnable, log_perplexity, 0.0), tokens),
    # Eq. (10) as its text describes it: the median loss inside the top k.
    'drop': _median(log_perplexity, learnable),
    # Eq. (70): the share of tokens inside the top k.
    'easy': jnp.sum(learnable, axis=-1) / count,
    'mean': jnp.sum(jnp.where(tokens, log_perplexity, 0.0), -1) / count,
    'median': _median(log_perplexity, tokens),
  }


def _median(values: Array, among: Array) -> Array:
  """Median of the values that `among` marks, as NumPy's; 0 if there is none."""
  ordered = jnp.sort(jnp.where(among, values, jnp.inf), axis=-1)
  count = jnp.sum(among, axis=-1, keepdims=True)
  # The two middle values; the same one twice if the count is odd.
  middle = jnp.concatenate([(count - 1) // 2, count // 2], axis=-1)
  pair = jnp.take_along_axis(ordered, jnp.maximum(middle, 0), axis=-1)
  return jnp.where(count[:, 0] > 0, jnp.mean(pair, axis=-1), 0.0)
