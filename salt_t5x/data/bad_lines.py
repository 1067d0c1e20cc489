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

A line without a usable document is skipped, counted and reported. A file with
more than `FREE_BAD_LINES` of them, and then more than a share of its lines, is
an error.
"""

from collections.abc import Callable, Iterable, Iterator
import dataclasses
import json
from typing import Any, TypeVar

from absl import logging

# Why a line, or the rest of a file, is skipped.
BAD_JSON = 'bad JSON'
EMPTY = 'empty'
NOT_UTF8 = 'not UTF-8'
TRUNCATED = 'truncated'

# A file may have this many bad lines, and then this share of its lines.
FREE_BAD_LINES = 10
MAX_BAD_SHARE = 0.001

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


@dataclasses.dataclass
class Report:
  """What was found in one file so far.

  Attributes:
    documents: number of documents read.
    lines: number of lines read, bad ones included.
    counts: number of cases of each kind of damage. `TRUNCATED` is 0 or 1: the
      data after the damage is unknown.
    first: 'path:line: reason' of the first case of each kind. Lines count from
      1; `TRUNCATED` names the last line before the damage.
  """

  documents: int = 0
  lines: int = 0
  counts: dict[str, int] = dataclasses.field(default_factory=dict)
  first: dict[str, str] = dataclasses.field(default_factory=dict)

  def __str__(self) -> str:
    skipped = '; '.join(
      f'{count} {kind}, the first at {self.first[kind]}'
      for kind, count in self.counts.items()
    )
    return f'{self.documents} documents in {self.lines} lines' + (
      f'. Skipped: {skipped}' if skipped else ''
    )

  def skip(self, name: str, kind: str, reason: str) -> None:
    """Counts a bad line, the last one read.

    Raises:
      DamagedShardError: there are too many.
    """
    place = f'{name}:{self.lines}: {reason}'
    self.counts[kind] = self.counts.get(kind, 0) + 1
    self.first.setdefault(kind, place)
    bad = sum(self.counts.values())
    if bad > FREE_BAD_LINES + MAX_BAD_SHARE * self.lines:
      raise DamagedShardError(
        f'{place} ({kind}). That is bad line {bad} of {self.lines}, and the '
        f'limit is {FREE_BAD_LINES} + {MAX_BAD_SHARE} of the lines ({self}). '
        'Mend or replace the file, or name the fields that it has.'
      )


def parse_object(line: bytes) -> dict[str, Any]:
  """Parses a line that holds a JSON object, for a parser of `read`."""
  entry = json.loads(line.decode())
  if not isinstance(entry, dict):
    raise BadLineError(BAD_JSON, 'not an object')
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
    lines: bytes, or whatever `parse` takes. A `BadLineError` that the iterator
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
  except BadLineError as bad:
    report.skip(name, *bad.args)
  if not report.documents:
    raise DamagedShardError(f'{name} holds no document: {report}.')
  log = logging.warning if report.counts else logging.info
  log('%s: %s.', name, report)
