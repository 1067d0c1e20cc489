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

"""Finds training documents that nearly repeat a held-out document.

Documents are compared by their shingles, the runs of eight words in them. A
training document is a near-duplicate of a held-out one if it has at least half
of the held-out document's distinct shingles, or if that one held-out document
has at least half of its own. Without them, a model cannot learn held-out text
by heart. The comparison is exact: there is no sketch.
"""

import collections
from collections.abc import Iterable, Sequence
import itertools
import re

import tqdm

from salt_t5x.minipile.corpus import Document

SHINGLE_WORDS = 8

_WORD = re.compile(r'[^\W_]+')


def words_of(text: str) -> list[str]:
  """Returns the lower-cased runs of letters and digits in a text."""
  return _WORD.findall(text.lower())


def _shingles(text: str) -> set[tuple[str, ...]]:
  """The distinct shingles; of fewer than eight words, one of all of them."""
  words = words_of(text)
  width = min(SHINGLE_WORDS, len(words))
  return set(zip(*(words[i:] for i in range(width)), strict=False)) or {()}


def find(
  held_out: Sequence[Document], training: Iterable[Document]
) -> list[tuple[str, str]]:
  """Finds the training documents that nearly repeat a held-out one.

  Documents with fewer than `SHINGLE_WORDS` words are near-duplicates if their
  words are the same.

  Args:
    held_out: documents that training must not repeat.
    training: the documents to check.

  Returns:
    (id of a training document, id of a held-out document) for each pair of
    near-duplicates, in the order of `training`, then of `held_out`.
  """
  sizes, owners = [], collections.defaultdict(list)
  for index, document in enumerate(held_out):
    shingles = _shingles(document.text)
    sizes.append(len(shingles))
    for shingle in shingles:
      owners[shingle].append(index)
  pairs = []
  for document in tqdm.tqdm(training, desc='comparing', unit='doc'):
    shingles = _shingles(document.text)
    shared = collections.Counter(
      itertools.chain.from_iterable(owners[s] for s in shingles if s in owners)
    )
    pairs += [
      (document.id, held_out[index].id)
      for index, count in sorted(shared.items())
      if 2 * count >= min(sizes[index], len(shingles))
    ]
  return pairs
