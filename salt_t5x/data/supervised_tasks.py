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


"""Registers seqio tasks of examples that have inputs and targets (§5.3).

`register('sums', {'train': 'train.jsonl', 'validation': 'validation.jsonl'},
inputs='{question}', targets='{answer}', ...)` makes a task to fine-tune with
(`runs/sft.gin`) and to evaluate by greedy decoding (`generation`). A line of a
file is an example, a JSON object. Inputs are a prefix LM's: attended to as the
model was trained to, and without loss. Targets end with EOS.

A split is held in memory as text. That makes training data with one global
order that is drawn anew each epoch, hangs on the seed and the epoch alone, is
the same for any number of hosts, and is resumed exactly.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
import json
from typing import Any

from absl import logging
import seqio
import tensorflow as tf

from salt_t5x.data import ordered_cache, pile_shards

Example = Mapping[str, Any]
# A JSONL file, or what gives its examples.
Data = str | Callable[[], Iterable[Example]]
# A format string over an example's fields, or a function of an example.
Text = str | Callable[[Example], str]

TRAIN = 'train'

# What tf.data can serialize to look whether its iterators can be saved; past
# 2 GiB it ends the process.
_MAX_BYTES = 1_900_000_000


class _BadExample(Exception):
  """An example that is left out: (kind, reason)."""


class ExampleSource(seqio.DataSource):
  """Examples in memory: 'inputs' and 'targets', tf.string [].

  The split 'train' has another order each epoch, the others have their own.
  """

  def __init__(
    self, files: Mapping[str, Data], inputs: Text, targets: Text, seed: int = 0
  ):
    """Constructor; nothing is read yet.

    Args:
      files: {split: its data}.
      inputs: makes an example's inputs.
      targets: makes its targets.
      seed: of the order.
    """
    self._files = files
    self._texts = {
      name: text.format_map if isinstance(text, str) else text
      for name, text in (('inputs', inputs), ('targets', targets))
    }
    self._seed = seed
    self._tensors: dict[str, dict[str, tf.Tensor]] = {}
    super().__init__(splits=files, caching_permitted=False)

  @property
  def supports_arbitrary_sharding(self) -> bool:
    return True

  def list_shards(self, split: str) -> Sequence[str]:
    return [split]

  def num_input_examples(self, split: str) -> int:
    return len(self._read(split)['targets'])

  def get_dataset(
    self,
    split: str = TRAIN,
    shuffle: bool = False,
    seed: int | None = None,
    shard_info: seqio.ShardInfo | None = None,
    *,
    num_epochs: int | None = 1,
  ) -> tf.data.Dataset:
    """Gives a host's share.

    Args:
      split: one of the splits.
      shuffle: must be False; the training split is shuffled all the same.
      seed: has no effect.
      shard_info: the host and the number of hosts.
      num_epochs: None repeats without end.

    Returns:
      The examples of the host, in order.

    Raises:
      ValueError: shuffling is asked for; or see `_read`.
      FileNotFoundError: there is no such file.
    """
    del seed
    if shuffle:
      raise ValueError(
        'These examples have one order for all hosts, drawn anew each epoch: '
        'set utils.DatasetConfig.shuffle = False.'
      )
    tensors = self._read(split)
    count = len(tensors['targets'])

    def order(epoch):
      places = tf.range(count)
      if split == TRAIN:
        places = tf.random.experimental.stateless_shuffle(
          places, seed=tf.stack([self._seed, epoch])
        )
      return tf.data.Dataset.from_tensor_slices(places)

    epochs = tf.data.Dataset.range(num_epochs or ordered_cache.ENDLESS)
    places = epochs.flat_map(order)
    if shard_info:
      places = places.shard(shard_info.num_shards, shard_info.index)
    return places.map(
      lambda place: {k: tf.gather(v, place) for k, v in tensors.items()},
      num_parallel_calls=tf.data.AUTOTUNE,
    )

  def _read(self, split: str) -> dict[str, tf.Tensor]:
    """Reads a split once: {'inputs', 'targets'}, tf.string [N].

    An example that cannot be used (no JSON object, a field that is missing or
    null, no text) is left out, counted and logged.

    Raises:
      FileNotFoundError: there is no such file.
      jsonl.DamagedShardError: too many such examples, or no other ones.
      ValueError: more text than tf.data can hold.
    """
    if split in self._tensors:
      return self._tensors[split]
    data = self._files[split]
    name = data if isinstance(data, str) else f'{split} split'
    report = pile_shards.Report()
    found: dict[str, list[bytes]] = {'inputs': [], 'targets': []}
    examples = _lines(data) if isinstance(data, str) else data()
    for report.lines, example in enumerate(examples, 1):
      try:
        texts = self._render(example)
      except _BadExample as bad:
        kind, reason = bad.args
        report.add(kind, f'{name}:{report.lines}: {reason}')
        self._check(report)
      else:
        report.documents += 1
        for key, text in texts.items():
          found[key].append(text)
    if not report.documents:
      raise pile_shards.DamagedShardError(f'{name} holds no example: {report}.')
    log = logging.warning if report.counts else logging.info
    log('%s: %s.', name, report)
    size = sum(len(text) for texts in found.values() for text in texts)
    if size > _MAX_BYTES:
      raise ValueError(
        f'{name} has {size:,} bytes of inputs and targets, and {_MAX_BYTES:,} '
        'are the most: leave examples or fields out, or cut their texts.'
      )
    self._tensors[split] = {k: tf.constant(v) for k, v in found.items()}
    return self._tensors[split]

  def _check(self, report: pile_shards.Report) -> None:
    bad = sum(report.counts.values())
    limit = (
      pile_shards.FREE_BAD_LINES + pile_shards.MAX_BAD_SHARE * report.lines
    )
    if bad > limit:
      raise pile_shards.DamagedShardError(
        f'{bad} of the first {report.lines} examples cannot be used, and the '
        f'limit is {limit:.1f} ({report}). Mend the file, or the fields that '
        'the task is registered with.'
      )

  def _render(self, example: bytes | Example) -> dict[str, bytes]:
    """An example's {'inputs', 'targets'}, UTF-8."""
    if isinstance(example, bytes):
      example = _parse(example)
    # A null is no value.
    example = {k: v for k, v in example.items() if v is not None}
    rendered = {}
    for name, render in self._texts.items():
      try:
        text = render(example)
      except KeyError as error:
        raise _BadExample(
          'no such field', f'{error} is not one of {sorted(example)}'
        ) from error
      except (AttributeError, IndexError, TypeError, ValueError) as error:
        raise _BadExample('bad value', f'{name}: {error}') from error
      if not isinstance(text, str):
        raise _BadExample('bad value', f'{name}: {text!r} is no string')
      if not text.strip():
        raise _BadExample(pile_shards.EMPTY, f'no {name}')
      try:
        rendered[name] = text.encode()
      except UnicodeEncodeError as error:
        raise _BadExample(pile_shards.NOT_UTF8, 'lone surrogates') from error
    return rendered


