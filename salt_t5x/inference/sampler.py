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

"""Drawing many sequences, batch by batch, each of which is kept on disk."""

import functools
from typing import Any

from etils import epath
import jax
from jax.experimental import multihost_utils
import numpy as np
import tqdm

from salt_t5x import files
from salt_t5x.inference import batches as batches_lib
from salt_t5x.inference import sampling
from t5x import models as t5x_models
from t5x import partitioning

PyTree = Any


class Drawer:
  """Continues sequences with one model; see `completions.draw`."""

  def __init__(
    self,
    model: t5x_models.DecoderOnlyModel,
    params: PyTree,
    axes: PyTree,
    partitioner: partitioning.BasePartitioner,
    batch_size: int,
    seed: int,
  ):
    """Constructor; compiles nothing yet.

    Args:
      model: draws.
      params: its parameters, on the partitioner's mesh.
      axes: their partition specs.
      partitioner: shards the batch.
      batch_size: B, a multiple of the devices that share a batch.
      seed: of all draws.

    Raises:
      ValueError: the batch cannot be shared by the devices.
    """
    self._batches = batches_lib.WholeBatches(partitioner, batch_size)
    self.batch_size, self._params = batch_size, params
    spec = self._batches.spec
    self._draw = partitioner.partition(
      functools.partial(sampling.draw, model, seed=seed),
      in_axis_resources=(axes, spec, spec, spec),
      out_axis_resources=None,
    )

  def batches(self, count: int) -> int:
    """How many batches `count` sequences take."""
    return -(-count // self.batch_size)

  def draw(
    self,
    tokens: np.ndarray,
    lengths: np.ndarray,
    names: np.ndarray,
    prefix: str,
    progress: tqdm.tqdm,
  ) -> np.ndarray:
    """Draws what is not on disk yet; call it on all hosts.

    Args:
      tokens: [n, T] int, whose beginnings are given.
      lengths: [n] int, how much of each.
      names: [n, k] int, what tells draws apart.
      prefix: of the files, which belong to these arguments.
      progress: is advanced by a batch at a time.

    Returns:
      [n, T] int32.
    """
    found = []
    for start in range(0, len(tokens), self.batch_size):
      rows = slice(start, start + self.batch_size)
      path = f'{prefix}_{start:09d}.bin'
      shape = tokens[rows].shape
      drawn = _read(path, shape)
      if drawn is None:
        drawn = self.run(tokens[rows], lengths[rows], names[rows])
        if jax.process_index() == 0:
          files.write_whole(path, drawn.astype('<i4').tobytes())
      found.append(drawn)
      progress.update()
    return np.concatenate(found)

  def run(
    self, tokens: np.ndarray, lengths: np.ndarray, names: np.ndarray
  ) -> np.ndarray:
    """Draws up to B sequences."""
    arrays = [
      self._batches.put_some(np.asarray(x, np.int32))
      for x in (tokens, lengths, names)
    ]
    return np.asarray(self._draw(self._params, *arrays))[: len(tokens)]


def _read(path: str, shape: tuple[int, int]) -> np.ndarray | None:
  """What was written, on all hosts; None if any of them lacks it."""
  drawn, file = None, epath.Path(path)
  if file.exists():
    values = np.frombuffer(file.read_bytes(), '<i4')
    if values.size == shape[0] * shape[1]:
      drawn = values.reshape(shape)
  if jax.process_count() > 1:
    there = multihost_utils.process_allgather(np.array(drawn is not None))
    if not np.all(there):
      return None
  return drawn
