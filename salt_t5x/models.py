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

"""The student: a t5x decoder-only model with SALT's losses."""

from collections.abc import Callable, Mapping
import dataclasses
from typing import Any

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import seqio

from salt_t5x import losses, metrics
from salt_t5x.checkpoints import run_record
from salt_t5x.kernels import chunked_losses
from t5x import decoding, optimizers, partitioning, utils
from t5x import losses as t5x_losses
from t5x import models as t5x_models

Array = jax.Array
Batch = Mapping[str, Array]
PyTree = Any


def hidden_and_embedding(
  model: t5x_models.DecoderOnlyModel,
  params: PyTree,
  batch: Batch,
  dropout_rng: Array | None = None,
) -> tuple[Array, Array | None]:
  """Runs a decoder-only model up to its output embedding.

  Any Flax module that returns logits will do. One that also offers
  `hidden_states(...)`, called like the module itself, and
  `output_embedding(params)` lets the loss apply the output embedding.

  Args:
    model: a t5x decoder-only model, student or teacher.
    params: its parameters.
    batch: the model's features, [B, T] each.
    dropout_rng: for the module's dropout, or None for none.

  Returns:
    ([B, T, D], [V, D]) hidden states and embedding, or ([B, T, V], None)
    logits.

  Raises:
    ValueError: V is less than the vocabulary; found while tracing.
  """
  module = model.module
  if hasattr(module, 'output_embedding'):
    hidden = module.apply(
      {'params': params},
      batch['decoder_input_tokens'],
      batch['decoder_target_tokens'],
      decoder_segment_ids=batch.get('decoder_segment_ids'),
      decoder_positions=batch.get('decoder_positions'),
      decoder_causal_attention=model._get_decoder_causal_attention(batch),
      enable_dropout=dropout_rng is not None,
      rngs=None if dropout_rng is None else {'dropout': dropout_rng},
      method='hidden_states',
    )
    embedding = module.output_embedding(params)
    _check_rows(model, embedding.shape[0])
  else:
    hidden = model._compute_logits(params, batch, dropout_rng)
    embedding = None
    _check_rows(model, hidden.shape[-1])
  return hidden, embedding


def shapes_and_axes(
  model: t5x_models.DecoderOnlyModel,
  batch: Batch,
  partitioner: partitioning.BasePartitioner,
) -> tuple[PyTree, PyTree]:
  """Traces a model on the batch's shapes.

  Args:
    model: a t5x decoder-only model.
    batch: its features (values do not matter).
    partitioner: shards the parameters.

  Returns:
    (shapes and dtypes of the parameters, their partition specs).
  """
  initializer = utils.TrainStateInitializer(
    optimizer_def=None,
    init_fn=model.get_initial_variables,
    input_shapes={k: v.shape for k, v in batch.items()},
    partitioner=partitioner,
    input_types={k: v.dtype for k, v in batch.items()},
  )
  shapes = flax.core.unfreeze(initializer.global_train_state_shape.params)
  jax.eval_shape(
    lambda p, b: hidden_and_embedding(model, p, b),
    shapes,
    {k: jax.ShapeDtypeStruct(v.shape, v.dtype) for k, v in batch.items()},
  )
  return shapes, flax.core.unfreeze(initializer.train_state_axes.params)


# Fields of a network that change its layout, speed or rounding.
_COMPUTE_SETTINGS = {
  *('parent', 'name', 'dtype', 'scan_layers', 'remat_policy', 'vocab_size')
}


def describe(model: t5x_models.DecoderOnlyModel) -> dict[str, Any]:
  """Describes what a model computes, apart from its parameters.

  Args:
    model: a t5x decoder-only model.

  Returns:
    {field of the module or of its configuration: JSON value}, and whether
    inputs are attended to in both directions. Fields that are neither numbers
    nor text (functions, say) are left out.
  """
  found = {
    'class': type(model.module).__name__,
    run_record.BIDIRECTIONAL: model._inputs_bidirectional_attention,
  }
  todo = [model.module]
  while todo:
    part = todo.pop()
    for field in dataclasses.fields(part):
      value = getattr(part, field.name)
      if field.name in _COMPUTE_SETTINGS:
        continue
      if dataclasses.is_dataclass(value):
        todo.append(value)
      elif isinstance(value, int | float | str | tuple | list):
        found[field.name] = list(value) if isinstance(value, tuple) else value
  return found


def _check_rows(model: t5x_models.DecoderOnlyModel, rows: int) -> None:
  vocab_size = model.output_vocabulary.vocab_size
  if rows < vocab_size:
    # The targets past the last row would turn the loss into NaN.
    raise ValueError(
      f'network.TransformerConfig.vocab_size (VOCAB_SIZE) = {rows} output rows '
      f'for a vocabulary of {vocab_size} tokens: set it to at least that.'
    )


