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

The formulas that `loss_passes` adds up over tiles and `chunked_losses` over
chunks of positions.
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


class Tile(NamedTuple):
  """A chunk's logits for the tokens of one tile.

  Attributes:
    options: of the loss.
    omega: ω, []; None without a teacher.
    logits: [B, t, size] each: the student's u and, with a teacher, its t.
    highest: [B, t] each: their maxima over all of V; with a top k also the
      student's over the tokens matched.
    tokens: [size] int, the tokens of the tile.
    is_target: [B, t, size] bool, onehot(x_t).
    where: [B, t, size] bool, the tokens that eq. (3) or eq. (12) matches; None
      for all of them.
  """

  options: Options
  omega: Array | None
  logits: Sequence[Array]
  highest: Sequence[Array]
  tokens: Array
  is_target: Array
  where: Array | None

  def tempered(self) -> tuple[Array, Array]:
    """(log e, e) of `Sums`, e being 0 where nothing is matched."""
    log = self.logits[1] - self.highest[1][..., None]
    log = self.options.teacher_temperature * log
    e = jnp.exp(log)
    return log, e if self.where is None else jnp.where(self.where, e, 0.0)

  def exp_student(self, highest: int = 0) -> Array:
    """exp(u - one of the maxima)."""
    return jnp.exp(self.logits[0] - self.highest[highest][..., None])


def vocab_sums(tile: Tile) -> Sums:
  """The tile's part of the sums over V."""
  total = functools.partial(jnp.sum, axis=-1)
  u, where = tile.logits[0], tile.where
  found = dict.fromkeys(Sums._fields)
  found.update(
    z=total(tile.exp_student()), of_target=total(u, where=tile.is_target)
  )
  if len(tile.logits) > 1:
    t = tile.logits[1]
    log, e = tile.tempered()
    found.update(
      teacher_z=total(jnp.exp(t - tile.highest[1][..., None])),
      teacher_of_target=total(t, where=tile.is_target),
      tempered_z=total(e),
      tempered_log=total(e * log, where=where),
      student=total(e * u),
    )
    if tile.options.top_k is not None:
      # By a maximum of their own: all may be far below the student's choice.
      found.update(restricted_z=total(tile.exp_student(2), where=where))
  return Sums(**found)


def choices(tile: Tile, none: int) -> list[Array]:
  """[B, t] per model: the lowest token with the highest logit, or `none`."""
  # Not jnp.argmax, whose pairs XLA gathers where V is sharded.
  return [
    jnp.min(
      jnp.where(x == highest[..., None], tile.tokens.astype(x.dtype), none),
      axis=-1,
    )
    for x, highest in zip(tile.logits, tile.highest, strict=False)
  ]


def d_logits(tile: Tile, log_z: Array, sums: Sums, weights: Array) -> Array:
  """∂loss/∂u, [B, t, size]: of eq. (4), or with no teacher of eq. (1).

  w ((1 + 2 z log Z) P_θ - (1 - ω) onehot(x_t) - ω P_ζ^ρ), or with eq. (12)

  w ((1 - ω + 2 z log Z) P_θ + ω P_θ|top k - (1 - ω) onehot(x_t) - ω P_ζ^ρ,k)

  Args:
    tile: z is its `options.z_loss`.
    log_z: log Z of the student, [B, t].
    sums: over all of V.
    weights: w, [B, t].
  """
  of_student = 1 + 2 * tile.options.z_loss * log_z
  # Per token first: a product less for each token of the vocabulary.
  times = lambda x, y: (weights * x)[..., None] * y
  exp_u = tile.exp_student()
  if tile.omega is None:
    return times(of_student / sums.z, exp_u) - times(1, tile.is_target)
  if tile.options.top_k is not None:
    of_student -= tile.omega
  found = times(of_student / sums.z, exp_u)
  found -= times(1 - tile.omega, tile.is_target)
  if tile.options.top_k is not None:
    restricted = times(tile.omega / sums.restricted_z, tile.exp_student(2))
    found += jnp.where(tile.where, restricted, 0.0)
  return found - times(tile.omega / sums.tempered_z, tile.tempered()[1])


def loss_sums(
  options: Options,
  omega: Array | None,
  highest: Sequence[Array],
  log_z: Array,
  sums: Sums,
  chosen: Sequence[Array],
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
    chosen: the tokens of the maxima, [B, t] each.
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
      # Without a highest logit, which is NaN, no token is chosen.
      agreement=over_tokens((chosen[0] == chosen[1]) & ~jnp.isnan(highest[0])),
    )
  return losses.LossSums(
    loss=over_tokens(loss),
    weight=jnp.sum(weights),
    cross_entropy=over_tokens(cross_entropy),
    z_loss=over_tokens(z),
    correct=over_tokens(chosen[0] == targets),
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
