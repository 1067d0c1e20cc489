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

"""The settings of a run: checked, and described for the run's record."""

from collections.abc import Callable
import math
from typing import Any

import jax

from salt_t5x.checkpoints import run_record
from t5x import models as t5x_models


def optimization(
  model: t5x_models.DecoderOnlyModel,
  learning_rate_fn: Callable[[jax.Array], jax.Array],
  total_steps: int,
  before: run_record.RunRecord | None,
) -> dict[str, Any]:
  """Describes what the rest of a run's updates depend on.

  A learning rate is a function, so it is recorded at nine steps.

  Args:
    model: a `models.SaltDecoderOnlyModel`.
    learning_rate_fn: maps a step to its learning rate.
    total_steps: steps of the run.
    before: the record of the run that is resumed, or None. The learning rate
      is then described at the steps that the record has.

  Returns:
    {gin parameter, that of the learning rate with a step: JSON value}.
  """
  rate = 'learning_rate_fn (PEAK_LEARNING_RATE) at step '
  names = [f'{rate}{total_steps * i // 8}' for i in range(9)]
  if before is not None and before.optimization is not None:
    names = [x for x in before.optimization if x.startswith(rate)]
  return {
    'trainer.SaltTrainer.total_steps (TRAIN_STEPS)': total_steps,
    'models.SaltDecoderOnlyModel.z_loss (Z_LOSS)': model.z_loss,
    'models.SaltDecoderOnlyModel.loss_normalizing_factor': str(
      model.loss_normalizing_factor
    ),
    # Devices may round differently.
    **{
      x: float(f'{learning_rate_fn(int(x.removeprefix(rate))):.6g}')
      for x in names
    },
  }


def check_first_step(first_step: int, kd_steps: int | float):
  """Raises ValueError if a new run would skip steps of distillation."""
  if kd_steps > 0 and first_step > 0:
    raise ValueError(
      f'This run begins at step {first_step}, from a checkpoint of another run '
      '(utils.RestoreCheckpointConfig.path, or a MODEL_DIR without '
      "salt_t5x's record), but the first stage of trainer.SaltTrainer.schedule "
      f'is the steps from 0 to n_KD = {kd_steps}. Begin at step 0, or train '
      'without a teacher (DISTILLATION_WEIGHT = 0).'
    )


def check_distillation(
  model: t5x_models.DecoderOnlyModel,
  teacher_temperature: float,
  top_k: int | None,
):
  """Raises ValueError if ρ or k is out of range."""
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


def check_normalizer(
  model: t5x_models.DecoderOnlyModel, num_microbatches: int | None
):
  """Raises ValueError if the loss would depend on the microbatches."""
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
