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


"""Training data in one global order, whatever the number of hosts.

seqio reads a cache file by file, and hosts divide the files: which examples
make a batch then depends on how many hosts there are. Here the cache has one
order. It takes the files of a split in turn, by name, an example from each,
and passes over a file that has ended; `seqio_cache_tasks` and
`salt_t5x.data.cache_writer` both deal examples evenly to files. Of that order,
repeated epoch after epoch, example i goes to host i mod n.

Every host reads the whole order and parses its own share of it. A batch of
2,048 sequences is some 7 MB in a cache, so that costs little; dividing the
files would tie the order to a number of hosts that divides theirs.
"""

from collections.abc import Callable, Iterator, Mapping
import contextlib
import hashlib
import json
import os
import time
from typing import Any

from absl import logging
from google.protobuf import message
import seqio
import tensorflow as tf

from salt_t5x import files

ENDLESS = tf.int64.max  # epochs
_READ_AHEAD = 1 << 20  # bytes of each file
_LEAST_RECORD = 16  # bytes; a TFRecord's length and checksums
_SEARCH_SECONDS = 300  # for a damaged file


class CachedSource(seqio.DataSource):
  """The cache of another task, in the global order.

  Several tasks can read one cache this way. Examples keep all features of the
  cache and gain 'epoch' (int64 []).
  """

  def __init__(
    self, cached_task: seqio.Task, lengths: Mapping[str, int] | None = None
  ):
    """Constructor.

    Args:
      cached_task: its cache need not exist yet.
      lengths: of the features that have one length in all examples.
    """
    self.cached_task = cached_task
    self.lengths = lengths or {}
    super().__init__(splits=cached_task.splits, caching_permitted=False)

  @property
  def supports_arbitrary_sharding(self) -> bool:
    return True

  def list_shards(self, split: str) -> list[str]:
    """Returns the cache's files in the order in which they take turns.

    Raises:
      FileNotFoundError: there is no cache, or files of it are missing.
      ValueError: its description is damaged.
    """
    count = self._info(split, 'num_shards', _is_count)
    prefix = seqio.get_cached_tfrecord_prefix(self.cached_task.cache_dir, split)
    paths = sorted(tf.io.gfile.glob(f'{prefix}-*-of-{count:05d}'))
    if len(paths) != count:
      raise FileNotFoundError(
        f'{prefix}-*: {len(paths)} files, but the cache was written with '
        f'{count}. Restore those that are missing, or cache the task '
        f'{self.cached_task.name} again.'
      )
    return paths

  def num_input_examples(self, split: str) -> int:
    path = self._path(split, seqio.get_cached_stats_path)
    return _read(path, 'examples', _is_count)

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
      split: of the cached task.
      shuffle: must be False.
      seed: has no effect.
      shard_info: the host and the number of hosts.
      num_epochs: None repeats without end.

    Returns:
      The examples of the host, in order.

    Raises:
      ValueError: shuffling is asked for, or the cache has other lengths.
      FileNotFoundError: there is no cache, or files of it are missing.
    """
    del seed
    if shuffle:
      raise ValueError(
        f'The cache of {self.cached_task.name} is read in one global order: '
        'set utils.DatasetConfig.shuffle = False. (The cache was shuffled when '
        'it was written.)'
      )
    self._check_lengths(split)
    parse = self.parser(split)
    stream = self.stream(split, num_epochs)
    if shard_info:
      stream = stream.shard(shard_info.num_shards, shard_info.index)
    return stream.map(
      lambda epoch, record: {**parse(record), 'epoch': epoch},
      num_parallel_calls=tf.data.AUTOTUNE,
    )

  def stream(self, split: str, num_epochs: int | None) -> tf.data.Dataset:
    """What hosts share: (epoch int64 [], serialized example string []).

    Args:
      split: of the cached task.
      num_epochs: None repeats without end.
    """
    epochs = tf.data.Dataset.range(num_epochs or ENDLESS)
    return epochs.flat_map(
      lambda epoch: self.records(split).map(lambda record: (epoch, record))
    )

  def records(self, split: str) -> tf.data.Dataset:
    """The serialized examples of a split, once, in the global order.

    A file that becomes shorter while it is read is an error, also where it then
    ends with a whole record: the order would silently be another one.
    """
    paths = self.list_shards(split)
    sizes = [tf.io.gfile.stat(file).length for file in paths]

    def read(file, size):
      records = tf.data.TFRecordDataset(file, buffer_size=_READ_AHEAD)
      # Fails if there is no last byte, which is not kept.
      last_byte = tf.data.FixedLengthRecordDataset(
        [file], record_bytes=1, header_bytes=tf.maximum(size - 1, 0)
      )
      return records.concatenate(last_byte.filter(lambda _: False))

    # All files at once: one after the other, each would be waited for in turn
    # where storage is remote. `deterministic` keeps the order.
    dataset = tf.data.Dataset.from_tensor_slices(
      (paths, tf.constant(sizes, tf.int64))
    )
    return dataset.interleave(
      read,
      cycle_length=len(paths),
      block_length=1,
      num_parallel_calls=tf.data.AUTOTUNE,
      deterministic=True,
    )

  def fingerprint(self, split: str) -> str:
    """Tells one cache from another, and finds a copy to be the same.

    Made of the cache's description, the names and sizes of its files, and its
    first example.

    Raises:
      FileNotFoundError: there is no cache, or files of it are missing.
      ValueError: it is damaged.
    """
    digest = hashlib.sha256()
    info = _read(self._path(split, seqio.get_cached_info_path))
    digest.update(json.dumps(info, sort_keys=True).encode())
    total = 0
    for file in self.list_shards(split):
      size = tf.io.gfile.stat(file).length
      digest.update(f'{os.path.basename(file)} {size}\n'.encode())
      total += size
    examples = self.num_input_examples(split)
    if examples * _LEAST_RECORD > total:
      raise ValueError(
        f'{self.cached_task.cache_dir} says that it holds {examples} examples '
        f'of the {split} split, which do not fit into its {total:,} bytes: '
        f'restore its files, or cache {self.cached_task.name} anew.'
      )
    with self.naming_damage(split):
      for record in self.records(split).take(1).as_numpy_iterator():
        digest.update(record)
    return digest.hexdigest()[:16]

  @contextlib.contextmanager
  def naming_damage(self, split: str) -> Iterator[None]:
    """For those who read records: errors name the file.

    Raises:
      ValueError: a record was damaged, or is not of this cache's features.
    """
    try:
      yield
    except (
      message.DecodeError,
      tf.errors.DataLossError,
      tf.errors.InvalidArgumentError,
      UnicodeDecodeError,  # of a message that quotes the record
    ) as e:
      raise ValueError(
        f'The cache {self.cached_task.cache_dir} is damaged: '
        f'{self._damage(split) or e}. Restore that file, or cache the task '
        f'{self.cached_task.name} anew in another folder.'
      ) from e

  def _damage(self, split: str) -> str | None:
    """Tells the first file that is damaged, and where, if it is soon found."""
    logging.warning(
      'The cache of %s is damaged. Looking for the file, for at most %d '
      'seconds.',
      self.cached_task.name,
      _SEARCH_SECONDS,
    )
    end = time.monotonic() + _SEARCH_SECONDS
    parse = self.parser(split)
    for file in self.list_shards(split):
      index = 0
      try:
        for record in tf.data.TFRecordDataset(file):
          parse(record)
          index += 1
          if time.monotonic() > end:
            return None
      except (tf.errors.OpError, UnicodeDecodeError) as e:
        return f'{file}, record {index} (from 0): {e}'
    return None

  def _check_lengths(self, split: str) -> None:
    """Looks at the first example."""
    with self.naming_damage(split):
      examples = [
        tf.train.Example.FromString(record)
        for record in self.records(split).take(1).as_numpy_iterator()
      ]
    for example in examples:
      features = example.features.feature
      for name, length in self.lengths.items():
        found = len(features[name].int64_list.value)
        if found != length:
          raise ValueError(
            f'{self.cached_task.name} is registered with {length} tokens in '
            f'{name!r}, but its cache, {self.cached_task.cache_dir}, has '
            f'{found}: register that, or cache the task anew in another '
            'folder.'
          )

  def parser(self, split: str) -> Callable[[tf.Tensor], dict[str, tf.Tensor]]:
    """Returns what parses a record: an example of scalars and vectors."""
    has_lengths = lambda found: (
      _are_features(found) and self.lengths.keys() <= found.keys()
    )
    features = self._info(split, 'features', has_lengths)
    description, dtypes = {}, {}
    for name, feature in features.items():
      dtypes[name] = tf.dtypes.as_dtype(feature['dtype'])
      # An Example has no other integers.
      stored = tf.int64 if dtypes[name].is_integer else dtypes[name]
      if name in self.lengths:
        shape = [self.lengths[name], *feature['shape'][1:]]
        description[name] = tf.io.FixedLenFeature(shape, stored)
      elif feature['shape']:
        description[name] = tf.io.FixedLenSequenceFeature(
          feature['shape'][1:], stored, allow_missing=True
        )
      else:
        description[name] = tf.io.FixedLenFeature([], stored)

    def parse(record):
      parsed = tf.io.parse_single_example(record, description)
      return {name: tf.cast(parsed[name], dtypes[name]) for name in features}

    return parse

  def _info(
    self, split: str, name: str, is_possible: Callable[[Any], bool]
  ) -> Any:
    path = self._path(split, seqio.get_cached_info_path)
    return _read(path, name, is_possible)

  def _path(self, split: str, of: Callable[[str, str], str]) -> str:
    if not self.cached_task.cache_dir:
      name = self.cached_task.name
      raise FileNotFoundError(
        f'The task {name} is not cached in '
        f'{list(seqio.get_global_cache_dirs())}. Cache it with\n  '
        f'seqio_cache_tasks --tasks={name} --module_import=MODULE '
        '--output_cache_dir=DIR\nand name that DIR in '
        'seqio.add_global_cache_dirs, or with --seqio_additional_cache_dirs.'
      )
    path = of(self.cached_task.cache_dir, split)
    if not tf.io.gfile.exists(path):
      raise FileNotFoundError(
        f'{path} is missing: restore it, or cache the task '
        f'{self.cached_task.name} again.'
      )
    return path


def _read(
  path: str,
  name: str | None = None,
  is_possible: Callable[[Any], bool] = lambda _: True,
) -> Any:
  """What a cache says of itself, or one value of that.

  Raises:
    ValueError: the file is damaged, or has no such value.
  """
  try:
    content = files.read_json_object(path)
    if name is None:
      return content
    value = content.get(name)
    if not is_possible(value):
      raise ValueError(f'{name!r} is {value!r}')
    return value
  except ValueError as e:
    raise ValueError(
      f'{path} is damaged ({e}). Restore it, or cache the task anew in another '
      'folder.'
    ) from e


def _is_count(value: Any) -> bool:
  return type(value) is int and 0 <= value < 2**63


def _is_dtype(value: Any) -> bool:
  try:
    return isinstance(value, str) and bool(tf.dtypes.as_dtype(value))
  except TypeError:
    return False


def _are_features(value: Any) -> bool:
  """Whether this is {name: {'shape': [...], 'dtype': a name}}."""

  def is_one(feature):
    return (
      isinstance(feature, dict)
      and _is_dtype(feature.get('dtype'))
      and isinstance(shape := feature.get('shape'), list)
      # Only the first dimension may vary.
      and all(
        _is_count(x) or (x is None and not i) for i, x in enumerate(shape)
      )
    )

  return isinstance(value, dict) and all(map(is_one, value.values()))


class TrainingSubset(CachedSource):
  """The training split, to evaluate on its beginning (Fig. 3 and 8).

  Its one split, 'validation', is the cache's 'train'; a run that evaluates its
  first EVAL_STEPS batches always sees the same sequences.
  """

  def __init__(
    self, cached_task: seqio.Task, lengths: Mapping[str, int] | None = None
  ):
    """See `CachedSource`."""
    super().__init__(cached_task, lengths)
    self._splits = ('validation',)

  def num_input_examples(self, split: str) -> int:
    del split
    return super().num_input_examples('train')

  def get_dataset(self, split: str = 'validation', *args, **kwargs):
    del split
    return super().get_dataset('train', *args, **kwargs)


class OrderedTask(seqio.Task):
  """A task over a `CachedSource` whose epochs join without a seam.

  seqio repeats the share of each host by itself. If the hosts do not divide
  the examples evenly, another epoch then begins with some hosts ahead.
  """

  def reading(self, source: CachedSource) -> 'OrderedTask':
    """The same task over another source; it is not registered."""
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
    use_cached: bool = False,
    shuffle: bool = False,
    shuffle_buffer_size: int | None = None,
    seed: int | None = None,
    shard_info: seqio.ShardInfo | None = None,
    num_epochs: int | None = 1,
    trim_output_features: bool = True,
    try_in_mem_cache: bool = True,
  ) -> tf.data.Dataset:
    """See `seqio.Task`; the cache is read whatever `use_cached` says."""
    del use_cached, shuffle_buffer_size, try_in_mem_cache

    def read(split, shuffle_files, seed=None):
      del seed
      return self.source.get_dataset(
        split, shuffle_files, shard_info=shard_info, num_epochs=num_epochs
      )

    task = seqio.Task(
      self.name,
      source=seqio.FunctionDataSource(read, splits=self.splits),
      output_features=self.output_features,
      preprocessors=self.preprocessors,
      shuffle_buffer_size=None,
    )
    return task.get_dataset(
      sequence_length,
      split=split,
      shuffle=shuffle,
      seed=seed,
      trim_output_features=trim_output_features,
    )


def get_task(name: str, parameter: str = 'MIXTURE_OR_TASK_NAME') -> OrderedTask:
  """Finds a task that reads one cache in its global order.

  Args:
    name: of a registered task.
    parameter: the gin parameter that names it, for messages.

  Raises:
    ValueError: the task or mixture reads its data in another way.
  """
  try:
    task = seqio.get_mixture_or_task(name)
  except (AssertionError, ValueError) as e:
    raise ValueError(
      f'{parameter} = {name!r}: there is no such task ({e}). Name a task, and '
      'import the module that registers it.'
    ) from e
  if not (
    isinstance(task, OrderedTask) and isinstance(task.source, CachedSource)
  ):
    raise ValueError(
      f'{parameter} = {name!r}: examples are scored, selected and measured in '
      'the global order of one cache. Set it to a task over a '
      'global_order.CachedSource, such as those of text_tasks.register.'
    )
  return task
