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

"""Finds training documents that say nearly what a held-out document says.

Documents are compared by their shingles, the runs of eight words in them. A
training document is a near-duplicate of a held-out one if it has at least half
of the held-out document's distinct shingles, or if at least half of its own are
in that one held-out document. Dropped from training, it can no longer teach the
held-out text by heart.

Every shingle of every document counts: there is no sketch and no chance in it,
up to collisions of 64-bit hashes.
"""

from collections.abc import Iterable, Sequence
import hashlib
import re

import numpy as np
import tqdm

from salt_t5x.minipile.corpus import Document

SHINGLE_WORDS = 8

_WORD = re.compile(r'[^\W_]+')
# Odd, so that no word's hash loses bits.
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


class _WordHashes(dict):
  """Word to 64 bits; each distinct word is hashed once."""

  def __missing__(self, word: str) -> int:
    digest = hashlib.blake2b(word.encode(), digest_size=8).digest()
    self[word] = int.from_bytes(digest, 'big')
    return self[word]


def words_of(text: str) -> list[str]:
  """The lower-cased runs of letters and digits in a text."""
  return _WORD.findall(text.lower())


def _shingles(words: Sequence[str], hashes: _WordHashes) -> np.ndarray:
  """Hashes of the distinct shingles: uint64, sorted, empty for few words."""
  count = len(words) - SHINGLE_WORDS + 1
  if count <= 0:
    return np.zeros([0], np.uint64)
  values = np.fromiter(map(hashes.__getitem__, words), np.uint64, len(words))
  # A polynomial in the multiplier, modulo 2^64.
  result = np.zeros([count], np.uint64)
  for start in range(SHINGLE_WORDS):
    result = result * _MULTIPLIER + values[start : start + count]
  return np.unique(result)


class _HeldOut:
  """Which held-out documents have a shingle, or are a given few words."""

  def __init__(self, documents: Sequence[Document], hashes: _WordHashes):
    self.short = {}
    shingles = []
    for index, document in enumerate(documents):
      words = words_of(document.text)
      shingles.append(_shingles(words, hashes))
      if not shingles[-1].size:
        self.short.setdefault(tuple(words), []).append(index)
    self.sizes = np.array([s.size for s in shingles], np.int64)
    everything = np.concatenate([np.zeros([0], np.uint64), *shingles])
    owners = np.repeat(np.arange(len(shingles)), self.sizes)
    order = np.argsort(everything, kind='stable')
    self._owners = owners[order]
    # Shingle i belongs to the owners at bounds[i] to bounds[i + 1].
    self._shingles, counts = np.unique(everything, return_counts=True)
    self._bounds = np.concatenate([[0], np.cumsum(counts)])

  def shared(self, shingles: np.ndarray) -> np.ndarray:
    """How many of these distinct shingles each held-out document has."""
    places = np.searchsorted(self._shingles, shingles)
    known = places < self._shingles.size
    places, shingles = places[known], shingles[known]
    places = places[self._shingles[places] == shingles]
    owners = [
      self._owners[start:end]
      for start, end in zip(
        self._bounds[places], self._bounds[places + 1], strict=True
      )
    ]
    return np.bincount(
      np.concatenate([np.zeros([0], np.int64), *owners]),
      minlength=self.sizes.size,
    )


def find(
  held_out: Sequence[Document], training: Iterable[Document]
) -> list[tuple[str, str]]:
  """Finds the training documents that nearly repeat a held-out one.

  Documents with fewer than `SHINGLE_WORDS` words are near-duplicates if their
  words are the same.

  Args:
    held_out: documents that no training document may give away.
    training: the documents to check.

  Returns:
    (id of a training document, id of a held-out document) for each pair of
    near-duplicates, in the order of `training`, then of `held_out`.
  """
  hashes = _WordHashes()
  index = _HeldOut(held_out, hashes)
  pairs = []
  for document in tqdm.tqdm(training, desc='comparing', unit='doc'):
    words = words_of(document.text)
    shingles = _shingles(words, hashes)
    if shingles.size:
      shared = index.shared(shingles)
      # A short document shares none, which is all it has: no match.
      smaller = np.minimum(index.sizes, shingles.size)
      matches = np.flatnonzero((shared > 0) & (2 * shared >= smaller))
    else:
      matches = index.short.get(tuple(words), [])
    pairs += [(document.id, held_out[match].id) for match in matches]
  return pairs
