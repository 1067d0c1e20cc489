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


"""SALT_DS's training data: the selected examples first, then the full order.

The n_KD · B examples of the first stage are the selected ones (section 4), in
the global order, and in other orders again if they are too few. From then on a
run reads the same data as every method: the full order from position n_KD · B.

A selection is a threshold of two numbers, and the scores are stored in the
order of the data. The selected examples of a file of the cache are found by
reading its scores: no list of ids is held in memory, and the data are not
copied. As the record tells how many each file has, any position is found at
once.
"""

from collections.abc import Sequence
import dataclasses
import os

import jax
import numpy as np
import tensorflow as tf

from salt_t5x import files
from salt_t5x.checkpoints import find
from salt_t5x.data import order as order_lib
from salt_t5x.data import ordered_cache, ordered_tasks
from salt_t5x.selection import record as selection_record
from salt_t5x.selection import score_shards, scoring
from t5x import utils


class SelectedSource(ordered_cache.CachedSource):
  """A cache in global order, after the selected examples.

  The k-th pass over the selected examples is epoch -k, so that random draws for
  an example differ from those in the second stage.
  """

  def __init__(
    self,
    source: ordered_cache.CachedSource,
    selected: selection_record.Selection,
    manifest: score_shards.Manifest,
    score_files: list[str],
  ):
    """Constructor.

    Args:
      source: the cache of all examples.
      selected: the examples of the first stage and how many it reads.
      manifest: describes the scores.
      score_files: from `score_shards.paths`.
    """
    super().__init__(source.cached_task, source.lengths)
    self._selected = selected
    self._manifest = manifest
    self._score_files = score_files

  def stream(
    self, split: str, num_epochs: int | None, start: int = 0
  ) -> tf.data.Dataset:
    """See `CachedSource`; `num_epochs` is of the full order."""
    order, needed = self.order(split), self._selected.needed
    everything = order.stream(max(start, needed), num_epochs)
    if start >= needed:
      return everything
    counts = np.array(self._selected.selected_by_file)
    places = np.flatnonzero(counts).tolist()
    kept = order_lib.Kept(
      counts[places].tolist(),
      lambda i: self._mask(order, tf.constant(places)[i]),
    )
    some = dataclasses.replace(
      order,
      paths=[order.paths[i] for i in places],
      counts=[order.counts[i] for i in places],
      checksums=[order.checksums[i] for i in places],
    )
    passes = some.stream(start, None, kept)
    passes = passes.map(lambda number, record: (-1 - number, record))
    return passes.take(needed - start).concatenate(everything)

  def _mask(self, order: order_lib.Order, file: tf.Tensor) -> tf.data.Dataset:
    """Reads which examples of a file are selected: one element, bool [n]."""
    ends = tf.constant(np.cumsum(order.counts), tf.int64)
    count = tf.constant(order.counts, tf.int64)[file]
    first = ends[file] - count
    size = self._manifest.shard_size
    scored = tf.minimum(count, self._manifest.examples - first)
    shard, last = first // size, (first + scored - 1) // size
    scores = tf.data.FixedLengthRecordDataset(
      tf.constant(self._score_files)[shard : last + 1],
      score_shards.RECORD.itemsize,
    )
    scores = scores.skip(first - shard * size).take(scored)

    def mask(scores):
      scores = order_lib.check_count(self._selected.scores, scores, scored)

      def field(name, dtype):
        width, offset = score_shards.RECORD.fields[name]
        part = tf.strings.substr(scores, offset, width.itemsize)
        return tf.io.decode_raw(part, dtype)[:, 0]

      is_selected = self._selected.is_selected(
        field(self._selected.kind, tf.float32), field('id', tf.int64)
      )
      positions = first + tf.range(scored)
      is_selected &= positions >= self._selected.first_position
      return tf.pad(is_selected, [[0, count - scored]])

    end = ' ' * score_shards.RECORD.itemsize
    return order_lib.whole(scores, end, scored).map(mask)


def selected_task(
  task: ordered_tasks.OrderedTask, selected: selection_record.Selection
) -> ordered_tasks.OrderedTask:
  """Returns a task with the selected examples first; it is not registered.

  Args:
    task: it reads the cache of all examples.
    selected: the examples of the first stage.

  Raises:
    ValueError: the scores are missing or damaged.
  """
  manifest = score_shards.read_manifest(selected.scores)
  shards = score_shards.paths(selected.scores, manifest)
  return task.reading(SelectedSource(task.source, selected, manifest, shards))


