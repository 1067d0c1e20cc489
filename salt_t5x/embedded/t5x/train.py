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

"""Trains a model: the part of t5x's `train` that SALT's gin files use."""

import atexit
from collections.abc import Callable
import os
import sys
import time
from typing import Any

from absl import logging
from clu.data import dataset_iterator
import gin
import jax
import tensorflow as tf

from t5x import _subset, checkpoints, models, partitioning, utils
from t5x import trainer as trainer_lib

__getattr__ = _subset.missing(__name__)

# Keeps data iterators alive: deleting one blocks for up to a minute, until
# tf.data ends its threads.
_iterators = []


class _ShardedIterator(dataset_iterator.DatasetIterator):
  """A data iterator that puts each batch on the mesh."""

  def __init__(
    self,
    batches: tf.data.Dataset | dataset_iterator.DatasetIterator,
    sharding: jax.sharding.Sharding,
  ):
    if isinstance(batches, tf.data.Dataset):
      batches = dataset_iterator.TfDatasetIterator(batches, checkpoint=True)
    self._batches = batches
    self._sharding = sharding

  def __next__(self):
    return jax.device_put(next(self._batches), self._sharding)

  def reset(self):
    self._batches.reset()

  @property
  def element_spec(self):
    return self._batches.element_spec

  def save(self, filename):
    self._batches.save(filename)

  def restore(self, filename):
    self._batches.restore(filename)


def _batch(dataset) -> dict[str, jax.ShapeDtypeStruct]:
  """The shapes and dtypes of a data set's batches."""
  return {
    k: jax.ShapeDtypeStruct(x.shape, tf.as_dtype(x.dtype).as_numpy_dtype)
    for k, x in dataset.element_spec.items()
  }


