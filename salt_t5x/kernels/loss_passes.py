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

"""One chunk of the losses, in three passes over V.

1. `_logits_and_maxima`: both models' logits; with a top k also the teacher's
   k-th logit, which decides what eq. (12) matches.
2. `_vocab_sums`: the sums over V that give eq. (1), (3) and (12), and so (4).
3. `_gradients`: ∂loss/∂logits, multiplied by both factors of the logits.

The formulas are in `loss_tiles.py`. On a CPU each pass is a loop over tiles of
V, so that nothing but the logits has V columns.
"""

from collections.abc import Callable
import dataclasses
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp

from salt_t5x import losses
from salt_t5x.kernels import loss_tiles, sharding

Array = jax.Array
_Tree = TypeVar('_Tree')

# Logical axes of the logits, and of the parts of the embedding's gradient.
LOGITS = ('batch', None, 'vocab')
PARTS = ('batch', 'vocab', None)
# Rows of the embedding in one product on a CPU.
_TILE = 16_384


class Constants(NamedTuple):
  """The arguments without gradients; see `losses.distillation_loss`."""

  teacher_hidden: Array | None
  teacher_embedding: Array | None
  targets: Array
  weights: Array | None
  omega: Array | None


class Rows(NamedTuple):
  """What has positions: all of them, or those of one chunk of length t."""

  student_hidden: Array  # [B, t, D]
  teacher_hidden: Array | None  # [B, t, D_t], or [B, t, V_t] logits
  targets: Array  # [B, t] int
  weights: Array  # [B, t]


@dataclasses.dataclass(frozen=True)
class _Tiles:
  """V in equal tiles, over which a loop runs; one tile is no loop."""

  vocab_size: int
  count: int

  @property
  def size(self) -> int:
    return self.vocab_size // self.count

  def fold(self, add, first):
    """`add(i, carry)` for all tiles i."""
    if self.count == 1:
      return add(0, first)
    return jax.lax.fori_loop(0, self.count, add, first)

  def cut(self, i, x: Array, axis: int = -1) -> Array:
    """Tile i of an array with V on an axis."""
    return x if self.count == 1 else _cut(x, i * self.size, self.size, axis)

  def put(self, i, x: Array, value: Array, axis: int = -1) -> Array:
    """The array with another tile i."""
    if self.count == 1:
      return value
    return jax.lax.dynamic_update_slice_in_dim(x, value, i * self.size, axis)

  def tokens(self, i) -> Array:
    """[size] int: the tokens of tile i."""
    return i * self.size + jnp.arange(self.size)


@dataclasses.dataclass(frozen=True)
class Head:
  """What maps any chunk's hidden states to its loss.

  Attributes:
    options: of the loss.
    platform: 'cpu', 'tpu' or 'default'.
    tiles: of V_s.
    known: V, the tokens that both models know.
    student: [V_s, D].
    teacher: [V_s, D_t], its rows cut or padded to the student's; or None.
    omega: ω, []; None without a teacher.
  """

  options: loss_tiles.Options
  platform: str
  tiles: _Tiles
  known: int
  student: Array
  teacher: Array | None
  omega: Array | None

  def product(self, dtype, axes: str, a: Array, b: Array) -> Array:
    """A matrix product with sums in `dtype`."""
    if self.platform == 'cpu':
      # The same products, but XLA's CPU backend is faster at float32.
      a, b = a.astype(dtype), b.astype(dtype)
    return jnp.einsum(axes, a, b, preferred_element_type=dtype)


def make_head(
  options: loss_tiles.Options,
  platform: str,
  dtype,
  embedding: Array,
  constants: Constants,
) -> Head:
  """Casts and gathers the embeddings once, rather than in every chunk."""
  vocab_size = embedding.shape[0]
  student = sharding.constrain(embedding.astype(dtype), ('vocab', None))
  known, hidden, teacher = vocab_size, *constants[:2]
  if hidden is not None:
    rows = hidden.shape[-1] if teacher is None else teacher.shape[0]
    known = min(known, rows, options.vocab_size or rows)
    if options.top_k is not None:
      losses.check_top_k(options.top_k, known)
    if teacher is not None:
      teacher = resized(teacher, 0, vocab_size).astype(hidden.dtype)
      teacher = sharding.constrain(teacher, ('vocab', None))
  tiles = _Tiles(
    vocab_size, _tile_count(vocab_size) if platform == 'cpu' else 1
  )
  return Head(
    options, platform, tiles, known, student, teacher, constants.omega
  )


