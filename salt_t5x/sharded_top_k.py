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

"""The k-th largest value along an axis that may be sharded."""

import jax
import jax.numpy as jnp

from salt_t5x import sharding

Array = jax.Array


def kth_largest(
  logits: Array, k: int, names: sharding.Names
) -> tuple[Array, Array]:
  """The k-th largest logit and its token, each [B, T, 1].

  Every device takes the top k of its own part of the vocabulary, and then of
  all parts' top k: a top k over a sharded axis would gather that axis.
  """
  batch, _, vocab_size = logits.shape
  batch_axes, _, vocab_axes = sharding.spec(names) or (None,) * 3
  parts = sharding.count(vocab_axes)
  if (
    sharding.count((batch_axes, vocab_axes)) == 1
    or batch % sharding.count(batch_axes)
    or vocab_size % parts
    or vocab_size // parts < k
  ):
    values, tokens = jax.lax.top_k(logits, k)
    return values[..., -1:], tokens[..., -1:]

  def of_all(logits):
    values, tokens = jax.lax.top_k(logits, k)
    if parts > 1:
      tokens += jax.lax.axis_index(vocab_axes) * (vocab_size // parts)
      # In the order of the tokens, so ties still go to the lower one.
      values, tokens = (
        jax.lax.all_gather(x, vocab_axes, axis=2, tiled=True)
        for x in (values, tokens)
      )
      values, places = jax.lax.top_k(values, k)
      tokens = jnp.take_along_axis(tokens, places, axis=-1)
    return values[..., -1:], tokens[..., -1:]

  spec = jax.sharding.PartitionSpec
  return jax.shard_map(
    of_all,
    mesh=sharding.mesh(),
    in_specs=spec(batch_axes, None, vocab_axes),
    out_specs=spec(batch_axes),
    check_vma=False,  # It cannot tell that gathered values are all alike.
  )(logits)
