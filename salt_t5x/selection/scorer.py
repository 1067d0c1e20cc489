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


"""A teacher that is loaded and compiled to score batches of sequences.

`Scorer` serves the scoring job, on all hosts' devices, and `add_score`, a
seqio preprocessor, on those of one process.
"""

from collections.abc import Callable, Mapping
import functools
import threading

import numpy as np
import tensorflow as tf

from salt_t5x import models
from salt_t5x import teacher as teacher_lib
from salt_t5x.inference import batches as batches_lib
from salt_t5x.kernels import token_statistics
from salt_t5x.selection import scoring
from t5x import partitioning


class Scorer:
  """Scores [B, T] targets; B and T are fixed.

  Attributes:
    checkpoint: the teacher's, `.../checkpoint_<step>`.
  """

  def __init__(
    self,
    teacher: teacher_lib.Teacher,
    partitioner: partitioning.BasePartitioner,
    batch_size: int,
    length: int,
    top_k: int,
  ):
    """Loads the teacher.

    Args:
      teacher: scores sequences.
      partitioner: shards the teacher's parameters and the batch.
      batch_size: B.
      length: T.
      top_k: k of eq. (10).

    Raises:
      ValueError: k is not in [1, V], B is not a multiple of the devices that
        share a batch, or there is no such teacher (see `Pretrained`).
    """
    vocab_size = teacher.model.output_vocabulary.vocab_size
    if type(top_k) is not int or not 1 <= top_k <= vocab_size:
      raise ValueError(
        f'top_k = {top_k!r} (TOP_K) is not between 1 and the {vocab_size} '
        'tokens of the vocabulary (k of eq. 10; the paper uses 10).'
      )
    batches = batches_lib.GlobalBatches(partitioner, batch_size)
    self.checkpoint = teacher.find()
    self._teacher = teacher
    self._shape = (batch_size, length)
    self._params, axes = teacher.load(
      self.checkpoint, batches_lib.feature_shapes(*self._shape), partitioner
    )

    def score(params, targets):
      features = models.features_of(targets)
      statistics = token_statistics.token_statistics(
        *models.hidden_and_embedding(teacher.model, params, features),
        targets,
        vocab_size=vocab_size,
        top_k=top_k,
        chunk=batches.chunk,
      )
      return scoring.scores(*statistics, features['decoder_loss_weights'])

    self._score = batches.program(score, axes)
    self._is_checked = False

  def __call__(self, targets: np.ndarray) -> dict[str, np.ndarray]:
    """Scores up to B sequences; in a job of many hosts, the same on each.

    Args:
      targets: [n, t] int32, n <= B and t <= T; 0 is padding.

    Returns:
      {kind of score: float32 [n]}, on each host; see `scoring.scores`.

    Raises:
      ValueError: there are longer sequences, a score is not finite, or
        the first batch shows that the teacher is not trained.
    """
    count, width = targets.shape
    length = self._shape[1]
    if width > length:
      raise ValueError(
        f"TASK_FEATURE_LENGTHS['targets'] = {length}, but the data have "
        f'sequences of {width} tokens: set it to that.'
      )
    targets = np.pad(targets, [(0, 0), (0, length - width)]).astype(np.int32)
    found = self._score(self._params, targets)
    wrong = np.flatnonzero(~np.isfinite(found['mean']))
    if len(wrong):
      raise ValueError(
        f'The teacher {self.checkpoint} predicts NaN or infinity for '
        f'{len(wrong)} of {count} sequences of a batch, the first of which '
        f'begins with the tokens {targets[wrong[0]][:10].tolist()}. Score with '
        'another checkpoint (TEACHER_STEP), or in float32 '
        '(teacher.Teacher.dtype).'
      )
    tokens = np.sum(targets > 0, axis=1)
    if not self._is_checked and tokens.any():
      teacher_lib.check_cross_entropy(
        float(np.average(found['mean'], weights=tokens)),
        self._teacher.model.output_vocabulary.vocab_size,
        self._teacher.minimum_gain,
        self.checkpoint,
      )
      self._is_checked = True
    return found


_LOADING = threading.Lock()


@functools.cache
def _load(
  teacher: Callable[[], teacher_lib.Teacher],
  batch_size: int,
  length: int,
  top_k: int,
) -> Scorer:
  partitioner = partitioning.PjitPartitioner(num_partitions=1)
  return Scorer(teacher(), partitioner, batch_size, length, top_k)


def add_score(
  dataset: tf.data.Dataset,
  teacher: Callable[[], teacher_lib.Teacher],
  *,
  batch_size: int,
  length: int,
  top_k: int = 10,
  kind: str = 'zero',
) -> tf.data.Dataset:
  """A seqio preprocessor: adds the score of each sequence, `salt_score`.

  The teacher runs on the devices of this process, where `dataset` is read: in
  `seqio_cache_tasks`, on each Beam worker. Put it before the task's
  `seqio.CacheDatasetPlaceholder`, since a data set that runs Python cannot be
  saved in checkpoints. Its output feature is

    'salt_score': seqio.Feature(
      seqio.PassThroughVocabulary(0), add_eos=False, dtype=tf.float32)

  Args:
    dataset: of {'targets': int32 [t], ...}, t <= T, all of fixed rank.
    teacher: makes the teacher; a function of a module, called once in a
      process, when the first example is read.
    batch_size: B, sequences that are scored together.
    length: T.
    top_k: k of eq. (10).
    kind: of score, one of `scoring.KINDS`.

  Returns:
    The examples, in order, with 'salt_score' (float32 [1]).

  Raises:
    ValueError: there is no such kind of score.
  """
  if kind not in scoring.KINDS:
    raise ValueError(
      f'scorer.add_score.kind = {kind!r}: choose one of {scoring.KINDS}.'
    )

  def score(targets):
    # Beam's threads and shards share one teacher.
    with _LOADING:
      scorer = _load(teacher, batch_size, length, top_k)
    return scorer(targets)[kind][:, None]

  def add(examples: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    targets = examples['targets']
    if isinstance(targets, tf.RaggedTensor):
      targets = targets.to_tensor()
    found = tf.numpy_function(score, [targets], tf.float32)
    found.set_shape([None, 1])
    return {**examples, 'salt_score': found}

  # Unlike `batch`, this takes examples of any length.
  return dataset.ragged_batch(batch_size).map(add).unbatch()
