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


"""Measures checkpoints: `python -m salt_t5x.evaluate --gin_file=...`.

The gin files are a student's, the data's and `runs/evaluate.gin`. Tables
compare the checkpoints on held-out text (Table 1), the paper's few-shot suite
(Tables 2 and 12), and fine-tuning tasks (Table 4); `salt_t5x.difficulty` reads
the results of each document. Rerunning computes only the missing results.
"""

from collections.abc import Mapping, Sequence
import itertools

import jax
from jax.experimental import multihost_utils
import numpy as np

from salt_t5x import command as command_lib
from salt_t5x import files
from salt_t5x import teacher as teacher_lib
from salt_t5x.data import lengths as lengths_lib
from salt_t5x.evaluation import candidates as candidates_lib
from salt_t5x.evaluation import measurements as measurements_lib
from salt_t5x.evaluation import results as results_lib
from salt_t5x.inference import batches, language_model
from salt_t5x.runs import train_data
from t5x import models as t5x_models
from t5x import partitioning, utils


def evaluate(
  model: t5x_models.DecoderOnlyModel,
  checkpoints: Mapping[str, str | None],
  partitioner: partitioning.BasePartitioner,
  output_dir: str,
  task_feature_lengths: Mapping[str, int],
  batch_size: int,
  dtype: str | None = None,
  teacher: teacher_lib.Teacher | None = None,
  suite: str | Sequence[str] = 'paper',
  data_dir: str | None = None,
  use_hub: bool = True,
  examples: int | None = None,
  run_programs: bool = False,
  held_out_cfg: utils.DatasetConfig | None = None,
  held_out_examples: int | None = None,
  supervised_tasks: str | Sequence[str] = (),
  supervised_split: str | Mapping[str, str] = 'validation',
) -> str:
  """Evaluates checkpoints and writes results.md, results.json and results.png.

  Args:
    model: the model of the checkpoints.
    checkpoints: {name in the tables: model directory (its newest checkpoint) or
      `checkpoint_<step>` directory}; None for parameters as initialised, which
      show where a model starts.
    partitioner: shards parameters and batches.
    output_dir: folder of the results; existing ones are reused.
    task_feature_lengths: {'targets': T}, the most tokens of a sequence; longer
      contexts lose their beginnings. With supervised tasks, as in their
      training: {'inputs': T, 'targets': the most tokens of an answer}.
    batch_size: sequences in a batch.
    dtype: dtype of the parameters; None keeps the saved one.
    teacher: also evaluated, as `SLM`, if not None.
    suite: 'paper' (App. F), 'search' (App. G) or names of few-shot benchmarks;
      () for none.
    data_dir: see `few_shot.loading.load`.
    use_hub: see `few_shot.loading.load`.
    examples: documents of each benchmark or supervised task, from the first;
      None for all.
    run_programs: whether MBPP may run the programs that a model writes.
    held_out_cfg: a task over a cache of sequences and its split; None for no
      held-out text.
    held_out_examples: the number of held-out sequences, from the first; None
      for all.
    supervised_tasks: names of seqio tasks (or one) with inputs, targets and
      metrics of predictions, such as those of tasks/sft.py; see
      `supervised.evaluate`.
    supervised_split: one split for all of them, or {task: split}.

  Returns:
    The tables, as Markdown.

  Raises:
    ValueError: a checkpoint is missing or of another model or vocabulary, a
      task cannot be read, or the folder holds results of another evaluation.
  """
  length = max(lengths_lib.check_form(task_feature_lengths).values())
  if isinstance(supervised_tasks, str):
    supervised_tasks = (supervised_tasks,)
  measurements_lib.check_options(
    suite=suite,
    examples=examples,
    data_dir=data_dir,
    run_programs=run_programs,
    held_out_cfg=held_out_cfg,
    held_out_examples=held_out_examples,
    supervised_tasks=supervised_tasks,
    supervised_split=supervised_split,
  )
  # All hosts check, because a host would wait for one that failed.
  parameter = f'evaluate.evaluate.output_dir (OUTPUT_DIR) = {output_dir!r}'
  files.make_folder(output_dir, parameter)
  features = batches.feature_shapes(batch_size, length)
  candidates = candidates_lib.find(
    model, checkpoints, dtype, teacher, features, partitioner
  )
  vocabulary = model.output_vocabulary
  measurements, missing = [], {}
  if held_out_cfg is not None:
    train_data.check_vocabulary(held_out_cfg, model, 'HELD_OUT_TASK')
    measurements.append(
      measurements_lib.held_out(held_out_cfg, held_out_examples, length)
    )
  if suite:
    few_shot, missing = measurements_lib.few_shot(
      suite,
      examples,
      vocabulary,
      data_dir=data_dir,
      use_hub=use_hub,
      run_programs=run_programs,
      length=length,
    )
    measurements += few_shot
  measurements += [
    measurements_lib.supervised(
      name, supervised_split, task_feature_lengths, examples, vocabulary
    )
    for name in supervised_tasks
  ]
  measurements_lib.check_names([*(x.name for x in measurements), *missing])
  store = results_lib.Store(output_dir)
  done = [
    [
      store.has(name, x.name, candidate.options | x.options)
      for x in measurements
    ]
    for name, candidate in candidates.items()
  ]
  # All hosts must do the same.
  done = multihost_utils.broadcast_one_to_all(np.array(done, bool))
  progress = batches.progress_bar(int(np.sum(~done)), 'task')
  compiled: dict[int, language_model.LanguageModel] = {}
  for (name, candidate), is_done in zip(candidates.items(), done, strict=True):
    if is_done.all():
      continue
    # One checkpoint at a time is in memory.
    params, axes = candidate.load(features, partitioner)
    network = candidate.source.model
    if id(network) not in compiled:
      compiled[id(network)] = language_model.LanguageModel(
        network, params, axes, partitioner, batch_size, length
      )
    checkpoint_model = compiled[id(network)].with_params(params)
    for measurement in itertools.compress(measurements, ~is_done):
      progress.set_description(f'{name}, {measurement.name}')
      try:
        result, documents = measurement.run(checkpoint_model)
      except language_model.NonFiniteOutputError as e:
        result, documents = {results_lib.NOT_FINITE: str(e)}, []
      if jax.process_index() == 0:
        options = candidate.options | measurement.options
        store.write(name, measurement.name, options, result, documents)
      progress.update()
  progress.close()
  multihost_utils.sync_global_devices('evaluated')
  return results_lib.report(
    store,
    list(candidates),
    [x.name for x in measurements],
    missing,
    supervised_tasks,
    write=jax.process_index() == 0,
  )


if __name__ == '__main__':
  from salt_t5x import evaluate as module

  command_lib.start(module.evaluate)
