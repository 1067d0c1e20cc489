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

"""Resumed runs compare their data with those they began with."""

import dataclasses
import functools
import itertools
import json
import shutil

import numbered_task
from numbered_task import T, sequences_task
import pytest
import seqio
import tensorflow as tf

from salt_t5x.checkpoints import damage
from salt_t5x.data import (
  cache_writer,
  feature_converters,
  ordered_tasks,
  supervised_tasks,
)
from salt_t5x.runs import data_iterators, train_data
from salt_t5x.runs import model_dir as model_dir_lib
from t5x import utils
import tiny


@pytest.fixture
def cache(tmp_path, monkeypatch):
  """The folder of a cache; the task over it is `data_ul2`."""
  monkeypatch.setattr(seqio.TaskRegistry, '_REGISTRY', {})
  cached = sequences_task('data')
  folder = tmp_path / 'cache'
  cache_writer.write(cached, str(folder))
  before = list(seqio.get_global_cache_dirs())
  seqio.set_global_cache_dirs([str(folder)])
  # Empty folders do as checkpoints here.
  monkeypatch.setattr(damage, 'describe', lambda path: None)
  yield folder
  seqio.set_global_cache_dirs(before)


def config(**changes):
  options = dict(
    mixture_or_task_name='data_ul2',
    task_feature_lengths={'targets': T},
    split='train',
    batch_size=4,
    shuffle=False,
    seed=0,
  )
  return utils.DatasetConfig(**(options | changes))


def save_iterator(model_dir, step):
  """A checkpoint that holds the data iterator of one process."""
  folder = model_dir / f'checkpoint_{step}' / 'dataset'
  folder.mkdir(parents=True)
  (folder / 'train_ds-000-of-001.index').touch()


def begin(model_dir, cfg, **options):
  """Requests the data as t5x does, and records them as a trainer does."""
  dataset = train_data.get_dataset(
    cfg,
    0,
    1,
    feature_converters.FixedWidthFeatureConverter,
    model_dir=str(model_dir),
    **{'save_dataset': False, **options},
  )
  model_dir_lib.release(str(model_dir))
  train_data.record(str(model_dir), cfg)
  return dataset


def test_rejects_other_data_after_a_checkpoint(cache, tmp_path):
  del cache
  model_dir = tmp_path / 'model'
  begin(model_dir, config())
  # A run without a checkpoint may change.
  begin(model_dir, config(batch_size=8))
  assert json.loads((model_dir / 'data.json').read_text())['BATCH_SIZE'] == 8
  (model_dir / 'checkpoint_0').mkdir()
  begin(model_dir, config(batch_size=8))
  with pytest.raises(ValueError, match='RANDOM_SEED = 3, and was 0') as error:
    begin(model_dir, config(batch_size=8, seed=3))
  assert 'ALLOW_CHANGES_ON_RESUME' in str(error.value)
  begin(model_dir, config(seed=3), allow_changes=True)
  begin(model_dir, config(seed=3))


def test_rejects_data_that_a_saved_iterator_does_not_fit(cache, tmp_path):
  del cache
  model_dir = tmp_path / 'model'
  saved = functools.partial(begin, model_dir, save_dataset=True)
  saved(config())
  save_iterator(model_dir, 0)
  # Some changes can be allowed.
  saved(config(seed=3), allow_changes=True)
  saved(config(seed=3))
  # Others cannot, and no message says so.
  for allow_changes in (False, True):
    with pytest.raises(ValueError, match='BATCH_SIZE = 8, and was 4') as error:
      saved(config(batch_size=8, seed=3), allow_changes=allow_changes)
    assert 'ALLOW_CHANGES_ON_RESUME' not in str(error.value)


@pytest.mark.parametrize('prefix', ['', 'EVAL_'])
def test_names_a_task_that_is_not_registered(cache, prefix):
  del cache
  model = tiny.make_model(numbered_task.VOCABULARY, vocab_size=269)
  cfg = config(mixture_or_task_name='data_ul')
  train_cfg = config() if prefix else cfg
  with pytest.raises(
    ValueError,
    match=f"^{prefix}MIXTURE_OR_TASK_NAME = 'data_ul': .* Near names: data_ul2",
  ):
    train_data.check_model(cfg, model, train_cfg=train_cfg)


def test_rejects_a_truncated_cache(cache, tmp_path):
  model_dir = tmp_path / 'model'
  begin(model_dir, config())
  (model_dir / 'checkpoint_0').mkdir()
  [file] = cache.rglob('*train.tfrecord-00000-of-00001')
  content = file.read_bytes()
  file.write_bytes(content[:-20])
  with pytest.raises(ValueError, match=r'00000-of-00001 has \d+ bytes, but '):
    begin(model_dir, config())
  file.write_bytes(content)
  begin(model_dir, config())


