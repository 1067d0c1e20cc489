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
hand they cost two matrix products and no recomputation. Only `loss` has
gradients, by the student's hidden states and embedding. The formulas are in
`loss_tiles.py`.

Sharding: the logits are split by the axis rules for ('batch', 'vocab'), V
included. So over V there are only sums and maxima; nothing is gathered,
scattered or sorted along it, and of eq. (12)'s top k the k-th logit alone is
looked up. Each part of the batch sums a gradient of the embedding of its own;
the parts meet once, after the last chunk.
"""

import functools

import jax
import jax.numpy as jnp

from salt_t5x import losses
from salt_t5x.kernels import loss_tiles, sharding

Array = jax.Array

# Logical axes: of logits, and of the parts of the embedding's gradient.
_LOGITS = ('batch', None, 'vocab')
_PARTS = ('batch', 'vocab', None)
# Rows of the embedding in one product on a CPU.
_TILE = 16_384


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
    student_embedding: [V_s, D] float, or None; logits that exist are not cut
      into chunks: the dense loss takes them.
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
    None,
    targets,
    weights,
    None,
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
    student_embedding: [V_s, D] float, or None; logits that exist are not cut
      into chunks: the dense loss takes them.
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
  if student_embedding is None:
    return losses.distillation_loss(
      student_hidden,
      None,
      teacher_hidden,
      teacher_embedding,
      targets,
      weights,
      distillation_weight=distillation_weight,
      teacher_temperature=teacher_temperature,
      top_k=top_k,
      vocab_size=vocab_size,
      z_loss=z_loss,
    )
  return _loss(
    loss_tiles.Options(
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
    jnp.asarray(
      distillation_weight, jnp.promote_types(student_hidden.dtype, jnp.float32)
    ),
  )


# --- One pass over the chunks -------------------------------------------------


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _loss(
  options, hidden, embedding, teacher, targets, weights, omega
) -> losses.LossSums:
  return _over_chunks(
    options, False, hidden, embedding, teacher, targets, weights, omega
  )[0]


def _forward(options, hidden, embedding, teacher, targets, weights, omega):
  sums, gradients = _over_chunks(
    options, True, hidden, embedding, teacher, targets, weights, omega
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
  options: loss_tiles.Options, with_gradients: bool, *arrays
) -> tuple[losses.LossSums, tuple[Array, Array] | None]:
  """(the sums; ∂loss/∂hidden [B, T, D] and ∂loss/∂embedding [V_s, D])."""
  run = functools.partial(_scan, options, with_gradients)
  return jax.lax.platform_dependent(
    *arrays,
    cpu=functools.partial(run, 'cpu'),
    tpu=functools.partial(run, 'tpu'),
    default=functools.partial(run, 'default'),
  )


def _scan(
  options: loss_tiles.Options,
  with_gradients: bool,
  platform: str,
  hidden: Array,
  embedding: Array,
  teacher: tuple[Array, Array | None] | None,
  targets: Array,
  weights: Array | None,
  omega: Array | None,
):
  """`_over_chunks` on one platform."""
  batch, length = targets.shape
  count = max(1, -(-length // options.chunk))
  # As even as can be: padding is work.
  size = max(1, -(-length // count))
  dtype = jnp.promote_types(hidden.dtype, jnp.float32)
  weights = losses.weights_like(weights, targets, dtype)
  teacher_hidden, teacher_embedding = teacher or (None, None)
  rows = (hidden, teacher_hidden, targets, weights)
  for x in jax.tree.leaves(rows):
    if x.shape[:2] != targets.shape:
      raise ValueError(
        f'An array of shape {x.shape} for targets of {targets.shape}: hidden '
        'states, targets and weights have one batch and one length.'
      )
  rows = jax.tree.map(lambda x: _resized(x, 1, size * count), rows)
  # Cast and gathered once, not in every chunk.
  vocab_size = embedding.shape[0]
  embedding = _gathered(embedding.astype(hidden.dtype))
  tokens = vocab_size
  if teacher is not None:
    head = teacher_hidden if teacher_embedding is None else teacher_embedding
    teacher_rows = head.shape[-1 if teacher_embedding is None else 0]
    tokens = min(vocab_size, teacher_rows)
    if options.vocab_size is not None:
      tokens = min(tokens, options.vocab_size)
    if options.top_k is not None:
      losses.check_top_k(options.top_k, tokens)
    if teacher_embedding is not None:
      teacher_embedding = _gathered(
        _resized(teacher_embedding, 0, vocab_size).astype(teacher_hidden.dtype)
      )
  heads = (embedding, teacher_embedding)
  step = functools.partial(
    _chunk, options, platform, tokens, heads, omega, with_gradients
  )

  def add_chunk(carry, index):
    total, gradients = carry
    cut = lambda x: jax.lax.dynamic_slice_in_dim(x, index * size, size, axis=1)
    part = jax.tree.map(lambda x: _by_batch(cut(x)), rows)
    d_hidden, d_embedding = gradients or (None, None)
    sums, found, d_embedding = step(part, d_embedding)
    total = jax.tree.map(jnp.add, total, sums)
    if with_gradients:
      found = sharding.constrain(found, ('batch', 'length', 'embed'))
      gradients = (
        jax.lax.dynamic_update_slice_in_dim(
          d_hidden, found, index * size, axis=1
        ),
        d_embedding,
      )
    return (total, gradients), None

  zeros = lambda x: jnp.zeros(x.shape, x.dtype)
  gradients = None
  if with_gradients:
    d_embedding = jnp.zeros((_batch_parts(batch), *embedding.shape), dtype)
    gradients = (zeros(rows[0]), sharding.constrain(d_embedding, _PARTS))
  part = jax.tree.map(lambda x: x[:, :size], rows)
  total = jax.tree.map(
    zeros, jax.eval_shape(step, part, gradients and gradients[1])[0]
  )
  (total, gradients), _ = jax.lax.scan(
    add_chunk, (total, gradients), jnp.arange(count)
  )
  if with_gradients:
    d_hidden, d_embedding = gradients
    gradients = d_hidden[:, :length], jnp.sum(d_embedding, axis=0)
  return total, gradients


# --- One chunk ----------------------------------------------------------------


class _Tiles:
  """V in equal tiles, which a loop goes over; one tile is no loop."""

  def __init__(self, vocab_size: int, count: int):
    self._count = count
    self._size = vocab_size // count

  def fold(self, add, first):
    """`add(i, carry)` for all tiles i."""
    if self._count == 1:
      return add(0, first)
    return jax.lax.fori_loop(0, self._count, add, first)

  def cut(self, i, x: Array, axis: int = -1) -> Array:
    """Tile i of an array that has V on an axis."""
    if self._count == 1:
      return x
    return _cut(x, i * self._size, self._size, axis)

  def put(self, i, x: Array, value: Array, axis: int = -1) -> Array:
    """The array with another tile i."""
    if self._count == 1:
      return value
    return jax.lax.dynamic_update_slice_in_dim(x, value, i * self._size, axis)

  def tokens(self, i) -> Array:
    """[size] int: the tokens of tile i."""
    return i * self._size + jnp.arange(self._size)


def _chunk(
  options: loss_tiles.Options,
  platform: str,
  tokens: int,
  heads: tuple[Array, Array | None],
  omega: Array | None,
  with_gradients: bool,
  part,
  d_embedding: Array | None,
) -> tuple[losses.LossSums, Array | None, Array | None]:
  """(sums over the chunk's tokens, ∂loss/∂hidden, `d_embedding` plus its own).

  Goes over V three times: for the logits and their maxima, for sums, for the
  gradients. On a CPU each time is a loop over tiles of V, so that nothing but
  the logits themselves has V columns.
  """
  hidden, teacher_hidden, targets, weights = part
  embedding, teacher_embedding = heads
  vocab_size = embedding.shape[0]
  on_cpu = platform == 'cpu'
  tiles = _Tiles(vocab_size, _tile_count(vocab_size) if on_cpu else 1)
  dtype = weights.dtype
  has_teacher = teacher_hidden is not None
  product = functools.partial(_product, dtype, on_cpu)

  def logits_of(i, hidden, embedding):
    if embedding is None:
      found = tiles.cut(i, _resized(hidden, -1, vocab_size)).astype(dtype)
    else:
      found = product('btd,vd->btv', hidden, tiles.cut(i, embedding, 0))
    return sharding.constrain(found, _LOGITS)

  def add_logits(i, carry):
    logits, highest = carry
    found = [logits_of(i, hidden, embedding)]
    if has_teacher:
      teacher = logits_of(i, teacher_hidden, teacher_embedding)
      if tokens < vocab_size:
        teacher = jnp.where(tiles.tokens(i) < tokens, teacher, -jnp.inf)
      found.append(teacher)
    return (
      [tiles.put(i, x, y) for x, y in zip(logits, found, strict=True)],
      [
        jnp.maximum(x, jnp.max(y, axis=-1))
        for x, y in zip(highest, found, strict=True)
      ],
    )

  shape, models = targets.shape, 2 if has_teacher else 1
  empty = sharding.constrain(jnp.zeros((*shape, vocab_size), dtype), _LOGITS)
  lowest = jnp.full(shape, -jnp.inf, dtype)
  logits, highest = tiles.fold(
    add_logits, ([empty] * models, [lowest] * models)
  )
  top = None
  if options.top_k is not None:
    top = loss_tiles.kth_largest(
      losses.without_negative_zero(logits[1]), options.top_k, _LOGITS
    )

  def matched(i, teacher=None):
    """Where the target of eq. (3) or (12) is not 0, or None for everywhere."""
    if top is not None:
      least, last = top
      # Of equal logits the lower tokens come first.
      return (teacher > least) | (
        (teacher == least) & (tiles.tokens(i) <= last)
      )
    return tiles.tokens(i) < tokens if tokens < vocab_size else None

  if top is not None:

    def add_matched(i, found):
      u, teacher = (tiles.cut(i, x) for x in logits)
      return jnp.maximum(
        found, jnp.max(u, -1, where=matched(i, teacher), initial=-jnp.inf)
      )

    highest = [*highest, tiles.fold(add_matched, lowest)]

  def sums_of(i, *logits):
    is_target = tiles.tokens(i) == targets[..., None]
    return loss_tiles.vocab_sums(
      options, logits, highest, is_target, matched(i, *logits[1:])
    )

  def add_sums(i, carry):
    sums, choices = carry
    found = [tiles.cut(i, x) for x in logits]
    chosen = [
      loss_tiles.first_highest(x, y, tiles.tokens(i), vocab_size)
      for x, y in zip(found, highest[:models], strict=True)
    ]
    return (
      jax.tree.map(jnp.add, sums, sums_of(i, *found)),
      [jnp.minimum(x, y) for x, y in zip(choices, chosen, strict=True)],
    )

  first = jax.tree.map(
    lambda x: jnp.zeros(x.shape, x.dtype),
    jax.eval_shape(
      lambda *x: sums_of(0, *(tiles.cut(0, y) for y in x)), *logits
    ),
  )
  unknown = jnp.full(shape, vocab_size, dtype)
  sums, choices = tiles.fold(add_sums, (first, [unknown] * models))
  # As in the dense loss; no sum would tell.
  is_row = (targets >= 0) & (targets < vocab_size)
  sums = sums._replace(of_target=jnp.where(is_row, sums.of_target, jnp.nan))
  log_z = highest[0] + jnp.log(sums.z)
  result = loss_tiles.loss_sums(
    options, omega, highest, log_z, sums, choices, targets, weights
  )
  if not with_gradients:
    return result, None, None

  def d_logits(i, logits):
    is_target = tiles.tokens(i) == targets[..., None]
    where = matched(i, *logits[1:])
    found = loss_tiles.d_logits(
      options, omega, logits, highest, log_z, sums, weights, is_target, where
    )
    return found.astype(hidden.dtype)

  parts = d_embedding.shape[0]
  by_part = lambda x: x.reshape(parts, -1, *x.shape[1:])

  def add_gradients(i, carry):
    d_hidden, d_embedding = carry
    tile = [tiles.cut(i, x) for x in logits]
    found = d_logits(i, tile)
    d_hidden += product('btv,vd->btd', found, tiles.cut(i, embedding, 0))
    if platform == 'tpu':
      # Once more: each matrix product then forms them as it reads the logits,
      # on units that it leaves idle, and they are never written to memory.
      found = d_logits(i, jax.lax.optimization_barrier(tile))
    d_rows = product('gbtv,gbtd->gvd', by_part(found), by_part(hidden))
    d_rows += tiles.cut(i, d_embedding, 1)
    d_embedding = tiles.put(i, d_embedding, d_rows, axis=1)
    return d_hidden, sharding.constrain(d_embedding, _PARTS)

  d_hidden, d_embedding = tiles.fold(
    add_gradients, (jnp.zeros(hidden.shape, dtype), d_embedding)
  )
  return result, d_hidden.astype(hidden.dtype), d_embedding


# --- Arrays -------------------------------------------------------------------


def _logits_axes() -> tuple:
  """Mesh axes of (batch, positions, vocabulary)."""
  return tuple(sharding.spec(_LOGITS) or (None, None, None))


def _gathered(embedding: Array) -> Array:
  return sharding.constrain(embedding, ('vocab', None))


def _by_batch(x: Array) -> Array:
  """Splits an array's first axis as the logits are, and no other."""
  axes = sharding.spec(_LOGITS)
  if axes is not None:
    axes = jax.sharding.PartitionSpec(axes[0])
  return sharding.constrain_to(x, axes)


def _batch_parts(batch: int) -> int:
  """Parts of the batch that sum their own gradient of the embedding."""
  parts = sharding.count(_logits_axes()[0])
  return parts if batch % parts == 0 else 1


def _tile_count(vocab_size: int) -> int:
  """The number of equal tiles, of half of _TILE rows to _TILE.

  1 if V is sharded, or has no such divisor.
  """
  if sharding.count(_logits_axes()[2]) > 1:
    return 1
  least = -(-vocab_size // _TILE)
  even = [n for n in range(least, 2 * least + 1) if vocab_size % n == 0]
  return even[0] if even else 1


def _product(dtype, on_cpu: bool, axes: str, a: Array, b: Array) -> Array:
  """A matrix product with sums in `dtype`."""
  if on_cpu:
    # The same products, but XLA's CPU backend is faster at float32.
    a, b = a.astype(dtype), b.astype(dtype)
  return jnp.einsum(axes, a, b, preferred_element_type=dtype)


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


def _resized(x: Array, axis: int, size: int) -> Array:
  """Cuts an axis at `size`, or fills it up with zeros."""
  axis %= x.ndim
  missing = max(size - x.shape[axis], 0)
  x = jnp.pad(x, [(0, missing if i == axis else 0) for i in range(x.ndim)])
  return jax.lax.slice_in_dim(x, 0, size, axis=axis)
