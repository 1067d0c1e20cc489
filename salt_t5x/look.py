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
import collections
from collections.abc import Iterator, Mapping, Sequence
import signal
import sys
from typing import Any

from absl import app, flags
import seqio
import tensorflow as tf

from salt_t5x import command
from salt_t5x.data import feature_converters, render, ul2

_CACHE_HINT = (
  'Build the cache with seqio_cache_tasks, name its folder in '
  '--seqio_additional_cache_dirs, and give --use_cached.'
)


def fields(
  example: Mapping[str, Any], without: Sequence[str]
) -> dict[str, str]:
  """The features of a task's example as text, but for some; not escaped."""
  result = {}
  for name in sorted(set(example) - set(without)):
    value = example[name]
    if name == 'denoiser' and 0 <= value < len(ul2.DENOISERS):
      value = ul2.DENOISERS[value]
    elif isinstance(value, bytes):
      value = value.decode(errors='backslashreplace')
    result[name] = str(value)
  return result


def table(groups: Sequence[str], rows: Sequence[render.Row]) -> list[str]:
  """Counts by group (the denoiser, say): means in tokens, shares of T."""
  lines = [
    f'{"":20}{"examples":>10}{"share":>8}{"inputs":>10}{"targets":>10}'
    f'{"loss":>8}{"padding":>9}'
  ]
  counts = [collections.Counter(render.signs(row)) for row in rows]
  names = sorted(set(groups))
  for name in [*names, 'all'] if len(names) > 1 else names:
    mine = [
      c for c, g in zip(counts, groups, strict=True) if name in (g, 'all')
    ]
    mean = lambda of, mine=mine: sum(c[s] for c in mine for s in of) / len(mine)
    width = mean(render.SIGNS)
    lines.append(
      f'{name[:19]:20}{len(mine):10,}{len(mine) / len(rows):8.1%}'
      f'{mean("="):10,.1f}{mean("#."):10,.1f}{mean("#!") / width:8.1%}'
      f'{mean(" ") / width:9.1%}'
    )
  return lines


# --- From a task to examples --------------------------------------------------


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
  paint: render.Paint = render.plain,
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
    yield from (
      paint(f'  {s}  {meaning}', s) for s, meaning in render.SIGNS.items()
    )
  features = [fields(example, without=tokens) for example in found]
  for i in range(min(examples, len(found))):
    yield '-' * render.COLUMNS
    is_short = lambda text: len(text) < 40 and '\n' not in text
    short = [f', {k} {v}' for k, v in features[i].items() if is_short(v)]
    title = f'{"row" if pack else "example"} {skip + i}{"".join(short)}'
    yield paint(render.escape(title), 'head')
    if has_tokens:
      too_many = sum(len(found[i].get(name, ())) for name in tokens)
      too_many -= sequence_length
      if too_many > 0:
        yield paint(f'CUT OFF: {too_many:,} tokens', '!')
      yield from render.row_lines(
        rows[i], feature.vocabulary, max_tokens, paint
      )
    for name, text in features[i].items():
      if not is_short(text):
        title = f'{render.escape(name)}: {len(text):,} characters'
        yield paint(title, 'head')
        letters = [(render.escape(letter), '') for letter in text]
        yield from render.text_lines(
          letters, 5 * max_tokens, ' ', paint, unit='characters'
        )
  if has_tokens:
    yield '-' * render.COLUMNS
    yield from table([f.get('denoiser', 'all') for f in features], rows)


def parse_flags(argv: Sequence[str]) -> argparse.Namespace:
  # Apart from absl's own flags, which are global: the tasks' modules may define
  # some of the same names.
  flags.FLAGS(argv[:1])
  parser = argparse.ArgumentParser(
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
  args = parser.parse_args(argv[1:])
  for name, minimum in (
    ('sequence_length', 1),
    ('examples', 0),
    ('skip', 0),
    ('max_tokens', 1),
    ('statistics', 0),
  ):
    value = getattr(args, name)
    if value is not None and value < minimum:
      parser.error(f'--{name}={value}: must be at least {minimum}.')
  if not max(args.examples, args.statistics):
    parser.error('--examples=0 and --statistics=0: there is nothing to show.')
  return args


def main(args: argparse.Namespace) -> None:
  # The accelerator may be another process's, a run's say.
  tf.config.set_visible_devices([], 'GPU')
  # Whoever reads may stop, as `head` and `less` do.
  signal.signal(signal.SIGPIPE, signal.SIG_DFL)
  sys.stdout.reconfigure(errors='backslashreplace')
  options = vars(args)
  provider = command.find_task(
    options.pop('task'), options.pop('module_import')
  )
  seqio.add_global_cache_dirs(options.pop('seqio_additional_cache_dirs'))
  paint = render.colour if sys.stdout.isatty() else render.plain
  for line in look(provider, **options, paint=paint):
    print(line)


if __name__ == '__main__':
  app.run(main, flags_parser=parse_flags)
