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

"""The training data as t5x requests it, checked before anything compiles.

t5x requests its data before it looks for a checkpoint to resume from, so the
model directory is locked here, too.
"""

from collections.abc import Mapping
import dataclasses
import os
from typing import Any

from absl import logging
import flax
import jax
import jax.numpy as jnp
import numpy as np
import seqio
import tensorflow as tf

from salt_t5x import command, files, models
from salt_t5x.checkpoints import damage, find, restore, run_record
from salt_t5x.data import (
  lengths,
  ordered_cache,
  ordered_tasks,
  raw_cache,
  vocabularies,
)
from salt_t5x.runs import data_iterators, step_batches
from salt_t5x.runs import model_dir as model_dir_lib
from salt_t5x.selection import first_stage
from salt_t5x.selection import record as selection_record
from t5x import models as t5x_models
from t5x import utils

# A saved data iterator does not depend on these parameters.
_FREE = {
  *('MIXTURE_OR_TASK_NAME', 'RANDOM_SEED'),
  *('utils.DatasetConfig.split', 'data_fingerprints'),
}


def _path(model_dir: str) -> str:
  return os.path.join(model_dir, 'data.json')


def _fingerprint(task: seqio.Task, cfg: utils.DatasetConfig) -> str | None:
  """Identifies a task's data; None if they are neither cached nor ours."""
  if isinstance(task.source, ordered_tasks.OrderedSource):
    return task.source.fingerprint(cfg.split)
  cache = _raw_cache(task, cfg)
  return cache and cache.fingerprint()


def _raw_cache(
  task: seqio.Task, cfg: utils.DatasetConfig
) -> raw_cache.Split | None:
  """Finds the cache of a task that seqio reads in its own way."""
  is_ours = isinstance(task.source, ordered_tasks.OrderedSource)
  if is_ours or not (cfg.use_cached and task.cache_dir):
    return None
  if cfg.split not in task.splits:
    return None
  return raw_cache.read(task.cache_dir, cfg.split)


def describe(cfg: utils.DatasetConfig) -> dict[str, Any]:
  """Lists what the examples of a run, and their order, depend on.

  Data that cannot be identified are logged.

  Args:
    cfg: the training data.

  Returns:
    {gin parameter: JSON value}, and the fingerprint of each cached task.
  """
  provider = seqio.get_mixture_or_task(cfg.mixture_or_task_name)
  fingerprints = {
    task.name: _fingerprint(task, cfg) for task in seqio.get_subtasks(provider)
  }
  if unknown := [name for name, found in fingerprints.items() if found is None]:
    logging.warning(
      'MIXTURE_OR_TASK_NAME = %r: the data of %s are not cached, so the run '
      'would not notice if it resumed with others.',
      provider.name,
      unknown,
    )
  return {
    'MIXTURE_OR_TASK_NAME': provider.name,
    'TASK_FEATURE_LENGTHS': dict(cfg.task_feature_lengths),
    'BATCH_SIZE': cfg.batch_size,
    'RANDOM_SEED': cfg.seed,
    'utils.DatasetConfig.split': cfg.split,
    'utils.DatasetConfig.shuffle': cfg.shuffle,
    'utils.DatasetConfig.pack': cfg.pack,
    'USE_CACHED_TASKS': cfg.use_cached,
    'data_fingerprints': fingerprints,
  }


def record(model_dir: str, cfg: utils.DatasetConfig) -> None:
  """Writes the description of a run's data into its directory.

  Its key 'changed' says whether the run read other data at earlier steps.
  """
  now, before = describe(cfg), {}
  if run_record.begun(model_dir) and tf.io.gfile.exists(_path(model_dir)):
    before = files.read_json_object(_path(model_dir))
  read = {name: now[name] for name in ('data_fingerprints', 'BATCH_SIZE')}
  now['changed'] = bool(before) and (
    before.get('changed', False) or bool(files.differences(before, read))
  )
  files.write_json(_path(model_dir), now)


