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

"""Sources and tasks whose examples have one global order."""

from collections.abc import Callable, Mapping
from typing import Any

import seqio
import tensorflow as tf

ENDLESS = tf.int64.max  # epochs


class OrderedSource(seqio.DataSource):
  """Examples in one global order, of which host i of n reads every n-th."""

  @property
  def supports_arbitrary_sharding(self) -> bool:
    return True

  def fingerprint(self, split: str) -> str:
    """Identifies the examples of a split and their order."""
    raise NotImplementedError

  def stream(self, split: str, num_epochs: int | None) -> tf.data.Dataset:
    """Returns what hosts share: cheap elements, one for each example.

    Args:
      split: one of the splits.
      num_epochs: None repeats without end.
    """
    raise NotImplementedError

  def expander(self, split: str) -> Callable[..., dict[str, tf.Tensor]]:
    """Returns the function from an element of the stream to its example."""
    raise NotImplementedError

  def get_dataset(
    self,
    split: str = 'train',
    shuffle: bool = False,
    seed: int | None = None,
    shard_info: seqio.ShardInfo | None = None,
    *,
    num_epochs: int | None = 1,
  ) -> tf.data.Dataset:
    """Reads a host's share.

    Args:
      split: one of the splits.
      shuffle: must be False.
      seed: has no effect.
      shard_info: the host and the number of hosts.
      num_epochs: None repeats without end.

    Returns:
      The examples of the host, in order.

    Raises:
      ValueError: shuffling is requested, or the data is damaged.
      FileNotFoundError: the data, or a part of it, is missing.
    """
    del seed
    if shuffle:
      raise ValueError(
        'utils.DatasetConfig.shuffle = True: these examples have one global '
        'order. Set utils.DatasetConfig.shuffle = False; training data is '
        'shuffled already.'
      )
    expand = self.expander(split)
    stream = self.stream(split, num_epochs)
    if shard_info:
      stream = stream.shard(shard_info.num_shards, shard_info.index)
    return stream.map(expand, num_parallel_calls=tf.data.AUTOTUNE)


class OrderedTask(seqio.Task):
  """A task over an `OrderedSource` whose epochs join without a seam.

  seqio repeats the share of each host by itself. If the hosts do not divide
  the examples evenly, another epoch then begins with some hosts ahead.
  """

  def reading(self, source: seqio.DataSource) -> 'OrderedTask':
    """Returns the same task over another source; it is not registered."""
    return OrderedTask(
      self.name,
      source=source,
      output_features=self.output_features,
      preprocessors=self.preprocessors,
      shuffle_buffer_size=None,
    )

  def get_dataset(
    self,
    sequence_length: Mapping[str, int] | None = None,
    split: str = 'train',
    *,
    shuffle: bool = False,
    shard_info: seqio.ShardInfo | None = None,
    num_epochs: int | None = 1,
    **options: Any,
  ) -> tf.data.Dataset:
    """See `seqio.Task`; `use_cached` has no effect."""

    def read(split, shuffle_files, seed=None):
      del seed
      return self.source.get_dataset(
        split, shuffle_files, shard_info=shard_info, num_epochs=num_epochs
      )

    options |= {'use_cached': False, 'try_in_mem_cache': False}
    return seqio.Task.get_dataset(
      self.reading(seqio.FunctionDataSource(read, self.splits)),
      sequence_length,
      split,
      shuffle=shuffle,
      **options,
    )
