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

"""Selection against a full sort; the record; the command and its report."""

import dataclasses
import json
import re

import hypothesis
from hypothesis import strategies as st
import numpy as np
import pytest

from salt_t5x import select
from salt_t5x.selection import record as selection_record
from salt_t5x.selection import score_shards, scoring
from salt_t5x.selection import threshold as threshold_lib

MAX_ID = 2**63 - 1


def by_sorting(scores, ids, count):
  """Which records come first by falling score and rising id: bool [n]."""
  order = np.lexsort((ids, -scores.astype(np.float64)))
  result = np.zeros(len(scores), bool)
  result[order[:count]] = True
  return result


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
  needed=12,
  top_k=10,
  teacher='/models/small/checkpoint_30',
  step=30,
  task='notes',
  split='train',
  data='1f',
  scores='/scores/ü',
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
  expected = by_sorting(scores, ids, count)
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
    is_selected(threshold, scores, ids), by_sorting(scores, ids, count)
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
@hypothesis.settings(deadline=None, max_examples=200)
def test_small_pools(records, data):
  scores = np.array([r[0] for r in records], np.float32)
  ids = np.array([r[1] for r in records], np.int64)
  count = data.draw(st.integers(1, len(records)))
  threshold, _ = find(scores, ids, count, part=5)
  np.testing.assert_array_equal(
    is_selected(threshold, scores, ids), by_sorting(scores, ids, count)
  )


# --- The record ---------------------------------------------------------------


@pytest.fixture(scope='module')
def path(tmp_path_factory):
  return str(tmp_path_factory.mktemp('record') / 'selection.json')


@hypothesis.given(st.floats(width=32, allow_nan=False, allow_infinity=False))
@hypothesis.example(float(np.float32(0.1)))
@hypothesis.example(float(np.float32(1e-45)))
@hypothesis.settings(deadline=None, max_examples=50)
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
@hypothesis.settings(deadline=None, max_examples=200)
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
@hypothesis.settings(deadline=None, max_examples=200)
def test_damaged_values(path, name, value):
  content = dataclasses.asdict(RECORD) | {name: value}
  write(path, json.dumps(content).encode())
  read_damaged(path)


