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

"""Shards are written, damaged and read for real."""

import itertools
import json
import os
import random

from absl import logging
from hypothesis import HealthCheck, given, settings, strategies
import pytest
import seqio
import tensorflow as tf
import zstandard

from salt_t5x.data import bad_lines, pile_shards

GOOD = b'{"text": "good", "meta": {"pile_set_name": "Books3"}}\n'


def compress(*frames):
  compressor = zstandard.ZstdCompressor(write_checksum=True)
  return b''.join(compressor.compress(frame) for frame in frames)


def make_shard(folder, content, name='00.jsonl.zst'):
  path = folder / name
  path.write_bytes(content)
  return str(path)


def read(folder, content):
  """Returns ([(text, domain)], report) of a shard with this content."""
  report = bad_lines.Report()
  path = make_shard(folder, content)
  found = list(pile_shards.read(path, report=report))
  return [document[:2] for document in found], report


def document_line(text):
  return (json.dumps({'text': text}) + '\n').encode()


def noise(size):
  return random.Random(size).randbytes(size)


def incompressible(count):
  """Lines of noise, 800 bytes each: many of them fill several zstd blocks."""
  hexadecimal = noise(400 * count).hex()
  return [
    document_line(hexadecimal[start : start + 800])
    for start in range(0, 800 * count, 800)
  ]


@pytest.fixture
def log(monkeypatch):
  """The lines logged from here on, as (level, text)."""
  lines = []
  for level in ('info', 'warning'):
    monkeypatch.setattr(
      logging,
      level,
      lambda message, *args, level=level: lines.append((level, message % args)),
    )
  return lines


# --- Whole shards -------------------------------------------------------------


def test_documents_come_back_in_order_with_their_domains(tmp_path, log):
  path = str(tmp_path / 'a.jsonl.zst')
  pile_shards.write(path, [('one', 'Wikipedia (en)'), ('zwei ß', '')])
  report = bad_lines.Report()
  found = list(pile_shards.read(path, report=report))
  # Caches hold the ids: a change makes all of them stale.
  assert found == [
    (b'one', b'Wikipedia (en)', 6533616533272333264),
    ('zwei ß'.encode(), b'', 2195474438623022860),
  ]
  assert report == bad_lines.Report(documents=2, lines=2)
  assert log == [('info', f'{path}: 2 documents in 2 lines.')]
  assert os.listdir(tmp_path) == ['a.jsonl.zst']


