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


"""The record of a selection, which SELECTION_PATH names."""

import dataclasses
import math

import numpy as np

from salt_t5x import files
from salt_t5x.selection import scoring
from salt_t5x.selection import threshold as threshold_lib


@dataclasses.dataclass(frozen=True)
class Selection:
  """The selected examples, and the pool they were selected from.

  Attributes:
    kind: kind of score, one of `scoring.KINDS`.
    threshold_score: score of the last selected record, a float32.
    threshold_id: id of that record; see `threshold`.
    selected: number of selected records, m.
    pool: number of records in the pool.
    first_position: position in the global order where the pool begins.
    ties: number of records with exactly the threshold's score.
    ties_selected: number of these that are selected.
    kd_steps: steps of the first stage, n_KD.
    batch_size: B.
    top_k: k of eq. (10).
    teacher: the scoring checkpoint, `.../checkpoint_<step>`.
    teacher_identity: its `checkpoints.find.identity`; a copy has the same.
    step: its step, n_0.
    task: the cached seqio task.
    split: the split of the task.
    data: the fingerprint of the cache.
    scores: the folder of scores.
    selected_by_file: the number of selected records in each file of the cache.
    share: of the pool that was asked for; None where n_KD · B examples were.

  Raises:
    ValueError: no selection has such a value.
  """

  kind: str
  threshold_score: float
  threshold_id: int
  selected: int
  pool: int
  first_position: int
  ties: int
  ties_selected: int
  kd_steps: int
  batch_size: int
  top_k: int
  teacher: str
  teacher_identity: str
  step: int
  task: str
  split: str
  data: str
  scores: str
  selected_by_file: list
  share: float | None = None

  def __post_init__(self):
    files.check_types(self)
    with np.errstate(over='ignore'):
      score = float(np.float32(self.threshold_score))
    is_possible = (
      self.kind in scoring.KINDS
      and math.isfinite(score)
      and score == self.threshold_score
      and 0 <= self.threshold_id < 2**63
      and 1 <= self.ties_selected <= min(self.ties, self.selected)
      and max(self.ties, self.selected) <= self.pool
      and min(self.kd_steps, self.batch_size, self.top_k) >= 1
      and min(self.first_position, self.step) >= 0
      and sum(self.selected_by_file) == self.selected
    )
    if not is_possible:
      raise ValueError(f'no selection has these values: {self}')

  @property
  def needed(self) -> int:
    """The number of examples that the first stage reads, n_KD · B."""
    return self.kd_steps * self.batch_size

  @property
  def repeats(self) -> float:
    """The average number of times the first stage reads a selected example."""
    return self.needed / self.selected

  def is_selected(self, scores: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """See `threshold.Threshold`; for the pool, from `first_position` on."""
    threshold = threshold_lib.Threshold(
      self.threshold_score, self.threshold_id, self.ties, self.ties_selected
    )
    return threshold.is_selected(scores, ids)


def write(path: str, selection: Selection) -> None:
  """Writes a record; JSON keeps every digit of the threshold."""
  files.write_json(path, dataclasses.asdict(selection))


def read(path: str) -> Selection:
  """Reads a record.

  Raises:
    ValueError: there is none, it is damaged, or it is something else.
  """
  try:
    return files.read_record(path, Selection)
  except ValueError as e:
    raise ValueError(
      f'{path} is missing, damaged or no record of a selection ({e}). Make it '
      'with salt_t5x.select.'
    ) from e
