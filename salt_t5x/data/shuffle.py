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

"""Writes a cache in a pseudo-random order: an external sort by a hash.

The order depends on (seed, sequence id) alone, not on who wrote the raw cache,
on its files or on theirs. The records of a split are sorted by a 63-bit hash,
and each file holds those whose hash begins with the bits of its number. A file
is sorted in memory; all files together need not fit.

`order.<split>.json`, next to seqio's own files, names the seed, and for each
file the number of its examples, its bytes and a checksum. So any position is
found without reading what comes before it, and a file is known by its content.
"""

from collections.abc import Iterable, Iterator, Sequence
import itertools
import os
import struct
import tempfile
import uuid

import seqio
import tensorflow as tf

from salt_t5x import files
from salt_t5x.data import hashing, order

EXAMPLES_OF_A_FILE = 1 << 16  # at most, on average
BITS = 63  # of the hash; Beam's integers are signed
_BYTES_OF_A_FILE = 1 << 28  # at most, on average: a file is held in memory
_PARTS = 12  # bits of the hash by which records are first divided
_BUFFER = 128 << 20  # bytes in memory before they are divided
_LENGTH = struct.Struct('<QI')  # of a record on disk: its hash and its length


def file_bits(examples: int, size: int) -> int:
  """Returns k for a split of 2^k files.

  Args:
    examples: their number in the split.
    size: bytes of all of them.
  """
  files_needed = max(
    -(-examples // EXAMPLES_OF_A_FILE), -(-size // _BYTES_OF_A_FILE), 1
  )
  return min((files_needed - 1).bit_length(), _PARTS)


def normalize(record: bytes, seed: int) -> tuple[int, bytes]:
  """Returns a record's place in the order and its canonical bytes.

  Args:
    record: a serialized tf.train.Example. Where it has no 'id', its content
      takes that place, so equal examples become neighbours.
    seed: it determines the order.

  Returns:
    (a hash below 2^63, the same example serialized deterministically).
  """
  example = tf.train.Example.FromString(record)
  # The order of a protobuf map is otherwise free to vary.
  record = example.SerializeToString(deterministic=True)
  ids = _ids(example)
  name = str(ids[0]).encode() if ids else record
  key = hashing.digest(f'order {seed} '.encode(), name) >> 64 - BITS
  return key, record


def _ids(example: tf.train.Example) -> Sequence[int]:
  features = example.features.feature
  return features['id'].int64_list.value if 'id' in features else ()


def write_file(path: str, records: Iterable[tuple[int, bytes]]) -> dict:
  """Sorts the records of a file and writes it, all of it or nothing.

  Args:
    path: of the file.
    records: from `normalize`.

  Returns:
    {'examples', 'bytes', 'checksum'} of the file.

  Raises:
    ValueError: different examples have the same id.
  """
  ordered = sorted(records)
  for (key, record), (other, following) in itertools.pairwise(ordered):
    if key == other and record != following:
      raise ValueError(
        'Different examples have the same id, '
        f'{_ids(tf.train.Example.FromString(record))[0]}, so they would be '
        'neighbours in the order. Give the examples of the task unique ids, or '
        'none.'
      )
  hashes, size = [], 0
  # Of its own: Beam may run the same work twice.
  temporary = f'{path}.{uuid.uuid4().hex}.tmp'
  with tf.io.TFRecordWriter(temporary) as writer:
    # A tensor of all records would be a copy of the file in memory.
    for start in range(0, len(ordered), 1024):
      part = [record for _, record in ordered[start : start + 1024]]
      hashes += order.hashes(part).numpy().tolist()
      for record in part:
        writer.write(record)
        size += len(record) + order.FRAME
  tf.io.gfile.rename(temporary, path, overwrite=True)
  return {
    'examples': len(ordered),
    'bytes': size,
    'checksum': int(order.join_hashes(tf.constant(hashes, tf.int64))),
  }


class ExternalSort:
  """Records of any number, sorted by their hash within bounded memory.

  They are divided by the first bits of the hash, into local temporary files
  where memory does not hold them.
  """

  def __init__(self, folder: str | None = None):
    """Constructor.

    Args:
      folder: a local one, of temporary files; None for the system's.
    """
    self.examples = self.bytes = 0
    self._parts = [bytearray() for _ in range(1 << _PARTS)]
    self._size = 0
    self._folder = tempfile.TemporaryDirectory(dir=folder)

  def add(self, key: int, record: bytes) -> None:
    """Adds what `normalize` returned."""
    part = self._parts[key >> BITS - _PARTS]
    part += _LENGTH.pack(key, len(record))
    part += record
    self._size += _LENGTH.size + len(record)
    self.examples += 1
    self.bytes += len(record)
    if self._size > _BUFFER:
      self._flush()

  def _path(self, part: int) -> str:
    return os.path.join(self._folder.name, str(part))

  def _flush(self) -> None:
    for number, part in enumerate(self._parts):
      if part:
        with open(self._path(number), 'ab') as f:
          f.write(part)
    self._parts = [bytearray() for _ in self._parts]
    self._size = 0

  def files(self) -> Iterator[Iterator[tuple[int, bytes]]]:
    """Yields the records of each file, unsorted; frees them as it goes."""
    bits = file_bits(self.examples, self.bytes)
    step = 1 << _PARTS - bits
    for first in range(0, 1 << _PARTS, step):
      yield self._read(range(first, first + step))
    self._folder.cleanup()

  def _read(self, parts: Sequence[int]) -> Iterator[tuple[int, bytes]]:
    for number in parts:
      content = b''
      if os.path.exists(self._path(number)):
        with open(self._path(number), 'rb') as f:
          content = f.read()
        os.remove(self._path(number))
      content += self._parts[number]
      self._parts[number].clear()
      start = 0
      while start < len(content):
        key, size = _LENGTH.unpack_from(content, start)
        start += _LENGTH.size
        yield key, content[start : start + size]
        start += size


def write_split(
  cache_dir: str,
  split: str,
  records: ExternalSort,
  features: dict,
  seed: int,
  raw_files: dict[str, str],
) -> None:
  """Writes a split of a cache and its description.

  Args:
    cache_dir: the task's folder.
    split: its name.
    records: all of the split.
    features: {name: {'shape', 'dtype'}}, as in seqio's info files.
    seed: it determines the order.
    raw_files: `equal_files.describe` of the text; empty if it is unknown.
  """
  paths = order.shards(
    cache_dir, split, 1 << file_bits(records.examples, records.bytes)
  )
  written = [
    write_file(path, found)
    for path, found in zip(paths, records.files(), strict=True)
  ]
  describe(cache_dir, split, written, features, seed, raw_files)


def describe(
  cache_dir: str,
  split: str,
  written: Sequence[dict],
  features: dict,
  seed: int,
  raw_files: dict[str, str],
) -> None:
  """Writes the descriptions of a split, the order's last.

  Args:
    cache_dir: the task's folder.
    split: its name.
    written: from `write_file`, for each file in turn.
    features: see `write_split`.
    seed: it determines the order.
    raw_files: see `write_split`.
  """
  info = {
    'num_shards': len(written),
    'seqio_version': seqio.__version__,
    # Whatever order the raw cache has them in.
    'features': {
      name: dict(sorted(x.items())) for name, x in sorted(features.items())
    },
  }
  files.write_json(seqio.get_cached_info_path(cache_dir, split), info)
  files.write_json(
    seqio.get_cached_stats_path(cache_dir, split),
    {'examples': sum(x['examples'] for x in written)},
  )
  order.write(cache_dir, split, seed, written, raw_files)
