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

"""The parts of a scoring job: missing shards, batches to score, records."""

from collections.abc import Iterator
import os

from etils import epath
import jax
from jax.experimental import multihost_utils
import numpy as np
import seqio
import tensorflow as tf

from salt_t5x import files
from salt_t5x.checkpoints import find, run_record
from salt_t5x.data import ordered_cache
from salt_t5x.selection import score_shards, scoring


def sequences_read(checkpoint: epath.Path, task: str, data: str) -> int | None:
  """Counts the sequences of a global order that a checkpoint was trained on.

  Args:
    checkpoint: a `checkpoint_<step>` directory.
    task: the cached task.
    data: the fingerprint of its cache.

  Returns:
    n, for the first n of the order; 0 for other data; None if the training
    run's record, `data.json`, is missing or does not tell.
  """
  model_dir = checkpoint.parent
  # SALT_DS reads its first stage from anywhere in the order; of fine-tuning the
  # record says nothing about the run that it began with.
  others = 'selection.json', 'initial_checkpoint.json'
  if any((model_dir / name).exists() for name in others):
    return None
  try:
    record = files.read_json_object(os.fspath(model_dir / 'data.json'))
    found, batch_size = record['data_fingerprints'], record['BATCH_SIZE']
    if record.get('changed'):
      return None
    if data not in found.values():
      # Raw text, the cached task in seqio's order, or the cache in another
      # order may hold the same sequences.
      is_other = not any(
        fingerprint is None or name == task or _reads_cache_of(name, task)
        for name, fingerprint in found.items()
      )
      return 0 if is_other else None
    step = find.step_of(checkpoint)
    run = run_record.read(os.fspath(model_dir))
    return (step + run_record.skipped(run, step)) * int(batch_size)
  except (ValueError, KeyError, TypeError, AttributeError):
    return None


def _reads_cache_of(name: str, task: str) -> bool:
  """Whether a task, if it is registered here, is one over a cached task."""
  if name not in seqio.TaskRegistry.names():
    return False
  source = seqio.TaskRegistry.get(name).source
  is_ours = isinstance(source, ordered_cache.CachedSource)
  return is_ours and source.cached_task.name == task


def missing_shards(
  output_dir: str, manifest: score_shards.Manifest
) -> np.ndarray:
  """Returns bool [shards], True for missing ones; the same on all hosts."""
  finished = score_shards.finished(output_dir)
  missing = np.array([i not in finished for i in range(manifest.num_shards)])
  if jax.process_count() > 1:
    missing = np.asarray(multihost_utils.broadcast_one_to_all(missing))
  return missing


def read_batches(
  source: ordered_cache.CachedSource,
  manifest: score_shards.Manifest,
  missing: np.ndarray,
  batch_size: int,
) -> Iterator[dict[str, np.ndarray]]:
  """Yields the batches of the missing shards; each lies in one shard."""
  parse = source.parser(manifest.split)
  # A scoring job that was stopped does not read again what it has scored.
  first = int(np.argmax(missing)) * manifest.shard_size
  records = source.records(manifest.split, first)
  records = records.take(manifest.examples - first)
  records = records.enumerate(first).filter(
    lambda i, _: tf.gather(missing, i // manifest.shard_size)
  )

  def example(_, record):
    found = {'domain': tf.constant(''), **parse(record)}
    if 'id' not in found:
      raise ValueError(
        f"The examples of {source.cached_task.name} have no 'id', which "
        'selection needs: make them with salt_t5x.data.sequences.cut, and '
        'cache the task again.'
      )
    return {name: found[name] for name in ('targets', 'id', 'domain')}

  examples = records.map(example, num_parallel_calls=tf.data.AUTOTUNE)
  batches = examples.padded_batch(batch_size).prefetch(tf.data.AUTOTUNE)
  with source.naming_damage(manifest.split):
    yield from batches.as_numpy_iterator()


def make_records(
  batch: dict[str, np.ndarray],
  found: dict[str, np.ndarray],
  domains: dict[str, int],
) -> np.ndarray:
  """Returns `score_shards.RECORD`s; adds new domains to `domains`."""
  records = np.zeros(len(batch['id']), score_shards.RECORD)
  records['id'] = batch['id']
  records['domain'] = [
    domains.setdefault(name.decode(errors='backslashreplace'), len(domains))
    for name in batch['domain']
  ]
  for kind in scoring.KINDS:
    records[kind] = found[kind]
  return records
