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

"""A training run's parameters, checked against each other."""

import math

from salt_t5x import schedules
from t5x import models as t5x_models


def kd_steps(
  schedule: schedules.Schedule | None, total_steps: int
) -> int | float:
  """The schedule's n_KD; infinity for one without end.

  Raises:
    ValueError: distillation would not end within the run.
  """
  if schedule is None:
    return 0
  if schedule.kd_steps is None:
    return math.inf
  if schedule.kd_steps > total_steps:
    raise ValueError(
      f'{schedule.parameter} = {schedule.kd_steps} lies past the run, '
      f'trainer.SaltTrainer.total_steps = {total_steps} (TRAIN_STEPS): end '
      'distillation within the run, or use schedules.constant for RKD.'
    )
  return schedule.kd_steps


def distillation(
  model: t5x_models.DecoderOnlyModel,
  teacher_temperature: float,
  top_k: int | None,
):
  """Checks ρ and k.

  Raises:
    ValueError: one is out of range.
  """
  is_number = type(teacher_temperature) in (int, float)
  if not (is_number and 0 < teacher_temperature < math.inf):
    raise ValueError(
      f'trainer.SaltTrainer.teacher_temperature = {teacher_temperature!r}: ρ '
      "is an exponent on the teacher's probabilities and must be positive "
      '(below 1 flattens; the paper uses 0.25).'
    )
  vocab_size = model.output_vocabulary.vocab_size
  is_count = type(top_k) is int and 1 <= top_k <= vocab_size
  if top_k is not None and not is_count:
    raise ValueError(
      f'trainer.SaltTrainer.top_k = {top_k!r} is not between 1 and the '
      f'{vocab_size} tokens of the vocabulary; None distils all of it.'
    )


def normalizer(
  model: t5x_models.DecoderOnlyModel, num_microbatches: int | None
):
  """Checks that the loss does not depend on the microbatches.

  Raises:
    ValueError: it would.
  """
  factor = model.loss_normalizing_factor
  if isinstance(factor, (int, float, type(None))):
    return
  if num_microbatches is not None and num_microbatches > 1:
    raise ValueError(
      f'models.SaltDecoderOnlyModel.loss_normalizing_factor = {factor!r} '
      'with trainer.SaltTrainer.num_microbatches = '
      f'{num_microbatches}: t5x divides inside each microbatch and adds the '
      'gradients, so the loss would depend on the microbatches. Use None or '
      'a constant (e.g. batch size times length), or one microbatch.'
    )


def skipping(max_skipped_batches: int):
  """Checks how many batches may be passed over.

  Raises:
    ValueError: it is no such number.
  """
  if type(max_skipped_batches) is not int or max_skipped_batches < 0:
    raise ValueError(
      f'trainer.SaltTrainer.max_skipped_batches = {max_skipped_batches!r} '
      '(MAX_SKIPPED_BATCHES) counts batches: set it to 0 to stop at the first '
      'loss that is not finite, or to a positive number.'
    )
