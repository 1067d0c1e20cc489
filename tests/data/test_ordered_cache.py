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

from numbered_task import COUNT, T, sequences_task
import numpy as np
import pytest
import seqio
import tensorflow as tf

from salt_t5x.data import cache_writer, ordered_cache, ul2

BATCH = 8


@pytest.fixture(scope='module', params=[3, 120])
def task(request, tmp_path_factory):
  """A task over a cache of 3 files, or of 120, some of which are empty."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(seqio.TaskRegistry, '_REGISTRY', {})
    name = f'order_{request.param}'
    cached = sequences_task(name)
    folder = tmp_path_factory.mktemp('cache')
    written = cache_writer.write(
      cached,
      str(folder),
      {'train': request.param, 'validation': 1},
      key=lambda e: -e['id'],
    )
    assert [len(examples) for examples in written.values()] == [COUNT, 5]
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


def test_order_is_the_one_the_cache_was_written_in(task):
  assert ids(read(task)) == [n * 1000 for n in reversed(range(COUNT))]


@pytest.mark.parametrize('name', ['a[1]', 'b*c?', 'd\\e', '#f%20|g', '[h'])
def test_a_cache_may_lie_in_any_folder(tmp_path, monkeypatch, name):
  monkeypatch.setattr(seqio.TaskRegistry, '_REGISTRY', {})
  cached = sequences_task('anywhere')
  folder = str(tmp_path / name)
  counts = {'train': 2, 'validation': 1}
  cache_writer.write(cached, folder, counts, key=lambda e: e['id'])
  source = ordered_cache.CachedSource(cached, {'targets': T})
  before = list(seqio.get_global_cache_dirs())
  seqio.set_global_cache_dirs([folder])
  try:
    assert len(source.list_shards('train')) == 2
    assert len(list(source.records('train'))) == COUNT
  finally:
    seqio.set_global_cache_dirs(before)


def test_training_data_to_evaluate_on(task):
  """The training split under the name that evaluation asks for."""
  source = ordered_cache.TrainingSubset(task.source.cached_task, {'targets': T})
  assert tuple(source.splits) == ('validation',)
  assert source.num_input_examples('validation') == COUNT
  found = task.reading(source).get_dataset({'targets': T}, 'validation')
  assert ids(found) == ids(read(task))


def test_epochs_follow_each_other(task):
  examples = list(read(task, num_epochs=3).as_numpy_iterator())
  assert [e['id'] for e in examples] == ids(read(task)) * 3
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


@pytest.mark.parametrize('position', [28, 2 * COUNT + 3])
def test_resumes_in_mid_epoch_and_across_its_end(task, tmp_path, position):
  hosts = 4
  dataset = read(task, hosts, hosts - 1, num_epochs=None)
  iterator = iter(dataset)
  for _ in range(position // hosts):
    next(iterator)
  path = tf.train.Checkpoint(ds=iterator).write(str(tmp_path / 'ds'))
  expected = [next(iterator) for _ in range(COUNT // hosts + 5)]
  restored = iter(dataset)
  tf.train.Checkpoint(ds=restored).read(path).assert_consumed()
  for a in expected:
    b = next(restored)
    for name in a:
      np.testing.assert_array_equal(a[name], b[name])


def test_files_of_unequal_length_end_one_by_one(tmp_path):
  """What a foreign writer made: no example is lost, the order still one."""
  folder = tmp_path / 'uneven'
  folder.mkdir()
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(seqio.TaskRegistry, '_REGISTRY', {})
    cached = sequences_task('uneven')
    sizes = [5, 0, 1, 3]
    features = {'id': {'shape': [], 'dtype': 'int64'}}
    for i, size in enumerate(sizes):
      path = folder / f'train.tfrecord-0000{i}-of-00004'
      with tf.io.TFRecordWriter(str(path)) as writer:
        for j in range(size):
          example = seqio.dict_to_tfexample({'id': np.int64(10 * i + j)})
          writer.write(example.SerializeToString())
    info = {'num_shards': 4, 'features': features}
    pathlib.Path(folder, 'info.train.json').write_text(json.dumps(info))
    pathlib.Path(folder, 'COMPLETED').touch()
    before = list(seqio.get_global_cache_dirs())
    seqio.set_global_cache_dirs([str(tmp_path)])
    try:
      source = ordered_cache.CachedSource(cached)
      expected = [0, 20, 30, 1, 31, 2, 32, 3, 4]
      assert ids(source.get_dataset('train')) == expected
      share = source.get_dataset('train', shard_info=seqio.ShardInfo(1, 2))
      assert ids(share) == expected[1::2]
      (folder / 'train.tfrecord-00002-of-00004').unlink()
      with pytest.raises(FileNotFoundError, match='3 files.*with 4'):
        source.get_dataset('train')
    finally:
      seqio.set_global_cache_dirs(before)


def test_shuffling_is_refused(task):
  with pytest.raises(ValueError, match=r'DatasetConfig\.shuffle = False'):
    read(task, shuffle=True)


def test_a_missing_cache_says_how_to_make_one(monkeypatch):
  monkeypatch.setattr(seqio.TaskRegistry, '_REGISTRY', {})
  sequences_task('uncached')
  with pytest.raises(FileNotFoundError, match='seqio_cache_tasks --tasks=unca'):
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
  before = list(seqio.get_global_cache_dirs())
  seqio.set_global_cache_dirs([str(tmp_path)])
  try:
    source = seqio.TaskRegistry.get('empty_ul2').source
    message = f'The train split of the cache {folder} is empty: cache empty ag'
    for door in (
      lambda: read(seqio.TaskRegistry.get('empty_ul2'), num_epochs=None),
      lambda: source.fingerprint('train'),
    ):
      with pytest.raises(ValueError, match=message):
        door()
  finally:
    seqio.set_global_cache_dirs(before)


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
  cache_writer.write(
    cached, str(tmp_path), {'train': 2, 'validation': 1}, key=lambda e: e['id']
  )
  before = list(seqio.get_global_cache_dirs())
  seqio.set_global_cache_dirs([str(tmp_path)])
  try:
    source = seqio.TaskRegistry.get('changing_ul2').source
    stream = source.stream('train', None).as_numpy_iterator()
    for _ in range(COUNT):
      next(stream)
    [file] = tmp_path.rglob('*train.tfrecord-00001-of-00002')
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
