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
import tensorflow as tf

from salt_t5x import files
from salt_t5x.checkpoints import find
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
    # The cached task itself is read in seqio's order.
    names = [x for x, fingerprint in found.items() if fingerprint == data]
    if not names and None not in found.values():
      return 0
    is_told = names and task not in names
    return find.step_of(checkpoint) * int(batch_size) if is_told else None
  except (ValueError, KeyError, TypeError, AttributeError):
    return None


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
  records = source.records(manifest.split).take(manifest.examples)
  records = records.enumerate().filter(
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
