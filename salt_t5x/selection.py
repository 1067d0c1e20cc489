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


"""The examples with the highest scores: a threshold, and a record of it.

Section 4 trains the first stage on the top m sequences by score. One pair of
numbers says which these are, however many there are: a score and an id. An
example is selected if its score is higher, or equal and its id not higher.
"""

from collections.abc import Callable, Iterable, Sequence
import dataclasses
import json
import math
import os
import re
from typing import NamedTuple

import numpy as np

from salt_t5x import json_records, score_shards, whole_files

# Begins a pass over all records, in parts of any size and in any order: yields
# (scores float32 [n], ids int64 [n], in [0, 2^63)). It is told what it is for.
Read = Callable[[str], Iterable[tuple[np.ndarray, np.ndarray]]]

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
class Selection:
  """What was selected, and from what.

  Attributes:
    kind: of score, one of `score_shards.KINDS`.
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
    json_records.check_types(self)
    with np.errstate(over='ignore'):
      score = float(np.float32(self.threshold_score))
    possible = {
      'kind': self.kind in score_shards.KINDS,
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
  whole_files.write_whole(path, text.encode())


def read(path: str) -> Selection:
  """Reads a record.

  Raises:
    ValueError: there is none, it is damaged, or it is something else.
  """
  try:
    return json_records.read_record(path, Selection)
  except ValueError as e:
    raise ValueError(
      f'{path} is missing, damaged or no record of a selection ({e}). Make it '
      'with salt_t5x.select.'
    ) from e
