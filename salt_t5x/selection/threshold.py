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

"""Finds the threshold above which examples are selected: a radix selection.

Section 4 trains the first stage on the top m sequences by score. A threshold
describes them by two numbers, a score and an id: an example is selected if its
score is higher, or equal and its id not higher.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

# Begins a pass over all records, in parts of any size and in any order: yields
# (scores float32 [n], ids int64 [n], in [0, 2^63)). Its argument says what the
# pass is for.
Read = Callable[[str], Iterable[tuple[np.ndarray, np.ndarray]]]

_DIGIT = 16  # bits of the key that one pass determines


class Threshold(NamedTuple):
  """Score and id of the last selected record; records with that score."""

  score: float
  id: int
  ties: int
  ties_selected: int

  def is_selected(self, scores: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Returns bool [n] for scores float32 [n] and ids int64 [n].

    These may be NumPy arrays or tensors.
    """
    threshold = np.float32(self.score)
    return (scores > threshold) | ((scores == threshold) & (ids <= self.id))


def find_threshold(
  read: Read, count: int, ranks: Sequence[int] = ()
) -> tuple[Threshold, list[float]]:
  """Finds record number `count` by falling score and rising id.

  It takes six passes, with the scores of one part and a few histograms in
  memory.

  Args:
    read: the records, with unique ids and finite scores.
    count: m.
    ranks: ranks of further scores to find, 1 for the highest.

  Returns:
    (the threshold, the scores at `ranks`). No zero is negative.

  Raises:
    ValueError: there are fewer records than `count` or a rank.
  """

  def score_keys():
    return (_flip(_bits(scores)) for scores, _ in read('scores'))

  found = _at_ranks(score_keys, 32, [count, *ranks])
  key, rank, ties = found[0]

  def tied_ids():
    return (ids[_flip(_bits(scores)) == key] for scores, ids in read('ties'))

  [(last, _, _)] = _at_ranks(tied_ids, 64, [rank])
  score, *others = (
    float(_flip(np.array(key)).astype(np.uint32).view(np.float32))
    for key, _, _ in found
  )
  return Threshold(score, last, ties, rank), others


def _bits(scores: np.ndarray) -> np.ndarray:
  """Float32 bits as int64; both zeros are 0."""
  bits = np.asarray(scores, np.float32).view(np.uint32).astype(np.int64)
  return np.where(bits == 1 << 31, 0, bits)


def _flip(bits: np.ndarray) -> np.ndarray:
  """Maps float32 bits to keys that rise as the numbers fall, and back."""
  return np.where(bits < 1 << 31, (1 << 31) - 1 - bits, bits)


def _at_ranks(
  read: Callable[[], Iterable[np.ndarray]], bits: int, ranks: Sequence[int]
) -> list[tuple[int, int, int]]:
  """Finds keys by their ranks, 16 bits a pass.

  Args:
    read: begins a pass over the keys, int64 and at least 0.
    bits: of a key, a multiple of 16.
    ranks: 1 for the lowest key.

  Returns:
    For each rank (its key, the rank among equal keys, how many are equal).
  """
  # For each rank: the key's first digits, and among the keys that begin with
  # them the rank, and their number.
  found = [(0, rank, 0) for rank in ranks]
  for shift in range(bits - _DIGIT, -1, -_DIGIT):
    histograms = {
      prefix: np.zeros(1 << _DIGIT, np.int64) for prefix, _, _ in found
    }
    for keys in read():
      top = keys >> shift
      for prefix, histogram in histograms.items():
        digits = top[top >> _DIGIT == prefix] & (1 << _DIGIT) - 1
        histogram += np.bincount(digits, minlength=1 << _DIGIT)
    for i, (prefix, rank, _) in enumerate(found):
      up_to = np.cumsum(histograms[prefix])
      if rank > up_to[-1]:
        raise ValueError(f'There are {up_to[-1]} records, fewer than {rank}.')
      digit = int(np.searchsorted(up_to, rank))
      equal = int(histograms[prefix][digit])
      rank -= int(up_to[digit]) - equal
      found[i] = (prefix << _DIGIT | digit, rank, equal)
  return found
