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

"""The order of a cache: a random permutation, whatever wrote the cache."""

import json
import os
import shutil

import numpy as np
import pytest
import seqio
import tensorflow as tf

from salt_t5x import files, shuffle
from salt_t5x.data import hashing, order, ordered_cache
from salt_t5x.data import shuffle as shuffle_lib

ONE_EPOCH = 1


@pytest.fixture(autouse=True)
def small_files(monkeypatch):
  monkeypatch.setattr(seqio.TaskRegistry, '_REGISTRY', {})
  add_task()
  monkeypatch.setattr(shuffle_lib, 'EXAMPLES_OF_A_FILE', 300)


def add_task():
  def read(split, shuffle_files, seed=None):
    raise AssertionError('the raw data are not read')

  source = seqio.FunctionDataSource(read, ['train'])
  seqio.TaskRegistry.add('t', source, output_features={})


def example(**features):
  proto = tf.train.Example()
  for name, values in features.items():
    proto.features.feature[name].int64_list.value.extend(values)
  return proto.SerializeToString()


def write_raw(folder, records, shards=3, split='train'):
  """A cache as seqio writes it: files, their number, and statistics."""
  os.makedirs(folder, exist_ok=True)
  for i in range(shards):
    path = f'{folder}/{split}.tfrecord-{i:05d}-of-{shards:05d}'
    with tf.io.TFRecordWriter(path) as writer:
      for record in records[i::shards]:
        writer.write(record)
  features = {'id': {'shape': [], 'dtype': 'int64'}}
  info = {'num_shards': shards, 'features': features}
  files.write_json(seqio.get_cached_info_path(folder, split), info)
  stats = {'examples': len(records)}
  files.write_json(seqio.get_cached_stats_path(folder, split), stats)
  files.write_whole(f'{folder}/COMPLETED', b'')


def run(raw, output, *flags):
  flags = ['--task=t', f'--input_cache_dir={raw}', *flags]
  flags = ['shuffle', *flags, f'--output_cache_dir={output}']
  shuffle.main(shuffle.parse_flags(flags))


def read_bytes(folder):
  return {x.name: x.read_bytes() for x in folder.iterdir()}


def ids(found):
  return [
    (
      int(epoch),
      *tf.train.Example.FromString(x).features.feature['id'].int64_list.value,
    )
    for epoch, x in found.as_numpy_iterator()
  ]


def test_the_order_depends_on_ids_and_seed_alone(tmp_path):
  records = [example(id=[7 * i], targets=[i, 2]) for i in range(1000)]
  write_raw(f'{tmp_path}/one/t', records, shards=1)
  write_raw(f'{tmp_path}/many/t', records[::-1], shards=40)
  for raw in ('one', 'many'):
    run(tmp_path / raw, tmp_path / f'{raw}_shuffled')
  run(tmp_path / 'one', tmp_path / 'other_seed', '--seed=1')
  found = read_bytes(tmp_path / 'one_shuffled/t')
  assert found == read_bytes(tmp_path / 'many_shuffled/t')
  assert len(json.loads(found['order.train.json'])['files']) == 4
  orders = [
    ids(order.read(f'{tmp_path}/{x}/t', 'train').stream(epochs=1))
    for x in ('one_shuffled', 'other_seed')
  ]
  assert orders[0] == sorted(
    ((0, 7 * i) for i in range(1000)),
    key=lambda x: hashing.digest(b'order 0 ', str(x[1]).encode()),
  )
  assert sorted(orders[0]) == sorted(orders[1])
  assert orders[0] != orders[1]


def test_beam_writes_the_same_bytes(tmp_path):
  pytest.importorskip('apache_beam', reason='apache-beam is not installed')
  records = [example(id=[i]) for i in range(1000)]
  write_raw(f'{tmp_path}/raw/t', records)
  write_raw(f'{tmp_path}/raw/t', records[:2], split='validation', shards=1)
  run(tmp_path / 'raw', tmp_path / 'local')
  options = '--pipeline_options=--runner=DirectRunner'
  run(tmp_path / 'raw', tmp_path / 'beam', options)
  found = read_bytes(tmp_path / 'beam/t')
  assert found == read_bytes(tmp_path / 'local/t')
  assert {'order.train.json', 'order.validation.json'} < found.keys()


def test_more_than_the_memory_holds(tmp_path, monkeypatch):
  records = [example(id=[i], targets=range(50)) for i in range(1000)]
  write_raw(f'{tmp_path}/raw/t', records)
  run(tmp_path / 'raw', tmp_path / 'in_memory')
  monkeypatch.setattr(shuffle_lib, '_BUFFER', 10_000)
  run(tmp_path / 'raw', tmp_path / 'on_disk', f'--temp_dir={tmp_path}')
  assert read_bytes(tmp_path / 'on_disk/t') == read_bytes(
    tmp_path / 'in_memory/t'
  )
  assert sorted(os.listdir(tmp_path)) == ['in_memory', 'on_disk', 'raw']


