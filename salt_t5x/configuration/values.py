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

"""Types and ranges of a run's parameters; absolute paths."""

from collections.abc import Iterator, Mapping, Sequence
import dataclasses
import itertools
import math
import os
from typing import Any

import gin

from salt_t5x import files
from salt_t5x.configuration import parameters

Config = Mapping[tuple[str, str], Mapping[str, Any]]


# What t5x's standard rules split over `num_partitions` devices.
_SPLIT = {
  f'TransformerConfig.{x}' for x in ('num_heads', 'mlp_dim', 'vocab_size')
}


@dataclasses.dataclass(frozen=True)
class _Binding:
  """The literal value of a parameter.

  Attributes:
    key: of the binding that holds it: the parameter's or a macro's.
    name: 'Class.parameter'.
    label: the same, and the macro if there is one, for messages.
    value: the value.
  """

  key: str
  name: str
  label: str
  value: Any


def _bindings(config: Config) -> Iterator[_Binding]:
  for (scope, selector), bound in config.items():
    for parameter, value in bound.items():
      key = name = f'{selector}.{parameter}'
      name = '.'.join(name.split('.')[-2:])
      label = '/'.join(filter(None, (scope, name)))
      key = '/'.join(filter(None, (scope, key)))
      while isinstance(value, gin.config.ConfigurableReference):
        macro, selector_of_value = value.config_key
        if selector_of_value != 'gin.macro':
          break
        key = f'{macro}/gin.macro.value'
        label = f'{name} ({macro})'
        value = config.get(value.config_key, {}).get('value')
      else:
        try:
          value = _resolved(config, value)
        except _ComputedError:
          continue
        yield _Binding(key, name, label, value)


class _ComputedError(Exception):
  """gin computes a value, or a part of it."""


def _resolved(config: Config, value: Any) -> Any:
  """Returns a value with the values of the macros in it."""
  if isinstance(value, gin.config.ConfigurableReference):
    if value.config_key[1] != 'gin.macro':
      raise _ComputedError
    return _resolved(config, config.get(value.config_key, {}).get('value'))
  if isinstance(value, dict):
    return {k: _resolved(config, v) for k, v in value.items()}
  if isinstance(value, list | tuple):
    return type(value)(_resolved(config, x) for x in value)
  return value


def check(config: Config) -> dict[str, Any]:
  """Checks parameters.

  Args:
    config: {(scope, configurable): {parameter: value}}; the scope of a macro is
      its name.

  Returns:
    {binding: absolute path}, for gin to replace relative paths.

  Raises:
    ValueError: a value is of the wrong type or out of range.
  """
  paths, found = {}, {}
  for binding in _bindings(config):
    kind = parameters.PARAMETERS.get(binding.name)
    if kind is None:
      continue
    if not kind.is_valid(binding.value):
      raise ValueError(
        f'{binding.label} = {binding.value!r}: set it to {kind.remedy}.'
      )
    found[binding.name] = binding
    if kind.is_path and binding.value is not None:
      paths[binding.key] = _absolute(binding.value)
  _check_model_dir(found.get('train.model_dir'))
  _check_warmup(found)
  _check_periods(found)
  _check_optimizers(config)
  _check_partitions(config, found.get('PjitPartitioner.num_partitions'))
  return paths


def _absolute(value: str | Sequence[str]) -> str | list[str]:
  if isinstance(value, str):
    return files.absolute(value)
  return [files.absolute(x) for x in value]


def _check_model_dir(binding: _Binding | None) -> None:
  """Raises ValueError if the run cannot write to its directory."""
  if binding is None or '://' in binding.value:
    return
  folder = path = files.absolute(binding.value)
  while not os.path.exists(folder):
    folder = os.path.dirname(folder)
  problem = None
  if signs := sorted({*path} & {*'[*?\\'}):
    problem = f'Orbax and TensorStore cannot save in it, as it has {signs}'
  elif not os.path.isdir(folder):
    problem = f'{folder} is a file'
  elif not os.access(folder, os.W_OK):
    problem = f'{folder} cannot be written to'
  if problem:
    raise ValueError(
      f'{binding.label} = {path!r}: {problem}. Choose another folder.'
    )


