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


"""Reads a cache in one global order, whatever the number of hosts.

seqio reads a cache file by file, and hosts divide the files, so the examples of
a batch depend on the number of hosts. `CachedSource` gives the cache one order:
it takes an example from each file of a split in turn, by name, and skips files
that have ended. (`seqio_cache_tasks` and `salt_t5x.data.cache_writer` both deal
examples evenly to files.) That order is repeated epoch after epoch, and example
i goes to host i mod n.

Every host reads the whole order and parses only its share. A batch of 2,048
sequences is some 7 MB in a cache, so that is cheap; dividing the files would
tie the order to a number of hosts that divides theirs.
"""

from collections.abc import Callable, Iterator, Mapping
import contextlib
import hashlib
import json
import os
import time
from typing import Any, NoReturn

from absl import logging
from google.protobuf import message
import numpy as np
import seqio
import tensorflow as tf

from salt_t5x import command, files
from salt_t5x.data import ordered_tasks, vocabularies

_READ_AHEAD = 1 << 20  # bytes of each file
_SEARCH_SECONDS = 300  # for a damaged file
_DAMAGE = (
  message.DecodeError,
  tf.errors.DataLossError,
  tf.errors.InvalidArgumentError,
  UnicodeDecodeError,  # of a message that quotes the record
)