@pytest.fixture(scope='module')
def shuffled(tmp_path_factory):
  """An order over 8 files, and its first three epochs."""
  folder = tmp_path_factory.mktemp('shuffled')
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(seqio.TaskRegistry, '_REGISTRY', {})
    add_task()
    patch.setattr(shuffle_lib, 'EXAMPLES_OF_A_FILE', 300)
    write_raw(f'{folder}/raw/t', [example(id=[i]) for i in range(2000)])
    run(folder / 'raw', folder)
  found = order.read(f'{folder}/t', 'train')
  assert len(found.paths) == 8 and found.examples == 2000
  return found, ids(found.stream(epochs=3))


@pytest.mark.parametrize('start', [0, 1, 700, 1999, 2000, 2001, 4000, 5999])
def test_any_position_is_read_at_once(shuffled, start):
  found, everything = shuffled
  part = ids(found.stream(start, 3).take(300))
  assert part == everything[start : start + 300]


def test_each_epoch_has_an_order_of_its_own(shuffled):
  found, everything = shuffled
  epochs = [[i for e, i in everything if e == epoch] for epoch in range(3)]
  assert all(sorted(epoch) == list(range(2000)) for epoch in epochs)
  places = np.argsort(epochs)
  # Within a file, no epoch tells of another.
  for first, second in ((0, 1), (1, 2)):
    file = np.searchsorted(np.cumsum(found.counts), places[0], side='right')
    for number, count in enumerate(found.counts):
      r = np.corrcoef(places[:, file == number])[first, second]
      assert abs(r) < 4 / np.sqrt(count)
  assert len({tuple(found.files_of(epoch)) for epoch in range(3)}) == 3


def test_a_part_of_the_examples(shuffled):
  found, everything = shuffled
  of_epoch = [i for e, i in everything if e == 0]
  keep = np.array(of_epoch) % 3 == 0
  parts = np.split(keep, np.cumsum(found.counts)[:-1])
  masks = tf.ragged.constant([x.tolist() for x in parts])
  kept = order.Kept(
    [int(x.sum()) for x in parts],
    lambda file: tf.data.Dataset.from_tensors(masks[file]),
  )
  expected = [(e, i) for e, i in everything if i % 3 == 0]
  assert ids(found.stream(0, 3, kept)) == expected
  assert ids(found.stream(900, 3, kept)) == expected[900:]


def test_permutations_are_fixed_forever():
  """Whatever TensorFlow computes them: runs are resumed after upgrades."""
  found = order.permutation(5, 2, 3, 8).numpy().tolist()
  assert sorted(found) == list(range(8))
  numbers = []
  for i in range(8):
    key = 0
    for part in (5, 2, 3, i):
      x = (key + part + 0x9E3779B97F4A7C15) % 2**64
      x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 % 2**64
      x = (x ^ x >> 27) * 0x94D049BB133111EB % 2**64
      key = x ^ x >> 31
    numbers.append(key - 2**64 * (key >> 63))
  assert found == sorted(range(8), key=lambda i: numbers[i])
  assert order.permutation(5, 0, 3, 8).numpy().tolist() == list(range(8))


@pytest.mark.parametrize(
  'damage, message',
  [
    ('no description', 'order.train.json'),
    ('description', 'order.train.json is damaged'),
    ('shortened', r'tfrecord-00001-of-00008 has \d+ bytes'),
    ('missing', 'tfrecord-00001-of-00008 is missing'),
    ('counts', 'order.train.json is damaged .*has been changed'),
    ('statistics', r'names 2,000 examples, but .*stats.train.json 2,001'),
    ('of another cache', r'tfrecord-00000-of-00008 has \d+ bytes'),
    ('order', 'tfrecord-00001-of-00008.*has other examples'),
  ],
)
def test_damage_is_named(tmp_path, damage, message):
  write_raw(f'{tmp_path}/raw/t', [example(id=[i]) for i in range(2000)])
  run(tmp_path / 'raw', tmp_path)
  folder = tmp_path / 't'
  description = folder / 'order.train.json'
  file = folder / 'train.tfrecord-00001-of-00008'
  if damage == 'no description':
    description.unlink()
  elif damage == 'description':
    description.write_bytes(description.read_bytes()[:-20])
  elif damage == 'shortened':
    file.write_bytes(file.read_bytes()[:-1])
  elif damage == 'missing':
    file.unlink()
  elif damage == 'statistics':
    (folder / 'stats.train.json').write_text('{"examples": 2001}')
  elif damage == 'of another cache':
    run(tmp_path / 'raw', tmp_path / 'other', '--seed=1')
    shutil.copy(tmp_path / 'other/t' / description.name, description)
  elif damage == 'order':
    records = list(tf.data.TFRecordDataset(str(file)).as_numpy_iterator())
    with tf.io.TFRecordWriter(str(file)) as writer:
      for record in records[::-1]:
        writer.write(record)
  else:
    content = json.loads(description.read_text())
    content['files'][1]['examples'] -= 1
    content['files'][2]['examples'] += 1
    description.write_text(json.dumps(content))
  errors = ValueError, FileNotFoundError, tf.errors.InvalidArgumentError
  with pytest.raises(errors, match=message):
    for _ in order.read(str(folder), 'train').stream(epochs=1):
      pass


