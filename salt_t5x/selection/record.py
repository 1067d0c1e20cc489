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
import os
import re

import numpy as np

from salt_t5x import files
from salt_t5x.selection import scoring


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
    needed: number of examples that the first stage reads, n_KD · B.
    top_k: k of eq. (10).
    teacher: the scoring checkpoint, `.../checkpoint_<step>`.
    step: its step, n_0.
    task: the cached seqio task.
    split: the split of the task.
    data: the fingerprint of the cache.
    scores: the folder of scores.

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
  needed: int
  top_k: int
  teacher: str
  step: int
  task: str
  split: str
  data: str
  scores: str

  def __post_init__(self):
    files.check_types(self)
    with np.errstate(over='ignore'):
      score = float(np.float32(self.threshold_score))
    possible = {
      'kind': self.kind in scoring.KINDS,
      'threshold_score': math.isfinite(score) and score == self.threshold_score,
      'threshold_id': 0 <= self.threshold_id < 2**63,
      'selected': self.ties_selected <= self.selected <= self.pool,
      'first_position': self.first_position >= 0,
      'ties': self.ties <= self.pool,
      'ties_selected': 1 <= self.ties_selected <= self.ties,
      'needed': self.needed >= 1,
      'top_k': self.top_k >= 1,
      'step': self.step >= 0,
    }
    for name, is_possible in possible.items():
      if not is_possible:
        raise ValueError(f'{name} = {getattr(self, name)!r} is not possible')

  @property
  def repeats(self) -> float:
    """The average number of times the first stage reads a selected example."""
    return self.needed / self.selected

  def is_selected(self, scores: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Returns bool [n] for scores float32 [n] and ids int64 [n].

    It applies to the records of the pool, from `first_position` on.
    """
    threshold = np.float32(self.threshold_score)
    is_tied = (scores == threshold) & (ids <= self.threshold_id)
    return (scores > threshold) | is_tied

  def check_data(self, task: str, split: str, fingerprint: str) -> None:
    """Raises ValueError if a run reads other data than were scored."""
    here = {'task': task, 'split': split, 'data': fingerprint}
    found = files.differences(dataclasses.asdict(self), here)
    if found:
      listed = '; '.join(
        f'{name} is {there!r} there and {value!r} here'
        for name, (there, value) in found.items()
      )
      raise ValueError(
        f'SELECTION_PATH: the selection from {self.scores} was made from other '
        f'data than this run reads: {listed}. Set MIXTURE_OR_TASK_NAME to a '
        'task that reads the cache that was scored, or score this cache with '
        'salt_t5x.score and select from it with salt_t5x.select.'
      )

  def check_teacher(self, path: str) -> None:
    """Raises ValueError if the teacher is not of the run that scored.

    Args:
      path: of the teacher, its model directory or a checkpoint in it.
    """
    scored, teaches = map(_model_dir, (self.teacher, path))
    if scored != teaches:
      raise ValueError(
        f'SELECTION_PATH: the selection from {self.scores} was made by '
        f'{self.teacher}, which is no checkpoint of the teacher of this run, '
        f'TEACHER_PATH = {path!r}. Set TEACHER_PATH to {scored!r}, or score '
        'with an early checkpoint of this teacher (salt_t5x.score) and select '
        'again (salt_t5x.select). (If that folder was only moved, correct '
        "'teacher' in the record.)"
      )


def _model_dir(path: str) -> str:
  path = path.rstrip('/') if '://' in path else os.path.realpath(path)
  folder, name = os.path.split(path)
  return folder if re.fullmatch(r'checkpoint_\d+', name) else path


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
