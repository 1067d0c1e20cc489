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


"""Draws examples as text: their tokens, their regions, and where loss is.

Pure functions from one example's arrays to lines for a terminal; the command is
`salt_t5x.look`. Data reaches the terminal only as printable characters and line
breaks.
"""

import codecs
import collections
from collections.abc import Callable, Iterator, Mapping, Sequence
import itertools
import operator
import textwrap

import numpy as np
import seqio

Row = Mapping[str, np.ndarray]
# Text in pieces, each with the name of its style; a token is one piece.
Styled = list[tuple[str, str]]
Paint = Callable[[str, str], str]

COLUMNS = 80
SIGNS = {
  '=': 'attended in both directions, no loss',
  '#': 'causal, with loss',
  '.': 'causal, no loss',
  '!': 'LOSS WHERE NONE SHOULD BE: on inputs or padding',
  ' ': 'padding',
}
# SGR codes; text of any other style is printed plain.
_COLOURS = {
  'head': '1',
  'mark': '1;35',
  'span': '33',
  '=': '36',
  '.': '2',
  '!': '1;31',
}
_WRAPPER = textwrap.TextWrapper(
  width=COLUMNS - 6,
  drop_whitespace=False,
  replace_whitespace=False,
  expand_tabs=False,
  break_on_hyphens=False,
)


def plain(text: str, style: str) -> str:
  """Returns the text without colour."""
  del style
  return text


def colour(text: str, style: str) -> str:
  """Returns the text with the terminal's codes for its style."""
  return f'\33[{_COLOURS[style]}m{text}\33[0m' if style in _COLOURS else text


# --- From tokens to text ------------------------------------------------------


def escape(text: str) -> str:
  """Escapes characters that are neither printable nor a line break."""
  return ''.join(
    c if c == '\n' or c.isprintable() else c.encode('unicode_escape').decode()
    for c in text
  )


def _token(token: int, vocabulary: seqio.Vocabulary) -> bytes | str:
  """The bytes that a token of text stands for, or a name for another token."""
  size = vocabulary.vocab_size
  if not 0 <= token < size:
    return f'<no such id: {token}>'
  names = {
    vocabulary.unk_id: '<unk>',
    vocabulary.pad_id: '<pad>',
    vocabulary.eos_id: '</s>',
  }
  if token in names:
    return names[token]
  if token >= size - vocabulary.extra_ids:
    return f'<extra_id_{size - 1 - token}>'
  if isinstance(vocabulary, seqio.SentencePieceVocabulary):
    piece = vocabulary.tokenizer.id_to_piece(token)
    if vocabulary.tokenizer.is_control(token):
      return piece
    if vocabulary.tokenizer.is_byte(token):
      return bytes([int(piece[1:-1], 16)])  # '<0xE2>'
    return piece.replace('▁', ' ').encode()
  if isinstance(vocabulary, seqio.ByteVocabulary):
    return bytes([token - 3])
  # How other vocabularies join their tokens is unknown; PassThroughVocabulary
  # has no text.
  text = vocabulary.decode([token])
  text = text if isinstance(text, str) else str(token)
  return f'{text} '.encode(errors='backslashreplace')


def show(
  ids: Sequence[int], vocabulary: seqio.Vocabulary, style: str
) -> Styled:
  """Decodes token by token, so that each keeps its spaces and its place.

  Args:
    ids: tokens.
    vocabulary: their vocabulary.
    style: of text; other tokens (sentinels, EOS) have the style 'mark'.

  Returns:
    One printable piece for each token. A character that several tokens spell is
    in the piece of the last one.
  """
  utf8 = codecs.getincrementaldecoder('utf-8')('backslashreplace')
  shown = []

  def end_text():
    rest = utf8.decode(b'', final=True)
    if rest:
      shown[-1] = (shown[-1][0] + rest, style)

  for token in ids:
    found = _token(int(token), vocabulary)
    if isinstance(found, bytes):
      shown.append((escape(utf8.decode(found)), style))
    else:
      end_text()
      shown.append((escape(found), 'mark'))
  end_text()
  return shown


