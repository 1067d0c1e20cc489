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


"""The Pile's seqio tasks, with the paper's sequences of 1,280 tokens.

Two environment variables, read when this module is imported, name local paths
or any that tf.io.gfile knows. Files are read when they are used.

  SALT_T5X_PILE        the folder of `train/*.jsonl.zst`, `val.jsonl.zst` and
                       `test.jsonl.zst`, by default `data/pile`; cached tasks
                       are looked for in its `cache` folder;
  SALT_T5X_VOCABULARY  a SentencePiece model, by default `vocabulary.model` in
                       that folder. The paper's, with 256K tokens, is not
                       public: train one with `salt_t5x.vocabulary`.

`pile_documents`, `pile_sequences`, `pile_ul2`, the views `pile_causal`,
`pile_prefix`, `pile_short_spans` and `pile_long_spans`, and `pile_held_out` are
those of `salt_t5x.data.text_tasks`. Cache `pile_sequences` before training; the
others read that cache:

    seqio_cache_tasks --module_import=salt_t5x.tasks.pile \
      --tasks=pile_sequences --output_cache_dir="$SALT_T5X_PILE/raw_cache"
    python -m salt_t5x.shuffle --task=pile_sequences \
      --module_import=salt_t5x.tasks.pile \
      --input_cache_dir="$SALT_T5X_PILE/raw_cache" \
      --output_cache_dir="$SALT_T5X_PILE/cache"

Another corpus of such shards needs a module like this one, with its own globs,
vocabulary and length.
"""

import os

import seqio

from salt_t5x import files
from salt_t5x.data import text_tasks

DATA_DIR = files.absolute(os.environ.get('SALT_T5X_PILE', 'data/pile'))
_PATTERN = files.pattern(DATA_DIR)


def vocabulary() -> seqio.SentencePieceVocabulary:
  """Returns the vocabulary of the tasks; in gin, `@pile.vocabulary()`."""
  return seqio.SentencePieceVocabulary(
    files.absolute(
      os.environ.get(
        'SALT_T5X_VOCABULARY', os.path.join(DATA_DIR, 'vocabulary.model')
      )
    ),
    extra_ids=text_tasks.EXTRA_IDS,
  )


seqio.add_global_cache_dirs([os.path.join(DATA_DIR, 'cache')])
text_tasks.register(
  'pile',
  {
    'train': os.path.join(_PATTERN, 'train', '*.jsonl.zst'),
    'validation': os.path.join(_PATTERN, 'val.jsonl.zst'),
    'test': os.path.join(_PATTERN, 'test.jsonl.zst'),
  },
  vocabulary(),
  sequence_length=1280,
)
