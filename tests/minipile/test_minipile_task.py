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


"""mini-Pile's tasks on a tiny build: training reads the cache, and resumes."""

import importlib
import random
import sys

import numpy as np
import pytest
import seqio
import tensorflow as tf

from salt_t5x.data import feature_converters, ordered_cache, text_tasks
from salt_t5x.minipile import corpus, prepare

LENGTH = 32
BATCH = 8
VOCAB_SIZE = 420
MODULE = 'salt_t5x.tasks.minipile'


@pytest.fixture(scope='module')
def data_dir(tmp_path_factory):
  rng = random.Random(0)
  folder = tmp_path_factory.mktemp('text')
  for number in range(120):
    words = [''.join(rng.choices('abcdef', k=4)) for _ in range(60)]
    (folder / f'{number}.txt').write_text(' '.join(words))
  source = corpus.Source(
    domain='notes',
    name='folder',
    version='1',
    licence='none',
    members=r'.*\.txt',
    parse=corpus.parse_file,
    folder=str(folder),
  )
  path = str(tmp_path_factory.mktemp('built') / 'data')
  prepare.build(
    path,
    '',
    sequence_length=LENGTH,
    vocab_size=VOCAB_SIZE,
    megabytes=1,
    sources=[source],
    weights={'notes': 1},
  )
  return path


@pytest.fixture(scope='module')
def minipile(data_dir):
  """The module, imported for this data; other tests keep theirs."""
  before = seqio.get_global_cache_dirs()
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv('SALT_T5X_DATA', data_dir)
    patch.setattr(seqio.TaskRegistry, '_REGISTRY', {})
    patch.setattr(seqio.MixtureRegistry, '_REGISTRY', {})
    patch.delitem(sys.modules, MODULE, raising=False)
    yield importlib.import_module(MODULE)
    del sys.modules[MODULE]
  seqio.set_global_cache_dirs(before)


def batches(task='minipile_ul2', split='train', **kwargs):
  return seqio.get_dataset(
    task,
    task_feature_lengths={'targets': LENGTH},
    feature_converter=feature_converters.FixedWidthFeatureConverter(pack=False),
    dataset_split=split,
    shuffle=False,
    batch_size=BATCH,
    use_cached=True,
    **kwargs,
  )


@pytest.mark.usefixtures('minipile')
@pytest.mark.parametrize('task', ['minipile_ul2', 'minipile_short_spans'])
def test_all_batches_are_t_wide(task):
  found = list(batches(task).as_numpy_iterator())
  assert len(found) > 30
  for batch in found:
    assert {v.shape for v in batch.values()} == {(BATCH, LENGTH)}


@pytest.mark.usefixtures('minipile')
def test_causal_view_is_the_sequences_with_loss_on_all_tokens():
  sequences = seqio.get_mixture_or_task('minipile_sequences').get_dataset(
    split='validation', use_cached=True, shuffle=False
  )
  rows = sorted(e['targets'].tolist() for e in sequences.as_numpy_iterator())
  found = []
  for batch in batches('minipile_causal', 'validation').as_numpy_iterator():
    np.testing.assert_array_equal(batch['decoder_loss_weights'], 1)
    np.testing.assert_array_equal(
      batch['decoder_causal_attention'], np.eye(1, LENGTH).repeat(BATCH, 0)
    )
    np.testing.assert_array_equal(
      batch['decoder_input_tokens'][:, 1:],
      batch['decoder_target_tokens'][:, :-1],
    )
    found += batch['decoder_target_tokens'].tolist()
  assert len(found) == len(rows) // BATCH * BATCH > 0
  assert all(row in rows for row in found)


@pytest.mark.usefixtures('minipile')
def test_uncached_sequences_are_those_of_the_cache():
  task = seqio.get_mixture_or_task('minipile_sequences')
  rows = lambda **options: sorted(
    (int(e['id']), e['targets'].tobytes(), e['domain'])
    for e in task.get_dataset(
      split='train', shuffle=False, **options
    ).as_numpy_iterator()
  )
  cached = rows(use_cached=True)
  # The sequences of one shard do not go on in the next.
  shards = len(task.source.list_shards('train'))
  assert cached == sorted(
    row
    for i in range(shards)
    for row in rows(use_cached=False, shard_info=seqio.ShardInfo(i, shards))
  )
  assert len(cached) > 200


@pytest.mark.usefixtures('minipile')
def test_an_iterator_resumes_in_the_second_epoch(tmp_path):
  count = len(list(batches(num_epochs=2)))
  position = int(0.6 * count)
  iterator = iter(batches(num_epochs=2))
  for _ in range(position):
    next(iterator)
  saved = tf.train.Checkpoint(iterator=iterator).write(str(tmp_path / 'saved'))
  expected = [batch['decoder_target_tokens'].numpy() for batch in iterator]
  assert len(expected) == count - position

  restored = iter(batches(num_epochs=2))
  tf.train.Checkpoint(iterator=restored).read(saved).assert_consumed()
  found = [batch['decoder_target_tokens'].numpy() for batch in restored]
  np.testing.assert_array_equal(found, expected)


@pytest.mark.usefixtures('minipile')
def test_another_length_than_the_builds_is_an_error():
  with pytest.raises(
    ValueError, match=r"TASK_FEATURE_LENGTHS\['targets'\] = 64.*have 32 tokens"
  ):
    seqio.get_mixture_or_task('minipile_ul2').get_dataset(
      {'targets': 64}, split='train', shuffle=False
    )


def test_the_vocabulary_is_the_built_one(minipile):
  vocabulary = minipile.vocabulary()
  assert vocabulary.vocab_size == VOCAB_SIZE
  assert vocabulary.extra_ids == text_tasks.EXTRA_IDS
  assert (vocabulary.pad_id, vocabulary.eos_id, vocabulary.unk_id) == (0, 1, 2)
  features = seqio.get_mixture_or_task('minipile_ul2').output_features
  assert features['targets'].vocabulary == vocabulary
  assert features['inputs'].vocabulary == vocabulary


@pytest.mark.parametrize('module', [MODULE, 'salt_t5x.tasks.pile'])
def test_modules_import_before_there_is_data(monkeypatch, tmp_path, module):
  monkeypatch.chdir(tmp_path)
  for variable in ('SALT_T5X_DATA', 'SALT_T5X_PILE', 'SALT_T5X_VOCABULARY'):
    monkeypatch.delenv(variable, raising=False)
  monkeypatch.setattr(seqio.TaskRegistry, '_REGISTRY', {})
  monkeypatch.setattr(seqio.MixtureRegistry, '_REGISTRY', {})
  monkeypatch.delitem(sys.modules, module, raising=False)
  before = seqio.get_global_cache_dirs()
  seqio.set_global_cache_dirs([])
  name = module.split('.')[-1]
  try:
    data_dir = importlib.import_module(module).DATA_DIR
    assert data_dir == str(tmp_path / 'data' / name)
    with pytest.raises(
      FileNotFoundError, match=f'{name}_sequences is not cached'
    ):
      seqio.get_mixture_or_task(f'{name}_ul2').source.get_dataset()
  finally:
    seqio.set_global_cache_dirs(before)
    # Its tasks are gone: the next test that needs it imports it again.
    del sys.modules[module]
    vars(sys.modules['salt_t5x.tasks']).pop(name)


def test_a_cache_of_another_length_is_found_out(minipile):
  task = seqio.get_mixture_or_task('minipile_sequences')
  source = ordered_cache.CachedSource(task, {'targets': 64})
  with pytest.raises(ValueError, match="64 tokens in 'targets'.* has 32"):
    source.get_dataset('train')