@given(
  strategies.lists(
    strategies.tuples(
      strategies.text().filter(lambda text: text and not text.isspace()),
      strategies.text(),
    ),
    min_size=1,
  )
)
@settings(
  suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
def test_any_text_survives_the_round_trip(tmp_path, documents):
  path = str(tmp_path / 'a.jsonl.zst')
  pile_shards.write(path, documents)
  assert [
    (text.decode(), domain.decode())
    for text, domain, _ in pile_shards.read(path)
  ] == documents


@pytest.mark.parametrize(
  ('text', 'reason'),
  [
    (' \n', "empty: 'text' is empty"),
    ('\ud800', 'surrogates not allowed'),
  ],
)
def test_rejects_documents_that_could_not_be_read(tmp_path, text, reason):
  path = tmp_path / 'a.jsonl.zst'
  pile_shards.write(str(path), [('before', '')])
  before = path.read_bytes()
  with pytest.raises(ValueError, match=f'a.jsonl.zst: document 2: .*{reason}'):
    pile_shards.write(str(path), [('good', ''), (text, '')])
  assert path.read_bytes() == before


@pytest.mark.parametrize(
  'meta',
  [None, 'Books3', {}, {'pile_set_name': None}, {'pile_set_name': ['Books3']}],
)
def test_without_a_name_the_domain_is_empty(tmp_path, meta):
  line = json.dumps({'text': 'x', 'meta': meta}).encode()
  found, report = read(tmp_path, compress(line))
  assert (found, report.counts) == ([(b'x', b'')], {})


SKIPPABLE = b'\x50\x2a\x4d\x18\x03\x00\x00\x00abc'
SEPARATORS = 'a\u2028b\u2029c\x85d\x0be\x0cf\x1cg\rh'


@pytest.mark.parametrize(
  'content',
  [
    compress(GOOD, b'') + SKIPPABLE + compress(GOOD[:20], GOOD[20:]),
    compress(GOOD + GOOD.rstrip()),
    compress(GOOD.replace(b'\n', b'\r\n') * 2),
    compress(b'\n' + GOOD + b' \t\r\n\n' + GOOD + b'\n \r\n '),
  ],
  ids=['frames', 'no newline at the end', 'CRLF', 'blank lines'],
)
def test_forms_of_whole_shards(tmp_path, content):
  found, report = read(tmp_path, content)
  assert found == [(b'good', b'Books3')] * 2
  assert (report.documents, report.counts) == (2, {})


@pytest.mark.parametrize(
  'text', [SEPARATORS, noise(50_000).hex(), 'x' * 5_000_000]
)
def test_only_newlines_end_lines(tmp_path, text):
  line = json.dumps({'text': text}, ensure_ascii=False).encode()
  found, _ = read(tmp_path, compress(line + b'\n' + GOOD))
  assert [text.decode() for text, _ in found] == [text, 'good']


def test_ids_depend_on_shard_line_and_text(tmp_path):
  def ids(name, lines):
    path = make_shard(tmp_path, compress(b''.join(lines)), name)
    return [number for *_, number in pile_shards.read(path)]

  same = ids('00.jsonl.zst', [GOOD] * 2000)
  everything = same + ids('01.jsonl.zst', [GOOD] * 2000)
  assert len(set(everything)) == 4000
  assert all(0 <= number < 2**63 for number in everything)
  assert max(everything) > 2**62  # All 63 bits are used.
  changed = ids('00.jsonl.zst', [document_line('new'), b'bad\n', GOOD])
  assert changed[0] not in everything
  assert changed[1] == same[2]


# --- Bad lines ----------------------------------------------------------------

DEEP = b'{"text": "x", "meta": ' + b'[' * 100_000 + b']' * 100_000 + b'}\n'
BAD_LINES = [
  ('bad JSON', b'{"text": "x"\n', "Expecting ',' delimiter"),
  ('bad JSON', b'{"text": "x"} {"text": "y"}\n', 'Extra data'),
  ('bad JSON', b'["text"]\n', 'not an object'),
  ('no such field', b'{"meta": {}}\n', "'text'"),
  ('bad value', b'{"text": ["x"]}\n', "no attribute 'strip'"),
  ('bad JSON', DEEP, 'maximum recursion depth'),
  ('bad value', b'{"text": "x", "n": ' + b'1' * 5000 + b'}\n', 'Exceeds'),
  ('empty', '{"text": " \\n\\t\u3000"}\n'.encode(), "'text' is empty"),
  ('not UTF-8', b'{"text": "caf\xe9"}\n', 'position 13: invalid continuation'),
  ('not UTF-8', b'{"text": "a\\ud800"}\n', 'surrogates not allowed'),
  (
    'not UTF-8',
    b'{"text": "a", "meta": {"pile_set_name": "\\udfff"}}\n',
    'surrogates not allowed',
  ),
]


@pytest.mark.parametrize(('kind', 'line', 'reason'), BAD_LINES)
def test_a_bad_line_is_skipped_and_named(tmp_path, log, kind, line, reason):
  found, report = read(tmp_path, compress(GOOD + GOOD + line + GOOD))
  assert found == [(b'good', b'Books3')] * 3
  assert (report.documents, report.lines) == (3, 4)
  place = f'{tmp_path}/00.jsonl.zst:3: '
  ((level, text),) = log
  assert level == 'warning'
  assert f'1 {kind}, the first at {place}' in text and reason in text


def test_over_the_limit_file_line_counts_and_remedy_are_named(tmp_path):
  lines = [GOOD, b'bad\n', GOOD, *[GOOD, b'{"text": ""}\n'] * 10]
  with pytest.raises(bad_lines.DamagedShardError) as error:
    read(tmp_path, compress(b''.join(lines)))
  message = str(error.value)
  path = f'{tmp_path}/00.jsonl.zst'
  assert message.startswith(f"{path}:23: 'text' is empty (empty).")
  assert 'bad line 11 of 23' in message
  assert 'limit is 10 + 0.001 of the lines' in message
  assert f'1 bad JSON, the first at {path}:2:' in message
  assert f'10 empty, the first at {path}:5:' in message
  assert 'Mend or replace the file' in message


def test_the_limit_grows_with_the_lines(tmp_path):
  content = b'bad\n' * 10 + GOOD * 1000 + b'bad\n'
  found, report = read(tmp_path, compress(content))
  assert (len(found), report.counts) == (1000, {'bad JSON': 11})
  with pytest.raises(bad_lines.DamagedShardError, match=r':1012: '):
    read(tmp_path, compress(content + b'bad\n'))


# --- Damaged shards -----------------------------------------------------------


def test_truncated_shard_keeps_its_first_documents(tmp_path):
  lines = incompressible(600)
  whole = compress(b''.join(lines))
  texts = [json.loads(line)['text'].encode() for line in lines]
  size = len(whole)
  counts = []
  for cut in (size // 3, size * 2 // 3, size - 1):
    found, report = read(tmp_path, whole[:cut])
    count = report.documents
    # The last line may be cut, too: the limit counts it by itself.
    assert [text for text, _ in found] == texts[:count]
    assert report.counts.pop('truncated') == 1
    assert report.counts in ({}, {'bad JSON': 1})
    where = f'{tmp_path}/00.jsonl.zst:{report.lines}: nothing after this line'
    assert report.first['truncated'].startswith(where)
    assert 'ends too early' in report.first['truncated']
    # What is lost are a block of 128 KiB, or 153 lines, and a piece.
    assert count >= 600 * cut // size - 2 * 153
    counts.append(count)
  assert counts == sorted(set(counts))
  assert counts[-1] == 600  # Only the checksum was cut.


def test_damage_in_the_middle_ends_the_shard_there(tmp_path, log):
  lines = incompressible(1000)
  broken = bytearray(compress(b''.join(lines)))
  middle = len(broken) // 2
  broken[middle : middle + 50_000] = noise(50_000)
  found, report = read(tmp_path, bytes(broken))
  assert 200 < len(found) < 1000
  good = [json.loads(line)['text'].encode() for line in lines]
  assert [text for text, _ in found[:200]] == good[:200]
  assert report.counts['truncated'] == 1
  assert [level for level, _ in log] == ['warning']


@pytest.mark.parametrize(
  'content, kinds',
  [
    (compress(GOOD + b'{"text": "caf\xc3'), {'not UTF-8'}),
    (compress(GOOD + b'{"text": "go'), {'bad JSON'}),
    (compress(GOOD) + b'garbage' * 100, {'truncated'}),
    (compress(GOOD) + compress(noise(100))[:8], {'truncated'}),
    (compress(GOOD + b'{"') + b'\0', {'bad JSON', 'truncated'}),
  ],
)
def test_damage_at_the_end_is_reported(tmp_path, content, kinds):
  found, report = read(tmp_path, content)
  assert found == [(b'good', b'Books3')]
  assert report.counts == dict.fromkeys(kinds, 1)


@pytest.mark.parametrize(
  'content',
  [b'', compress(b''), compress(b'\n\n'), compress(b'bad\n'), b'garbage'],
)
def test_rejects_shards_without_a_document(tmp_path, content):
  with pytest.raises(bad_lines.DamagedShardError, match='holds no document'):
    read(tmp_path, content)


# --- The data source ----------------------------------------------------------


def write_shards(folder):
  """Three shards, 40, 1 and 20 documents; returns a glob."""
  for name, count in (('b', 1), ('c', 20), ('a', 40)):
    documents = [(f'{name}{i}\0', f'domain {name}') for i in range(count)]
    pile_shards.write(str(folder / f'{name}.jsonl.zst'), documents)
  return str(folder / '*.jsonl.zst')


def as_tuples(data):
  return [
    (x['text'], x['domain'], int(x['id'])) for x in data.as_numpy_iterator()
  ]


def test_a_source_reads_all_shards_in_one_order_or_one_of_them(tmp_path):
  glob = write_shards(tmp_path)
  # No file is read twice.
  source = pile_shards.JsonlDataSource(
    {'train': [glob, glob.replace('*', 'a')]}
  )
  data = source.get_dataset('train', shuffle=False)
  assert data.element_spec == {
    'text': tf.TensorSpec([], tf.string),
    'domain': tf.TensorSpec([], tf.string),
    'id': tf.TensorSpec([], tf.int64),
  }
  found = as_tuples(data)
  assert found[0][0] == b'a0\0'
  assert as_tuples(source.get_dataset('train', shuffle=False)) == found
  shards = [str(tmp_path / f'{name}.jsonl.zst') for name in 'abc']
  assert source.list_shards('train') == shards
  expected = [list(pile_shards.read(path)) for path in shards]
  assert sorted(found) == sorted(itertools.chain(*expected))
  for i, documents in enumerate(expected):
    info = seqio.ShardInfo(index=i, num_shards=3)
    data = source.get_dataset('train', shuffle=False, shard_info=info)
    assert as_tuples(data) == documents


def test_rejects_globs_without_a_match(tmp_path):
  glob = write_shards(tmp_path)
  source = pile_shards.JsonlDataSource({'train': [glob, f'{tmp_path}/x*.zst']})
  with pytest.raises(FileNotFoundError, match=r'train: .*/x\*\.zst'):
    source.get_dataset('train')


def test_rejects_two_shards_of_one_name(tmp_path):
  for folder in 'ab':
    (tmp_path / folder).mkdir()
    pile_shards.write(str(tmp_path / folder / '00.jsonl.zst'), [('text', 'x')])
  source = pile_shards.JsonlDataSource({'train': f'{tmp_path}/*/*.jsonl.zst'})
  with pytest.raises(ValueError, match=r'2 shards are named 00\.jsonl\.zst'):
    source.list_shards('train')


@pytest.mark.parametrize(
  'pattern, message',
  [
    ('d.jsonl.zst', r'DamagedShardError: .*/d\.jsonl\.zst:12: .*bad line 11'),
    ('missing.zst', r'missing\.zst'),
  ],
)
def test_errors_reach_the_reader_of_a_source(tmp_path, pattern, message):
  make_shard(tmp_path, compress(GOOD + b'bad\n' * 20), 'd.jsonl.zst')
  source = pile_shards.JsonlDataSource({'train': f'{tmp_path}/{pattern}'})
  with pytest.raises(tf.errors.OpError, match=message):
    as_tuples(source.get_dataset('train', shuffle=False))