def test_rejects_another_cache_of_the_same_sizes(cache, tmp_path):
  cfg = config(mixture_or_task_name='data', use_cached=True)
  model_dir = tmp_path / 'model'
  read = functools.partial(begin, model_dir, cfg, save_dataset=True)
  read()
  save_iterator(model_dir, 0)
  [file] = cache.rglob('*train.tfrecord-00000-of-00001')
  size = file.stat().st_size
  records = list(tf.data.TFRecordDataset(str(file)).as_numpy_iterator())
  with tf.io.TFRecordWriter(str(file)) as writer:
    for record in records[::-1]:
      writer.write(record)
  assert file.stat().st_size == size
  with pytest.raises(ValueError, match='data_fingerprints = '):
    read()


def write_with_another_seed(cache):
  shutil.rmtree(cache / 'data')
  task = seqio.TaskRegistry.get('data')
  cache_writer.write(task, str(cache), seed=1)


def test_rejects_the_cache_in_another_order(cache, tmp_path):
  model_dir = tmp_path / 'model'
  begin(model_dir, config())
  (model_dir / 'checkpoint_0').mkdir()
  write_with_another_seed(cache)
  with pytest.raises(ValueError, match='data_fingerprints = '):
    begin(model_dir, config())


def test_the_record_knows_that_the_data_changed(cache, tmp_path):
  model_dir = tmp_path / 'model'
  changed = lambda: json.loads((model_dir / 'data.json').read_text())['changed']
  begin(model_dir, config())
  # Not yet of a run that would be resumed.
  begin(model_dir, config(batch_size=8))
  (model_dir / 'checkpoint_0').mkdir()
  begin(model_dir, config(batch_size=8, seed=3), allow_changes=True)
  assert changed() is False
  write_with_another_seed(cache)
  begin(model_dir, config(batch_size=8, seed=3), allow_changes=True)
  assert changed() is True
  begin(model_dir, config(batch_size=8, seed=3))
  assert changed() is True


def test_fingerprints_of_supervised_tasks_are_of_their_examples(monkeypatch):
  monkeypatch.setattr(seqio.TaskRegistry, '_REGISTRY', {})

  def fingerprint(answer):
    seqio.TaskRegistry._REGISTRY.clear()
    supervised_tasks.register(
      'sums',
      {'train': lambda: [{'sum': '1 + 1', 'answer': answer}]},
      inputs='{sum}',
      targets='{answer}',
      vocabulary=seqio.ByteVocabulary(),
      metric_fns=[],
    )
    cfg = config(mixture_or_task_name='sums')
    return train_data.describe(cfg)['data_fingerprints']['sums']

  assert fingerprint('2') == fingerprint('2') != fingerprint('3')


def test_rejects_another_number_of_processes(cache, tmp_path):
  del cache
  model_dir = tmp_path / 'model'
  begin(model_dir, config())
  dataset = model_dir / 'checkpoint_3' / 'dataset'
  for share in range(2):
    (dataset / f'process_{share}').mkdir(parents=True)
    name = f'train_ds-00{share}-of-002'
    (dataset / f'process_{share}' / f'{name}.index').touch()
  with pytest.raises(ValueError, match='read 2 shares .* do not fit 1'):
    begin(model_dir, config(), save_dataset=True)


def write_checkpoint_without_iterator(model_dir):
  """As Orbax leaves one of step 3."""
  dataset = model_dir / 'checkpoint_3' / 'dataset'
  dataset.mkdir(parents=True)
  (dataset / 'commit_success.txt').touch()


def test_refuses_to_begin_the_data_again(cache, tmp_path, caplog):
  del cache
  model_dir = tmp_path / 'model'
  cfg = config(mixture_or_task_name='data', use_cached=True)
  unsaved = functools.partial(begin, model_dir, cfg, save_dataset=False)
  unsaved()
  # At step 0 the data do begin.
  (model_dir / 'checkpoint_0').mkdir()
  unsaved()
  write_checkpoint_without_iterator(model_dir)
  with pytest.raises(ValueError, match='SAVE_DATASET = False: .* at step 3'):
    unsaved()
  with caplog.at_level('WARNING'):
    unsaved(allow_changes=True)
  assert 'reads its data from the beginning again' in caplog.text
  with pytest.raises(ValueError, match='SAVE_DATASET = True, but .*point_3 ho'):
    unsaved(save_dataset=True)


def add_with(name, preprocessor):
  """Registers `data_ul2` with one more preprocessor."""
  task = seqio.TaskRegistry.get('data_ul2')
  seqio.TaskRegistry.add(
    name,
    source=task.source,
    preprocessors=[*task.preprocessors, preprocessor],
    output_features=task.output_features,
    task_cls=ordered_tasks.OrderedTask,
    shuffle_buffer_size=None,
  )


