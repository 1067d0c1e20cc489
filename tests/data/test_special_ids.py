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

"""Vocabularies that cannot be used are named before caching or training."""

import io

import pytest
import sentencepiece
from sentencepiece import sentencepiece_model_pb2
import seqio
import tensorflow as tf

from salt_t5x import look
from salt_t5x.data import (
  pile_shards,
  sequences,
  supervised_tasks,
  text_tasks,
  vocabularies,
)
from salt_t5x.inference import pretrained
from salt_t5x.runs import train_data
from t5x import utils
import tiny

T5 = dict(pad_id=0, eos_id=1, unk_id=2, bos_id=-1)
PADDING = "its id 0 is '<unk>', which text can give, but id 0 is padding"


def train(path, change=None, extra_ids=0, **options):
  """A small model, as spm_train makes it, with its prototype changed."""
  model = io.BytesIO()
  sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter(['alpha beta gamma', 'delta alpha', 'beta'] * 20),
    model_writer=model,
    vocab_size=60,
    hard_vocab_limit=False,
    minloglevel=2,
    **options,
  )
  content = model.getvalue()
  if change:
    proto = sentencepiece_model_pb2.ModelProto.FromString(content)
    change(proto)
    content = proto.SerializeToString()
  path.write_bytes(content)
  return seqio.SentencePieceVocabulary(str(path), extra_ids=extra_ids)


def real_token_first(proto):
  proto.pieces[0].piece = 'z'
  proto.pieces[0].type = proto.pieces[3].type


def eos_is_pad(proto):
  proto.trainer_spec.eos_piece = '<pad>'


def equal_pieces(proto):
  proto.pieces[5].piece = proto.pieces[6].piece


@pytest.mark.parametrize(
  ('options', 'change', 'message'),
  [
    ({}, None, PADDING),
    (T5 | {'eos_id': -1}, None, 'it has no EOS'),
    (T5, real_token_first, "its id 0 is 'z', which text can give"),
    (T5, eos_is_pad, 'its EOS has id 0, which is padding'),
    (T5, equal_pieces, 'has two ids of one piece'),
  ],
  ids=['plain spm_train', 'no EOS', 'token 0', 'EOS = pad', 'equal pieces'],
)
def test_names_special_ids_that_cannot_be_used(
  options, change, message, tmp_path
):
  vocabulary = train(tmp_path / 'my.model', change, **options)
  with pytest.raises(ValueError, match=f'VOCABULARY.*{message}') as error:
    vocabularies.check_special_ids(vocabulary, 'VOCABULARY')
  if change is not equal_pieces:
    flags = '--pad_id=0 --eos_id=1 --unk_id=2 --bos_id=-1'
    assert f'spm_train {flags}' in str(error.value)


def test_sentinels_that_the_model_holds_itself_are_not_added_again(tmp_path):
  options = T5 | {'user_defined_symbols': ['▁<extra_id_0>']}
  vocabularies.check_special_ids(train(tmp_path / 'a', **options), 'V')
  vocabulary = train(tmp_path / 'b', extra_ids=1, **options)
  with pytest.raises(ValueError, match='extra_ids = 1.*set extra_ids = 0'):
    vocabularies.check_special_ids(vocabulary, 'V')


def test_accepts_the_usual_vocabularies(tmp_path):
  for vocabulary in (
    train(tmp_path / 'a', **T5, extra_ids=5),
    train(tmp_path / 'b', **(T5 | {'bos_id': 3})),
    seqio.ByteVocabulary(extra_ids=3),
    seqio.PassThroughVocabulary(10),
    seqio.PassThroughVocabulary(10, eos_id=1),
  ):
    vocabularies.check_special_ids(vocabulary, 'VOCABULARY')
  with pytest.raises(ValueError, match='its EOS has id 0'):
    vocabularies.check_special_ids(seqio.PassThroughVocabulary(9, eos_id=0), '')


@pytest.fixture
def plain(tmp_path):
  return train(tmp_path / 'plain.model')


def test_sequences_are_not_cut_with_unk_as_padding(plain):
  documents = tf.data.Dataset.from_tensors(
    {'targets': [3], 'id': tf.constant(0, tf.int64), 'domain': 'a'}
  )
  features = {'targets': seqio.Feature(plain)}
  with pytest.raises(ValueError, match=PADDING):
    sequences.cut(documents, features, length=4)


