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

"""The decoder-only Transformer of the paper's Table 10.

RMSNorm before each block, rotary positions, multi-head or multi-query
attention, a gated MLP, no biases, no dropout, and one embedding for input and
output. The module follows the contract of `t5x.models.DecoderOnlyModel`
(arguments, `params_axes`, the decoding cache) but does not import t5x.

Shapes: B batch, T sequence length, S cache length, D `emb_dim`, V
`vocab_size`, H `num_heads`, K `num_kv_heads`, h `head_dim`, F `mlp_dim`,
L `num_layers`.
"""

import dataclasses
import math
from typing import Any, NamedTuple

from flax import linen as nn
from flax.linen import partitioning as flax_partitioning
import jax
import jax.numpy as jnp

from salt_t5x.kernels import attention, sharding

_ACTIVATIONS = {
  'gelu': nn.gelu,
  'linear': lambda x: x,
  'relu': nn.relu,
  'silu': nn.silu,
}
# What jax.checkpoint saves besides a layer's input; 'none' does not use it.
_REMAT_POLICIES = {
  'attention': attention.SAVED,
  'full': None,
  'minimal': jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
  'none': None,
}


@dataclasses.dataclass(frozen=True)
class TransformerConfig:
  """Size and compute settings. Parameters are always float32.

  Attributes:
    vocab_size: V, rows of the embedding.
    emb_dim: D, model width.
    num_heads: H, query heads.
    num_kv_heads: K, key and value heads: `num_heads` is multi-head attention,
      1 is multi-query, a divisor in between is grouped-query.
    head_dim: h, width of one head.
    mlp_dim: F, hidden width of the MLP.
    num_layers: L.
    mlp_activations: activations of parallel projections that are multiplied
      together; two names make a gated MLP of three matrices.
    dtype: compute dtype: of activations and of the decoding cache.
    scan_layers: compile one layer and scan it over parameters stacked on a
      leading `layers` axis, instead of compiling L layers.
    remat_policy: what the forward pass saves: 'full' rematerialisation saves
      only layer inputs, 'attention' also what attention puts out, 'minimal'
      outputs of projections instead, 'none' all.
    max_wavelength: longest wavelength of RoPE, in tokens.
  """

  vocab_size: int
  emb_dim: int
  num_heads: int
  num_kv_heads: int
  head_dim: int
  mlp_dim: int
  num_layers: int
  mlp_activations: tuple[str, ...] = ('gelu', 'linear')
  dtype: Any = 'bfloat16'
  scan_layers: bool = True
  remat_policy: str = 'full'
  max_wavelength: float = 10_000

  def __post_init__(self):
    # gin may hand over a list; modules that hold this config hash it.
    object.__setattr__(self, 'mlp_activations', tuple(self.mlp_activations))
    object.__setattr__(self, 'dtype', jnp.dtype(self.dtype).name)

    def require(holds, name, remedy):
      if not holds:
        value = getattr(self, name)
        raise ValueError(
          f'`network.TransformerConfig.{name} = {value!r}`: {remedy}'
        )

    for field in dataclasses.fields(self):
      if field.type is int:
        value = getattr(self, field.name)
        positive = isinstance(value, int) and value > 0
        require(positive, field.name, 'set a positive integer.')
    require(
      self.num_heads % self.num_kv_heads == 0,
      'num_kv_heads',
      f'it must divide `num_heads = {self.num_heads}`; set '
      f'{self.num_heads} for multi-head or 1 for multi-query attention.',
    )
    even = self.head_dim % 2 == 0
    require(even, 'head_dim', 'RoPE turns pairs; set an even number.')
    require(self.max_wavelength > 0, 'max_wavelength', 'set a positive number.')
    names = set(self.mlp_activations)
    remedy = f'choose one or more of {sorted(_ACTIVATIONS)}.'
    require(names and names <= set(_ACTIVATIONS), 'mlp_activations', remedy)
    remedy = f'choose one of {sorted(_REMAT_POLICIES)}.'
    require(self.remat_policy in _REMAT_POLICIES, 'remat_policy', remedy)


class Context(NamedTuple):
  """The arrays that every layer shares."""

  positions: jax.Array  # [B or 1, T] integers
  mask: jax.Array | None  # [B, 1, T, T] bool; None is causal
  prefill_lengths: jax.Array | None  # [B] integers


