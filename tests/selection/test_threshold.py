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

"""Selection against a full sort, and its record."""

import dataclasses
import json
import re

import hypothesis
from hypothesis import strategies as st
import numpy as np
import pytest

import reference
from salt_t5x.selection import record as selection_record
from salt_t5x.selection import threshold as threshold_lib

MAX_ID = 2**63 - 1


def find(scores, ids, count, part=1000, ranks=()):
  def read(purpose):
    del purpose
    for i in range(0, len(scores), part):
      yield scores[i : i + part], ids[i : i + part]

  return threshold_lib.find_threshold(read, count, ranks)


def is_selected(threshold, scores, ids):
  record = dataclasses.replace(
    RECORD, threshold_score=threshold.score, threshold_id=threshold.id
  )
  return record.is_selected(scores, ids)


RECORD = selection_record.Selection(
  kind='zero',
  threshold_score=float(np.float32(0.1)),
  threshold_id=2**60 + 1,
  selected=5,
  pool=9,
  first_position=3,
  ties=3,
  ties_selected=2,
  kd_steps=3,
  batch_size=4,
  top_k=10,
  teacher='/models/small/checkpoint_30',
  teacher_identity='2e',
  step=30,
  task='notes',
  split='train',
  data='1f',
  scores='/scores/ü',
  selected_by_file=[1, 4],
)


