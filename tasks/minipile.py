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

"""The seqio task `minipile_causal`: the small data set of `salt_t5x.prepare`.

The data lies in the directory that the environment variable SALT_T5X_DATA
names when this module is imported, by default `data/minipile` under the working
directory. Nothing is read before the task or its vocabulary is used.

Features: targets (int32, [T]; EOS between documents, no padding), id (int64, a
stable id of the sequence) and domain (bytes).

Order: without shuffling, examples come in the global order that `prepare`
wrote. seqio interleaves the shards of a source, which would mix them; with
`cycle_length=1` it reads them one after the other. Several hosts that read
this task directly get whole shards each (up to four hosts), so the examples of
a step then depend on the number of hosts. The batches of T tokens need a task
feature length of T: seqio cuts or pads to any other.

The pipeline has no Python function in it: its iterator can be saved and
restored in the middle of an epoch.
"""

import os

import seqio
import tensorflow as tf

DATA_DIR = os.environ.get('SALT_T5X_DATA', os.path.join('data', 'minipile'))


def vocabulary() -> seqio.SentencePieceVocabulary:
  """The data set's vocabulary; in gin, `@minipile.vocabulary()`."""
  return seqio.SentencePieceVocabulary(
    os.path.join(DATA_DIR, 'vocabulary.model'), extra_ids=0
  )


@seqio.map_over_dataset
def _cast_targets(example: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
  return {**example, 'targets': tf.cast(example['targets'], tf.int32)}


seqio.TaskRegistry.add(
  'minipile_causal',
  source=seqio.TFExampleDataSource(
    {
      split: os.path.join(DATA_DIR, f'{split}.tfrecord-*')
      for split in ('train', 'validation')
    },
    feature_description={
      'targets': tf.io.FixedLenSequenceFeature(
        [], tf.int64, allow_missing=True
      ),
      'id': tf.io.FixedLenFeature([], tf.int64),
      'domain': tf.io.FixedLenFeature([], tf.string),
    },
    cycle_length=1,
  ),
  preprocessors=[_cast_targets],
  output_features={
    'targets': seqio.Feature(vocabulary(), add_eos=False, dtype=tf.int32)
  },
)
