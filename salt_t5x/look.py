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


"""Shows examples of a seqio task or mixture as the model will see them.

    python -m salt_t5x.look --task=NAME --module_import=my.tasks \
      --sequence_length=1280

prints a few examples, in the order of the split, after
`FixedWidthFeatureConverter`: which tokens are attended to in both directions,
which bear loss, how much of the width is used, and the text itself. A margin
tells the regions of the text apart, by the signs of the strip above it; in it a
bar stands before a line of the text, and none before one that was wrapped. Of
span corruption the original is shown, too. Text that is no token (a task of
documents) is printed as it is.

Nothing of the data reaches the terminal but printable characters and line
breaks: all others are written as Python would escape them, and so are bytes
that make no character.
"""

import argparse
import codecs
import collections
from collections.abc import Callable, Iterator, Mapping, Sequence
import difflib
import importlib
import itertools
import operator
import signal
import sys
import textwrap
from typing import Any

from absl import app
from absl.flags import argparse_flags
import numpy as np
import seqio
import tensorflow as tf

from salt_t5x import feature_converters, preprocessors

Row = Mapping[str, np.ndarray]
# Text in pieces, each with the name of its style; a token is one piece.
Styled = list[tuple[str, str]]
Paint = Callable[[str, str], str]

_COLUMNS = 80
_SIGNS = {
  '=': 'attended in both directions, no loss',
  '#': 'causal, with loss',
  '.': 'causal, no loss',
  '!': 'LOSS WHERE NONE SHOULD BE: on inputs or padding',
  ' ': 'padding',
}
# SGR codes; a style that is not here is printed as it is.
_COLOURS = {
  'head': '1',
  'mark': '1;35',
  'span': '33',
  '=': '36',
  '.': '2',
  '!': '1;31',
}
_CACHE_HINT = (
  'Build the cache with seqio_cache_tasks, name its folder in '
  '--seqio_additional_cache_dirs, and give --use_cached.'
)
_WRAPPER = textwrap.TextWrapper(
  width=_COLUMNS - 6,
  drop_whitespace=False,
  replace_whitespace=False,
  expand_tabs=False,
  break_on_hyphens=False,
)


def plain(text: str, style: str) -> str:
  del style
  return text


def colour(text: str, style: str) -> str:
  return f'\33[{_COLOURS[style]}m{text}\33[0m' if style in _COLOURS else text


# --- From tokens to text ------------------------------------------------------


def escape(text: str) -> str:
  """Escapes all that is neither printable nor a line break."""
  return ''.join(
    c if c == '\n' or c.isprintable() else c.encode('unicode_escape').decode()
    for c in text
  )


def _token(token: int, vocabulary: seqio.Vocabulary) -> bytes | str:
  """The bytes that a token of text stands for, or a mark for another token."""
  size = vocabulary.vocab_size
  if not 0 <= token < size:
    return f'<no such id: {token}>'
  for name, special in (
    ('</s>', vocabulary.eos_id),
    ('<pad>', vocabulary.pad_id),
    ('<unk>', vocabulary.unk_id),
  ):
    if token == special:
      return name
  if isinstance(vocabulary, seqio.SentencePieceVocabulary):
    piece = vocabulary.tokenizer.id_to_piece(token)
    if token >= size - vocabulary.extra_ids:
      return piece.removeprefix('▁')
    if vocabulary.tokenizer.is_control(token):
      return piece
    if vocabulary.tokenizer.is_byte(token):
      return bytes([int(piece[1:-1], 16)])  # '<0xE2>'
    return piece.replace('▁', ' ').encode()
  if token >= size - vocabulary.extra_ids:
    return f'<extra_id_{size - 1 - token}>'
  if isinstance(vocabulary, seqio.ByteVocabulary):
    return bytes([token - 3])
  text = vocabulary.decode([token])
  if not isinstance(text, str):  # PassThroughVocabulary has no text.
    text = str(token)
  # What joins its tokens is the vocabulary's secret.
  return f'{text} '.encode(errors='backslashreplace')


