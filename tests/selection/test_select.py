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

"""The select command: its flags, selections and reports."""

import dataclasses
import re

import numpy as np
import pytest

import reference
from salt_t5x import select
from salt_t5x.selection import record as selection_record
from salt_t5x.selection import score_shards, scoring
import tiny_runs

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


def write_scores(folder, records, shard_size=70, sequences_read=80):
  manifest = score_shards.Manifest(
    task='notes',
    split='train',
    data='1f',
    teacher='/models/small/checkpoint_4',
    teacher_identity='2e',
    step=STEP,
    sequences_read=sequences_read,
    dtype=None,
    top_k=10,
    examples=len(records),
    shard_size=shard_size,
    examples_by_file=[len(records) // 3, len(records) - len(records) // 3],
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
  expected = reference.select(pool[kind], pool['id'], 5 * BATCH)
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
  assert (record.task, record.split, record.data) == ('notes', 'train', '1f')

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
  places = {'scores': scores, 'selected_by_file': record.selected_by_file}
  assert dataclasses.replace(found, **places) == record


def test_easy_share_of_all_data_repeats(scores, tmp_path):
  record = run(
    scores, tmp_path / 'a.json', '--kind=easy', '--share=0.4', kd_steps=30
  )
  assert (record.first_position, record.pool) == (0, COUNT)
  assert (record.selected, record.needed) == (240, 600)
  assert record.repeats == 2.5 and record.share == 0.4
  text = (tmp_path / 'a.md').read_text()
  assert 'repeats the selected ones: each 2.50 times' in text
  everything = data()
  np.testing.assert_array_equal(
    record.is_selected(everything['easy'], everything['id']),
    reference.select(everything['easy'], everything['id'], 240),
  )


@pytest.mark.parametrize('flags', [(), ('--first_step=4',)])
def test_share_of_the_pool(scores, tmp_path, flags):
  # What the teacher was trained on is excluded, except with --kind=easy.
  record = run(scores, tmp_path / 'a.json', '--share=0.5', *flags)
  assert (record.first_position, record.pool) == (80, 520)
  assert (record.selected, record.needed) == (260, 100)
  text = (tmp_path / 'a.md').read_text()
  assert 'reads the first 38.46% of the selected ones' in text


@pytest.mark.parametrize(
  'read, flags, first, reason',
  [
    # The teacher's batches had another size.
    (130, [], 130, 'the teacher was trained on what comes before'),
    (0, [], 0, 'the teacher was trained on none of these data'),
    (None, [], 80, "the teacher's step, 4, times --batch_size=20, as no rec"),
    (130, ['--first_step=2'], 40, '--first_step=2 batches of 20'),
    (130, ['--kind=easy', '--share=0.4'], 0, 'a share of all data'),
  ],
)
def test_the_pool_begins_after_what_the_teacher_read(
  tmp_path, caplog, read, flags, first, reason
):
  folder = str(tmp_path / 'scores')
  scores = write_scores(folder, data(), sequences_read=read)
  record = run(scores, tmp_path / 'a.json', *flags)
  assert record.first_position == first
  assert (record.kd_steps, record.batch_size) == (5, BATCH)
  text = (tmp_path / 'a.md').read_text()
  assert f'position {first} of' in text and f'split `train`: {reason}' in text
  warned = [x for x in caplog.messages if 'set --first_step' in x]
  assert len(warned) == (read is None)


def test_whole_pool(scores, tmp_path):
  record = run(scores, tmp_path / 'a.json', kd_steps=26)
  assert record.selected == record.pool == 520


@pytest.mark.parametrize(
  'flags, message',
  [
    ([], r'540 examples .* pool has 520:.*600.*first 80 of.*--kd_steps'),
    (['--first_step=30', '--share=1'], r'1 examples .* the pool has 0:'),
    (['--first_step=31'], r'the pool has 0:'),
  ],
)
def test_rejects_pools_that_are_too_small(scores, tmp_path, flags, message):
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
def test_rejects_impossible_scores_and_ids(tmp_path, field, value, message):
  records = data()
  records[field][145] = value
  scores = write_scores(str(tmp_path / 'scores'), records, shard_size=70)
  with pytest.raises(ValueError, match=message):
    run(scores, tmp_path / 'a.json')
  # Records before the pool are not checked.
  assert run(scores, tmp_path / 'a.json', '--first_step=8').pool == 440


def test_rejects_repeated_ids(tmp_path):
  records = data()
  records['id'] = 7
  records['zero'] = 1
  scores = write_scores(str(tmp_path / 'scores'), records, shard_size=70)
  with pytest.raises(
    ValueError, match='520 records instead of 100 .* the id 7'
  ):
    run(scores, tmp_path / 'a.json')


def test_keeps_existing_records(scores, tmp_path):
  run(scores, tmp_path / 'a.json')
  with pytest.raises(ValueError, match=r'--output=.*a.json exists'):
    run(scores, tmp_path / 'a.json', kd_steps=6)


def test_keeps_other_files(scores, tmp_path):
  (tmp_path / 'README.md').write_text('mine')
  with pytest.raises(ValueError, match=r'README.md exists'):
    run(scores, tmp_path / 'README.json')
  assert [p.name for p in tmp_path.iterdir()] == ['README.md']
  assert (tmp_path / 'README.md').read_text() == 'mine'


FLAGS = ['select', '--scores=s', '--output=o.json', '--kd_steps=5',
         '--batch_size=4']  # fmt: skip


@pytest.mark.parametrize('missing', range(1, len(FLAGS)))
def test_requires_flags(capsys, missing):
  select.parse_flags(FLAGS)
  with pytest.raises(SystemExit):
    select.parse_flags(FLAGS[:missing] + FLAGS[missing + 1 :])
  name = FLAGS[missing].split('=')[0]
  assert f'required: {name}' in capsys.readouterr().err


def test_runs_as_a_module():
  done = tiny_runs.python(
    ['-m', 'salt_t5x.select', *FLAGS[1:]],
    tiny_runs.environment(pythonpath=tiny_runs.real_t5x_path()),
    cwd=tiny_runs.ROOT,
  )
  assert done.returncode and 's/scores.json is missing' in done.stderr


@pytest.mark.parametrize(
  'flag',
  [
    '--kd_steps=0',
    '--kd_steps=1e3',
    '--batch_size=-4',
    '--first_step=-1',
    '--share=nan',
    '--share=0',
    '--share=1.1',
    '--kind=best',
    '--output=record',
  ],
)
def test_rejects_flag_values(capsys, flag):
  with pytest.raises(SystemExit):
    select.parse_flags([*FLAGS, flag])
  name, value = flag.split('=')
  message = capsys.readouterr().err.splitlines()[-1]
  assert name in message and value in message


@pytest.mark.parametrize('path', ['none', 'file'])
def test_rejects_folders_without_scores(tmp_path, path):
  (tmp_path / 'file').touch()
  path = tmp_path / path
  with pytest.raises(ValueError, match=f'{path}/scores.json is missing'):
    select.main(select.parse_flags([*FLAGS, f'--scores={path}']))
