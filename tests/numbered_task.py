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


"""A seqio task whose examples have numbers, to be cached and put in order."""

import numpy as np
import seqio
import tensorflow as tf

from salt_t5x.data import hashing, ordered_cache, ordered_tasks, ul2

COUNT = 101  # a prime: no number of hosts divides it
T = 64
EXTRA_IDS = 20


class Vocabulary(seqio.PassThroughVocabulary):
  extra_ids = EXTRA_IDS


VOCABULARY = Vocabulary(200, eos_id=1)


def tokens(number):
  return ((np.arange(T) * (number + 3)) % 150 + 3).astype(np.int32)


def ordered(count):
  """The numbers of a split of `count` examples, in the order of its cache."""
  return sorted(
    range(count),
    key=lambda n: hashing.digest(b'order 0 ', str(1000 * n).encode()),
  )


def sequences_task(name):
  def read(split, shuffle_files, seed=None):
    del shuffle_files, seed
    numbers = np.arange(COUNT if split == 'train' else 5)
    return tf.data.Dataset.from_tensor_slices(
      {
        'targets': np.stack([tokens(n) for n in numbers]),
        'id': numbers * 1000,
        'domain': [b'abc'[n % 3 : n % 3 + 1] for n in numbers],
      }
    )

  feature = seqio.Feature(VOCABULARY, add_eos=False)
  cached = seqio.TaskRegistry.add(
    name,
    source=seqio.FunctionDataSource(read, ['train', 'validation']),
    preprocessors=[seqio.CacheDatasetPlaceholder()],
    output_features={'targets': feature},
  )
  seqio.TaskRegistry.add(
    f'{name}_ul2',
    source=ordered_cache.CachedSource(cached, {'targets': T}),
    preprocessors=[ul2.ul2],
    output_features={'inputs': feature, 'targets': feature},
    task_cls=ordered_tasks.OrderedTask,
    shuffle_buffer_size=None,
  )
  return cached
