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

"""A cache is read only with the vocabulary that it was made with."""

import shutil

import pytest
import seqio

from salt_t5x.data import (
  cache_writer,
  examples,
  ordered_cache,
  pile_shards,
  text_tasks,
  vocabularies,
)
from salt_t5x.inference import sampler
from salt_t5x.runs import train_data
from t5x import utils
import tiny

T = 8
SIZE = 310


def documents(word):
  return [f'{word} {n} and {word} {n % 7}' for n in range(60)]


@pytest.fixture(scope='module')
def models(tmp_path_factory):
  """Paths of two vocabularies of equal size."""
  folder = tmp_path_factory.mktemp('vocabularies')
  for word in ('alpha', 'omega'):
    model = vocabularies.train(documents(word), SIZE, 20)
    (folder / f'{word}.model').write_bytes(model)
  return folder


@pytest.fixture(autouse=True)
def registry(monkeypatch):
  monkeypatch.setattr(seqio.TaskRegistry, '_REGISTRY', {})
  monkeypatch.setattr(seqio.MixtureRegistry, '_REGISTRY', {})
  before = list(seqio.get_global_cache_dirs())
  yield
  seqio.set_global_cache_dirs(before)


def register(path, raw, extra_ids=20):
  """Registers the tasks `text_*` anew with a vocabulary; returns it."""
  seqio.TaskRegistry._REGISTRY.clear()
  seqio.MixtureRegistry._REGISTRY.clear()
  vocabulary = seqio.SentencePieceVocabulary(str(path), extra_ids=extra_ids)
  validation = str(raw).replace('a.jsonl', 'b.jsonl')
  splits = {'train': str(raw), 'validation': validation}
  text_tasks.register('text', splits, vocabulary, T)
  return vocabulary


@pytest.fixture
def raw(models, tmp_path):
  """Text whose sequences are cached with the vocabulary `alpha`."""
  raw = tmp_path / 'a.jsonl.zst'
  texts = list(documents('alpha'))
  for path, part in (raw, texts), (tmp_path / 'b.jsonl.zst', texts[1:]):
    pile_shards.write(str(path), [(x, 'books') for x in part])
  register(models / 'alpha.model', raw)
  cache_writer.write(
    seqio.TaskRegistry.get('text_sequences'),
    str(tmp_path / 'cache'),
  )
  seqio.set_global_cache_dirs([str(tmp_path / 'cache')])
  return raw


def config(**changes):
  options = dict(
    mixture_or_task_name='text_causal',
    task_feature_lengths={'targets': T},
    split='train',
    batch_size=2,
    shuffle=False,
    seed=0,
  )
  return utils.DatasetConfig(**(options | changes))


def read(name='text_causal', split='train'):
  return seqio.get_mixture_or_task(name).get_dataset(
    {'targets': T}, split, shuffle=False
  )


def test_models_see_no_fingerprint(raw, models):
  assert vocabularies.FINGERPRINT not in read().element_spec
  assert vocabularies.FINGERPRINT not in read('text_train_subset', 'validation')
  shown = '\n'.join(
    examples.show(seqio.get_mixture_or_task('text_sequences'), T)
  )
  assert 'fingerprint' not in shown


def test_a_copy_of_the_vocabulary_is_the_same(raw, models, tmp_path):
  before = [e['id'] for e in read().as_numpy_iterator()]
  register(shutil.copy(models / 'alpha.model', tmp_path / 'copy.model'), raw)
  assert [e['id'] for e in read().as_numpy_iterator()] == before


@pytest.mark.parametrize('other', [('omega', 20), ('alpha', 19)])
def test_rejects_a_cache_of_another_vocabulary(other, raw, models, tmp_path):
  name, extra_ids = other
  register(models / f'{name}.model', raw, extra_ids)
  source = seqio.TaskRegistry.get('text_causal').source
  message = rf'task text_sequences has the vocabulary .*{name}\.model.*'
  message += f'{tmp_path}.*was made with another.*cache it again in another'
  for door in (
    read,
    lambda: read('text_train_subset', 'validation'),
    lambda: source.parser('train'),
    lambda: source.fingerprint('train'),
    lambda: ordered_cache.read_sequences('text_causal', 'validation'),
    # Without an order: seqio reads the cache itself.
    lambda: train_data.check_vocabulary(
      config(mixture_or_task_name='text_sequences', use_cached=True),
      tiny.make_model(
        seqio.SentencePieceVocabulary(
          str(models / f'{name}.model'), extra_ids=extra_ids
        ),
        vocab_size=SIZE,
      ),
    ),
  ):
    with pytest.raises(ValueError, match=message):
      door()


