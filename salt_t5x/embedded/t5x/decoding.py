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

"""Samples one continuation of each row, with a prefilled cache."""

from collections.abc import Callable
from typing import Any

import flax
import jax
import jax.numpy as jnp

from t5x import _subset

Array = jax.Array

__getattr__ = _subset.missing(__name__)

_MASKED = -1e10


@flax.struct.dataclass
class DecodingState:
  """The decoding loop's state, as the model sees it.

  Attributes:
    cur_index: [B] position of the current token.
    sequences: [B, T + 1] tokens so far.
    cur_token: [B, 1].
    cache: the attention cache.
  """

  cur_index: Array
  sequences: Array
  cur_token: Array
  cache: Any


@_subset.subset_of_t5x
def temperature_sample(
  inputs: Array,
  cache: Any,
  tokens_to_logits: Callable[[DecodingState], tuple[Array, Any]],
  eos_id: int,
  initial_index: Array,
  decode_rng: Array | None = None,
  temperature: float = 1.0,
  topk: int = 1,
  logit_callback_fn: Callable[[Array, DecodingState], Array] | None = None,
) -> tuple[Array, Array]:
  """Samples from the k most likely tokens (greedily for `topk` = 1).

  Args:
    inputs: [B, T] int prompts, shifted right; zeros after them.
    cache: prefilled attention cache.
    tokens_to_logits: DecodingState -> ([B, V] logits, new cache).
    eos_id: ends a row; later tokens are 0.
    initial_index: [B] position of each prompt's last token.
    decode_rng: random key; a fixed key if None.
    temperature: divides the logits; 0 is greedy.
    topk: tokens to choose among, or 0 for all.
    logit_callback_fn: changes the [B, V] logits before a token is chosen.

  Returns:
    ([B, 1, T] tokens: prompt (without its shift) and continuation; [B, 1]
    summed log-probabilities of the continuation under the tempered, restricted
    distribution).
  """
  if decode_rng is None:
    decode_rng = jax.random.PRNGKey(0)
  batch, length = inputs.shape
  rows = jnp.arange(batch)
  # sequences[:, i] is the token at input position i; one more is generated
  # than there are inputs.
  sequences = jnp.pad(inputs, ((0, 0), (0, 1)))

  def choose(logits, rng):
    if topk == 1 or temperature == 0:
      token = jnp.argmax(logits, axis=-1)
      return token, jnp.zeros((batch,), jnp.float32)
    logits = logits / temperature
    if topk:
      least = jax.lax.top_k(logits, topk)[0][:, -1:]
      logits = jnp.where(logits < least, _MASKED, logits)
    token = jax.random.categorical(rng, logits)
    return token, jax.nn.log_softmax(logits)[rows, token]

  def body(carry):
    index, sequences, cache, done, scores, rng = carry
    rng, sub_rng = jax.random.split(rng)
    state = DecodingState(
      index, sequences, sequences[rows, index][:, None], cache
    )
    logits, cache = tokens_to_logits(state)
    if logit_callback_fn is not None:
      logits = logit_callback_fn(logits, state)
    token, log_prob = choose(logits, sub_rng)
    # Finished rows (ended or full) keep their tokens, 0 after the end.
    place = index + 1
    token = jnp.where(done, sequences[rows, place], token)
    sequences = sequences.at[rows, place].set(token.astype(sequences.dtype))
    scores = scores + jnp.where(done, 0.0, log_prob)
    done = done | (token == eos_id) | (place >= length)
    return jnp.minimum(place, length - 1), sequences, cache, done, scores, rng

  carry = (
    initial_index,
    sequences,
    cache,
    initial_index >= length,
    jnp.zeros((batch,), jnp.float32),
    decode_rng,
  )
  _, sequences, _, _, scores, _ = jax.lax.while_loop(
    lambda carry: ~jnp.all(carry[3]), body, carry
  )
  return sequences[:, None, 1:], scores[:, None]
