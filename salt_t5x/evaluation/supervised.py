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


"""Evaluates a model on a seqio task by greedy decoding (§5.3)."""

from collections.abc import Mapping
import functools
import hashlib
import numbers
from typing import Any

from absl import logging
import numpy as np
import seqio

from salt_t5x.inference import language_model


def check(task: seqio.Task, sequence_length: Mapping[str, int]) -> None:
  """Checks that a task can be evaluated.

  Args:
    task: see `evaluate`.
    sequence_length: see `evaluate`.

  Raises:
    ValueError: the task has no metric of predictions, or the lengths leave no
      room.
  """
  length, max_tokens = max(sequence_length.values()), sequence_length['targets']
  if not 0 < max_tokens < length:
    raise ValueError(
      f'TASK_FEATURE_LENGTHS = {dict(sequence_length)}: targets must leave '
      "room for inputs: set {'inputs': T, 'targets': less than T}, as in "
      'training.'
    )
  if not task.predict_metric_fns:
    raise ValueError(
      f'The task {task.name} has no metric of predictions: register it with '
      'metric_fns, e.g. text_metrics.accuracy.'
    )


def _read(
  task: seqio.Task,
  split: str,
  sequence_length: Mapping[str, int],
  max_examples: int | None,
) -> list[dict[str, Any]]:
  dataset = task.get_dataset(
    sequence_length, split=split, shuffle=False, num_epochs=1
  )
  examples = list(dataset.take(max_examples or -1).as_numpy_iterator())
  if not examples:
    raise ValueError(f'The split {split!r} of {task.name} has no example.')
  return examples


def fingerprint(
  task: seqio.Task,
  split: str,
  sequence_length: Mapping[str, int],
  max_examples: int | None = None,
) -> str:
  """Hashes the examples that `evaluate` reads, with the same arguments.

  Raises:
    ValueError: the split has no examples.
  """
  digest = hashlib.sha256()
  for example in _read(task, split, sequence_length, max_examples):
    for name, value in sorted(example.items()):
      digest.update(f'{name} {np.asarray(value).tolist()!r}\n'.encode())
  return digest.hexdigest()[:16]


def evaluate(
  model: language_model.LanguageModel,
  task: seqio.Task,
  split: str,
  sequence_length: Mapping[str, int],
  max_examples: int | None = None,
) -> tuple[dict[str, float], list[dict[str, Any]]]:
  """Decodes the inputs of a split greedily and computes the task's metrics.

  As in seqio's evaluator, targets are the untokenized, untrimmed texts, and
  targets and predictions both pass through the task's postprocessor.

  Args:
    model: a model with the vocabulary of the task.
    task: a task that passes `check`.
    split: a split of the task.
    sequence_length: the lengths of training, {'inputs': T, 'targets': n}; at
      most n tokens are generated.
    max_examples: the number of examples from the first; None for all.

  Returns:
    ({metric: value}, [{'doc_id': number, 'inputs', 'target', 'prediction':
    texts, 'score': the first metric of this example alone as a share (only if
    it is a number), 'confidence': the prediction's log-likelihood in nats,
    'inputs_cut': number of input tokens trimmed (only if some were, or the task
    counts them)}]).

  Raises:
    ValueError: the split has no examples.
  """
  length, max_tokens = max(sequence_length.values()), sequence_length['targets']
  examples = _read(task, split, sequence_length, max_examples)
  room = length - max_tokens
  inputs = [example['inputs'].tolist() for example in examples]
  vocabulary = task.output_features['targets'].vocabulary
  contexts = [tokens[:room] for tokens in inputs]
  generated = model.continuations(contexts, max_tokens, task.name)
  likelihoods = model.log_likelihoods(
    [
      # Append EOS to outputs that stopped early.
      (context, [*tokens, vocabulary.eos_id][:max_tokens])
      for context, tokens in zip(contexts, generated, strict=True)
    ]
  )
  results, targets, predictions = [], [], []
  for i, example in enumerate(examples):
    result = {
      'doc_id': i,
      'inputs': _text(task, example, 'inputs'),
      'target': _text(task, example, 'targets'),
      'prediction': vocabulary.decode(generated[i]),
      'confidence': likelihoods[i].value,
    }
    postprocess = functools.partial(task.postprocess_fn, example=example)
    targets.append(postprocess(result['target'], is_target=True))
    predictions.append(postprocess(result['prediction'], is_target=False))
    alone = task.predict_metric_fns[0](targets[-1:], predictions[-1:])
    if isinstance(score := next(iter(alone.values())), numbers.Real):
      result['score'] = float(score) / 100
    cut = max(len(inputs[i]) - room, 0)
    if cut or 'inputs_cut' in example:
      result['inputs_cut'] = cut + int(example.get('inputs_cut', 0))
    results.append(result)
  if cut := sum(bool(result.get('inputs_cut')) for result in results):
    logging.warning(
      '%s: the inputs of %d of %d examples were trimmed at the end to %d '
      'tokens.',
      task.name,
      cut,
      len(results),
      room,
    )
  metrics = {}
  for metric_fn in task.predict_metric_fns:
    for name, value in metric_fn(targets, predictions).items():
      # Two functions may give one name.
      of_name = sum(x.partition(' #')[0] == name for x in metrics)
      metrics[f'{name} #{of_name + 1}' if of_name else name] = value
  return metrics, results


def _text(task: seqio.Task, example: Mapping[str, Any], feature: str) -> str:
  """A feature's original text if the example has it, or its decoded tokens."""
  if (text := example.get(f'{feature}_pretokenized')) is not None:
    return text.decode()
  vocabulary = task.output_features[feature].vocabulary
  return vocabulary.decode(example[feature].tolist())
