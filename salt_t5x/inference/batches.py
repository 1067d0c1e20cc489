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

"""Programs over batches of sequences, the same on every host."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
import tqdm

from salt_t5x import models
from t5x import partitioning

PyTree = Any
# (parameters, arrays [n, ...] of at most B rows) -> NumPy arrays [n, ...]
Program = Callable[..., PyTree]


def progress_bar(
  total: int, unit: str, label: str = '', hidden: bool = False, **options: Any
) -> tqdm.tqdm:
  """Returns a progress bar, shown on the first host if on a terminal."""
  options['disable'] = hidden or jax.process_index() > 0 or None
  return tqdm.tqdm(total=total, desc=label, unit=unit, **options)


def feature_shapes(batch_size: int, length: int) -> dict[str, Any]:
  """Shapes and dtypes of the features of [B, T] targets."""
  return jax.eval_shape(
    models.features_of, jax.ShapeDtypeStruct((batch_size, length), np.int32)
  )


class GlobalBatches:
  """Batches of B rows, made of data that is replicated on every host.

  Attributes:
    batch_size: B.
    chunk: tokens whose logits may exist at one time, over all devices.
  """

  def __init__(
    self, partitioner: partitioning.BasePartitioner, batch_size: int
  ):
    """Constructor.

    Args:
      partitioner: shards the batch.
      batch_size: B, a multiple of the devices that share a batch.

    Raises:
      ValueError: the devices cannot share the batch.
    """
    devices = partitioner.mesh.shape['data']
    if type(batch_size) is not int or batch_size < 1 or batch_size % devices:
      raise ValueError(
        f'batch_size = {batch_size!r} (BATCH_SIZE) is not a multiple of the '
        f'{devices} devices that share a batch.'
      )
    self.batch_size = batch_size
    # On CPUs the logits of a chunk should fit the cache.
    self.chunk = devices * (128 if jax.default_backend() == 'cpu' else 1024)
    self._partitioner = partitioner
    self._spec = partitioner.data_partition_spec
    self._sharding = jax.sharding.NamedSharding(partitioner.mesh, self._spec)

  def program(self, function: Callable[..., PyTree], axes: PyTree) -> Program:
    """Partitions a function, which is compiled for each shape it is called on.

    Args:
      function: (parameters, *arrays) -> a tree of arrays, all of B rows.
      axes: partition specs of the parameters.

    Returns:
      The same function of NumPy arrays, of 1 to B rows. The last row is
      repeated to fill the batch.
    """
    partitioned = self._partitioner.partition(
      lambda params, arrays: function(params, *arrays),
      in_axis_resources=(axes, self._spec),
      out_axis_resources=None,
    )

    def run(params, *arrays):
      count = len(arrays[0])
      found = partitioned(params, tuple(map(self._put, arrays)))
      return jax.tree.map(lambda x: np.asarray(x)[:count], found)

    return run

  def _put(self, rows: np.ndarray) -> jax.Array:
    spare = self.batch_size - len(rows)
    batch = np.concatenate([rows, np.repeat(rows[-1:], spare, axis=0)])
    return jax.make_array_from_callback(
      batch.shape, self._sharding, batch.__getitem__
    )

  def split(self, *arrays: np.ndarray) -> Iterator[tuple[np.ndarray, ...]]:
    """Yields the arrays' rows, at most B at a time."""
    for start in range(0, len(arrays[0]), self.batch_size):
      yield tuple(x[start : start + self.batch_size] for x in arrays)

  def count(self, rows: int) -> int:
    """Returns the number of batches that some rows take."""
    return -(-rows // self.batch_size)
