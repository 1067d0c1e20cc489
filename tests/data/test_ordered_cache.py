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


"""The same examples in the same global batches on any number of hosts."""

import functools
import json
import pathlib

from numbered_task import COUNT, T, ordered, sequences_task
import numpy as np
import pytest
import seqio
import tensorflow as tf

from salt_t5x import shuffle
from salt_t5x.data import cache_writer, ordered_cache, ul2
from salt_t5x.data import shuffle as shuffle_lib

BATCH = 8


@pytest.fixture(scope='module', params=[1 << 16, 8])
def task(request, tmp_path_factory):
  """A task over a cache of one file, or of 16, some of which may be empty."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(seqio.TaskRegistry, '_REGISTRY', {})
    name = f'order_{request.param}'
    cached = sequences_task(name)
    folder = tmp_path_factory.mktemp('cache')
    patch.setattr(shuffle_lib, 'EXAMPLES_OF_A_FILE', request.param)
    cache_writer.write(cached, str(folder))
    before = list(seqio.get_global_cache_dirs())
    seqio.set_global_cache_dirs([str(folder)])
    yield seqio.TaskRegistry.get(f'{name}_ul2')
    seqio.set_global_cache_dirs(before)


def read(task, hosts=1, host=0, num_epochs=1, **kwargs):
  return task.get_dataset(
    {'targets': T},
    'train',
    shard_info=seqio.ShardInfo(host, hosts),
    num_epochs=num_epochs,
    **kwargs,
  )


def ids(dataset):
  return [int(e['id']) for e in dataset.as_numpy_iterator()]


def test_order_is_that_of_hashed_ids(task):
  assert ids(read(task)) == [1000 * n for n in ordered(COUNT)]


@pytest.mark.parametrize('name', ['a[1]', 'b*c?', 'd\\e', '#f%20|g', '[h'])
def test_a_cache_may_lie_in_any_folder(tmp_path, monkeypatch, name):
  monkeypatch.setattr(seqio.TaskRegistry, '_REGISTRY', {})
  cached = sequences_task('anywhere')
  folder = str(tmp_path / name)
  cache_writer.write(cached, folder)
  source = ordered_cache.CachedSource(cached, {'targets': T})
  before = list(seqio.get_global_cache_dirs())
  seqio.set_global_cache_dirs([folder])
  try:
    assert len(list(source.records('train'))) == COUNT
  finally:
    seqio.set_global_cache_dirs(before)


def test_training_data_to_evaluate_on(task):
  """The training split under the name that evaluation asks for."""
  source = ordered_cache.TrainingSubset(task.source.cached_task, {'targets': T})
  assert tuple(source.splits) == ('validation',)
  whole = task.source
  assert source.fingerprint('validation') == whole.fingerprint('train')
  source.warn_of_other_text('validation')
  assert source.num_input_examples('validation') == COUNT
  found = task.reading(source).get_dataset({'targets': T}, 'validation')
  assert ids(found) == ids(read(task))


def test_epochs_follow_each_other(task):
  examples = list(read(task, num_epochs=3).as_numpy_iterator())
  assert [e['id'] for e in examples[:COUNT]] == ids(read(task))
  for start in (COUNT, 2 * COUNT):
    epoch = [e['id'] for e in examples[start : start + COUNT]]
    assert sorted(epoch) == sorted(ids(read(task)))
    assert epoch != ids(read(task))
  assert [e['epoch'] for e in examples] == [
    e for e in range(3) for _ in range(COUNT)
  ]


def test_examples_keep_their_features(task):
  example = next(read(task).as_numpy_iterator())
  number = example['id'] // 1000
  assert example['domain'] == b'abc'[number % 3 : number % 3 + 1]
  spec = read(task).element_spec
  assert spec['id'].dtype == spec['epoch'].dtype == tf.int64
  assert spec['targets'].dtype == spec['inputs'].dtype == tf.int32


def global_batches(task, hosts, steps):
  """[steps][BATCH] examples, put together from the hosts' batches."""
  streams = [
    read(task, hosts, host, num_epochs=None).as_numpy_iterator()
    for host in range(hosts)
  ]
  return [
    [
      {k: np.asarray(v).tobytes() for k, v in next(stream).items()}
      for _ in range(BATCH // hosts)
      for stream in streams
    ]
    for _ in range(steps)
  ]


def test_hosts_share_each_global_batch(task):
  # Three epochs and more: their ends lie in the middle of batches.
  steps = 3 * COUNT // BATCH + 2
  assert global_batches(task, 8, steps) == global_batches(task, 1, steps)


@pytest.mark.parametrize('position, hosts', [(28, 1), (2 * COUNT - 2, 4)])
def test_begins_at_any_position(task, position, hosts):
  everything = ids(read(task, num_epochs=4))
  for host in {0, hosts - 1}:
    found = read(task.reading(task.source, position), hosts, host, None)
    expected = everything[position + host :: hosts][:60]
    assert ids(found.take(len(expected))) == expected


def test_a_cache_in_another_order_is_refused(task):
  [description] = pathlib.Path(task.source.cached_task.cache_dir).glob(
    'order.train.json'
  )
  aside = description.rename(description.with_suffix('.aside'))
  try:
    with pytest.raises(
      ValueError, match=r'python -m salt_t5x\.shuffle --task='
    ):
      read(task)
  finally:
    aside.rename(description)


def test_shuffling_is_refused(task):
  with pytest.raises(ValueError, match=r'DatasetConfig\.shuffle = False'):
    read(task, shuffle=True)


def test_a_missing_cache_says_how_to_make_one(monkeypatch):
  monkeypatch.setattr(seqio.TaskRegistry, '_REGISTRY', {})
  sequences_task('uncached')
  with pytest.raises(
    FileNotFoundError,
    match='(?s)seqio_cache_tasks --tasks=unca.*salt_t5x.shuffle',
  ):
    read(seqio.TaskRegistry.get('uncached_ul2'))


@pytest.mark.parametrize('shards', [None, 2])
def test_an_empty_cache_is_called_empty(shards, tmp_path, monkeypatch):
  """seqio_cache_tasks then writes an empty description, and empty files."""
  monkeypatch.setattr(seqio.TaskRegistry, '_REGISTRY', {})
  sequences_task('empty')
  folder = tmp_path / 'empty'
  folder.mkdir()
  info, stats = {}, {}
  if shards is not None:
    features = {'targets': {'shape': [None], 'dtype': 'int32'}}
    info, stats = {'num_shards': shards, 'features': features}, {'examples': 0}
    for i in range(shards):
      (folder / f'train.tfrecord-{i:05d}-of-{shards:05d}').touch()
  (folder / 'info.train.json').write_text(json.dumps(info))
  (folder / 'stats.train.json').write_text(json.dumps(stats))
  (folder / 'COMPLETED').touch()
  flags = [
    f'--input_cache_dir={tmp_path}',
    f'--output_cache_dir={tmp_path}/new',
  ]
  message = f'The train split of the cache {folder} is empty: cache the task ag'
  with pytest.raises(ValueError, match=message):
    shuffle.main(shuffle.parse_flags(['shuffle', '--task=empty', *flags]))


def test_equal_seeds_draw_equally_and_others_do_not(task):
  def corrupt(seed):
    source = task.source.get_dataset('train')
    data = functools.partial(ul2.ul2, seed=seed)(
      source, task.output_features, {'targets': T}
    )
    return [e['inputs'].tobytes() for e in data.as_numpy_iterator()]

  assert corrupt(0) == [
    e['inputs'].tobytes() for e in read(task).as_numpy_iterator()
  ]
  assert corrupt(1) != corrupt(0)


@pytest.mark.parametrize('how', ['gone', 'within a record', 'between records'])
def test_a_file_that_changes_while_it_is_read_is_an_error(
  how, tmp_path, monkeypatch
):
  """Not an order that is silently another one."""
  monkeypatch.setattr(seqio.TaskRegistry, '_REGISTRY', {})
  cached = sequences_task('changing')
  monkeypatch.setattr(shuffle_lib, 'EXAMPLES_OF_A_FILE', 8)
  cache_writer.write(cached, str(tmp_path))
  before = list(seqio.get_global_cache_dirs())
  seqio.set_global_cache_dirs([str(tmp_path)])
  try:
    source = seqio.TaskRegistry.get('changing_ul2').source
    stream = source.stream('train', None).as_numpy_iterator()
    for _ in range(COUNT):
      next(stream)
    [file] = tmp_path.rglob('*train.tfrecord-00001-of-00016')
    if how == 'gone':
      file.unlink()
    else:
      content = file.read_bytes()
      records = [
        len(r) + 16
        for r in tf.data.TFRecordDataset(str(file)).as_numpy_iterator()
      ]
      assert sum(records) == len(content)
      end = sum(records[:-1]) - (5 if how == 'within a record' else 0)
      file.write_bytes(content[:end])
    with pytest.raises(tf.errors.OpError):
      # The epoch after the next: some of that was read ahead.
      for _ in range(2 * COUNT + 1):
        next(stream)
  finally:
    seqio.set_global_cache_dirs(before)