def chunk(
  head: Head, rows: Rows, d_embedding: Array | None
) -> tuple[losses.LossSums, Array | None, Array | None]:
  """Runs the three passes over V for the positions of one chunk.

  Args:
    head: what all chunks share.
    rows: the chunk's positions.
    d_embedding: [parts, V_s, D], the gradients of earlier chunks; None for no
      gradients.

  Returns:
    (sums over the chunk's tokens; ∂loss/∂hidden [B, t, D] or None;
    `d_embedding` with the chunk's own added).
  """
  logits = _logits_and_maxima(head, rows)
  sums, chosen = _vocab_sums(head, rows, logits)
  log_z = logits.highest[0] + jnp.log(sums.z)
  result = loss_tiles.loss_sums(
    head.options,
    head.omega,
    logits.highest,
    log_z,
    sums,
    chosen,
    rows.targets,
    rows.weights,
  )
  d_hidden = None
  if d_embedding is not None:
    d_hidden, d_embedding = _gradients(
      head, rows, logits, log_z, sums, d_embedding
    )
  return result, d_hidden, d_embedding


class _Logits(NamedTuple):
  """A chunk's logits and their maxima over V.

  Attributes:
    values: [B, t, V_s] each: the student's u and, if there is a teacher, its t,
      -inf for tokens that only the student knows.
    highest: [B, t] each: their maxima; with a top k also the student's over the
      tokens matched.
    kth: with a top k, the teacher's k-th largest logit and its token,
      [B, t, 1] each.
  """

  values: list[Array]
  highest: list[Array]
  kth: tuple[Array, Array] | None = None


def _tile(
  head: Head, rows: Rows, logits: _Logits, i, values: list[Array] | None = None
) -> loss_tiles.Tile:
  """Tile i of a chunk, with the tokens whose target in eq. (3, 12) is not 0."""
  tokens = head.tiles.tokens(i)
  if values is None:
    values = [head.tiles.cut(i, x) for x in logits.values]
  where = None
  if logits.kth is not None:
    least, last = logits.kth
    # Ties go to the lower token.
    where = (values[1] > least) | ((values[1] == least) & (tokens <= last))
  elif head.known < head.tiles.vocab_size:
    where = tokens < head.known
  return loss_tiles.Tile(
    head.options,
    head.omega,
    values,
    logits.highest,
    tokens,
    tokens == rows.targets[..., None],
    where,
  )


def _logits_and_maxima(head: Head, rows: Rows) -> _Logits:
  """Pass 1: u = h E^T and t of the teacher, and maxima for stable exponents."""
  tiles, dtype, shape = head.tiles, rows.weights.dtype, rows.targets.shape
  vocab_size = tiles.vocab_size

  def tile(i, hidden: Array, embedding: Array | None) -> Array:
    if embedding is None:
      found = tiles.cut(i, resized(hidden, -1, vocab_size)).astype(dtype)
    else:
      rows = tiles.cut(i, embedding, 0)
      found = head.product(dtype, 'btd,vd->btv', hidden, rows)
    return sharding.constrain(found, LOGITS)

  def add(i, carry):
    values, highest = carry
    found = [tile(i, rows.student_hidden, head.student)]
    if rows.teacher_hidden is not None:
      teacher = tile(i, rows.teacher_hidden, head.teacher)
      if head.known < vocab_size:
        teacher = jnp.where(tiles.tokens(i) < head.known, teacher, -jnp.inf)
      found.append(teacher)
    values = jax.tree.map(lambda x, y: tiles.put(i, x, y), values, found)
    found = [jnp.max(x, axis=-1) for x in found]
    return values, jax.tree.map(jnp.maximum, highest, found)

  models = 1 if rows.teacher_hidden is None else 2
  empty = sharding.constrain(jnp.zeros((*shape, vocab_size), dtype), LOGITS)
  lowest = jnp.full(shape, -jnp.inf, dtype)
  values, highest = tiles.fold(add, ([empty] * models, [lowest] * models))
  if head.options.top_k is None:
    return _Logits(values, highest)
  kth = loss_tiles.kth_largest(
    losses.without_negative_zero(values[1]), head.options.top_k, LOGITS
  )

  logits = _Logits(values, highest, kth)

  def add_matched(i, found):
    tile = _tile(head, rows, logits, i)
    u = tile.logits[0]
    return jnp.maximum(
      found, jnp.max(u, -1, where=tile.where, initial=-jnp.inf)
    )

  highest = [*highest, tiles.fold(add_matched, lowest)]
  return logits._replace(highest=highest)


