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

"""How hard a sequence is for the teacher: eq. (10), eq. (70) and baselines.

`token_statistics` looks at every token, `scores` sums a sequence up, and
`score_targets` runs the teacher for both. All are pure functions.

Notation: B batch, T sequence length, D model width, V vocabulary, P_ζ the
teacher's prediction, k `top_k`.
"""

from typing import Any

import jax
import jax.numpy as jnp

from salt_t5x import models
from salt_t5x.kernels import token_statistics as token_statistics_lib
from t5x import models as t5x_models

Array = jax.Array
PyTree = Any


def _median(values: Array, among: Array) -> Array:
  """The median of those values that `among` marks, as numpy's; 0 if none.

  values: [B, T] finite; among: [B, T] bool; result: [B].
  """
  ordered = jnp.sort(jnp.where(among, values, jnp.inf), axis=-1)
  count = jnp.sum(among, axis=-1, keepdims=True)
  # The same one twice if the count is odd.
  middle = jnp.concatenate([(count - 1) // 2, count // 2], axis=-1)
  pair = jnp.take_along_axis(ordered, jnp.maximum(middle, 0), axis=-1)
  return jnp.where(count[:, 0] > 0, jnp.mean(pair, axis=-1), 0.0)


def scores(
  log_perplexity: Array, learnable: Array, weights: Array
) -> dict[str, Array]:
  """Sums sequences up in one number each; more is harder, but for `easy`.

  The first token counts like all others: as in training, the teacher predicts
  it from the empty prefix. A sequence without tokens scores 0 everywhere.

  Args:
    log_perplexity: [B, T] float32, from `token_statistics`.
    learnable: [B, T] bool, likewise.
    weights: [B, T]; 0 marks padding, all other tokens count once.

  Returns:
    Scores by name (the order is lost under `jax.jit`, which sorts names), [B]
    float32 each, finite and at least 0:
      zero: eq. (10) as printed: the median of the losses, where a token
        outside the top k has loss 0.
      drop: eq. (10) as its text has it: the median of the losses of tokens
        inside the top k; 0 if there are none.
      easy: eq. (70), the share of tokens inside the top k.
      mean: the mean loss.
      median: the median loss.
  """
  tokens = weights > 0
  learnable = learnable & tokens
  count = jnp.maximum(jnp.sum(tokens, axis=-1), 1).astype(jnp.float32)
  # Never a product: -1{...} · log P makes -0.0, which sorts before 0.
  gated = jnp.where(learnable, log_perplexity, 0.0)
  return {
    'zero': _median(gated, tokens),
    'drop': _median(log_perplexity, learnable),
    'easy': jnp.sum(learnable, axis=-1) / count,
    'mean': jnp.sum(jnp.where(tokens, log_perplexity, 0.0), axis=-1) / count,
    'median': _median(log_perplexity, tokens),
  }


def score_targets(
  model: t5x_models.DecoderOnlyModel,
  params: PyTree,
  targets: Array,
  *,
  top_k: int,
  chunk: int,
) -> dict[str, Array]:
  """Scores sequences as the teacher predicts them token by token (eq. 10).

  Args:
    model: the teacher, a t5x decoder-only model.
    params: its parameters.
    targets: [B, T] int in [0, tokens of the vocabulary); 0 is padding.
    top_k: as in `token_statistics`.
    chunk: likewise.

  Returns:
    See `scores`.

  Raises:
    ValueError: see `token_statistics` and `models.hidden_and_embedding`.
  """
  features = models.features_of(targets)
  per_token = token_statistics_lib.token_statistics(
    *models.hidden_and_embedding(model, params, features),
    targets,
    vocab_size=model.output_vocabulary.vocab_size,
    top_k=top_k,
    chunk=chunk,
  )
  return scores(*per_token, features['decoder_loss_weights'])
