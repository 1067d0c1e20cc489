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

Both functions take what their namesakes take, and return the same sums. They
go over the positions in chunks; a chunk's logits live only while it is worked
on. The gradients are formed in the same pass, since with a chunk's logits at
hand they cost two matrix products and no recomputation:

  ∂loss/∂u = w ((1 + 2 z log Z) P_θ - (1 - ω) onehot(x_t) - ω P_ζ^ρ)

for the student's logits u, z-loss factor z and weight w (eq. 4; with ω = 0
eq. 1). Of eq. (12)'s top k only the least is looked up: the k-th logit of the
teacher tells which tokens are in it, so that nothing is gathered or scattered
over V, which may be sharded.

Only `loss` has gradients, by the student's hidden states and embedding.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from salt_t5x import losses

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class _Options:
  """What is static; see `losses.distillation_loss`."""

  chunk: int
  z_loss: float
  teacher_temperature: float = 1.0
  top_k: int | None = None
  vocab_size: int | None = None


def next_token_loss(
  student_hidden: Array,
  student_embedding: Array,
  targets: Array,
  weights: Array | None = None,
  *,
  z_loss: float = 0.0,
  chunk: int,
) -> losses.LossSums:
  """Eq. (1) in chunks; see `losses.next_token_loss`.

  Args:
    student_hidden: [B, T, D] float.
    student_embedding: [V_s, D] float.
    targets: [B, T] int, the tokens x_t.
    weights: [B, T] float, 0 for padding; None counts every token once.
    z_loss: factor of log²Z.
    chunk: positions in a chunk, at least 1.

  Returns:
    The sums; `distillation` is None.
  """
  return _loss(
    _Options(chunk=chunk, z_loss=z_loss),
    student_hidden,
    student_embedding,
    None,
    targets,
    weights,
    None,
  )


