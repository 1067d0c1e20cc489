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


"""Registers `notes_scored`: notes_task's sequences, cached with their scores.

Scores come from the tiny teacher in SALT_T5X_TEST_TEACHER, as a user would have
Beam's workers score. `notes_scored_ul2` reads the same sequences, unscored.
"""

import os

import gin
import notes_task
import seqio
import tensorflow as tf

from salt_t5x import teacher as teacher_lib
from salt_t5x.selection import scorer

BATCH = 16
TOP_K = 10


def teacher():
  """The teacher of score.gin, as the gin files have it."""
  gin.clear_config()
  gin.add_config_file_search_path(
    os.path.join(os.path.dirname(__file__), 'integration')
  )
  gin.parse_config_files_and_bindings(
    ['notes_score.gin'],
    [
      f'TEACHER_PATH = {os.environ["SALT_T5X_TEST_TEACHER"]!r}',
      'SCORES_DIR = "/unused"',
    ],
  )
  made = gin.get_configurable(teacher_lib.Teacher)()
  gin.clear_config()
  return made


def add_score(dataset, batch_size=BATCH, kind='zero'):
  return scorer.add_score(
    dataset,
    teacher,
    batch_size=batch_size,
    length=notes_task.LENGTH,
    top_k=TOP_K,
    kind=kind,
  )


_sequences = seqio.TaskRegistry.get('notes_sequences')
seqio.TaskRegistry.add(
  'notes_scored',
  source=_sequences.source,
  preprocessors=[
    *_sequences.preprocessors[:-1],
    add_score,
    seqio.CacheDatasetPlaceholder(),
  ],
  output_features={
    **_sequences.output_features,
    'salt_score': seqio.Feature(
      seqio.PassThroughVocabulary(0), add_eos=False, dtype=tf.float32
    ),
  },
)