@seqio.map_over_dataset(num_seeds=1)
def _draw(example, seed):
  noise = tf.random.stateless_uniform([], seed, maxval=2**30, dtype=tf.int64)
  return example | {'id': example['id'] + noise}


@pytest.mark.parametrize(
  'preprocessor',
  [
    lambda x: x.shuffle(100, seed=0),
    lambda x: x.enumerate().map(lambda i, e: e | {'id': i}),
    _draw,
    lambda x: x.map(
      lambda e: e | {'id': tf.random.uniform([], maxval=2**30, dtype=tf.int64)}
    ),
  ],
  ids=['shuffled', 'counted', 'seeds', 'random'],
)
def test_preprocessors_that_remember_need_saved_iterators(cache, preprocessor):
  del cache
  add_with('remembers', preprocessor)
  cfg = config(mixture_or_task_name='remembers')
  assert data_iterators.saves_iterator(cfg, None)


@pytest.mark.parametrize(
  'changes, reason',
  [
    ({'mixture_or_task_name': 'data'}, 'no global order'),
    ({'pack': True}, 'packs examples'),
    ({'mixture_or_task_name': 'filtered'}, 'do not map one example to one'),
  ],
)
def test_iterators_are_saved_where_needed(
  cache, tmp_path, caplog, changes, reason
):
  del cache
  add_with('filtered', lambda x: x.filter(lambda e: True))
  decide = data_iterators.saves_iterator
  assert not decide(config(), None)
  assert decide(config(), True)
  assert not decide(config(**changes), False)
  assert decide(config(**changes), None)
  cfg = config(**changes, use_cached='data' in changes.values())
  begin(tmp_path / 'model', cfg, save_dataset=True)
  assert reason in caplog.text and 'as many processes' in caplog.text
  # `check_model` names it.
  assert not decide(config(mixture_or_task_name='data_ul'), None)


def test_batches_are_those_of_the_step(cache, tmp_path):
  del cache
  model_dir = tmp_path / 'model'
  ids = lambda batches: [
    x['decoder_target_tokens'].tobytes() for x in itertools.islice(batches, 5)
  ]
  whole = begin(model_dir, config(batch_size=2))
  expected = ids(whole)
  write_checkpoint_without_iterator(model_dir)
  resumed = begin(model_dir, config(batch_size=2))
  assert ids(resumed)[:2] == expected[3:]
  whole.seek(2)
  assert ids(whole)[:3] == expected[2:]


def test_a_run_of_an_earlier_version_says_what_to_do(cache, tmp_path, caplog):
  del cache
  model_dir = tmp_path / 'model'
  begin(model_dir, config())
  save_iterator(model_dir, 3)
  with pytest.raises(ValueError, match='point_3 holds a data iterator.*Finish'):
    begin(model_dir, config())
  with caplog.at_level('WARNING'):
    begin(model_dir, config(), allow_changes=True)
  assert 'the batches that its step determines' in caplog.text


def test_an_earlier_version_is_named_before_its_cache(cache, tmp_path):
  for file in cache.rglob('order.*.json'):
    file.unlink()
  save_iterator(tmp_path / 'model', 3)
  model = tiny.make_model(numbered_task.VOCABULARY, vocab_size=269)
  with pytest.raises(ValueError, match='holds a run of an earlier version'):
    train_data.check_model(config(), model, str(tmp_path / 'model'))
  with pytest.raises(ValueError, match='not in a random order'):
    train_data.check_model(config(), model, str(tmp_path / 'new'))


def test_names_a_damaged_record(cache, tmp_path):
  del cache
  model_dir = tmp_path / 'model'
  begin(model_dir, config())
  (model_dir / 'checkpoint_0').mkdir()
  for text in ('', '[]', '{', '\udcff'):
    (model_dir / 'data.json').write_text(text, errors='surrogateescape')
    with pytest.raises(ValueError, match=r'data\.json is damaged'):
      begin(model_dir, config())


@pytest.mark.parametrize('scan_layers', [True, False])
def test_rejects_a_model_of_fewer_layers(cache, tmp_path, scan_layers):
  """t5x would restore it, and drop the layers that are left over."""
  del cache
  make = functools.partial(
    tiny.make_model, numbered_task.VOCABULARY, vocab_size=269
  )
  trained = make(num_layers=4, scan_layers=scan_layers)
  trainer = tiny.make_trainer(trained, summary_dir=str(tmp_path))
  tiny.save_checkpoint(str(tmp_path), trainer)
  check = lambda model: train_data.check_model(config(), model, str(tmp_path))
  check(trained)
  with pytest.raises(ValueError) as e:
    check(make(num_layers=3, scan_layers=scan_layers))
  assert str(e.value).startswith(
    f'MODEL_DIR = {str(tmp_path)!r}: MODEL '
    '(network.TransformerConfig.num_layers = 3, and was 4) is not the '
  )
  # In a run's own directory alone: other data have no checkpoint.
  train_data.check_model(config(), make(num_layers=3))


