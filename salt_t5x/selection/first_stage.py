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


"""SALT_DS's training data: what was selected first, then all of it in order.

The n_KD · B examples of the first stage are the selected ones (section 4), in
the global order and again from the start if they are too few. From then on a
run reads what every method reads: the full order from position n_KD · B.

A selection is two numbers, and the scores lie beside the data in the data's
own order, so that tf.data reads both side by side and keeps what is selected:
there is no list of ids to hold, and no second copy of the data.

At the stages' border each host passes over the n_KD · B examples that come
before its position, once; a run that is resumed later does not do so again.
"""

from collections.abc import Iterator
import contextlib
import dataclasses
import os

import jax
import numpy as np
import tensorflow as tf

from salt_t5x import files
from salt_t5x.data import ordered_cache, ordered_tasks
from salt_t5x.selection import record as selection_record
from salt_t5x.selection import score_shards
from t5x import utils


class SelectedSource(ordered_cache.CachedSource):
  """A cache, in global order, but for the first stage.

  The k-th pass over the selected examples is epoch -k, so that what is drawn
  for an example differs from what is drawn for it in the second stage.
  """

  def __init__(
    self,
    source: ordered_cache.CachedSource,
    selected: selection_record.Selection,
    score_files: list[str],
  ):
    """Constructor.

    Args:
      source: of all examples.
      selected: which of them make the first stage, and how many it reads.
      score_files: `score_shards.paths`, one record for each example.
    """
    super().__init__(source.cached_task, source.lengths)
    self._selected = selected
    self._score_files = score_files

  def stream(self, split: str, num_epochs: int | None) -> tf.data.Dataset:
    """See `CachedSource`; `num_epochs` is of the full order."""
    count = self._selected.needed
    passes = tf.data.Dataset.range(ordered_tasks.ENDLESS).flat_map(
      lambda number: self._selected_records(split).map(
        lambda record: (-1 - number, record)
      )
    )
    everything = super().stream(split, num_epochs)
    return passes.take(count).concatenate(everything.skip(count))

  def _selected_records(self, split: str) -> tf.data.Dataset:
    scores = tf.data.FixedLengthRecordDataset(
      self._score_files, score_shards.RECORD.itemsize
    )
    pool = tf.data.Dataset.zip(self.records(split), scores)
    pool = pool.skip(self._selected.first_position)
    pool = pool.filter(lambda _, score: _is_selected(score, self._selected))
    return pool.map(lambda record, _: record)


def _is_selected(
  record: tf.Tensor, selected: selection_record.Selection
) -> tf.Tensor:
  """`Selection.is_selected`, of one serialized `score_shards.RECORD`."""

  def field(name, dtype):
    width, offset = score_shards.RECORD.fields[name]
    part = tf.strings.substr(record, offset, width.itemsize)
    return tf.io.decode_raw(part, dtype)[0]

  score = field(selected.kind, tf.float32)
  threshold = np.float32(selected.threshold_score)
  is_tied = (score == threshold) & (
    field('id', tf.int64) <= selected.threshold_id
  )
  return (score > threshold) | is_tied


@dataclasses.dataclass(frozen=True)
class FirstStage:
  """The first stage's data. Bound in gin as `first_stage.FirstStage`.

  Attributes:
    path: of a selection's record, from `salt_t5x.select`.
    kd_steps: n_KD, the steps of the first stage.
    total_steps: of the run.
    model_dir: of the run; it keeps a copy of the record, `selection.json`, and
      is held to it.
    teacher_path: the teacher of this run; None where there is none.
  """

  path: str
  kd_steps: int
  total_steps: int
  model_dir: str
  teacher_path: str | None = None

  def task(self, cfg: utils.DatasetConfig) -> ordered_tasks.OrderedTask:
    """The task of `cfg`, reading the selected examples first.

    Args:
      cfg: the training data.

    Returns:
      A task that is not registered.

    Raises:
      ValueError: the first stage is longer than the run, or the selection is
        of other data, of another teacher, for a first stage of another length,
        or another one than this run began with, or its scores are gone.
    """
    if (
      type(self.kd_steps) is not int
      or not 1 <= self.kd_steps <= self.total_steps
    ):
      raise ValueError(
        f'first_stage.FirstStage.kd_steps = {self.kd_steps!r} (KD_STEPS) is '
        f'not between 1 and the steps of the run, {self.total_steps} '
        '(TRAIN_STEPS).'
      )
    task = ordered_cache.get_task(cfg.mixture_or_task_name)
    with _naming_path(self.path):
      selected = selection_record.read(self.path)
    source = task.source
    selected.check_data(
      source.cached_task.name, cfg.split, source.fingerprint(cfg.split)
    )
    if self.teacher_path is not None:
      selected.check_teacher(self.teacher_path)
    needed = self.kd_steps * cfg.batch_size
    if selected.needed != needed:
      raise ValueError(
        f'SELECTION_PATH = {self.path!r} is of a first stage that reads '
        f'{selected.needed} examples, but KD_STEPS = {self.kd_steps} of '
        f'BATCH_SIZE = {cfg.batch_size} read {needed}. Select again '
        f'(salt_t5x.select --kd_steps={self.kd_steps} '
        f'--batch_size={cfg.batch_size}).'
      )
    with _naming_path(self.path):
      manifest = score_shards.read_manifest(selected.scores)
      shards = score_shards.paths(selected.scores, manifest)
    source_of_scores = {
      'data': selected.data,
      'teacher': selected.teacher,
      'top_k': selected.top_k,
      'examples': selected.first_position + selected.pool,
    }
    if files.differences(dataclasses.asdict(manifest), source_of_scores):
      raise ValueError(
        f'SELECTION_PATH = {self.path!r}: {selected.scores} no longer holds '
        'the scores that were selected from. Select again (salt_t5x.select).'
      )
    self._keep(selected)
    return task.reading(SelectedSource(source, selected, shards))

  def _keep(self, selected: selection_record.Selection) -> None:
    """Keeps a copy of the record for those who resume the run."""
    path = os.path.join(self.model_dir, 'selection.json')
    if not tf.io.gfile.exists(path):
      if jax.process_index() == 0:
        tf.io.gfile.makedirs(self.model_dir)
        selection_record.write(path, selected)
      return
    record = dataclasses.asdict(selected)
    # The folder of scores may have been moved, and the teacher.
    del record['scores'], record['teacher']
    files.claim(
      path,
      record,
      what=f'SELECTION_PATH = {self.path!r}: MODEL_DIR = {self.model_dir!r}',
      remedy='Resume with its own selection.json, or choose another MODEL_DIR.',
      write=False,
    )


@contextlib.contextmanager
def _naming_path(path: str) -> Iterator[None]:
  try:
    yield
  except ValueError as e:
    raise ValueError(
      f'SELECTION_PATH = {path!r}: {e} (If the scores were only moved, correct '
      "'scores' in the record.)"
    ) from e
