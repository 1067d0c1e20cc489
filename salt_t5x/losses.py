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

"""The paper's losses, eq. (1) to (4) and (12) to (13), as pure functions.

All of them take the last hidden states and the output embedding of a model
rather than its logits, so that faster implementations need not hold a
[B, T, V] array; a model that offers only logits passes them as `hidden` with
`embedding=None`. This module is the dense reference, written to be compared
with the paper line by line.

Every result is a sum over tokens, weighted by `weights`, and never a mean: a
sum does not change with microbatches, packing, padding or the device count.
Dividing by the summed weights gives the token average of eq. (1) to (3).

Notation: B batch, T sequence length, D model width, V vocabulary (V_s the
student's padded size, V_t the teacher's), ω `distillation_weight`, ρ
`teacher_temperature`, k `top_k`.
"""

import flax.struct
import jax
import jax.numpy as jnp

Array = jax.Array


@flax.struct.dataclass
class DistillationSums:
  """The teacher's side of the loss: weighted sums over tokens, float32 [].

  Attributes:
    cross_entropy: CE(P_ζ^ρ, P_θ) of eq. (3), or of eq. (12) with `top_k`.
    teacher_cross_entropy: CE(onehot, P_ζ), the teacher's own next-token loss
      (ρ = 1).
    teacher_entropy: entropy of the distillation target P_ζ^ρ, the least value
      `cross_entropy` can take.
    agreement: tokens on which both models' most likely token is the same.
  """

  cross_entropy: Array
  teacher_cross_entropy: Array
  teacher_entropy: Array
  agreement: Array


@flax.struct.dataclass
class LossSums:
  """A loss and its parts: weighted sums over tokens, float32 [].

  Attributes:
    loss: what is minimised, z-loss included.
    weight: the sum of the weights, the denominator of every token average.
    cross_entropy: the next-token loss of eq. (1), without z-loss.
    z_loss: the z-loss contained in `loss`.
    correct: tokens whose most likely prediction is the target.
    distillation: the teacher's side, or None for the plain loss.
  """

  loss: Array
  weight: Array
  cross_entropy: Array
  z_loss: Array
  correct: Array
  distillation: DistillationSums | None = None


def logits(hidden: Array, embedding: Array | None) -> Array:
  """Applies the output embedding, accumulating in at least float32.

  Args:
    hidden: [B, T, D] hidden states, or [B, T, V] logits if there is no
      embedding.
    embedding: [V, D], cast to the hidden states' dtype; or None.

  Returns:
    [B, T, V] logits, float32 (float64 for float64 hidden states).
  """
  dtype = jnp.promote_types(hidden.dtype, jnp.float32)
  if embedding is None:
    return hidden.astype(dtype)
  return jnp.einsum(
    'btd,vd->btv',
    hidden,
    embedding.astype(hidden.dtype),
    preferred_element_type=dtype,
  )


def _at(values: Array, indices: Array) -> Array:
  """Picks values[b, t, indices[b, t]]: [B, T, V], int [B, T] -> [B, T]."""
  return jnp.take_along_axis(values, indices[..., None], axis=-1)[..., 0]


def weights_like(weights: Array | None, targets: Array, dtype) -> Array:
  """[B, T] weights in `dtype`; ones if there are none."""
  if weights is None:
    return jnp.ones(targets.shape, dtype)
  return jnp.broadcast_to(weights.astype(dtype), targets.shape)


def check_top_k(top_k: int, tokens: int) -> None:
  """Raises ValueError if k is not in [1, the tokens both models know]."""
  if not 1 <= top_k <= tokens:
    raise ValueError(
      f'top_k = {top_k} is not between 1 and the {tokens} tokens that student '
      'and teacher share.'
    )


def without_negative_zero(logits: Array) -> Array:
  """The same numbers. `jax.lax.top_k` puts -0 below 0, where they tie."""
  return jnp.where(logits == 0, 0.0, logits)


def _choice(logits: Array) -> Array:
  """The lowest token with the highest logit; -1 where a logit is NaN."""
  is_nan = jnp.isnan(jnp.max(logits, axis=-1))
  return jnp.where(is_nan, -1, jnp.argmax(logits, axis=-1))


