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


"""A record of what was selected, and from what.

Section 4 trains the first stage on the top m sequences by score. One pair of
numbers says which these are, however many there are: a score and an id. An
example is selected if its score is higher, or equal and its id not higher.
"""

import dataclasses
import json
import math
import os
import re

import numpy as np

from salt_t5x import files
from salt_t5x.selection import scoring


@dataclasses.dataclass(frozen=True)
class Selection:
  """What was selected, and from what.

  Attributes:
    kind: of score, one of `scoring.KINDS`.
    threshold_score: of the last record that is selected; a float32.
    threshold_id: of that record.
    selected: how many are, m.
    pool: how many records took part.
    first_position: of them in the global order; what comes before did not
      take part.
    ties: records with exactly the threshold's score.
    ties_selected: of them.
    needed: examples that the first stage reads, n_KD · B.
    top_k: k.
    teacher: the checkpoint that scored, `.../checkpoint_<step>`.
    step: of the teacher, n_0.
    task: the cached seqio task.
    split: of it.
    data: the cache's fingerprint.
    scores: the folder of scores.

  Raises:
    ValueError: a value that no selection has.
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
    """How often the first stage reads a selected example, on average."""
    return self.needed / self.selected

  def is_selected(self, scores: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Returns bool [n] for scores float32 [n] and ids int64 [n].

    Only for records that took part: from `first_position` on.
    """
    threshold = np.float32(self.threshold_score)
    is_tied = (scores == threshold) & (ids <= self.threshold_id)
    return (scores > threshold) | is_tied

  def check_data(self, task: str, split: str, fingerprint: str) -> None:
    """Raises ValueError if a run reads other data than were scored."""
    here = {'task': task, 'split': split, 'data': fingerprint}
    differences = [
      f'{name} is {getattr(self, name)!r} there and {value!r} here'
      for name, value in here.items()
      if getattr(self, name) != value
    ]
    if differences:
      raise ValueError(
        f'SELECTION_PATH: the selection from {self.scores} is not of the data '
        f'of this run: {"; ".join(differences)}. Set MIXTURE_OR_TASK_NAME to a '
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
        'anew (salt_t5x.select). (If that folder was only moved, correct '
        "'teacher' in the record.)"
      )


def _model_dir(path: str) -> str:
  path = path.rstrip('/') if '://' in path else os.path.realpath(path)
  folder, name = os.path.split(path)
  return folder if re.fullmatch(r'checkpoint_\d+', name) else path


def write(path: str, selection: Selection) -> None:
  """Writes a record, all of it or nothing."""
  # JSON has a float32's every digit: Python writes floats so that they come
  # back as they were.
  text = json.dumps(dataclasses.asdict(selection), indent=2) + '\n'
  files.write_whole(path, text.encode())


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