class Mode(NamedTuple):
  """How a call uses the cache (static); see `Transformer.hidden_states`."""

  decode: bool
  prefill: bool
  max_decode_length: int | None


def _kernel(name, shape, axes, dtype, inputs=(0,)):
  """A float32 kernel of the calling module, cast to the compute dtype."""
  # PaLM's kernels: variance 1 / fan-in, so projections keep unit scale.
  outputs = [i for i in range(len(shape)) if i not in inputs]
  init = nn.initializers.variance_scaling(
    1.0, 'fan_in', 'normal', in_axis=inputs, out_axis=outputs
  )
  return flax_partitioning.param_with_axes(
    name, init, shape, jnp.float32, axes=axes
  ).astype(dtype)


class RMSNorm(nn.Module):
  """Root-mean-square normalisation with float32 statistics.

  Attributes:
    dtype: output dtype.
    multiplier: a constant factor, applied before the one rounding to `dtype`.
  """

  dtype: Any
  multiplier: float = 1.0

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Normalises x, [B, T, D], over D."""
    # Alone on a parameter, t5x's ROW axis 'embed' means "not factored", with
    # or without 'layers' in front, so a scale needs no axis name of its own.
    scale = flax_partitioning.param_with_axes(
      'scale', nn.initializers.ones, x.shape[-1:], jnp.float32, axes=('embed',)
    )
    # A teacher's parameters may be kept in bfloat16; this stays float32.
    scale = scale.astype(jnp.float32)
    x = x.astype(jnp.float32)
    x *= jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + 1e-6)
    return (x * (scale * self.multiplier)).astype(self.dtype)


class Attention(nn.Module):
  """Self-attention with H query heads over K key and value heads."""

  config: TransformerConfig

  @nn.compact
  def __call__(self, x: jax.Array, context: Context, mode: Mode) -> jax.Array:
    """x and result: [B, T, D]. Reads and writes the cache as `mode` says."""
    cfg, dtype, dim = self.config, self.config.dtype, self.config.head_dim
    shape, axes = (cfg.emb_dim, cfg.num_heads, dim), ('embed', 'heads', 'kv')
    names = ('batch', 'length', 'heads', 'kv')
    kv_shape, kv_axes = (cfg.emb_dim, cfg.num_kv_heads, dim), axes
    kv_names = names
    if cfg.num_kv_heads == 1:
      # t5x shards 'heads' over the model axis. The one head of multi-query
      # attention cannot be split: its kernels have no heads axis at all, its
      # activations leave it unnamed.
      kv_shape, kv_axes = (cfg.emb_dim, dim), ('embed', 'kv')
      kv_names = ('batch', 'length', None, 'kv')

    def project(name, shape, axes, names):
      y = jnp.tensordot(x, _kernel(name, shape, axes, dtype), axes=1)
      y = y.reshape(*x.shape[:2], -1, dim)
      return sharding.constrain(y, names)

    query = project('query', shape, axes, names)
    key = project('key', kv_shape, kv_axes, kv_names)
    value = project('value', kv_shape, kv_axes, kv_names)
    positions, mask, _ = context

    append = False
    if mode.decode or mode.prefill:
      # The call that makes the cache has nothing to append yet.
      append = mode.decode and self.has_variable('cache', 'cached_key')
      length = mode.max_decode_length or x.shape[1]
      shape = (x.shape[0], length, cfg.num_kv_heads, dim)

      def cached(name, shape, dtype, axes):
        return flax_partitioning.variable_with_axes(
          'cache', name, jnp.zeros, shape, dtype, axes=axes
        )

      cached_key = cached('cached_key', shape, dtype, kv_names)
      cached_value = cached('cached_value', shape, dtype, kv_names)
      cache_index = cached('cache_index', shape[:1], jnp.int32, ('batch',))
      slots = jnp.arange(cached_key.value.shape[1])
      if append:
        # t5x's beam search gives the index a beam axis and leaves it there.
        positions = cache_index.value.reshape(-1, 1)

    # Keys are cached already turned: a cached key keeps its position.
    query = attention.rotate(query, positions, cfg.max_wavelength)
    key = attention.rotate(key, positions, cfg.max_wavelength)

    if append:
      if x.shape[1] != 1 or mode.max_decode_length not in (None, slots.size):
        raise ValueError(
          'A decoding step takes one token and the cache it began with: got '
          f'{x.shape[1]} tokens and `max_decode_length = '
          f'{mode.max_decode_length}` for a cache of {slots.size} positions.'
        )
      # A row whose index has run past the end (t5x keeps stepping rows that
      # are done until all rows are) matches no slot and writes nothing.
      here = (slots == positions)[:, :, None, None]
      key = jnp.where(here, key, cached_key.value)
      value = jnp.where(here, value, cached_value.value)
      cached_key.value, cached_value.value = key, value
      cache_index.value = cache_index.value + 1
      mask = (slots <= positions)[:, None, None, :]
    elif mode.prefill:
      spare = slots.size - x.shape[1]
      if spare < 0:
        raise ValueError(
          f'A prefix of {x.shape[1]} positions does not fit a cache of '
          f'{slots.size}: raise `max_decode_length`.'
        )
      # Only what lies before `prefill_lengths` is kept. The token there is
      # fed again by the first decoding step, which needs its logits.
      lengths = context.prefill_lengths.astype(jnp.int32)
      keep = (slots < lengths[:, None])[:, :, None, None]
      pad = ((0, 0), (0, spare), (0, 0), (0, 0))
      cached_key.value = jnp.where(keep, jnp.pad(key, pad), 0)
      cached_value.value = jnp.where(keep, jnp.pad(value, pad), 0)
      cache_index.value = lengths

    y = attention.attend(query, key, value, mask)
    y = sharding.constrain(y, names)
    shape = (cfg.num_heads, dim, cfg.emb_dim)
    out = _kernel('out', shape, ('heads', 'kv', 'embed'), dtype, (0, 1))
    return jnp.tensordot(y, out, axes=2)


class Mlp(nn.Module):
  """The product of activated projections, projected back: wo(a0 * a1)."""

  config: TransformerConfig

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """x and result: [B, T, D]."""
    cfg, y = self.config, 1
    for i, name in enumerate(cfg.mlp_activations):
      shape = (cfg.emb_dim, cfg.mlp_dim)
      wi = _kernel(f'wi_{i}', shape, ('embed', 'mlp'), cfg.dtype)
      y *= _ACTIVATIONS[name](x @ wi)
    y = sharding.constrain(y, ('batch', 'length', 'mlp'))
    # Without the barrier XLA:TPU computes the activations once for every tile
    # of the product that they go into.
    y = jax.lax.optimization_barrier(y)
    shape = (cfg.mlp_dim, cfg.emb_dim)
    return y @ _kernel('wo', shape, ('mlp', 'embed'), cfg.dtype)


class Layer(nn.Module):
  """One pre-norm decoder layer, shaped for nn.scan."""

  config: TransformerConfig

  @nn.compact
  def __call__(
    self, x: jax.Array, context: Context, mode: Mode
  ) -> tuple[jax.Array, None]:
    """[B, T, D] to ([B, T, D], None): the scan's carry and empty output."""
    cfg, names = self.config, ('batch', 'length', 'embed')
    y = RMSNorm(cfg.dtype, name='pre_attention_norm')(x)
    x += Attention(cfg, name='attention')(y, context, mode)
    x = sharding.constrain(x, names)
    x += Mlp(cfg, name='mlp')(RMSNorm(cfg.dtype, name='pre_mlp_norm')(x))
    return sharding.constrain(x, names), None


