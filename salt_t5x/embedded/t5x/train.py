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

from absl import app, flags, logging
import jax
import seqio
import tensorflow as tf

from t5x import _subset, gin_utils, models, partitioning, utils
from t5x import trainer as trainer_lib

__getattr__ = _subset.missing(__name__)


# Keeps data iterators alive: deleting one blocks for up to a minute, until
# tf.data ends its threads.
_iterators = []


def _steps_between_stops(eval_period: int, checkpoint_period: int, total: int):
  """Returns the number of steps between two stops, as t5x counts them."""
  periods = [p for p in (eval_period, checkpoint_period) if p]
  step = min(periods, default=total)
  if any(p % step for p in periods):
    raise ValueError(
      f'eval_period ({eval_period}) and SaveCheckpointConfig.period '
      f'({checkpoint_period}) must be multiples of each other.'
    )
  return step


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
  verify_matching_vocabs_fn: Callable[..., None],
):
  """Trains; see t5x's documentation.

  Returns:
    (last step, last train state).
  """
  if infer_eval_dataset_cfg is not None:
    _subset.refuse('infer_eval_dataset_cfg')
  tf.io.gfile.makedirs(model_dir)
  save = checkpoint_cfg.save
  period = (save and save.period) or 0
  if random_seed is None:
    random_seed = int(time.time())
  init_rng, trainer_rng = jax.random.split(jax.random.PRNGKey(random_seed))

  layout = partitioner.get_data_layout(train_dataset_cfg.batch_size)
  verify_matching_vocabs_fn(train_dataset_cfg, model)
  train_iter = utils.prepare_train_iter(
    get_dataset_fn(
      train_dataset_cfg,
      layout.shard_id,
      layout.num_shards,
      model.FEATURE_CONVERTER_CLS,
    ),
    partitioner=partitioner,
  )
  _iterators.append(train_iter)
  eval_datasets = {}
  if train_eval_dataset_cfg is not None:
    verify_matching_vocabs_fn(train_eval_dataset_cfg, model)
    eval_datasets = utils.get_training_eval_datasets(
      train_eval_dataset_cfg, eval_steps, model.FEATURE_CONVERTER_CLS
    )

  initializer = utils.TrainStateInitializer(
    optimizer_def=model.optimizer_def,
    init_fn=model.get_initial_variables,
    input_shapes={k: v.shape for k, v in train_iter.element_spec.items()},
    input_types={k: v.dtype for k, v in train_iter.element_spec.items()},
    partitioner=partitioner,
  )
  restore_path = utils.find_restore_path(model_dir, checkpoint_cfg.restore)
  checkpoint_manager = None
  if period or restore_path:
    # As in t5x, a run that starts from another run's checkpoint also continues
    # with that run's data.
    save = save or utils.SaveCheckpointConfig()
    checkpoint_manager = save.checkpoint_manager_cls(
      directory=model_dir,
      train_state=initializer.global_train_state_shape,
      partitioner=partitioner,
      dataset_iterator=train_iter if save.save_dataset else None,
      save_dtype=save.dtype,
      restore_dtype=checkpoint_cfg.restore and checkpoint_cfg.restore.dtype,
      keep=save.keep,
      period=period,
    )
  if restore_path is None:
    train_state = initializer.from_scratch(init_rng)
  else:
    train_state = checkpoint_manager.restore(restore_path)
  utils.log_model_info(
    os.path.join(model_dir, 'model-info.txt'),
    initializer.global_train_state_shape,
    partitioner,
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
    eval_period = eval_period if eval_datasets else 0
    is_eval_compiled = False
    stride = _steps_between_stops(eval_period, period, total_steps)
    if step < total_steps:
      trainer.compile_train(utils.zeros_like_spec(train_iter.element_spec))
    while step < total_steps:
      stop = min(step + stride, total_steps)
      while step < stop:
        num_steps = min(stats_period or stride, stop - step)
        # Checkpoints that are not at multiples of the period.
        extra = [
          c
          for c in (period and save.checkpoint_steps) or ()
          if step < c <= step + num_steps
          and (c - first_step) % period
          and c != total_steps
        ]
        if extra:
          num_steps = min(extra) - step
        try:
          trainer.train(train_iter, num_steps, start_step=step)
        except trainer_lib.PreemptionError:
          if period:
            save_checkpoint()
          raise
        step += num_steps
        if extra:
          save_checkpoint()
      # As in t5x, periods count from the first step of this process.
      done = step - first_step
      last = step == total_steps
      if period and (last or done % period == 0):
        save_checkpoint()
      if eval_period and (last or done % eval_period == 0):
        if not is_eval_compiled:
          trainer.compile_eval(
            {
              name: utils.zeros_like_spec(dataset.element_spec)
              for name, dataset in eval_datasets.items()
            }
          )
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


def _define_flags():
  flags.DEFINE_multi_string(
    'gin_file', None, 'gin files; later files override earlier ones.'
  )
  flags.DEFINE_multi_string('gin_bindings', [], 'gin bindings.')
  flags.DEFINE_list('gin_search_paths', ['.'], 'search paths of gin files.')
  flags.DEFINE_string('tfds_data_dir', None, 'TFDS data directory.')
  flags.DEFINE_list(
    'seqio_additional_cache_dirs', [], 'folders of cached tasks.'
  )
  flags.DEFINE_boolean(
    'multiprocess_gpu', False, 'not supported by the embedded engine.'
  )


def _main(argv):
  if len(argv) > 1:
    raise ValueError(f'Unknown arguments {argv[1:]}: remove them.')
  if flags.FLAGS.multiprocess_gpu:
    _subset.refuse('more than one process')
  tf.config.experimental.set_visible_devices([], 'GPU')
  if flags.FLAGS.tfds_data_dir:
    seqio.set_tfds_data_dir_override(flags.FLAGS.tfds_data_dir)
  seqio.add_global_cache_dirs(flags.FLAGS.seqio_additional_cache_dirs)
  configured = gin.configurable(train)
  gin_utils.parse_gin_flags(
    flags.FLAGS.gin_search_paths,
    flags.FLAGS.gin_file,
    flags.FLAGS.gin_bindings,
  )
  configured()
  # All files are written; do not wait for tf.data's threads.
  logging.flush()
  sys.stdout.flush()
  atexit._run_exitfuncs()
  os._exit(0)


if __name__ == '__main__':
  import gin  # pylint: disable=g-import-not-at-top

  _define_flags()
  jax.config.parse_flags_with_absl()
  app.run(
    _main,
    flags_parser=lambda args: app.parse_flags_with_usage(
      gin_utils.rewrite_gin_args(args)
    ),
  )
