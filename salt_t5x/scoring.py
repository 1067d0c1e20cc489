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

from salt_t5x import losses, models
from t5x import models as t5x_models

Array = jax.Array
PyTree = Any


def token_statistics(
  hidden: Array,
  embedding: Array | None,
  targets: Array,
  *,
  vocab_size: int,
  top_k: int,
  chunk: int = 128,
) -> tuple[Array, Array]:
  """Finds each token's log-perplexity and whether the teacher can learn it.

  A token is learnable if it is among the teacher's k most likely ones. The
  paper's argtop_k is silent on ties; here they count in the token's favour: it
  is in the top k if fewer than k tokens have a logit above its own. Counting
  needs no sort over V, and with k >= V every token is learnable.

  Only `chunk` tokens have their logits at a time, a few positions of all
  sequences: an array of [B, T, V] never exists, unless the caller brings it.

  Rows of the embedding past `vocab_size` take no part.

  Args:
    hidden: [B, T, D] float, or [B, T, V] logits if there is no embedding.
    embedding: [V, D] float, cast to the hidden states' dtype; or None. Logits
      are float32 whatever the dtypes.
    targets: [B, T] int in [0, vocab_size), the tokens x_t; padding included.
    vocab_size: the number of tokens, at most V.
    top_k: k, at least 1.
    chunk: tokens of the batch whose logits exist at once; at least one of each
      sequence. 128 suits a CPU: with more, XLA's sum of exponentials is slower.
      An accelerator is not kept busy by less than some hundreds a device.

  Returns:
    (-log P_ζ(x_t | x_<t), [B, T] float32 and never negative; whether x_t is
    among the top k, [B, T] bool).

  Raises:
    ValueError: `top_k` or `chunk` is less than 1, or V less than `vocab_size`.
  """
  rows = hidden.shape[-1] if embedding is None else embedding.shape[0]
  if top_k < 1:
    raise ValueError(f'top_k = {top_k}: set it to at least 1.')
  if chunk < 1:
    raise ValueError(f'chunk = {chunk}: set it to at least 1.')
  if rows < vocab_size:
    raise ValueError(
      f'vocab_size = {vocab_size}, but the teacher predicts only {rows} tokens.'
    )
  if embedding is not None:
    # Once, not in every chunk.
    embedding = embedding.astype(hidden.dtype)

  def at_position(hidden_and_targets):
    # ([B, D], [B]) to ([B], [B]).
    hidden, targets = hidden_and_targets
    logits = losses.logits(hidden[None], embedding)[0]
    if rows > vocab_size:
      # A slice would move the logits of a teacher that is sharded along V.
      logits = jnp.where(jnp.arange(rows) < vocab_size, logits, -jnp.inf)
    # Out of the logits: a dot product of its own could round differently, and
    # the target would then be above itself.
    target = jnp.take_along_axis(logits, targets[:, None], axis=-1)
    # By 16, first in bytes: on a CPU, XLA writes out what it sums, and counting
    # in int32 at once takes another array of the logits' size.
    above = jnp.pad(logits > target, ((0, 0), (0, -rows % 16)))
    above = jnp.sum(above.reshape(-1, above.shape[1] // 16, 16), -1, jnp.int8)
    above = jnp.sum(above, axis=-1, dtype=jnp.int32)
    # The sum holds the largest logit's exp(0) = 1, so that this is >= 0.
    log_perplexity = jax.nn.logsumexp(logits, axis=-1) - target[:, 0]
    return log_perplexity.astype(jnp.float32), above < top_k

  by_position = (jnp.swapaxes(hidden, 0, 1), jnp.swapaxes(targets, 0, 1))
  batch, length = targets.shape
  positions = min(max(chunk // batch, 1), length)
  per_token = jax.lax.map(at_position, by_position, batch_size=positions)
  return tuple(jnp.swapaxes(x, 0, 1) for x in per_token)


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


def features_of(
  targets: Array, context_lengths: Array | None = None
) -> dict[str, Array]:
  """A decoder-only model's features of sequences.

  Args:
    targets: [B, T] int; 0 is padding.
    context_lengths: [B] int, how many tokens of each are a prefix LM's
      "inputs"; None for sequences without a prefix.

  Returns:
    {feature: [B, T]}, those that seqio's converters make of such sequences.
  """
  if context_lengths is None:
    context_lengths = jnp.zeros(targets.shape[:1], jnp.int32)
  positions, lengths = jnp.arange(targets.shape[1]), context_lengths[:, None]
  return {
    'decoder_input_tokens': jnp.pad(targets[:, :-1], ((0, 0), (1, 0))),
    'decoder_target_tokens': targets,
    'decoder_loss_weights': ((targets > 0) & (positions >= lengths)).astype(
      jnp.int32
    ),
    # As the inputs are shifted right, the prefix is a position longer.
    'decoder_causal_attention': (positions <= lengths).astype(jnp.int32),
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
  features = features_of(targets)
  per_token = token_statistics(
    *models.hidden_and_embedding(model, params, features),
    targets,
    vocab_size=model.output_vocabulary.vocab_size,
    top_k=top_k,
    chunk=chunk,
  )
  return scores(*per_token, features['decoder_loss_weights'])
