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
from salt_t5x.configuration import effects, parameters

Config = Mapping[tuple[str, str], Mapping[str, Any]]

_MACRO = 'gin.macro'
# `parameters` means the classes of these.
_PACKAGES = {'salt_t5x', 't5x', 'optax', 'seqio', '__main__', 'gin'}

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


def _is_known(selector: str) -> bool:
  """Whether `parameters` means this configurable, if gin can tell."""
  found = gin.config._REGISTRY.get_match(selector)
  module = getattr(found and found.wrapped, '__module__', None)
  return module is None or module.partition('.')[0] in _PACKAGES


def _bindings(config: Config, part: Config) -> Iterator[_Binding]:
  """Yields the bindings of a part of the configuration."""
  for (scope, selector), bound in part.items():
    if not _is_known(selector):
      continue
    for parameter, value in bound.items():
      key = name = f'{selector}.{parameter}'
      name = '.'.join(name.split('.')[-2:])
      label = '/'.join(filter(None, (scope, name)))
      key = '/'.join(filter(None, (scope, key)))
      value, macro = _followed(config, value)
      if macro:
        key = f'{macro}/gin.macro.value'
        label = f'{name} ({macro})'
      try:
        value = _resolved(config, value)
      except _ComputedError:
        continue
      yield _Binding(key, name, label, value)


def _followed(config: Config, value: Any) -> tuple[Any, str | None]:
  """Returns the value that a chain of macros has, and the last of them."""
  macro, seen = None, set()
  while isinstance(value, gin.config.ConfigurableReference):
    if value.config_key[1] != _MACRO:
      break
    macro, _ = value.config_key
    if macro in seen:
      raise ValueError(f'{macro} = %{macro}: this macro refers to itself.')
    seen.add(macro)
    value = config.get(value.config_key, {}).get('value')
  return value, macro


class _ComputedError(Exception):
  """gin computes a value, or a part of it."""


def _resolved(config: Config, value: Any) -> Any:
  """Returns a value with the values of the macros in it."""
  value, _ = _followed(config, value)
  if isinstance(value, gin.config.ConfigurableReference):
    raise _ComputedError
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
  # Files bind what only some commands use, with None where these require it.
  used = effects.used(config)
  for binding in _bindings(config, used):
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
  uses = effects.uses_of(config)
  _check_warmup(config, uses)
  _check_periods(found)
  _check_microbatches(found)
  _check_optimizers(config, uses)
  partitions = found.get('PjitPartitioner.num_partitions')
  _check_partitions(config, used, partitions)
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


def _check_warmup(config: Config, uses: Mapping[str, set[str]]) -> None:
  """Raises ValueError if a learning rate never reaches its peak."""
  name = 'optax.warmup_cosine_decay_schedule'
  for scope in uses.get(name, ()):
    bound = {**config.get(('', name), {}), **config.get((scope, name), {})}
    found = _bindings(config, {(scope, name): bound})
    steps = {x.name.rpartition('.')[2]: x for x in found}
    warmup, decay = steps.get('warmup_steps'), steps.get('decay_steps')
    if warmup and decay and decay.value <= warmup.value:
      raise ValueError(
        f'{warmup.label} = {warmup.value} must be less than {decay.label} = '
        f'{decay.value}: set it to a few percent of the steps.'
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


def _check_optimizers(config: Config, uses: Mapping[str, set[str]]) -> None:
  """Raises ValueError if an optimizer ignores the trainer's learning rate.

  t5x's trainer sets Adafactor's at each step, but none of optax's optimizers,
  whose wrappers (`t5x.optimizers`) have the same parameters.
  """
  trainers = [
    _followed(config, bound['learning_rate_fn'])[0]
    for (_, selector), bound in config.items()
    if 'learning_rate_fn' in bound and selector in uses
  ]
  for (scope, selector), bound in config.items():
    rate, _ = _followed(config, bound.get('learning_rate'))
    is_optax = selector.startswith(('optax.', 't5x.optimizers.'))
    is_used = is_optax and selector in uses
    if is_used and rate is not None and trainers and rate not in trainers:
      name = '/'.join(filter(None, (scope, selector)))
      raise ValueError(
        f'{name}.learning_rate = {rate!r}: PEAK_LEARNING_RATE would have no '
        "effect, because t5x's trainer does not set the learning rate of this "
        f'optimizer. Bind it to {trainers[0]!r}, as the trainer, or use '
        '@adafactor.Adafactor().'
      )


def _check_microbatches(found: Mapping[str, _Binding]) -> None:
  """Raises ValueError if a batch cannot be cut into the microbatches."""
  batch = found.get('DatasetConfig.batch_size')
  for trainer in ('SaltTrainer', 'FineTuneTrainer'):
    count = found.get(f'{trainer}.num_microbatches')
    if batch and count and count.value and batch.value % count.value:
      raise ValueError(
        f'{count.label} = {count.value} does not divide {batch.label} = '
        f'{batch.value}. Choose a divisor.'
      )


def _check_partitions(
  config: Config, used: Config, binding: _Binding | None
) -> None:
  """Raises ValueError if the partitions do not divide the model."""
  standard = any(
    isinstance(value, gin.config.ConfigurableReference)
    and value.selector.endswith('standard_logical_axis_rules')
    for bound in config.values()
    for value in bound.values()
  )
  if not (standard and binding and binding.value):
    return
  for other in _bindings(config, used):
    is_split = other.name in _SPLIT and type(other.value) is int
    if is_split and other.value % binding.value:
      raise ValueError(
        f'{binding.label} = {binding.value} does not divide {other.label} = '
        f'{other.value}, which is split over them. Choose a divisor.'
      )