def test_caches_without_a_fingerprint_are_logged_once(raw, monkeypatch, caplog):
  monkeypatch.setattr(vocabularies, 'FINGERPRINT', 'missing')
  source = seqio.TaskRegistry.get('text_causal').source
  for _ in range(2):
    source.check('train')
  [message] = caplog.messages
  assert 'does not say which vocabulary' in message
  assert source.cached_task.cache_dir in message


def test_a_view_has_the_vocabulary_of_its_cache(raw, models):
  """A task of the user's own over a cache of another vocabulary."""
  own = seqio.SentencePieceVocabulary(str(models / 'omega.model'), extra_ids=20)
  task = seqio.TaskRegistry.get('text_causal')
  seqio.TaskRegistry.add(
    'own',
    source=task.source,
    preprocessors=[],
    output_features={'targets': seqio.Feature(own)},
  )
  model = tiny.make_model(own, vocab_size=SIZE)
  with pytest.raises(
    ValueError, match="'targets of text_sequences' has .*alph"
  ):
    train_data.check_vocabulary(config(mixture_or_task_name='own'), model)


def test_sampled_sequences_know_their_vocabulary(models, tmp_path):
  vocabulary = seqio.SentencePieceVocabulary(
    str(models / 'alpha.model'), extra_ids=20
  )
  rows = tiny.rows()[:4, :T]
  sampler.write_cache(
    str(tmp_path), {'train': rows, 'validation': rows}, vocabulary
  )
  seqio.set_global_cache_dirs([str(tmp_path / 'cache')])

  def source(path):
    task = text_tasks.sequences_task(
      'samples',
      dict.fromkeys(('train', 'validation'), 'none'),
      seqio.SentencePieceVocabulary(str(path), extra_ids=20),
      T,
    )
    return ordered_cache.CachedSource(task)

  source(tmp_path / 'vocabulary.model').check('train')
  with pytest.raises(ValueError, match='was made with another'):
    source(models / 'omega.model').check('train')


def test_an_evaluation_task_is_named_by_its_own_parameter(raw, models):
  vocabulary = seqio.SentencePieceVocabulary(
    str(models / 'omega.model'), extra_ids=20
  )
  model = tiny.make_model(vocabulary, vocab_size=SIZE)
  for train_task, parameter in (
    ('other', '^EVAL_MIXTURE_OR_TASK_NAME'),
    ('text_causal', '^MIXTURE_OR_TASK_NAME'),
  ):
    message = f"{parameter} = 'text_causal': its feature .*alpha.model.*omega"
    with pytest.raises(ValueError, match=message):
      train_data.check_model(
        config(), model, train_cfg=config(mixture_or_task_name=train_task)
      )
  register(raw, raw)
  message = f"EVAL_MIXTURE_OR_TASK_NAME = 'text_causal'.*{raw.name}"
  with pytest.raises(ValueError, match=message):
    train_data.check_model(
      config(), model, train_cfg=config(mixture_or_task_name='other')
    )


def test_other_text_than_was_cached_is_named(raw, models, caplog):
  own = register(models / 'alpha.model', raw)
  model = tiny.make_model(own, vocab_size=SIZE + 20)
  check = lambda: train_data.check_vocabulary(config(), model)
  check()
  raw.rename(moved := raw.with_name('moved'))
  check()
  assert 'other text' not in caplog.text
  pile_shards.write(str(raw), [(x, 'books') for x in documents('omega')])
  check()
  assert "was made of other text than ['a.jsonl.zst'] (train" in caplog.text
  caplog.clear()
  moved.rename(raw)
  check()
  assert 'other text' not in caplog.text
