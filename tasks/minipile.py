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


"""mini-Pile's seqio tasks: the data set of `salt_t5x.minipile.prepare`.

The environment variable SALT_T5X_DATA, read when this module is imported, names
the data's folder; the default is `data/minipile` in the working directory. Only
its info.json is read before a task or the vocabulary is used.

`minipile_documents`, `minipile_sequences`, `minipile_ul2`, the views
`minipile_causal`, `minipile_prefix`, `minipile_short_spans` and
`minipile_long_spans`, and `minipile_held_out` are those of
`salt_t5x.data.text_tasks`.
"""

import os

import seqio
import tensorflow as tf

from salt_t5x import files
from salt_t5x.data import text_tasks

DATA_DIR = files.absolute(os.environ.get('SALT_T5X_DATA', 'data/minipile'))
_PATTERN = files.pattern(DATA_DIR)


def vocabulary() -> seqio.SentencePieceVocabulary:
  """Returns the data set's vocabulary; in gin, `@minipile.vocabulary()`."""
  return seqio.SentencePieceVocabulary(
    os.path.join(DATA_DIR, 'vocabulary.model'), extra_ids=text_tasks.EXTRA_IDS
  )


def _sequence_length() -> int:
  """T of the build, or the default of `prepare` where there is none."""
  path = os.path.join(DATA_DIR, 'info.json')
  if not tf.io.gfile.exists(path):
    return 128
  return files.read_count(
    path,
    f'SALT_T5X_DATA = {DATA_DIR!r} must be a folder of '
    'salt_t5x.minipile.prepare: name one, or build it again.',
    *('arguments', 'sequence_length'),
  )


seqio.add_global_cache_dirs([os.path.join(DATA_DIR, 'cache')])
text_tasks.register(
  'minipile',
  {
    split: os.path.join(_PATTERN, 'raw', f'{split}-*.jsonl.zst')
    for split in ('train', 'validation')
  },
  vocabulary(),
  _sequence_length(),
)
