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

import json
import os
import random
import shutil

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


def read_lines(folder, *lines, **kwargs):
  """Returns ([(text, domain)], report) of a shard of these lines."""
  report = bad_lines.Report()
  path = make_shard(folder, compress(b''.join(lines)))
  found = list(pile_shards.read(path, report=report, **kwargs))
  return [document[:2] for document in found], report


def document_line(text, domain='Books3'):
  return (
    json.dumps({'text': text, 'meta': {'pile_set_name': domain}}) + '\n'
  ).encode()


def noise(size):
  return random.Random(size).randbytes(size)


def incompressible(count):
  """Lines of noise, 860 bytes each: many of them fill several zstd blocks."""
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


# What is whole.


def test_documents_come_back_in_order_with_their_domains(tmp_path, log):
  path = str(tmp_path / 'a.jsonl.zst')
  pile_shards.write(
    path, [('one', 'Wikipedia (en)'), ('zwei ß', ''), ('one', 'ß')]
  )
  report = bad_lines.Report()
  found = list(pile_shards.read(path, report=report))
  assert [document[:2] for document in found] == [
    (b'one', b'Wikipedia (en)'),
    ('zwei ß'.encode(), b''),
    (b'one', 'ß'.encode()),
  ]
  assert report == bad_lines.Report(documents=3, lines=3)
  assert log == [('info', f'{path}: 3 documents in 3 lines.')]


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


def test_a_shard_is_zstandard_over_lines_of_json(tmp_path):
  path = tmp_path / 'a.jsonl.zst'
  pile_shards.write(str(path), [('ein ß', 'Books3')])
  whole = zstandard.ZstdDecompressor().decompressobj()
  line = whole.decompress(path.read_bytes())
  assert line.endswith(b'\n')
  assert 'ein ß'.encode() in line  # to be read as it is
  assert json.loads(line) == {
    'text': 'ein ß',
    'meta': {'pile_set_name': 'Books3'},
  }
  assert os.listdir(tmp_path) == ['a.jsonl.zst']


@pytest.mark.parametrize(
  ('text', 'reason'),
  [
    ('', "empty: 'text' is empty"),
    (' \n', "empty: 'text' is empty"),
    ('\ud800', 'surrogates not allowed'),
  ],
)
def test_what_could_not_be_read_is_not_written(tmp_path, text, reason):
  path = tmp_path / 'a.jsonl.zst'
  pile_shards.write(str(path), [('before', '')])
  before = path.read_bytes()
  with pytest.raises(ValueError, match=f'a.jsonl.zst: document 2: .*{reason}'):
    pile_shards.write(str(path), [('good', ''), (text, '')])
  assert path.read_bytes() == before


@pytest.mark.parametrize(
  'entry',
  [
    {'text': 'x'},
    {'text': 'x', 'meta': None},
    {'text': 'x', 'meta': 'Books3'},
    {'text': 'x', 'meta': {}},
    {'text': 'x', 'meta': {'pile_set_name': None}},
    {'text': 'x', 'meta': {'pile_set_name': ['Books3']}},
  ],
)
def test_without_a_name_the_domain_is_empty(tmp_path, entry):
  found, report = read_lines(tmp_path, json.dumps(entry).encode() + b'\n')
  assert found == [(b'x', b'')]
  assert not report.counts


def test_frames_follow_each_other_also_within_a_line(tmp_path):
  skippable = b'\x50\x2a\x4d\x18\x03\x00\x00\x00abc'
  content = (
    compress(GOOD, b'') + skippable + compress(GOOD[:20], GOOD[20:], GOOD)
  )
  report = bad_lines.Report()
  path = make_shard(tmp_path, content)
  assert len(list(pile_shards.read(path, report=report))) == 3
  assert report == bad_lines.Report(documents=3, lines=3)


def test_only_newlines_end_lines(tmp_path):
  text = 'a\u2028b\u2029c\x85d\x0be\x0cf\x1cg\rh'
  line = json.dumps({'text': text}, ensure_ascii=False).encode()
  windows = GOOD.replace(b'\n', b'\r\n')
  found, report = read_lines(tmp_path, line, b'\n', windows, windows)
  assert [text.decode() for text, _ in found] == [text, 'good', 'good']
  assert report == bad_lines.Report(documents=3, lines=3)


def test_the_last_line_may_lack_its_newline(tmp_path):
  found, report = read_lines(tmp_path, GOOD, GOOD.rstrip())
  assert len(found) == 2
  assert report == bad_lines.Report(documents=2, lines=2)