@pytest.mark.parametrize(
  'change, message',
  [
    ({'kind': 'hard'}, "kind = 'hard' is not possible"),
    ({'threshold_score': 0.1}, 'threshold_score = 0.1 is not possible'),
    ({'threshold_score': float('nan')}, 'threshold_score = nan'),
    ({'threshold_score': 1}, 'threshold_score = 1 is no float'),
    ({'threshold_id': True}, 'threshold_id = True is no int'),
    ({'threshold_id': 2**63}, 'threshold_id'),
    ({'selected': 10}, 'selected = 10'),
    ({'selected': 1}, 'selected = 1'),
    ({'pool': 2}, 'selected'),
    ({'ties_selected': 4}, 'ties_selected = 4'),
    ({'needed': 0}, 'needed = 0'),
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


def test_check_data():
  RECORD.check_data('notes', 'train', '1f')
  with pytest.raises(
    ValueError,
    match="/scores/ü.*task is 'notes' there and 'other' here; data is '1f' "
    "there and '2e' here.*MIXTURE_OR_TASK_NAME.*salt_t5x.score",
  ):
    RECORD.check_data('other', 'train', '2e')


@pytest.mark.parametrize(
  'scored, teaches, is_same',
  [
    ('/models/a/checkpoint_30', '/models/a/checkpoint_90', True),
    ('/models/a/checkpoint_30', '/models/b/../a/checkpoint_90/', True),
    ('/models/a/checkpoint_30', '/models/a', True),
    ('/models/a/checkpoint_30', '/models/b/checkpoint_30', False),
    ('/models/a/checkpoint_30', '/models', False),
    ('gs://models/a/checkpoint_30/', 'gs://models/a/checkpoint_90', True),
    ('gs://models/a/checkpoint_30', '/models/a/checkpoint_30', False),
  ],
)
def test_check_teacher(scored, teaches, is_same):
  record = dataclasses.replace(RECORD, teacher=scored)
  if is_same:
    record.check_teacher(teaches)
  else:
    with pytest.raises(
      ValueError,
      match=f'made by {scored}.*TEACHER_PATH = .*Set TEACHER_PATH to',
    ):
      record.check_teacher(teaches)


# --- The command --------------------------------------------------------------

# The last would be a formula, and one that is wrong.
DOMAINS = ('a|b', 'new\nline', r'$\frac$ <i>')
COUNT = 600
STEP = 4
BATCH = 20


def data():
  """Records in the global order; 'domain' indexes `DOMAINS`."""
  rng = np.random.default_rng(3)
  records = np.zeros(COUNT, score_shards.RECORD)
  records['id'] = rng.permutation(COUNT) + 2**62
  records['domain'] = rng.choice(3, COUNT, p=[0.2, 0.3, 0.5])
  for kind in scoring.KINDS:
    # The first domain's are higher.
    shift = records['domain'] == 0
    records[kind] = np.round(rng.normal(-1, 1, COUNT) + shift, 1)
  return records


def write_scores(folder, records, shard_size):
  manifest = score_shards.Manifest(
    task='notes',
    split='train',
    data='1f',
    teacher='/models/small/checkpoint_4',
    step=STEP,
    dtype=None,
    top_k=10,
    examples=len(records),
    shard_size=shard_size,
  )
  score_shards.begin(folder, manifest)
  for index in range(manifest.num_shards):
    part = records[index * shard_size :][:shard_size].copy()
    # Each shard numbers the domains in its own way.
    part['domain'] = (part['domain'] + index) % 3
    names = [DOMAINS[(i - index) % 3] for i in range(3)]
    score_shards.write_shard(folder, index, part, names)
  return folder


@pytest.fixture(scope='module')
def scores(tmp_path_factory):
  return write_scores(
    str(tmp_path_factory.mktemp('scores') / 'here'), data(), shard_size=70
  )


def run(scores, output, *flags, kd_steps=5):
  args = [
    'select',
    f'--scores={scores}',
    f'--output={output}',
    f'--kd_steps={kd_steps}',
    f'--batch_size={BATCH}',
    *flags,
  ]
  select.main(select.parse_flags(args))
  return selection_record.read(str(output))


def table(text, title):
  """{first cell: the others} of a table, by the title of its first column."""
  lines = text.split(f'| {title} |')[1].split('\n\n')[0].splitlines()[2:]
  rows = [re.split(r' *(?<!\\)\| *', line.strip())[1:-1] for line in lines]
  return {row[0]: row[1:] for row in rows}


@pytest.mark.parametrize('kind', scoring.KINDS)
def test_command(scores, tmp_path, capsys, kind):
  output = tmp_path / 'new' / 'selection.json'
  record = run(scores, output, f'--kind={kind}')
  # Position 80, where the pool begins, is in the middle of a shard.
  pool = data()[STEP * BATCH :]
  expected = by_sorting(pool[kind], pool['id'], 5 * BATCH)
  np.testing.assert_array_equal(
    record.is_selected(pool[kind], pool['id']), expected
  )
  assert (record.selected, record.pool, record.needed) == (100, 520, 100)
  assert (record.kind, record.first_position) == (kind, 80)
  assert record.repeats == 1
  assert record.ties == (pool[kind] == record.threshold_score).sum()
  assert (record.teacher, record.step, record.top_k, record.scores) == (
    '/models/small/checkpoint_4',
    4,
    10,
    scores,
  )
  record.check_data('notes', 'train', '1f')

  text = (tmp_path / 'new' / 'selection.md').read_text()
  shown = capsys.readouterr()
  assert shown.out == text
  assert 'reading domains' in shown.err
  assert '100 of 520 examples (19.23%)' in text
  assert 'takes 100 examples: it reads each selected one once' in text
  rows = table(text, 'domain')
  assert list(rows) == [
    r'\$\\frac\$ \<i\>',
    r'new\\nline',
    r'a\|b',
    'all',
  ]
  for name, number in zip(rows, (2, 1, 0), strict=False):
    before = (pool['domain'] == number).sum()
    after = (pool['domain'][expected] == number).sum()
    assert rows[name] == [
      f'{before}',
      f'{before / 5.2:.2f}',
      f'{after}',
      f'{after:.2f}',
    ]
  falling = np.sort(pool[kind])[::-1]
  rows = table(text, 'quantile of the scores')
  for percent, before, after in (('100%', 0, 0), ('0%', 519, 99)):
    assert rows[percent] == [f'{falling[i]:.6g}' for i in (before, after)]
  assert rows['25%'] == [f'{falling[i]:.6g}' for i in (389, 74)]
  png = (tmp_path / 'new' / 'selection.png').read_bytes()
  assert png.startswith(b'\x89PNG\r\n\x1a\n')
  assert len(list((tmp_path / 'new').iterdir())) == 3


def test_selection_does_not_depend_on_shards(scores, tmp_path):
  record = run(scores, tmp_path / 'a.json')
  other = write_scores(str(tmp_path / 'scores'), data(), shard_size=1000)
  found = run(other, tmp_path / 'b.json')
  assert dataclasses.replace(found, scores=scores) == record
  text = (tmp_path / 'b.md').read_text()
  assert text == (tmp_path / 'a.md').read_text()
  # And not on the order, if all of it takes part.
  order = np.random.default_rng(0).permutation(COUNT)
  mixed = write_scores(str(tmp_path / 'mixed'), data()[order], shard_size=11)
  record = run(scores, tmp_path / 'c.json', '--first_step=0')
  found = run(mixed, tmp_path / 'd.json', '--first_step=0')
  assert dataclasses.replace(found, scores=scores) == record


def test_share_is_of_all_data_and_repeats(scores, tmp_path):
  record = run(
    scores, tmp_path / 'a.json', '--kind=easy', '--share=0.4', kd_steps=30
  )
  assert (record.first_position, record.pool) == (0, COUNT)
  assert (record.selected, record.needed) == (240, 600)
  assert record.repeats == 2.5
  text = (tmp_path / 'a.md').read_text()
  assert 'repeats the selected ones: each 2.50 times' in text
  everything = data()
  np.testing.assert_array_equal(
    record.is_selected(everything['easy'], everything['id']),
    by_sorting(everything['easy'], everything['id'], 240),
  )


@pytest.mark.parametrize('flags', [(), ('--first_step=4',)])
def test_share_that_does_not_repeat(scores, tmp_path, flags):
  # What the teacher has read stays out, unless the easy ones are wanted.
  record = run(scores, tmp_path / 'a.json', '--share=0.5', *flags)
  assert (record.first_position, record.pool) == (80, 520)
  assert (record.selected, record.needed) == (260, 100)
  text = (tmp_path / 'a.md').read_text()
  assert 'reads the first 38.46% of the selected ones' in text


def test_whole_pool(scores, tmp_path):
  record = run(scores, tmp_path / 'a.json', kd_steps=26)
  assert record.selected == record.pool == 520


@pytest.mark.parametrize(
  'flags, message',
  [
    ([], r'--kd_steps=27 .* 540 examples .* pool has 520:.*600.*first 80 of'),
    (['--first_step=30', '--share=1'], r'--share=1.* the pool has 0:'),
    (['--first_step=31'], r'the pool has 0:'),
  ],
)
def test_pool_that_is_too_small(scores, tmp_path, flags, message):
  with pytest.raises(ValueError, match=message):
    run(scores, tmp_path / 'a.json', *flags, kd_steps=27)
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
  'field, value, message',
  [
    ('zero', np.nan, 'shard 2 .* position 145 .* zero = nan'),
    ('zero', -np.inf, 'shard 2 .* position 145 .* zero = -inf'),
    ('mean', np.nan, 'shard 2 .* position 145 .* mean = nan'),
    ('id', -7, 'shard 2 .* position 145 .* id = -7'),
  ],
)
def test_impossible_scores_and_ids(tmp_path, field, value, message):
  records = data()
  records[field][145] = value
  scores = write_scores(str(tmp_path / 'scores'), records, shard_size=70)
  with pytest.raises(ValueError, match=message):
    run(scores, tmp_path / 'a.json')
  # It is of no account where it does not take part.
  assert run(scores, tmp_path / 'a.json', '--first_step=8').pool == 440


def test_repeated_ids(tmp_path):
  records = data()
  records['id'] = 7
  records['zero'] = 1
  scores = write_scores(str(tmp_path / 'scores'), records, shard_size=70)
  with pytest.raises(
    ValueError, match='520 records instead of 100 .* the id 7'
  ):
    run(scores, tmp_path / 'a.json')


def test_existing_record_is_kept(scores, tmp_path):
  run(scores, tmp_path / 'a.json')
  with pytest.raises(ValueError, match=r'--output=.*a.json exists'):
    run(scores, tmp_path / 'a.json', kd_steps=6)


def test_a_report_of_something_else_is_kept(scores, tmp_path):
  (tmp_path / 'README.md').write_text('mine')
  with pytest.raises(ValueError, match=r'README.md exists'):
    run(scores, tmp_path / 'README.json')
  assert [p.name for p in tmp_path.iterdir()] == ['README.md']
  assert (tmp_path / 'README.md').read_text() == 'mine'


@pytest.mark.parametrize(
  'flag',
  ['--share=0', '--share=1.1', '--share=nan', '--first_step=-1', '--kind=best'],
)
def test_wrong_flags(scores, tmp_path, capsys, flag):
  with pytest.raises(SystemExit):
    run(scores, tmp_path / 'a.json', flag)
  assert flag.split('=')[0] in capsys.readouterr().err


def test_output_is_json(scores, tmp_path, capsys):
  with pytest.raises(SystemExit):
    run(scores, tmp_path / 'a.md')
  assert 'must end with .json' in capsys.readouterr().err
