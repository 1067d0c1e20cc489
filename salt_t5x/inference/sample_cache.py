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

"""Writes sampled sequences as the cache that `salt_t5x.tasks.samples` reads."""

from collections.abc import Mapping
import os

import numpy as np
import seqio
import tensorflow as tf

from salt_t5x import files
from salt_t5x.data import cache_writer, text_tasks

NAME = 'samples'


def write(
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
        'domain': np.full(count, NAME.encode()),
      }
    )

  # Not `vocabulary.sp_model`, which includes the extra ids.
  with tf.io.gfile.GFile(vocabulary.sentencepiece_model_file, 'rb') as f:
    model = f.read()
  files.write_whole(os.path.join(output_dir, 'vocabulary.model'), model)
  task = text_tasks.cached_task(NAME, vocabulary, list(samples))
  cache_writer.write(
    seqio.Task(
      task.name,
      source=seqio.FunctionDataSource(read, list(samples)),
      preprocessors=[seqio.CacheDatasetPlaceholder()],
      output_features=task.output_features,
    ),
    os.path.join(output_dir, 'cache'),
    {'train': 4, 'validation': 1},
    key=lambda example: example['id'],
  )
