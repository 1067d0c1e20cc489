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

"""Renders examples as text: their tokens, their regions, and where loss is.

Pure functions from one example's arrays to lines for a terminal; the command is
`salt_t5x.look`. Data reaches the terminal only as printable characters and line
breaks.
"""

import collections
from collections.abc import Iterator, Mapping, Sequence
import itertools
import textwrap

import numpy as np
import seqio

COLUMNS = 80
SIGNS = {
  '=': 'attended in both directions, no loss',
  '#': 'causal, with loss',
  '.': 'causal, no loss',
  '!': 'LOSS WHERE NONE SHOULD BE: on inputs or padding',
  ' ': 'padding',
}
_WRAPPER = textwrap.TextWrapper(
  width=COLUMNS - 6,
  drop_whitespace=False,
  replace_whitespace=False,
  expand_tabs=False,
  break_on_hyphens=False,
)


def escape(text: str) -> str:
  """Escapes characters that are neither printable nor a line break."""
  return ''.join(
    c if c == '\n' or c.isprintable() else c.encode('unicode_escape').decode()
    for c in text
  )


def decode(ids: Sequence[int], vocabulary: seqio.Vocabulary) -> str:
  """Decodes tokens to printable text, which names pad, EOS and sentinels.

  Bytes that form no character, e.g. on one side of a sentinel, become U+FFFD.
  """
  size = vocabulary.vocab_size
  names = {size - 1 - i: f'<extra_id_{i}>' for i in range(vocabulary.extra_ids)}
  names |= {vocabulary.pad_id: '<pad>', vocabulary.eos_id: '</s>'}
  pieces = []
  for is_named, run in itertools.groupby(ids, names.__contains__):
    if is_named:
      pieces += [names[token] for token in run]
    else:
      pieces.append(str(vocabulary.decode(list(run))))
  return escape(''.join(pieces))


def original(
  inputs: Sequence[int], targets: Sequence[int], vocabulary: seqio.Vocabulary
) -> str | None:
  """Undoes span corruption.

  Args:
    inputs: a sentinel in place of each span. One that the targets lack (they
      were cut, or it is a mode token) remains.
    targets: each sentinel, followed by its span.
    vocabulary: of the tokens.

  Returns:
    The text, its spans in double brackets; None if the targets begin with no
    sentinel.

  Raises:
    ValueError: the sentinels of the two sides differ or repeat.
  """
  first_sentinel = vocabulary.vocab_size - vocabulary.extra_ids
  if not inputs or not targets or targets[0] < first_sentinel:
    return None
  starts = [i for i, t in enumerate(targets) if t >= first_sentinel]
  spans = {
    targets[a]: targets[a + 1 : b]
    for a, b in itertools.pairwise([*starts, len(targets)])
  }
  shared = [t for t in inputs if t in spans]
  if len(spans) < len(starts) or shared != list(spans)[: len(shared)]:
    raise ValueError('inputs and targets differ in sentinels')
  text = ''
  for is_span, run in itertools.groupby(inputs, spans.__contains__):
    if is_span:
      text += ''.join(
        f'\u27e6{decode(spans[t], vocabulary)}\u27e7' for t in run
      )
    else:
      text += decode(list(run), vocabulary)
  return text


def signs(row: Mapping[str, np.ndarray]) -> str:
  """Classifies each position of a converted example by a sign of `SIGNS`.

  Args:
    row: the features of `FixedWidthFeatureConverter`, each [T].

  Returns:
    T characters. Whether a token is attended to in both directions is decided
    where the model reads it, one position after it is predicted.
  """
  tokens = row['decoder_target_tokens']
  attention = row['decoder_causal_attention'] > 0
  loss = row['decoder_loss_weights'] > 0
  length = max(np.flatnonzero(tokens), default=-1) + 1
  place = np.arange(len(tokens))
  padding = place >= length
  # The last token is never read; an input is one that bears no loss.
  is_read = place < length - 1
  both = np.where(is_read, np.append(attention[1:], False), attention & ~loss)
  return ''.join(
    np.select(
      [(both | padding) & loss, padding, both, loss], ['!', ' ', '=', '#'], '.'
    )
  )


def strip(marks: str, columns: int = COLUMNS - 2) -> str:
  """Draws signs in a limited number of columns.

  Args:
    marks: the result of `signs`.
    columns: their largest number, at least 1.

  Returns:
    The strip between bars. A column shows its most frequent sign, or '!' if it
    has one.
  """
  parts = np.array_split(list(marks), min(columns, len(marks)))
  most = lambda part: '!' if '!' in part else max(SIGNS, key=part.count)
  return f'|{"".join(most(part.tolist()) for part in parts)}|'


def text_lines(text: str, limit: int, sign: str = ' ') -> Iterator[str]:
  """Yields escaped text with a margin; long text is cut in the middle."""
  half = limit // 2
  if (left_out := len(text) - limit) > 0:
    text = (
      f'{text[: limit - half]}\n... {left_out:,} characters left out ...\n'
      f'{text[len(text) - half :]}'
    )
  for line in text.split('\n'):
    for number, piece in enumerate(_WRAPPER.wrap(line) or ['']):
      yield f'  {sign} {" " if number else "|"} {piece}'


def row_lines(
  row: Mapping[str, np.ndarray], vocabulary: seqio.Vocabulary, limit: int
) -> Iterator[str]:
  """Renders one converted example.

  Args:
    row: the features of `FixedWidthFeatureConverter`, each [T].
    vocabulary: of the tokens.
    limit: characters to show of each region.

  Yields:
    Lines.
  """
  marks = signs(row)
  tokens = row['decoder_target_tokens'].tolist()
  count = collections.Counter(marks)
  yield (
    f'inputs {count["="]:,}, targets {count["#"] + count["."]:,}, with loss '
    f'{count["#"] + count["!"]:,}, padding {count[" "]:,}, width {len(marks):,}'
  )
  yield strip(marks)
  places = range(len(marks.rstrip()))
  for sign, run in itertools.groupby(places, marks.__getitem__):
    ids = [tokens[i] for i in run]
    yield f'{SIGNS[sign]}: {len(ids):,} tokens'
    yield from text_lines(decode(ids, vocabulary), limit, sign)
  inputs = [tokens[i] for i in places if marks[i] in '=!']
  targets = [tokens[i] for i in places if marks[i] in '#.']
  try:
    text = original(inputs, targets, vocabulary)
  except ValueError as error:
    yield f'original: CANNOT BE RESTORED, {error}'
    return
  if text is not None:
    yield 'original, its corrupted spans in \u27e6\u27e7:'
    yield from text_lines(text, limit)
