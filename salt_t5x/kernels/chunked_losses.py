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

"""The losses of `losses.py`, in chunks: no [B, T, V] array ever exists.

Both functions take the arguments of their namesakes and return the same sums.
They scan chunks of positions; a chunk's logits exist only during its own step.
The gradients are computed in that step, too: with the logits at hand they cost
two matrix products and no recomputation. Only `loss` has gradients, and only by
the student's hidden states and embedding.

A chunk takes three passes over V (`loss_passes.py`): for the logits and their
maxima, for sums, for the gradients.

Sharding: the logits are split by the axis rules for ('batch', 'vocab'), V
included. So over V there are only sums and maxima; nothing is gathered,
scattered or sorted along it, and of eq. (12)'s top k only the k-th logit is
looked up. Each part of the batch sums its own gradient of the embedding; the
parts are added once, after the last chunk.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from salt_t5x import losses
from salt_t5x.kernels import loss_passes, loss_tiles, sharding

Array = jax.Array


def next_token_loss(
  student_hidden: Array,
  student_embedding: Array | None,
  targets: Array,
  weights: Array | None = None,
  *,
  z_loss: float = 0.0,
  chunk: int,
) -> losses.LossSums:
  """Eq. (1) in chunks; see `losses.next_token_loss`.

  Args:
    student_hidden: [B, T, D] float, or [B, T, V_s] logits.
    student_embedding: [V_s, D] float, or None; existing logits go
      to the dense loss.
    targets: [B, T] int, the tokens x_t.
    weights: [B, T] float, 0 for padding; None counts every token once.
    z_loss: factor of log²Z.
    chunk: positions in a chunk, at least 1.

  Returns:
    The sums; `distillation` is None. Only `loss` has gradients, and only by the
    student's hidden states and embedding.
  """
  if student_embedding is None:
    return losses.next_token_loss(
      student_hidden, None, targets, weights, z_loss=z_loss
    )
  return _loss(
    loss_tiles.Options(chunk=chunk, z_loss=z_loss),
    student_hidden,
    student_embedding,
    loss_passes.Constants(None, None, targets, weights, None),
  )


def distillation_loss(
  student_hidden: Array,
  student_embedding: Array | None,
  teacher_hidden: Array,
  teacher_embedding: Array | None,
  targets: Array,
  weights: Array | None = None,
  *,
  distillation_weight: Array | float,
  teacher_temperature: float,
  top_k: int | None = None,
  vocab_size: int | None = None,
  z_loss: float = 0.0,
  chunk: int,
) -> losses.LossSums:
  """Eq. (4) in chunks; see `losses.distillation_loss`.

  Args:
    student_hidden: [B, T, D] float, or [B, T, V_s] logits.
    student_embedding: [V_s, D] float, or None; existing logits go
      to the dense loss.
    teacher_hidden: [B, T, D_t] float, or [B, T, V_t] logits.
    teacher_embedding: [V_t, D_t] float, or None.
    targets: [B, T] int, the tokens x_t.
    weights: [B, T] float, 0 for padding; None counts every token once.
    distillation_weight: ω in [0, 1], may be traced.
    teacher_temperature: ρ > 0.
    top_k: k, or None for the full distributions of eq. (3).
    vocab_size: V, the tokens both models know; None for min(V_s, V_t).
    z_loss: factor of log²Z.
    chunk: positions in a chunk, at least 1.

  Returns:
    The sums, `distillation` included. Only `loss` has gradients, and only by
    the student's hidden states and embedding.

  Raises:
    ValueError: `top_k` is not in [1, V].
  """
  teacher = teacher_hidden, teacher_embedding
  static: dict[str, Any] = {
    'teacher_temperature': teacher_temperature,
    'top_k': top_k,
    'vocab_size': vocab_size,
    'z_loss': z_loss,
  }
  omega = jnp.asarray(
    distillation_weight, jnp.promote_types(student_hidden.dtype, jnp.float32)
  )
  if student_embedding is None:
    return losses.distillation_loss(
      student_hidden,
      None,
      *teacher,
      targets,
      weights,
      distillation_weight=omega,
      **static,
    )
  return _loss(
    loss_tiles.Options(chunk=chunk, **static),
    student_hidden,
    student_embedding,
    loss_passes.Constants(*teacher, targets, weights, omega),
  )


# --- One scan over the chunks -------------------------------------------------


_Gradients = tuple[Array, Array]  # By hidden states and embedding.


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _loss(
  options: loss_tiles.Options,
  hidden: Array,
  embedding: Array,
  constants: loss_passes.Constants,
) -> losses.LossSums:
  return _over_chunks(options, False, hidden, embedding, constants)[0]


def _forward(
  options: loss_tiles.Options,
  hidden: Array,
  embedding: Array,
  constants: loss_passes.Constants,
):
  sums, gradients = _over_chunks(options, True, hidden, embedding, constants)
  # The gradient's dtype is the parameter's.
  return sums, (gradients, jnp.zeros((0,), embedding.dtype))


def _backward(options: loss_tiles.Options, saved, cotangents: losses.LossSums):
  del options
  (d_hidden, d_embedding), like = saved
  factor = cotangents.loss
  return (
    (factor * d_hidden).astype(d_hidden.dtype),
    (factor * d_embedding).astype(like.dtype),
    None,
  )


_loss.defvjp(_forward, _backward)


def _over_chunks(
  options: loss_tiles.Options, with_gradients: bool, *arrays
) -> tuple[losses.LossSums, _Gradients | None]:
  """(the sums; ∂loss/∂hidden [B, T, D] and ∂loss/∂embedding [V_s, D])."""
  on = lambda name: functools.partial(_scan, options, with_gradients, name)
  return jax.lax.platform_dependent(
    *arrays, cpu=on('cpu'), tpu=on('tpu'), default=on('default')
  )


def _scan(
  options: loss_tiles.Options,
  with_gradients: bool,
  platform: str,
  hidden: Array,
  embedding: Array,
  constants: loss_passes.Constants,
) -> tuple[losses.LossSums, _Gradients | None]:
  """`_over_chunks` on one platform."""
  batch, length = constants.targets.shape
  count = max(1, -(-length // options.chunk))
  # As even as can be: padding is work.
  size = max(1, -(-length // count))
  dtype = jnp.promote_types(hidden.dtype, jnp.float32)
  rows = loss_passes.Rows(
    hidden,
    constants.teacher_hidden,
    constants.targets,
    losses.weights_like(constants.weights, constants.targets, dtype),
  )
  for x in jax.tree.leaves(rows):
    if x.shape[:2] != (batch, length):
      raise ValueError(
        f'An array of shape {x.shape} for targets of {(batch, length)}: give '
        'hidden states, targets and weights one batch and one length.'
      )
  rows = jax.tree.map(lambda x: loss_passes.resized(x, 1, size * count), rows)
  head = loss_passes.make_head(
    options, platform, hidden.dtype, embedding, constants
  )

  def add_chunk(carry, index):
    total, d_hidden, d_embedding = carry
    start = index * size
    cut = lambda x: jax.lax.dynamic_slice_in_dim(x, start, size, axis=1)
    part = jax.tree.map(lambda x: _by_batch(cut(x)), rows)
    sums, found, d_embedding = loss_passes.chunk(head, part, d_embedding)
    total = jax.tree.map(jnp.add, total, sums)
    if found is not None:
      found = sharding.constrain(found, ('batch', 'length', 'embed'))
      d_hidden = jax.lax.dynamic_update_slice_in_dim(
        d_hidden, found, start, axis=1
      )
    return (total, d_hidden, d_embedding), None

  d_hidden = d_embedding = None
  if with_gradients:
    d_hidden = jnp.zeros(rows.student_hidden.shape, hidden.dtype)
    d_embedding = sharding.constrain(
      jnp.zeros((_batch_parts(batch), *embedding.shape), dtype),
      loss_passes.PARTS,
    )
  first = jax.tree.map(lambda x: x[:, :size], rows)
  total = loss_passes.zeros_of(lambda: loss_passes.chunk(head, first, None)[0])
  (total, d_hidden, d_embedding), _ = jax.lax.scan(
    add_chunk, (total, d_hidden, d_embedding), jnp.arange(count)
  )
  if not with_gradients:
    return total, None
  return total, (d_hidden[:, :length], jnp.sum(d_embedding, axis=0))


# --- Parts of the batch -------------------------------------------------------


def _by_batch(x: Array) -> Array:
  """Splits an array's first axis as the logits are, and no other."""
  axes = sharding.spec(loss_passes.LOGITS)
  if axes is not None:
    axes = jax.sharding.PartitionSpec(axes[0])
  return sharding.constrain_to(x, axes)


def _batch_parts(batch: int) -> int:
  """Parts of the batch that sum their own gradient of the embedding."""
  parts = sharding.count(loss_passes.logits_axes()[0])
  return parts if batch % parts == 0 else 1