def _compare(
  model_dir: str,
  cfg: utils.DatasetConfig,
  save_dataset: bool,
  allow_changes: bool,
) -> None:
  """Compares a resumed run's data with what the run began with."""
  path = _path(model_dir)
  if not (run_record.begun(model_dir) and tf.io.gfile.exists(path)):
    return
  try:
    before = files.read_json_object(path)
  except ValueError as e:
    raise ValueError(
      f'{path} is damaged ({e}). Restore it, or delete it to resume without '
      'this comparison of the data.'
    ) from e
  changes = files.differences(before, describe(cfg))
  if save_dataset and (fixed := sorted(changes.keys() - _FREE)):
    listed = ', '.join(
      f'{name} = {changes[name][1]!r}, and was {changes[name][0]!r}'
      for name in fixed
    )
    raise ValueError(
      f'MODEL_DIR = {model_dir!r} holds a run that began with other data '
      f'({listed}), and its saved data iterator does not fit these. Resume it '
      'with the values it began with, or choose another MODEL_DIR.'
    )
  run_record.refuse_changes(model_dir, changes, allow_changes)


def get_dataset(
  cfg: utils.DatasetConfig,
  shard_id: int,
  num_shards: int,
  feature_converter_cls,
  *args,
  save_dataset: bool,
  selection: first_stage.FirstStage | None = None,
  model_dir: str | None = None,
  allow_changes: bool = False,
  **kwargs,
):
  """Reads a host's share as t5x does; for t5x's `train.get_dataset_fn`.

  Args:
    cfg: the data set.
    shard_id: the host.
    num_shards: the number of hosts.
    feature_converter_cls: makes a seqio feature converter.
    *args: passed to t5x.
    save_dataset: from `data_iterators.saves_iterator`.
    selection: SALT_DS's data for the first stage; None reads all data alike.
    model_dir: the run's directory, which `model_dir.prepare` locks; None if
      the data belong to no run.
    allow_changes: whether a resumed run may read other data than it began with.
    **kwargs: passed to t5x.

  Returns:
    What `t5x.utils.get_dataset` returns, or a `step_batches.StepIterator`.

  Raises:
    ValueError: the data cannot be resumed as `save_dataset` says; the
      selection, the data or the number of processes are not those of this
      run; the first batch has no loss tokens; or the directory is in use.
  """
  data = f'MIXTURE_OR_TASK_NAME = {cfg.mixture_or_task_name!r}'
  by_step = False
  if model_dir is not None:
    reason = data_iterators.reason_to_save(cfg)
    by_step = not save_dataset and reason is None
    if save_dataset and reason:
      logging.warning(
        '%s: the step alone does not determine which examples come next, '
        "because %s. So checkpoints hold t5x's data iterators (SAVE_DATASET): "
        'the run resumes only with as many processes, and with the TensorFlow, '
        'that saved them.',
        data,
        reason,
      )
    model_dir_lib.prepare(model_dir)
    if by_step:
      data_iterators.refuse_saved(model_dir, allow_changes)
    _compare(model_dir, cfg, save_dataset, allow_changes)
    if save_dataset:
      data_iterators.check_shares(model_dir, num_shards)
    elif not by_step:
      data_iterators.refuse_to_begin_again(model_dir, allow_changes)
  if selection is not None:
    cfg = dataclasses.replace(cfg, mixture_or_task_name=selection.task(cfg))

  def read(provider):
    return utils.get_dataset(
      dataclasses.replace(cfg, mixture_or_task_name=provider),
      *(shard_id, num_shards, feature_converter_cls, *args),
      **kwargs,
    )

  # The whole batch, so that all hosts agree, from data of its own: tf.data
  # shuffles the same data set in another order the second time.
  whole = utils.get_dataset(cfg, 0, 1, feature_converter_cls, *args, **kwargs)
  first = next(whole.as_numpy_iterator(), {})
  check_loss_tokens(first, data, 'name another task')
  if by_step:
    task = cfg.mixture_or_task_name
    if selection is None:
      task = seqio.get_mixture_or_task(task)
    return step_batches.StepIterator(
      lambda batch: read(task.reading(task.source, batch * cfg.batch_size)),
      model_dir,
    )
  dataset = read(cfg.mixture_or_task_name)
  if isinstance(dataset, tf.data.Dataset) and save_dataset:
    data_iterators.check_serializable(dataset, cfg)
  return dataset