def restore(
  inputs: Sequence[int], targets: Sequence[int], sentinels: range
) -> list[tuple[list[int], bool]] | None:
  """Undoes span corruption.

  Args:
    inputs: a sentinel in place of each span. One that the targets lack (they
      were cut, or it is a mode token) remains.
    targets: each sentinel, followed by its span.
    sentinels: the ids that are sentinels.

  Returns:
    [(tokens, whether they were a span), ...], the original if joined; None if
    the sentinels of the two sides differ or repeat.
  """
  right = [t for t in targets if t in sentinels]
  left = [t for t in inputs if t in right]
  if (
    not left
    or left != right[: len(left)]
    or targets[0] != right[0]
    or len(right) > len(set(right))
  ):
    return None
  starts = [i for i, t in enumerate(targets) if t in sentinels]
  spans = {
    targets[a]: list(targets[a + 1 : b])
    for a, b in itertools.pairwise([*starts, len(targets)])
  }
  pieces = []
  for is_span, tokens in itertools.groupby(inputs, lambda t: t in spans):
    if is_span:
      pieces += [(spans[token], True) for token in tokens]
    else:
      pieces.append((list(tokens), False))
  return pieces


# --- From a model's features to lines -----------------------------------------


def signs(row: Row) -> str:
  """Classifies each position of a converted example by a sign of `SIGNS`.

  Args:
    row: the features of `FixedWidthFeatureConverter`, each [T].

  Returns:
    T characters. Whether a token is attended to in both directions is decided
    where the model reads it, one position after it is predicted.
  """
  segments = _segments(row)
  attention = row['decoder_causal_attention'] > 0
  loss = row['decoder_loss_weights'] > 0
  is_read = np.append(segments[1:] == segments[:-1], False)
  # The last token of all is never read; an input is one that bears no loss.
  both = np.where(is_read, np.append(attention[1:], False), attention & ~loss)
  padding = segments == 0
  return ''.join(
    np.select(
      [(both | padding) & loss, padding, both, loss], ['!', ' ', '=', '#'], '.'
    )
  )


def _segments(row: Row) -> np.ndarray:
  """[T] numbers of the positions' examples, from 1; 0 is padding."""
  tokens = row['decoder_target_tokens']
  length = max(np.flatnonzero(tokens), default=-1) + 1
  return row.get('decoder_segment_ids', np.arange(len(tokens)) < length)


