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

"""The pool of scored records, and selection from it."""

import collections
from collections.abc import Iterator, Mapping
import dataclasses

import numpy as np
import tqdm

from salt_t5x.selection import record as selection_record
from salt_t5x.selection import score_shards
from salt_t5x.selection import threshold as threshold_lib

_QUANTILES = (100, 90, 75, 50, 25, 10, 0)
_BINS = 100
_OF_THE_SCORES = (
  *('top_k', 'teacher', 'teacher_identity', 'step', 'task', 'split', 'data'),
)


@dataclasses.dataclass(frozen=True)
class Statistics:
  """A selection compared with its pool.

  Attributes:
    quantiles: {percent: [score in the pool, score among the selected]}.
    domains: {name: int64 [2], records in the pool and selected}.
    histogram: [bins] int64, the pool's records by score.
    edges: [bins + 1] float64, the edges of the bins.
  """

  quantiles: Mapping[int, np.ndarray]
  domains: Mapping[str, np.ndarray]
  histogram: np.ndarray
  edges: np.ndarray


@dataclasses.dataclass(frozen=True)
class Pool:
  """The scored records after a position of the global order.

  Attributes:
    directory: the folder of scores.
    manifest: the manifest of the scores.
    kind: the kind of score, one of `scoring.KINDS`.
    first_position: position in the global order where the pool begins.
  """

  directory: str
  manifest: score_shards.Manifest
  kind: str
  first_position: int

  @property
  def size(self) -> int:
    """The number of records."""
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
      # A NaN loss always makes the mean NaN, but not the medians.
      wrong = ~np.isfinite(records[self.kind]) | ~np.isfinite(records['mean'])
      wrong |= records['id'] < 0
      if wrong.any():
        i = int(wrong.argmax())
        raise ValueError(
          f'{self.directory}: shard {index} of the scores has, at position '
          f'{start + first + i} of the global order, {self.kind} = '
          f'{records[self.kind][i]}, mean = {records["mean"][i]} and id = '
          f'{records["id"][i]}. Scores must be finite and ids at least 0: '
          'correct the teacher or the data, and score again.'
        )
      if len(records):
        yield records, domains

  def select(
    self, count: int, kd_steps: int, batch_size: int
  ) -> tuple[selection_record.Selection, Statistics]:
    """Selects the records with the highest scores.

    Args:
      count: m, at most `size`.
      kd_steps: steps of the first stage, n_KD.
      batch_size: B.

    Returns:
      (the selection, its statistics).

    Raises:
      ValueError: see `read`; or ids repeat.
    """
    # Nearest ranks; the selected records are the first of the pool.
    shares = 1 - np.array(_QUANTILES) / 100
    ranks = 1 + np.rint(np.outer(shares, [self.size - 1, count - 1]))
    threshold, scores = threshold_lib.find_threshold(
      lambda purpose: ((r[self.kind], r['id']) for r, _ in self.read(purpose)),
      count,
      ranks.astype(int).ravel().tolist(),
    )
    quantiles = dict(zip(_QUANTILES, np.reshape(scores, (-1, 2)), strict=True))
    edges = np.histogram_bin_edges([], _BINS, (min(scores), max(scores)))
    histogram, domains, by_file = self._count(threshold, edges)
    if sum(by_file) != count:
      raise ValueError(
        f'{self.directory}: {sum(by_file)} records instead of {count} are '
        f'selected, as several have the id {threshold.id}. Give the task '
        'unique ids, and score the data again.'
      )
    selection = selection_record.Selection(
      kind=self.kind,
      threshold_score=threshold.score,
      threshold_id=threshold.id,
      selected=count,
      pool=self.size,
      first_position=self.first_position,
      ties=threshold.ties,
      ties_selected=threshold.ties_selected,
      kd_steps=kd_steps,
      batch_size=batch_size,
      scores=self.directory,
      selected_by_file=by_file,
      **{name: getattr(self.manifest, name) for name in _OF_THE_SCORES},
    )
    return selection, Statistics(quantiles, domains, histogram, edges)

  def _count(
    self, threshold: threshold_lib.Threshold, edges: np.ndarray
  ) -> tuple[np.ndarray, Mapping[str, np.ndarray], list[int]]:
    """Counts records by score and by domain, and selected ones by file."""
    ends = np.cumsum(self.manifest.examples_by_file)
    by_file = np.zeros(len(ends), np.int64)
    position = self.first_position
    histogram = np.zeros(len(edges) - 1, np.int64)
    domains: dict[str, np.ndarray] = collections.defaultdict(
      lambda: np.zeros(2, np.int64)
    )
    for records, names in self.read('domains'):
      scores = records[self.kind]
      histogram += np.histogram(scores, edges)[0]
      is_selected = threshold.is_selected(scores, records['id'])
      positions = position + np.flatnonzero(is_selected)
      np.add.at(by_file, np.searchsorted(ends, positions, side='right'), 1)
      position += len(records)
      for column, found in enumerate((records, records[is_selected])):
        counts = np.bincount(found['domain'])
        for i in np.flatnonzero(counts):
          domains[names[i]][column] += counts[i]
    return histogram, domains, by_file.tolist()