def test_lines_longer_than_the_pieces_are_joined(tmp_path):
  texts = [noise(50_000).hex(), 'short', 'x' * 5_000_000]
  found, _ = read_lines(tmp_path, *map(document_line, texts))
  assert [text.decode() for text, _ in found] == texts


# Ids.


def ids(path):
  return [document[2] for document in pile_shards.read(str(path))]


def test_ids_are_pinned(tmp_path):
  # Caches hold these numbers: a change makes all of them stale.
  pile_shards.write(
    str(tmp_path / '00.jsonl.zst'), [('one', 'x'), ('one', 'y')]
  )
  assert ids(tmp_path / '00.jsonl.zst') == [
    4359187807129423105,
    5382383572691034718,
  ]


def test_ids_survive_a_move_and_a_change_elsewhere(tmp_path):
  path = tmp_path / 'a' / '00.jsonl.zst'
  path.parent.mkdir()
  pile_shards.write(str(path), [('one', 'x'), ('two', 'x'), ('three', 'x')])
  before = ids(path)
  moved = tmp_path / 'b' / '00.jsonl.zst'
  moved.parent.mkdir()
  shutil.move(path, moved)
  assert ids(moved) == before
  pile_shards.write(str(moved), [('one', 'x'), ('2', 'x'), ('three', 'x')])
  after = ids(moved)
  assert [a == b for a, b in zip(after, before, strict=True)] == [1, 0, 1]
  bad_first = compress(b'bad\n', document_line('two'), document_line('three'))
  assert ids(make_shard(tmp_path, bad_first)) == before[1:]


def test_ids_differ_between_lines_and_shards(tmp_path):
  for name in ('00.jsonl.zst', '01.jsonl.zst'):
    pile_shards.write(str(tmp_path / name), [('same', 'x')] * 2000)
  found = ids(tmp_path / '00.jsonl.zst') + ids(tmp_path / '01.jsonl.zst')
  assert len(set(found)) == 4000
  assert all(0 <= number < 2**63 for number in found)
  assert max(found) > 2**62  # all 63 bits are used


# Bad lines.

DEEP = b'{"text": "x", "meta": ' + b'[' * 100_000 + b']' * 100_000 + b'}\n'
BAD_LINES = [
  ('bad JSON', b'{"text": "x"\n', "Expecting ',' delimiter"),
  ('bad JSON', b'{"text": "x"} {"text": "y"}\n', 'Extra data'),
  ('bad JSON', b'["text"]\n', 'not an object'),
  ('bad JSON', b'null\n', 'not an object'),
  ('bad JSON', b'{"meta": {}}\n', "no string 'text'"),
  ('bad JSON', b'{"text": ["x"]}\n', "no string 'text'"),
  ('bad JSON', DEEP, 'maximum recursion depth'),
  ('bad JSON', b'{"text": "x", "n": ' + b'1' * 5000 + b'}\n', 'Exceeds'),
  ('empty', b'{"text": ""}\n', "'text' is empty"),
  ('empty', '{"text": " \\n\\t\u3000"}\n'.encode(), "'text' is empty"),
  ('empty', b'\n', 'a blank line'),
  ('empty', b' \t\r\n', 'a blank line'),
  ('not UTF-8', b'{"text": "caf\xe9"}\n', 'byte 14: invalid continuation'),
  ('not UTF-8', b'{"text": "\xed\xa0\x80"}\n', 'byte 11'),
  ('not UTF-8', b'{"text": "a\\ud800"}\n', 'lone surrogates'),
  (
    'not UTF-8',
    b'{"text": "a", "meta": {"pile_set_name": "\\udfff"}}\n',
    'lone surrogates',
  ),
]


@pytest.mark.parametrize(('kind', 'line', 'reason'), BAD_LINES)
def test_a_bad_line_is_left_out_and_named(tmp_path, log, kind, line, reason):
  found, report = read_lines(tmp_path, GOOD, GOOD, line, GOOD)
  assert found == [(b'good', b'Books3')] * 3
  assert (report.documents, report.lines) == (3, 4)
  assert report.counts == {kind: 1}
  place = f'{tmp_path}/00.jsonl.zst:3: '
  assert report.first[kind].startswith(place)
  assert reason in report.first[kind]
  ((level, text),) = log
  assert level == 'warning'
  assert f'1 {kind}, the first at {place}' in text


