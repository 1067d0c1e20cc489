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

"""The tasks `writers_N_sequences`: one corpus in N raw shards.

Documents are long, and their order goes through the domains. Words name their
document and their place in it, so every sequence tells where it comes from.
`seqio_cache_tasks` registers the tasks from the folder that the environment
variable SALT_T5X_TEST_WRITERS names.
"""

import os

import numpy as np
import seqio

from salt_t5x.data import pile_shards, text_tasks

SHARDS = 2, 40
LENGTH = 32  # at least three whole words
DOCUMENTS = 100
DOMAINS = ['web'] * 60 + ['books'] * 30 + ['code'] * 10


def write(folder):
  """Writes the raw shards: some 2,400 sequences, 24 a document."""
  words = np.random.default_rng(0).integers(40, 150, DOCUMENTS)
  documents = [
    (''.join(f'd{i:02}w{j:03} ' for j in range(count)), domain)
    for i, (count, domain) in enumerate(zip(words, DOMAINS, strict=True))
  ]
  for shards in SHARDS:
    os.makedirs(f'{folder}/{shards}')
    for i, part in enumerate(np.array_split(range(DOCUMENTS), shards)):
      path = f'{folder}/{shards}/{i:02}.jsonl.zst'
      pile_shards.write(path, [documents[number] for number in part])


def sequences_task(folder, shards):
  return text_tasks.sequences_task(
    f'writers_{shards}',
    {'train': f'{folder}/{shards}/*.jsonl.zst'},
    seqio.ByteVocabulary(extra_ids=10),
    LENGTH,
  )


if FOLDER := os.environ.get('SALT_T5X_TEST_WRITERS'):
  for _shards in SHARDS:
    _task = sequences_task(FOLDER, _shards)
    seqio.TaskRegistry.add_provider(_task.name, _task)