def distillation_loss(
  student_hidden: Array,
  student_embedding: Array,
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
    student_hidden: [B, T, D] float.
    student_embedding: [V_s, D] float.
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
    The sums, `distillation` included.

  Raises:
    ValueError: `top_k` is not in [1, V].
  """
  return _loss(
    _Options(
      chunk=chunk,
      z_loss=z_loss,
      teacher_temperature=teacher_temperature,
      top_k=top_k,
      vocab_size=vocab_size,
    ),
    student_hidden,
    student_embedding,
    (teacher_hidden, teacher_embedding),
    targets,
    weights,
    jnp.asarray(distillation_weight, jnp.float32),
  )


# --- One pass over the chunks -------------------------------------------------


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _loss(
  options, hidden, embedding, teacher, targets, weights, omega
) -> losses.LossSums:
  return _over_chunks(
    options, hidden, embedding, teacher, targets, weights, omega, False
  )[0]


def _forward(options, hidden, embedding, teacher, targets, weights, omega):
  sums, gradients = _over_chunks(
    options, hidden, embedding, teacher, targets, weights, omega, True
  )
  # The gradient's dtype is the parameter's.
  return sums, (gradients, jnp.zeros((0,), embedding.dtype))


def _backward(options, saved, cotangents: losses.LossSums):
  del options
  (d_hidden, d_embedding), like = saved
  factor = cotangents.loss
  return (
    (factor * d_hidden).astype(d_hidden.dtype),
    (factor * d_embedding).astype(like.dtype),
    *(None,) * 4,
  )


_loss.defvjp(_forward, _backward)


def _over_chunks(
  options: _Options,
  hidden: Array,
  embedding: Array,
  teacher: tuple[Array, Array | None] | None,
  targets: Array,
  weights: Array | None,
  omega: Array | None,
  with_gradients: bool,
) -> tuple[losses.LossSums, tuple[Array, Array] | None]:
  """(the sums; ∂loss/∂hidden [B, T, D] and ∂loss/∂embedding [V_s, D])."""
  length = targets.shape[1]
  count = -(-length // options.chunk)
  # As even as can be: padding is work.
  size = -(-length // count)
  dtype = jnp.promote_types(hidden.dtype, jnp.float32)
  weights = losses.weights_like(weights, targets, dtype)
  teacher_hidden, teacher_embedding = teacher or (None, None)
  rows = (hidden, teacher_hidden, targets, weights)
  rows = jax.tree.map(lambda x: _pad(x, size * count), rows)
  # Once, not in every chunk.
  embedding = embedding.astype(hidden.dtype)
  if teacher_embedding is not None:
    teacher_embedding = teacher_embedding.astype(teacher_hidden.dtype)

  def step(carry, index):
    part = jax.tree.map(
      lambda x: jax.lax.dynamic_slice_in_dim(x, index * size, size, axis=1),
      rows,
    )
    sums, d_logits = _chunk(
      options, part, embedding, teacher_embedding, omega, with_gradients
    )
    total, gradients = carry
    total = jax.tree.map(jnp.add, total, sums)
    if with_gradients:
      d_hidden, d_embedding = gradients
      d_logits = d_logits.astype(hidden.dtype)
      found = jnp.einsum(
        'btv,vd->btd', d_logits, embedding, preferred_element_type=dtype
      )
      d_hidden = jax.lax.dynamic_update_slice_in_dim(
        d_hidden, found.astype(hidden.dtype), index * size, axis=1
      )
      d_embedding += jnp.einsum(
        'btv,btd->vd', d_logits, part[0], preferred_element_type=dtype
      )
      gradients = d_hidden, d_embedding
    return (total, gradients), None

  first = jax.eval_shape(
    lambda part: _chunk(
      options, part, embedding, teacher_embedding, omega, False
    )[0],
    jax.tree.map(lambda x: x[:, :size], rows),
  )
  zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), first)
  gradients = None
  if with_gradients:
    gradients = jnp.zeros_like(rows[0]), jnp.zeros(embedding.shape, dtype)
  (total, gradients), _ = jax.lax.scan(
    step, (zeros, gradients), jnp.arange(count)
  )
  if with_gradients:
    gradients = gradients[0][:, :length], gradients[1]
  return total, gradients


def _pad(x: Array, length: int) -> Array:
  return jnp.pad(
    x, [(0, length - n if i == 1 else 0) for i, n in enumerate(x.shape)]
  )


def _chunk(
  options: _Options,
  part,
  embedding: Array,
  teacher_embedding: Array | None,
  omega: Array | None,
  with_gradients: bool,
) -> tuple[losses.LossSums, Array | None]:
  """(sums over a chunk's tokens, ∂loss/∂u [B, chunk, V_s])."""
  hidden, teacher_hidden, targets, weights = part
  u = losses.logits(hidden, embedding)
  vocabulary = jnp.arange(u.shape[-1])
  is_target = vocabulary == targets[..., None]
  log_z = jax.nn.logsumexp(u, axis=-1)
  cross_entropy = log_z - _sum(u, is_target)
  choice = jnp.argmax(u, axis=-1)
  z = options.z_loss * jnp.square(log_z)

  loss, distillation = cross_entropy + z, None
  if teacher_hidden is not None:
    teacher = losses.logits(teacher_hidden, teacher_embedding).astype(u.dtype)
    tokens = min(u.shape[-1], teacher.shape[-1])
    if options.vocab_size is not None:
      tokens = min(tokens, options.vocab_size)
    teacher = _with_rows(teacher, u.shape[-1])
    matched = vocabulary < tokens
    teacher = jnp.where(matched, teacher, -jnp.inf)
    log_z_matched = log_z
    if options.top_k is not None:
      losses.check_top_k(options.top_k, tokens)
      top, top_tokens = jax.lax.top_k(teacher, options.top_k)
      least, last = top[..., -1:], top_tokens[..., -1:]
      # Of equal logits the lower tokens come first.
      matched = (teacher > least) | ((teacher == least) & (vocabulary <= last))
      log_z_matched = jax.nn.logsumexp(u, axis=-1, where=matched)
    tempered = options.teacher_temperature * teacher
    log_z_tempered = jax.nn.logsumexp(tempered, axis=-1, where=matched)
    target = jnp.where(
      matched, jnp.exp(tempered - log_z_tempered[..., None]), 0.0
    )
    matched_loss = log_z_matched - jnp.sum(target * u, axis=-1)
    loss = (1 - omega) * cross_entropy + omega * matched_loss + z
    entropy = log_z_tempered - _sum(target * tempered, matched)
    teacher_loss = jax.nn.logsumexp(teacher, axis=-1) - _sum(teacher, is_target)
    distillation = losses.DistillationSums(
      cross_entropy=jnp.sum(weights * matched_loss),
      teacher_cross_entropy=jnp.sum(weights * teacher_loss),
      teacher_entropy=jnp.sum(weights * entropy),
      agreement=jnp.sum(weights * (choice == jnp.argmax(teacher, axis=-1))),
    )
  sums = losses.LossSums(
    loss=jnp.sum(weights * loss),
    weight=jnp.sum(weights),
    cross_entropy=jnp.sum(weights * cross_entropy),
    z_loss=jnp.sum(weights * z),
    correct=jnp.sum(weights * (choice == targets)),
    distillation=distillation,
  )
  if not with_gradients:
    return sums, None

  of_student = 1 + 2 * options.z_loss * log_z
  by_logits = jnp.exp(u - log_z[..., None])
  if teacher_hidden is None:
    by_logits = of_student[..., None] * by_logits - is_target
  else:
    if options.top_k is not None:
      of_student -= omega
    by_logits = of_student[..., None] * by_logits
    by_logits -= (1 - omega) * is_target + omega * target
    if options.top_k is not None:
      restricted = jnp.exp(u - log_z_matched[..., None])
      by_logits += omega * jnp.where(matched, restricted, 0.0)
  return sums, weights[..., None] * by_logits


def _sum(values: Array, where: Array) -> Array:
  return jnp.sum(jnp.where(where, values, 0.0), axis=-1)


def _with_rows(logits: Array, rows: int) -> Array:
  """[B, T, any number] to [B, T, rows]."""
  missing = max(rows - logits.shape[-1], 0)
  return jnp.pad(logits, ((0, 0), (0, 0), (0, missing)))[..., :rows]
