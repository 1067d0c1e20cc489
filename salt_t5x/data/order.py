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

"""The order of a shuffled cache: any position of any epoch, at once.

Epoch 0 reads the files in turn, as `shuffle` wrote them. A later epoch reads
the files in an order of its own, and the records of each in an order of its
own. Two records of one file (`shuffle.EXAMPLES_OF_A_FILE` at most, on average)
are thus read within one stretch of every epoch, but every file is a random
sample of the corpus.
"""

from collections.abc import Callable, Mapping, Sequence
import concurrent.futures
import dataclasses
import hashlib
import json
import os
from typing import Any

import numpy as np
import seqio
import tensorflow as tf

from salt_t5x import files

ENDLESS = tf.int64.max  # epochs
FRAME = 16  # bytes that TFRecord adds to a record
UNFINISHED = 'UNFINISHED'  # a file in a cache that is being shuffled
_READ_AHEAD = 1 << 23  # bytes
_THREADS = 32  # that ask remote storage for sizes


@dataclasses.dataclass(frozen=True)
class Order:
  """Where the examples of a split lie.

  Attributes:
    paths: the files that have records, in the order of epoch 0.
    counts: how many records each file has.
    checksums: `checksum` of each file.
    seed: it determines the order.
    raw_files: `equal_files.describe` of the text it was made of.
  """

  paths: Sequence[str]
  counts: Sequence[int]
  checksums: Sequence[int]
  seed: int
  raw_files: Mapping[str, str]

  @property
  def examples(self) -> int:
    """The number of records, in all files."""
    return sum(self.counts)

  def files_of(self, epoch: int) -> np.ndarray:
    """Returns the numbers of the files in the order in which an epoch reads."""
    return permutation(self.seed, epoch, -1, len(self.paths)).numpy()

  def stream(
    self,
    start: int = 0,
    epochs: int | None = None,
    kept: 'Kept | None' = None,
  ) -> tf.data.Dataset:
    """Reads records from a position on.

    Args:
      start: a position; those of epoch e begin at e times the examples.
      epochs: the number of the last epoch plus 1; None has no end.
      kept: the examples to read, whose positions are counted; None for all.

    Returns:
      Elements of (epoch int64 [], serialized example string []).
    """
    counts = self.counts if kept is None else kept.counts
    epoch, offset = divmod(start, sum(counts))
    ends = np.cumsum(np.take(counts, self.files_of(epoch)))
    place = int(np.searchsorted(ends, offset, side='right'))
    offset -= int(ends[place - 1]) if place else 0
    paths, counts = tf.constant(self.paths), tf.constant(self.counts, tf.int64)
    checksums = tf.constant(self.checksums, tf.int64)
    width = len(self.paths)
    first = epoch * width + place

    def read(number):
      epoch, place = number // width, number % width
      file = permutation(self.seed, epoch, -1, width)[place]
      count = counts[file]
      records = tf.data.TFRecordDataset(paths[file], buffer_size=_READ_AHEAD)
      dataset = whole(records, '', count)

      def arrange(records, is_kept=None):
        records = check_count(paths[file], records, count)
        tf.debugging.Assert(
          tf.equal(checksum(records), checksums[file]),
          [paths[file], 'has other examples than its cache was written with'],
        )
        begin = tf.where(tf.equal(number, first), offset, 0)

        def permuted():
          order = permutation(self.seed, epoch, file, count)
          if is_kept is not None:
            order = tf.boolean_mask(order, tf.gather(is_kept, order))
            expected = tf.constant(kept.counts, tf.int64)[file]
            order = check_count(paths[file], order, expected)
          return tf.gather(records, order[begin:])

        # Epoch 0 reads all records as they are, without a copy.
        found = tf.cond(
          tf.equal(epoch, 0) if is_kept is None else tf.constant(False),
          lambda: records[begin:],
          permuted,
        )
        return tf.fill(tf.shape(found), epoch), found

      if kept is None:
        return dataset.map(arrange)
      return tf.data.Dataset.zip((dataset, kept.mask(file))).map(arrange)

    last = ENDLESS if epochs is None else epochs * width
    # The next file is read while this one is trained on.
    numbers = tf.data.Dataset.range(first, last)
    return numbers.flat_map(read).prefetch(1).unbatch()


@dataclasses.dataclass(frozen=True)
class Kept:
  """A part of the examples.

  Attributes:
    counts: how many examples of each file are kept.
    mask: maps the number of a file, int64 [], to a data set of one element,
      bool [count]: whether each of its records is kept.
  """

  counts: Sequence[int]
  mask: Callable[[tf.Tensor], tf.data.Dataset]


def whole(records: tf.data.Dataset, end: str, count: tf.Tensor):
  """Makes one element of all records, string [n].

  Unlike `get_single_element`, it leaves the state of an iterator serializable.

  Args:
    records: strings.
    end: a record to put after them, so that there is an element if they are
      missing.
    count: how many there should be; n is another number if there are others,
      count + 1 if there are more.
  """
  records = records.concatenate(tf.data.Dataset.from_tensors(end))
  return records.batch(count + 2).take(1).map(lambda x: x[:-1])


def check_count(
  path: tf.Tensor, found: tf.Tensor, expected: tf.Tensor
) -> tf.Tensor:
  """Returns `found`, [n]; fails, as data are read, if n is not as expected."""
  check = tf.debugging.Assert(
    tf.equal(tf.size(found, tf.int64), expected),
    [path, 'has', tf.size(found), 'examples instead of', expected],
  )
  with tf.control_dependencies([check] if check is not None else []):
    return tf.identity(found)


