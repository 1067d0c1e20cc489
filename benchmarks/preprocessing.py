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

"""Compares the throughput of UL2's denoisers with a plain causal task's.

Prints a table and writes one JSON: tokens read per second of CPU time, and the
ratio to the causal task of the same round. All read one cache of 1,280-token
sequences, in the global order, up to a batch of a model's features. One of 64
hosts reads the whole order, too, but parses and batches a 64th of it.

    python benchmarks/preprocessing.py --output=preprocessing.json
"""

import functools
import statistics
import tempfile
import time

from absl import app, flags
import numpy as np
import seqio
import tensorflow as tf
import tqdm

from salt_t5x import files
from salt_t5x.data import (
  cache_writer,
  feature_converters,
  ordered_cache,
  ordered_tasks,
  ul2,
)

_SEQUENCES = flags.DEFINE_integer('sequences', 20_000, 'Sequences in a round.')
_ROUNDS = flags.DEFINE_integer('rounds', 5, 'Rounds; the median counts.')
_OUTPUT = flags.DEFINE_string('output', None, 'JSON file to write.')

_LENGTH = 1280
_EXTRA_IDS = 100
_MIXTURE = 'ul2: mixture 6:2:1:1'
_HOSTS = 64
_EPOCHS_OF_HOST = 16  # so that its time is not that of building the pipeline


class _Vocabulary(seqio.PassThroughVocabulary):
  extra_ids = _EXTRA_IDS


def _register(rng: np.random.Generator, cache_dir: str) -> dict[str, str]:
  """Caches random sequences and returns {name: its task}."""
  tokens = rng.integers(3, 32_000, (_SEQUENCES.value, _LENGTH), np.int32)

  def read(split, shuffle_files, seed=None):
    del split, shuffle_files, seed
    return tf.data.Dataset.from_tensor_slices(
      {'targets': tokens, 'id': np.arange(len(tokens))}
    )

  feature = seqio.Feature(_Vocabulary(32_000), add_eos=False)
  cached = seqio.TaskRegistry.add(
    'sequences',
    source=seqio.FunctionDataSource(read, ['train']),
    preprocessors=[seqio.CacheDatasetPlaceholder()],
    output_features={'targets': feature},
  )
  cache_writer.write(cached, cache_dir)
  seqio.add_global_cache_dirs([cache_dir])
  views = {_MIXTURE: ul2.RATES} | {
    f'ul2: {d}': [float(d == other) for other in ul2.DENOISERS]
    for d in ul2.DENOISERS
  }
  add = functools.partial(
    seqio.TaskRegistry.add,
    source=ordered_cache.CachedSource(cached, {'targets': _LENGTH}),
    task_cls=ordered_tasks.OrderedTask,
    shuffle_buffer_size=None,
  )
  add('plain', preprocessors=[], output_features={'targets': feature})
  tasks = {'plain causal task': 'plain'}
  for i, (view, rates) in enumerate(views.items()):
    tasks[view] = f'view_{i}'
    add(
      tasks[view],
      preprocessors=[functools.partial(ul2.ul2, rates=rates)],
      output_features={'inputs': feature, 'targets': feature},
    )
  return tasks


def _seconds(task: str, hosts: int) -> float:
  """CPU seconds to read all sequences once, as the first host."""
  epochs = _EPOCHS_OF_HOST if hosts > 1 else 1
  data = seqio.get_dataset(
    task,
    {'inputs': _LENGTH, 'targets': _LENGTH},
    feature_converters.FixedWidthFeatureConverter(pack=False),
    shard_info=seqio.ShardInfo(0, hosts),
    num_epochs=epochs,
    batch_size=64,
    verbose=False,
  )
  # The first batch, too: a file is read before its first example.
  start = time.process_time()
  for _ in data:
    pass
  return (time.process_time() - start) / epochs


def _measure(tasks: dict[str, str]) -> dict[str, dict[str, float]]:
  """Reads all tasks in turn, several times over."""
  readings = {name: (task, 1) for name, task in tasks.items()}
  readings[f'{_MIXTURE}, one of {_HOSTS} hosts'] = tasks[_MIXTURE], _HOSTS
  seconds = {name: [] for name in readings}
  # In turn, so that a change of the machine's speed meets all of them.
  for i in tqdm.trange(_ROUNDS.value + 1):
    for name, (task, hosts) in readings.items():
      taken = _seconds(task, hosts)
      if i:  # The first round warms up.
        seconds[name].append(taken)
  plain = seconds['plain causal task']
  tokens = _SEQUENCES.value * _LENGTH
  return {
    name: {
      'tokens_per_cpu_second': tokens / statistics.median(taken),
      'ratio_to_plain': statistics.median(
        p / t for p, t in zip(plain, taken, strict=True)
      ),
    }
    for name, taken in seconds.items()
  }


def main(argv):
  del argv
  with tempfile.TemporaryDirectory() as cache_dir:
    rows = _measure(_register(np.random.default_rng(0), cache_dir))
  table = [
    (
      name,
      f'{row["tokens_per_cpu_second"] / 1e6:.2f}M',
      f'{row["ratio_to_plain"]:.0%}',
    )
    for name, row in rows.items()
  ]
  header = ['task', 'tokens per CPU second', 'of the plain task']
  print(files.markdown_table(header, table))
  if _OUTPUT.value:
    files.write_json(_OUTPUT.value, rows)


if __name__ == '__main__':
  app.run(main)
