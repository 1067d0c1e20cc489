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

"""What a shuffled cache costs: to enter it at a position, and to write it.

Prints and writes the time to the first batch of UL2's training data at several
positions, as ratios to position 0, and the memory, disk and speed of
`salt_t5x.shuffle` for raw caches of several sizes. All sequences have 1,280
tokens.

The cache that is entered has 80 full files, which are links to two: only one or
two files are read. They stay in the page cache, so the ratios tell what the
position costs, not what storage does.

    python benchmarks/data_order.py --output=data_order.json
"""

from concurrent import futures
import contextlib
import multiprocessing
import os
import statistics
import tempfile
import time

from absl import app, flags
import numpy as np
import seqio
import tensorflow as tf
import tqdm

from salt_t5x import files
from salt_t5x import shuffle as shuffle_command
from salt_t5x.data import (
  feature_converters,
  order,
  ordered_cache,
  ordered_tasks,
  shuffle,
  ul2,
)

_POSITIONS = flags.DEFINE_multi_integer(
  'position', [0, 5_000_000, 5_242_880 + 5_000_000], 'Where to begin.'
)
_ROUNDS = flags.DEFINE_integer('rounds', 9, 'Rounds; the median counts.')
_SEQUENCES = flags.DEFINE_multi_integer(
  'sequences',
  [shuffle.EXAMPLES_OF_A_FILE << i for i in range(4)],
  'Of raw caches to shuffle; the defaults fill their files.',
)
_OUTPUT = flags.DEFINE_string('output', None, 'JSON file to write.')

_LENGTH = 1280
_VOCABULARY = 256_000
_BATCH = 64
_FILES = 80
_TASK = 'sequences'


class _Vocabulary(seqio.PassThroughVocabulary):
  extra_ids = 100


def _sequences(rng: np.random.Generator, ids):
  """Yields serialized sequences; the tokens of one in 4,096 are its own."""

  def example(**values):
    proto = tf.train.Example()
    for name, numbers in values.items():
      proto.features.feature[name].int64_list.value.extend(numbers)
    return proto.SerializeToString()

  tokens = rng.integers(3, _VOCABULARY, (4096, _LENGTH))
  targets = [example(targets=row.tolist()) for row in tokens]
  for i in ids:
    # Concatenated messages are merged.
    yield targets[i % len(targets)] + example(id=[i])


def _features() -> dict:
  return {
    'targets': {'shape': [None], 'dtype': 'int32'},
    'id': {'shape': [], 'dtype': 'int64'},
  }


def _write_large(cache_dir: str) -> None:
  """Writes the cache that is entered."""
  folder = os.path.join(cache_dir, _TASK)
  os.makedirs(folder)
  size, rng = shuffle.EXAMPLES_OF_A_FILE, np.random.default_rng(0)
  paths, written = order.shards(folder, 'train', _FILES), []
  for i, path in enumerate(paths[:2]):
    records = _sequences(rng, range(i * size, (i + 1) * size))
    written.append(
      shuffle.write_file(path, (shuffle.normalize(x, 0) for x in records))
    )
  for i, path in enumerate(paths[2:]):
    os.link(paths[i % 2], path)
  written *= _FILES // 2
  shuffle.describe(folder, 'train', written, _features(), 0, raw_files={})
  files.write_whole(os.path.join(folder, 'COMPLETED'), b'')


def _register(cache_dir: str) -> ordered_tasks.OrderedTask:
  """Registers a cached task; returns UL2 over it."""

  def read(split, shuffle_files, seed=None):
    raise NotImplementedError('The task is cached.')

  feature = seqio.Feature(_Vocabulary(_VOCABULARY), add_eos=False)
  cached = seqio.TaskRegistry.add(
    _TASK,
    source=seqio.FunctionDataSource(read, ['train']),
    preprocessors=[seqio.CacheDatasetPlaceholder()],
    output_features={'targets': feature},
  )
  seqio.add_global_cache_dirs([cache_dir])
  return ordered_tasks.OrderedTask(
    'ul2',
    source=ordered_cache.CachedSource(cached, {'targets': _LENGTH}),
    preprocessors=[ul2.ul2],
    output_features={'inputs': feature, 'targets': feature},
    shuffle_buffer_size=None,
  )


def _first_batch(task: ordered_tasks.OrderedTask, position: int) -> float:
  """Seconds to the first batch from a position on."""
  start = time.perf_counter()
  data = seqio.get_dataset(
    task.reading(task.source, position),
    {'inputs': _LENGTH, 'targets': _LENGTH},
    feature_converters.FixedWidthFeatureConverter(pack=False),
    batch_size=_BATCH,
    num_epochs=None,
    verbose=False,
  )
  next(iter(data))
  return time.perf_counter() - start


