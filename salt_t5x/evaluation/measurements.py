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

import collections
from collections.abc import Callable, Iterable, Mapping, Sequence
import dataclasses
import functools
import importlib.metadata
import itertools
from typing import Any

from absl import logging
from jax.experimental import multihost_utils
import numpy as np
import seqio

from salt_t5x import command, standard_errors
from salt_t5x.data import ordered_cache, vocabularies
from salt_t5x.evaluation import held_out as held_out_lib
from salt_t5x.evaluation import results as results_lib
from salt_t5x.evaluation import supervised as supervised_lib
from salt_t5x.inference import language_model
from t5x import utils


@dataclasses.dataclass(frozen=True)
class Measurement:
  """A part of the evaluation, which writes one file per checkpoint.

  Attributes:
    name: the file's name, without its extension.
    options: options that the result depends on.
    run: model -> (result, results of each document).
  """

  name: str
  options: Mapping[str, Any]
  run: Callable[
    [language_model.LanguageModel],
    tuple[Mapping[str, Any], Sequence[Mapping[str, Any]]],
  ]


def check_options(
  suite: str | Sequence[str],
  examples: int | None,
  data_dir: str | None,
  run_programs: bool,
  held_out_cfg: utils.DatasetConfig | None,
  held_out_examples: int | None,
  supervised_tasks: Sequence[str],
  supervised_split: str | Mapping[str, str],
) -> None:
  """Checks that there is something to measure, and that all options apply.

  Args:
    suite: see `evaluate.evaluate`, as for the others.
    examples: of `suite` and `supervised_tasks`.
    data_dir: of `suite`.
    run_programs: of `suite`.
    held_out_cfg: see `evaluate.evaluate`.
    held_out_examples: of `held_out_cfg`.
    supervised_tasks: see `evaluate.evaluate`.
    supervised_split: of `supervised_tasks`.

  Raises:
    ValueError: there is nothing, an option of what is not measured is set, or a
      number of examples is below 1.
  """
  counts = {'examples': examples, 'held_out_examples': held_out_examples}
  for name, count in counts.items():
    if count is not None:
      parameter = f'evaluate.evaluate.{name} ({name.upper()})'
      command.check_count(parameter, count)
  if not (suite or supervised_tasks or held_out_cfg):
    raise ValueError(
      'There is nothing to measure: set SUITE, HELD_OUT or SUPERVISED_TASKS.'
    )
  splits = supervised_split if isinstance(supervised_split, Mapping) else {}
  others = {k: v for k, v in splits.items() if k not in supervised_tasks}
  for needed, is_set, name, value in (
    ('SUITE', suite, 'data_dir (BENCHMARK_DATA)', data_dir),
    ('SUITE', suite, 'run_programs (RUN_PROGRAMS)', run_programs),
    (
      'HELD_OUT (@held_out/utils.DatasetConfig())',
      held_out_cfg,
      'held_out_examples (HELD_OUT_EXAMPLES)',
      held_out_examples,
    ),
    (
      'SUPERVISED_TASKS',
      supervised_tasks and not others,
      'supervised_split (SUPERVISED_SPLIT)',
      others or (supervised_split != 'validation' and supervised_split),
    ),
  ):
    if value and not is_set:
      raise ValueError(
        f'evaluate.evaluate.{name} = {value!r} has no effect: set {needed}, or '
        'remove it.'
      )


def check_names(names: Iterable[str]) -> None:
  """Checks that no result would replace another.

  Args:
    names: of all measurements, and of missing benchmarks.

  Raises:
    ValueError: two have one name.
  """
  counts = collections.Counter(names)
  if twice := [name for name, count in counts.items() if count > 1]:
    raise ValueError(
      f'evaluate.evaluate.supervised_tasks (SUPERVISED_TASKS): {twice} name '
      'two measurements, of which one would replace the other. Register '
      'the task under another name.'
    )


def held_out(
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
    run=lambda model: held_out_lib.measure(model, sequences),
  )


