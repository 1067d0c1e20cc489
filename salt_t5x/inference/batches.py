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


"""Batches that each host has whole: it gives its devices their parts.

So are those of jobs that run a model on a few sequences at a time, the same on
all hosts (`scorer`, `language_model`).
"""

import jax
import numpy as np

from t5x import partitioning


class WholeBatches:
  """Batches of B sequences.

  Attributes:
    spec: how arrays are cut.
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
    self._batch_size = batch_size
    self.spec = partitioner.data_partition_spec
    # A cache's worth of logits on CPUs; enough to be busy with on others.
    self.chunk = devices * (128 if jax.default_backend() == 'cpu' else 1024)
    self._sharding = jax.sharding.NamedSharding(partitioner.mesh, self.spec)

  def put(self, array: np.ndarray) -> jax.Array:
    """Puts an array of B rows on the devices; call it on all hosts."""
    return jax.make_array_from_callback(
      array.shape, self._sharding, array.__getitem__
    )

  def put_some(self, array: np.ndarray) -> jax.Array:
    """`put` for at most B rows; the last one fills the batch up."""
    spare = self._batch_size - len(array)
    return self.put(np.concatenate([array, np.repeat(array[-1:], spare, 0)]))