def permutation(seed: int, epoch, stream, size) -> tf.Tensor:
  """Returns an order of numbers from 0: the identity in epoch 0, else random.

  Its integer arithmetic (SplitMix64) gives the same in every version of
  TensorFlow.

  Args:
    seed: it determines the order.
    epoch: int64 [].
    stream: int64 []; other numbers have independent orders.
    size: int [], how many numbers.

  Returns:
    int64 [size].
  """
  numbers = tf.range(tf.cast(size, tf.int64))
  key = _mix(tf.constant(seed, tf.int64))
  for part in (epoch, stream, numbers):
    key = _mix(key + tf.cast(part, tf.int64))
  shuffled = tf.argsort(key, stable=True)
  return tf.where(tf.equal(epoch, 0), numbers, tf.cast(shuffled, tf.int64))


def _mix(x: tf.Tensor) -> tf.Tensor:
  """The output function of SplitMix64, of int64."""
  x = tf.bitcast(x, tf.uint64)
  x += tf.constant(0x9E3779B97F4A7C15, tf.uint64)
  for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
    x = tf.bitwise.bitwise_xor(x, _shift(x, shift))
    x *= tf.constant(factor, tf.uint64)
  return tf.bitcast(tf.bitwise.bitwise_xor(x, _shift(x, 31)), tf.int64)


def _shift(x: tf.Tensor, bits: int) -> tf.Tensor:
  return tf.bitwise.right_shift(x, tf.constant(bits, tf.uint64))


def checksum(records: tf.Tensor) -> tf.Tensor:
  """Hashes strings [n] in their order, to an int64 []."""
  return join_hashes(hashes(records))


def hashes(records: tf.Tensor | Sequence[bytes]) -> tf.Tensor:
  """Hashes each of the strings [n], to int64 [n].

  FarmHash gives the same in every version of TensorFlow.
  """
  return tf.strings.to_hash_bucket_fast(records, ENDLESS)


def join_hashes(found: tf.Tensor) -> tf.Tensor:
  """Returns the checksum of the records that have these hashes, int64 [n]."""
  joined = tf.strings.reduce_join(tf.strings.as_string(found), separator=' ')
  return hashes(joined)


def path(cache_dir: str, split: str) -> str:
  """Returns the path of the description that `shuffle` writes."""
  return os.path.join(cache_dir, f'order.{split}.json')


def write(
  cache_dir: str,
  split: str,
  seed: int,
  described: Sequence[Mapping[str, int]],
  raw_files: Mapping[str, str],
) -> None:
  """Writes the description of a split.

  Args:
    cache_dir: the folder of a cached task.
    split: its name.
    seed: it determines the order.
    described: {'examples', 'bytes', 'checksum'} of each file in turn.
    raw_files: `equal_files.describe` of the text.
  """
  content = {
    'seed': seed,
    'files': list(described),
    'raw_files': dict(raw_files),
  }
  content['digest'] = _digest(content)
  files.write_json(path(cache_dir, split), content)


def _digest(content: Mapping[str, Any]) -> str:
  text = json.dumps(content, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()[:16]


def read(cache_dir: str, split: str) -> Order:
  """Reads the description of a split and compares it with the files.

  Args:
    cache_dir: the folder of a cached task.
    split: its name.

  Raises:
    FileNotFoundError: a file is missing.
    ValueError: the description is damaged, or a file has another size.
  """
  name = path(cache_dir, split)
  remedy = 'Restore it, or shuffle the cache again into another folder.'
  try:
    content = files.read_json_object(name)
    if content.pop('digest', None) != _digest(content):
      raise ValueError('its content has been changed')
    found, raw_files = content['files'], content['raw_files']
  except (KeyError, ValueError) as e:
    raise ValueError(f'{name} is damaged ({e!r}). {remedy}') from e
  stats = seqio.get_cached_stats_path(cache_dir, split)
  total = sum(x['examples'] for x in found)
  if (examples := files.read_count(stats, remedy, 'examples')) != total:
    raise ValueError(
      f'{name} names {total:,} examples, but {stats} {examples:,}. {remedy}'
    )
  paths = shards(cache_dir, split, len(found))
  with concurrent.futures.ThreadPoolExecutor(_THREADS) as threads:
    sizes = list(threads.map(_size, paths))
  for file, size, x in zip(paths, sizes, found, strict=True):
    if size is None:
      raise FileNotFoundError(f'{file} is missing. {remedy}')
    if size != x['bytes']:
      raise ValueError(
        f'{file} has {size} bytes, but {name} names {x["bytes"]}. {remedy}'
      )
  filled = [
    (file, x['examples'], x['checksum'])
    for file, x in zip(paths, found, strict=True)
    if x['examples']
  ]
  columns = zip(*filled, strict=True) if filled else ((), (), ())
  return Order(*map(tuple, columns), content['seed'], raw_files)


def shards(cache_dir: str, split: str, count: int) -> list[str]:
  """Returns the paths of a split's files, as seqio names them."""
  prefix = seqio.get_cached_tfrecord_prefix(cache_dir, split)
  return [f'{prefix}-{i:05d}-of-{count:05d}' for i in range(count)]


def _size(file: str) -> int | None:
  try:
    return tf.io.gfile.stat(file).length
  except tf.errors.NotFoundError:
    return None