def few_shot(
  suite: str | Sequence[str],
  examples: int | None,
  vocabulary: seqio.Vocabulary,
  **options: Any,
) -> tuple[list[Measurement], dict[str, str]]:
  """Makes the measurements of few-shot tasks (App. F).

  Args:
    suite: see `evaluate.evaluate`.
    examples: documents of each benchmark, from the first; None for all.
    vocabulary: of the checkpoints.
    **options: see `few_shot.loading.load`.

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
  if '\n' not in vocabulary.decode(vocabulary.encode('a\nb')):
    logging.warning(
      'VOCABULARY, %s, has no newline. Answers of few-shot tasks end with one, '
      'so generated answers run to their limit and count as wrong.',
      vocabulary,
    )
  benchmarks = suite_lib.find(suite)
  tasks, missing = loading.load(benchmarks, **options)
  # A hub may have failed on one host; all must run the same programs.
  names = [task.benchmark.name for task in tasks]
  here = np.array([x.name in names for x in benchmarks], bool)
  everywhere = multihost_utils.process_allgather(here).all(axis=0)
  common = [x.name for x in itertools.compress(benchmarks, everywhere)]
  missing |= {x: 'not on all hosts' for x in names if x not in common}

  def run(task, model):
    view = lm_eval_model.HarnessModel(model, vocabulary)
    return running.run(view, task, examples)

  found = [
    Measurement(
      name=task.benchmark.name,
      options={
        'shots': task.benchmark.shots,
        # Not the folder of local files: they may be moved, or change.
        'data': task.data,
        'lm_eval': importlib.metadata.version('lm_eval'),
        'examples': examples,
      },
      run=functools.partial(run, task),
    )
    for task in tasks
    if task.benchmark.name in common
  ]
  return found, missing


def supervised(
  name: str,
  split: str | Mapping[str, str],
  lengths: Mapping[str, int],
  examples: int | None,
  vocabulary: seqio.Vocabulary,
) -> Measurement:
  """Makes the measurement of a supervised task (Table 4).

  Args:
    name: of a seqio task with inputs, targets and metrics of predictions.
    split: see `supervised_split` of `evaluate.evaluate`.
    lengths: see `task_feature_lengths` of `evaluate.evaluate`.
    examples: the number of examples from the first; None for all.
    vocabulary: of the checkpoints.

  Raises:
    ValueError: it has no such split, another vocabulary, or cannot be
      evaluated.
  """
  parameter = 'evaluate.evaluate.supervised_tasks (SUPERVISED_TASKS)'
  task = command.get_task(name, f'{parameter} = {name!r}')
  if isinstance(split, Mapping):
    split = split.get(name)
  if split not in task.splits:
    raise ValueError(
      f'evaluate.evaluate.supervised_split (SUPERVISED_SPLIT) = {split!r}: '
      f'{name} has the splits {sorted(task.splits)}; choose one of them, or '
      'give {task: split}.'
    )
  theirs = task.output_features['targets'].vocabulary
  parameter = f'evaluate.evaluate.supervised_tasks (SUPERVISED_TASKS): {name}'
  if vocabularies.fingerprint(theirs, parameter) != vocabularies.fingerprint(
    vocabulary
  ):
    raise ValueError(
      f'{parameter} has another vocabulary ({theirs}) than VOCABULARY '
      f'({vocabulary}): bind VOCABULARY to the one that the task was '
      'registered with.'
    )
  supervised_lib.check(task, lengths)
  data = supervised_lib.fingerprint(task, split, lengths, examples)

  def run(model):
    metrics, found = supervised_lib.evaluate(
      model, task, split, lengths, examples
    )
    # The first metric is the mean of the scores of the examples.
    scores = [100 * x['score'] for x in found if 'score' in x]
    errors = {next(iter(metrics)): standard_errors.standard_error(scores)}
    result = {'metrics': metrics, 'errors': errors, 'examples': len(found)}
    return result, found

  return Measurement(
    name=name,
    options={
      'split': split,
      'examples': examples,
      'lengths': dict(lengths),
      'data': data,
    },
    run=run,
  )
