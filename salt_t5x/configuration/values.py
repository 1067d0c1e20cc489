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

from collections.abc import Callable, Iterator, Mapping
import dataclasses
import math
import os
from typing import Any

import gin

from salt_t5x import files

Config = Mapping[tuple[str, str], Mapping[str, Any]]


@dataclasses.dataclass(frozen=True)
class _Kind:
  """What a parameter may be.

  Attributes:
    is_valid: whether a value is allowed.
    remedy: completes 'set it to'.
  """

  is_valid: Callable[[Any], bool]
  remedy: str

  def or_none(self) -> '_Kind':
    return _Kind(
      lambda x: x is None or self.is_valid(x), f'{self.remedy}, or None'
    )


def _integer(minimum: int) -> _Kind:
  return _Kind(
    lambda x: type(x) is int and x >= minimum,
    f'a whole number of at least {minimum}',
  )


def _number(minimum: float, is_open: bool = False) -> _Kind:
  def is_valid(x):
    is_number = type(x) in (int, float) and math.isfinite(x)
    return is_number and (x > minimum if is_open else x >= minimum)

  return _Kind(
    is_valid, f'a number {"above" if is_open else "of at least"} {minimum}'
  )


_BOOLEAN = _Kind(lambda x: type(x) is bool, 'True or False')
_NAME = _Kind(lambda x: isinstance(x, str) and bool(x), "a name, 'in quotes'")
_PATH = _Kind(lambda x: isinstance(x, str) and bool(x), "a path, 'in quotes'")
_FUNCTION = _Kind(lambda x: False, 'a schedule, e.g. @optax.linear_schedule()')

# {the last two components of a parameter's name: its kind}. A value that gin is
# to compute is not checked here.
_PARAMETERS = {
  'train.model_dir': _PATH,
  'train.total_steps': _integer(0),
  'train.eval_steps': _integer(1),
  'train.eval_period': _integer(0),
  'train.stats_period': _integer(1).or_none(),
  'train.random_seed': _integer(0).or_none(),
  'DatasetConfig.mixture_or_task_name': _NAME,
  'DatasetConfig.batch_size': _integer(1),
  'DatasetConfig.split': _NAME,
  'DatasetConfig.shuffle': _BOOLEAN,
  'DatasetConfig.seed': _integer(0).or_none(),
  'DatasetConfig.use_cached': _BOOLEAN,
  'DatasetConfig.pack': _BOOLEAN,
  'SaveCheckpointConfig.period': _integer(1).or_none(),
  'SaveCheckpointConfig.keep': _integer(1).or_none(),
  'SaveCheckpointConfig.save_dataset': _BOOLEAN,
  'PjitPartitioner.num_partitions': _integer(1).or_none(),
  'SaltTrainer.total_steps': _integer(0),
  'SaltTrainer.num_microbatches': _integer(1).or_none(),
  'SaltTrainer.learning_rate_fn': _FUNCTION,
  'SaltTrainer.allow_changes': _BOOLEAN,
  'SaltTrainer.max_skipped_batches': _integer(0),
  'FineTuneTrainer.learning_rate_fn': _FUNCTION,
  'FineTuneTrainer.initial_checkpoint': _PATH,
  'warmup_cosine_decay_schedule.init_value': _number(0),
  'warmup_cosine_decay_schedule.peak_value': _number(0, is_open=True),
  'warmup_cosine_decay_schedule.end_value': _number(0),
  'warmup_cosine_decay_schedule.warmup_steps': _integer(0),
  'SaltDecoderOnlyModel.z_loss': _number(0),
  'Teacher.path': _PATH.or_none(),
  'Teacher.step': _integer(0).or_none(),
  'Model.path': _PATH,
  'Model.step': _integer(0).or_none(),
  'FirstStage.path': _PATH,
  'FirstStage.model_dir': _PATH,
  'FirstStage.teacher_path': _PATH.or_none(),
  'get_dataset.model_dir': _PATH.or_none(),
  'score.output_dir': _PATH,
  'sample.output_dir': _PATH,
  'analyze.output_dir': _PATH,
  'analyze.completions_dir': _PATH.or_none(),
  'evaluate.output_dir': _PATH,
  'evaluate.data_dir': _PATH.or_none(),
}
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
  for (scope, selector), parameters in config.items():
    for parameter, value in parameters.items():
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
        yield _Binding(key, name, label, value)


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
    kind = _PARAMETERS.get(binding.name)
    if kind is None:
      continue
    if not kind.is_valid(binding.value):
      raise ValueError(
        f'{binding.label} = {binding.value!r}: set it to {kind.remedy}.'
      )
    found[binding.name] = binding
    if kind.remedy.startswith(_PATH.remedy) and binding.value is not None:
      paths[binding.key] = files.absolute(binding.value)
  _check_model_dir(found.get('train.model_dir'))
  _check_warmup(found)
  _check_partitions(config, found.get('PjitPartitioner.num_partitions'))
  return paths


def _check_model_dir(binding: _Binding | None) -> None:
  """Raises ValueError if the run cannot write to its directory."""
  if binding is None or '://' in binding.value:
    return
  folder = path = files.absolute(binding.value)
  while not os.path.exists(folder):
    folder = os.path.dirname(folder)
  problem = None
  if not os.path.isdir(folder):
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


def _check_partitions(config: Config, binding: _Binding | None) -> None:
  """Raises ValueError if the model cannot be split over so many devices."""
  standard = any(
    isinstance(value, gin.config.ConfigurableReference)
    and value.selector.endswith('standard_logical_axis_rules')
    for parameters in config.values()
    for value in parameters.values()
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
