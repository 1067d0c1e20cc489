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

"""The examples with the highest scores: a threshold.

Section 4 trains the first stage on the top m sequences by score. One pair of
numbers says which these are, however many there are: a score and an id. An
example is selected if its score is higher, or equal and its id not higher.
"""

import collections
from collections.abc import Callable, Iterable, Iterator, Sequence
import dataclasses
from typing import NamedTuple

import numpy as np
import tqdm

from salt_t5x.selection import record as selection_record
from salt_t5x.selection import report, score_shards

# Begins a pass over all records, in parts of any size and in any order: yields
# (scores float32 [n], ids int64 [n], in [0, 2^63)). It is told what it is for.
Read = Callable[[str], Iterable[tuple[np.ndarray, np.ndarray]]]

_QUANTILES = (100, 90, 75, 50, 25, 10, 0)
_BINS = 100
_DIGIT = 16  # bits that a pass decides


class Threshold(NamedTuple):
  """The last record that is selected, and how many have its score."""

  score: float
  id: int
  ties: int
  ties_selected: int


def find_threshold(
  read: Read, count: int, ranks: Sequence[int] = ()
) -> tuple[Threshold, list[float]]:
  """Finds the record that is number `count` by falling score and rising id.

  In six passes, with the scores of one part and a few histograms in memory.

  Args:
    read: the records. No two have the same id; scores are finite.
    count: m.
    ranks: of scores to find on the way, 1 for the highest.

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
    float(_flip(np.int64(key)).astype(np.uint32).view(np.float32))
    for key, _, _ in found
  )
  return Threshold(score, last, ties, rank), others


def _bits(scores: np.ndarray) -> np.ndarray:
  """Float32 bits as int64, with one zero only."""
  bits = np.asarray(scores, np.float32).view(np.uint32).astype(np.int64)
  return np.where(bits == 1 << 31, 0, bits)


def _flip(bits: np.ndarray) -> np.ndarray:
  """From float32 bits to keys that rise as the numbers fall, and back."""
  return np.where(bits < 1 << 31, (1 << 31) - 1 - bits, bits)


def _at_ranks(
  read: Callable[[], Iterable[np.ndarray]], bits: int, ranks: Sequence[int]
) -> list[tuple[int, int, int]]:
  """Finds keys by their ranks, 16 bits in a pass.

  Args:
    read: begins a pass over the keys, int64 and at least 0.
    bits: of a key, a multiple of 16.
    ranks: 1 for the lowest key.

  Returns:
    For each rank (its key, the rank among equal keys, how many are equal).
  """
  # What is known of each rank: the key's first digits, and the rank and the
  # number of those that begin with them.
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


@dataclasses.dataclass(frozen=True)
class Pool:
  """The records that take part.

  Attributes:
    directory: of the scores.
    manifest: of the scores.
    kind: of score.
    first_position: in the global order.
  """

  directory: str
  manifest: score_shards.Manifest
  kind: str
  first_position: int

  @property
  def size(self) -> int:
    return max(self.manifest.examples - self.first_position, 0)

  def read(self, purpose: str) -> Iterator[tuple[np.ndarray, list[str]]]:
    """Yields (records, names of their domains) by shard; shows progress.

    Raises:
      ValueError: a shard is missing or damaged, a score is not finite, or an
        id is negative.
    """
    shards = score_shards.read_shards(self.directory, self.manifest)
    progress = tqdm.tqdm(
      shards, f'reading {purpose}', self.manifest.num_shards, unit='shard'
    )
    for index, (records, domains) in enumerate(progress):
      start = index * self.manifest.shard_size
      first = min(max(self.first_position - start, 0), len(records))
      records = records[first:]
      # The mean is of all tokens: a token that is not a number is in it,
      # though medians may pass it by.
      wrong = ~np.isfinite(records[self.kind]) | ~np.isfinite(records['mean'])
      wrong |= records['id'] < 0
      if wrong.any():
        i = int(wrong.argmax())
        raise ValueError(
          f'{self.directory}: shard {index} of the scores has, at position '
          f'{start + first + i} of the global order, {self.kind} = '
          f'{records[self.kind][i]}, mean = {records["mean"][i]} and id = '
          f'{records["id"][i]}. Scores must '
          'be finite and ids at least 0: find out why they are not, and score '
          'the data anew.'
        )
      if len(records):
        yield records, domains


def select(
  pool: Pool, count: int, needed: int
) -> tuple[selection_record.Selection, str, bytes]:
  """Selects the top `count` records.

  Args:
    pool: of at least so many.
    count: m.
    needed: examples that the first stage reads.

  Returns:
    (record, report as Markdown, report's plot as PNG).

  Raises:
    ValueError: see `Pool.read`; or ids repeat.
  """
  # Nearest ranks; the selected records are the first of the pool.
  ranks = [
    1 + round((1 - q / 100) * (size - 1))
    for q in _QUANTILES
    for size in (pool.size, count)
  ]
  threshold, scores = find_threshold(
    lambda purpose: ((r[pool.kind], r['id']) for r, _ in pool.read(purpose)),
    count,
    ranks,
  )
  manifest = pool.manifest
  record = selection_record.Selection(
    kind=pool.kind,
    threshold_score=threshold.score,
    threshold_id=threshold.id,
    selected=count,
    pool=pool.size,
    first_position=pool.first_position,
    ties=threshold.ties,
    ties_selected=threshold.ties_selected,
    needed=needed,
    top_k=manifest.top_k,
    teacher=manifest.teacher,
    step=manifest.step,
    task=manifest.task,
    split=manifest.split,
    data=manifest.data,
    scores=pool.directory,
  )
  quantiles = dict(
    zip(_QUANTILES, zip(scores[::2], scores[1::2], strict=True), strict=True)
  )
  edges = np.histogram_bin_edges(
    [], _BINS, (quantiles[0][0], quantiles[100][0])
  )
  histogram, domains = _count(pool, record, edges)
  return (
    record,
    report.markdown(record, domains, quantiles),
    report.plot(record, domains, histogram, edges),
  )


def _count(
  pool: Pool, record: selection_record.Selection, edges: np.ndarray
) -> tuple[np.ndarray, report.Domains]:
  """Counts the pool's scores by bin, and domains; checks the selection."""
  histogram = np.zeros(len(edges) - 1, np.int64)
  domains = collections.defaultdict(lambda: np.zeros(2, np.int64))
  for records, names in pool.read('domains'):
    scores = records[pool.kind]
    histogram += np.histogram(scores, edges)[0]
    is_selected = record.is_selected(scores, records['id'])
    for column, found in enumerate((records, records[is_selected])):
      counts = np.bincount(found['domain'], minlength=len(names))
      for name, count in zip(names, counts, strict=True):
        domains[name][column] += count
  selected = sum(count for _, count in domains.values())
  if selected != record.selected:
    raise ValueError(
      f'{pool.directory}: {selected} records instead of {record.selected} are '
      f'selected, as several have the id {record.threshold_id}. Ids must not '
      'repeat: give the task ids that are its own, and score the data anew.'
    )
  return histogram, domains


# --- The report ---------------------------------------------------------------
