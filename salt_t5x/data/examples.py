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

"""Reads examples of a seqio task and shows them as the model will see them.

The command is `salt_t5x.look`; `render` draws a single example.
"""

import collections
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import seqio
import tensorflow as tf

from salt_t5x.data import feature_converters, render, ul2

_CACHE_HINT = (
  'Build the cache with seqio_cache_tasks, name its folder in '
  '--seqio_additional_cache_dirs, and give --use_cached.'
)


class OptionError(ValueError):
  """An option of `show` that the task does not allow."""


def fields(
  example: Mapping[str, Any], without: Sequence[str]
) -> dict[str, str]:
  """Returns the features of an example as text, without some; not escaped."""
  result = {}
  for name in sorted(set(example) - set(without)):
    value = example[name]
    if name == 'denoiser' and 0 <= value < len(ul2.DENOISERS):
      value = ul2.DENOISERS[value]
    elif isinstance(value, bytes):
      value = value.decode(errors='backslashreplace')
    result[name] = str(value)
  return result


def table(groups: Sequence[str], rows: Sequence[render.Row]) -> Iterator[str]:
  """Yields the lines of a table of counts.

  Args:
    groups: the group of each row (the denoiser, say).
    rows: as for `render.signs`.

  Yields:
    A header and a line for each group and for all: mean counts in tokens, loss
    and padding as shares of T.
  """
  yield (
    f'{"":20}{"examples":>10}{"share":>8}{"inputs":>10}{"targets":>10}'
    f'{"loss":>8}{"padding":>9}'
  )
  counts = collections.defaultdict(collections.Counter)
  sizes = collections.Counter()
  for group, row in zip(groups, rows, strict=True):
    for name in {group, 'all'}:
      counts[name].update(render.signs(row))
      sizes[name] += 1
  names = sorted(set(groups))
  for name in [*names, 'all'] if len(names) > 1 else names:
    count, size = counts[name], sizes[name]
    mean = lambda signs, count=count, size=size: (
      sum(count[s] for s in signs) / size
    )
    width = count.total() / size
    yield (
      f'{name[:19]:20}{size:10,}{size / len(rows):8.1%}{mean("="):10,.1f}'
      f'{mean("#."):10,.1f}{mean("#!") / width:8.1%}{mean(" ") / width:9.1%}'
    )


def read(
  provider: seqio.Task | seqio.Mixture,
  sequence_length: int | None,
  split: str,
  use_cached: bool,
) -> tf.data.Dataset:
  """Returns the examples of a task, untrimmed, with all of their features."""
  if split not in provider.splits:
    splits = ', '.join(provider.splits)
    raise OptionError(f'--split={split}: there are {splits}.')
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
    # A mixture drops all but its output features unless told of others, which
    # must be the same in all its tasks.
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
    # `ordered_cache` gives the hint itself.
    hint = '' if isinstance(error, FileNotFoundError) else f' {_CACHE_HINT}'
    raise OptionError(f'{error}{hint}') from error


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
  dataset = dataset.map(
    lambda example: {name: example[name][:sequence_length] for name in names}
  )
  converter = feature_converters.FixedWidthFeatureConverter(pack=pack)
  lengths = {'inputs': sequence_length, 'targets': sequence_length}
  return converter(dataset, lengths)


def show(
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
  """Shows examples as `salt_t5x.look` does; its flags explain the arguments.

  Yields:
    Lines for a terminal.

  Raises:
    OptionError: a value that the task does not allow.
  """
  feature = provider.output_features.get('targets')
  has_tokens = feature is not None and feature.dtype.is_integer
  if has_tokens and not sequence_length:
    raise OptionError(
      '--sequence_length is missing: this task has tokens; give their number.'
    )
  if pack and not has_tokens:
    raise OptionError('--pack: this task has no tokens to pack.')
  dataset = read(provider, sequence_length, split, use_cached)
  if pack:
    dataset = convert(dataset, sequence_length, pack=True)
  spec = dataset.element_spec
  tokens = _token_features(spec) if has_tokens else []
  dataset = dataset.skip(skip).take(max(examples, statistics))
  found = list(dataset.as_numpy_iterator())
  if not found:
    raise OptionError(
      f'--split={split} has no example after the first {skip:,} (--skip).'
    )
  rows = [None] * len(found)
  if pack:
    # Packing drops all features but tokens.
    rows, found = found, [{}] * len(found)
  elif has_tokens:
    # From the examples in memory: reading again could draw other numbers.
    again = tf.data.Dataset.from_generator(
      lambda: ({name: e[name] for name in tokens} for e in found),
      output_signature={name: spec[name] for name in tokens},
    )
    rows = list(convert(again, sequence_length).as_numpy_iterator())

  if has_tokens:
    yield 'In the strips and margins:'
    for sign, meaning in render.SIGNS.items():
      yield paint(f'  {sign}  {meaning}', sign)
  features = [fields(example, without=tokens) for example in found]
  for i, texts in enumerate(features[:examples]):
    yield '-' * render.COLUMNS
    long = {k: v for k, v in texts.items() if len(v) >= 40 or '\n' in v}
    short = [f', {k} {v}' for k, v in texts.items() if k not in long]
    title = f'{"row" if pack else "example"} {skip + i}{"".join(short)}'
    yield paint(render.escape(title), 'head')
    if has_tokens:
      size = sum(len(found[i].get(name, ())) for name in tokens)
      if size > sequence_length:
        yield paint(f'CUT OFF: {size - sequence_length:,} tokens', '!')
      yield from render.row_lines(
        rows[i], feature.vocabulary, max_tokens, paint
      )
    for name, text in long.items():
      title = f'{render.escape(name)}: {len(text):,} characters'
      yield paint(title, 'head')
      letters = [(render.escape(letter), '') for letter in text]
      yield from render.text_lines(
        letters, 5 * max_tokens, ' ', paint, unit='characters'
      )
  if has_tokens:
    yield '-' * render.COLUMNS
    yield from table([f.get('denoiser', 'all') for f in features], rows)
