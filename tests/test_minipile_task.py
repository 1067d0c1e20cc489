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

"""Tests of the seqio task minipile_causal on a tiny build."""

import importlib
import os
import random
import sys

import gin
import numpy as np
import pytest
import seqio
import tensorflow as tf

from salt_t5x import corpus, prepare

LENGTH = 16
BATCH = 8
MODULE = 'salt_t5x.tasks.minipile'


@pytest.fixture(scope='module')
def data_dir(tmp_path_factory):
  """A build whose train shards are longer than seqio's interleave block, 16."""
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
    vocab_size=320,
    megabytes=1,
    sources=[source],
  )
  return path


@pytest.fixture(scope='module')
def minipile(data_dir):
  """The module, imported for this data; other tests keep theirs."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv('SALT_T5X_DATA', data_dir)
    patch.setattr(seqio.TaskRegistry, '_REGISTRY', {})
    patch.delitem(sys.modules, MODULE, raising=False)
    yield importlib.import_module(MODULE)
    del sys.modules[MODULE]


@pytest.fixture(scope='module')
def recorded(data_dir):
  """[N, T] train targets of the shards, read in the order of their names."""
  shards = [
    os.path.join(data_dir, f'train.tfrecord-0000{i}-of-00004') for i in range(4)
  ]
  targets = [
    tf.train.Example.FromString(record).features.feature['targets']
    for record in tf.data.TFRecordDataset(shards).as_numpy_iterator()
  ]
  result = np.array([list(feature.int64_list.value) for feature in targets])
  assert len(result) > 4 * 2 * 16  # or the default interleave would not show
  return result


def batches(split='train', **kwargs):
  return seqio.get_dataset(
    'minipile_causal',
    task_feature_lengths={'targets': LENGTH},
    feature_converter=seqio.DecoderFeatureConverter(pack=False),
    dataset_split=split,
    shuffle=False,
    seed=0,
    batch_size=BATCH,
    **kwargs,
  )


@pytest.mark.usefixtures('minipile')
def test_batches_come_in_the_global_order(recorded):
  dataset = batches()
  assert dataset.element_spec['decoder_target_tokens'] == tf.TensorSpec(
    [BATCH, LENGTH], tf.int32
  )
  found = [b['decoder_target_tokens'] for b in dataset.as_numpy_iterator()]
  steps = len(recorded) // BATCH
  np.testing.assert_array_equal(
    np.concatenate(found), recorded[: steps * BATCH]
  )


@pytest.mark.usefixtures('minipile')
def test_every_token_counts_and_inputs_are_shifted():
  for batch in batches('validation').as_numpy_iterator():
    np.testing.assert_array_equal(batch['decoder_loss_weights'], 1)
    np.testing.assert_array_equal(
      batch['decoder_input_tokens'][:, 1:],
      batch['decoder_target_tokens'][:, :-1],
    )


@pytest.mark.usefixtures('minipile')
@pytest.mark.parametrize('share', [0, 0.1, 0.5, 0.9])
def test_an_iterator_resumes_in_the_middle(recorded, tmp_path, share):
  # Two epochs: the second must not start afresh after a restore.
  position = int(share * 2 * len(recorded)) // BATCH
  iterator = iter(batches(num_epochs=2))
  for _ in range(position):
    next(iterator)
  saved = tf.train.Checkpoint(iterator=iterator).write(str(tmp_path / 'saved'))
  expected = [batch['decoder_target_tokens'].numpy() for batch in iterator]
  assert len(expected) == 2 * len(recorded) // BATCH - position

  restored = iter(batches(num_epochs=2))
  tf.train.Checkpoint(iterator=restored).read(saved).assert_consumed()
  found = [batch['decoder_target_tokens'].numpy() for batch in restored]
  np.testing.assert_array_equal(found, expected)


@pytest.mark.usefixtures('minipile')
def test_the_task_keeps_id_and_domain():
  dataset = seqio.get_mixture_or_task('minipile_causal').get_dataset(
    {'targets': LENGTH}, split='train', shuffle=False
  )
  assert dataset.element_spec['id'] == tf.TensorSpec([], tf.int64)
  example = next(dataset.as_numpy_iterator())
  assert example['domain'] == b'notes'
  assert example['targets'].dtype == np.int32


def test_the_vocabulary_is_the_built_one_with_no_extra_ids(
  minipile, recorded, data_dir
):
  vocabulary = minipile.vocabulary()
  assert vocabulary.vocab_size == 320
  assert (vocabulary.pad_id, vocabulary.eos_id, vocabulary.unk_id) == (0, 1, 2)
  text = vocabulary.decode(recorded[recorded != 1][:100].tolist())
  assert set(text) <= set('abcdef ')
  feature = seqio.get_mixture_or_task('minipile_causal').output_features
  assert feature['targets'].vocabulary == vocabulary
  assert not feature['targets'].add_eos


def test_the_vocabulary_can_be_named_in_gin(minipile):
  with gin.unlock_config():
    gin.parse_config("""
        from __gin__ import dynamic_registration
        import builtins
        from salt_t5x.tasks import minipile

        builtins.dict.vocabulary = @minipile.vocabulary()
    """)
  try:
    bound = gin.get_configurable(dict)()
  finally:
    gin.clear_config()
  assert bound['vocabulary'] == minipile.vocabulary()


def test_the_module_imports_before_there_is_data(
  minipile, monkeypatch, tmp_path
):
  monkeypatch.chdir(tmp_path)
  monkeypatch.delenv('SALT_T5X_DATA')
  monkeypatch.setattr(seqio.TaskRegistry, '_REGISTRY', {})
  monkeypatch.delitem(sys.modules, MODULE)
  module = importlib.import_module(MODULE)
  assert module is not minipile
  assert os.path.join('data', 'minipile') == module.DATA_DIR
