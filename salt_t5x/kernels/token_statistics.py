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

"""Each token's log-perplexity, and whether it is among a model's top k."""

import jax
import jax.numpy as jnp

from salt_t5x import losses

Array = jax.Array


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
  paper's argtop_k is silent on ties; here equal logits rank by token, the
  lowest first, as in `jax.lax.top_k` and in greedy decoding. So k tokens are
  learnable at each position, whatever the logits, and k = 1 is the argmax. A
  token whose logit is NaN is never learnable, and NaN ranks before all else.
  Counting the tokens before it needs no sort over V.

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
    is_later = jnp.arange(rows) >= targets[:, None]
    is_behind = (logits < target) | ((logits == target) & is_later)
    # By 16, first in bytes: on a CPU, XLA writes out what it sums, and counting
    # in int32 at once takes another array of the logits' size.
    before = jnp.pad(~is_behind, ((0, 0), (0, -rows % 16)))
    before = jnp.sum(
      before.reshape(-1, before.shape[1] // 16, 16), -1, jnp.int8
    )
    before = jnp.sum(before, axis=-1, dtype=jnp.int32)
    learnable = (before < top_k) & ~jnp.isnan(target[:, 0])
    # The sum holds the largest logit's exp(0) = 1, so that this is >= 0.
    log_perplexity = jax.nn.logsumexp(logits, axis=-1) - target[:, 0]
    return log_perplexity.astype(jnp.float32), learnable

  by_position = (jnp.swapaxes(hidden, 0, 1), jnp.swapaxes(targets, 0, 1))
  batch, length = targets.shape
  positions = min(max(chunk // batch, 1), length)
  log_perplexity, learnable = jax.lax.map(
    at_position, by_position, batch_size=positions
  )
  return jnp.swapaxes(log_perplexity, 0, 1), jnp.swapaxes(learnable, 0, 1)