def next_token_loss(
  student_hidden: Array,
  student_embedding: Array | None,
  targets: Array,
  weights: Array | None = None,
  *,
  z_loss: float = 0.0,
) -> LossSums:
  """Next-token prediction, eq. (1): Σ_t CE(onehot(x_t), P_θ(·|x_<t)).

  Args:
    student_hidden: [B, T, D] float, or [B, T, V_s] logits.
    student_embedding: [V_s, D] float, or None.
    targets: [B, T] int, the tokens x_t.
    weights: [B, T] float, 0 for padding; None counts every token once.
    z_loss: factor of log²Z, where Z is the softmax's denominator. It keeps the
      logits from drifting; as in t5x it is part of the loss only.

  Returns:
    The sums; `distillation` is None.
  """
  u = logits(student_hidden, student_embedding)
  w = weights_like(weights, targets, u.dtype)
  log_z = jax.nn.logsumexp(u, axis=-1)
  cross_entropy = jnp.sum(w * (log_z - _at(u, targets)))
  z = z_loss * jnp.sum(w * jnp.square(log_z))
  return LossSums(
    loss=cross_entropy + z,
    weight=jnp.sum(w),
    cross_entropy=cross_entropy,
    z_loss=z,
    correct=jnp.sum(w * (_choice(u) == targets)),
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
) -> LossSums:
  """SALT's first-stage loss, eq. (4): (1 - ω) CE(onehot) + ω CE(P_ζ^ρ).

  Cross-entropy is linear in its target, so eq. (4) is one cross-entropy
  against the mixed target (1 - ω) onehot + ω P_ζ^ρ: it takes one log-sum-exp
  of the student, and its gradient by the logits is P_θ minus that target.

  ρ is an exponent on the teacher's probabilities, so it multiplies the
  teacher's logits (ρ = 0.25 flattens). The student is not tempered, and there
  is no factor for the temperature.

  With `top_k` the second term is eq. (12): both distributions are restricted
  to the teacher's k most likely tokens and renormalised (eq. 13), which takes
  a second log-sum-exp of the student; ρ then applies to the restricted
  teacher. Ties at the k-th place go to the lower token id.

  Padding rows: an embedding may have more rows than the vocabulary has tokens,
  and V_t and V_s may differ. No row past `vocab_size` takes part in the target:
  such rows have little mass, but there may be many, and ρ < 1 would raise them
  above the tokens.

  Args:
    student_hidden: [B, T, D] float, or [B, T, V_s] logits.
    student_embedding: [V_s, D] float, or None.
    teacher_hidden: [B, T, D_t] float, or [B, T, V_t] logits. No gradient flows
      into it.
    teacher_embedding: [V_t, D_t] float, or None.
    targets: [B, T] int, the tokens x_t.
    weights: [B, T] float, 0 for padding; None counts every token once.
    distillation_weight: ω in [0, 1], may be traced.
    teacher_temperature: ρ > 0.
    top_k: k, or None for the full distributions of eq. (3).
    vocab_size: V, the tokens both models know; None for min(V_s, V_t).
    z_loss: see `next_token_loss`.

  Returns:
    The sums, `distillation` included.

  Raises:
    ValueError: `top_k` is not in [1, V].
  """
  u = logits(student_hidden, student_embedding)
  teacher = jax.lax.stop_gradient(logits(teacher_hidden, teacher_embedding))
  rows = min(u.shape[-1], teacher.shape[-1])
  if vocab_size is not None:
    rows = min(rows, vocab_size)
  teacher = teacher[..., :rows].astype(u.dtype)
  w = weights_like(weights, targets, u.dtype)

  log_z = jax.nn.logsumexp(u, axis=-1)
  cross_entropy = log_z - _at(u, targets)

  if top_k is None:
    # Eq. (3): CE(P_ζ^ρ, P_θ) = log Z_θ - Σ_v P_ζ^ρ(v) u(v).
    u_matched, tempered = u[..., :rows], teacher_temperature * teacher
    log_z_matched = log_z
  else:
    check_top_k(top_k, rows)
    # Eq. (13): both sides restricted to the teacher's top k.
    top, top_tokens = jax.lax.top_k(without_negative_zero(teacher), top_k)
    u_matched = jnp.take_along_axis(u, top_tokens, axis=-1)
    tempered = teacher_temperature * top
    log_z_matched = jax.nn.logsumexp(u_matched, axis=-1)
  target = jax.nn.softmax(tempered, axis=-1)
  distillation = log_z_matched - jnp.sum(target * u_matched, axis=-1)

  omega = jnp.asarray(distillation_weight, u.dtype)
  z = z_loss * jnp.square(log_z)
  loss = (1 - omega) * cross_entropy + omega * distillation + z

  entropy = jax.nn.logsumexp(tempered, axis=-1) - jnp.sum(
    target * tempered, axis=-1
  )
  teacher_cross_entropy = jax.nn.logsumexp(teacher, axis=-1) - _at(
    teacher, targets
  )
  student_choice = _choice(u)
  agrees = (student_choice >= 0) & (student_choice == _choice(teacher))
  return LossSums(
    loss=jnp.sum(w * loss),
    weight=jnp.sum(w),
    cross_entropy=jnp.sum(w * cross_entropy),
    z_loss=jnp.sum(w * z),
    correct=jnp.sum(w * (student_choice == targets)),
    distillation=DistillationSums(
      cross_entropy=jnp.sum(w * distillation),
      teacher_cross_entropy=jnp.sum(w * teacher_cross_entropy),
      teacher_entropy=jnp.sum(w * entropy),
      agreement=jnp.sum(w * agrees),
    ),
  )
