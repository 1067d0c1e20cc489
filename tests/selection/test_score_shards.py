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

"""Files of scores: what is written is read, and what is wrong is named."""

import dataclasses
import json
import re

import numpy as np
import pytest

from salt_t5x.selection import score_shards, scoring

MANIFEST = score_shards.Manifest(
  task='notes',
  split='train',
  data='1f',
  teacher='/models/small/checkpoint_30',
  teacher_identity='2e',
  step=30,
  sequences_read=240,
  dtype=None,
  top_k=10,
  examples=10,
  shard_size=4,
  examples_by_file=[6, 5],
)


def records(start, count):
  result = np.zeros(count, score_shards.RECORD)
  result['id'] = np.arange(start, start + count) + 2**40
  result['domain'] = np.arange(count) % 2
  for i, kind in enumerate(scoring.KINDS):
    result[kind] = np.linspace(-i, start, count)
  return result


@pytest.fixture
def folder(tmp_path):
  """All shards of `MANIFEST`, written last to first."""
  path = str(tmp_path / 'scores')
  score_shards.begin(path, MANIFEST)
  for index, (start, count) in reversed(
    list(enumerate(((0, 4), (4, 4), (8, 2))))
  ):
    names = ['é', f'only in {index}']
    score_shards.write_shard(path, index, records(start, count), names)
    assert score_shards.finished(path) == set(range(index, 3))
  return path


def read(folder):
  return list(score_shards.read_shards(folder, MANIFEST))


def test_shards_are_read_in_order(folder):
  assert MANIFEST.num_shards == 3
  assert score_shards.read_manifest(folder) == MANIFEST
  found = read(folder)
  assert [names for _, names in found] == [
    ['é', f'only in {i}'] for i in range(3)
  ]
  expected = np.concatenate([records(0, 4), records(4, 4), records(8, 2)])
  np.testing.assert_array_equal(np.concatenate([r for r, _ in found]), expected)


def test_rejects_another_manifest(folder):
  score_shards.begin(folder, MANIFEST)
  other = dataclasses.replace(MANIFEST, step=60, top_k=1)
  with pytest.raises(ValueError, match='step was 30 and is now 60; top_k'):
    score_shards.begin(folder, other)
  assert score_shards.read_manifest(folder) == MANIFEST


def test_a_moved_teacher_may_lack_its_record(folder):
  moved = dataclasses.replace(MANIFEST, teacher='/b', sequences_read=None)
  score_shards.begin(folder, moved)
  assert score_shards.read_manifest(folder) == MANIFEST


def test_a_folder_without_shards_may_be_claimed(tmp_path):
  score_shards.begin(str(tmp_path), MANIFEST)
  other = dataclasses.replace(MANIFEST, dtype='bfloat16')
  score_shards.begin(str(tmp_path), other)
  assert score_shards.read_manifest(str(tmp_path)) == other


@pytest.mark.parametrize(
  'content',
  [
    None,
    '{"task": ',
    json.dumps(dataclasses.asdict(MANIFEST) | {'shard_size': 0}),
    json.dumps(dataclasses.asdict(MANIFEST) | {'examples': '10'}),
  ],
)
def test_damaged_manifest(tmp_path, content):
  path = tmp_path / 'scores.json'
  if content is not None:
    path.write_text(content)
  with pytest.raises(ValueError, match=f'{re.escape(str(path))} is missing or'):
    score_shards.read_manifest(str(tmp_path))


def test_manifests_of_other_versions_are_not_called_damaged(tmp_path):
  (tmp_path / 'scores.json').write_text('{"task": "notes"}')
  message = r'scores.json cannot be used \(written by another version'
  with pytest.raises(ValueError, match=message):
    score_shards.read_manifest(str(tmp_path))


def test_missing_shards(folder, tmp_path):
  for index in (1, 2):
    (tmp_path / 'scores' / f'scores-{index:05d}.bin').unlink()
  with pytest.raises(ValueError, match=r'missing, the first is number 1 of 3'):
    read(folder)


@pytest.mark.parametrize('change', [lambda b: b[:-1], lambda b: b + b'\0' * 32])
def test_shard_of_another_length(folder, tmp_path, change):
  path = tmp_path / 'scores' / 'scores-00002.bin'
  path.write_bytes(change(path.read_bytes()))
  with pytest.raises(ValueError, match=r'00002.bin: .*2 records.*Delete it'):
    read(folder)


@pytest.mark.parametrize('table', [None, '["a"', '["a"]', '5', '[]'])
def test_damaged_names_of_domains(folder, tmp_path, table):
  path = tmp_path / 'scores' / 'scores-00001.json'
  path.unlink()
  if table is not None:
    path.write_text(table)
  with pytest.raises(ValueError, match=r'00001.json is missing or damaged'):
    read(folder)


def test_negative_domain(folder):
  wrong = records(4, 4)
  wrong['domain'][2] = -1
  score_shards.write_shard(folder, 1, wrong, ['a', 'b'])
  with pytest.raises(ValueError, match='does not name all domains'):
    read(folder)


def test_nothing_temporary_is_left(folder, tmp_path):
  names = {path.name for path in (tmp_path / 'scores').iterdir()}
  assert names == {
    'scores.json',
    *(
      f'scores-0000{i}.{suffix}' for i in range(3) for suffix in ('bin', 'json')
    ),
  }
  with open(tmp_path / 'scores' / 'scores.json') as f:
    assert json.load(f) == dataclasses.asdict(MANIFEST)


def test_rejects_a_folder_that_cannot_be_made(tmp_path):
  (tmp_path / 'file').touch()
  with pytest.raises(ValueError, match='SCORES_DIR.*file.*cannot be made'):
    score_shards.begin(
      str(tmp_path / 'file' / 'scores'),
      score_shards.Manifest('t', 's', '1', 'c', '2e', 0, 0, None, 1, 1, 1, [1]),
    )
