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


"""From raw shards through Apache Beam's cache to training on UL2."""

import collections
import os
import random
import subprocess
import sys

import notes as notes_corpus
import numpy as np
import pytest
import seqio

from salt_t5x import shuffle
from salt_t5x.data import pile_shards
from salt_t5x.data import shuffle as shuffle_lib
import tiny_runs

NOTES = str(tiny_runs.TESTS / 'integration/notes.gin')
SHARDS = 5
DAMAGE = b'{"text": "cut o\n'


@pytest.fixture(scope='module')
def notes(tmp_path_factory, chain):
  """The tasks' module, for a folder of three shards; one has a bad line."""
  folder = tmp_path_factory.mktemp('notes')
  rng = random.Random(0)
  (folder / 'train').mkdir()
  # Fewer than 100 lines may lose none.
  for path, documents in zip(
    ('train/00', 'train/01', 'train/02', 'val'), (30, 100, 30, 30), strict=True
  ):
    pile_shards.write(
      str(folder / f'{path}.jsonl.zst'),
      (
        (
          ' '.join(rng.choices(['salt', 'pepper', 'x = 1\n'], k=40)),
          rng.choice(['Wikipedia (en)', 'Github']),
        )
        for _ in range(documents)
      ),
    )
  bad = folder / 'train/01.jsonl.zst'
  bad.write_bytes(bad.read_bytes() + pile_shards.zstandard.compress(DAMAGE))
  with notes_corpus.registered(folder) as module:
    yield module


@pytest.fixture(scope='module')
def cached(notes):
  """The module, once `seqio_cache_tasks` has run as docs/data.md says."""
  pytest.importorskip('apache_beam', reason='apache-beam is not installed')
  done = subprocess.run(
    [
      sys.executable,
      '-m',
      'seqio.scripts.cache_tasks_main',
      '--module_import=notes_task',
      '--tasks=notes_sequences',
      f'--output_cache_dir={notes.DIRECTORY}/raw_cache',
      f'--min_shards={SHARDS}',
      '--alsologtostderr',
    ],
    env=tiny_runs.environment(
      pythonpath=[tiny_runs.TESTS, *tiny_runs.real_t5x_path()],
      SALT_T5X_TEST_NOTES=notes.DIRECTORY,
    ),
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr[-5000:]
  # What was left out is reported, with its place.
  assert f'{notes.DIRECTORY}/train/01.jsonl.zst:101: ' in done.stderr
  assert '1 bad JSON' in done.stderr
  flags = [
    '--task=notes_sequences',
    f'--input_cache_dir={notes.DIRECTORY}/raw_cache',
    f'--output_cache_dir={notes.DIRECTORY}/cache',
  ]
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(shuffle_lib, 'EXAMPLES_OF_A_FILE', 100)
    shuffle.main(shuffle.parse_flags(['shuffle', *flags]))
  return notes


def sequences(**kwargs):
  dataset = seqio.get_mixture_or_task('notes_sequences').get_dataset(
    split='train', shuffle=False, **kwargs
  )
  return collections.Counter(
    (int(e['id']), e['targets'].tobytes(), e['domain'])
    for e in dataset.as_numpy_iterator()
  )


def cut_by_shard():
  """What the task gives for each raw shard by itself."""
  task = seqio.get_mixture_or_task('notes_sequences')
  found = collections.Counter()
  for i in range(3):
    shard = task.source.get_dataset(
      'train', shuffle=False, shard_info=seqio.ShardInfo(i, 3)
    )
    for e in task.preprocess_precache(shard).as_numpy_iterator():
      found[int(e['id']), e['targets'].tobytes(), e['domain']] += 1
  return found


def test_the_cache_holds_all_sequences_of_all_shards(cached):
  found = sequences(use_cached=True)
  assert found == cut_by_shard()
  assert sum(found.values()) > 300 and max(found.values()) == 1
  assert {domain for *_, domain in found} == {b'Wikipedia (en)', b'Github', b''}


@pytest.mark.parametrize('hosts', [4])
def test_hosts_see_the_same_global_batches(cached, hosts):
  task = seqio.get_mixture_or_task('notes_ul2')
  assert len(task.source.list_shards('train')) > 1

  def stream(host, count):
    dataset = task.get_dataset(
      {'targets': cached.LENGTH},
      shard_info=seqio.ShardInfo(host, count),
      num_epochs=2,
    )
    return [
      {k: np.asarray(v).tobytes() for k, v in example.items()}
      for example in dataset.as_numpy_iterator()
    ]

  one = stream(0, 1)
  for host in range(hosts):
    assert stream(host, hosts) == one[host::hosts]


def test_training_reads_the_cache_and_resumes(cached, tmp_path):
  unbroken = tiny_runs.train(tmp_path / 'a', [NOTES])
  assert all(np.isfinite(v) for v in unbroken.scalars['loss'].values())
  assert set(
    tiny_runs.scalars(tmp_path / 'a', 'training_eval/notes_ul2')['loss']
  )
  tiny_runs.copy_up_to(2, tmp_path / 'a', tmp_path / 'b')
  resumed = tiny_runs.train(tmp_path / 'b', [NOTES])
  for step in range(3, 7):
    assert resumed.scalars['loss'][step] == unbroken.scalars['loss'][step]
  assert resumed.rows == unbroken.rows[2:]


def test_an_uncached_iterator_cannot_be_checkpointed_and_says_so(
  notes, tmp_path
):
  with pytest.raises(
    ValueError,
    match=r"MIXTURE_OR_TASK_NAME = 'notes_sequences'.*Cache the task with "
    r'seqio_cache_tasks and set USE_CACHED_TASKS = True',
  ):
    tiny_runs.train(
      tmp_path,
      [NOTES],
      'MIXTURE_OR_TASK_NAME = "notes_sequences"',
      'USE_CACHED_TASKS = False',
    )
  assert not [f for f in os.listdir(tmp_path) if f.startswith('checkpoint')]


def test_without_checkpoints_of_the_data_an_uncached_task_trains(
  notes, tmp_path
):
  run = tiny_runs.train(
    tmp_path,
    [NOTES],
    'MIXTURE_OR_TASK_NAME = "notes_sequences"',
    'USE_CACHED_TASKS = False',
    'SAVE_DATASET = False',
    'TRAIN_STEPS = 2',
    'EVAL_PERIOD = 0',
  )
  assert len(run.rows) == 2


def test_too_few_rows_are_found_before_a_checkpoint_is_written(notes, tmp_path):
  with pytest.raises(ValueError, match=r'\(VOCAB_SIZE\) = 200 output rows'):
    tiny_runs.train(
      tmp_path,
      [NOTES],
      'VOCAB_SIZE = 200',
      'MIXTURE_OR_TASK_NAME = "notes_sequences"',
      'USE_CACHED_TASKS = False',
      'SAVE_DATASET = False',
    )
  assert not [f for f in os.listdir(tmp_path) if f.startswith('checkpoint')]


def test_another_vocabulary_than_the_tasks_is_an_error(notes, tmp_path):
  with pytest.raises(
    ValueError, match='notes_sequences.*VOCABULARY is .*Bind VOCABULARY'
  ):
    tiny_runs.train(
      tmp_path,
      [NOTES],
      'VOCABULARY = @tiny.vocabulary()',
      'MIXTURE_OR_TASK_NAME = "notes_sequences"',
      'USE_CACHED_TASKS = False',
    )
