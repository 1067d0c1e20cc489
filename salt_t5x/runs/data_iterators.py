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

"""t5x's data iterators in checkpoints, for data without a global order.

Where the step alone does not determine which examples come next, checkpoints
hold the state of each process's iterator (SAVE_DATASET). It fits only as many
processes, and the TensorFlow, that saved it.
"""

from absl import logging
import seqio
import tensorflow as tf

from salt_t5x.checkpoints import damage, find
from salt_t5x.data import ordered_cache, ordered_tasks
from t5x import utils

# The value of tf.data's ExternalStatePolicy that raises an error.
_FAIL = 2


def check_shares(model_dir: str, num_shards: int) -> None:
  """Compares the number of saved data iterators with the processes."""
  finished = find.finished(model_dir)
  if not finished:
    return
  step = max(finished)
  if not damage.has_data_iterator(finished[step]):
    raise ValueError(
      f'SAVE_DATASET = True, but {finished[step]} holds no data iterator. '
      'Resume the run with the value it began with (None or False), or choose '
      'another MODEL_DIR.'
    )
  before = damage.data_shares(finished[step])
  if before not in (None, num_shards):
    raise ValueError(
      f'MODEL_DIR = {model_dir!r} was trained by processes that read {before} '
      f'shares of the data, and its data iterators do not fit {num_shards}. '
      'Resume it with the same number of processes.'
    )


def refuse_earlier_version(
  cfg: utils.DatasetConfig, model_dir: str | None
) -> None:
  """Refuses to resume a run that read a cache before it was shuffled."""
  finished = find.finished(model_dir) if model_dir else {}
  if not (finished and damage.has_data_iterator(finished[max(finished)])):
    return
  provider = seqio.get_mixture_or_task(cfg.mixture_or_task_name)
  for task in seqio.get_subtasks(provider):
    is_ours = isinstance(task.source, ordered_cache.CachedSource)
    if is_ours and not task.source.is_shuffled(cfg.split):
      raise ValueError(
        f'MODEL_DIR = {model_dir!r} holds a run of an earlier version of '
        f'salt_t5x, whose cache, {task.source.cached_task.cache_dir}, is not '
        'shuffled. Finish it with that version, or begin another run on a '
        'shuffled cache in another MODEL_DIR.'
      )


def refuse_saved(model_dir: str, allow_changes: bool) -> None:
  """Refuses to resume a run that saved its place in the data."""
  finished = find.finished(model_dir)
  step = max(finished, default=0)
  if not (step and damage.has_data_iterator(finished[step])):
    return
  found = (
    f'MODEL_DIR = {model_dir!r}: {finished[step]} holds a data iterator, as '
    'earlier versions of salt_t5x saved them (or SAVE_DATASET = True), but '
    'this run reads the batches that its step determines'
  )
  if not allow_changes:
    raise ValueError(
      f'{found}. Finish the run with the version and the SAVE_DATASET that '
      'began it, or choose another MODEL_DIR; ALLOW_CHANGES_ON_RESUME = True '
      f'continues with batch {step} of the order, of which the run may have '
      'read some sequences before.'
    )
  logging.warning('%s.', found)


def refuse_to_begin_again(model_dir: str, allow_changes: bool) -> None:
  """Refuses to resume a run without its place in the data."""
  step = max(find.finished(model_dir), default=0)
  if not step:
    return
  found = (
    f'SAVE_DATASET = False: MODEL_DIR = {model_dir!r} resumes at step {step}, '
    'but reads its data from the beginning again'
  )
  if not allow_changes:
    raise ValueError(
      f'{found}. Set SAVE_DATASET = True in another MODEL_DIR, or allow this '
      'with ALLOW_CHANGES_ON_RESUME = True.'
    )
  logging.warning('%s.', found)


def check_serializable(
  dataset: tf.data.Dataset, cfg: utils.DatasetConfig
) -> None:
  """Checks that the state of an iterator over the data can be saved."""
  try:
    tf.raw_ops.DatasetToGraphV2(
      input_dataset=tf.data.experimental.to_variant(dataset),
      external_state_policy=_FAIL,
    )
  except tf.errors.FailedPreconditionError as e:
    name = seqio.get_mixture_or_task(cfg.mixture_or_task_name).name
    raise ValueError(
      f'MIXTURE_OR_TASK_NAME = {name!r}: its iterator cannot be saved, so a '
      f'stopped run could not resume with the same data ({e.message}). Cache '
      'the task with seqio_cache_tasks and set USE_CACHED_TASKS = True, with '
      'preprocessors that are random or run Python before its '
      'seqio.CacheDatasetPlaceholder. To train a run that is never resumed, '
      'set SAVE_DATASET = False.'
    ) from e


def reason_to_save(cfg: utils.DatasetConfig) -> str | None:
  """Why the step alone does not determine a batch; None if it does."""
  provider = seqio.get_mixture_or_task(cfg.mixture_or_task_name)
  if not isinstance(provider, ordered_tasks.OrderedTask):
    return 'it has no global order, such as that of text_tasks.register'
  if cfg.pack:
    return 'utils.DatasetConfig.pack = True packs examples into batches'
  if not provider.maps_examples(cfg.task_feature_lengths, cfg.split):
    return (
      'its preprocessors do not map one example to one, whatever the position '
      'they begin at (filters, shuffling, random seeds that seqio draws)'
    )
  return None


def saves_iterator(
  train_cfg: utils.DatasetConfig, save_dataset: bool | None
) -> bool:
  """Decides whether checkpoints hold t5x's data iterator.

  Args:
    train_cfg: the training data.
    save_dataset: what the user wants (SAVE_DATASET); None saves it only where
      the step alone does not determine the batches.
  """
  if save_dataset is not None:
    return save_dataset
  try:
    return reason_to_save(train_cfg) is not None
  except (KeyError, OSError, ValueError):
    # No task, or no cache: `check_model` and `get_dataset` name what is wrong.
    return False
