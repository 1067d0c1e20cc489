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
import functools
from typing import Any

import numpy as np
import seqio
import tensorflow as tf

_TRIED = 16  # examples


class OrderedSource(seqio.DataSource):
  """Examples in one global order, of which host i of n reads every n-th."""

  @property
  def supports_arbitrary_sharding(self) -> bool:
    return True

  def fingerprint(self, split: str) -> str:
    """Identifies the examples of a split and their order."""
    raise NotImplementedError

  def stream(
    self, split: str, num_epochs: int | None, start: int = 0
  ) -> tf.data.Dataset:
    """Returns what hosts share: cheap elements, one for each example.

    Args:
      split: one of the splits.
      num_epochs: None repeats without end.
      start: the position to begin at, found without reading what is before.
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
    start: int = 0,
  ) -> tf.data.Dataset:
    """Reads a host's share.

    Args:
      split: one of the splits.
      shuffle: must be False.
      seed: has no effect.
      shard_info: the host and the number of hosts.
      num_epochs: None repeats without end.
      start: the position of the first host's first example.

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
    stream = self.stream(split, num_epochs, start)
    if shard_info:
      stream = stream.shard(shard_info.num_shards, shard_info.index)
    return stream.map(expand, num_parallel_calls=tf.data.AUTOTUNE)


class OrderedTask(seqio.Task):
  """A task over an `OrderedSource` whose epochs join without a seam.

  seqio repeats the share of each host by itself. If the hosts do not divide
  the examples evenly, another epoch then begins with some hosts ahead.
  """

  _start = 0

  def reading(self, source: seqio.DataSource, start: int = 0) -> 'OrderedTask':
    """Returns the same task over another source, from a position on.

    It is not registered.
    """
    task = OrderedTask(
      self.name,
      source=source,
      output_features=self.output_features,
      preprocessors=self.preprocessors,
      shuffle_buffer_size=None,
    )
    task._start = start
    return task

  def maps_examples(
    self, sequence_length: Mapping[str, int], split: str
  ) -> bool:
    """Whether each example becomes one, whatever the position begun at.

    It tries the preprocessors on made-up examples from two positions on: those
    that shuffle, count or draw seeds in turn give others then. tf.data itself
    knows which filter.
    """
    key = tuple(sorted(sequence_length.items())), split
    # Tracing takes seconds, and a run asks several times.
    if key not in self._maps_examples:
      self._maps_examples[key] = self._try(sequence_length, split)
    return self._maps_examples[key]

  @functools.cached_property
  def _maps_examples(self) -> dict[Any, bool]:
    return {}

  def _try(self, sequence_length: Mapping[str, int], split: str) -> bool:
    spec = self.source.get_dataset(split).element_spec

    def read(start):
      examples = tf.data.Dataset.range(start, _TRIED).map(
        lambda place: tf.nest.map_structure(lambda x: _make(x, place), spec)
      )
      source = seqio.FunctionDataSource(
        lambda split, shuffle_files, seed=None: examples, self.splits
      )
      return seqio.Task.get_dataset(
        self.reading(source), sequence_length, split, shuffle=False, seed=0
      )

    first = _TRIED // 2
    everything = read(0)
    if everything.cardinality() != _TRIED:
      return False
    pairs = zip(
      everything.skip(first).as_numpy_iterator(),
      read(first).as_numpy_iterator(),
      strict=True,
    )
    return all(
      np.array_equal(x, y)
      for a, b in pairs
      for x, y in zip(tf.nest.flatten(a), tf.nest.flatten(b), strict=True)
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
        split,
        shuffle_files,
        shard_info=shard_info,
        num_epochs=num_epochs,
        start=self._start,
      )

    options |= {'use_cached': False, 'try_in_mem_cache': False}
    return seqio.Task.get_dataset(
      self.reading(seqio.FunctionDataSource(read, self.splits)),
      sequence_length,
      split,
      shuffle=shuffle,
      **options,
    )


def _make(spec: tf.TensorSpec, place: tf.Tensor) -> tf.Tensor:
  """Makes up the value of a feature; it depends on the place, int64 []."""
  shape = [size or 1 for size in spec.shape]
  if spec.dtype == tf.string:
    return tf.fill(shape, tf.strings.as_string(place))
  return tf.fill(shape, tf.cast(place + 3, spec.dtype))