def _check_warmup(found: Mapping[str, _Binding]) -> None:
  """Raises ValueError if the learning rate never reaches its peak."""
  warmup = found.get('warmup_cosine_decay_schedule.warmup_steps')
  steps = found.get('train.total_steps')
  if warmup and steps and 0 < steps.value <= warmup.value:
    raise ValueError(
      f'{warmup.label} = {warmup.value} must be less than {steps.label} = '
      f'{steps.value}: set it to a few percent of the steps.'
    )


def _check_periods(found: Mapping[str, _Binding]) -> None:
  """Raises ValueError if t5x's loop would stop for the periods.

  At steps closer together than its inner loop, and past the last of a list, it
  would save a checkpoint twice.
  """
  period = found.get('SaveCheckpointConfig.period')
  if period is None:
    return
  evaluation = found.get('train.eval_period')
  if evaluation and evaluation.value and period.value:
    short, long = sorted((evaluation, period), key=lambda x: x.value)
    if long.value % short.value:
      raise ValueError(
        f'{long.label} = {long.value} must be a multiple of {short.label} = '
        f'{short.value}: change one of them.'
      )
  keep = found.get('multiples.period')
  if keep and keep.value and keep.value < (period.value or math.inf):
    raise ValueError(
      f'{keep.label} = {keep.value} must be at least {period.label} = '
      f'{period.value}: save more often, or keep fewer checkpoints.'
    )
  steps = found.get('SaveCheckpointConfig.checkpoint_steps')
  total = found.get('train.total_steps')
  if steps and steps.value and total:
    gaps = (y - x for x, y in itertools.pairwise(steps.value[:-1]))
    if not (
      period.value
      and min(gaps, default=period.value) >= period.value
      and steps.value[-1] >= total.value
    ):
      raise ValueError(
        f'{steps.label} = {steps.value!r}: the steps must be at least '
        f'{period.label} = {period.value} apart and end with {total.label} = '
        f'{total.value}.'
      )


def _check_optimizers(config: Config) -> None:
  """Raises ValueError if an optimizer ignores the trainer's learning rate.

  t5x's trainer sets Adafactor's at each step, but none of optax's optimizers,
  whose wrappers (`t5x.optimizers`) have the same parameters.
  """
  trainers = [
    bound['learning_rate_fn']
    for bound in config.values()
    if 'learning_rate_fn' in bound
  ]
  for (scope, selector), bound in config.items():
    rate = bound.get('learning_rate')
    while isinstance(rate, gin.config.ConfigurableReference):
      macro, selector_of_value = rate.config_key
      if selector_of_value != 'gin.macro':
        break
      rate = config.get((macro, 'gin.macro'), {}).get('value')
    is_optax = selector.startswith(('optax.', 't5x.optimizers.'))
    if is_optax and rate is not None and trainers and rate not in trainers:
      name = '/'.join(filter(None, (scope, selector)))
      raise ValueError(
        f'{name}.learning_rate = {rate!r}: PEAK_LEARNING_RATE would have no '
        "effect, because t5x's trainer does not set the learning rate of this "
        f'optimizer. Bind it to {trainers[0]!r}, as the trainer, or use '
        '@adafactor.Adafactor().'
      )


def _check_partitions(config: Config, binding: _Binding | None) -> None:
  """Raises ValueError if the model cannot be split over so many devices."""
  standard = any(
    isinstance(value, gin.config.ConfigurableReference)
    and value.selector.endswith('standard_logical_axis_rules')
    for bound in config.values()
    for value in bound.values()
  )
  if not (standard and binding and binding.value):
    return
  for other in _bindings(config):
    is_split = other.name in _SPLIT and type(other.value) is int
    if is_split and other.value % binding.value:
      raise ValueError(
        f'{binding.label} = {binding.value} does not divide {other.label} = '
        f'{other.value}, which is split over them. Choose a divisor.'
      )
