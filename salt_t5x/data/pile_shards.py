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

`bad_lines` says how many lines without a document are tolerated.
"""

import collections
from collections.abc import Iterable, Iterator, Mapping, Sequence
import contextlib
import functools
import itertools
import json
import math
import os

import seqio
import tensorflow as tf
import zstandard

from salt_t5x.data import bad_lines, equal_files, hashing

# Compressed bytes decoded at once. At worst 4 of them stand for a block of
# 128 KiB, so a piece is 128 MiB at most; one of text is some 10 kB.
_PIECE_BYTES = 4096
# The largest window of zstandard, which it keeps in memory. `zstd --long=31`
# makes such frames.
_MAX_WINDOW = 2**31
_MAGIC = b'\x28\xb5\x2f\xfd'
_SKIPPABLE = b'\x2a\x4d\x18'  # After one byte; of frames without data.
_OTHERS = {
  b'\x1f\x8b': 'gzip',
  b'BZh': 'bzip2',
  b'\xfd7zX': 'xz',
  b'PK': 'zip',
  b'{': 'plain JSON',
  b'\xef\xbb\xbf': 'plain text',
}


def _pieces(path: str) -> Iterator[bytes]:
  """Decompresses a shard piece by piece.

  Raises:
    bad_lines.DamageError: it is damaged, or ends too early.
  """
  decompressor = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW)
  frame, position, begin = None, 0, 0
  size = tf.io.gfile.stat(path).length
  with tf.io.gfile.GFile(path, 'rb') as file:
    while data := file.read(_PIECE_BYTES):
      while data:
        # zstandard's stream reader would take a file cut short for a whole
        # one. A frame of its own says whether it has ended.
        if frame is None:
          frame, begin = decompressor.decompressobj(), position
        try:
          yield frame.decompress(data)
        except zstandard.ZstdError as e:
          # A checksum ends a frame, all of which may be wrong.
          good = begin if 'checksum' in str(e) else position
          raise bad_lines.DamageError(
            f'nothing after this line can be read: {e}', 1 - good / size
          ) from e
        data = frame.unused_data if frame.eof else b''
        frame = None if frame.eof else frame
      position = file.tell()
  if frame is not None:
    # How much is missing is unknown.
    raise bad_lines.DamageError(
      'the compressed data ends too early, and an unknown part of it is '
      'missing',
      math.nan,
    )


def _lines(pieces: Iterable[bytes]) -> Iterator[bytes]:
  """Splits pieces into lines at newlines, and at no other character.

  Raises:
    bad_lines.DamageError: of `pieces`; raised after the lines before it.
  """
  damage = None
  line = []
  try:
    for piece in pieces:
      *ends, rest = piece.split(b'\n')
      for end in ends:
        yield b''.join([*line, end])
        line = []
      line.append(rest)
  except bad_lines.DamageError as error:
    damage = error
  if last := b''.join(line):
    yield last
  if damage is not None:
    raise damage


def _parse(line: bytes) -> tuple[bytes, bytes]:
  """Returns (text, domain), UTF-8."""
  entry = bad_lines.parse_object(line)
  text = entry['text']
  if not text.strip():
    raise bad_lines.BadLineError(bad_lines.EMPTY, "'text' is empty")
  meta = entry.get('meta')
  domain = meta.get('pile_set_name') if isinstance(meta, dict) else None
  return text.encode(), domain.encode() if isinstance(domain, str) else b''


def read(
  path: str, report: bad_lines.Report | None = None
) -> Iterator[tuple[bytes, bytes, int]]:
  """Reads one shard; memory does not grow with it.

  Args:
    path: a shard, wherever tf.io.gfile reads.
    report: a new one, filled on the way.

  Yields:
    (text, domain, id). Text and domain are UTF-8; a document that names no
    domain has b''. The id, in [0, 2^63), depends on the shard's base name, the
    line's number and the text: it survives a move, but no change of the text.

  Raises:
    tf.errors.OpError: the shard cannot be read.
    DamagedShardError: it has too many bad lines, or holds no document.
  """
  shard = os.path.basename(path)
  lines = _lines(_pieces(path))
  for number, (text, domain) in bad_lines.read(path, lines, _parse, report):
    prefix = f'{shard}\0{number}\0'.encode()
    yield text, domain, hashing.digest(prefix, text) >> 1


def _check_format(path: str) -> None:
  """Raises DamagedShardError if a file is not zstandard."""
  with tf.io.gfile.GFile(path, 'rb') as file:
    start = file.read(4)
  if start[1:] == _SKIPPABLE or start == _MAGIC:
    return
  found = [x for sign, x in _OTHERS.items() if start.startswith(sign)]
  found = found or ['of another kind' if start else 'empty']
  raise bad_lines.DamagedShardError(
    f'{path} is no zstandard file: it is {found[0]}. Shards are JSON lines, '
    'compressed with `zstd`.'
  )


def write(path: str, documents: Iterable[tuple[str, str]]) -> None:
  """Writes one shard; the same documents give the same bytes.

  Args:
    path: where to, wherever tf.io.gfile writes. The file appears when the
      shard is complete.
    documents: (text, domain) pairs.

  Raises:
    ValueError: a document that `read` would skip.
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
      except (UnicodeEncodeError, bad_lines.BadLineError) as error:
        raise ValueError(f'{path}: document {number}: {error}') from error
      shard.write(line)
  tf.io.gfile.rename(scratch, path, overwrite=True)