@pytest.fixture(scope='module')
def million():
  """Scores in steps of 1/8 (150 to 200 values), and scattered ids."""
  rng = np.random.default_rng(0)
  scores = np.round(8 * rng.normal(1, 2.5, 1_000_000)).astype(np.float32) / 8
  # An odd factor permutes the numbers below 2^63.
  ids = np.arange(1_000_000, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
  return scores, (ids & np.uint64(MAX_ID)).astype(np.int64)


@pytest.mark.parametrize('count', [1, 777, 250_000, 999_999, 1_000_000])
def test_equals_a_full_sort(million, count):
  scores, ids = million
  threshold, _ = find(scores, ids, count, part=100_000)
  expected = reference.select(scores, ids, count)
  np.testing.assert_array_equal(is_selected(threshold, scores, ids), expected)
  is_tied = scores == threshold.score
  assert threshold.ties == is_tied.sum()
  assert threshold.ties_selected == (is_tied & expected).sum()
  if count == 250_000:
    assert threshold.ties > threshold.ties_selected > 1


def test_does_not_depend_on_order_and_parts(million):
  scores, ids = (array[:30_000] for array in million)
  expected = find(scores, ids, 10_000)
  rng = np.random.default_rng(1)
  for part in (1 << 20, 4_999, 101):
    order = rng.permutation(len(scores))
    assert find(scores[order], ids[order], 10_000, part) == expected


def test_scores_at_ranks(million):
  scores, ids = (array[:30_000] for array in million)
  ranks = [30_000, 1, 500, 15_000, 500]
  _, found = find(scores, ids, 7, ranks=ranks)
  falling = np.sort(scores)[::-1]
  assert found == [falling[rank - 1] for rank in ranks]
  with pytest.raises(ValueError, match='There are 30000 records, fewer than'):
    find(scores, ids, 30_001)


@pytest.mark.parametrize('count', range(1, 8))
def test_negative_scores_and_both_zeros(count):
  scores = np.array([-2, 0.0, -0.0, 1e-45, -1e-45, 0.0, -0.0], np.float32)
  ids = np.array([6, 5, 4, 3, 2, 1, MAX_ID])
  threshold, _ = find(scores, ids, count)
  np.testing.assert_array_equal(
    is_selected(threshold, scores, ids), reference.select(scores, ids, count)
  )
  assert not np.signbit(threshold.score) or threshold.score < 0


_FEW_SCORES = st.sampled_from([0.0, -0.0, 1.5, -1.5, 1.5000001])
_SCORES = _FEW_SCORES | st.floats(
  width=32, allow_nan=False, allow_infinity=False
)
_IDS = (
  st.integers(0, 5) | st.integers(0, MAX_ID) | st.integers(MAX_ID - 5, MAX_ID)
)


@hypothesis.given(
  st.lists(
    st.tuples(_SCORES, _IDS), min_size=1, max_size=12, unique_by=lambda r: r[1]
  ),
  st.data(),
)
@hypothesis.settings(max_examples=200)
def test_small_pools(records, data):
  scores = np.array([r[0] for r in records], np.float32)
  ids = np.array([r[1] for r in records], np.int64)
  count = data.draw(st.integers(1, len(records)))
  threshold, _ = find(scores, ids, count, part=5)
  np.testing.assert_array_equal(
    is_selected(threshold, scores, ids), reference.select(scores, ids, count)
  )


# --- The record ---------------------------------------------------------------


@pytest.fixture(scope='module')
def path(tmp_path_factory):
  return str(tmp_path_factory.mktemp('record') / 'selection.json')


@hypothesis.given(st.floats(width=32, allow_nan=False, allow_infinity=False))
@hypothesis.example(float(np.float32(0.1)))
@hypothesis.example(float(np.float32(1e-45)))
@hypothesis.settings(max_examples=50)
def test_record_comes_back_bit_for_bit(path, score):
  record = dataclasses.replace(RECORD, threshold_score=score)
  selection_record.write(path, record)
  found = selection_record.read(path)
  assert found == record
  bits = np.float32([found.threshold_score, score]).view(np.uint32)
  assert bits[0] == bits[1]


def write(path, content):
  with open(path, 'wb') as f:
    f.write(content)


def read_damaged(path):
  """Reads what may be damaged; a record that is read is possible."""
  try:
    record = selection_record.read(path)
  except ValueError as e:
    assert re.match(
      f'{re.escape(path)} is missing, damaged or no record .*salt_t5x.select',
      str(e),
      re.DOTALL,
    )
    return None
  assert dataclasses.replace(record) == record
  return record


@hypothesis.given(st.data())
@hypothesis.settings(max_examples=200)
def test_damaged_bytes(path, data):
  selection_record.write(path, RECORD)
  with open(path, 'rb') as f:
    content = f.read().strip()
  start = data.draw(st.integers(0, len(content) - 1))
  if data.draw(st.booleans()):
    write(path, content[:start])
    assert read_damaged(path) is None
  else:
    end = data.draw(st.integers(start, len(content)))
    middle = data.draw(st.binary(max_size=4))
    write(path, content[:start] + middle + content[end:])
    read_damaged(path)


_JSON = st.recursive(
  st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
  lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
  max_leaves=3,
)


@hypothesis.given(
  st.sampled_from([f.name for f in dataclasses.fields(RECORD)]),
  _JSON | st.sampled_from([10**400, 1e300, float('inf'), float('nan'), 0.1]),
)
@hypothesis.settings(max_examples=200)
def test_damaged_values(path, name, value):
  content = dataclasses.asdict(RECORD) | {name: value}
  write(path, json.dumps(content).encode())
  read_damaged(path)


@pytest.mark.parametrize(
  'change, message',
  [
    *(
      (change, 'no selection has these values')
      for change in (
        {'kind': 'hard'},
        {'threshold_score': 0.1},
        {'threshold_score': float('nan')},
        {'threshold_id': 2**63},
        {'selected': 10},
        {'selected': 1},
        {'pool': 2},
        {'ties_selected': 4},
        {'kd_steps': 0},
        {'batch_size': 0},
      )
    ),
    ({'threshold_score': 1}, 'threshold_score = 1 is no float'),
    ({'threshold_id': True}, 'threshold_id = True is no int'),
    ({'rank': 1}, 'rank'),
  ],
)
def test_impossible_records(path, change, message):
  write(path, json.dumps(dataclasses.asdict(RECORD) | change).encode())
  with pytest.raises(ValueError, match=message):
    selection_record.read(path)


@pytest.mark.parametrize('content', [b'', b'[]', b'{}', b'[' * 10**5, b'\xff'])
def test_foreign_files(path, content):
  write(path, content)
  assert read_damaged(path) is None


def test_missing_record(tmp_path):
  assert read_damaged(str(tmp_path / 'none.json')) is None