def test_nothing_is_overwritten(tmp_path):
  write_raw(f'{tmp_path}/raw/t', [example(id=[i]) for i in range(10)])
  run(tmp_path / 'raw', tmp_path)
  before = read_bytes(tmp_path / 't')
  with pytest.raises(ValueError, match='--output_cache_dir=.*is not empty'):
    run(tmp_path / 'raw', tmp_path)
  assert read_bytes(tmp_path / 't') == before


@pytest.mark.parametrize('what', ['unfinished', 'file', 'count'])
def test_rejects_raw_caches_that_are_not_whole(tmp_path, what):
  raw = tmp_path / 'raw/t'
  write_raw(str(raw), [example(id=[i]) for i in range(10)])
  if what == 'unfinished':
    (raw / 'COMPLETED').unlink()
  elif what == 'file':
    (raw / 'train.tfrecord-00001-of-00003').unlink()
  else:
    (raw / 'stats.train.json').write_text('{"examples": 11}')
  errors = ValueError, FileNotFoundError
  with pytest.raises(errors, match=r'[Cc]ache the task'):
    run(tmp_path / 'raw', tmp_path)
  assert not (tmp_path / 't/COMPLETED').exists()


@pytest.mark.parametrize(
  'flag, message',
  [
    ('--seed=9223372036854775808', 'choose one below'),
    ('--task=view', 'reads the cache of t: name that'),
    ('--task=mixed', 'is a mixture'),
  ],
)
def test_rejects_flags(tmp_path, monkeypatch, flag, message):
  monkeypatch.setattr(seqio.MixtureRegistry, '_REGISTRY', {})
  source = ordered_cache.CachedSource(seqio.TaskRegistry.get('t'))
  seqio.TaskRegistry.add('view', source, output_features={})
  seqio.MixtureRegistry.add('mixed', ['t'], default_rate=1)
  write_raw(f'{tmp_path}/raw/t', [example(id=[i]) for i in range(10)])
  with pytest.raises(ValueError, match=message):
    run(tmp_path / 'raw', tmp_path / 'new', flag)


def test_different_examples_of_one_id_are_refused(tmp_path):
  records = [example(id=[i], targets=[i]) for i in range(9)]
  write_raw(f'{tmp_path}/raw/t', [*records, example(id=[4], targets=[9])])
  with pytest.raises(ValueError, match='have the same id, 4, so'):
    run(tmp_path / 'raw', tmp_path / 'new')


def test_files_have_a_bounded_number_of_bytes(tmp_path, monkeypatch):
  pytest.importorskip('apache_beam', reason='apache-beam is not installed')
  monkeypatch.setattr(shuffle_lib, '_BYTES_OF_A_FILE', 2000)
  records = [example(id=[i], targets=range(40)) for i in range(100)]
  write_raw(f'{tmp_path}/raw/t', records)
  run(tmp_path / 'raw', tmp_path / 'local')
  found = read_bytes(tmp_path / 'local/t')
  sizes = [len(x) for name, x in found.items() if 'tfrecord' in name]
  assert len(sizes) == 4 and max(sizes) < 3000
  options = '--pipeline_options=--runner=DirectRunner'
  run(tmp_path / 'raw', tmp_path / 'beam', options)
  assert found == read_bytes(tmp_path / 'beam/t')


def test_a_shuffle_that_was_stopped_is_named(tmp_path, monkeypatch):
  write_raw(f'{tmp_path}/raw/t', [example(id=[i]) for i in range(10)])
  with monkeypatch.context() as patch:
    patch.setattr(shuffle_lib, 'write_split', None)
    with pytest.raises(TypeError):
      run(tmp_path / 'raw', tmp_path / 'new')
  before = list(seqio.get_global_cache_dirs())
  seqio.set_global_cache_dirs([str(tmp_path / 'new')])
  try:
    source = ordered_cache.CachedSource(seqio.TaskRegistry.get('t'))
    with pytest.raises(FileNotFoundError, match='not shuffled to the end'):
      source.order('train')
  finally:
    seqio.set_global_cache_dirs(before)
  with pytest.raises(ValueError, match='is not empty'):
    run(tmp_path / 'raw', tmp_path / 'new')


def test_damaged_raw_files_are_named(tmp_path):
  raw = tmp_path / 'raw/t'
  write_raw(str(raw), [example(id=[i]) for i in range(10)])
  file = raw / 'train.tfrecord-00001-of-00003'
  content = file.read_bytes()
  file.write_bytes(content[:-3])
  with pytest.raises(ValueError, match=f'{file} is damaged'):
    run(tmp_path / 'raw', tmp_path / 'new')
  file.write_bytes(content)
  (raw / 'info.train.json').write_text('{')
  with pytest.raises(ValueError, match=f'{raw}/info.train.json is damaged'):
    run(tmp_path / 'raw', tmp_path / 'other')
