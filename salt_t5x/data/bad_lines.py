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

"""Tolerates a few bad lines in a file of documents, and reports them.

A line without a usable document is skipped, counted and reported. A file may
lose one line in a thousand, or one if it has a hundred to a thousand: any more
are an error, and so are any at all in a smaller file. If a compressed file is
damaged inside, the share of its bytes that cannot be decoded has the same
limit. A file that ends too early is an error, since nobody knows how much is
missing.
"""

import codecs
from collections.abc import Callable, Iterable, Iterator
import contextlib
import dataclasses
import json
import math
import re
from typing import Any, TypeVar

from absl import logging
import tensorflow as tf

# Why a line, or the rest of a file, is skipped.
BAD_JSON = 'bad JSON'
EMPTY = 'empty'
NOT_UTF8 = 'not UTF-8'
TRUNCATED = 'truncated'

# The share of a file that may be lost.
MAX_LOST_SHARE = 0.001
# The fewest lines of which one may be lost.
_MIN_LINES = 100
# Beyond this many bad lines and that share of the lines so far, the rest of a
# file is not read.
_EARLY = 10

# Kinds of damage by the errors of parsers; others are bad values.
_KINDS = {
  UnicodeError: NOT_UTF8,
  json.JSONDecodeError: BAD_JSON,
  RecursionError: BAD_JSON,
  KeyError: 'no such field',
}
_ERRORS = (AttributeError, LookupError, RecursionError, TypeError, ValueError)

Document = TypeVar('Document')


class DamagedShardError(ValueError):
  """A file has too many bad lines, or no document."""


class BadLineError(Exception):
  """A line without a document: (kind, reason)."""

  def __str__(self) -> str:
    return ': '.join(self.args)


class DamageError(Exception):
  """The rest of a file cannot be read: (reason, its share of the bytes).

  The share is NaN where it is unknown.
  """


@dataclasses.dataclass
class Report:
  """What was found in one file so far.

  Attributes:
    documents: number of documents read.
    lines: number of lines read, bad ones included.
    lost_share: of the file's bytes, after damage to its compression; NaN where
      the file ends too early.
    counts: number of cases of each kind of damage; `TRUNCATED` is 0 or 1.
    first: 'path:line: reason' of the first case of each kind. Lines count from
      1; `TRUNCATED` names the last line before the damage.
  """

  documents: int = 0
  lines: int = 0
  lost_share: float = 0.0
  counts: dict[str, int] = dataclasses.field(default_factory=dict)
  first: dict[str, str] = dataclasses.field(default_factory=dict)

  def __str__(self) -> str:
    skipped = '; '.join(
      f'{count} {kind}, the first at {self.first[kind]}'
      for kind, count in self.counts.items()
    )
    lost = f', and {self.lost_share:.2%} of the bytes'
    if math.isnan(self.lost_share):
      lost = ', and an unknown share of the bytes'
    elif not self.lost_share:
      lost = ''
    return f'{self.documents} documents in {self.lines} lines' + (
      f'. Skipped{lost}: {skipped}' if skipped else ''
    )

  @property
  def is_good(self) -> bool:
    """Whether little enough is lost."""
    bad = sum(self.counts.values()) - self.counts.get(TRUNCATED, 0)
    allowed = max(1, int(MAX_LOST_SHARE * self.lines))
    few = not bad or (bad <= allowed and self.lines >= _MIN_LINES)
    return few and self.lost_share <= MAX_LOST_SHARE

  def skip(self, name: str, kind: str, reason: str) -> None:
    """Counts a bad line, the last one read.

    Raises:
      DamagedShardError: there are too many.
    """
    place = f'{name}:{self.lines}: {reason}'
    self.counts[kind] = self.counts.get(kind, 0) + 1
    self.first.setdefault(kind, place)
    if sum(self.counts.values()) > _EARLY + MAX_LOST_SHARE * self.lines:
      self.refuse()

  def refuse(self) -> None:
    """Raises DamagedShardError with the first damage of each kind."""
    # Damage to the compression also cuts a line.
    first = self.first.get(TRUNCATED) or next(iter(self.first.values()))
    raise DamagedShardError(
      f'{first}. Found {self}; the limit is {MAX_LOST_SHARE:.1%} of the lines '
      f'or bytes, and none of a file with fewer than {_MIN_LINES} lines. Mend '
      'or replace the file, or name the fields that it has.'
    )


@contextlib.contextmanager
def unwrapped() -> Iterator[None]:
  """Takes a DamagedShardError out of tf.data's error, which has a traceback.

  Raises:
    DamagedShardError: a generator of a tf.data.Dataset raised it.
  """
  try:
    yield
  except tf.errors.OpError as error:
    if found := re.search(r'DamagedShardError: (.*)', error.message):
      raise DamagedShardError(found[1]) from None
    raise


def parse_object(line: bytes) -> dict[str, Any]:
  """Parses a line that holds a JSON object, for a parser of `read`."""
  if line.lstrip().startswith(b'['):
    raise BadLineError(
      BAD_JSON,
      'an array begins here, but a line must hold one object: write the '
      "array's objects one a line, e.g. with jq -c '.[]'",
    )
  entry = json.loads(line.decode())
  if not isinstance(entry, dict):
    raise BadLineError(BAD_JSON, 'a line must hold one object')
  return entry


def read(
  name: str,
  lines: Iterable[Any],
  parse: Callable[[Any], Document],
  report: Report | None = None,
) -> Iterator[tuple[int, Document]]:
  """Parses the lines of a file, and skips bad ones; blank lines are no damage.

  At the end one line is logged: a warning if anything was skipped.

  Args:
    name: the file's, for messages.
    lines: bytes, or whatever `parse` takes. A `DamageError` that the iterator
      raises ends the file.
    parse: makes a document from a line; `BadLineError` and the errors of bad
      text, JSON, fields and values mark a bad line.
    report: a new one, filled on the way.

  Yields:
    (number of the line, from 1; its document).

  Raises:
    DamagedShardError: too many bad lines, or no document.
  """
  report = Report() if report is None else report
  try:
    for line in lines:
      report.lines += 1
      if report.lines == 1 and isinstance(line, bytes):
        line = line.removeprefix(codecs.BOM_UTF8)
      if isinstance(line, bytes) and not line.strip():
        continue
      try:
        document = parse(line)
      except BadLineError as bad:
        report.skip(name, *bad.args)
      except _ERRORS as error:
        kinds = [k for cls, k in _KINDS.items() if isinstance(error, cls)]
        report.skip(name, *kinds or ['bad value'], str(error))
      else:
        report.documents += 1
        yield report.lines, document
  except DamageError as damage:
    reason, report.lost_share = damage.args
    report.skip(name, TRUNCATED, reason)
  if not report.documents:
    raise DamagedShardError(f'{name} holds no document: {report}.')
  if not report.is_good:
    report.refuse()
  log = logging.warning if report.counts else logging.info
  log('%s: %s.', name, report)