class Transformer(nn.Module):
  """A decoder-only language model for `t5x.models.DecoderOnlyModel`."""

  config: TransformerConfig

  @property
  def scan_layers(self) -> bool:
    """Tells t5x that cache leaves have a leading layer axis."""
    return self.config.scan_layers

  def setup(self):
    cfg = self.config
    # Entries N(0, 1), read as they are; `decoder_norm` divides by sqrt(D) on
    # the way out. Initial logits then have scale 1, and the initial
    # cross-entropy is within a tenth of log V. PaLM and t5x do the same: as
    # Adafactor's updates are relative to a parameter's root mean square, an
    # embedding of scale 1 moves as fast as the learning rate says.
    self.embedding = flax_partitioning.param_with_axes(
      'embedding',
      nn.initializers.normal(1.0),
      (cfg.vocab_size, cfg.emb_dim),
      jnp.float32,
      axes=('vocab', 'embed'),
      module=self,
    )
    layer = Layer
    if cfg.remat_policy != 'none':
      layer = nn.remat(
        layer,
        # Inside a scan nothing can be merged with the forward pass anyway.
        prevent_cse=not cfg.scan_layers,
        static_argnums=(3,),  # `mode`; 0 is the module.
        policy=_REMAT_POLICIES[cfg.remat_policy],
      )
    if cfg.scan_layers:
      self.layers = flax_partitioning.scan_with_axes(
        layer,
        variable_axes={'params': 0, 'cache': 0},
        split_rngs={'params': True},
        in_axes=nn.broadcast,
        length=cfg.num_layers,
        axis_name='layers',
        axes_collections=('params', 'cache'),
      )(cfg)
    else:
      self.layers = [layer(cfg) for _ in range(cfg.num_layers)]
    self.decoder_norm = RMSNorm(cfg.dtype, 1 / math.sqrt(cfg.emb_dim))

  def output_embedding(self, params) -> jax.Array:
    """The output head, [V, D] float32, out of a tree of parameters."""
    return params['embedding']

  def hidden_states(
    self,
    decoder_input_tokens: jax.Array,
    decoder_target_tokens: jax.Array,
    decoder_segment_ids: jax.Array | None = None,
    decoder_positions: jax.Array | None = None,
    decoder_causal_attention: jax.Array | None = None,
    *,
    enable_dropout: bool = True,
    decode: bool = False,
    max_decode_length: int | None = None,
    prefill: bool = False,
    prefill_lengths: jax.Array | None = None,
  ) -> jax.Array:
    """Runs all but the output head.

    Args:
      decoder_input_tokens: [B, T] token ids (targets shifted right).
      decoder_target_tokens: [B, T] ids; only whether they are 0 matters.
      decoder_segment_ids: [B, T] or None; see `attention.make_mask`.
      decoder_positions: [B, T] or None; position within the packed sequence,
        by default 0 to T - 1.
      decoder_causal_attention: [B, T] or None; see `attention.make_mask`.
      enable_dropout: accepted because t5x passes it, and without effect: the
        paper trains without dropout and the model has none.
      decode: use the `cache` collection, which must be mutable: the first call
        makes an empty cache and is otherwise an ordinary forward pass; later
        calls take [B, 1] tokens, append to the cache and count positions.
      max_decode_length: S, the cache's length when it is made; by default T.
      prefill: an ordinary forward pass that also fills the cache.
      prefill_lengths: [B], how many positions of each row to keep.

    Returns:
      [B, T, D] in config.dtype: normalised and divided by sqrt(D), so that
      logits are the plain product with `output_embedding`.
    """
    del enable_dropout
    if decode and prefill:
      raise ValueError('Fill the cache (`prefill`) first, then `decode`.')
    if prefill and prefill_lengths is None:
      raise ValueError('`prefill = True` needs `prefill_lengths`, [B].')
    if (decode or prefill) and decoder_segment_ids is not None:
      raise ValueError('Packed rows (`decoder_segment_ids`) have no cache.')
    positions = decoder_positions
    if positions is None:
      positions = jnp.arange(decoder_input_tokens.shape[1])[None]
    mask = attention.make_mask(
      decoder_target_tokens, decoder_segment_ids, decoder_causal_attention
    )
    # A gather of rows (t5x initialises with float tokens), then a cast: no
    # V-sized copy, and no V * D work per token as a one-hot product has. XLA
    # partitions the gather along V.
    x = self.embedding[decoder_input_tokens.astype(jnp.int32)]
    x = sharding.constrain(
      x.astype(self.config.dtype), ('batch', 'length', 'embed')
    )
    context = Context(positions, mask, prefill_lengths)
    mode = Mode(decode, prefill, max_decode_length)
    for layer in [self.layers] if self.scan_layers else self.layers:
      x, _ = layer(x, context, mode)
    return self.decoder_norm(x)

  def __call__(self, *args, **kwargs) -> jax.Array:
    """Logits, [B, T, V] float32; takes what `hidden_states` takes."""
    hidden = self.hidden_states(*args, **kwargs)
    head = self.embedding.astype(hidden.dtype)
    logits = jnp.einsum(
      'btd,vd->btv', hidden, head, preferred_element_type=jnp.float32
    )
    return sharding.constrain(logits, ('batch', 'length', 'vocab'))
