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

"""Samples sequences from a language model, keeps batches on disk, caches them.

Each sample depends only on the seed and its own ids and prefix, not on
batches or devices. `salt_t5x.tasks.samples` reads the cache.
"""

from collections.abc import Mapping
import functools
import os
from typing import Any

from etils import epath
import jax
from jax.experimental import multihost_utils
import jax.numpy as jnp
import numpy as np
import seqio
import tensorflow as tf
import tqdm

from salt_t5x import files
from salt_t5x.data import cache_writer, vocabularies
from salt_t5x.inference import batches as batches_lib
from salt_t5x.inference import language_model
from t5x import models as t5x_models

Array = jax.Array
PyTree = Any


def only_tokens(logits: Array, vocab_size: int) -> Array:
  """Excludes padding (0) and rows past the vocabulary from a distribution."""
  rows = jnp.arange(logits.shape[-1])
  return jnp.where((rows > 0) & (rows < vocab_size), logits, -jnp.inf)


def draw(
  model: t5x_models.DecoderOnlyModel,
  params: PyTree,
  tokens: Array,
  lengths: Array,
  ids: Array,
  *,
  seed: int,
) -> Array:
  """Continues x_1 ... x_s to T tokens, each drawn from P(·|x_<t).

  An end-of-sequence token does not end a sequence: another document follows
  it, as in the training data.

  Args:
    model: its module follows t5x's decoding contract (`decode` with the
      collection `cache`), which reads causally.
    params: its parameters.
    tokens: [B, T] int; tokens after the prefix have no effect.
    lengths: [B] int, s from 0 to T.
    ids: [B, n] int, unique for each sample.
    seed: of all samples.

  Returns:
    [B, T] int32, the completed sequences; -1 where the model predicts NaN or
    infinity.
  """
  vocab_size = model.output_vocabulary.vocab_size
  length = tokens.shape[1]

  def apply(cache, inputs):
    return model.module.apply(
      {'params': params, **cache},
      inputs,
      inputs,
      enable_dropout=False,
      decode=True,
      max_decode_length=length,
      mutable=['cache'],
    )

  keys = jnp.broadcast_to(jax.random.key(seed), tokens.shape[:1])
  for i in range(ids.shape[1]):
    keys = jax.vmap(jax.random.fold_in)(keys, ids[:, i])

  def step(carry, position):
    cache, previous = carry
    logits, cache = apply(cache, previous[:, None])
    logits = only_tokens(logits[:, 0].astype(jnp.float32), vocab_size)
    drawn = jax.vmap(jax.random.categorical)(
      jax.vmap(jax.random.fold_in, (0, None))(keys, position), logits
    )
    drawn = jnp.where(jnp.isfinite(logits.max(-1)), drawn, -1)
    given = jax.lax.dynamic_index_in_dim(tokens, position, 1, keepdims=False)
    token = jnp.where(position < lengths, given, drawn).astype(jnp.int32)
    return (cache, token), token

  # The first call creates an empty cache.
  _, cache = apply({}, jnp.zeros(tokens.shape, jnp.int32))
  start = cache, jnp.zeros(tokens.shape[:1], jnp.int32)
  _, drawn = jax.lax.scan(step, start, jnp.arange(length))
  return jnp.swapaxes(drawn, 0, 1)


class Sampler:
  """Continues sequences with one model; see `draw`."""

  def __init__(
    self,
    model: t5x_models.DecoderOnlyModel,
    params: PyTree,
    axes: PyTree,
    batches: batches_lib.GlobalBatches,
    seed: int,
  ):
    """Constructor; compiles nothing yet.

    Args:
      model: a t5x decoder-only model.
      params: its parameters, on the partitioner's mesh.
      axes: their partition specs.
      batches: sequences that are sampled together.
      seed: of all samples.
    """
    self._batches = batches
    self._params = params
    self._draw = batches.program(
      functools.partial(draw, model, seed=seed), axes
    )

  def sample(
    self,
    tokens: np.ndarray,
    lengths: np.ndarray,
    ids: np.ndarray,
    prefix: str,
    progress: tqdm.tqdm,
  ) -> np.ndarray:
    """Samples the batches that are not on disk; call it on all hosts.

    Args:
      tokens: [n, T] int, sequences that begin with the given tokens.
      lengths: [n] int, the number of given tokens.
      ids: [n, k] int, unique for each sample.
      prefix: of the files, which belong to these arguments.
      progress: advanced by one for each batch.

    Returns:
      [n, T] int32, the sequences with sampled continuations.

    Raises:
      language_model.NonFiniteOutputError: the model predicts NaN or infinity.
    """
    found = []
    for number, rows in enumerate(self._batches.split(tokens, lengths, ids)):
      path = f'{prefix}_{number * self._batches.batch_size:09d}.bin'
      sampled = _read(path, rows[0].shape)
      if sampled is None:
        sampled = self.sample_batch(*rows)
        if jax.process_index() == 0:
          files.write_whole(path, sampled.astype('<i4').tobytes())
      found.append(sampled)
      progress.update()
    return np.concatenate(found)

  def sample_batch(
    self, tokens: np.ndarray, lengths: np.ndarray, ids: np.ndarray
  ) -> np.ndarray:
    """Samples up to B sequences; see `sample`."""
    arrays = (np.asarray(x, np.int32) for x in (tokens, lengths, ids))
    sampled = self._draw(self._params, *arrays)
    if wrong := np.count_nonzero((sampled < 0).any(axis=1)):
      raise language_model.NonFiniteOutputError(
        f'{wrong} of {len(sampled)} sequences cannot be sampled: the model '
        'predicts NaN or infinity. Take another checkpoint.'
      )
    return sampled


def _read(path: str, shape: tuple[int, int]) -> np.ndarray | None:
  """Reads a batch of samples; None if it is missing on any host."""
  file = epath.Path(path)
  values = np.frombuffer(file.read_bytes() if file.exists() else b'', '<i4')
  is_whole = values.size == shape[0] * shape[1]
  if not multihost_utils.process_allgather(np.array(is_whole)).all():
    return None
  return values.reshape(shape)


def write_cache(
  output_dir: str,
  samples: Mapping[str, np.ndarray],
  vocabulary: seqio.SentencePieceVocabulary,
) -> None:
  """Writes `cache` and `vocabulary.model`.

  Args:
    output_dir: their folder.
    samples: {split: [n, T] int32}.
    vocabulary: of the samples.
  """

  def read(split, shuffle_files, seed=None):
    del shuffle_files, seed
    count = len(samples[split])
    return tf.data.Dataset.from_tensor_slices(
      {
        'targets': samples[split],
        'id': np.arange(count, dtype=np.int64),
        'domain': np.full(count, b'samples'),
        vocabularies.FINGERPRINT: np.full(count, fingerprint, np.int64),
      }
    )

  fingerprint = vocabularies.fingerprint_number(vocabulary, 'VOCABULARY')
  # Not `vocabulary.sp_model`, which includes the extra ids.
  model = epath.Path(vocabulary.sentencepiece_model_file).read_bytes()
  files.write_whole(os.path.join(output_dir, 'vocabulary.model'), model)
  cache_writer.write(
    seqio.Task(
      'samples_sequences',
      source=seqio.FunctionDataSource(read, list(samples)),
      preprocessors=[seqio.CacheDatasetPlaceholder()],
      output_features={
        'targets': seqio.Feature(vocabulary, add_eos=False, dtype=tf.int32)
      },
    ),
    os.path.join(output_dir, 'cache'),
  )