class CachedSource(ordered_tasks.OrderedSource):
  """The cache of another task, in the global order.

  Several tasks can read one cache this way. Examples keep all features of the
  cache but `vocabularies.FINGERPRINT`, which must be that of the cached task's
  vocabulary if it is there, and gain 'epoch' (int64 []).
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

  def list_shards(self, split: str) -> list[str]:
    """Returns the cache's files in the order in which they take turns.

    Raises:
      FileNotFoundError: there is no cache, or files of it are missing.
      ValueError: its description is damaged.
    """
    count = self._count(split, seqio.get_cached_info_path, 'num_shards')
    prefix = seqio.get_cached_tfrecord_prefix(self.cached_task.cache_dir, split)
    pattern = f'{files.pattern(prefix)}-*-of-{count:05d}'
    paths = sorted(tf.io.gfile.glob(pattern))
    if len(paths) != count:
      raise FileNotFoundError(
        f'{prefix}-*: {len(paths)} files, but the cache was written with '
        f'{count}. Restore those that are missing, or cache the task '
        f'{self.cached_task.name} again.'
      )
    return paths

  def num_input_examples(self, split: str) -> int:
    return self._count(split, seqio.get_cached_stats_path, 'examples')

  def expander(self, split: str) -> Callable[..., dict[str, tf.Tensor]]:
    """See `OrderedSource`."""
    parse = self.parser(split)
    return lambda epoch, record: {**parse(record), 'epoch': epoch}

  def stream(self, split: str, num_epochs: int | None) -> tf.data.Dataset:
    """See `OrderedSource`: (epoch int64 [], serialized example string [])."""
    epochs = tf.data.Dataset.range(num_epochs or ordered_tasks.ENDLESS)
    return epochs.flat_map(
      lambda epoch: self.records(split).map(lambda record: (epoch, record))
    )

  def records(self, split: str) -> tf.data.Dataset:
    """Returns the serialized examples of a split, once, in the global order.

    A file that shrinks while it is read is an error, even if it then ends with
    a whole record: the order would change silently.
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
    """Identifies a cache; copies have the same fingerprint.

    It hashes the cache's description, the names and sizes of its files, and the
    first example of each: hashing all would take hours. Raises as `check` does.
    """
    self.check(split)
    digest = hashlib.sha256()
    info = self._describe(split, seqio.get_cached_info_path, dict)
    digest.update(json.dumps(info, sort_keys=True).encode())
    paths = self.list_shards(split)
    for file in paths:
      size = tf.io.gfile.stat(file).length
      digest.update(f'{os.path.basename(file)} {size}\n'.encode())
    with self.naming_damage(split):
      for record in self.records(split).take(len(paths)).as_numpy_iterator():
        digest.update(record)
    return digest.hexdigest()[:16]

  @contextlib.contextmanager
  def naming_damage(self, split: str) -> Iterator[None]:
    """Makes errors in reading records name the file.

    Raises:
      ValueError: a record is damaged, or lacks a feature of this cache.
    """
    try:
      yield
    except _DAMAGE as e:
      raise ValueError(
        f'The cache {self.cached_task.cache_dir} is damaged: '
        f'{self._damage(split) or e}. Restore that file, or cache the task '
        f'{self.cached_task.name} again in another folder.'
      ) from e

  def _damage(self, split: str) -> str | None:
    """Names the first damaged file and its record, if the search is short."""
    logging.warning('Looking for the damaged file, for %d s.', _SEARCH_SECONDS)
    end = time.monotonic() + _SEARCH_SECONDS
    parse = self._parser(split)
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

  def check(self, split: str) -> None:
    """Compares lengths and vocabulary with those of the first example.

    Raises:
      FileNotFoundError: there is no cache, or files of it are missing.
      ValueError: they differ, or the cache is damaged or empty.
    """
    task = self.cached_task
    with self.naming_damage(split):
      found = list(self.records(split).take(1).as_numpy_iterator())
      if not found:
        self._raise_empty(split)
      features = tf.train.Example.FromString(found[0]).features.feature
    sizes = {name: len(x.int64_list.value) for name, x in features.items()}
    for name, length in self.lengths.items():
      if sizes.get(name, 0) != length:
        raise ValueError(
          f'{task.name} is registered with {length} tokens in {name!r}, but '
          f'its cache, {task.cache_dir}, has {sizes.get(name, 0)}: register '
          'that, or cache the task again in another folder.'
        )
    if vocabularies.FINGERPRINT not in features:
      vocabularies.warn_of_unknown(task.name, task.cache_dir)
      return
    cached = list(features[vocabularies.FINGERPRINT].int64_list.value)
    vocabulary = task.output_features['targets'].vocabulary
    parameter = f'The vocabulary of the task {task.name}'
    mine = vocabularies.fingerprint_number(vocabulary, parameter)
    if cached != [mine]:
      raise ValueError(
        f'The task {task.name} has the vocabulary {vocabulary} (fingerprint '
        f'{mine}), but its cache, {task.cache_dir}, was made with another '
        f'(fingerprint {cached}). Register the task with the vocabulary it was '
        'cached with, or cache it again in another folder.'
      )

  def parser(self, split: str) -> Callable[[tf.Tensor], dict[str, tf.Tensor]]:
    """Returns the parser of a record; raises as `check` does."""
    self.check(split)
    return self._parser(split)

  def _parser(self, split: str) -> Callable[[tf.Tensor], dict[str, tf.Tensor]]:
    """Parses an example of scalars and vectors."""

    def read_specs(info):
      specs = {
        name: tf.TensorSpec(feature['shape'], feature['dtype'])
        for name, feature in dict(info['features']).items()
        if name != vocabularies.FINGERPRINT
      }
      for name in [*self.lengths, *specs]:
        # Only the first dimension may vary.
        if not specs[name].shape[1:].is_fully_defined():
          raise ValueError(f'{name!r} has the shape {specs[name].shape}')
      return specs

    specs = self._describe(split, seqio.get_cached_info_path, read_specs)
    description = {}
    for name, spec in specs.items():
      # An Example has no other integers.
      stored = tf.int64 if spec.dtype.is_integer else spec.dtype
      rest = spec.shape[1:].as_list()
      if name in self.lengths:
        shape = [self.lengths[name], *rest]
        description[name] = tf.io.FixedLenFeature(shape, stored)
      elif spec.shape.rank:
        description[name] = tf.io.FixedLenSequenceFeature(
          rest, stored, allow_missing=True
        )
      else:
        description[name] = tf.io.FixedLenFeature([], stored)

    def parse(record):
      parsed = tf.io.parse_single_example(record, description)
      return {
        name: tf.cast(parsed[name], spec.dtype) for name, spec in specs.items()
      }

    return parse

  def _count(
    self, split: str, path_of: Callable[[str, str], str], name: str
  ) -> int:
    def parse(content):
      count = content[name]
      if type(count) is not int or not 0 <= count < 2**63:
        raise ValueError(f'{name!r} is {count!r}')
      return count

    return self._describe(split, path_of, parse)

  def _describe(
    self,
    split: str,
    path_of: Callable[[str, str], str],
    parse: Callable[[dict[str, Any]], Any],
  ) -> Any:
    """Parses a JSON file that describes the cache."""
    task = self.cached_task
    if not task.cache_dir:
      raise FileNotFoundError(
        f'The task {task.name} is not cached in '
        f'{list(seqio.get_global_cache_dirs())}. Cache it with\n  '
        f'seqio_cache_tasks --tasks={task.name} --module_import=MODULE '
        '--output_cache_dir=DIR\nand name that DIR in '
        'seqio.add_global_cache_dirs, or with --seqio_additional_cache_dirs.'
      )
    path = path_of(task.cache_dir, split)
    if not tf.io.gfile.exists(path):
      raise FileNotFoundError(
        f'{path} is missing: restore it, or cache the task {task.name} again.'
      )
    try:
      content = files.read_json_object(path)
      if content:
        return parse(content)
    except (KeyError, OverflowError, TypeError, ValueError) as e:
      raise ValueError(
        f'{path} is damaged ({e!r}). Restore it, or cache the task again in '
        'another folder.'
      ) from e
    self._raise_empty(split)

  def _raise_empty(self, split: str) -> NoReturn:
    raise ValueError(
      f'The {split} split of the cache {self.cached_task.cache_dir} is empty: '
      f'cache {self.cached_task.name} again in another folder, from more data.'
    )


