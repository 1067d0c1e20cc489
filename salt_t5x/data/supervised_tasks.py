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
(`runs/sft.gin`) and to evaluate by greedy decoding (`evaluation.supervised`).
Each line of a file is an example, a JSON object. Inputs are a prefix LM's: they
bear no loss, and attention to them is as in the model's training. Targets end
with EOS.

A split is held in memory as text. Training data has a new global order each
epoch, which depends only on the seed and the epoch, is the same for any number
of hosts, and is resumed exactly.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
import hashlib
import math
import string
from typing import Any

import seqio
import tensorflow as tf

from salt_t5x.data import (
  bad_lines,
  equal_files,
  order,
  ordered_tasks,
  vocabularies,
)

Example = Mapping[str, Any]
# A JSONL file, or a function that returns examples.
Data = str | Callable[[], Iterable[Example]]
# A format string over an example's fields, or a function of an example.
Text = str | Callable[[Example], str]

TRAIN = 'train'

# tf.data serializes this to check whether its iterators can be saved; past
# 2 GiB it ends the process.
_MAX_BYTES = 1_900_000_000


class ExampleSource(ordered_tasks.OrderedSource):
  """Examples in memory: 'inputs' and 'targets', tf.string [].

  The split 'train' has a new order each epoch; the others keep their own.
  """

  def __init__(
    self, files: Mapping[str, Data], inputs: Text, targets: Text, seed: int = 0
  ):
    """Constructor; nothing is read yet.

    Args:
      files: {split: its data}.
      inputs: the format of an example's inputs.
      targets: the format of its targets.
      seed: of the training data's order.

    Raises:
      ValueError: a format string has no field.
    """
    self._files = files
    self._texts = {
      name: _formatter(name, text) if isinstance(text, str) else text
      for name, text in (('inputs', inputs), ('targets', targets))
    }
    self._seed = seed
    self._tensors: dict[str, dict[str, tf.Tensor]] = {}
    super().__init__(splits=files, caching_permitted=False)

  def list_shards(self, split: str) -> Sequence[str]:
    return [split]

  def num_input_examples(self, split: str) -> int:
    return len(self._read(split)['targets'])

  def stream(
    self, split: str, num_epochs: int | None, start: int = 0
  ) -> tf.data.Dataset:
    """See `OrderedSource`: places of examples, int64 []."""
    count = self.num_input_examples(split)
    first, offset = divmod(start, count)

    def read(epoch):
      # A file of examples may be in any order: none is read as it is.
      number = epoch + 1 if split == TRAIN else tf.zeros_like(epoch)
      return tf.data.Dataset.from_tensor_slices(
        order.permutation(self._seed, number, 0, count)
      )

    epochs = tf.data.Dataset.range(first, num_epochs or order.ENDLESS)
    return epochs.flat_map(read).skip(offset)

  def fingerprint(self, split: str) -> str:
    """Hashes the texts of all examples."""
    # Version 2 of the order; the first read a shuffle of TensorFlow's.
    digest = hashlib.sha256(b'order 2')
    for texts in self._read(split).values():
      for text in texts.numpy():
        digest.update(hashlib.sha256(text).digest())
    return digest.hexdigest()[:16]

  def expander(self, split: str) -> Callable[..., dict[str, tf.Tensor]]:
    """See `OrderedSource`."""
    tensors = self._read(split)
    return lambda place: {k: tf.gather(v, place) for k, v in tensors.items()}

  def _read(self, split: str) -> dict[str, tf.Tensor]:
    """Reads a split once: {'inputs', 'targets'}, tf.string [N].

    An example that cannot be used (no JSON object, a field that is missing or
    null, no text) is skipped, counted and logged.

    Raises:
      tf.errors.NotFoundError: there is no such file.
      bad_lines.DamagedShardError: too many such examples, or no other ones.
      ValueError: more text than tf.data can hold, or two splits have the same
        file.
    """
    if split in self._tensors:
      return self._tensors[split]
    if not self._tensors:
      paths = {k: x for k, x in self._files.items() if isinstance(x, str)}
      # The other splits' files need not be there.
      there = {k: [x] for k, x in paths.items() if tf.io.gfile.exists(x)}
      equal_files.check(there, paths)
    data = self._files[split]
    is_file = isinstance(data, str)
    name = data if is_file else f'{split} split'
    lines = tf.io.gfile.GFile(data, 'rb') if is_file else data()
    texts = [text for _, text in bad_lines.read(name, lines, self._render)]
    size = sum(len(x) for text in texts for x in text.values())
    if size > _MAX_BYTES:
      raise ValueError(
        f'{name} has {size:,} bytes of inputs and targets, and {_MAX_BYTES:,} '
        'are the most: drop examples or fields, or cut their texts.'
      )
    self._tensors[split] = {
      key: tf.constant([text[key] for text in texts]) for key in self._texts
    }
    return self._tensors[split]

  def _render(self, example: bytes | Example) -> dict[str, bytes]:
    """Makes an example's {'inputs', 'targets'}, UTF-8."""
    if isinstance(example, bytes):
      example = bad_lines.parse_object(example)
    # A null is no value.
    example = {k: v for k, v in example.items() if v is not None}
    try:
      rendered = {name: text(example) for name, text in self._texts.items()}
    except KeyError as error:
      raise bad_lines.BadLineError(
        'no such field', f'{error} is not one of {sorted(example)}'
      ) from error
    for name, text in rendered.items():
      if not isinstance(text, str):
        raise bad_lines.BadLineError(
          'no text', f'the function of {name} returned {text!r}'
        )
      if not text.strip():
        raise bad_lines.BadLineError(bad_lines.EMPTY, f'no {name}')
    return {name: text.encode() for name, text in rendered.items()}