def test_supervised_tasks_are_not_read_with_unk_as_padding(plain, monkeypatch):
  monkeypatch.setattr(seqio.TaskRegistry, '_REGISTRY', {})
  task = supervised_tasks.register(
    'sums',
    {'train': lambda: [{'x': 'alpha', 'y': 'beta'}]},
    inputs='{x}',
    targets='{y}',
    vocabulary=plain,
    metric_fns=[],
  )
  with pytest.raises(ValueError, match=PADDING):
    task.get_dataset({'inputs': 8, 'targets': 4}, 'train')


def test_models_do_not_run_with_unk_as_padding(plain, tmp_path, monkeypatch):
  monkeypatch.setattr(seqio.TaskRegistry, '_REGISTRY', {})
  seqio.TaskRegistry.add(
    'mine',
    source=seqio.FunctionDataSource(
      lambda split, shuffle_files: None, ['train']
    ),
    preprocessors=[],
    output_features={'targets': seqio.Feature(plain)},
  )
  model = tiny.make_model(plain, vocab_size=64)
  cfg = utils.DatasetConfig('mine', {'targets': 4}, 'train', 2, False, 0)
  with pytest.raises(ValueError, match=f'VOCABULARY = .*{PADDING}'):
    train_data.check_vocabulary(cfg, model)
  source = pretrained.Pretrained(model, str(tmp_path))
  with pytest.raises(ValueError, match=f'VOCABULARY = .*{PADDING}'):
    source.check_record(plain)


_NO_MODELS = {
  'pointer': b'version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n',
  'page': b'<!DOCTYPE html>\n<html><body>404</body></html>\n',
  'vocab': b'<pad>\t0\n</s>\t0\n<unk>\t0\na\t-1.5\n',
  'empty': b'',
  'missing': None,
}


@pytest.fixture
def broken(tmp_path, monkeypatch):
  """Registers text tasks with a vocabulary that is no model."""
  monkeypatch.setattr(seqio.TaskRegistry, '_REGISTRY', {})
  monkeypatch.setattr(seqio.MixtureRegistry, '_REGISTRY', {})
  shard = str(tmp_path / 'a.jsonl.zst')
  pile_shards.write(shard, [(f'alpha beta {i}', '') for i in range(50)])

  def make(content):
    path = tmp_path / 'my.model'
    if content is not None:
      path.write_bytes(content)
    vocabulary = seqio.SentencePieceVocabulary(str(path), extra_ids=20)
    text_tasks.register('text', {'train': shard}, vocabulary, 8)
    supervised_tasks.register(
      'sums',
      {'train': lambda: [{'x': 'alpha', 'y': 'beta'}]},
      inputs='{x}',
      targets='{y}',
      vocabulary=vocabulary,
      metric_fns=[],
    )
    return vocabulary

  return make


@pytest.mark.parametrize('content', _NO_MODELS.values(), ids=_NO_MODELS)
def test_files_that_are_no_models_are_named(broken, content, tmp_path):
  vocabulary = broken(content)
  message = (
    rf"sentencepiece_model_file = '{tmp_path}/my.model'\) is not a "
    'SentencePiece model .*Name the file that'
  )
  get = seqio.get_mixture_or_task
  for call in (
    lambda: vocabularies.fingerprint(vocabulary),
    lambda: vocabularies.check_special_ids(vocabulary, 'VOCABULARY'),
    # As in seqio_cache_tasks.
    lambda: get('text_sequences').preprocess_precache(
      get('text_sequences').source.get_dataset('train')
    ),
    lambda: get('sums').get_dataset({'inputs': 8, 'targets': 4}, 'train'),
  ):
    with pytest.raises(vocabularies.VocabularyError, match=message):
      call()
  for task in 'text_sequences', 'text_ul2', 'sums':
    args = look.parse_flags(['', f'--task={task}', '--sequence_length=8'])
    with pytest.raises(SystemExit, match=f'--task={task}.*{message}'):
      look.main(args)
  # Another one can be trained in its place.
  for task, text in ('text_sequences', 'alpha beta 0'), ('sums', 'beta'):
    assert next(vocabularies.sample(get(task), 'train', 1)) == text
