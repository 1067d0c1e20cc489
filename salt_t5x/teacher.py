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

"""The small model: found, checked, restored, sharded and measured.

A teacher is a t5x model and a checkpoint of it. Its parameters live outside
the TrainState: they are a separate, partitioned argument of the distillation
step, are never saved with the student, and have no optimizer state.
"""

from collections.abc import Mapping
import dataclasses
import math
import os
from typing import Any

from absl import logging
from etils import epath
import jax
import seqio

from salt_t5x import models
from salt_t5x.checkpoints import find, run_record
from salt_t5x.checkpoints import restore as restore_lib
from t5x import models as t5x_models
from t5x import partitioning

Array = jax.Array
PyTree = Any


@dataclasses.dataclass(frozen=True)
class Teacher:
  """Which small model teaches. Bound in gin as `teacher.Teacher`.

  Attributes:
    model: its t5x decoder-only model; the optimizer is not used. Any Flax
      module that returns logits serves as the model's module, t5x's own
      `examples/decoder_only` among them.
    path: its model directory (the newest checkpoint is taken, or `step`), or
      one `checkpoint_<step>` directory.
    step: the checkpoint to take from a model directory; None for the newest.
    dtype: 'float32' or 'bfloat16', in which the parameters are held; None
      keeps them as they were saved. bfloat16 halves the teacher's memory.
    minimum_gain: nats by which the teacher's cross-entropy on the first real
      batch must lie below log V, the loss of a model that knows nothing.
  """

  model: t5x_models.DecoderOnlyModel
  path: str | None
  step: int | None = None
  dtype: str | None = None
  minimum_gain: float = 0.5

  def __post_init__(self):
    if self.dtype not in (None, 'float32', 'bfloat16'):
      raise ValueError(
        f"teacher.Teacher.dtype = {self.dtype!r}: choose 'float32', 'bfloat16' "
        'or None.'
      )


def find_checkpoint(path: str | None, step: int | None) -> epath.Path:
  """Finds the teacher's checkpoint; see `checkpoints.find`.

  Raises:
    ValueError: there is no such checkpoint.
  """
  if not path:
    raise ValueError(
      f'teacher.Teacher.path = {path!r}: distillation with ω > 0 needs a '
      "teacher's model directory; set TEACHER_PATH, or set ω "
      '(DISTILLATION_WEIGHT) to 0 to train without one.'
    )
  return find.checkpoint(
    path,
    step,
    parameter='teacher.Teacher.path',
    step_parameter='teacher.Teacher.step',
    remedy="set TEACHER_PATH to the model directory of the teacher's training "
    'run',
  )


def resolve(
  teacher: Teacher, recorded: str | None, recorded_identity: str | None = None
) -> epath.Path:
  """Decides on the checkpoint to distil from, the same one on all hosts.

  Args:
    teacher: which one.
    recorded: the checkpoint the run began with. If `teacher.path` is the model
      directory it was in, or holds a copy of it, it stays: a teacher that is
      still training has newer ones by now.
    recorded_identity: its `checkpoints.identity`, if known.

  Returns:
    The `checkpoint_<step>` directory.

  Raises:
    ValueError: see `find_checkpoint`.
  """
  checkpoint = find_checkpoint(teacher.path, teacher.step)
  names_one = checkpoint.name == os.path.basename(teacher.path.rstrip('/'))
  if recorded and teacher.step is None and not names_one:
    began_with = checkpoint.parent / epath.Path(recorded).name
    known = (
      os.fspath(began_with) == recorded
      if recorded_identity is None
      else began_with.is_dir()
      and find.identity(began_with) == recorded_identity
    )
    if known:
      step = find.step_of(began_with)
      checkpoint = find_checkpoint(os.fspath(began_with.parent), step)
  return find.same_on_all_hosts(checkpoint)


def check_vocabulary(path: str, student_vocabulary: seqio.Vocabulary):
  """Compares the teacher's recorded vocabulary with the student's.

  Args:
    path: as `Teacher.path`.
    student_vocabulary: the student's.

  Raises:
    ValueError: both are known and they differ. A teacher without a record
      (trained without salt_t5x) is let through with a warning.
  """
  if difference := run_record.other_vocabulary(path, student_vocabulary):
    raise ValueError(
      f'teacher.Teacher.path = {path!r}: {difference}. Token-level '
      'distillation needs equal tokens; only the padded number of embedding '
      'rows may differ. Set VOCABULARY to the one of the teacher, or train a '
      'teacher with this one.'
    )


def load(
  teacher: Teacher,
  checkpoint: epath.Path,
  batch: Mapping[str, Array],
  partitioner: partitioning.BasePartitioner,
) -> tuple[PyTree, PyTree]:
  """Restores a teacher's parameters, sharded by the student's partitioner.

  Args:
    teacher: which one.
    checkpoint: its checkpoint directory, from `resolve`.
    batch: a batch (values do not matter) with the features of training.
    partitioner: the student's.

  Returns:
    (parameters, their partition specs), two trees of equal structure.

  Raises:
    ValueError: the checkpoint is of another architecture, the model cannot
      take the batch, or it has fewer rows than its vocabulary.
  """
  shapes, axes = shapes_and_axes(teacher.model, batch, partitioner)
  params = restore_lib.parameters(
    checkpoint,
    shapes,
    axes,
    partitioner.mesh,
    dtype=teacher.dtype,
    parameter='teacher.Teacher.model',
  )
  count = sum(x.size for x in jax.tree.leaves(params))
  logging.info('Teacher: %s, %d parameters.', checkpoint, count)
  return params, axes


def shapes_and_axes(
  model: t5x_models.DecoderOnlyModel,
  batch: Mapping[str, Array],
  partitioner: partitioning.BasePartitioner,
) -> tuple[PyTree, PyTree]:
  """Traces a teacher on the batch's shapes; see `models.shapes_and_axes`.

  Raises:
    ValueError: the model cannot take the batch.
  """
  try:
    return models.shapes_and_axes(model, batch, partitioner)
  except Exception as e:
    features = {k: tuple(v.shape) for k, v in batch.items()}
    raise ValueError(
      'teacher.Teacher.model cannot be applied to the features of training, '
      f'{features}. Check TASK_FEATURE_LENGTHS against the longest sequence '
      "the teacher takes, and the teacher's inputs_bidirectional_attention "
      f'against the task. The error was: {e}'
    ) from e


def check_cross_entropy(
  cross_entropy: float, vocab_size: int, minimum_gain: float
):
  """Tells a trained teacher from one that is random, zero or not a number.

  Args:
    cross_entropy: the teacher's token average on a real batch, in nats.
    vocab_size: V.
    minimum_gain: see `Teacher`.

  Raises:
    ValueError: the teacher knows (next to) nothing about the data.
  """
  limit = math.log(vocab_size) - minimum_gain
  # Written so that NaN fails, too.
  if not cross_entropy <= limit:
    raise ValueError(
      f'The cross-entropy of the teacher on the first batch is '
      f'{cross_entropy:.3f} nats. A model that knows nothing has log V = '
      f'{math.log(vocab_size):.3f}, and a teacher must be at least '
      f'teacher.Teacher.minimum_gain = {minimum_gain} below. Its parameters '
      'are random, damaged, or of a model for other data: check '
      'teacher.Teacher.path and teacher.Teacher.model. (For a teacher that '
      'is meant to be this weak, lower minimum_gain.)'
    )
