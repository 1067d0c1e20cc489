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


"""The training data as t5x asks for it, checked before anything compiles.

t5x asks for it before it looks for a checkpoint to go on from, so this is also
where a run takes its directory.
"""

import dataclasses
import hashlib
import json
import os
from typing import Any

import seqio
import tensorflow as tf

from salt_t5x import files
from salt_t5x.checkpoints import damage as damage_lib
from salt_t5x.checkpoints import find, run_record
from salt_t5x.data import ordered_cache
from salt_t5x.runs import model_dir as model_dir_lib
from salt_t5x.selection import first_stage
from t5x import utils

_FILE = 'data.json'
# What a saved data iterator is bound to.
_SHAPES = {
  'BATCH_SIZE',
  'TASK_FEATURE_LENGTHS',
  'USE_CACHED_TASKS',
  'utils.DatasetConfig.pack',
  'utils.DatasetConfig.shuffle',
}

# Of tf.data's ways to meet state outside a data set: fail.
_FAIL = 2


def _what_is_not_saved(dataset: tf.data.Dataset) -> str | None:
  """Why the data set's iterators cannot be saved; None if they can."""
  try:
    tf.raw_ops.DatasetToGraphV2(
      input_dataset=tf.data.experimental.to_variant(dataset),
      external_state_policy=_FAIL,
    )
  except tf.errors.FailedPreconditionError as e:
    return e.message
  return None


def _fingerprint(task: seqio.Task, cfg: utils.DatasetConfig) -> str | None:
  """Tells a task's cached data from other data; None for what is not cached."""
  if isinstance(task.source, ordered_cache.CachedSource):
    return task.source.fingerprint(cfg.split)
  if not (cfg.use_cached and task.cache_dir):
    return None
  prefix = seqio.get_cached_tfrecord_prefix(task.cache_dir, cfg.split)
  digest = hashlib.sha256()
  for file in sorted(tf.io.gfile.glob(f'{prefix}-*')):
    size = tf.io.gfile.stat(file).length
    digest.update(f'{os.path.basename(file)} {size}\n'.encode())
  return digest.hexdigest()[:16]


def describe(cfg: utils.DatasetConfig) -> dict[str, Any]:
  """What the examples of a run, and their order, depend on.

  Args:
    cfg: the training data.

  Returns:
    {gin parameter: JSON value}, among them the fingerprint of each cache.
  """
  provider = seqio.get_mixture_or_task(cfg.mixture_or_task_name)
  return {
    'MIXTURE_OR_TASK_NAME': provider.name,
    'TASK_FEATURE_LENGTHS': dict(cfg.task_feature_lengths),
    'BATCH_SIZE': cfg.batch_size,
    'RANDOM_SEED': cfg.seed,
    'utils.DatasetConfig.split': cfg.split,
    'utils.DatasetConfig.shuffle': cfg.shuffle,
    'utils.DatasetConfig.pack': cfg.pack,
    'USE_CACHED_TASKS': cfg.use_cached,
    'the data themselves': {
      task.name: _fingerprint(task, cfg)
      for task in seqio.get_subtasks(provider)
    },
  }


def record(model_dir: str, cfg: utils.DatasetConfig) -> None:
  """Notes a run's data in its directory, for those who resume it."""
  files.write_json(os.path.join(model_dir, _FILE), describe(cfg))


def _compare(
  model_dir: str, data: dict[str, Any], save_dataset: bool, allow_changes: bool
) -> None:
  """Compares a resumed run's data with what it began with."""
  path = os.path.join(model_dir, _FILE)
  if not (run_record.begun(model_dir) and tf.io.gfile.exists(path)):
    return
  try:
    before = files.read_json_object(path)
  except ValueError as e:
    raise ValueError(
      f'{path} is damaged ({e}). Restore it, or delete it to go on without '
      'comparing the data with what the run began with.'
    ) from e
  changes = {
    name: (before.get(name), value)
    for name, value in json.loads(json.dumps(data)).items()  # As JSON has it.
    if before.get(name) != value
  }
  run_record.refuse_changes(model_dir, changes, allow_changes)
  if save_dataset and (changes.keys() & _SHAPES):
    raise ValueError(
      f'{", ".join(sorted(changes.keys() & _SHAPES))}: the data iterator that '
      f'was saved in {model_dir} does not fit. Resume with what the run began '
      'with, or begin a run in another MODEL_DIR.'
    )


