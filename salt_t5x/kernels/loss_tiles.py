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

"""Sums and gradients of the losses over a tile of the vocabulary.

What `chunked_losses` adds up. `logits` are the student's u and, if there is a
teacher, the teacher's t: [B, t, size]; `highest` are their maxima over all of
V and, with a top k, the student's over the tokens matched: [B, t]. `is_target`
and `where`, the tokens that eq. (3) or eq. (12) matches (None for all of them),
are [B, t, size] bool.
"""

from collections.abc import Sequence
import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from salt_t5x import losses
from salt_t5x.kernels import sharding

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class Options:
  """What is static; see `losses.distillation_loss`."""

  chunk: int
  z_loss: float
  teacher_temperature: float = 1.0
  top_k: int | None = None
  vocab_size: int | None = None

  def __post_init__(self):
    if self.chunk < 1:
      raise ValueError(f'chunk = {self.chunk}: it takes at least 1 position.')


class Sums(NamedTuple):
  """Sums over V for each token, [B, t].

  With e = exp(ρ (t - max t)) for the teacher's logits t, over the tokens that
  eq. (3) or eq. (12) matches:
  """

  z: Array  # Σ exp(u - max u)
  of_target: Array  # u(x_t)
  teacher_z: Array | None  # Σ exp(t - max t)
  teacher_of_target: Array | None  # t(x_t)
  tempered_z: Array | None  # Σ e
  tempered_log: Array | None  # Σ e log e
  student: Array | None  # Σ e u
  restricted_z: Array | None  # Σ exp(u - max u), both over these; eq. (12)


def _tempered(
  options: Options, teacher: Array, highest: Array, where: Array | None
) -> tuple[Array, Array]:
  """(log e, e) of `Sums`, e being 0 where nothing is matched."""
  log = options.teacher_temperature * (teacher - highest[..., None])
  e = jnp.exp(log)
  return log, e if where is None else jnp.where(where, e, 0.0)


def vocab_sums(
  options: Options,
  logits: Sequence[Array],
  highest: Sequence[Array],
  is_target: Array,
  where: Array | None,
) -> Sums:
  """The tile's part of the sums over V."""
  total = functools.partial(jnp.sum, axis=-1)
  exp_u = jnp.exp(logits[0] - highest[0][..., None])
  found = dict.fromkeys(Sums._fields)
  found.update(z=total(exp_u), of_target=total(logits[0], where=is_target))
  if len(logits) > 1:
    u, t = logits
    log, e = _tempered(options, t, highest[1], where)
    found.update(
      teacher_z=total(jnp.exp(t - highest[1][..., None])),
      teacher_of_target=total(t, where=is_target),
      tempered_z=total(e),
      tempered_log=total(e * log, where=where),
      student=total(e * u),
    )
    if options.top_k is not None:
      # By a maximum of their own: all may be far below the student's choice.
      exp_u = jnp.exp(u - highest[2][..., None])
      found.update(restricted_z=total(exp_u, where=where))
  return Sums(**found)


def first_highest(
  logits: Array, highest: Array, tokens: Array, none: int
) -> Array:
  """[B, t]: the lowest token with the highest logit, or `none`."""
  # Not jnp.argmax, whose pairs XLA gathers where V is sharded.
  is_highest = logits == highest[..., None]
  return jnp.min(
    jnp.where(is_highest, tokens.astype(logits.dtype), none), axis=-1
  )


def d_logits(
  options: Options,
  omega: Array | None,
  logits: Sequence[Array],
  highest: Sequence[Array],
  log_z: Array,
  sums: Sums,
  weights: Array,
  is_target: Array,
  where: Array | None,
) -> Array:
  """∂loss/∂u, [B, t, size]: of eq. (4), or with no teacher of eq. (1).

  w ((1 + 2 z log Z) P_θ - (1 - ω) onehot(x_t) - ω P_ζ^ρ), or with eq. (12)

  w ((1 - ω + 2 z log Z) P_θ + ω P_θ|top k - (1 - ω) onehot(x_t) - ω P_ζ^ρ,k)

  Args:
    options: z is `z_loss`.
    omega: ω, [].
    logits: of the tile.
    highest: maxima over V.
    log_z: log Z of the student, [B, t].
    sums: over all of V.
    weights: w, [B, t].
    is_target: onehot(x_t).
    where: the tokens matched.
  """
  of_student = 1 + 2 * options.z_loss * log_z
  # Per token first: a product less for each token of the vocabulary.
  times = lambda x, y: (weights * x)[..., None] * y
  exp_u = jnp.exp(logits[0] - highest[0][..., None])
  if len(logits) == 1:
    return times(of_student / sums.z, exp_u) - times(1, is_target)
  if options.top_k is not None:
    of_student -= omega
  found = times(of_student / sums.z, exp_u) - times(1 - omega, is_target)
  if options.top_k is not None:
    exp_u = jnp.exp(logits[0] - highest[2][..., None])
    restricted = times(omega / sums.restricted_z, exp_u)
    found += jnp.where(where, restricted, 0.0)
  _, e = _tempered(options, logits[1], highest[1], where)
  return found - times(omega / sums.tempered_z, e)


def loss_sums(
  options: Options,
  omega: Array | None,
  highest: Sequence[Array],
  log_z: Array,
  sums: Sums,
  choices: Sequence[Array],
  targets: Array,
  weights: Array,
) -> losses.LossSums:
  """From sums over V to sums over tokens.

  Args:
    options: of the loss.
    omega: ω, [].
    highest: maxima over V.
    log_z: log Z of the student, [B, t].
    sums: over all of V.
    choices: the tokens of the maxima, [B, t] each.
    targets: [B, t] int.
    weights: [B, t].
  """
  over_tokens = lambda x: jnp.sum(weights * x)
  cross_entropy = log_z - sums.of_target  # Eq. (1).
  z = options.z_loss * jnp.square(log_z)
  loss, distillation = cross_entropy + z, None
  if sums.tempered_z is not None:
    log_z_matched = log_z
    if sums.restricted_z is not None:
      log_z_matched = highest[2] + jnp.log(sums.restricted_z)
    # Eq. (3), or eq. (12) with a top k; then eq. (4).
    matched = log_z_matched - sums.student / sums.tempered_z
    loss = (1 - omega) * cross_entropy + omega * matched + z
    teacher_log_z = highest[1] + jnp.log(sums.teacher_z)
    entropy = jnp.log(sums.tempered_z) - sums.tempered_log / sums.tempered_z
    distillation = losses.DistillationSums(
      cross_entropy=over_tokens(matched),
      teacher_cross_entropy=over_tokens(teacher_log_z - sums.teacher_of_target),
      teacher_entropy=over_tokens(entropy),
      agreement=over_tokens(choices[0] == choices[1]),
    )
  return losses.LossSums(
    loss=over_tokens(loss),
    weight=jnp.sum(weights),
    cross_entropy=over_tokens(cross_entropy),
    z_loss=over_tokens(z),
    correct=over_tokens(choices[0] == targets),
    distillation=distillation,
  )


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
