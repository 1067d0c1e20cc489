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


"""The teacher that scores in batches, and the preprocessor that has one."""

import numpy as np
import pytest
import tensorflow as tf

from salt_t5x import teacher as teacher_lib
from salt_t5x.selection import scorer
from t5x import partitioning
import tiny

TOP_K = 3


def load(teacher_dir):
  return scorer.Scorer(
    teacher_lib.Teacher(model=tiny.make_teacher_model(), path=teacher_dir),
    partitioning.PjitPartitioner(num_partitions=1),
    batch_size=tiny.BATCH,
    length=tiny.LENGTH,
    top_k=TOP_K,
  )


def test_rejects_scores_that_are_not_finite(teacher_dir):
  score = load(teacher_dir)
  targets = tiny.rows()[: tiny.BATCH]
  before = score(targets)
  assert all(np.isfinite(values).all() for values in before.values())
  embedding = score._params['embedding']
  score._params |= {'embedding': embedding.at[5].set(np.nan)}
  with pytest.raises(
    ValueError, match='NaN or infinity for 8 of 8 .*TEACHER_STEP'
  ):
    score(targets)


def test_add_score_pads_lengths_and_loads_one_teacher(teacher_dir):
  """Lengths change nothing: shorter ones are padded to T with the others."""
  rows = tiny.rows()[:20]
  lengths = [tiny.LENGTH - i % 5 for i in range(20)]
  padded = np.where(
    np.arange(tiny.LENGTH) < np.array(lengths)[:, None], rows, 0
  )
  made = []

  def teacher():
    made.append(1)
    return teacher_lib.Teacher(
      model=tiny.make_teacher_model(), path=teacher_dir
    )

  def found():
    data = tf.data.Dataset.from_generator(
      lambda: (
        {'targets': row[:length]}
        for row, length in zip(rows, lengths, strict=True)
      ),
      output_signature={'targets': tf.TensorSpec([None], tf.int32)},
    )
    data = scorer.add_score(
      data,
      teacher,
      batch_size=tiny.BATCH,
      length=tiny.LENGTH,
      top_k=TOP_K,
      kind='median',
    )
    return list(data.as_numpy_iterator())

  score = load(teacher_dir)
  expected = [
    score(padded[i : i + tiny.BATCH])['median']
    for i in range(0, 20, tiny.BATCH)
  ]
  first, second = found(), found()
  for examples in (first, second):
    assert [len(e['targets']) for e in examples] == lengths
    np.testing.assert_array_equal(
      np.concatenate([e['salt_score'] for e in examples]),
      np.concatenate(expected),
    )
  # As for the shards of a data set that Beam caches.
  assert len(made) == 1


def test_add_score_rejects_unknown_kinds_before_it_reads():
  data = tf.data.Dataset.from_tensors({'targets': [3, 4]})
  with pytest.raises(ValueError, match="kind = 'hard': choose one of"):
    scorer.add_score(data, None, batch_size=1, length=2, kind='hard')