@dataclasses.dataclass(frozen=True)
class FirstStage:
  """The first stage's data. Bound in gin as `first_stage.FirstStage`.

  Attributes:
    path: a selection's record, from `salt_t5x.select`.
    kd_steps: n_KD, the steps of the first stage.
    total_steps: the steps of the run.
    model_dir: the run's directory; it keeps a copy of the record,
      `selection.json`, and a resumed run must match it.
    teacher_path: the teacher of this run; None if it has none.
    kinds: the kinds of scores that this run may be selected by.
    needs_share: whether the selection must be a share, which may be repeated.
  """

  path: str
  kd_steps: int
  total_steps: int
  model_dir: str
  teacher_path: str | None = None
  kinds: Sequence[str] = scoring.KINDS
  needs_share: bool = False

  def task(self, cfg: utils.DatasetConfig) -> ordered_tasks.OrderedTask:
    """Returns the task of `cfg` with the selected examples first.

    Args:
      cfg: the training data.

    Returns:
      A task that is not registered.

    Raises:
      ValueError: the first stage is longer than the run; the selection was
        made from other data, by another teacher or kind of score, for a first
        stage of another length, or is not the one that this run began with; or
        its scores are missing.
    """
    is_integer = type(self.kd_steps) is int
    if not (is_integer and 1 <= self.kd_steps <= self.total_steps):
      raise ValueError(
        f'first_stage.FirstStage.kd_steps = {self.kd_steps!r} (KD_STEPS) is '
        f'not between 1 and the steps of the run, {self.total_steps} '
        '(TRAIN_STEPS).'
      )
    task = ordered_cache.get_task(cfg.mixture_or_task_name)
    try:
      selected = selection_record.read(self.path)
      manifest = score_shards.read_manifest(selected.scores)
      score_shards.paths(selected.scores, manifest)
    except ValueError as e:
      raise ValueError(
        f'SELECTION_PATH = {self.path!r}: {e} (If the scores were only moved, '
        "correct 'scores' in the record.)"
      ) from e
    if selected.kind not in self.kinds:
      raise ValueError(
        f'SELECTION_PATH = {self.path!r} was selected by --kind={selected.kind}'
        f', but the first stage of this run is selected by '
        f'{" or ".join(self.kinds)} (first_stage.FirstStage.kinds). Name the '
        'record of this method, or select again.'
      )
    if self.needs_share and selected.share is None:
      raise ValueError(
        f'SELECTION_PATH = {self.path!r} holds as many examples as the first '
        'stage reads, but this method repeats a share of all data. Select '
        'again with --share=0.4.'
      )
    source = task.source
    data = source.fingerprint(cfg.split)
    here = {
      'task': source.cached_task.name,
      'split': cfg.split,
      'data': data,
      'data_of_the_scores': data,
      'teacher_identity': manifest.teacher_identity,
      'top_k': manifest.top_k,
      'pool': manifest.examples - selected.first_position,
      'kd_steps': self.kd_steps,
      'batch_size': cfg.batch_size,
    }
    there = {
      **dataclasses.asdict(selected),
      'data_of_the_scores': manifest.data,
    }
    if self.teacher_path is not None:
      # By content where the checkpoint that scored is still there, or by path.
      name, mine = (
        'TEACHER_PATH',
        find.model_dir_of(self.teacher_path),
      )
      identity = find.identity_in(mine, selected.step)
      if identity != selected.teacher_identity:
        here[name] = mine
        there[name] = find.model_dir_of(selected.teacher)
        if identity is not None:
          there[name] += f' ({selected.teacher_identity})'
          here[name] += f' ({identity})'
    if found := files.differences(there, here):
      listed = '; '.join(
        f'{name} is {before!r} there and {value!r} here'
        for name, (before, value) in found.items()
      )
      raise ValueError(
        f'SELECTION_PATH = {self.path!r} does not fit this run or the scores '
        f'in {selected.scores}: {listed}. Set MIXTURE_OR_TASK_NAME, KD_STEPS, '
        'BATCH_SIZE and TEACHER_PATH to those of the selection, or score and '
        'select again (salt_t5x.score, salt_t5x.select). Correct the record if '
        'folders were only moved.'
      )
    self._keep(selected)
    return selected_task(task, selected)

  def _keep(self, selected: selection_record.Selection) -> None:
    """Keeps a copy of the record, which a resumed run must match."""
    path = os.path.join(self.model_dir, 'selection.json')
    if jax.process_index() == 0 and not tf.io.gfile.exists(path):
      selection_record.write(path, selected)
    record = dataclasses.asdict(selected)
    # The scores and the teacher may have been moved.
    del record['scores'], record['teacher']
    files.claim(
      path,
      record,
      what=f'SELECTION_PATH = {self.path!r}: MODEL_DIR = {self.model_dir!r}',
      remedy='Resume with its own selection.json, or choose another MODEL_DIR.',
      write=False,
    )
