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


"""Files of scores, in the order of the data.

A folder of scores holds `scores.json` (`Manifest`) and shards of `shard_size`
examples, the last one shorter: `scores-00003.bin` has records of `RECORD` in
the global order, `scores-00003.json` the names of the domains that the records
index, and a checksum. Shards are written atomically.
"""

from collections.abc import Iterator, Sequence
from concurrent import futures
import dataclasses
import json
import os
import re
import zlib

import numpy as np
import tensorflow as tf

from salt_t5x import files
from salt_t5x.selection import scoring

RECORD = np.dtype(
  [('id', '<i8'), ('domain', '<i4'), *((kind, '<f4') for kind in scoring.KINDS)]
)

_REQUESTS = 32
_SHARD = re.compile(r'scores-(\d{5}|[1-9]\d{5,17})\.bin')


@dataclasses.dataclass(frozen=True)
class Manifest:
  """The configuration of a scoring job.

  Attributes:
    task: the cached seqio task.
    split: its split.
    data: the cache's fingerprint.
    teacher: the checkpoint's directory, `.../checkpoint_<step>`.
    teacher_identity: its `checkpoints.find.identity`; a copy has the same.
    step: the teacher's step, n_0.
    sequences_read: number of sequences of this order that the teacher was
      trained on, all from its beginning; None if that is not recorded.
    dtype: type of the teacher's parameters; None for the saved types.
    top_k: k.
    examples: number of scored examples, the first of the global order.
    shard_size: examples in a shard.
    examples_by_file: number of records in each file of the cache.

  Raises:
    ValueError: a value is not possible.
  """

  task: str
  split: str
  data: str
  teacher: str
  teacher_identity: str
  step: int
  sequences_read: int | None
  dtype: str | None
  top_k: int
  examples: int
  shard_size: int
  examples_by_file: list

  def __post_init__(self):
    files.check_types(self)
    read = 1 + (self.sequences_read or 0)
    numbers = (
      *(self.step + 1, read, self.top_k, self.examples, self.shard_size),
    )
    if min(numbers) < 1 or max(numbers) >= 2**63:
      raise ValueError(f'no scores have these values: {self}')
    if not self.examples <= sum(self.examples_by_file):
      raise ValueError(f'more scores than examples: {self}')

  @property
  def num_shards(self) -> int:
    """The number of shards that hold all examples."""
    return -(-self.examples // self.shard_size)

  def examples_of(self, index: int) -> int:
    """Returns the number of records in a shard."""
    return min(self.shard_size, self.examples - index * self.shard_size)


def _path(directory: str, index: int, suffix: str) -> str:
  return os.path.join(directory, f'scores-{index:05d}.{suffix}')


def begin(directory: str, manifest: Manifest, *, write: bool = True) -> None:
  """Writes the manifest, or compares it with that of the shards there.

  A folder without shards may be claimed by any job.

  Args:
    directory: the folder of scores.
    manifest: of the job.
    write: False on all processes of a job but the first.

  Raises:
    ValueError: the folder holds shards of another manifest.
  """
  what = f'SCORES_DIR = {directory!r}'
  path = os.path.join(directory, 'scores.json')
  record = dataclasses.asdict(manifest)
  if finished(directory):
    # The teacher may have been moved, without its record of the data: its
    # identity tells it from others.
    moved = 'teacher', 'sequences_read'
    compared = {k: v for k, v in record.items() if k not in moved}
    read_manifest(directory)
    files.claim(
      path,
      compared,
      what=what,
      remedy='Restore these values (shard_size is BATCH_SIZE times '
      'score.score.batches_per_shard), or choose another folder.',
      write=False,
    )
  elif write:
    files.make_folder(directory, what)
    files.write_json(path, record)


def read_manifest(directory: str) -> Manifest:
  """Reads `scores.json`.

  Raises:
    ValueError: there is none, or it is damaged, or of another version.
  """
  path = os.path.join(directory, 'scores.json')
  try:
    return files.read_record(path, Manifest)
  except ValueError as e:
    is_other = isinstance(e.__cause__, TypeError)
    problem = 'cannot be used' if is_other else 'is missing or damaged'
    raise ValueError(
      f'{path} {problem} ({e}): score the data with salt_t5x.score.'
    ) from e


def finished(directory: str) -> set[int]:
  """Returns the indices of the shards in a folder."""
  if not tf.io.gfile.isdir(directory):
    return set()
  # Not `glob`, to which '[' in the folder's name would be a pattern.
  found = map(_SHARD.fullmatch, tf.io.gfile.listdir(directory))
  return {int(match[1]) for match in found if match}


def write_shard(
  directory: str, index: int, records: np.ndarray, domains: Sequence[str]
) -> None:
  """Writes records of `RECORD`; 'domain' indexes `domains`."""
  content, domains = records.astype(RECORD).tobytes(), list(domains)
  table = {'domains': domains, 'crc32': _checksum(content, domains)}
  files.write_whole(
    _path(directory, index, 'json'),
    json.dumps(table, ensure_ascii=False).encode(),
  )
  # Last: `finished` looks for this file.
  files.write_whole(_path(directory, index, 'bin'), content)


def _checksum(content: bytes, domains: Sequence[str]) -> int:
  return zlib.crc32('\0'.join(domains).encode(), zlib.crc32(content))


def paths(directory: str, manifest: Manifest) -> list[str]:
  """Returns the paths of all shards of records, in order.

  Raises:
    ValueError: some are missing or have a wrong size.
  """
  count = manifest.num_shards
  there = finished(directory)
  # A damaged manifest may imply an absurd number of shards.
  first = next((i for i in range(count) if i not in there), None)
  if first is not None:
    raise ValueError(
      f'{directory}: shards of scores are missing, the first is number {first} '
      f'of {count}. Run the same salt_t5x.score again: it computes only the '
      'missing shards.'
    )
  paths = [_path(directory, i, 'bin') for i in range(count)]
  # In parallel: each request to a bucket takes tens of milliseconds.
  with futures.ThreadPoolExecutor(_REQUESTS) as pool:
    sizes = list(pool.map(lambda path: tf.io.gfile.stat(path).length, paths))
  for index, (path, size) in enumerate(zip(paths, sizes, strict=True)):
    expected = manifest.examples_of(index)
    if size != expected * RECORD.itemsize:
      raise ValueError(
        f'{path}: {size} bytes, where {expected} records take '
        f'{expected * RECORD.itemsize}. Delete it and run salt_t5x.score again.'
      )
  return paths


def read_shards(
  directory: str, manifest: Manifest
) -> Iterator[tuple[np.ndarray, list[str]]]:
  """Yields (records, names of their domains) of each shard, in order.

  Raises:
    ValueError: see `paths`; or a shard or its table is damaged.
  """
  for index, path in enumerate(paths(directory, manifest)):
    with tf.io.gfile.GFile(path, 'rb') as f:
      content = f.read()
    records = np.frombuffer(content, RECORD)
    path_of_names = _path(directory, index, 'json')
    try:
      table = files.read_json_object(path_of_names)
      domains = list(table['domains'])
      if table['crc32'] != _checksum(content, domains):
        raise ValueError('its checksum is not that of the shard')
      indices = records['domain']
      if indices.min() < 0 or indices.max() >= len(domains):
        raise ValueError('it does not name all domains')
    except (KeyError, TypeError, ValueError) as e:
      raise ValueError(
        f'{path_of_names} is missing or damaged ({e}). Delete {path} and run '
        'salt_t5x.score again.'
      ) from e
    yield records, domains
