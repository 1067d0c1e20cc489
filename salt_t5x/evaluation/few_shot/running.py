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
import dataclasses
from typing import Any

from lm_eval import evaluator
from lm_eval.api import task as lm_eval_task_lib
import numpy as np

from salt_t5x.evaluation.few_shot import lm_eval_model, loading
from salt_t5x.standard_errors import standard_error

# All models get the same demonstrations.
_SEED = 1234
_RESAMPLES = 1000


@dataclasses.dataclass(frozen=True)
class Result:
  """A model's result in a task.

  Attributes:
    score: the benchmark's metric, 0 to 1.
    standard_error: its standard error over documents; NaN for one document.
    chance: the expected score of guessing.
    documents: the number of evaluated documents.
    cut: the number of requests whose contexts were trimmed at the beginning.
    requests: the number of requests.
    source: the local folder, or the hub's data set.
    from_evaluated: whether demonstrations are other evaluated documents.
    log_perplexity: log-perplexity of the right answer, nats per document, if
      the task measures it (LAMBADA).
    log_perplexity_error: its standard error.
    measures: all measures of lm-eval.
  """

  score: float
  standard_error: float
  chance: float
  documents: int
  cut: int
  requests: int
  source: str
  from_evaluated: bool
  log_perplexity: float | None
  log_perplexity_error: float | None
  measures: Mapping[str, float]


def run(
  model: lm_eval_model.HarnessModel, task: loading.Task, examples: int | None
) -> tuple[Result, list[dict[str, Any]]]:
  """Evaluates a model.

  Args:
    model: as lm-eval sees it.
    task: the task.
    examples: documents, from the first one; None for all.

  Returns:
    (the result, {'doc_id': int, 'score': float, 'confidence': float} of each
    document: its own score, and the log-likelihood in nats of the model's
    output, which is the choice that was scored, the generated text, or, for
    LAMBADA, the right word).
  """
  benchmark, lm_eval_task = task.benchmark, task.task
  lm_eval_task.set_fewshot_seed(_SEED)
  model.truncated.clear()
  model.confidences.clear()
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
  values = [sample[benchmark.measure] for sample in samples]
  pairs = isinstance(values[0], tuple)  # F1's (right, predicted)
  scores = [sample['acc'] for sample in samples] if pairs else values
  result = Result(
    score=float(measures[benchmark.measure]),
    standard_error=_f1_error(values) if pairs else standard_error(values),
    chance=_chance(lm_eval_task, samples, values if pairs else None),
    documents=len(samples),
    cut=sum(cut for cut, _ in model.truncated.values()),
    requests=sum(count for _, count in model.truncated.values()),
    source=task.source,
    from_evaluated=task.from_evaluated,
    **_log_perplexity(samples),
    measures=measures,
  )
  documents = [
    {
      'doc_id': sample['doc_id'],
      'score': float(score),
      'confidence': _confidence(model, task, sample),
    }
    for sample, score in zip(samples, scores, strict=True)
  ]
  return result, documents


def _f1(right: np.ndarray, predicted: np.ndarray) -> np.ndarray:
  """F1 of class 1, over the last axis; 0 where it is not defined."""
  hits = np.sum((right == 1) & (predicted == 1), axis=-1)
  total = np.sum(right == 1, axis=-1) + np.sum(predicted == 1, axis=-1)
  return 2 * hits / np.maximum(total, 1)


def _f1_error(pairs: Sequence[tuple[int, int]]) -> float:
  """Standard error of F1, by bootstrap."""
  right, predicted = np.array(pairs).T
  rows = np.random.default_rng(0).integers(
    len(pairs), size=(_RESAMPLES, len(pairs))
  )
  return float(np.std(_f1(right[rows], predicted[rows]), ddof=1))


def _chance(
  task: lm_eval_task_lib.ConfigurableTask,
  samples: Sequence[Mapping[str, Any]],
  pairs: Sequence[tuple] | None,
) -> float:
  if task.OUTPUT_TYPE != 'multiple_choice':
    return 0.0  # There is nothing to choose from.
  if pairs:
    # Precision is the share of class 1, recall is half.
    share = float(np.mean([right == 1 for right, _ in pairs]))
    return share / (share + 0.5)
  right = [
    len(set(x['target'])) if isinstance(x['target'], list) else 1
    for x in samples
  ]
  choices = [len(sample['arguments']) for sample in samples]
  return float(np.mean(np.array(right) / np.array(choices)))


def _log_perplexity(samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
  if 'perplexity' not in samples[0]:
    return {'log_perplexity': None, 'log_perplexity_error': None}
  values = [-sample['perplexity'] for sample in samples]  # log-likelihoods
  return {
    'log_perplexity': float(np.mean(values)),
    'log_perplexity_error': standard_error(values),
  }


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
