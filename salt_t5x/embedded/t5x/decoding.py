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

"""Continues each row by the most likely tokens, with a prefilled cache."""

from collections.abc import Callable
from typing import Any

import flax
import jax
import jax.numpy as jnp

from t5x import _subset

__getattr__ = _subset.missing(__name__)

Array = jax.Array


@flax.struct.dataclass
class DecodingState:
  """The decoding loop's state, as the model sees it.

  Attributes:
    cur_token: [B, 1].
    cache: the attention cache.
  """

  cur_token: Array
  cache: Any


@_subset.subset_of_t5x
def temperature_sample(
  inputs: Array,
  cache: Any,
  tokens_to_logits: Callable[[DecodingState], tuple[Array, Any]],
  eos_id: int,
  initial_index: Array,
  temperature: float = 1.0,
  topk: int = 1,
  logit_callback_fn: Callable[[Array, DecodingState], Array] | None = None,
) -> tuple[Array, Array]:
  """Decodes greedily, the case of t5x's function that SALT uses.

  Args:
    inputs: [B, T] int prompts, shifted right; zeros after them.
    cache: prefilled attention cache.
    tokens_to_logits: DecodingState -> ([B, V] logits, new cache).
    eos_id: ends a row; later tokens are 0.
    initial_index: [B] position of each prompt's last token.
    temperature: 0 is greedy.
    topk: 1 is greedy.
    logit_callback_fn: changes the [B, V] logits before a token is chosen.

  Returns:
    ([B, 1, T] tokens: prompt (without its shift) and continuation; [B, 1]
    scores, which are 0 as in t5x).
  """
  if topk != 1 and temperature:
    _subset.refuse(f'sampling with topk = {topk}, temperature = {temperature}')
  batch, length = inputs.shape
  rows = jnp.arange(batch)
  # sequences[:, i] is the token at input position i; one more is generated
  # than there are inputs.
  sequences = jnp.pad(inputs, ((0, 0), (0, 1)))

  def body(carry):
    index, sequences, cache, done = carry
    state = DecodingState(sequences[rows, index][:, None], cache)
    logits, cache = tokens_to_logits(state)
    if logit_callback_fn is not None:
      logits = logit_callback_fn(logits, state)
    # Finished rows (ended or full) keep their tokens, 0 after the end.
    place = index + 1
    token = jnp.where(done, sequences[rows, place], jnp.argmax(logits, axis=-1))
    sequences = sequences.at[rows, place].set(token.astype(sequences.dtype))
    done = done | (token == eos_id) | (place >= length)
    return jnp.minimum(place, length - 1), sequences, cache, done

  carry = initial_index, sequences, cache, initial_index >= length
  _, sequences, _, _ = jax.lax.while_loop(
    lambda carry: ~jnp.all(carry[3]), body, carry
  )
  return sequences[:, None, 1:], jnp.zeros((batch, 1))
