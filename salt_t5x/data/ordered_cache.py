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


"""Reads a shuffled cache in one global order, whatever the number of hosts.

seqio reads a cache file by file, and hosts divide the files, so the examples of
a batch depend on the number of hosts. `CachedSource` gives a cache that
`shuffle` wrote one order: that of its records (see `order`), epoch after epoch,
from any position on; example i goes to host i mod n.

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
from salt_t5x.data import equal_files, ordered_tasks, vocabularies
from salt_t5x.data import order as order_lib

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
    """Returns the cache's files in the order in which epoch 0 reads them.

    Raises:
      FileNotFoundError: see `order`.
      ValueError: see `order`.
    """
    return list(self.order(split).paths)

  def num_input_examples(self, split: str) -> int:
    return self.order(split).examples

  def _cached_split(self, split: str) -> str:
    """The split of the cache that a split of this source reads."""
    return split

  def order(self, split: str) -> order_lib.Order:
    """Finds the files of a split and compares them with their description.

    Raises:
      FileNotFoundError: there is no cache, or files of it are missing.
      ValueError: it was not shuffled; its description is damaged, or does not
        fit the files.
    """
    cache_dir, split = self._cache_dir(), self._cached_split(split)
    if not self.is_shuffled(split):
      task = self.cached_task.name
      raise ValueError(
        f'The cache {cache_dir} is not in a random order. Write one that is:\n'
        f'{_shuffle(task, os.path.dirname(cache_dir))}\nand name that DIR in '
        f'place of {os.path.dirname(cache_dir)}.'
      )
    return order_lib.read(cache_dir, split)

  def is_shuffled(self, split: str) -> bool:
    """Whether the split has an order; raises FileNotFoundError for no cache."""
    split = self._cached_split(split)
    return tf.io.gfile.exists(order_lib.path(self._cache_dir(), split))

  def expander(self, split: str) -> Callable[..., dict[str, tf.Tensor]]:
    """See `OrderedSource`."""
    parse = self.parser(split)
    return lambda epoch, record: {**parse(record), 'epoch': epoch}

  def stream(
    self, split: str, num_epochs: int | None, start: int = 0
  ) -> tf.data.Dataset:
    """See `OrderedSource`: (epoch int64 [], serialized example string [])."""
    return self.order(split).stream(start, num_epochs)

  def records(self, split: str, start: int = 0) -> tf.data.Dataset:
    """Returns the serialized examples of a split, once, from a position on."""
    return self.order(split).stream(start, 1).map(lambda _, record: record)

  def fingerprint(self, split: str) -> str:
    """Identifies a cache; copies have the same fingerprint.

    It hashes the features and the checksums of all files. Raises as `check`
    does.
    """
    self.check(split)
    order = self.order(split)
    features = self._describe(
      split, seqio.get_cached_info_path, lambda info: info['features']
    )
    content = features, order.seed, order.counts, order.checksums
    text = json.dumps(content, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]

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
      # Not `records`, which reads the whole of a file before its first example.
      first = tf.constant(self.list_shards(split)[:1], tf.string)
      found = list(tf.data.TFRecordDataset(first).take(1).as_numpy_iterator())
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
    vocabularies.check_cached(task, features)

  def warn_of_other_text(self, split: str) -> None:
    """Logs raw files that are not those that the cache was made of."""
    there, split = self.order(split).raw_files, self._cached_split(split)
    here = equal_files.describe(self.cached_task.source, split)
    if changed := [x for x in here if there and there.get(x) != here[x]]:
      logging.warning(
        'The cache %s was made of other text than %s (%s split) now has, and '
        'is still read. To train on the new text, cache the task %s in '
        'another folder.',
        self.cached_task.cache_dir,
        changed,
        split,
        self.cached_task.name,
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

  def _cache_dir(self) -> str:
    """Returns the folder of the cache; raises FileNotFoundError without one."""
    task = self.cached_task
    if not task.cache_dir:
      name = seqio.get_task_dir_from_name(task.name)
      for folder in seqio.get_global_cache_dirs():
        path = os.path.join(folder, name)
        if tf.io.gfile.exists(os.path.join(path, order_lib.UNFINISHED)):
          raise FileNotFoundError(
            f'{path} was not shuffled to the end. Wait for salt_t5x.shuffle, '
            'or, if it was stopped, delete the folder and shuffle again.'
          )
      raise FileNotFoundError(
        f'The task {task.name} is not cached in '
        f'{list(seqio.get_global_cache_dirs())}. Cache it with\n  '
        f'seqio_cache_tasks --tasks={task.name} --module_import=MODULE '
        f'--output_cache_dir=RAW_DIR\nshuffle it with\n'
        f'{_shuffle(task.name, "RAW_DIR")}\nand name DIR in '
        'seqio.add_global_cache_dirs, or with --seqio_additional_cache_dirs.'
      )
    return task.cache_dir

  def _describe(
    self,
    split: str,
    path_of: Callable[[str, str], str],
    parse: Callable[[dict[str, Any]], Any],
  ) -> Any:
    """Parses a JSON file that describes the cache."""
    task, split = self.cached_task, self._cached_split(split)
    path = path_of(self._cache_dir(), split)
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


def _shuffle(task: str, raw_dir: str) -> str:
  return (
    f'  python -m salt_t5x.shuffle --task={task} --module_import=MODULE '
    f'--input_cache_dir={raw_dir} --output_cache_dir=DIR'
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

  def _cached_split(self, split: str) -> str:
    return 'train'


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
