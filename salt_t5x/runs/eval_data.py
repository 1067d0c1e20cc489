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

"""A run's evaluation data: every example counts once."""

from collections.abc import Callable
import dataclasses

from absl import logging
import seqio
import tensorflow as tf

from salt_t5x.runs import train_data
from t5x import utils

_PARAMETER = 'EVAL_MIXTURE_OR_TASK_NAME'
_OFF = 'set EVAL_PERIOD = 0 to train without evaluation'


def get_datasets(
  cfg: utils.DatasetConfig,
  shard_id: int,
  num_shards: int,
  eval_steps: int,
  feature_converter_cls: Callable[..., seqio.FeatureConverter],
  *,
  eval_period: int,
) -> dict[str, tf.data.Dataset]:
  """Reads evaluation data; for t5x's `train.train_eval_get_dataset_fn`.

  t5x's own function repeats a short split to fill `eval_steps` batches, so some
  of its examples would count more often than others. This one evaluates such a
  split once and fills its last batch with padding, which has no loss weight.

  Args:
    cfg: the task or mixture, and the size B of a batch.
    shard_id: the host's share of each batch.
    num_shards: number of shares.
    eval_steps: number of batches to read at most.
    feature_converter_cls: makes a seqio feature converter.
    eval_period: steps between evaluations; 0 for none.

  Returns:
    {name: batches of [B / num_shards, ...] features}, of each task that has the
    split, and of the mixture if it is one; empty if nothing is evaluated.

  Raises:
    ValueError: no task has the split, or its first batch has no loss tokens.
  """
  if not eval_period:
    return {}
  provider = seqio.get_mixture_or_task(cfg.mixture_or_task_name)
  tasks = list(seqio.get_subtasks(provider))
  names = [x.name for x in tasks if cfg.split in x.splits]
  if not names:
    splits = sorted({split for x in tasks for split in x.splits})
    raise ValueError(
      f'{_PARAMETER} = {provider.name!r} has no split {cfg.split!r}, only '
      f'{splits}: name a task that has it, or another split (EVAL_SPLIT of '
      f'sft.gin, train_eval/utils.DatasetConfig.split), or {_OFF}.'
    )
  if missing := [x.name for x in tasks if x.name not in names]:
    logging.warning(
      '%s = %r: not evaluated on %s, which have no split %r.',
      _PARAMETER,
      provider.name,
      missing,
      cfg.split,
    )
  if isinstance(provider, seqio.Mixture):
    names.append(provider.name)
  logging.info(
    'Evaluating %s on the split %r, each example once, in at most EVAL_STEPS = '
    '%d batches.',
    names,
    cfg.split,
    eval_steps,
  )

  def read(name):
    examples = utils.get_dataset(
      dataclasses.replace(cfg, mixture_or_task_name=name, batch_size=1),
      0,
      1,
      feature_converter_cls,
      num_epochs=1,
    )
    batches = examples.unbatch().batch(cfg.batch_size)
    first = next(batches.as_numpy_iterator(), {})
    train_data.check_loss_tokens(first, f'{_PARAMETER} = {name!r}', _OFF)
    batches = batches.map(lambda x: _share(x, cfg, shard_id, num_shards))
    batches = batches.take(eval_steps)
    # The embedded engine always caches.
    return (
      batches.cache() if getattr(cfg, 'use_memory_cache', True) else batches
    )

  return {name: read(name) for name in names}


def _share(batch, cfg: utils.DatasetConfig, shard_id: int, num_shards: int):
  """Fills a batch with padding, and takes every `num_shards`-th row."""

  def share(x):
    missing = [[0, cfg.batch_size - tf.shape(x)[0]], *[[0, 0]] * (x.ndim - 1)]
    x = tf.ensure_shape(tf.pad(x, missing), [cfg.batch_size, *x.shape[1:]])
    return x[shard_id::num_shards]

  return {name: share(x) for name, x in batch.items()}
