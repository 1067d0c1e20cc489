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


"""Files of scores, in the order of the data they belong to.

A folder of scores holds `scores.json`, which says what was scored and how
(`Manifest`), and shards of `shard_size` examples each but for the last:
`scores-00003.bin`, records of `RECORD` in the global order, and beside it
`scores-00003.json`, the names of the domains that its records number. A shard
is there whole or not at all.
"""

from collections.abc import Iterator, Sequence
from concurrent import futures
import dataclasses
import json
import os

import numpy as np
import tensorflow as tf

from salt_t5x import whole_files

# Eq. (10) as printed (`zero`) and as the text has it (`drop`), eq. (70)
# (`easy`), and the mean and median log-perplexity.
KINDS = ('zero', 'drop', 'easy', 'mean', 'median')

RECORD = np.dtype(
  [('id', '<i8'), ('domain', '<i4'), *((kind, '<f4') for kind in KINDS)]
)

_REQUESTS = 32


@dataclasses.dataclass(frozen=True)
class Manifest:
  """What was scored, and how.

  Attributes:
    task: the cached seqio task.
    split: of it.
    data: the cache's fingerprint.
    teacher: the checkpoint's directory, `.../checkpoint_<step>`.
    step: of the teacher, n_0.
    dtype: the teacher's parameters are held in; None as they were saved.
    top_k: k.
    examples: that are scored, from the beginning of the global order.
    shard_size: examples in a shard.

  Raises:
    ValueError: a value that no folder of scores has.
  """

  task: str
  split: str
  data: str
  teacher: str
  step: int
  dtype: str | None
  top_k: int
  examples: int
  shard_size: int

  def __post_init__(self):
    for name in ('step', 'top_k', 'examples', 'shard_size'):
      value, least = getattr(self, name), int(name != 'step')
      if type(value) is not int or value < least:
        raise ValueError(f'{name} = {value!r} is not possible')

  @property
  def num_shards(self) -> int:
    return -(-self.examples // self.shard_size)

  def examples_of(self, index: int) -> int:
    """The number of records in a shard."""
    return min(self.shard_size, self.examples - index * self.shard_size)


def _path(directory: str, index: int, suffix: str) -> str:
  return os.path.join(directory, f'scores-{index:05d}.{suffix}')


def begin(directory: str, manifest: Manifest, *, write: bool = True) -> None:
  """Writes the manifest, or finds the same one there.

  A job that failed before its first shard leaves nothing that holds the next
  one to its settings.

  Args:
    directory: of the scores.
    manifest: of the job.
    write: False in those processes of a job that only look.

  Raises:
    ValueError: the folder holds scores of something else.
  """
  path = os.path.join(directory, 'scores.json')
  if tf.io.gfile.glob(os.path.join(directory, 'scores-*.bin')):
    there = read_manifest(directory)
    differences = [
      f'{field.name} is {getattr(there, field.name)!r} there and '
      f'{getattr(manifest, field.name)!r} here'
      for field in dataclasses.fields(manifest)
      if getattr(there, field.name) != getattr(manifest, field.name)
    ]
    if differences:
      raise ValueError(
        f'SCORES_DIR = {directory!r} holds scores of another kind: '
        f'{"; ".join(differences)}. Set these as they were there (shard_size '
        'is BATCH_SIZE times score.score.batches_per_shard), or choose another '
        'folder.'
      )
    return
  if not write:
    return
  tf.io.gfile.makedirs(directory)
  whole_files.write_whole(
    path, json.dumps(dataclasses.asdict(manifest), indent=2).encode()
  )


def read_manifest(directory: str) -> Manifest:
  """Reads `scores.json`.

  Raises:
    ValueError: there is none, or it is damaged.
  """
  path = os.path.join(directory, 'scores.json')
  try:
    with tf.io.gfile.GFile(path) as f:
      return Manifest(**json.loads(f.read()))
  except (tf.errors.OpError, TypeError, ValueError) as e:
    raise ValueError(
      f'{path} is missing or damaged ({e}): score the data with salt_t5x.score.'
    ) from e


def has_shard(directory: str, index: int) -> bool:
  # Written last.
  return tf.io.gfile.exists(_path(directory, index, 'bin'))


def write_shard(
  directory: str, index: int, records: np.ndarray, domains: Sequence[str]
) -> None:
  """Writes records of `RECORD`; 'domain' indexes `domains`."""
  table = json.dumps(list(domains), ensure_ascii=False).encode()
  whole_files.write_whole(_path(directory, index, 'json'), table)
  whole_files.write_whole(
    _path(directory, index, 'bin'), records.astype(RECORD).tobytes()
  )


def _size(path: str) -> int | None:
  try:
    return tf.io.gfile.stat(path).length
  except tf.errors.NotFoundError:
    return None


def files(directory: str, manifest: Manifest) -> list[str]:
  """The paths of all shards of records, in order.

  Raises:
    ValueError: some are missing, or have another length than they should.
  """
  count = manifest.num_shards
  paths = [_path(directory, i, 'bin') for i in range(count)]
  # At once: a bucket answers in tens of milliseconds.
  with futures.ThreadPoolExecutor(_REQUESTS) as pool:
    sizes = list(pool.map(_size, paths))
  missing = [i for i, size in enumerate(sizes) if size is None]
  if missing:
    raise ValueError(
      f'{directory}: {len(missing)} of {count} shards of scores are missing, '
      f'the first is number {missing[0]}. Run the same salt_t5x.score again: '
      'it makes what is missing.'
    )
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
    ValueError: see `files`; or a shard has no names for its domains.
  """
  for index, path in enumerate(files(directory, manifest)):
    with tf.io.gfile.GFile(path, 'rb') as f:
      records = np.frombuffer(f.read(), RECORD)
    table = _path(directory, index, 'json')
    try:
      with tf.io.gfile.GFile(table) as f:
        domains = json.loads(f.read())
      if (
        not 0
        <= records['domain'].min()
        <= records['domain'].max()
        < len(domains)
      ):
        raise ValueError('it does not name all domains')
    except (tf.errors.OpError, TypeError, ValueError) as e:
      raise ValueError(
        f'{table} is missing or damaged ({e}). Delete {path} and run '
        'salt_t5x.score again.'
      ) from e
    yield records, domains
