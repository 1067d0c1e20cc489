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

"""Shards of text in the Pile's form, read as a stream.

A shard, `*.jsonl.zst`, is zstandard over lines; each line is one document:

    {"text": "...", "meta": {"pile_set_name": "Wikipedia (en)"}}

A line that holds no document is left out, counted and reported. A shard with
more than a few of them is an error: see `read`.
"""

import collections
from collections.abc import Iterable, Iterator, Mapping, Sequence
import dataclasses
import functools
import hashlib
import json
import os

from absl import logging
import seqio
import tensorflow as tf
import zstandard

# Why a line, or the rest of a shard, is left out.
BAD_JSON = 'bad JSON'
EMPTY = 'empty'
NOT_UTF8 = 'not UTF-8'
TOO_LONG = 'too long'
TRUNCATED = 'truncated'

# A shard may have this many bad lines, and then this share of its lines.
FREE_BAD_LINES = 10
MAX_BAD_SHARE = 0.001

# Far more than any document has. Without a limit, a file without newlines would
# fill the memory.
MAX_LINE_BYTES = 100_000_000

# Compressed bytes decoded at once. At worst 4 of them stand for a block of
# 128 KiB, so a piece is 128 MiB at most; one of text is some 10 kB.
_PIECE_BYTES = 4096


class DamagedShardError(ValueError):
  """A shard has too many bad lines, or not one document."""


class _BadLine(Exception):
  """A line that holds no document: (kind, reason)."""

  def __str__(self) -> str:
    return ': '.join(self.args)


@dataclasses.dataclass
class Report:
  """What `read` found in one shard so far.

  Attributes:
    documents: how many were read.
    lines: how many were read, bad ones among them.
    counts: kind of damage to how often it was met. `TRUNCATED` is 0 or 1: what
      lies behind the damage is unknown.
    first: kind of damage to 'path:line: reason' of its first case. Lines count
      from 1; `TRUNCATED` names the last line before the damage.
  """

  documents: int = 0
  lines: int = 0
  counts: dict[str, int] = dataclasses.field(default_factory=dict)
  first: dict[str, str] = dataclasses.field(default_factory=dict)

  def add(self, kind: str, place: str) -> None:
    self.counts[kind] = self.counts.get(kind, 0) + 1
    self.first.setdefault(kind, place)

  def __str__(self) -> str:
    left_out = '; '.join(
      f'{count} {kind}, the first at {self.first[kind]}'
      for kind, count in self.counts.items()
    )
    return f'{self.documents} documents in {self.lines} lines' + (
      f'. Left out: {left_out}' if left_out else ''
    )


def _pieces(path: str) -> Iterator[bytes]:
  """What a shard decompresses to, piece by piece.

  Raises:
    OSError: the file cannot be read.
    zstandard.ZstdError: it is damaged, or ends too early.
  """
  decompressor = zstandard.ZstdDecompressor()
  frame = None
  try:
    with tf.io.gfile.GFile(path, 'rb') as file:
      while data := file.read(_PIECE_BYTES):
        while data:
          # zstandard's stream reader would take a file cut short for a whole
          # one. A frame of its own says whether it has ended.
          frame = frame or decompressor.decompressobj()
          yield frame.decompress(data)
          data = frame.unused_data if frame.eof else b''
          frame = None if frame.eof else frame
  except tf.errors.OpError as error:
    raise OSError(f'{path}: cannot be read: {error.message}') from error
  if frame is not None:
    raise zstandard.ZstdError('the compressed data ends too early')


def _lines(pieces: Iterable[bytes]) -> Iterator[bytes]:
  """Lines, each with its newline; the last may lack it.

  A line ends at a newline, and at no other character. One that is too long is
  cut, but still longer than MAX_LINE_BYTES.

  Raises:
    zstandard.ZstdError: from `pieces`, after the lines before the damage.
  """
  damage = None
  line, size = [], 0
  try:
    for piece in pieces:
      start = 0
      while end := piece.find(b'\n', start) + 1:
        line.append(piece[start:end])
        yield b''.join(line)
        line, size, start = [], 0, end
      if size <= MAX_LINE_BYTES:
        line.append(piece[start:])
        size += len(piece) - start
  except zstandard.ZstdError as error:
    damage = error
  if size:
    yield b''.join(line)
  if damage is not None:
    raise damage