def show(
  ids: Sequence[int], vocabulary: seqio.Vocabulary, style: str
) -> Styled:
  """Decodes token by token, so that each keeps its spaces and its place.

  A character that several tokens spell comes with the last of them.

  Args:
    ids: tokens.
    vocabulary: their vocabulary.
    style: of what is text; other tokens (sentinels, EOS) have the style 'mark'.

  Returns:
    One printable piece for each token.
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
      were cut, or it stands for something else) stays as it is.
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
  spans = collections.defaultdict(list)
  for token in targets:
    if token in sentinels:
      span = spans[token]
    else:
      span.append(token)
  pieces = []
  for is_span, tokens in itertools.groupby(inputs, lambda t: t in spans):
    if is_span:
      pieces += [(spans[token], True) for token in tokens]
    else:
      pieces.append((list(tokens), False))
  return pieces


# --- From a model's features to lines -----------------------------------------


def signs(row: Row) -> str:
  """What each position of a converted example is, as a sign of `_SIGNS`.

  Args:
    row: the features of `FixedWidthFeatureConverter`, each [T].

  Returns:
    T characters. A token counts as attended to in both directions by where the
    model reads it, one position after the one where it would predict it.
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
  """[T] the number of each position's example, from 1; 0 is padding."""
  tokens = row['decoder_target_tokens']
  length = max(np.flatnonzero(tokens), default=-1) + 1
  return row.get('decoder_segment_ids', np.arange(len(tokens)) < length)


