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

"""The teacher: its checkpoint, and a check that it is trained.

A teacher's parameters live outside the TrainState: they are a separate,
partitioned argument of the distillation step, are never saved with the
student, and have no optimizer state.
"""

import dataclasses
import math
import os

from etils import epath

from salt_t5x.checkpoints import find
from salt_t5x.inference import pretrained


@dataclasses.dataclass(frozen=True)
class Teacher(pretrained.Pretrained):
  """The pretrained teacher. Bound in gin as `teacher.Teacher`.

  Attributes:
    minimum_gain: nats by which the teacher's cross-entropy on the first real
      batch must lie below log V, the loss of a uniform prediction.
  """

  minimum_gain: float = 0.5
  parameters: pretrained.Parameters = dataclasses.field(
    default=pretrained.Parameters(
      path='teacher.Teacher.path',
      step='teacher.Teacher.step',
      model='teacher.Teacher.model',
      remedy="set TEACHER_PATH to the model directory of the teacher's "
      'training run, or train without a teacher (DISTILLATION_WEIGHT = 0)',
    ),
    kw_only=True,
    repr=False,
  )

  def __post_init__(self):
    if self.dtype not in (None, 'float32', 'bfloat16'):
      raise ValueError(
        f"teacher.Teacher.dtype = {self.dtype!r}: choose 'float32', 'bfloat16' "
        'or None.'
      )

  def find_for_run(
    self, recorded: str | None, recorded_identity: str | None = None
  ) -> epath.Path:
    """Finds the checkpoint that a new or resumed run distils from.

    Args:
      recorded: the checkpoint the run began with, or None. It is kept if
        `path` is its model directory or one with a copy of it, even if a
        teacher that is still training has newer ones by now.
      recorded_identity: its `checkpoints.find.identity`, if known.

    Returns:
      The `checkpoint_<step>` directory, the same one on all hosts.

    Raises:
      ValueError: there is no such checkpoint.
    """
    checkpoint = self._find()
    names_one = checkpoint.name == os.path.basename(self.path.rstrip('/'))
    if recorded and self.step is None and not names_one:
      began_with = checkpoint.parent / epath.Path(recorded).name
      if recorded_identity is None:
        is_known = os.fspath(began_with) == recorded
      else:
        is_known = (
          began_with.is_dir() and find.identity(began_with) == recorded_identity
        )
      if is_known:
        step = find.step_of(began_with)
        checkpoint = dataclasses.replace(self, step=step)._find()
    return find.same_on_all_hosts(checkpoint)


def check_cross_entropy(
  cross_entropy: float,
  vocab_size: int,
  minimum_gain: float,
  checkpoint: str | os.PathLike[str],
):
  """Refuses a teacher whose parameters are random, zero or NaN.

  Args:
    cross_entropy: the teacher's token average on a real batch, nats.
    vocab_size: V.
    minimum_gain: see `Teacher`.
    checkpoint: its directory, for the message.

  Raises:
    ValueError: the teacher predicts hardly better than a uniform distribution.
  """
  # NaN must fail, too.
  if not cross_entropy <= math.log(vocab_size) - minimum_gain:
    raise ValueError(
      f'The cross-entropy of the teacher {checkpoint} on the first batch is '
      f'{cross_entropy:.3f} nats. A model that knows nothing has log V = '
      f'{math.log(vocab_size):.3f}, and a teacher must be at least '
      f'teacher.Teacher.minimum_gain = {minimum_gain} below. Its parameters '
      'are random, damaged, or of a model for other data: check '
      'teacher.Teacher.path, teacher.Teacher.step (TEACHER_STEP) and '
      'teacher.Teacher.model, or lower minimum_gain for a teacher that is '
      'meant to be this weak.'
    )