def check_loss_tokens(
  batch: Mapping[str, Any], parameter: str, remedy: str
) -> None:
  """Checks that a batch trains or evaluates something.

  Args:
    batch: the first batch of the data; {} if there is none.
    parameter: the gin parameter of the data and its value.
    remedy: an imperative clause for the message.

  Raises:
    ValueError: all loss weights are 0.
  """
  weights = batch.get('decoder_loss_weights')
  if weights is None:
    weights = batch.get('decoder_target_tokens', np.zeros(0)) > 0
  # Under jit, because a batch may be spread over several hosts.
  if not jax.jit(jnp.any)(weights):
    raise ValueError(
      f'{parameter}: the first batch has no token with a loss weight. Check '
      f'the task and TASK_FEATURE_LENGTHS, or {remedy}.'
    )


def check_model(
  cfg: utils.DatasetConfig,
  model: t5x_models.DecoderOnlyModel,
  model_dir: str | None = None,
  train_cfg: utils.DatasetConfig | None = None,
  eval_period: int | None = None,
) -> None:
  """Compares the model with the data and with the run's own checkpoint.

  For t5x's `train.verify_matching_vocabs_fn`. t5x would restore a checkpoint of
  more layers, and drop those that the model lacks.

  Args:
    cfg: the training data, or those of an evaluation.
    model: the run's.
    model_dir: the run's directory, or None.
    train_cfg: the training data; None if `cfg` is that.
    eval_period: steps between evaluations; if 0, evaluation data may be
      anything, as they are not read.

  Raises:
    ValueError: the vocabularies differ (`check_vocabulary`), the lengths do not
      fit (`lengths.check`), or the newest checkpoint has another architecture.
  """
  train_cfg = train_cfg or cfg
  if cfg != train_cfg and eval_period == 0:
    return
  is_train = cfg.mixture_or_task_name == train_cfg.mixture_or_task_name
  if is_train:
    name = cfg.mixture_or_task_name
    command.get_task(name, f'MIXTURE_OR_TASK_NAME = {name!r}')
    data_iterators.refuse_earlier_version(cfg, model_dir)
  prefix = '' if is_train else 'EVAL_'
  check_vocabulary(cfg, model, f'{prefix}MIXTURE_OR_TASK_NAME')
  lengths.check(cfg, model.FEATURE_CONVERTER_CLS)
  found = find.finished(model_dir) if model_dir else {}
  whole = (x for _, x in sorted(found.items())[::-1] if not damage.describe(x))
  if (checkpoint := next(whole, None)) is None:
    return
  shape = 1, max(cfg.task_feature_lengths.values())
  variables = jax.eval_shape(
    lambda rng: model.get_initial_variables(
      rng,
      {'decoder_input_tokens': shape},
      {'decoder_input_tokens': jnp.int32},
    ),
    jax.random.PRNGKey(0),
  )
  record = run_record.read(model_dir)
  changes = record and run_record.network_changes(
    record, models.describe(model)
  )
  listed = ', '.join(
    f'{name} = {now!r}, and was {was!r}'
    for name, (was, now) in (changes or {}).items()
  )
  restore.check_architecture(
    checkpoint,
    flax.core.unfreeze(variables['params']),
    f'MODEL_DIR = {model_dir!r}: MODEL' + (listed and f' ({listed})'),
  )