def test_all_kinds_at_once_are_one_warning(tmp_path, log):
  bad = [line for _, line, _ in BAD_LINES]
  many = [GOOD] * 10_000
  report = bad_lines.Report()
  whole = compress(b''.join(many + bad + [GOOD]))
  path = make_shard(tmp_path, whole[:-3])
  assert len(list(pile_shards.read(path, report=report))) == 10_001
  assert report.counts == {
    'bad JSON': 8,
    'empty': 4,
    'not UTF-8': 4,
    'truncated': 1,
  }
  lines = {kind: place.split(':')[1] for kind, place in report.first.items()}
  assert lines == {
    'bad JSON': '10001',
    'empty': '10009',
    'not UTF-8': '10013',
    'truncated': '10017',
  }
  assert [level for level, _ in log] == ['warning']
  for kind, count in report.counts.items():
    assert f'{count} {kind}, the first at {report.first[kind]}' in log[0][1]


def test_blank_lines_at_the_end_are_no_damage(tmp_path):
  _, report = read_lines(tmp_path, GOOD, b'\n\n', GOOD, b'\n \r\n\n', b' ')
  assert report.counts == {'empty': 2}
  assert report.first['empty'].endswith('00.jsonl.zst:2: a blank line')


def test_a_line_without_end_does_not_fill_the_memory(tmp_path, monkeypatch):
  monkeypatch.setattr(pile_shards, 'MAX_LINE_BYTES', 1000)
  fits = 1000 - len(document_line(''))
  lines = [document_line('x' * n) for n in (fits, fits + 1, 3_000_000, 1)]
  found, report = read_lines(tmp_path, *lines)
  assert [len(text) for text, _ in found] == [fits, 1]
  assert report.counts == {'too long': 2}
  assert report.first['too long'].endswith(':2: longer than 1000 bytes')
  # The rest of a long line is dropped as it comes.
  pieces = iter([b'x' * 600] * 10 + [b'\nshort\n'])
  cut, short = pile_shards._lines(pieces)
  assert 1000 < len(cut) < 2000
  assert short == b'short\n'


# Damaged shards.