def _check_shares(model_dir: str, num_shards: int) -> None:
  """Looks for the data iterators of as many processes as there are."""
  finished = find.finished(model_dir)
  before = damage_lib.data_shares(finished[max(finished)]) if finished else None
  if before not in (None, num_shards):
    raise ValueError(
      f'MODEL_DIR = {model_dir!r} was trained by processes that read '
      f'{before} shares of the data, and would go on with {num_shards}, which '
      'its saved data iterators do not fit. Resume it with as many processes '
      'as before.'
    )


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
    *args: t5x's.
    save_dataset: whether checkpoints are to hold the iterator.
    selection: SALT_DS's data for the first stage; None reads all data alike.
    model_dir: of the run, which `run_directory.prepare` takes for it; None
      for data of no run.
    allow_changes: whether a resumed run may read other data than it began with.
    **kwargs: t5x's.

  Returns:
    What `t5x.utils.get_dataset` does.

  Raises:
    ValueError: the iterator is to be saved, and cannot be; the selection or
      the data do not belong to this run, or not to as many processes; or its
      directory is in use.
  """
  name = cfg.mixture_or_task_name
  if model_dir is not None:
    model_dir_lib.prepare(model_dir)
    _compare(model_dir, describe(cfg), save_dataset, allow_changes)
    if save_dataset:
      _check_shares(model_dir, num_shards)
  if selection is not None:
    # Where t5x and seqio take a name, they take what it names.
    task = selection.task(cfg)
    cfg = dataclasses.replace(cfg, mixture_or_task_name=task)
  dataset = utils.get_dataset(
    cfg, shard_id, num_shards, feature_converter_cls, *args, **kwargs
  )
  if save_dataset and isinstance(dataset, tf.data.Dataset):
    reason = _what_is_not_saved(dataset)
    if reason:
      tasks = seqio.get_subtasks(seqio.get_mixture_or_task(name))
      cacheable = [t.name for t in tasks if t.supports_caching]
      remedy = (
        f'Cache {", ".join(cacheable)} with seqio_cache_tasks and set '
        'USE_CACHED_TASKS = True.'
        if cacheable and not cfg.use_cached
        else 'Take out of its preprocessors what is random without a seed or '
        'runs Python, or move it before a seqio.CacheDatasetPlaceholder and '
        'cache the task.'
      )
      raise ValueError(
        f'MIXTURE_OR_TASK_NAME = {name!r}: its iterator cannot be saved, so a '
        f'stopped run could not go on with the same data ({reason}). {remedy} '
        'To do without exact resumes, set SAVE_DATASET = False.'
      )
  return dataset


def check_vocabulary(cfg: utils.DatasetConfig, model) -> None:
  """Compares the task's vocabularies with the model's, by their content.

  For t5x's `train.verify_matching_vocabs_fn`; t5x itself compares file names.

  Args:
    cfg: the data set.
    model: a t5x model.

  Raises:
    ValueError: they differ. A task of mere numbers may have fewer tokens.
  """
  mine = model.output_vocabulary
  provider = seqio.get_mixture_or_task(cfg.mixture_or_task_name)
  for name, feature in provider.output_features.items():
    theirs = feature.vocabulary
    if isinstance(theirs, seqio.PassThroughVocabulary):
      if theirs.vocab_size <= mine.vocab_size:
        continue
    elif run_record.fingerprint(theirs) == run_record.fingerprint(mine):
      continue
    raise ValueError(
      f'VOCABULARY is {mine}, {mine.vocab_size} tokens, but the feature '
      f'{name!r} of MIXTURE_OR_TASK_NAME = {cfg.mixture_or_task_name!r} has '
      f'{theirs}, {theirs.vocab_size} tokens: bind VOCABULARY '
      '(sentencepiece_model_file and extra_ids) to the one that the task was '
      'registered with, and VOCAB_SIZE to at least its tokens.'
    )