def check_vocabulary(
  cfg: utils.DatasetConfig,
  model: t5x_models.DecoderOnlyModel,
  parameter: str = 'MIXTURE_OR_TASK_NAME',
) -> None:
  """Compares the contents of the task's vocabularies with the model's.

  Args:
    cfg: the data set.
    model: a t5x model.
    parameter: the gin parameter that names the task.

  Raises:
    ValueError: there is no such task, the vocabularies differ (a pass-through
      vocabulary may have fewer tokens), the special ids cannot be used, or
      seqio's cache of the task was made with another vocabulary.
  """
  mine = model.output_vocabulary
  vocabularies.check_special_ids(mine, 'VOCABULARY')
  data = f'{parameter} = {cfg.mixture_or_task_name!r}'
  provider = command.get_task(cfg.mixture_or_task_name, data)
  features = dict(provider.output_features)
  for task in seqio.get_subtasks(provider):
    if isinstance(task.source, ordered_cache.CachedSource):
      cached = task.source.cached_task
      if cfg.split in task.splits:
        task.source.warn_of_other_text(cfg.split)
      shared = provider.output_features.keys() & cached.output_features
      features |= {
        f'{x} of {cached.name}': cached.output_features[x] for x in shared
      }
    elif cache := _raw_cache(task, cfg):
      cache.check(task)
  for feature_name, feature in features.items():
    theirs = feature.vocabulary
    if isinstance(theirs, seqio.PassThroughVocabulary):
      if theirs.vocab_size <= mine.vocab_size:
        continue
    elif vocabularies.fingerprint(
      theirs, f'{data}: the vocabulary of its feature {feature_name!r}'
    ) == vocabularies.fingerprint(mine):
      continue
    raise ValueError(
      f'{data}: its feature {feature_name!r} has {theirs} with '
      f'{theirs.vocab_size} tokens, but VOCABULARY is {mine} with '
      f'{mine.vocab_size}. Bind '
      'VOCABULARY (sentencepiece_model_file and extra_ids) to the one that the '
      'task was registered with, and VOCAB_SIZE to at least its number of '
      'tokens, or name a task with the vocabulary of the model.'
    )


def find_batch(
  task: seqio.Task, model_dir: str, step: int, batch_size: int | None = None
) -> tuple[ordered_tasks.OrderedTask, int]:
  """Finds what a run reads, or read, at a step.

  Args:
    task: that it trains on.
    model_dir: its directory.
    step: the step.
    batch_size: the run's B; None takes it from the record of the run.

  Returns:
    (the task with the run's selected examples first, the position of the first
    example in its order).

  Raises:
    ValueError: the run's records are missing or damaged, or differ from these,
      or the step does not determine the batch.
  """
  ordered_cache.get_task(task.name)
  read = files.read_json_object(_path(model_dir))
  split, lengths = (
    read['utils.DatasetConfig.split'],
    read['TASK_FEATURE_LENGTHS'],
  )
  here = {
    'MIXTURE_OR_TASK_NAME': task.name,
    'BATCH_SIZE': batch_size or read['BATCH_SIZE'],
    'data_fingerprints': {task.name: task.source.fingerprint(split)},
  }
  if found := files.differences({x: read[x] for x in here}, here):
    listed = ', '.join(
      f'{x} is {a!r} there and {b!r} here' for x, (a, b) in found.items()
    )
    raise ValueError(f'the run has other data: {listed}.')
  if read['utils.DatasetConfig.pack'] or not task.maps_examples(lengths, split):
    raise ValueError('the step does not determine the batches of this run.')
  skipped = run_record.skipped(run_record.read(model_dir), step)
  selection = os.path.join(model_dir, 'selection.json')
  if tf.io.gfile.exists(selection):
    task = first_stage.selected_task(task, selection_record.read(selection))
  return task, (step + skipped) * read['BATCH_SIZE']
