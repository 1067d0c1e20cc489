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

"""Runs one task on one model, and keeps the results of each document."""

from collections.abc import Mapping, Sequence
from typing import Any

from lm_eval import evaluator
import numpy as np

from salt_t5x.evaluation.few_shot import lm_eval_model, loading
from salt_t5x.standard_errors import standard_error

# All models get the same demonstrations.
_SEED = 1234
_RESAMPLES = 1000


def run(
  model: lm_eval_model.HarnessModel, task: loading.Task, examples: int | None
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
  """Evaluates a model.

  Args:
    model: as lm-eval sees it; it has not run before.
    task: the task.
    examples: documents, from the first one; None for all.

  Returns:
    ({'score': the benchmark's metric, 0 to 1,
    'standard_error': its standard error over documents; NaN for one document,
    'chance': the expected score of guessing,
    'documents': the number of evaluated documents,
    'cut': the number of requests whose contexts were trimmed at the beginning,
    'requests': the number of requests,
    'source': the local folder, or the hub's data set,
    'from_evaluated': whether demonstrations are other evaluated documents,
    'log_perplexity', 'log_perplexity_error': log-perplexity of the right
    answer, nats per document, and its standard error; None if the task does not
    measure it (only LAMBADA does),
    'measures': all measures of lm-eval},
    [{'doc_id': int, 'score': of this document, 'confidence': the log-likelihood
    in nats of the model's output, which is the choice that was scored, the
    generated text, or, for LAMBADA, the right word}]).
  """
  benchmark, lm_eval_task = task.benchmark, task.task
  lm_eval_task.set_fewshot_seed(_SEED)
  found = evaluator.evaluate(
    model,
    {'tasks': {benchmark.task: lm_eval_task}},
    limit=examples,
    bootstrap_iters=0,
    confirm_run_unsafe_code=benchmark.runs_programs,
  )
  samples = found['samples'][benchmark.task]
  measures = {
    name.split(',')[0]: value
    for name, value in found['results'][benchmark.task].items()
    if isinstance(value, float | int) and '_stderr' not in name
  }
  scores = values = [sample[benchmark.measure] for sample in samples]
  error, chance = standard_error, 0.0  # Chance of free answers.
  if isinstance(values[0], tuple):  # F1's (right, predicted)
    scores = [sample['acc'] for sample in samples]
    error = _f1_error
    # Precision is the share of class 1, recall is half.
    share = float(np.mean([right == 1 for right, _ in values]))
    chance = share / (share + 0.5)
  elif lm_eval_task.OUTPUT_TYPE == 'multiple_choice':
    chance = float(np.mean([_chance(sample) for sample in samples]))
  nats = [-x['perplexity'] for x in samples if 'perplexity' in x]
  result = {
    'score': float(measures[benchmark.measure]),
    'standard_error': error(values),
    'chance': chance,
    'documents': len(samples),
    'cut': sum(cut for cut, _ in model.truncated.values()),
    'requests': sum(count for _, count in model.truncated.values()),
    'source': task.source,
    'from_evaluated': task.from_evaluated,
    'log_perplexity': float(np.mean(nats)) if nats else None,
    'log_perplexity_error': standard_error(nats) if nats else None,
    'measures': measures,
  }
  return result, [
    {
      'doc_id': sample['doc_id'],
      'score': float(score),
      'confidence': _confidence(model, task, sample),
    }
    for sample, score in zip(samples, scores, strict=True)
  ]


def _chance(sample: Mapping[str, Any]) -> float:
  """The share of choices that are right."""
  target = sample['target']
  right = len(set(target)) if isinstance(target, list) else 1
  return right / len(sample['arguments'])


def _f1_error(pairs: Sequence[tuple[int, int]]) -> float:
  """Standard error of the F1 of class 1, by bootstrap."""
  rows = np.random.default_rng(0).integers(
    len(pairs), size=(_RESAMPLES, len(pairs))
  )
  right, predicted = np.moveaxis(np.array(pairs)[rows] == 1, -1, 0)
  hits = np.sum(right & predicted, axis=-1)
  total = np.sum(right, axis=-1) + np.sum(predicted, axis=-1)
  # F1 is 0 where it is not defined.
  return float(np.std(2 * hits / np.maximum(total, 1), ddof=1))


def _confidence(
  model: lm_eval_model.HarnessModel,
  task: loading.Task,
  sample: Mapping[str, Any],
) -> float:
  key = task.benchmark.task, sample['doc_id']
  if key in model.confidences:
    return model.confidences[key]
  values = [float(value) for ((value, _),) in sample['resps']]
  if task.benchmark.measure == 'acc_norm':
    choices = task.task.doc_to_choice(sample['doc'])
    shares = [x / len(y) for x, y in zip(values, choices, strict=True)]
    return values[int(np.argmax(shares))]
  return max(values)
