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


"""Measurements of an evaluation: held-out text, few-shot, supervised tasks.

The functions here check their arguments before anything compiles.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
from typing import Any

from absl import logging
import jax
from jax.experimental import multihost_utils
import numpy as np
import seqio

from salt_t5x import standard_errors
from salt_t5x.checkpoints import run_record
from salt_t5x.data import ordered_cache
from salt_t5x.evaluation import held_out
from salt_t5x.evaluation import results as results_lib
from salt_t5x.evaluation import supervised as supervised_lib
from salt_t5x.inference import language_model
from t5x import models as t5x_models
from t5x import utils


@dataclasses.dataclass(frozen=True)
class Measurement:
  """A part of the evaluation, which writes one file per checkpoint.

  Attributes:
    name: the file's name, without its extension.
    options: options that the result depends on.
    run: (model, vocabulary) -> (result, results of each document).
  """

  name: str
  options: Mapping[str, Any]
  run: Callable[
    [language_model.LanguageModel, seqio.Vocabulary],
    tuple[Mapping[str, Any], Sequence[Mapping[str, Any]]],
  ]


def held_out_measurement(
  cfg: utils.DatasetConfig, examples: int | None, length: int
) -> Measurement:
  """Makes the measurement of held-out text (Table 1).

  Args:
    cfg: see `held_out_cfg` of `evaluate.evaluate`.
    examples: the number of sequences from the first; None for all.
    length: T of the model.

  Raises:
    ValueError: there are no sequences, or they are longer than T.
  """
  name = cfg.mixture_or_task_name
  source = ordered_cache.get_task(name, 'HELD_OUT_TASK').source
  sequences = ordered_cache.read_sequences(name, cfg.split, examples)
  longest = max(len(tokens) for _, tokens in sequences)
  if longest > length:
    raise ValueError(
      f'The sequences of {name} have up to {longest} tokens, but '
      f"TASK_FEATURE_LENGTHS = {{'targets': {length}}}: set it to at least "
      'that, if the model can take it.'
    )
  return Measurement(
    name=results_lib.HELD_OUT,
    options={
      'task': name,
      'split': cfg.split,
      'examples': len(sequences),
      'data': source.fingerprint(cfg.split),
    },
    run=lambda model, _: held_out.measure(model, sequences),
  )


def few_shot_measurements(
  suite: str | Sequence[str],
  data_dir: str | None,
  use_hub: bool,
  examples: int | None,
  run_programs: bool,
  length: int,
  model: t5x_models.DecoderOnlyModel,
) -> tuple[list[Measurement], dict[str, str]]:
  """Makes the measurements of few-shot tasks (App. F).

  Args:
    suite: see `evaluate.evaluate`.
    data_dir: see `few_shot.loading.load`.
    use_hub: see `few_shot.loading.load`.
    examples: documents of each benchmark, from the first; None for all.
    run_programs: see `evaluate.evaluate`.
    length: T of the model.
    model: a model with the vocabulary of the checkpoints.

  Returns:
    (a measurement of each available task, {benchmark: why it is missing}).

  Raises:
    ImportError: lm-eval is missing.
    ValueError: see `few_shot.loading.load`.
  """
  try:
    # An optional package, and seconds to import.
    from salt_t5x.evaluation.few_shot import lm_eval_model, loading, running
    from salt_t5x.evaluation.few_shot import suite as suite_lib
  except ImportError as e:
    raise ImportError(
      "The few-shot tasks need lm-eval: pip install 'salt_t5x[evaluate]', or "
      f'set SUITE = () to skip them. ({e})'
    ) from e
  _warn_of_newlines(model.output_vocabulary)
  benchmarks = suite_lib.find(suite)
  tasks, missing = loading.load(
    benchmarks,
    data_dir=data_dir,
    use_hub=use_hub,
    run_programs=run_programs,
    length=length,
  )
  if jax.process_count() > 1:
    # A hub may have failed on one host; all must run the same programs.
    mine = {task.benchmark.name for task in tasks}
    everywhere = multihost_utils.process_allgather(
      np.array([x.name in mine for x in benchmarks])
    ).all(axis=0)
    common = {
      x.name for x, there in zip(benchmarks, everywhere, strict=True) if there
    }
    missing |= {name: 'not on all hosts' for name in mine - common}
    tasks = [task for task in tasks if task.benchmark.name in common]

  def measurement(task):
    def run(model, vocabulary):
      view = lm_eval_model.HarnessModel(model, vocabulary)
      result, documents = running.run(view, task, examples)
      return dataclasses.asdict(result), documents

    return Measurement(
      name=task.benchmark.name,
      options={
        'shots': task.benchmark.shots,
        'source': task.source,
        'data': task.data,
        'examples': examples,
      },
      run=run,
    )

  return [measurement(task) for task in tasks], missing


def _warn_of_newlines(vocabulary: seqio.Vocabulary) -> None:
  if '\n' not in vocabulary.decode(vocabulary.encode('a\nb')):
    logging.warning(
      'VOCABULARY, %s, has no newline. Answers of few-shot tasks end with one, '
      'so generated answers run to their limit and count as wrong.',
      vocabulary,
    )


def supervised_measurement(
  name: str,
  split: str | Mapping[str, str],
  lengths: Mapping[str, int],
  examples: int | None,
  model: t5x_models.DecoderOnlyModel,
) -> Measurement:
  """Makes the measurement of a supervised task (Table 4).

  Args:
    name: of a seqio task with inputs, targets and metrics of predictions.
    split: see `supervised_split` of `evaluate.evaluate`.
    lengths: see `task_feature_lengths` of `evaluate.evaluate`.
    examples: the number of examples from the first; None for all.
    model: a model with the vocabulary of the checkpoints.

  Raises:
    ValueError: it has no such split, another vocabulary, or cannot be
      evaluated.
  """
  parameter = 'evaluate.evaluate.supervised_tasks (SUPERVISED_TASKS)'
  task = seqio.get_mixture_or_task(name)
  if isinstance(split, Mapping):
    if name not in split:
      raise ValueError(
        f'evaluate.evaluate.supervised_split (SUPERVISED_SPLIT) = {split}: '
        f'{name} is missing.'
      )
    split = split[name]
  if split not in task.splits:
    raise ValueError(
      f'evaluate.evaluate.supervised_split (SUPERVISED_SPLIT) = {split!r}: '
      f'{name} has the splits {sorted(task.splits)}; choose one of them, or '
      'give {task: split}.'
    )
  theirs = task.output_features['targets'].vocabulary
  if run_record.fingerprint(theirs) != run_record.fingerprint(
    model.output_vocabulary
  ):
    raise ValueError(
      f'{parameter}: {name} has another vocabulary ({theirs}) than the '
      'model: bind VOCABULARY to the one that the task was registered with.'
    )
  supervised_lib.check(task, lengths)

  def run(checkpoint_model, _):
    metrics, found = supervised_lib.evaluate(
      checkpoint_model, task, split, lengths, examples
    )
    # The first metric is the mean of the scores of the examples.
    scores = [100 * x['score'] for x in found if 'score' in x]
    errors = {next(iter(metrics)): standard_errors.standard_error(scores)}
    result = {'metrics': metrics, 'errors': errors, 'examples': len(found)}
    return result, found

  return Measurement(
    name=name,
    options={'split': split, 'examples': examples, 'lengths': dict(lengths)},
    run=run,
  )


def unfinished(
  store: results_lib.Store,
  options: Mapping[str, Mapping[str, Any]],
  measurements: Sequence[Measurement],
) -> dict[str, list[Measurement]]:
  """Finds the measurements that have no result yet.

  Args:
    store: the results so far.
    options: {name in the tables: options of the checkpoint}.
    measurements: the measurements of each checkpoint.

  Returns:
    {name in the tables: its missing measurements}, the same on all hosts.

  Raises:
    ValueError: a result was made with other options.
  """
  missing = np.array(
    [
      [not store.has(name, x.name, {**of_name, **x.options})
       for x in measurements]
      for name, of_name in options.items()
    ],
    bool,
  )  # fmt: skip
  if jax.process_count() > 1:
    missing = np.asarray(multihost_utils.broadcast_one_to_all(missing))
  return {
    name: [x for x, todo in zip(measurements, row, strict=True) if todo]
    for name, row in zip(options, missing, strict=True)
  }
