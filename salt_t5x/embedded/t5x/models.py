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

"""Decoder-only models: a Flax module with its loss and its decoding."""

from collections.abc import Callable, Mapping
import functools
from typing import Any

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import seqio

from t5x import _subset, decoding, optimizers

__getattr__ = _subset.missing(__name__)

Array = jax.Array
Batch = Mapping[str, Array]
PyTree = Any


@_subset.subset_of_t5x
class DecoderOnlyModel:
  """A decoder-only model; `SaltDecoderOnlyModel` adds the loss.

  The plain class serves as a teacher, with any module that has the call
  signature of t5x's decoder and returns logits.
  """

  FEATURE_CONVERTER_CLS = seqio.DecoderFeatureConverter

  def __init__(
    self,
    module: nn.Module,
    vocabulary: seqio.Vocabulary,
    optimizer_def: optimizers.OptimizerDefType,
    decode_fn: Callable[..., Any] = decoding.temperature_sample,
    inputs_bidirectional_attention: bool = False,
    feature_converter_cls: Callable[..., Any] | None = None,
    z_loss: float = 0.0,
    loss_normalizing_factor: float | int | None = None,
  ):
    """Constructor; see t5x's documentation."""
    if feature_converter_cls is not None:
      self.FEATURE_CONVERTER_CLS = feature_converter_cls  # pylint: disable=invalid-name
    self.module = module
    self.optimizer_def = optimizer_def
    self.output_vocabulary = vocabulary
    self._decode_fn = decode_fn
    self._inputs_bidirectional_attention = inputs_bidirectional_attention
    self._z_loss = z_loss
    self._loss_normalizing_factor = loss_normalizing_factor

  def loss_fn(self, params: PyTree, batch: Batch, dropout_rng: Array | None):
    _subset.refuse('training a plain models.DecoderOnlyModel')

  def get_initial_variables(
    self,
    rng: Array,
    input_shapes: Mapping[str, tuple[int, ...]],
    input_types: Mapping[str, Any] | None = None,
  ) -> PyTree:
    """Initialises the module's variables for a batch of these shapes."""
    dtype = (input_types or {}).get('decoder_input_tokens', jnp.float32)
    tokens = jnp.ones(input_shapes['decoder_input_tokens'], dtype)
    return flax.core.freeze(
      self.module.init(rng, tokens, tokens, enable_dropout=False)
    )

  def _get_decoder_causal_attention(self, batch: Batch) -> Array | None:
    """Returns the mask of bidirectional positions, if the model uses it."""
    if not self._inputs_bidirectional_attention:
      return None
    if 'decoder_causal_attention' not in batch:
      raise ValueError(
        'inputs_bidirectional_attention = True needs the feature '
        '"decoder_causal_attention": use a task with "inputs" and a feature '
        'converter that keeps them.'
      )
    return batch['decoder_causal_attention']

  def _compute_logits(
    self, params: PyTree, batch: Batch, dropout_rng: Array | None = None
  ) -> Array:
    """Returns [B, T, V] logits."""
    return self.module.apply(
      {'params': params},
      batch['decoder_input_tokens'],
      batch['decoder_target_tokens'],
      decoder_segment_ids=batch.get('decoder_segment_ids'),
      decoder_positions=batch.get('decoder_positions'),
      decoder_causal_attention=self._get_decoder_causal_attention(batch),
      rngs=None if dropout_rng is None else {'dropout': dropout_rng},
      decode=False,
      enable_dropout=dropout_rng is not None,
    )

  def predict_batch_with_aux(
    self,
    params: PyTree,
    batch: Batch,
    *,
    decoder_params: Mapping[str, Any] | None = None,
  ) -> tuple[Array, dict[str, Array]]:
    """Continues each row's inputs.

    Args:
      params: the model's parameters.
      batch: with 'decoder_input_tokens' and 'decoder_causal_attention'.
      decoder_params: options of the decoding function.

    Returns:
      ([B, T] int continuations, zeros after them; {'scores': [B]}).
    """
    prefix = batch['decoder_causal_attention']
    inputs = batch['decoder_input_tokens'] * prefix
    index = jnp.sum(inputs[:, 1:] != 0, axis=-1)  # The last prompt token.
    length = inputs.shape[1]
    apply = functools.partial(
      self.module.apply, enable_dropout=False, mutable=['cache']
    )
    # An empty cache of the right shape, then one that holds the prompts.
    ones = jnp.ones_like(inputs)
    _, variables = apply({'params': params}, ones, ones, decode=True)
    _, variables = apply(
      {'params': params, **variables},
      inputs,
      prefix,
      decoder_causal_attention=self._get_decoder_causal_attention(batch),
      prefill=True,
      prefill_lengths=index,
    )

    def tokens_to_logits(state):
      logits, variables = apply(
        {'params': params, 'cache': state.cache},
        state.cur_token,
        state.cur_token,
        decode=True,
        max_decode_length=length,
      )
      return logits[:, 0], variables['cache']

    options = {'eos_id': self.output_vocabulary.eos_id or 1}
    sequences, scores = self._decode_fn(
      inputs=inputs,
      cache=variables['cache'],
      tokens_to_logits=tokens_to_logits,
      initial_index=index,
      **options | (decoder_params or {}),
    )
    # Drop the prompt and move the rest to the front.
    source = jnp.arange(length) + index[:, None]
    moved = jnp.take_along_axis(
      sequences[:, 0], jnp.minimum(source, length - 1), axis=1
    )
    return jnp.where(source < length, moved, 0), {'scores': scores[:, 0]}
