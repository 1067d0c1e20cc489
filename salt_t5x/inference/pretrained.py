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

"""Pretrained models: checkpoints found, checked and restored onto a mesh."""

from collections.abc import Mapping
import dataclasses
from typing import Any

from absl import logging
from etils import epath
import jax
import seqio

from salt_t5x import models
from salt_t5x.checkpoints import find, run_record
from salt_t5x.checkpoints import restore as restore_lib
from salt_t5x.data import vocabularies
from t5x import models as t5x_models
from t5x import partitioning

PyTree = Any
Features = Mapping[str, jax.Array | jax.ShapeDtypeStruct]


@dataclasses.dataclass(frozen=True)
class Parameters:
  """How error messages name the parameters of a `Pretrained`."""

  path: str = 'path'
  step: str = 'step'
  model: str = 'model'
  remedy: str = 'name the model directory of a training run'


@dataclasses.dataclass(frozen=True)
class Pretrained:
  """A language model with trained parameters.

  Attributes:
    model: a t5x decoder-only model; the optimizer is not used. Any Flax module
      that returns logits serves as the model's module, t5x's own
      `examples/decoder_only` among them.
    path: its model directory, or one `checkpoint_<step>` directory.
    step: the checkpoint to take from a model directory; None for the newest.
    dtype: type of the restored parameters; None keeps the saved types.
    parameters: the names of the above in error messages.
  """

  model: t5x_models.DecoderOnlyModel
  path: str | None
  step: int | None = None
  dtype: str | None = None
  parameters: Parameters = dataclasses.field(
    default=Parameters(), kw_only=True, repr=False
  )

  def check_path(self) -> None:
    """Raises ValueError if no path is set."""
    if not self.path:
      names = self.parameters
      raise ValueError(f'{names.path} = {self.path!r}: {names.remedy}.')

  def find(self) -> epath.Path:
    """Finds the checkpoint, the same one on all hosts.

    Returns:
      The `checkpoint_<step>` directory.

    Raises:
      ValueError: there is no such checkpoint.
    """
    return find.same_on_all_hosts(self._find())

  def _find(self) -> epath.Path:
    self.check_path()
    names = self.parameters
    return find.checkpoint(
      self.path,
      self.step,
      parameter=names.path,
      step_parameter=names.step,
      remedy=names.remedy,
    )

  def check_record(self, vocabulary: seqio.Vocabulary) -> None:
    """Compares the training run's vocabulary and network with this model's.

    A model without a record (trained without salt_t5x) passes with a warning.

    Args:
      vocabulary: the other vocabulary, which must be the same.

    Raises:
      ValueError: both are known and differ, or the vocabulary's special ids
        cannot be used.
    """
    vocabularies.check_special_ids(vocabulary, 'VOCABULARY')
    network = models.describe(self.model)
    fingerprint = vocabularies.fingerprint(vocabulary)
    if found := run_record.difference(
      self.path, fingerprint, vocabulary.vocab_size, network
    ):
      raise ValueError(f'{self.parameters.path} = {self.path!r}: {found}.')

  def shapes_and_axes(
    self, batch: Features, partitioner: partitioning.BasePartitioner
  ) -> tuple[PyTree, PyTree]:
    """Traces the model on a batch's shapes; see `models.shapes_and_axes`.

    Raises:
      ValueError: the model does not accept the batch.
    """
    try:
      return models.shapes_and_axes(self.model, batch, partitioner)
    except Exception as e:
      features = {k: tuple(v.shape) for k, v in batch.items()}
      raise ValueError(
        f'{self.parameters.model} cannot be applied to the features '
        f'{features}. Check TASK_FEATURE_LENGTHS against the longest sequence '
        'that the model accepts, and its inputs_bidirectional_attention '
        f'against the task. The error was: {e}'
      ) from e

  def restore(
    self,
    checkpoint: epath.Path,
    shapes: PyTree,
    axes: PyTree,
    mesh: jax.sharding.Mesh,
  ) -> PyTree:
    """Reads the parameters onto a mesh; see `restore.parameters`."""
    params = restore_lib.parameters(
      checkpoint,
      shapes,
      axes,
      mesh,
      dtype=self.dtype,
      parameter=self.parameters.model,
    )
    count = sum(x.size for x in jax.tree.leaves(params))
    logging.info('%s: %d parameters.', checkpoint, count)
    return params

  def load(
    self,
    checkpoint: epath.Path,
    batch: Features,
    partitioner: partitioning.BasePartitioner,
  ) -> tuple[PyTree, PyTree]:
    """Restores the parameters onto a partitioner's mesh.

    Args:
      checkpoint: from `find`.
      batch: a batch with the features of training; its values do not matter.
      partitioner: shards the parameters.

    Returns:
      (parameters, their partition specs), two trees of equal structure.

    Raises:
      ValueError: the model does not accept the batch or has fewer output rows
        than its vocabulary, or the checkpoint is damaged or of another
        architecture.
    """
    shapes, axes = self.shapes_and_axes(batch, partitioner)
    return self.restore(checkpoint, shapes, axes, partitioner.mesh), axes