def _vocab_sums(
  head: Head, rows: Rows, logits: _Logits
) -> tuple[loss_tiles.Sums, list[Array]]:
  """Pass 2: (sums over V; [B, t] each model's most likely token)."""
  tiles, vocab_size = head.tiles, head.tiles.vocab_size

  def add(i, carry):
    tile = _tile(head, rows, logits, i)
    sums, chosen = carry
    return (
      jax.tree.map(jnp.add, sums, loss_tiles.vocab_sums(tile)),
      jax.tree.map(jnp.minimum, chosen, loss_tiles.choices(tile, vocab_size)),
    )

  first = zeros_of(lambda: loss_tiles.vocab_sums(_tile(head, rows, logits, 0)))
  none = jnp.full(rows.targets.shape, vocab_size, rows.weights.dtype)
  sums, chosen = tiles.fold(add, (first, [none] * len(logits.values)))
  # Targets outside V give NaN, as in the dense loss.
  is_row = (rows.targets >= 0) & (rows.targets < vocab_size)
  of_target = jnp.where(is_row, sums.of_target, jnp.nan)
  return sums._replace(of_target=of_target), chosen


def _gradients(
  head: Head,
  rows: Rows,
  logits: _Logits,
  log_z: Array,
  sums: loss_tiles.Sums,
  d_embedding: Array,
) -> tuple[Array, Array]:
  """Pass 3: ∂loss/∂h = (∂loss/∂u) E, and ∂loss/∂E = (∂loss/∂u)^T h."""
  tiles, dtype, hidden = head.tiles, rows.weights.dtype, rows.student_hidden
  parts = d_embedding.shape[0]
  by_part = lambda x: x.reshape(parts, -1, *x.shape[1:])

  def d_logits(tile: loss_tiles.Tile) -> Array:
    found = loss_tiles.d_logits(tile, log_z, sums, rows.weights)
    return found.astype(hidden.dtype)

  def add(i, carry):
    d_hidden, d_embedding = carry
    tile = _tile(head, rows, logits, i)
    found = d_logits(tile)
    embedding = tiles.cut(i, head.student, 0)
    d_hidden += head.product(dtype, 'btv,vd->btd', found, embedding)
    if head.platform == 'tpu':
      # Computed twice: each matrix product then forms them as it reads the
      # logits, on units that it leaves idle, and never writes them to memory.
      values = jax.lax.optimization_barrier(tile.logits)
      found = d_logits(_tile(head, rows, logits, i, values))
    found, states = by_part(found), by_part(hidden)
    d_rows = head.product(dtype, 'gbtv,gbtd->gvd', found, states)
    d_rows += tiles.cut(i, d_embedding, 1)
    d_embedding = tiles.put(i, d_embedding, d_rows, axis=1)
    return d_hidden, sharding.constrain(d_embedding, PARTS)

  d_hidden, d_embedding = tiles.fold(
    add, (jnp.zeros(hidden.shape, dtype), d_embedding)
  )
  return d_hidden.astype(hidden.dtype), d_embedding


# --- Arrays -------------------------------------------------------------------


def logits_axes() -> tuple:
  """Mesh axes of (batch, positions, vocabulary)."""
  return tuple(sharding.spec(LOGITS) or (None, None, None))


def _tile_count(vocab_size: int) -> int:
  """The number of equal tiles, of half of _TILE rows to _TILE.

  1 if V is sharded, or has no such divisor.
  """
  if sharding.count(logits_axes()[2]) > 1:
    return 1
  least = -(-vocab_size // _TILE)
  even = [n for n in range(least, 2 * least + 1) if vocab_size % n == 0]
  return even[0] if even else 1


def _cut(x: Array, start: Array, size: int, axis: int) -> Array:
  if x.dtype != jnp.bfloat16:
    return jax.lax.dynamic_slice_in_dim(x, start, size, axis)
  # Cut as bits, which must look new in every pass of the loop: XLA's CPU
  # backend cuts no bfloat16, and would turn all of it into float32, or all of
  # it into bits, before the loop.
  x, start = jax.lax.optimization_barrier((x, start))
  bits = jax.lax.bitcast_convert_type(x, jnp.uint16)
  bits = jax.lax.dynamic_slice_in_dim(bits, start, size, axis)
  return jax.lax.bitcast_convert_type(bits, jnp.bfloat16)


def resized(x: Array, axis: int, size: int) -> Array:
  """Cuts an axis at `size`, or fills it up with zeros."""
  axis %= x.ndim
  missing = max(size - x.shape[axis], 0)
  x = jnp.pad(x, [(0, missing if i == axis else 0) for i in range(x.ndim)])
  return jax.lax.slice_in_dim(x, 0, size, axis=axis)


def zeros_of(function: Callable[[], _Tree]) -> _Tree:
  """Zeros in the shapes and dtypes of a function's result."""
  return jax.tree.map(
    lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(function)
  )
