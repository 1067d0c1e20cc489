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

The command is `salt_t5x.look`; `render` renders a single example.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import seqio
import tensorflow as tf

from salt_t5x.data import (
  bad_lines,
  feature_converters,
  ordered_tasks,
  render,
  ul2,
  vocabularies,
)


class FlagError(ValueError):
  """A flag of `salt_t5x.look` does not suit the task."""


def convert(
  example: Mapping[str, np.ndarray], sequence_length: int
) -> dict[str, np.ndarray]:
  """Returns the model's features of an example, each [T].

  Args:
    example: 'targets' and, unless it has none, 'inputs', int [N].
    sequence_length: T.
  """
  dataset = tf.data.Dataset.from_tensors(
    {name: tokens[:sequence_length] for name, tokens in example.items()}
  )
  converter = feature_converters.FixedWidthFeatureConverter(pack=False)
  [row] = converter(dataset, {'targets': sequence_length}).as_numpy_iterator()
  return row


def _text(name: str, value: Any) -> str:
  """A feature that is no token, as printable text."""
  if name == 'denoiser' and 0 <= value < len(ul2.DENOISERS):
    value = ul2.DENOISERS[value]
  elif isinstance(value, bytes):
    value = value.decode(errors='backslashreplace')
  return render.escape(str(value))


def show(
  provider: seqio.Task | seqio.Mixture,
  sequence_length: int | None,
  split: str = 'train',
  examples: int = 4,
  skip: int = 0,
  position: int | None = None,
  use_cached: bool = False,
  max_tokens: int = 120,
) -> Iterator[str]:
  """Shows examples as `salt_t5x.look` does; its flags explain the arguments.

  A position is that of the global order, over all epochs.

  Yields:
    Lines for a terminal.

  Raises:
    DamagedShardError: a file of text cannot be read.
    FlagError: a value that the task does not allow.
    VocabularyError: the task's vocabulary cannot be read.
  """
  if split not in provider.splits:
    splits = ', '.join(provider.splits)
    raise FlagError(f'--split={split}: set one of {splits}.')
  tokens = [
    name
    for name in ('inputs', 'targets')
    if name in provider.output_features
    and provider.output_features[name].dtype.is_integer
  ]
  if tokens and not sequence_length:
    raise FlagError(
      'The task has tokens: set their number T with --sequence_length.'
    )
  for name in tokens:
    vocabularies.fingerprint(
      provider.output_features[name].vocabulary,
      f'--task={provider.name}: the vocabulary of its feature {name!r}',
    )
  if position is not None:
    if not isinstance(provider, ordered_tasks.OrderedTask):
      raise FlagError(
        f'--task={provider.name} has no global order, in which examples have '
        'positions. Name a task such as those of text_tasks.register, or '
        'leave out --position, --step and --model_dir.'
      )
    skip += position
    provider = provider.reading(provider.source, skip)
  try:
    dataset = provider.get_dataset(
      sequence_length
      and {'inputs': sequence_length, 'targets': sequence_length},
      split=split,
      use_cached=use_cached,
      shuffle=False,
      seed=0,
      num_epochs=1 if position is None else None,
      trim_output_features=False,
      try_in_mem_cache=False,
    )
  except (AssertionError, FileNotFoundError, ValueError) as e:
    if isinstance(e, bad_lines.DamagedShardError) or 'cache' not in str(e):
      raise
    remedy = (
      ' Cache the task with seqio_cache_tasks, and set --use_cached and '
      '--seqio_additional_cache_dirs.'
    )
    # Other errors than seqio's name their own remedy.
    is_bare = isinstance(e, AssertionError) or 'requires caching' in str(e)
    raise FlagError(f'{e}{remedy * is_bare}') from e
  with bad_lines.unwrapped():
    if position is None:
      dataset = dataset.skip(skip)
    found = list(dataset.take(examples).as_numpy_iterator())
  if not found:
    raise FlagError(
      f'--split={split} has no example after the first {skip:,} (--skip).'
    )
  if tokens:
    yield 'In the strips and margins:'
    yield from (f'  {sign}  {text}' for sign, text in render.SIGNS.items())
  limit = 5 * max_tokens  # characters
  for number, example in enumerate(found, skip):
    yield '-' * render.COLUMNS
    texts = {
      name: _text(name, example[name])
      for name in sorted({*example} - {*tokens, vocabularies.FINGERPRINT})
    }
    long = {k: v for k, v in texts.items() if len(v) >= 40 or '\n' in v}
    short = [f', {k} {v}' for k, v in texts.items() if k not in long]
    what = 'example' if position is None else 'position'
    yield f'{what} {number:,}{"".join(short)}'
    if tokens:
      size = sum(len(example[name]) for name in tokens)
      if size > sequence_length:
        yield f'CUT OFF: {size - sequence_length:,} tokens'
      row = convert({name: example[name] for name in tokens}, sequence_length)
      vocabulary = provider.output_features['targets'].vocabulary
      yield from render.row_lines(row, vocabulary, limit)
    for name, text in long.items():
      yield f'{name}: {len(text):,} characters'
      yield from render.text_lines(text, limit)