def _parse(line: bytes) -> tuple[bytes, bytes]:
  """Returns a line's (text, domain), UTF-8; raises _BadLine if it has none."""
  if len(line) > MAX_LINE_BYTES:
    raise _BadLine(TOO_LONG, f'longer than {MAX_LINE_BYTES} bytes')
  # A line that does not parse and has no newline was cut.
  is_whole = line.endswith(b'\n')
  try:
    entry = json.loads(line.decode())
  except UnicodeDecodeError as error:
    reason = f'byte {error.start + 1}: {error.reason}'
    raise _BadLine(NOT_UTF8 if is_whole else TRUNCATED, reason) from error
  except (ValueError, RecursionError) as error:
    # json counts lines within the line, which would only confuse.
    reason = str(error).replace(': line 1 column', ' at column')
    raise _BadLine(BAD_JSON if is_whole else TRUNCATED, reason) from error
  if not isinstance(entry, dict):
    raise _BadLine(BAD_JSON, 'not an object')
  text = entry.get('text')
  if not isinstance(text, str):
    raise _BadLine(BAD_JSON, "no string 'text'")
  if not text or text.isspace():
    raise _BadLine(EMPTY, "'text' is empty")
  meta = entry.get('meta')
  domain = meta.get('pile_set_name') if isinstance(meta, dict) else None
  try:
    return text.encode(), domain.encode() if isinstance(domain, str) else b''
  except UnicodeEncodeError as error:
    raise _BadLine(NOT_UTF8, 'lone surrogates') from error


def _id(shard: str, line: int, text: bytes) -> int:
  digest = hashlib.blake2b(f'{shard}\0{line}\0'.encode(), digest_size=8)
  digest.update(text)
  return int.from_bytes(digest.digest(), 'big') >> 1


def read(
  path: str,
  max_bad_share: float = MAX_BAD_SHARE,
  report: Report | None = None,
) -> Iterator[tuple[bytes, bytes, int]]:
  """Reads one shard; memory does not grow with it.

  At the end one line is logged: a warning if anything was left out. Blank lines
  at the end are no damage; elsewhere they count as empty.

  Args:
    path: a shard, wherever tf.io.gfile reads.
    max_bad_share: bad lines that are put up with, as a share of the lines read
      so far, beside the first FREE_BAD_LINES.
    report: a new one, which is filled on the way.

  Yields:
    (text, domain, id). Text and domain are UTF-8; a document that names no
    domain has b''. The id, in [0, 2^63), hangs on the shard's base name, the
    line's number and the text: it survives a move, and no change of the text.

  Raises:
    OSError: the shard cannot be read.
    DamagedShardError: it has too many bad lines, or holds no document.
  """
  report = Report() if report is None else report
  shard = os.path.basename(path)

  def leave_out(kind, line, reason):
    report.add(kind, f'{path}:{line}: {reason}')
    bad = sum(report.counts.values())
    limit = FREE_BAD_LINES + max_bad_share * report.lines
    if not bad <= limit:  # With a share of NaN, too.
      raise DamagedShardError(
        f'{path}:{line}: {reason}. That is bad line {bad} of {report.lines} '
        f'read so far, and the limit is {FREE_BAD_LINES} + {max_bad_share} of '
        f'the lines = {limit:.1f} ({report}). Mend or replace the shard, or '
        'raise max_bad_share of salt_t5x.data.pile_shards.'
      )

  cut, blank = None, 0
  try:
    for number, line in enumerate(_lines(_pieces(path)), 1):
      report.lines = number
      if line.isspace():
        blank += 1
        continue
      for earlier in range(number - blank, number):
        leave_out(EMPTY, earlier, 'a blank line')
      blank = 0
      try:
        text, domain = _parse(line)
      except _BadLine as bad:
        kind, reason = bad.args
        if kind == TRUNCATED:
          cut = reason
          report.lines -= 1
        else:
          leave_out(kind, number, reason)
      else:
        report.documents += 1
        yield text, domain, _id(shard, number, text)
  except zstandard.ZstdError as error:
    cut = str(error)
  if cut is not None:
    reason = f'nothing after this line can be read: {cut}'
    leave_out(TRUNCATED, report.lines, reason)
  if not report.documents:
    raise DamagedShardError(f'{path} holds no document: {report}.')
  log = logging.warning if report.counts else logging.info
  log('%s: %s.', path, report)