def strip(marks: str, columns: int = COLUMNS - 2) -> str:
  """Draws signs in a limited number of columns.

  Args:
    marks: the result of `signs`.
    columns: their largest number, at least 1.

  Returns:
    The strip between bars. A column shows its most frequent sign, or '!' if it
    has one.
  """
  columns = min(columns, len(marks))
  edges = [len(marks) * i // columns for i in range(columns + 1)]
  parts = [marks[a:b] for a, b in itertools.pairwise(edges)]
  most = lambda part: '!' if '!' in part else max(SIGNS, key=part.count)
  return f'|{"".join(map(most, parts))}|'


def _wrap(shown: Styled, sign: str, paint: Paint) -> Iterator[str]:
  text = ''.join(t for t, _ in shown)
  styles = [style for t, style in shown for _ in t]
  start = 0
  for line in text.split('\n'):
    for number, part in enumerate(_WRAPPER.wrap(line) or ['']):
      runs = itertools.groupby(
        zip(part, styles[start : start + len(part)], strict=True),
        operator.itemgetter(1),
      )
      painted = [paint(''.join(c for c, _ in run), s) for s, run in runs]
      yield f'  {sign} {" " if number else "|"} {"".join(painted)}'
      start += len(part)
    start += 1  # the line break


def text_lines(
  shown: Styled, limit: int, sign: str, paint: Paint, unit: str = 'tokens'
) -> Iterator[str]:
  """Yields lines of text with a margin; long text is cut in the middle."""
  if len(shown) <= limit:
    yield from _wrap(shown, sign, paint)
    return
  head, tail = limit - limit // 2, len(shown) - limit // 2
  note = paint(f'... {tail - head:,} {unit} left out ...', 'mark')
  yield from _wrap(shown[:head], sign, paint)
  yield f'  {sign}   {note}'
  yield from _wrap(shown[tail:], sign, paint)


def _original(
  inputs: list[int],
  targets: list[int],
  vocabulary: seqio.Vocabulary,
  limit: int,
  paint: Paint,
) -> Iterator[str]:
  """The original of span corruption, its spans in brackets."""
  size = vocabulary.vocab_size
  sentinels = range(size - vocabulary.extra_ids, size)
  if not inputs or not targets or targets[0] not in sentinels:
    return
  if inputs[-1] == targets[-1] == vocabulary.eos_id:
    targets = targets[:-1]  # It closes the targets and is in no span.
  if inputs[0] in sentinels and inputs[0] not in targets:
    inputs = inputs[1:]  # UL2's mode token.
  pieces = restore(inputs, targets, sentinels)
  if pieces is None:
    text = (
      'original: CANNOT BE RESTORED, inputs and targets differ in sentinels'
    )
    yield paint(text, '!')
    return
  shown = [show(ids, vocabulary, 'span' if x else '') for ids, x in pieces]
  text = {c for piece in shown for t, _ in piece for c in t}
  # Brackets that are not in the text, if possible.
  pairs = ('[]', '\xab\xbb', '\u27e6\u27e7')
  opening, closing = next((p for p in pairs if not set(p) & text), pairs[0])
  spans = [len(ids) for ids, is_span in pieces if is_span]
  total = sum(len(ids) for ids, _ in pieces)
  yield paint(
    f'original: {total:,} tokens, {sum(spans):,} of them in {len(spans):,} '
    f'corrupted spans, in {opening}{closing} here',
    'head',
  )
  joined = []
  for piece, (_, is_span) in zip(shown, pieces, strict=True):
    if is_span:
      piece = piece or [('', 'span')]
      piece[0] = (opening + piece[0][0], piece[0][1])
      piece[-1] = (piece[-1][0] + closing, piece[-1][1])
    joined += piece
  yield from text_lines(joined, limit, ' ', paint)


def row_lines(
  row: Row, vocabulary: seqio.Vocabulary, max_tokens: int, paint: Paint = plain
) -> Iterator[str]:
  """Draws one converted example, or several that are packed in one.

  Args:
    row: the features of `FixedWidthFeatureConverter`, each [T].
    vocabulary: of the tokens.
    max_tokens: the number to show of each region.
    paint: (text, style) -> text, with or without colour.

  Yields:
    Lines.
  """
  marks, segments = signs(row), _segments(row)
  tokens = row['decoder_target_tokens'].tolist()
  count = collections.Counter(marks)
  yield (
    f'inputs {count["="]:,}, targets {count["#"] + count["."]:,}, with loss '
    f'{count["#"] + count["!"]:,}, padding {count[" "]:,}, width {len(marks):,}'
  )
  yield strip(marks)
  for segment in range(1, max(segments) + 1):
    places = np.flatnonzero(segments == segment).tolist()
    if 'decoder_segment_ids' in row:
      title = f'packed example {segment}: {len(places):,} tokens'
      yield paint(title, 'head')
    for sign, run in itertools.groupby(places, lambda i: marks[i]):
      ids = [tokens[i] for i in run]
      yield paint(f'{SIGNS[sign]}: {len(ids):,} tokens', 'head')
      yield from text_lines(
        show(ids, vocabulary, sign), max_tokens, sign, paint
      )
    yield from _original(
      [tokens[i] for i in places if marks[i] in '=!'],
      [tokens[i] for i in places if marks[i] in '#.'],
      vocabulary,
      max_tokens,
      paint,
    )