class TrainingSubset(CachedSource):
  """The training split, for evaluation on its beginning (Fig. 3 and 8).

  Its one split, 'validation', is the cache's 'train'; a run that evaluates its
  first EVAL_STEPS batches always sees the same sequences.
  """

  def __init__(self, *args, **kwargs):
    """See `CachedSource`."""
    super().__init__(*args, **kwargs)
    self._splits = ('validation',)

  def num_input_examples(self, split: str) -> int:
    del split
    return super().num_input_examples('train')

  def get_dataset(self, split: str = 'validation', *args, **kwargs):
    del split
    return super().get_dataset('train', *args, **kwargs)


def get_task(
  name: str, parameter: str = 'MIXTURE_OR_TASK_NAME'
) -> ordered_tasks.OrderedTask:
  """Finds a task that reads one cache in its global order.

  Args:
    name: of a registered task.
    parameter: the gin parameter that names it, for messages.

  Raises:
    ValueError: there is none, or it reads its data in another way.
  """
  task = command.get_task(name, f'{parameter} = {name!r}')
  if not (
    isinstance(task, ordered_tasks.OrderedTask)
    and isinstance(task.source, CachedSource)
  ):
    raise ValueError(
      f'{parameter} = {name!r}: it does not read one cache in the global order '
      'in which examples are scored, selected and measured. Name a task over '
      'an ordered_cache.CachedSource, such as those of text_tasks.register.'
    )
  return task


def read_sequences(
  name: str,
  split: str,
  examples: int | None = None,
  parameter: str = 'HELD_OUT_TASK',
) -> list[tuple[str, np.ndarray]]:
  """Reads the whole sequences of a cache, in its global order.

  Args:
    name: a task over a `CachedSource`; its denoising and trimming do not apply.
    split: a split of the cache, e.g. 'validation'.
    examples: the number of sequences from the first; None for all.
    parameter: the gin parameter that names the task, for messages.

  Returns:
    (domain, tokens, int32 [t]) of each sequence that has tokens; the domain is
    '' if the cache has none.

  Raises:
    ValueError: the task reads its data in another way, its split has no tokens,
      or its cache is damaged.
  """
  source = get_task(name, parameter).source
  available = source.num_input_examples(split)
  count = available if examples is None else min(examples, available)
  records = source.records(split).map(source.parser(split))
  records = records.take(-1 if examples is None else count)
  with source.naming_damage(split):
    found = [
      (
        example.get('domain', b'').decode(errors='backslashreplace'),
        example['targets'][example['targets'] > 0],
      )
      for example in records.as_numpy_iterator()
    ]
  if len(found) != count:
    raise ValueError(
      f'The cache {source.cached_task.cache_dir} is described as {available} '
      f'examples of the {split} split, but has {len(found)}: restore its '
      f'files, or cache {source.cached_task.name} again.'
    )
  found = [(domain, tokens) for domain, tokens in found if len(tokens)]
  if not found:
    raise ValueError(
      f'{parameter} = {name!r}: the split {split!r} of its cache has no tokens.'
    )
  return found


def read_prefixes(
  name: str,
  split: str,
  length: int,
  at_least: int,
  parameter: str,
  task_parameter: str = 'HELD_OUT_TASK',
) -> np.ndarray:
  """Reads the first T tokens of every sequence that has as many.

  Args:
    name: see `read_sequences`.
    split: see `read_sequences`.
    length: T.
    at_least: the required number of sequences.
    parameter: the gin parameter, and its value, that requires them.
    task_parameter: the gin parameter that names the task.

  Returns:
    [n, T] int32.

  Raises:
    ValueError: see `read_sequences`; or there are too few sequences.
  """
  sequences = read_sequences(name, split, parameter=task_parameter)
  prefixes = [x[:length] for _, x in sequences if len(x) >= length]
  if len(prefixes) < at_least:
    raise ValueError(
      f'{parameter}: the {split} split of {name} has {len(prefixes)} sequences '
      f'of at least {length} tokens, but {at_least} are needed.'
    )
  return np.stack(prefixes).astype(np.int32)
