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


"""Scores a cache with the teacher: `python -m salt_t5x.score --gin_file=...`.

The gin files are a teacher's, the data's and `runs/score.gin`; flags are those
of t5x's train binary. `score` writes `score_shards` of the whole cache in its
global order. A job that was stopped goes on when it is started again: it makes
the shards that are missing.
"""

from collections.abc import Iterator
import os
import time

from absl import logging
import gin
import jax
from jax.experimental import multihost_utils
import numpy as np
import seqio
import tensorflow as tf

from salt_t5x import command as command_lib
from salt_t5x import teacher as teacher_lib
from salt_t5x.checkpoints import find
from salt_t5x.data import ordered_cache
from salt_t5x.inference import batches as batches_lib
from salt_t5x.runs import train_data
from salt_t5x.selection import score_shards, scorer, scoring
from t5x import partitioning, utils

_FEATURES = ('targets', 'id', 'domain')


def score(
  dataset_cfg: utils.DatasetConfig,
  teacher: teacher_lib.Teacher,
  partitioner: partitioning.BasePartitioner,
  output_dir: str,
  top_k: int = 10,
  examples: int | None = None,
  batches_per_shard: int = 32,
) -> score_shards.Manifest:
  """Scores the examples of a split.

  Args:
    dataset_cfg: a task over a `global_order.CachedSource`, its split, its
      'targets' length T and the batch size. What such a task draws or cuts
      plays no part: the sequences of its cache are scored.
    teacher: scores them.
    partitioner: shards the teacher and the batch over all hosts' devices.
    output_dir: the folder of scores.
    top_k: k of eq. (10).
    examples: how many, from the beginning of the global order; None for all. A
      selection can only choose from what is scored.
    batches_per_shard: batches in a shard.

  Returns:
    What was scored.

  Raises:
    ValueError: the teacher, k or the batch do not fit; the folder holds other
      scores; or examples are missing, or lack the 'id' that selections go by.
  """
  length = command_lib.check_lengths(dataset_cfg.task_feature_lengths)[
    'targets'
  ]
  source = ordered_cache.get_task(dataset_cfg.mixture_or_task_name).source
  split = dataset_cfg.split
  train_data.check_vocabulary(dataset_cfg, teacher.model)
  teacher.find()
  teacher.check_vocabulary(teacher.model.output_vocabulary)
  if type(batches_per_shard) is not int or batches_per_shard < 1:
    raise ValueError(
      f'score.score.batches_per_shard = {batches_per_shard!r}: set it to a '
      'number of at least 1.'
    )
  available = source.num_input_examples(split)
  if examples is not None and not (
    type(examples) is int and 1 <= examples <= available
  ):
    raise ValueError(
      f'score.score.examples = {examples!r} (SCORED_EXAMPLES) is not between 1 '
      f'and the {available} examples of {source.cached_task.name} ({split}).'
    )
  score_batch = scorer.Scorer(
    teacher, partitioner, dataset_cfg.batch_size, length, top_k
  )
  manifest = score_shards.Manifest(
    task=source.cached_task.name,
    split=split,
    data=source.fingerprint(split),
    teacher=os.fspath(score_batch.checkpoint),
    step=find.step_of(score_batch.checkpoint),
    dtype=teacher.dtype,
    top_k=top_k,
    examples=examples or available,
    shard_size=batches_per_shard * dataset_cfg.batch_size,
  )
  # All processes look, or the others would wait for the one that fails.
  score_shards.begin(output_dir, manifest, write=jax.process_index() == 0)
  missing = _missing(output_dir, manifest)
  todo = int(sum(map(manifest.examples_of, np.flatnonzero(missing))))
  if todo < manifest.examples:
    logging.info(
      '%d of %d sequences are scored.',
      manifest.examples - todo,
      manifest.examples,
    )
  if not todo:
    return manifest
  records, domains, done = [], {}, 0
  shards = iter(np.flatnonzero(missing))
  start = time.time()
  with batches_lib.progress_bar(todo, 'sequence', unit_scale=True) as progress:
    for batch in _batches(source, manifest, missing, dataset_cfg.batch_size):
      records.append(_records(batch, score_batch(batch['targets']), domains))
      progress.update(len(batch['id']))
      done += len(batch['id'])
      count = sum(map(len, records))
      if not count % manifest.shard_size or done == todo:
        index = int(next(shards))
        if jax.process_index() == 0:
          score_shards.write_shard(
            output_dir, index, np.concatenate(records), list(domains)
          )
        logging.info(
          'Shard %d: %d of %d sequences in all, %.0f tokens per second.',
          index,
          done,
          todo,
          done * length / (time.time() - start),
        )
        records, domains = [], {}
  if done != todo:
    raise ValueError(
      f'The cache {source.cached_task.cache_dir} says that it holds '
      f'{available} examples, but {todo - done} of them are '
      f'missing: restore its files, or cache {source.cached_task.name} anew.'
    )
  return manifest


def _missing(output_dir: str, manifest: score_shards.Manifest) -> np.ndarray:
  """Which shards are still to be made, bool; the same answer on all hosts."""
  missing = np.array(
    [
      not score_shards.has_shard(output_dir, index)
      for index in range(manifest.num_shards)
    ],
    bool,
  )
  if jax.process_count() > 1:
    missing = np.asarray(multihost_utils.broadcast_one_to_all(missing))
  return missing


def _batches(
  source: ordered_cache.CachedSource,
  manifest: score_shards.Manifest,
  missing: np.ndarray,
  batch_size: int,
) -> Iterator[dict[str, np.ndarray]]:
  """Yields the batches of the missing shards; none reaches into two shards."""
  parse = source.parser(manifest.split)
  records = source.records(manifest.split).take(manifest.examples)
  records = records.enumerate().filter(
    lambda i, _: tf.gather(missing, i // manifest.shard_size)
  )
  examples = records.map(
    lambda _, record: _example(parse(record), source.cached_task),
    num_parallel_calls=tf.data.AUTOTUNE,
  )
  batches = examples.padded_batch(batch_size).prefetch(tf.data.AUTOTUNE)
  with source.naming_damage(manifest.split):
    yield from batches.as_numpy_iterator()


def _example(
  example: dict[str, tf.Tensor], task: seqio.Task
) -> dict[str, tf.Tensor]:
  if 'id' not in example:
    raise ValueError(
      f"The examples of {task.name} have no 'id', which selections go by: "
      'make them with salt_t5x.data.sequences.cut, and cache the task anew.'
    )
  example = {'domain': tf.constant(''), **example}
  return {name: example[name] for name in _FEATURES}


def _records(
  batch: dict[str, np.ndarray],
  found: dict[str, np.ndarray],
  domains: dict[str, int],
) -> np.ndarray:
  """Makes records; numbers new domains in `domains`."""
  records = np.zeros(len(batch['id']), score_shards.RECORD)
  records['id'] = batch['id']
  records['domain'] = [
    domains.setdefault(name.decode(errors='backslashreplace'), len(domains))
    for name in batch['domain']
  ]
  for kind in scoring.KINDS:
    records[kind] = found[kind]
  return records


def main() -> None:
  manifest = gin.get_configurable(score)()
  print(
    f'{manifest.examples} sequences of {manifest.task} ({manifest.split}) are '
    f'scored by {manifest.teacher}.\n'
    'Next: salt_t5x.select chooses from them.'
  )


if __name__ == '__main__':
  from salt_t5x import score as module

  command_lib.start(module.main)