class SaltDecoderOnlyModel(t5x_models.DecoderOnlyModel):
  """A decoder-only model trained by eq. (1) or, with a teacher, eq. (4).

  `loss_fn` is plain next-token prediction and all that stock t5x needs.
  `distillation_loss_fn` is the first stage's; `salt_t5x.trainer.SaltTrainer`
  hands it to t5x's training step.
  """

  def __init__(
    self,
    module: nn.Module,
    vocabulary: seqio.Vocabulary,
    optimizer_def: optimizers.OptimizerDefType,
    decode_fn: Callable[..., Any] = decoding.temperature_sample,
    inputs_bidirectional_attention: bool = False,
    feature_converter_cls: Callable[..., seqio.FeatureConverter] | None = None,
    z_loss: float = 0.0,
    loss_normalizing_factor: float | int | str | None = None,
    loss_chunk: int = 128,
  ):
    """Constructor.

    Args:
      module: the network, e.g. `network.Transformer`.
      vocabulary: of inputs and targets.
      optimizer_def: a t5x optimizer.
      decode_fn: t5x's decoding function for inference.
      inputs_bidirectional_attention: whether "inputs" are attended to in both
        directions (prefix LM). Student and teacher each follow their own.
      feature_converter_cls: replaces t5x's default seqio converter.
      z_loss: factor of log²Z in the loss.
      loss_normalizing_factor: a constant that divides the summed loss, or None
        for the plain sum. t5x's special factors, by name, depend on the
        microbatch; the trainer refuses them with more than one.
      loss_chunk: positions whose logits exist at one time; fewer take less
        memory. It has no effect on a module that offers nothing but logits.

    Raises:
      ValueError: `loss_chunk` is not a positive integer.
    """
    if not (isinstance(loss_chunk, int) and loss_chunk > 0):
      raise ValueError(
        f'models.SaltDecoderOnlyModel.loss_chunk = {loss_chunk!r}: set a '
        'positive number of positions.'
      )
    self.loss_chunk = loss_chunk
    super().__init__(
      module=module,
      vocabulary=vocabulary,
      optimizer_def=optimizer_def,
      decode_fn=decode_fn,
      inputs_bidirectional_attention=inputs_bidirectional_attention,
      feature_converter_cls=feature_converter_cls,
      z_loss=z_loss,
      loss_normalizing_factor=loss_normalizing_factor,
    )

  def get_initial_variables(self, rng, input_shapes, input_types=None):
    """As t5x's; too few rows are found here if the module tells its rows."""
    variables = super().get_initial_variables(rng, input_shapes, input_types)
    if hasattr(self.module, 'output_embedding'):
      embedding = jax.eval_shape(
        self.module.output_embedding, variables['params']
      )
      _check_rows(self, embedding.shape[0])
    return variables

  @property
  def z_loss(self) -> float:
    return self._z_loss

  @property
  def loss_normalizing_factor(self) -> float | int | str | None:
    return self._loss_normalizing_factor

  def _loss_and_metrics(self, sums: losses.LossSums, factor, batch: Batch):
    loss = sums.loss if factor is None else sums.loss / factor
    return loss, metrics.from_sums(
      sums, loss, factor, *batch['decoder_target_tokens'].shape
    )

  def loss_fn(
    self, params: PyTree, batch: Batch, dropout_rng: Array | None
  ) -> tuple[Array, metrics.MetricsMap]:
    """Next-token prediction, eq. (1); see `chunked_losses`."""
    factor, weights = t5x_losses.get_loss_normalizing_factor_and_weights(
      self._loss_normalizing_factor, batch
    )
    sums = chunked_losses.next_token_loss(
      *hidden_and_embedding(self, params, batch, dropout_rng),
      targets=batch['decoder_target_tokens'],
      weights=weights,
      z_loss=self._z_loss,
      chunk=self.loss_chunk,
    )
    return self._loss_and_metrics(sums, factor, batch)

  def distillation_loss_fn(
    self,
    params: PyTree,
    batch: Batch,
    dropout_rng: Array | None,
    *,
    teacher_model: t5x_models.DecoderOnlyModel,
    teacher_params: PyTree,
    distillation_weight: Array,
    teacher_temperature: float,
    top_k: int | None,
  ) -> tuple[Array, metrics.MetricsMap]:
    """The first stage's loss, eq. (4); see `chunked_losses`.

    The teacher sees the very batch the student sees, without dropout.
    """
    factor, weights = t5x_losses.get_loss_normalizing_factor_and_weights(
      self._loss_normalizing_factor, batch
    )
    sums = chunked_losses.distillation_loss(
      *hidden_and_embedding(self, params, batch, dropout_rng),
      *hidden_and_embedding(teacher_model, teacher_params, batch),
      targets=batch['decoder_target_tokens'],
      weights=weights,
      distillation_weight=distillation_weight,
      teacher_temperature=teacher_temperature,
      top_k=top_k,
      vocab_size=self.output_vocabulary.vocab_size,
      z_loss=self._z_loss,
      chunk=self.loss_chunk,
    )
    loss, base = self._loss_and_metrics(sums, factor, batch)
    return loss, base | metrics.distillation_from_sums(
      sums, distillation_weight
    )


def features_of(
  targets: Array, context_lengths: Array | None = None
) -> dict[str, Array]:
  """A decoder-only model's features of sequences.

  Args:
    targets: [B, T] int; 0 is padding.
    context_lengths: [B] int, how many tokens of each are a prefix LM's
      "inputs"; None for sequences without a prefix.

  Returns:
    {feature: [B, T]}, those that seqio's converters make of such sequences.
  """
  if context_lengths is None:
    context_lengths = jnp.zeros(targets.shape[:1], jnp.int32)
  positions, lengths = jnp.arange(targets.shape[1]), context_lengths[:, None]
  return {
    'decoder_input_tokens': jnp.pad(targets[:, :-1], ((0, 0), (1, 0))),
    'decoder_target_tokens': targets,
    'decoder_loss_weights': ((targets > 0) & (positions >= lengths)).astype(
      jnp.int32
    ),
    # As the inputs are shifted right, the prefix is a position longer.
    'decoder_causal_attention': (positions <= lengths).astype(jnp.int32),
  }