def strip(marks: str, columns: int = _COLUMNS - 2) -> str:
  """Draws signs in at most that many columns, all equally wide but for one.

  A column shows its most frequent sign, but a '!' is always seen.

  Args:
    marks: of `signs`.
    columns: at least 1.

  Returns:
    The strip between bars.
  """
  columns = min(columns, len(marks))
  edges = [len(marks) * i // columns for i in range(columns + 1)]
  parts = [marks[a:b] for a, b in itertools.pairwise(edges)]
  most = lambda part: '!' if '!' in part else max(_SIGNS, key=part.count)
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
  """Lines of text with a margin; what is long is shortened in the middle."""
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
  """What span corruption read, its spans in brackets; else nothing."""
  size = vocabulary.vocab_size
  sentinels = range(size - vocabulary.extra_ids, size)
  if not inputs or not targets or targets[0] not in sentinels:
    return
  if inputs[-1] == targets[-1] == vocabulary.eos_id:
    targets = targets[:-1]  # It closes the targets, and is of no span.
  if inputs[0] in sentinels and inputs[0] not in targets:
    inputs = inputs[1:]  # UL2's mode token.
  pieces = restore(inputs, targets, sentinels)
  if pieces is None:
    text = (
      'original: CANNOT BE RESTORED, inputs and targets differ in sentinels'
    )
    yield paint(text, '!')
    return
  shown = [
    (show(ids, vocabulary, 'span' if is_span else ''), is_span)
    for ids, is_span in pieces
  ]
  text = ''.join(t for piece, _ in shown for t, _ in piece)
  # Brackets that are not in the text, if there are such.
  pairs = ('[]', '\xab\xbb', '\u27e6\u27e7')
  opening, closing = next(
    (p for p in pairs if not set(p) & set(text)), pairs[0]
  )
  spans = [len(ids) for ids, is_span in pieces if is_span]
  total = sum(len(ids) for ids, _ in pieces)
  yield paint(
    f'original: {total:,} tokens, {sum(spans):,} of them in {len(spans):,} '
    f'corrupted spans, in {opening}{closing} here',
    'head',
  )
  joined = []
  for piece, is_span in shown:
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
    max_tokens: to show of each region.
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
      yield paint(f'{_SIGNS[sign]}: {len(ids):,} tokens', 'head')
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


def fields(
  example: Mapping[str, Any], without: Sequence[str]
) -> dict[str, str]:
  """The features of a task's example as text, but for some; not escaped."""
  result = {}
  for name in sorted(set(example) - set(without)):
    value = example[name]
    if name == 'denoiser' and 0 <= value < len(preprocessors.DENOISERS):
      value = preprocessors.DENOISERS[value]
    elif isinstance(value, bytes):
      value = value.decode(errors='backslashreplace')
    result[name] = str(value)
  return result


def table(groups: Sequence[str], rows: Sequence[Row]) -> list[str]:
  """Counts by group (the denoiser, say): means in tokens, shares of T."""
  lines = [
    f'{"":20}{"examples":>10}{"share":>8}{"inputs":>10}{"targets":>10}'
    f'{"loss":>8}{"padding":>9}'
  ]
  counts = [collections.Counter(signs(row)) for row in rows]
  names = sorted(set(groups))
  for name in [*names, 'all'] if len(names) > 1 else names:
    mine = [
      c for c, g in zip(counts, groups, strict=True) if name in (g, 'all')
    ]
    mean = lambda of, mine=mine: sum(c[s] for c in mine for s in of) / len(mine)
    width = mean(_SIGNS)
    lines.append(
      f'{name[:19]:20}{len(mine):10,}{len(mine) / len(rows):8.1%}'
      f'{mean("="):10,.1f}{mean("#."):10,.1f}{mean("#!") / width:8.1%}'
      f'{mean(" ") / width:9.1%}'
    )
  return lines


# --- From a task to examples --------------------------------------------------


def find(name: str, modules: Sequence[str]) -> seqio.Task | seqio.Mixture:
  """Imports modules and finds a task or mixture; leaves with a hint if not."""
  for module in modules:
    try:
      importlib.import_module(module)
    except ModuleNotFoundError as error:
      if not f'{module}.'.startswith(f'{error.name}.'):
        raise  # The module is there; what it imports is not.
      sys.exit(
        f'--module_import={module}: {error}. Give the name as in an import '
        'statement; its folder must be the working directory or on PYTHONPATH.'
      )
  names = {*seqio.TaskRegistry.names(), *seqio.MixtureRegistry.names()}
  if name in names:
    return seqio.get_mixture_or_task(name)
  near = difflib.get_close_matches(name, names, n=5, cutoff=0.4)
  sys.exit(
    f'--task={name}: not among the {len(names)} tasks and mixtures that are '
    f'registered. Near names: {", ".join(near) or "none"}. The module that '
    'defines a task registers it: name that in --module_import.'
  )


def read(
  provider: seqio.Task | seqio.Mixture,
  sequence_length: int | None,
  split: str,
  use_cached: bool,
) -> tf.data.Dataset:
  """The examples of a task, untrimmed, with all features that it has."""
  if split not in provider.splits:
    sys.exit(f'--split={split}: there are {", ".join(provider.splits)}.')
  options = dict(
    sequence_length=sequence_length
    and {'inputs': sequence_length, 'targets': sequence_length},
    split=split,
    use_cached=use_cached,
    shuffle=False,
    seed=0,
    num_epochs=1,
    trim_output_features=False,
    try_in_mem_cache=False,
  )
  try:
    if isinstance(provider, seqio.Task):
      return provider.get_dataset(**options)
    # A mixture drops all but its output features unless told of others; told
    # of are those that are alike in all its tasks.
    specs = [
      task.get_dataset(**options).element_spec
      for task in provider.tasks
      if split in task.splits
    ]
    alike = [k for k in specs[0] if all(s.get(k) == specs[0][k] for s in specs)]
    return provider.get_dataset(
      **options, passthrough_features=alike, log_mixing_proportions=False
    )
  except (AssertionError, FileNotFoundError, ValueError) as error:
    if 'cach' not in str(error):
      raise
    # `global_order` says by itself how to make the cache that is not there.
    is_told = isinstance(error, FileNotFoundError)
    sys.exit(str(error) if is_told else f'{error} {_CACHE_HINT}')


def _token_features(spec: Mapping[str, tf.TensorSpec]) -> list[str]:
  return [
    name
    for name in ('inputs', 'targets')
    if name in spec and spec[name].dtype.is_integer
  ]


def convert(
  dataset: tf.data.Dataset, sequence_length: int, pack: bool = False
) -> tf.data.Dataset:
  """Gives a task's examples the model's features; inputs may be missing."""
  names = _token_features(dataset.element_spec)

  def trim(example):
    tokens = {name: example[name][:sequence_length] for name in names}
    return {'inputs': tokens['targets'][:0], **tokens}

  converter = feature_converters.FixedWidthFeatureConverter(pack=pack)
  lengths = {'inputs': sequence_length, 'targets': sequence_length}
  return converter(dataset.map(trim), lengths)


def look(
  provider: seqio.Task | seqio.Mixture,
  sequence_length: int | None,
  split: str = 'train',
  examples: int = 4,
  skip: int = 0,
  use_cached: bool = False,
  pack: bool = False,
  max_tokens: int = 120,
  statistics: int = 0,
  paint: Paint = plain,
) -> Iterator[str]:
  """Yields the lines that the command prints; its flags explain the rest."""
  feature = provider.output_features.get('targets')
  has_tokens = feature is not None and feature.dtype.is_integer
  if has_tokens and not sequence_length:
    sys.exit('This task has tokens: give their number, --sequence_length=T.')
  if pack and not has_tokens:
    sys.exit('--pack: this task has no tokens to pack.')
  dataset = read(provider, sequence_length, split, use_cached)
  if pack:
    dataset = convert(dataset, sequence_length, pack=True)
  spec = dataset.element_spec
  tokens = _token_features(spec) if has_tokens else []
  dataset = dataset.skip(skip).take(max(examples, statistics))
  found = list(dataset.as_numpy_iterator())
  if not found:
    sys.exit(f'{split} has no example after the first {skip:,}.')
  rows = [None] * len(found)
  if pack:
    # What a task's examples had besides tokens is lost in packing.
    rows, found = found, [{}] * len(found)
  elif has_tokens:
    # From what was read: a second reading could draw other random numbers.
    again = tf.data.Dataset.from_generator(
      lambda: ({name: e[name] for name in tokens} for e in found),
      output_signature={name: spec[name] for name in tokens},
    )
    rows = list(convert(again, sequence_length).as_numpy_iterator())

  if has_tokens:
    yield 'In the strips and margins:'
    yield from (paint(f'  {s}  {meaning}', s) for s, meaning in _SIGNS.items())
  features = [fields(example, without=tokens) for example in found]
  for i in range(min(examples, len(found))):
    yield '-' * _COLUMNS
    is_short = lambda text: len(text) < 40 and '\n' not in text
    short = [f', {k} {v}' for k, v in features[i].items() if is_short(v)]
    title = f'{"row" if pack else "example"} {skip + i}{"".join(short)}'
    yield paint(escape(title), 'head')
    if has_tokens:
      too_many = sum(len(found[i].get(name, ())) for name in tokens)
      too_many -= sequence_length
      if too_many > 0:
        yield paint(f'CUT OFF: {too_many:,} tokens', '!')
      yield from row_lines(rows[i], feature.vocabulary, max_tokens, paint)
    for name, text in features[i].items():
      if not is_short(text):
        title = f'{escape(name)}: {len(text):,} characters'
        yield paint(title, 'head')
        letters = [(escape(letter), '') for letter in text]
        yield from text_lines(
          letters, 5 * max_tokens, ' ', paint, unit='characters'
        )
  if has_tokens:
    yield '-' * _COLUMNS
    yield from table([f.get('denoiser', 'all') for f in features], rows)


def parse_flags(argv: Sequence[str]) -> argparse.Namespace:
  # Not absl's own flags: those are global, and the tasks' modules may define
  # some of the same names.
  parser = argparse_flags.ArgumentParser(
    prog='python -m salt_t5x.look',
    description='Shows examples of a task as the model will see them.',
  )
  add = parser.add_argument
  add('--task', required=True, help='a registered task or mixture')
  add(
    '--module_import',
    action='append',
    default=[],
    help='a module that registers tasks; may be given several times',
  )
  add('--sequence_length', type=int, help='T; a task without tokens needs none')
  add('--split', default='train')
  add('--examples', type=int, default=4, help='how many to print')
  add('--skip', type=int, default=0, help='how many to leave out before')
  add(
    '--use_cached', action='store_true', help="read seqio's cache of the task"
  )
  add(
    '--seqio_additional_cache_dirs',
    type=lambda text: text.split(','),
    default=[],
    help='where cached tasks are looked for, separated by commas',
  )
  add('--pack', action='store_true', help='pack short examples together')
  add(
    '--max_tokens', type=int, default=120, help='shown of each region of text'
  )
  add(
    '--statistics',
    type=int,
    default=0,
    help='how many examples the table at the end counts, if more than printed',
  )
  return parser.parse_args(argv[1:])


def main(args: argparse.Namespace) -> None:
  # The accelerator may be another process's, a run's say.
  tf.config.set_visible_devices([], 'GPU')
  # Whoever reads may stop, as `head` and `less` do.
  signal.signal(signal.SIGPIPE, signal.SIG_DFL)
  sys.stdout.reconfigure(errors='backslashreplace')
  options = vars(args)
  provider = find(options.pop('task'), options.pop('module_import'))
  seqio.add_global_cache_dirs(options.pop('seqio_additional_cache_dirs'))
  paint = colour if sys.stdout.isatty() else plain
  for line in look(provider, **options, paint=paint):
    print(line)


if __name__ == '__main__':
  app.run(main, flags_parser=parse_flags)