def write(path: str, documents: Iterable[tuple[str, str]]) -> None:
  """Writes one shard; the same documents give the same bytes.

  Args:
    path: where to, wherever tf.io.gfile writes. Nothing is there before the
      shard is whole.
    documents: (text, domain) pairs.

  Raises:
    ValueError: a document that `read` would leave out.
  """
  scratch = f'{path}.tmp'
  compressor = zstandard.ZstdCompressor(write_checksum=True)
  with (
    tf.io.gfile.GFile(scratch, 'wb') as file,
    compressor.stream_writer(file, closefd=False) as shard,
  ):
    for number, (text, domain) in enumerate(documents, 1):
      entry = {'text': text, 'meta': {'pile_set_name': domain}}
      try:
        line = json.dumps(entry, ensure_ascii=False).encode() + b'\n'
        _parse(line)
      except (UnicodeEncodeError, _BadLine) as error:
        raise ValueError(f'{path}: document {number}: {error}') from error
      shard.write(line)
  tf.io.gfile.rename(scratch, path, overwrite=True)


def _elements(path: bytes, max_bad_share: float) -> Iterator[dict]:
  for text, domain, number in read(path.decode(), max_bad_share):
    yield {'text': text, 'domain': domain, 'id': number}


class JsonlDataSource(seqio.FileDataSource):
  """Shards as a seqio data source, one file a shard.

  Elements: 'text' and 'domain', tf.string [], and 'id', tf.int64 [], as `read`
  gives them. Unshuffled, their order is always the same.
  """

  def __init__(
    self,
    split_to_filepattern: Mapping[str, str | Sequence[str]],
    max_bad_share: float = MAX_BAD_SHARE,
  ):
    """Constructor; nothing is read yet.

    Args:
      split_to_filepattern: split to one or more globs of shards.
      max_bad_share: as in `read`, for each shard.
    """
    read_shard = functools.partial(
      tf.data.Dataset.from_generator,
      functools.partial(_elements, max_bad_share=max_bad_share),
      output_signature={
        'text': tf.TensorSpec([], tf.string),
        'domain': tf.TensorSpec([], tf.string),
        'id': tf.TensorSpec([], tf.int64),
      },
    )
    super().__init__(
      lambda path: read_shard(args=(path,)), split_to_filepattern
    )

  def list_shards(self, split: str) -> Sequence[str]:
    """Returns the split's files, sorted.

    Raises:
      FileNotFoundError: a glob without any.
      ValueError: two files of one base name, on which ids of documents hang.
    """
    patterns = self._split_to_filepattern[split]
    files = set()
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
      matched = seqio.utils.list_files(pattern)
      if not matched:
        raise FileNotFoundError(f'{split}: no shard matches {pattern}.')
      files.update(matched)
    names = collections.Counter(map(os.path.basename, files))
    if len(names) < len(files):
      name = names.most_common(1)[0][0]
      raise ValueError(
        f'{split}: {names[name]} shards are named {name}. Ids of documents '
        'hang on the name: give each shard its own.'
      )
    return sorted(files)
