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

from collections.abc import Callable, Mapping
import dataclasses
import enum
import functools
import inspect
import math
import os
from typing import Any

import jax
import numpy as np
import tensorflow as tf

from salt_t5x import files, schedules
from salt_t5x.checkpoints import run_record
from t5x import models as t5x_models

# Learning rates that differ by less are equal: devices round differently.
_RELATIVE, _ABSOLUTE = 1e-4, 1e-12


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
  known = (before and before.optimization) or {}
  if known:
    names = [x for x in known if x.startswith(rate)]

  def rate_at(name: str) -> float:
    value = float(f'{learning_rate_fn(int(name.removeprefix(rate))):.6g}')
    was = known.get(name)
    is_same = isinstance(was, int | float) and math.isclose(
      value, was, rel_tol=_RELATIVE, abs_tol=_ABSOLUTE
    )
    return was if is_same else value

  return {
    'TRAIN_STEPS': total_steps,
    'models.SaltDecoderOnlyModel.z_loss (Z_LOSS)': model.z_loss,
    'models.SaltDecoderOnlyModel.loss_normalizing_factor': str(
      model.loss_normalizing_factor
    ),
    **{x: rate_at(x) for x in names},
    **describe_optimizer(model.optimizer_def),
  }


def describe_optimizer(optimizer_def: Any) -> dict[str, Any]:
  """Describes an optimizer of either engine.

  Args:
    optimizer_def: a t5x optimizer; the functions of an `OptaxWrapper` are
      described by their names and what they close over.

  Returns:
    {gin parameter, or a part of it: JSON value}, and the optimizer's kind.
  """
  cls = type(optimizer_def)
  kind = f'{cls.__module__.rpartition(".")[2]}.{cls.__name__}'
  parts = dict(vars(optimizer_def))
  hyper_params = parts.pop('hyper_params', {})
  if dataclasses.is_dataclass(hyper_params):
    hyper_params = vars(hyper_params)
  else:
    hyper_params = {'hyper_params': hyper_params}
  # t5x sets it once it knows the parameters' axes; they are the network's.
  found = {k: v for k, v in hyper_params.items() if k != 'factor_map'}
  return {
    'models.SaltDecoderOnlyModel.optimizer_def (OPTIMIZER)': kind,
    **_leaves(parts | found, kind, ()),
  }


def _leaves(value: Any, name: str, inside: tuple[int, ...]) -> dict[str, Any]:
  """{path in an object: JSON value}; `inside` are the objects around it."""
  found = {}
  if id(value) in inside:  # A function may close over itself.
    return found
  if isinstance(value, enum.Enum):
    return {name: value.name}
  if isinstance(value, bool | int | float | str | None):
    return {name: value}
  if isinstance(value, np.generic | np.ndarray | jax.Array):
    return {name: np.asarray(value).tolist()}
  if isinstance(value, Mapping):
    parts = value
  elif dataclasses.is_dataclass(value) and not isinstance(value, type):
    parts = vars(value)
  elif isinstance(value, list | tuple):
    if not (names := getattr(value, '_fields', ())):
      found[name] = len(value)
      names = range(len(value))
    parts = dict(zip(names, value, strict=True))
  elif isinstance(value, functools.partial):
    parts = {'func': value.func, 'args': value.args} | value.keywords
  elif inspect.isfunction(value):
    found[name] = value.__qualname__
    parts = inspect.getclosurevars(value).nonlocals
  else:
    return {name: getattr(value, '__name__', type(value).__name__)}
  for key, part in parts.items():
    found |= _leaves(part, f'{name}.{key}', (*inside, id(value)))
  return found


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


def check_selection(model_dir: str, schedule: schedules.Schedule | None):
  """Raises ValueError if distillation ends before the selected data, or after.

  Args:
    model_dir: the directory in which `first_stage` keeps the selection.
    schedule: ω over the steps; None for BASELINE_EZ.
  """
  path = os.path.join(model_dir, 'selection.json')
  if not (schedule and schedule.kd_steps and tf.io.gfile.exists(path)):
    return
  selected = files.read_count(path, 'Restore it.', 'kd_steps')
  if selected != schedule.kd_steps:
    raise ValueError(
      f'first_stage.FirstStage.kd_steps = {selected} (KD_STEPS), but '
      f'distillation ends at step {schedule.kd_steps} ({schedule.parameter}). '
      'Set them to the same step (first_stage.FirstStage.kd_steps = %DECAY_END '
      'for schedules.linear_decay) and select for that many.'
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