def _lines(path: str) -> Iterator[bytes]:
  """The lines of a file, without blank ones at its end."""
  blank = 0
  try:
    with tf.io.gfile.GFile(path, 'rb') as file:
      for line in file:
        if not line.strip():
          blank += 1
          continue
        yield from [b''] * blank
        blank = 0
        yield line
  except tf.errors.NotFoundError as error:
    raise FileNotFoundError(
      f'There is no {path}: put the split there, one JSON object a line.'
    ) from error
  except tf.errors.OpError as error:
    raise OSError(f'{path} cannot be read: {error.message}') from error


def _parse(line: bytes) -> Example:
  if not line:
    raise _BadExample(pile_shards.EMPTY, 'a blank line')
  try:
    example = json.loads(line.decode())
  except UnicodeDecodeError as error:
    raise _BadExample(pile_shards.NOT_UTF8, str(error)) from error
  except (ValueError, RecursionError) as error:
    raise _BadExample(pile_shards.BAD_JSON, str(error)) from error
  if not isinstance(example, dict):
    raise _BadExample(pile_shards.BAD_JSON, 'not an object')
  return example


def fit(
  dataset: tf.data.Dataset, sequence_length: Mapping[str, int] | None
) -> tf.data.Dataset:
  """Cuts the end of inputs that leave too little room for targets.

  T is the largest of the lengths, as for
  `feature_converters.FixedWidthFeatureConverter`. If 'targets' has a smaller
  one, so many tokens are kept for them in every example, and inputs are the
  same where nothing is known of the targets. Otherwise inputs get what the
  targets of their example leave.

  Args:
    dataset: of {'inputs': int32 [N], 'targets': int32 [M]}, M no more than its
      length.
    sequence_length: {'targets': the most tokens, EOS among them; 'inputs': T}.

  Returns:
    The same, with 'inputs_cut', int32 []: how many tokens were cut.
  """
  if sequence_length is None:
    return dataset
  length = max(sequence_length.values())
  limit = sequence_length['targets']

  def cut(example):
    inputs = example['inputs']
    kept = limit if limit < length else tf.size(example['targets'])
    inputs = inputs[: length - kept]
    lost = tf.size(example['inputs']) - tf.size(inputs)
    return {**example, 'inputs': inputs, 'inputs_cut': lost}

  return dataset.map(cut, num_parallel_calls=tf.data.AUTOTUNE)


def register(
  name: str,
  files: Mapping[str, Data],
  *,
  inputs: Text,
  targets: Text,
  vocabulary: seqio.Vocabulary,
  metric_fns: Sequence[Callable[..., Mapping[str, float]]],
  seed: int = 0,
) -> seqio.Task:
  """Registers a task; nothing is read yet.

  Args:
    name: of the task.
    files: {split: a JSONL file, local or remote, or a function that gives the
      split's examples}.
    inputs: a format string, e.g. 'Question: {question}', or a function of an
      example.
    targets: likewise.
    vocabulary: the model's.
    metric_fns: seqio's, of (targets, predictions), e.g. those of
      `text_metrics`.
    seed: of the order of training data.

  Returns:
    The task.
  """
  return seqio.TaskRegistry.add(
    name,
    source=ExampleSource(files, inputs, targets, seed),
    preprocessors=[
      seqio.preprocessors.tokenize,
      seqio.preprocessors.append_eos_after_trim,
      fit,
    ],
    output_features={
      'inputs': seqio.Feature(vocabulary, add_eos=False),
      'targets': seqio.Feature(vocabulary, add_eos=True),
    },
    metric_fns=metric_fns,
    shuffle_buffer_size=None,
    task_cls=ordered_cache.OrderedTask,
  )