def test_a_shard_cut_anywhere_keeps_what_came_before(tmp_path):
  lines = incompressible(600)
  whole = compress(b''.join(lines))
  texts = [json.loads(line)['text'].encode() for line in lines]
  read = []
  size = len(whole)
  for cut in (size // 3, size * 2 // 3, size - 9, size - 1):
    report = bad_lines.Report()
    path = make_shard(tmp_path, whole[:cut])
    found = [text for text, _, _ in pile_shards.read(path, report=report)]
    assert found == texts[: len(found)]
    assert report.documents == report.lines == len(found)
    assert report.counts == {'truncated': 1}
    assert report.first['truncated'].startswith(f'{path}:{len(found)}: ')
    assert 'ends too early' in report.first['truncated']
    # What is lost are a block of 128 KiB, or 153 lines, and a piece.
    assert len(found) >= 600 * cut // size - 2 * 153
    read.append(len(found))
  assert read == sorted(set(read))
  assert read[-1] == 600  # only the checksum was cut


def test_damage_in_the_middle_ends_the_shard_there(tmp_path, log):
  lines = incompressible(1000)
  whole = compress(b''.join(lines))
  broken = bytearray(whole)
  middle = len(whole) // 2
  broken[middle : middle + 50_000] = noise(50_000)
  report = bad_lines.Report()
  path = make_shard(tmp_path, bytes(broken))
  found = [text for text, _, _ in pile_shards.read(path, report=report)]
  assert 200 < len(found) < 1000
  good = [json.loads(line)['text'].encode() for line in lines]
  assert found[:200] == good[:200]
  assert report.counts['truncated'] == 1
  where = f'{path}:{report.lines}: nothing after this line can be read: zstd'
  assert report.first['truncated'].startswith(where)
  assert [level for level, _ in log] == ['warning']


@pytest.mark.parametrize(
  'rest', [b'{"text": "go', b'{"text": "caf\xc3', b'{"text": "x"', b'{']
)
def test_a_line_cut_before_compression_is_truncation(tmp_path, rest):
  found, report = read_lines(tmp_path, GOOD, GOOD, rest)
  assert len(found) == 2
  assert (report.lines, report.counts) == (2, {'truncated': 1})
  assert '00.jsonl.zst:2: nothing after' in report.first['truncated']


def test_a_whole_last_line_is_judged_as_any_other(tmp_path):
  _, report = read_lines(tmp_path, GOOD, b'{"text": 5}')
  assert report.counts == {'bad JSON': 1}


def test_a_cut_leaves_one_damage_and_a_whole_line_before_it(tmp_path):
  frames = compress(GOOD, GOOD.rstrip()), compress(GOOD, GOOD[:-9])
  cut_frame = compress(noise(100))[:8]
  for content, documents in zip(frames, (2, 1), strict=True):
    report = bad_lines.Report()
    path = make_shard(tmp_path, content + cut_frame)
    assert len(list(pile_shards.read(path, report=report))) == documents
    assert (report.lines, report.counts) == (documents, {'truncated': 1})
    assert 'ends too early' in report.first['truncated']


def test_garbage_after_the_last_frame_is_damage(tmp_path):
  for garbage in (b'\0', b'garbage' * 100):
    report = bad_lines.Report()
    path = make_shard(tmp_path, compress(GOOD) + garbage)
    assert len(list(pile_shards.read(path, report=report))) == 1
    assert report.counts == {'truncated': 1}


# Errors.


def test_over_the_limit_file_line_counts_and_remedy_are_named(tmp_path):
  lines = [GOOD, b'bad\n', b'\n', *[GOOD, b'{"text": ""}\n'] * 9, GOOD, GOOD]
  with pytest.raises(bad_lines.DamagedShardError) as error:
    read_lines(tmp_path, *lines)
  message = str(error.value)
  path = f'{tmp_path}/00.jsonl.zst'
  assert message.startswith(f"{path}:21: 'text' is empty.")
  assert 'bad line 11 of 21' in message
  assert 'limit is 10 + 0.001 of the lines = 10.0' in message
  assert f'1 bad JSON, the first at {path}:2:' in message
  assert f'10 empty, the first at {path}:3:' in message
  assert 'raise max_bad_share' in message


def test_the_limit_grows_with_the_lines_and_the_share(tmp_path):
  good, bad = [GOOD] * 1000, [b'bad\n'] * 10
  found, report = read_lines(tmp_path, *bad, *good, b'bad\n')
  assert len(found) == 1000
  assert report.counts == {'bad JSON': 11}
  with pytest.raises(bad_lines.DamagedShardError, match=r':1012: '):
    read_lines(tmp_path, *bad, *good, b'bad\n', b'bad\n')
  found, _ = read_lines(tmp_path, *bad, *bad, GOOD, max_bad_share=0.5)
  assert len(found) == 1
  with pytest.raises(bad_lines.DamagedShardError, match=r':11: '):
    read_lines(tmp_path, *bad, b'bad\n', *good, max_bad_share=0)


def test_truncation_counts_towards_the_limit(tmp_path):
  with pytest.raises(bad_lines.DamagedShardError, match=r':12: nothing after'):
    read_lines(tmp_path, GOOD, GOOD, *[b'bad\n'] * 10, b'{"text')


@pytest.mark.parametrize(
  ('content', 'reason'),
  [
    (b'', '0 documents in 0 lines'),
    (compress(b''), '0 documents in 0 lines'),
    (compress(b'\n\n'), '0 documents in 2 lines'),
    (compress(b'bad\n'), '1 bad JSON, the first at'),
    (GOOD * 100, 'Unknown frame descriptor'),
    (b'\x1f\x8b\x08', 'Unknown frame descriptor'),
    (compress(GOOD)[:3], 'ends too early'),
  ],
)
def test_a_shard_without_a_document_is_an_error(tmp_path, content, reason):
  path = make_shard(tmp_path, content)
  with pytest.raises(bad_lines.DamagedShardError) as error:
    list(pile_shards.read(path))
  assert str(error.value).startswith(f'{path} holds no document: ')
  assert reason in str(error.value)


def test_a_shard_that_cannot_be_opened_is_named(tmp_path):
  for path in (tmp_path / 'missing.jsonl.zst', tmp_path):
    with pytest.raises(OSError, match=f'{path}: cannot be read'):
      list(pile_shards.read(str(path)))


# The data source.


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


def test_a_source_gives_all_shards_in_one_order(tmp_path):
  source = pile_shards.JsonlDataSource({'train': write_shards(tmp_path)})
  data = source.get_dataset('train', shuffle=False)
  assert data.element_spec == {
    'text': tf.TensorSpec([], tf.string),
    'domain': tf.TensorSpec([], tf.string),
    'id': tf.TensorSpec([], tf.int64),
  }
  found = as_tuples(data)
  expected = [
    document
    for name in 'abc'
    for document in pile_shards.read(str(tmp_path / f'{name}.jsonl.zst'))
  ]
  assert sorted(found) == sorted(expected)
  assert found[0][0] == b'a0\0'
  for _ in range(3):
    assert as_tuples(source.get_dataset('train', shuffle=False)) == found


def test_a_source_reads_one_shard_of_them(tmp_path):
  source = pile_shards.JsonlDataSource({'train': write_shards(tmp_path)})
  shards = source.list_shards('train')
  assert [os.path.basename(s)[0] for s in shards] == ['a', 'b', 'c']
  for i, path in enumerate(shards):
    info = seqio.ShardInfo(index=i, num_shards=3)
    data = source.get_dataset('train', shuffle=False, shard_info=info)
    assert as_tuples(data) == list(pile_shards.read(path))


def test_a_source_takes_several_globs_and_no_file_twice(tmp_path):
  glob = write_shards(tmp_path)
  source = pile_shards.JsonlDataSource(
    {'train': [glob, glob.replace('*', 'a')]}
  )
  assert len(source.list_shards('train')) == 3


def test_a_glob_that_matches_nothing_is_named(tmp_path):
  glob = write_shards(tmp_path)
  source = pile_shards.JsonlDataSource({'train': [glob, f'{tmp_path}/x*.zst']})
  for call in (source.list_shards, source.get_dataset):
    with pytest.raises(FileNotFoundError, match=r'train: .*/x\*\.zst'):
      call('train')


def test_errors_reach_the_reader_of_a_source(tmp_path):
  write_shards(tmp_path)
  make_shard(tmp_path, compress(GOOD + b'bad\n' * 20), 'd.jsonl.zst')
  source = pile_shards.JsonlDataSource({'train': f'{tmp_path}/*.zst'})
  with pytest.raises(
    tf.errors.InvalidArgumentError,
    match=r'DamagedShardError: .*/d\.jsonl\.zst:12: .*bad line 11 of 12',
  ):
    as_tuples(source.get_dataset('train', shuffle=False))


def test_a_missing_shard_is_an_error_of_the_source(tmp_path):
  source = pile_shards.JsonlDataSource({'train': f'{tmp_path}/missing.zst'})
  with pytest.raises(tf.errors.OpError, match=r'missing\.zst: cannot be read'):
    as_tuples(source.get_dataset('train', shuffle=False))


def test_a_source_puts_up_with_its_share(tmp_path):
  make_shard(tmp_path, compress(GOOD + b'bad\n' * 20))
  source = pile_shards.JsonlDataSource({'train': f'{tmp_path}/*.zst'}, 0.9)
  assert len(as_tuples(source.get_dataset('train', shuffle=False))) == 1


def test_a_task_reads_a_source(tmp_path):
  task = seqio.Task(
    'jsonl_test',
    source=pile_shards.JsonlDataSource({'train': write_shards(tmp_path)}),
    preprocessors=[
      lambda data: data.map(
        lambda x: {**x, 'targets': tf.io.decode_raw(x['text'], tf.uint8)}
      )
    ],
    output_features={
      'targets': seqio.Feature(
        seqio.ByteVocabulary(), add_eos=False, dtype=tf.uint8
      )
    },
  )
  for num_shards in (1, 2, 5):  # of more than 3, examples are dealt out
    found = [
      x['targets'].tobytes()
      for i in range(num_shards)
      for x in task.get_dataset(
        None,
        'train',
        shuffle=False,
        shard_info=seqio.ShardInfo(i, num_shards),
        num_epochs=2,
      ).as_numpy_iterator()
    ]
    assert sorted(set(found)) == sorted(
      f'{name}{i}\0'.encode()
      for name, count in (('a', 40), ('b', 1), ('c', 20))
      for i in range(count)
    )
    assert len(found) == 2 * 61


def test_two_shards_of_one_name_are_refused(tmp_path):
  for folder in 'ab':
    (tmp_path / folder).mkdir()
    pile_shards.write(str(tmp_path / folder / '00.jsonl.zst'), [('text', 'x')])
  source = pile_shards.JsonlDataSource({'train': f'{tmp_path}/*/*.jsonl.zst'})
  with pytest.raises(ValueError, match=r'2 shards are named 00\.jsonl\.zst'):
    source.list_shards('train')
