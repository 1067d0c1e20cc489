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
global order. Rerunning a job computes only the missing shards.
"""

import itertools
import os
import time

from absl import logging
import jax
import numpy as np

from salt_t5x import command as command_lib
from salt_t5x import teacher as teacher_lib
from salt_t5x.checkpoints import find
from salt_t5x.data import lengths as lengths_lib
from salt_t5x.data import ordered_cache
from salt_t5x.inference import batches as batches_lib
from salt_t5x.runs import train_data
from salt_t5x.selection import score_job, score_shards, scorer
from t5x import partitioning, utils


def score(
  dataset_cfg: utils.DatasetConfig,
  teacher: teacher_lib.Teacher,
  partitioner: partitioning.BasePartitioner,
  output_dir: str,
  top_k: int = 10,
  examples: int | None = None,
  batches_per_shard: int = 32,
) -> str:
  """Scores the examples of a split.

  Args:
    dataset_cfg: a task over an `ordered_cache.CachedSource`, its split, its
      'targets' length T and the batch size. The sequences of the cache are
      scored, without the task's preprocessing.
    teacher: scores them.
    partitioner: shards the teacher and the batch over all hosts' devices.
    output_dir: the folder of scores.
    top_k: k of eq. (10).
    examples: number of examples, the first of the global order; None for all.
      Only scored examples can be selected.
    batches_per_shard: batches in a shard.

  Returns:
    A message that names the next step.

  Raises:
    ValueError: the teacher, k or the batch do not fit; the folder holds other
      scores; or examples are missing, or lack the 'id' that selection needs.
  """
  length = lengths_lib.check_form(dataset_cfg.task_feature_lengths)['targets']
  source = ordered_cache.get_task(dataset_cfg.mixture_or_task_name).source
  lengths_lib.check(dataset_cfg)
  split = dataset_cfg.split
  train_data.check_vocabulary(dataset_cfg, teacher.model)
  teacher.find()
  teacher.check_record(teacher.model.output_vocabulary)
  command_lib.check_count('score.score.batches_per_shard', batches_per_shard)
  available = source.num_input_examples(split)
  examples = available if examples is None else examples
  if type(examples) is not int or not 1 <= examples <= available:
    raise ValueError(
      f'score.score.examples = {examples!r} (SCORED_EXAMPLES) is not between 1 '
      f'and the {available} examples of {source.cached_task.name} ({split}).'
    )
  score_batch = scorer.Scorer(
    teacher, partitioner, dataset_cfg.batch_size, length, top_k
  )
  checkpoint, task = score_batch.checkpoint, source.cached_task.name
  data = source.fingerprint(split)
  manifest = score_shards.Manifest(
    task=task,
    split=split,
    data=data,
    teacher=os.fspath(checkpoint),
    teacher_identity=find.identity(checkpoint),
    step=find.step_of(checkpoint),
    sequences_read=score_job.sequences_read(checkpoint, task, data),
    dtype=teacher.dtype,
    top_k=top_k,
    examples=examples,
    shard_size=batches_per_shard * dataset_cfg.batch_size,
    examples_by_file=list(source.order(split).counts),
  )
  # On all processes, or the others would wait for the one that fails.
  score_shards.begin(output_dir, manifest, write=jax.process_index() == 0)
  missing = score_job.missing_shards(output_dir, manifest)
  indices = np.flatnonzero(missing).tolist()
  todo = sum(map(manifest.examples_of, indices))
  logging.info('%d of %d sequences are scored.', examples - todo, examples)
  done, start = 0, time.time()
  batches = score_job.read_batches(
    source, manifest, missing, dataset_cfg.batch_size
  )
  with batches_lib.progress_bar(todo, 'sequence', unit_scale=True) as progress:
    for index in indices:
      expected, domains = manifest.examples_of(index), {}
      parts = [np.zeros(0, score_shards.RECORD)]
      for batch in itertools.islice(
        batches, -(-expected // dataset_cfg.batch_size)
      ):
        scores = score_batch(batch['targets'])
        parts.append(score_job.make_records(batch, scores, domains))
        progress.update(len(parts[-1]))
      records = np.concatenate(parts)
      if len(records) < expected:
        raise ValueError(
          f'The cache {source.cached_task.cache_dir} holds fewer than the '
          f'{available} examples that it describes: restore its files, or '
          f'cache {source.cached_task.name} again.'
        )
      if jax.process_index() == 0:
        score_shards.write_shard(output_dir, index, records, list(domains))
      done += expected
      logging.info(
        # `studies.processes` reads the progress.
        'Shard %d: %d of %d sequences in all, %.0f tokens per second.',
        *(index, done, todo, done * length / (time.time() - start)),
      )
  return (
    f'{manifest.teacher} has scored {manifest.examples} sequences of '
    f'{manifest.task} ({manifest.split}). Next: salt_t5x.select.'
  )


if __name__ == '__main__':
  from salt_t5x import score as module

  command_lib.start(module.score)
