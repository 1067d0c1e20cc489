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

"""Configurations of data and checkpoints; data sets and initial states."""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import time
from typing import Any

import jax
import seqio
import tensorflow as tf

from t5x import _subset, partitioning
from t5x import train_state as train_state_lib

__getattr__ = _subset.missing(__name__)

PyTree = Any


@_subset.subset_of_t5x
@dataclasses.dataclass
class SaveCheckpointConfig:
  """When checkpoints are saved; see t5x's documentation."""

  period: int | None = None
  checkpoint_steps: Sequence[int] | None = None
  keep: int | None = None
  save_dataset: bool = False


@_subset.subset_of_t5x
@dataclasses.dataclass
class RestoreCheckpointConfig:
  """The checkpoint that a new run starts from; see t5x's documentation."""

  path: str | Sequence[str] = ()
  mode: str = 'latest'


@_subset.subset_of_t5x
@dataclasses.dataclass
class CheckpointConfig:
  """The checkpoints that a run saves, and the one it starts from."""

  save: SaveCheckpointConfig | None = None
  restore: RestoreCheckpointConfig | None = None


@_subset.subset_of_t5x
@dataclasses.dataclass
class DatasetConfig:
  """A seqio task or mixture and how to read it; see t5x's documentation."""

  mixture_or_task_name: str | seqio.Task | seqio.Mixture
  task_feature_lengths: Mapping[str, int]
  split: str
  batch_size: int
  shuffle: bool
  seed: int | None
  use_cached: bool = False
  pack: bool = False


def get_dataset(
  cfg: DatasetConfig,
  shard_id: int,
  num_shards: int,
  feature_converter_cls: Callable[..., seqio.FeatureConverter],
  num_epochs: int | None = None,
) -> tf.data.Dataset:
  """Reads the batches of a host's shard through seqio, as t5x does."""
  return seqio.get_dataset(
    mixture_or_task_name=cfg.mixture_or_task_name,
    task_feature_lengths=cfg.task_feature_lengths,
    dataset_split=cfg.split,
    shuffle=cfg.shuffle,
    num_epochs=num_epochs,
    feature_converter=feature_converter_cls(
      pack=cfg.pack, use_custom_packing_ops=False
    ),
    shard_info=seqio.ShardInfo(index=shard_id, num_shards=num_shards),
    use_cached=cfg.use_cached,
    seed=int(time.time()) if cfg.seed is None else cfg.seed,
    trim_output_features=True,
    batch_size=cfg.batch_size // num_shards,
  )


class TrainStateInitializer:
  """Initialises train states; holds their shapes and partition specs.

  Attributes:
    global_train_state_shape: the state with shapes in place of arrays.
    train_state_axes: the state with partition specs in place of arrays.
  """

  def __init__(
    self,
    optimizer_def,
    init_fn: Callable[..., PyTree],
    input_shapes: Mapping[str, tuple[int, ...]],
    partitioner: partitioning.PjitPartitioner,
    input_types: Mapping[str, Any],
  ):
    """Constructor.

    Args:
      optimizer_def: the optimizer, or None for inference.
      init_fn: (rng, input_shapes, input_types) -> model variables.
      input_shapes: shapes of a batch's features.
      partitioner: shards the state.
      input_types: dtypes of a batch's features.
    """

    def initialize(rng):
      return train_state_lib.FlaxOptimTrainState.create(
        optimizer_def, init_fn(rng, input_shapes, input_types)
      )

    self.global_train_state_shape = jax.eval_shape(
      initialize, jax.random.PRNGKey(0)
    )
    self.train_state_axes = partitioner.get_mesh_axes(
      self.global_train_state_shape
    )
    # Called with a key, it returns a state on the mesh.
    self.from_scratch = partitioner.partition(
      initialize,
      in_axis_resources=None,
      out_axis_resources=self.train_state_axes,
    )
