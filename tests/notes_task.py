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


"""Registers the tasks `notes_*`: a corpus in the Pile's form, as a user would.

The folder of the environment variable SALT_T5X_TEST_NOTES holds
`train/*.jsonl.zst` and `val.jsonl.zst`; caches are looked for in its `cache`.
"""

import os

import seqio

from salt_t5x.data import text_tasks

DIRECTORY = os.environ['SALT_T5X_TEST_NOTES']
LENGTH = 48


def vocabulary():
  return seqio.ByteVocabulary(extra_ids=10)


seqio.add_global_cache_dirs([os.path.join(DIRECTORY, 'cache')])
text_tasks.register(
  'notes',
  {
    'train': os.path.join(DIRECTORY, 'train', '*.jsonl.zst'),
    'validation': os.path.join(DIRECTORY, 'val.jsonl.zst'),
  },
  vocabulary(),
  LENGTH,
)
