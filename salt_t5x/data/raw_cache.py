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

"""Caches as `seqio_cache_tasks` writes them."""

from collections.abc import Iterator, Sequence
import dataclasses
import hashlib
import json
import os

from google.protobuf import message
import seqio
import tensorflow as tf

from salt_t5x import files
from salt_t5x.data import equal_files, order, vocabularies


@dataclasses.dataclass(frozen=True)
class Split:
  """A split of a cache as `seqio_cache_tasks` wrote it.

  Attributes:
    split: its name.
    paths: its files.
    examples: their number of records, by seqio's statistics.
    features: {name: {'shape', 'dtype'}}, as in seqio's info files.
    raw_files: `equal_files.describe` of the text it was made of.
  """

  split: str
  paths: Sequence[str]
  examples: int
  features: dict
  raw_files: dict[str, str]

  @property
  def bytes(self) -> int:
    """The size of all records."""
    total = sum(tf.io.gfile.stat(path).length for path in self.paths)
    return total - order.FRAME * self.examples

  def check_count(self, found: int) -> None:
    """Compares the number of records with the statistics.

    Raises:
      ValueError: they differ.
    """
    if found != self.examples:
      raise ValueError(
        f'{self.paths[0]} and the other files of the split {self.split!r} hold '
        f'{found:,} examples, but the cache was written with '
        f'{self.examples:,}. Cache the task again.'
      )

  def check(self, task: seqio.Task) -> None:
    """Compares the vocabulary of the first example with the task's.

    Raises:
      ValueError: they differ, or it is damaged.
    """
    try:
      example = tf.train.Example.FromString(next(self.records()))
    except (message.DecodeError, StopIteration) as e:
      raise ValueError(
        f'{self.paths[0]} is damaged ({e}). Restore it, or cache the task '
        f'{task.name} again in another folder.'
      ) from e
    vocabularies.check_cached(task, example.features.feature)

  def fingerprint(self) -> str:
    """Identifies the files by their names, sizes and ends."""
    digest = hashlib.sha256(json.dumps(self.features, sort_keys=True).encode())
    for path in self.paths:
      size = tf.io.gfile.stat(path).length
      digest.update(f'{os.path.basename(path)} {size}\n'.encode())
      digest.update(equal_files.digest(path, size))
    return digest.hexdigest()[:16]

  def records(self) -> Iterator[bytes]:
    """Yields the serialized examples in the order of the files.

    Raises:
      ValueError: a file is damaged.
    """
    for path in self.paths:
      dataset = tf.data.TFRecordDataset(path).batch(256).prefetch(2)
      try:
        for records in dataset.as_numpy_iterator():
          yield from records
      except tf.errors.DataLossError as e:
        raise ValueError(
          f'{path} is damaged ({e.message}). Restore it, or cache the task '
          'again in another folder.'
        ) from e


def read(
  cache_dir: str, split: str, source: seqio.DataSource | None = None
) -> Split:
  """Finds the files of a split.

  Args:
    cache_dir: the folder of a cached task.
    split: its name.
    source: reads the text, if that is to be identified.

  Raises:
    FileNotFoundError: one is missing.
    ValueError: their description is damaged, or the split is empty.
  """
  remedy = 'Restore it, or cache the task again with seqio_cache_tasks.'
  info, stats = (
    path_of(cache_dir, split)
    for path_of in (seqio.get_cached_info_path, seqio.get_cached_stats_path)
  )
  for path in (info, stats):
    if not tf.io.gfile.exists(path):
      raise FileNotFoundError(f'{path} is missing. {remedy}')
  # seqio describes a split without examples by an empty object.
  try:
    is_empty = not files.read_json_object(info)
  except ValueError as e:
    raise ValueError(f'{info} is damaged ({e}). {remedy}') from e
  examples = 0 if is_empty else files.read_count(stats, remedy, 'examples')
  if not examples:
    raise ValueError(
      f'The {split} split of the cache {cache_dir} is empty: cache the task '
      'again in another folder, from more data.'
    )
  features = files.read_json_object(info).get('features')
  count = files.read_count(info, remedy, 'num_shards')
  paths = order.shards(cache_dir, split, count)
  if missing := [x for x in paths if not tf.io.gfile.exists(x)]:
    raise FileNotFoundError(f'{missing[0]} is missing. {remedy}')
  raw_files = equal_files.describe(source, split) if source else {}
  return Split(split, paths, examples, features, raw_files)


def read_all(cache_dir: str, source: seqio.DataSource) -> list[Split]:
  """Finds the splits of a task.

  Args:
    cache_dir: the folder of a cached task.
    source: reads the text.

  Raises:
    FileNotFoundError: see `read`.
    ValueError: see `read`; or the cache is not finished.
  """
  if not tf.io.gfile.exists(os.path.join(cache_dir, 'COMPLETED')):
    raise ValueError(
      f'{cache_dir} holds no finished cache. Cache the task with '
      'seqio_cache_tasks.'
    )
  return [
    read(cache_dir, name.removeprefix('info.').removesuffix('.json'), source)
    for name in sorted(tf.io.gfile.listdir(cache_dir))
    if name.startswith('info.') and name.endswith('.json')
  ]
