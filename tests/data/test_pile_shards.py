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

import bz2
import gzip
import itertools
import json
import lzma
import os
import random
import re

from absl import logging
from hypothesis import HealthCheck, given, settings, strategies
import pytest
import seqio
import tensorflow as tf
import zstandard

from salt_t5x import look, vocabulary
from salt_t5x.data import (
  bad_lines,
  cache_writer,
  equal_files,
  pile_shards,
  text_tasks,
)

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
  lines = [document_line('new'), b'bad\n', *[GOOD] * 98]
  changed = ids('00.jsonl.zst', lines)
  assert changed[0] not in everything
  assert changed[1] == same[2]


# --- Bad lines ----------------------------------------------------------------

DEEP = b'{"text": "x", "meta": ' + b'[' * 100_000 + b']' * 100_000 + b'}\n'
BAD_LINES = [
  ('bad JSON', b'{"text": "x"\n', "Expecting ',' delimiter"),
  ('bad JSON', b'{"text": "x"} {"text": "y"}\n', 'Extra data'),
  ('bad JSON', b'["text"]\n', 'a line must hold one object'),
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
  found, report = read(tmp_path, compress(GOOD * 2 + line + GOOD * 97))
  assert found == [(b'good', b'Books3')] * 99
  assert (report.documents, report.lines) == (99, 100)
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
  assert message.startswith(f'{path}:2: Expecting value')
  assert 'Found 12 documents in 23 lines' in message
  assert 'limit is 0.1% of the lines or bytes' in message
  assert f'1 bad JSON, the first at {path}:2:' in message
  assert f'10 empty, the first at {path}:5:' in message
  assert 'Mend or replace the file' in message


@pytest.mark.parametrize(
  'bad, lines, is_good',
  [
    # No line is free because the file is small.
    (1, 99, False),
    (1, 100, True),
    (2, 1000, False),
    (1, 1999, True),
    (2, 1001, False),
    (2, 1999, False),
    (2, 2000, True),
    (10, 100, False),
    (10, 9999, False),
    (10, 10_000, True),
  ],
)
def test_a_file_may_lose_one_line_in_a_thousand(tmp_path, bad, lines, is_good):
  content = compress(GOOD * (lines - bad) + b'bad\n' * bad)
  if is_good:
    found, report = read(tmp_path, content)
    assert (len(found), report.counts) == (lines - bad, {'bad JSON': bad})
  else:
    with pytest.raises(
      bad_lines.DamagedShardError, match=f'{lines} lines. Skipped: {bad} bad'
    ):
      read(tmp_path, content)


def test_a_hopeless_file_is_not_read_to_its_end(tmp_path):
  content = b'bad\n' * 12 + GOOD * 100_000
  with pytest.raises(bad_lines.DamagedShardError, match='in 11 lines'):
    read(tmp_path, compress(content))


@pytest.mark.parametrize('ending', [b'\n', b'\r\n'])
def test_a_byte_order_mark_costs_no_document(tmp_path, ending):
  content = b'\xef\xbb\xbf' + GOOD.replace(b'\n', ending) * 2
  found, report = read(tmp_path, compress(content))
  assert found == [(b'good', b'Books3')] * 2
  assert not report.counts
  # The ids are those of the file without the mark.
  name = '00.jsonl.zst'
  with_mark = list(pile_shards.read(make_shard(tmp_path, compress(content))))
  path = make_shard(tmp_path, compress(content[3:]), name)
  assert list(pile_shards.read(path)) == with_mark


# --- Damaged shards -----------------------------------------------------------


@pytest.mark.parametrize('share', [0.3, 0.9, 0.9999])
def test_a_shard_that_ends_too_early_is_an_error(tmp_path, share):
  """However little is missing: nobody knows that."""
  whole = compress(b''.join(incompressible(2000)))
  with pytest.raises(bad_lines.DamagedShardError) as error:
    read(tmp_path, whole[: int(share * len(whole))])
  message = str(error.value)
  assert 'jsonl.zst:' in message and 'the compressed data ends too' in message
  assert 'Skipped, and an unknown share of the bytes: ' in message
  assert 'Mend or replace the file' in message


def test_only_a_missing_checksum_is_an_error_too(tmp_path):
  whole = compress(GOOD * 1000)
  with pytest.raises(bad_lines.DamagedShardError, match='1000 documents'):
    read(tmp_path, whole[:-1])


@pytest.mark.parametrize('place', [0, 5000, -4])
def test_damage_inside_counts_by_its_share_of_the_bytes(tmp_path, place):
  """A frame with a wrong checksum is lost as a whole."""
  lines = incompressible(1000)
  parts = [compress(b''.join(lines[i : i + 100])) for i in range(0, 1000, 100)]
  broken = bytearray(b''.join(parts))
  middle = sum(map(len, parts[:5]))
  place = middle + place % len(parts[5])
  broken[place : place + 4] = noise(4)
  with pytest.raises(bad_lines.DamagedShardError) as error:
    read(tmp_path, bytes(broken))
  share = re.search(r'Skipped, and ([\d.]+)% of the bytes: ', str(error.value))
  # Pieces are of 4,096 bytes.
  expected = 100 * (1 - middle / len(broken))
  assert abs(float(share[1]) - expected) < 100 * 4096 / len(broken)
  assert 'nothing after this line can be read' in str(error.value)


def test_a_little_damage_at_the_end_is_reported(tmp_path, log):
  # What follows 5 MB of good text.
  good = compress(b''.join(incompressible(12_000)))
  found, report = read(tmp_path, good + b'garbage' * 10)
  assert len(found) == 12_000
  assert 0 < report.lost_share < 0.001
  assert report.counts == {'truncated': 1}
  ((level, text),) = log
  assert level == 'warning' and 'Skipped, and 0.0' in text


@pytest.mark.parametrize(
  'content, kinds',
  [
    (compress(GOOD + b'{"text": "caf\xc3'), ['not UTF-8']),
    (compress(GOOD + b'{"text": "go'), ['bad JSON']),
    (compress(GOOD) + b'garbage' * 100, ['truncated']),
    (compress(GOOD) + compress(noise(100))[:8], ['truncated']),
    (compress(GOOD + b'{"') + b'\0', ['bad JSON', 'truncated']),
  ],
)
def test_damage_at_the_end_is_reported(tmp_path, content, kinds):
  report = bad_lines.Report()
  path = make_shard(tmp_path, content)
  with pytest.raises(bad_lines.DamagedShardError) as error:
    list(pile_shards.read(path, report=report))
  assert report.counts == dict.fromkeys(kinds, 1)
  assert all(f'1 {kind}, the first at {path}:' in str(error.value)
             for kind in kinds)  # fmt: skip


def long_window_frame(content, window_log):
  """A frame as `zstd --long=N` makes it: one raw block, and a large window."""
  header = b'\x28\xb5\x2f\xfd\x00' + bytes([(window_log - 10) << 3])
  block = (1 | len(content) << 3).to_bytes(3, 'little')
  return header + block + content


@pytest.mark.parametrize('window_log', [27, 28, 31])
def test_frames_with_long_windows_are_read(tmp_path, window_log):
  long = long_window_frame(GOOD * 10, window_log)
  size = zstandard.get_frame_parameters(long).window_size
  assert size == 2**window_log
  found, report = read(tmp_path, compress(GOOD * 5) + long)
  assert found == [(b'good', b'Books3')] * 15
  assert not report.counts


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


def test_rejects_two_shards_of_one_name(tmp_path):
  for folder in 'ab':
    (tmp_path / folder).mkdir()
    pile_shards.write(str(tmp_path / folder / '00.jsonl.zst'), [('text', 'x')])
  source = pile_shards.JsonlDataSource({'train': f'{tmp_path}/*/*.jsonl.zst'})
  with pytest.raises(ValueError, match=r'2 shards are named 00\.jsonl\.zst'):
    source.list_shards('train')


@pytest.mark.parametrize('split', ['train', 'validation'])
def test_rejects_files_in_two_splits_before_they_are_read(tmp_path, split):
  for name in 'a', 'val':
    make_shard(tmp_path, b'damaged' + name.encode(), f'{name}.zst')
  patterns = {
    'train': f'{tmp_path}/*.zst',
    'test': f'{tmp_path}/missing',
    'validation': [f'{tmp_path}/val.zst'],
  }
  source = pile_shards.JsonlDataSource(patterns)
  with pytest.raises(ValueError, match=r'val\.zst is in two splits') as e:
    source.get_dataset(split)
  for x in 'train', 'validation':
    assert f'{x} ({patterns[x]!r})' in str(e.value)


def test_splits_that_are_only_evaluated_may_share_shards(tmp_path):
  path = make_shard(tmp_path, compress(b'{"text": "a"}\n'), '00.zst')
  source = pile_shards.JsonlDataSource({'validation': path, 'test': path})
  assert source.list_shards('validation') == source.list_shards('test')


@pytest.mark.parametrize('split', ['train', 'validation'])
def test_rejects_equal_shards(tmp_path, split):
  lines = [b''.join(incompressible(x)) for x in (10, 11)]
  content = compress(*lines)
  make_shard(tmp_path, content, '00.zst')
  make_shard(tmp_path, content, '00 (1).zst')
  patterns = {'train': [f'{tmp_path}/00.zst'], 'validation': []}
  patterns[split].append(f'{tmp_path}/00 (1).zst')
  source = pile_shards.JsonlDataSource(patterns)
  with pytest.raises(ValueError, match='have the same content') as e:
    source.get_dataset('train')
  assert f'{tmp_path}/00.zst (train split)' in str(e.value)
  assert f'{tmp_path}/00 (1).zst ({split} split)' in str(e.value)
  effect = 'would count twice' if split == 'train' else 'would be trained on'
  assert effect in str(e.value)
  # Of one size, but not equal.
  make_shard(tmp_path, compress(*reversed(lines)), '00 (1).zst')
  assert os.path.getsize(tmp_path / '00 (1).zst') == len(content)
  assert source.list_shards('train')


def test_large_shards_are_compared_by_their_ends(tmp_path, monkeypatch):
  monkeypatch.setattr(equal_files, '_COMPARED_BYTES', 1000)
  lines = incompressible(10)
  source = pile_shards.JsonlDataSource({'train': f'{tmp_path}/*.zst'})
  for turned in lines[::-1], lines[1:] + lines[:1], lines:
    make_shard(tmp_path, compress(*lines), 'a.zst')
    make_shard(tmp_path, compress(*turned), 'b.zst')
    if turned is not lines:
      assert len(source.list_shards('train')) == 2
      source._checked.clear()
  with pytest.raises(ValueError, match='have the same content'):
    source.list_shards('train')


@pytest.mark.parametrize('pattern', ['x*.zst', 'missing.zst', 'a[.zst'])
def test_rejects_patterns_without_a_match(tmp_path, pattern):
  source = pile_shards.JsonlDataSource({'train': f'{tmp_path}/{pattern}'})
  with pytest.raises(FileNotFoundError, match='train: no shard matches') as e:
    source.get_dataset('train')
  assert pattern in str(e.value)


@pytest.mark.parametrize(
  'content, kind',
  [
    (gzip.compress(GOOD), 'gzip'),
    (bz2.compress(GOOD), 'bzip2'),
    (lzma.compress(GOOD), 'xz'),
    (GOOD * 10, 'plain JSON'),
    (b'\xef\xbb\xbf' + GOOD, 'plain text'),
    (b'Once upon a time', 'of another kind'),
    (b'', 'empty'),
  ],
  ids=['gzip', 'bzip2', 'xz', 'json', 'byte order mark', 'text', 'empty'],
)
def test_files_of_other_kinds_are_named_before_they_are_read(
  tmp_path, content, kind
):
  pile_shards.write(str(tmp_path / 'a.jsonl.zst'), [('good', '')])
  path = make_shard(tmp_path, content, 'b.jsonl.zst')
  source = pile_shards.JsonlDataSource({'train': f'{tmp_path}/*.jsonl.zst'})
  with pytest.raises(bad_lines.DamagedShardError) as error:
    source.get_dataset('train')
  assert str(error.value) == (
    f'{path} is no zstandard file: it is {kind}. Shards are JSON lines, '
    'compressed with `zstd`.'
  )


def test_a_shard_may_begin_with_a_skippable_frame(tmp_path):
  make_shard(tmp_path, SKIPPABLE + compress(GOOD))
  source = pile_shards.JsonlDataSource({'train': f'{tmp_path}/*.jsonl.zst'})
  assert len(as_tuples(source.get_dataset('train', shuffle=False))) == 1


def test_errors_reach_the_reader_of_a_source(tmp_path):
  """In one line, without the traceback that tf.data puts into its own."""
  path = make_shard(tmp_path, compress(GOOD + b'bad\n' * 20), 'd.jsonl.zst')
  source = pile_shards.JsonlDataSource({'train': path})
  data = source.get_dataset('train', shuffle=False)
  with pytest.raises(tf.errors.OpError, match='DamagedShardError: '):
    as_tuples(data)
  with (
    pytest.raises(bad_lines.DamagedShardError) as error,
    bad_lines.unwrapped(),
  ):
    as_tuples(data)
  assert str(error.value).startswith(f'{path}:2: Expecting value')
  assert str(error.value).endswith('name the fields that it has.')
  assert '\n' not in str(error.value)


@pytest.fixture
def task(tmp_path):
  """A registered task of documents in a shard, of which nothing is written."""
  task = text_tasks.documents_task('damaged', {'train': f'{tmp_path}/*.zst'})
  seqio.TaskRegistry.add_provider(task.name, task)
  yield task
  seqio.TaskRegistry.remove(task.name)


@pytest.mark.parametrize(
  'content, message',
  [
    (gzip.compress(GOOD), 'is no zstandard file: it is gzip'),
    (compress(GOOD * 100)[:-30], 'the compressed data ends too early'),
    (compress(GOOD + b'bad\n'), 'Expecting value'),
  ],
  ids=['gzip', 'truncated', 'bad line'],
)
@pytest.mark.parametrize('command', [look, vocabulary])
def test_commands_exit_with_the_message(
  tmp_path, task, command, content, message
):
  """An exit with a text prints it alone, without a traceback."""
  make_shard(tmp_path, content)
  flags = [f'--task={task.name}']
  if command is vocabulary:
    flags += [f'--output={tmp_path}/model', '--vocab_size=500']
  else:
    flags += ['--examples=1000']
  with pytest.raises(SystemExit, match=message) as error:
    command.main(command.parse_flags(['', *flags]))
  assert str(error.value).startswith(f'{tmp_path}/00.jsonl.zst')


def test_the_local_builder_names_the_damage(tmp_path):
  make_shard(tmp_path, compress(b''.join(incompressible(400)))[:99_999])
  cached = text_tasks.sequences_task(
    'damaged', {'train': f'{tmp_path}/*.zst'}, seqio.ByteVocabulary(), 64
  )
  with pytest.raises(bad_lines.DamagedShardError, match='ends too early'):
    cache_writer.write(cached, str(tmp_path / 'cache'))