def _formatter(name: str, text: str) -> Callable[[Example], str]:
  if all(field is None for _, field, *_ in string.Formatter().parse(text)):
    raise ValueError(
      f'{name} = {text!r} has no field of an example: all would have the same '
      "text. Put a field's name in braces, as in '{answer}'; a function may "
      'return a text that is meant to be the same.'
    )
  return lambda example: _Formatter().vformat(text, (), example)


class _Formatter(string.Formatter):
  """Formats texts and numbers; JSON has values that are neither."""

  def get_field(self, field_name, args, kwargs):
    value, key = super().get_field(field_name, args, kwargs)
    is_number = isinstance(value, float) and math.isfinite(value)
    is_text = isinstance(value, str | int) and not isinstance(value, bool)
    if not (is_number or is_text):
      raise bad_lines.BadLineError(
        'no text or number', f'{field_name} = {value!r}'
      )
    return value, key


def _check_vocabulary(
  dataset: tf.data.Dataset, output_features: Mapping[str, seqio.Feature]
) -> tf.data.Dataset:
  """Checks special ids when the data are read: registering reads no file."""
  vocabularies.check_special_ids(
    output_features['targets'].vocabulary,
    "The vocabulary of the task's feature 'targets'",
  )
  return dataset


def fit(
  dataset: tf.data.Dataset, sequence_length: Mapping[str, int] | None
) -> tf.data.Dataset:
  """Truncates inputs that leave too little room for targets.

  T is the largest of the lengths, as for
  `feature_converters.FixedWidthFeatureConverter`. If the length of 'targets' is
  smaller, every example reserves that many tokens for them, so its inputs do
  not depend on its targets. Otherwise inputs get what the targets of their
  example leave.

  Args:
    dataset: of {'inputs': int32 [N], 'targets': int32 [M]}, M no more than its
      length.
    sequence_length: {'targets': the most tokens, EOS among them; 'inputs': T}.

  Returns:
    The same, with 'inputs_cut', int32 []: the number of tokens cut.
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
    inputs: a format string over fields that hold texts or numbers, e.g.
      'Question: {question}', or a function of an example.
    targets: likewise.
    vocabulary: the model's.
    metric_fns: seqio's, of (targets, predictions), e.g. those of
      `text_metrics`.
    seed: of the order of training data.

  Returns:
    The task.

  Raises:
    ValueError: a format string has no field.
  """
  return seqio.TaskRegistry.add(
    name,
    source=ExampleSource(files, inputs, targets, seed),
    preprocessors=[
      _check_vocabulary,
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
    task_cls=ordered_tasks.OrderedTask,
  )