def _elements(path: bytes) -> Iterator[dict]:
  for text, domain, number in read(path.decode()):
    yield {'text': text, 'domain': domain, 'id': number}


class JsonlDataSource(seqio.FileDataSource):
  """Shards as a seqio data source, one file a shard.

  Elements: 'text' and 'domain', tf.string [], and 'id', tf.int64 [], as `read`
  gives them. Unshuffled, their order is always the same.
  """

  def __init__(self, split_to_filepattern: Mapping[str, str | Sequence[str]]):
    """Constructor; nothing is read yet.

    Args:
      split_to_filepattern: one or more globs of shards for each split.
    """
    read_shard = functools.partial(
      tf.data.Dataset.from_generator,
      _elements,
      output_signature={
        'text': tf.TensorSpec([], tf.string),
        'domain': tf.TensorSpec([], tf.string),
        'id': tf.TensorSpec([], tf.int64),
      },
    )
    super().__init__(
      lambda path: read_shard(args=(path,)), split_to_filepattern
    )
    self._checked: set[frozenset[str]] = set()

  def list_shards(self, split: str) -> Sequence[str]:
    """Returns the split's files, sorted.

    Raises:
      FileNotFoundError: a glob matches nothing.
      DamagedShardError: a file is not zstandard.
      ValueError: two files share a base name, on which document ids depend, or
        their content, or a file is in two splits.
    """
    files = set()
    for pattern, matched in self._matched(split).items():
      if not matched:
        raise FileNotFoundError(f'{split}: no shard matches {pattern}.')
      files.update(matched)
    names = collections.Counter(map(os.path.basename, files))
    if len(names) < len(files):
      name = names.most_common(1)[0][0]
      raise ValueError(
        f'{split}: {names[name]} shards are named {name}. Document ids depend '
        'on the name: give each shard its own.'
      )
    # Beam lists the files of a split once for each of them.
    if (key := frozenset(files)) not in self._checked:
      self._check(split, sorted(files))
      self._checked.add(key)
    return sorted(files)

  def _matched(self, split: str) -> dict[str, list[str]]:
    """{glob: its files}."""
    patterns = self._split_to_filepattern[split]
    patterns = [patterns] if isinstance(patterns, str) else patterns
    # Not seqio's `list_files`, for which a path without a wildcard exists.
    return {pattern: tf.io.gfile.glob(pattern) for pattern in patterns}

  def _check(self, split: str, files: Sequence[str]):
    """Checks a split's files, also against those of the other splits."""
    every = {split: files}
    for other in set(self.splits) - {split}:
      # It may be elsewhere, and need not be there yet.
      with contextlib.suppress(tf.errors.OpError):
        every[other] = sorted(
          {*itertools.chain(*self._matched(other).values())}
        )
    equal_files.check(every, self._split_to_filepattern)
    for file in files:
      _check_format(file)