def test_describes_uncached_tasks_by_name(caplog):
  seqio.TaskRegistry.add(
    'not_cached',
    source=seqio.FunctionDataSource(
      lambda split, shuffle_files: None, ['train']
    ),
    preprocessors=[],
    output_features={},
  )
  try:
    data = train_data.describe(config(mixture_or_task_name='not_cached'))
  finally:
    seqio.TaskRegistry.remove('not_cached')
  assert data['MIXTURE_OR_TASK_NAME'] == 'not_cached'
  assert data['data_fingerprints'] == {'not_cached': None}
  assert "data of ['not_cached'] are not cached" in caplog.text


def add_seqio_cached(name, splits):
  """Registers a task whose cache seqio reads itself."""
  seqio.TaskRegistry.add(
    name,
    source=seqio.FunctionDataSource(
      lambda split, shuffle_files, seed=None: None, splits
    ),
    preprocessors=[seqio.CacheDatasetPlaceholder()],
    output_features=seqio.TaskRegistry.get('data').output_features,
  )


def test_evaluation_data_need_no_cache_of_a_split_they_lack(cache, monkeypatch):
  monkeypatch.setattr(seqio.MixtureRegistry, '_REGISTRY', {})
  add_seqio_cached('train_only', ['train'])
  shutil.copytree(cache / 'data', cache / 'train_only')
  for file in (cache / 'train_only').glob('*validation*'):
    file.unlink()
  seqio.MixtureRegistry.add('mixed', ['data', 'train_only'], default_rate=1.0)
  model = tiny.make_model(numbered_task.VOCABULARY, vocab_size=269)
  for name in ('train_only', 'mixed'):
    cfg = config(mixture_or_task_name=name, use_cached=True, split='validation')
    # `eval_data` names the split, or warns.
    train_data.check_vocabulary(cfg, model)


def test_data_of_no_evaluation_are_not_checked(cache):
  add_seqio_cached('damaged', ['train', 'validation'])
  shutil.copytree(cache / 'data', cache / 'damaged')
  (cache / 'damaged' / 'info.validation.json').unlink()
  model = tiny.make_model(numbered_task.VOCABULARY, vocab_size=269)
  cfg = config(mixture_or_task_name='damaged', use_cached=True)
  evaluated = dataclasses.replace(cfg, split='validation')
  check = functools.partial(
    train_data.check_model, evaluated, model, train_cfg=cfg
  )
  with pytest.raises(FileNotFoundError, match='info.validation.json'):
    check(eval_period=1)
  check(eval_period=0)
  other = dataclasses.replace(evaluated, mixture_or_task_name='not_there')
  train_data.check_model(other, model, train_cfg=cfg, eval_period=0)
  # Training data are always read.
  with pytest.raises(ValueError, match='not_there'):
    train_data.check_model(other, model, train_cfg=other, eval_period=0)


def add_rows(name, rows):
  seqio.TaskRegistry.add(
    name,
    source=seqio.FunctionDataSource(
      lambda split, shuffle_files, seed=None: (
        tf.data.Dataset.from_tensor_slices({'targets': rows})
      ),
      ['train'],
    ),
    preprocessors=[],
    output_features={
      'targets': seqio.Feature(tiny.vocabulary(), add_eos=False)
    },
  )


@pytest.mark.parametrize('num_shards', [1, 2])
def test_data_without_loss_tokens_are_named_where_they_are_read(
  monkeypatch, num_shards
):
  monkeypatch.setattr(seqio.TaskRegistry, '_REGISTRY', {})
  rows = tiny.rows()[:64].copy()
  add_rows('good', rows)
  add_rows('no_tokens', 0 * rows)

  def read(get, name, **options):
    cfg = config(
      mixture_or_task_name=name,
      task_feature_lengths={'targets': tiny.LENGTH},
      shuffle=True,
    )
    converter = feature_converters.FixedWidthFeatureConverter
    batches = get(cfg, 0, num_shards, converter, **options)
    return [tiny.row_ids(x) for x in batches.take(5).as_numpy_iterator()]

  with pytest.raises(
    ValueError,
    match="MIXTURE_OR_TASK_NAME = 'no_tokens': .*no token with a loss weight",
  ):
    read(train_data.get_dataset, 'no_tokens', save_dataset=False)
  # What the check reads is not missing from the run.
  found = read(train_data.get_dataset, 'good', save_dataset=False)
  assert found == read(utils.get_dataset, 'good')