@_subset.subset_of_t5x
def train(
  *,
  model: models.DecoderOnlyModel,
  train_dataset_cfg: utils.DatasetConfig,
  train_eval_dataset_cfg: utils.DatasetConfig | None,
  infer_eval_dataset_cfg: None,
  checkpoint_cfg: utils.CheckpointConfig,
  partitioner: partitioning.PjitPartitioner,
  trainer_cls: Callable[..., Any],
  model_dir: str,
  total_steps: int,
  eval_steps: int,
  eval_period: int,
  stats_period: int | None = None,
  random_seed: int | None,
  summarize_config_fn: Callable[..., None],
  get_dataset_fn: Callable[..., Any],
  train_eval_get_dataset_fn: Callable[..., Any],
  verify_matching_vocabs_fn: Callable[..., None],
):
  """Trains; see t5x's documentation.

  Returns:
    (last step, last train state).
  """
  if infer_eval_dataset_cfg is not None:
    _subset.refuse('infer_eval_dataset_cfg')
  tf.io.gfile.makedirs(model_dir)
  save = checkpoint_cfg.save or utils.SaveCheckpointConfig()
  period = save.period or 0
  eval_period = eval_period if train_eval_dataset_cfg is not None else 0
  if random_seed is None:
    random_seed = int(time.time())
  init_rng, trainer_rng = jax.random.split(jax.random.PRNGKey(random_seed))

  batch_sharding = partitioner.shardings(partitioner.data_partition_spec)
  try:
    batch_sharding.shard_shape((train_dataset_cfg.batch_size,))
  except ValueError as e:
    raise ValueError(
      f'BATCH_SIZE = {train_dataset_cfg.batch_size} is not a multiple of the '
      f'devices that share a batch: choose a multiple. ({e})'
    ) from e
  verify_matching_vocabs_fn(train_dataset_cfg, model)
  train_iter = _ShardedIterator(
    get_dataset_fn(train_dataset_cfg, 0, 1, model.FEATURE_CONVERTER_CLS),
    batch_sharding,
  )
  _iterators.append(train_iter)
  eval_datasets = {}
  if train_eval_dataset_cfg is not None:
    verify_matching_vocabs_fn(train_eval_dataset_cfg, model)
    eval_datasets = train_eval_get_dataset_fn(
      train_eval_dataset_cfg, 0, 1, eval_steps, model.FEATURE_CONVERTER_CLS
    )

  initializer = utils.TrainStateInitializer(
    optimizer_def=model.optimizer_def,
    init_fn=model.get_initial_variables,
    input_shapes={k: v.shape for k, v in train_iter.element_spec.items()},
    input_types={k: v.dtype for k, v in train_iter.element_spec.items()},
    partitioner=partitioner,
  )
  restore_path = checkpoints.find_restore_path(
    model_dir, checkpoint_cfg.restore
  )
  checkpoint_manager = None
  if period or restore_path:
    # As in t5x, a run that starts from another run's checkpoint also continues
    # with that run's data, if an iterator was saved.
    checkpoint_manager = checkpoints.OrbaxCheckpointManagerInterface(
      directory=model_dir,
      train_state=initializer.global_train_state_shape,
      partitioner=partitioner,
      dataset_iterator=train_iter if save.save_dataset else None,
      keep=save.keep,
      period=save.period,
    )
  if restore_path is None:
    train_state = initializer.from_scratch(init_rng)
  else:
    train_state = checkpoint_manager.restore(restore_path)

  periods = [p for p in (period, eval_period) if p]
  if any(p % min(periods) for p in periods):
    raise ValueError(
      f'EVAL_PERIOD = {eval_period} and CHECKPOINT_PERIOD = {period}: one '
      'must be a multiple of the other.'
    )
  first_step = step = int(train_state.step)
  with trainer_cls(
    model=model,
    train_state=train_state,
    partitioner=partitioner,
    train_state_axes=initializer.train_state_axes,
    eval_names=list(eval_datasets),
    summary_dir=model_dir,
    rng=trainer_rng,
  ) as trainer:
    del train_state
    summarize_config_fn(
      model_dir, trainer.train_metrics_manager.summary_writer, step
    )

    def save_checkpoint():
      checkpoint_manager.save(trainer.train_state)
      checkpoint_manager.wait_until_finished()

    if period and step not in checkpoint_manager.all_steps():
      save_checkpoint()
    if total_steps < step:
      raise ValueError(
        f'TRAIN_STEPS = {total_steps}, but the checkpoint in {model_dir} is '
        f'of step {step}: raise TRAIN_STEPS, or choose another MODEL_DIR.'
      )
    # Checkpoints that are not at multiples of the period.
    extra = {
      c
      for c in (period and save.checkpoint_steps) or ()
      if (c - first_step) % period and c != total_steps
    }
    if step < total_steps:
      trainer.compile_train(_batch(train_iter))
    is_eval_compiled = False
    while step < total_steps:
      # As in t5x, periods count from the first step of this process.
      done = step - first_step
      stop = min(
        total_steps,
        step + (stats_period or total_steps),
        *(step + p - done % p for p in periods),
        *(c for c in extra if c > step),
      )
      try:
        trainer.train(train_iter, stop - step, start_step=step)
      except trainer_lib.PreemptionError:
        if period:
          save_checkpoint()
        raise
      step = stop
      done = step - first_step
      last = step == total_steps
      if period and (last or done % period == 0 or step in extra):
        save_checkpoint()
      if eval_datasets and eval_period and (last or done % eval_period == 0):
        if not is_eval_compiled:
          trainer.compile_eval({k: _batch(x) for k, x in eval_datasets.items()})
          is_eval_compiled = True
        trainer.eval(
          {
            name: dataset.as_numpy_iterator()
            for name, dataset in eval_datasets.items()
          }
        )
    if checkpoint_manager:
      checkpoint_manager.close()
    return step, trainer.train_state


def _main():
  _configured_train()
  # All files are written; do not wait for tf.data's threads.
  logging.flush()
  sys.stdout.flush()
  atexit._run_exitfuncs()
  os._exit(0)


if __name__ == '__main__':
  from salt_t5x import command  # It imports t5x.

  if any(x.startswith('--multiprocess_gpu') for x in sys.argv):
    _subset.refuse('more than one process')
  # Run files bind `__main__.train`.
  _configured_train = gin.configurable(train)
  command.run_configured(_main, 'salt_t5x.train', 'Trains a model')