def _start_up() -> dict[str, dict[str, float]]:
  with tempfile.TemporaryDirectory() as cache_dir:
    _write_large(cache_dir)
    task = _register(cache_dir)
    seconds = {position: [] for position in _POSITIONS.value}
    # In turn, so that a change of the machine's speed meets all of them.
    for i in tqdm.trange(_ROUNDS.value + 1, desc='start-up'):
      for position, found in seconds.items():
        taken = _first_batch(task, position)
        if i:  # The first round warms up.
          found.append(taken)
  first = seconds[_POSITIONS.value[0]]
  return {
    f'{position:,}': {
      'seconds': statistics.median(found),
      'ratio': statistics.median(
        x / y for x, y in zip(found, first, strict=True)
      ),
    }
    for position, found in seconds.items()
  }


def _write_raw(cache_dir: str, count: int) -> None:
  """Writes a raw cache of four files."""
  folder = os.path.join(cache_dir, _TASK)
  os.makedirs(folder)
  paths = order.shards(folder, 'train', 4)
  for path, part in zip(paths, np.array_split(range(count), 4), strict=True):
    with tf.io.TFRecordWriter(path) as writer:
      for record in _sequences(np.random.default_rng(0), part.tolist()):
        writer.write(record)
  info = {'num_shards': len(paths), 'features': _features()}
  files.write_json(seqio.get_cached_info_path(folder, 'train'), info)
  stats = {'examples': count}
  files.write_json(seqio.get_cached_stats_path(folder, 'train'), stats)
  files.write_whole(os.path.join(folder, 'COMPLETED'), b'')


def _folder_size(folder: str) -> int:
  size = 0
  for root, _, names in os.walk(folder):
    for name in names:
      # It may be deleted meanwhile.
      with contextlib.suppress(FileNotFoundError):
        size += os.path.getsize(os.path.join(root, name))
  return size


def _run_shuffle(folder: str, temporary: str) -> dict[str, float]:
  """Runs the command in this process, of which it is all the work."""
  _register(f'{folder}/none')
  args = shuffle_command.parse_flags(
    [
      *('shuffle', f'--task={_TASK}', f'--input_cache_dir={folder}/raw'),
      f'--output_cache_dir={folder}/shuffled',
      f'--temp_dir={temporary}',
    ]
  )
  start, cpu_start = time.perf_counter(), time.process_time()
  shuffle_command.main(args)
  found = {
    'seconds': time.perf_counter() - start,
    'cpu_seconds': time.process_time() - cpu_start,
  }
  # Not `ru_maxrss`, which is at least what the parent had.
  with open('/proc/self/status') as status:
    lines = dict(line.split(':', 1) for line in status)
  found['peak_resident_megabytes'] = int(lines['VmHWM'].split()[0]) * 1.024e-3
  return found


def _shuffle(count: int) -> dict[str, float]:
  """Shuffles a raw cache in a process of its own."""
  spawn = multiprocessing.get_context('spawn')
  with (
    tempfile.TemporaryDirectory() as folder,
    tempfile.TemporaryDirectory() as temporary,
    futures.ProcessPoolExecutor(1, spawn) as process,
  ):
    _write_raw(f'{folder}/raw', count)
    job, disk = process.submit(_run_shuffle, folder, temporary), 0
    while not job.done():
      disk = max(disk, _folder_size(temporary))
      time.sleep(0.1)
    return job.result() | {
      'raw_megabytes': _folder_size(f'{folder}/raw') / 1e6,
      'temporary_megabytes': disk / 1e6,
      'written_megabytes': _folder_size(f'{folder}/shuffled') / 1e6,
    }


def _shuffles() -> dict[int, dict[str, float]]:
  # The smallest shows what the program needs for itself.
  found = {count: _shuffle(count) for count in [1000, *_SEQUENCES.value]}
  for count, x in found.items():
    x['sequences_per_second'] = count / x['seconds']
    x['sequences_per_cpu_second'] = count / x['cpu_seconds']
  return found


def main(argv):
  del argv
  shuffles, starts = _shuffles(), _start_up()
  rows = [
    [position, f'{x["seconds"]:.2f}', f'{x["ratio"]:.2f}']
    for position, x in starts.items()
  ]
  print(files.markdown_table(['position', 's to a batch', 'ratio'], rows))
  columns = ['raw_megabytes', 'peak_resident_megabytes', 'temporary_megabytes']
  columns += ['sequences_per_second', 'sequences_per_cpu_second']
  rows = [
    [f'{count:,}', *(f'{x[c]:,.0f}' for c in columns)]
    for count, x in shuffles.items()
  ]
  header = ['sequences', *(c.replace('_', ' ') for c in columns)]
  print(files.markdown_table(header, rows))
  if _OUTPUT.value:
    result = {
      'cpu_cores': os.cpu_count(),
      'tensorflow': tf.__version__,
      'start_up': starts,
      'shuffle': shuffles,
    }
    files.write_json(_OUTPUT.value, result)


if __name__ == '__main__':
  app.run(main)
