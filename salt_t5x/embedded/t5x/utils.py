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
import os
import time
from typing import Any

from absl import logging
from clu.data import dataset_iterator
import flax
from flax import traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import seqio
import tensorflow as tf

from t5x import _subset, checkpoints, partitioning
from t5x import train_state as train_state_lib

Array = jax.Array
PyTree = Any

__getattr__ = _subset.missing(__name__)


@_subset.subset_of_t5x
@dataclasses.dataclass
class SaveCheckpointConfig:
  """When and how checkpoints are saved; see t5x's documentation."""

  dtype: str | None = 'float32'
  period: int | None = None
  checkpoint_steps: Sequence[int] | None = None
  keep: int | None = None
  save_dataset: bool = False
  checkpoint_manager_cls: Callable[..., Any] = (
    checkpoints.OrbaxCheckpointManagerInterface
  )


@_subset.subset_of_t5x
@dataclasses.dataclass
class RestoreCheckpointConfig:
  """The checkpoint that a new run starts from; see t5x's documentation."""

  path: str | Sequence[str] = ()
  mode: str = 'latest'
  dtype: str | None = None


@_subset.subset_of_t5x
@dataclasses.dataclass
class CheckpointConfig:
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
  use_memory_cache: bool = True
  trim_output_features: bool = True


class ShardedDatasetIterator(dataset_iterator.PeekableDatasetIterator):
  """Puts each batch on the mesh."""

  def __init__(self, iterator: dataset_iterator.DatasetIterator, partitioner):
    super().__init__(iterator)
    self._sharding = partitioner.shardings(partitioner.data_partition_spec)

  def __next__(self):
    return jax.device_put(super().__next__(), self._sharding)


def prepare_train_iter(
  dataset: tf.data.Dataset, *, partitioner
) -> ShardedDatasetIterator:
  """Returns a checkpointable iterator of sharded batches."""
  return ShardedDatasetIterator(
    dataset_iterator.TfDatasetIterator(dataset, checkpoint=True), partitioner
  )


def get_dataset(
  cfg: DatasetConfig,
  shard_id: int,
  num_shards: int,
  feature_converter_cls: Callable[..., seqio.FeatureConverter],
  num_epochs: int | None = None,
) -> tf.data.Dataset:
  """Reads the batches of a host's shard through seqio, as t5x does."""
  seed = int(time.time()) if cfg.seed is None else cfg.seed
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
    seed=seed,
    trim_output_features=cfg.trim_output_features,
    batch_size=cfg.batch_size // num_shards,
  )


def get_training_eval_datasets(
  cfg: DatasetConfig,
  eval_steps: int,
  feature_converter_cls: Callable[..., seqio.FeatureConverter],
) -> dict[str, tf.data.Dataset]:
  """Returns the first `eval_steps` batches of each task's split."""
  provider = seqio.get_mixture_or_task(cfg.mixture_or_task_name)
  names = [
    t.name for t in seqio.get_subtasks(provider) if cfg.split in t.splits
  ]
  if isinstance(provider, seqio.Mixture):
    names.append(provider.name)
  datasets = {}
  for name in names:
    dataset = get_dataset(
      dataclasses.replace(cfg, mixture_or_task_name=name, batch_size=1),
      shard_id=0,
      num_shards=1,
      feature_converter_cls=feature_converter_cls,
      num_epochs=eval_steps * cfg.batch_size,
    )
    dataset = dataset.unbatch().repeat()
    dataset = dataset.batch(cfg.batch_size, drop_remainder=True)
    dataset = dataset.take(eval_steps)
    datasets[name] = dataset.cache() if cfg.use_memory_cache else dataset
  return datasets


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
    input_types: Mapping[str, Any] | None = None,
  ):
    """Constructor.

    Args:
      optimizer_def: the optimizer, or None for an `InferenceState`.
      init_fn: (rng, input_shapes, input_types) -> model variables.
      input_shapes: shapes of a batch's features.
      partitioner: shards the state.
      input_types: dtypes of a batch's features.
    """

    def initialize(rng):
      variables = init_fn(
        rng=rng, input_shapes=input_shapes, input_types=input_types
      )
      if optimizer_def is None:
        return train_state_lib.InferenceState.create(variables)
      return train_state_lib.FlaxOptimTrainState.create(
        optimizer_def, variables
      )

    self._initialize = initialize
    self._partitioner = partitioner
    self.global_train_state_shape = jax.eval_shape(
      initialize, jax.random.PRNGKey(0)
    )
    self.train_state_axes = partitioner.get_mesh_axes(
      self.global_train_state_shape
    )

  def from_scratch(self, init_rng: Array):
    """Initialises a state on the mesh."""
    return self._partitioner.partition(
      self._initialize,
      in_axis_resources=None,
      out_axis_resources=self.train_state_axes,
    )(init_rng)


def find_restore_path(
  model_dir: str, restore: RestoreCheckpointConfig | None
) -> str | None:
  """Returns the path of the run's newest checkpoint, or else `restore`'s."""
  places = [RestoreCheckpointConfig(path=model_dir)]
  if restore is not None and restore.path:
    places.append(restore)
  for place in places:
    if place.mode == 'specific':
      return place.path
    if place.mode != 'latest' or not isinstance(place.path, str):
      _subset.refuse(f'restoring {place}')
    if not tf.io.gfile.isdir(place.path):
      raise ValueError(
        f'utils.RestoreCheckpointConfig.path = {place.path!r} is no directory: '
        'name the model directory of a finished run.'
      )
    if steps := checkpoints.all_steps(place.path):
      return os.path.join(place.path, f'checkpoint_{steps[-1]}')
  return None


def log_model_info(
  log_file: str, train_state_shape, partitioner: partitioning.PjitPartitioner
):
  """Writes the shape and sharding of each parameter, and the total size."""
  flatten = lambda tree: traverse_util.flatten_dict(
    flax.core.unfreeze(tree), sep='/'
  )
  shapes = flatten(train_state_shape.params)
  specs = flatten(partitioner.get_mesh_axes(train_state_shape).params)
  lines = [f'{k}: {v.shape} {specs[k]}' for k, v in sorted(shapes.items())]
  count = sum(int(np.prod(v.shape)) for v in shapes.values())
  lines.append(f'Total number of parameters: {count}')
  logging.info('%s', lines[-1])
  with tf.io.gfile.GFile(log_file, 'w') as f:
    f.write('\n'.join(lines) + '\n')


def zeros_like_spec(spec: Mapping[str, Any]) -> dict[str, Array]:
  """Returns a batch of zeros with a data set's `element_spec`."""

  def dtype(s):
    return s.dtype.as_numpy_dtype if isinstance(s, tf.TensorSpec) else s.dtype

  return {k: jnp.zeros(tuple(s.shape), dtype(s)) for k, s in spec.items()}
