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

"""The seqio tasks of sequences that a teacher wrote: `salt_t5x.sample`.

The environment variable SALT_T5X_SAMPLES names that job's folder when this
module is imported; nothing but its info.json is read before a task is used.

`samples_sequences`, `samples_ul2`, `samples_causal` and the other views are
those of `salt_t5x.data.text_tasks`.
"""

import os

import seqio

from salt_t5x import files
from salt_t5x.data import text_tasks

DATA_DIR = files.absolute(os.environ.get('SALT_T5X_SAMPLES', 'data/samples'))


def _info(key: str) -> int:
  return files.read_count(
    os.path.join(DATA_DIR, 'info.json'),
    f'SALT_T5X_SAMPLES = {DATA_DIR!r} must be a folder of salt_t5x.sample: '
    'name one, or sample again.',
    key,
  )


def vocabulary() -> seqio.SentencePieceVocabulary:
  """The teacher's vocabulary; in gin, `@samples.vocabulary()`."""
  return seqio.SentencePieceVocabulary(
    os.path.join(DATA_DIR, 'vocabulary.model'), extra_ids=_info('extra_ids')
  )


seqio.add_global_cache_dirs([os.path.join(DATA_DIR, 'cache')])
# The sequences exist only in the cache; there are no documents.
text_tasks.register(
  'samples',
  dict.fromkeys(
    ('train', 'validation'), files.pattern(os.path.join(DATA_DIR, 'documents'))
  ),
  vocabulary(),
  _info('sequence_length'),
)
