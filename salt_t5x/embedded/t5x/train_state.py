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

"""Train states: parameters and optimizer state, in t5x's checkpoint layout."""

from typing import Any

import flax
from flax import struct
from flax.linen import partitioning as flax_partitioning
import jax.numpy as jnp

from t5x import _subset, optimizers

PyTree = Any

__getattr__ = _subset.missing(__name__)


def _split(variables: PyTree) -> tuple[PyTree, PyTree]:
  """Splits a model's initial variables into (params, params_axes)."""
  variables = dict(flax.core.freeze(variables))
  params = variables.pop('params')
  axes = variables.pop('params_axes', None)
  if axes is None:
    _subset.refuse('a model without logical axes for its parameters')
  if variables:
    _subset.refuse(f'a model with the mutable collections {list(variables)}')
  return params, axes


class FlaxOptimTrainState(struct.PyTreeNode):
  """The state of a training run."""

  _optimizer: optimizers.Optimizer
  params_axes: PyTree = None

  @classmethod
  def create(cls, optimizer_def, model_variables) -> 'FlaxOptimTrainState':
    params, axes = _split(model_variables)
    optimizer_def.set_param_axes(flax_partitioning.get_axis_names(axes))
    return cls(optimizer_def.create(params), axes)

  @property
  def step(self):
    return self._optimizer.state.step

  @property
  def params(self) -> PyTree:
    return self._optimizer.target

  @property
  def param_states(self) -> PyTree:
    return self._optimizer.state.param_states

  def state_dict(self) -> dict[str, Any]:
    return self._optimizer.state_dict()

  def restore_state(self, state_dict) -> 'FlaxOptimTrainState':
    return self.replace(_optimizer=self._optimizer.restore_state(state_dict))

  def apply_gradient(self, grads, learning_rate) -> 'FlaxOptimTrainState':
    return self.replace(
      _optimizer=self._optimizer.apply_gradient(grads, learning_rate)
    )

  def as_logical_axes(self) -> 'FlaxOptimTrainState':
    names = flax_partitioning.get_axis_names(self.params_axes)
    optimizer_def = self._optimizer.optimizer_def
    return FlaxOptimTrainState(
      optimizer_def.derive_logical_axes(self._optimizer, names)
    )


class InferenceState(struct.PyTreeNode):
  """Parameters without an optimizer."""

  step: Any
  params: PyTree
  params_axes: PyTree = None

  @classmethod
  def create(cls, model_variables) -> 'InferenceState':
    params, axes = _split(model_variables)
    return cls(jnp.asarray(0), params, axes)

  def state_dict(self) -> dict[str, Any]:
    return {
      'target': flax.core.unfreeze(self.params),
      'state': {'step': self.step},
    }

  def restore_state(self, state_dict) -> 'InferenceState':
    return self.replace(
      params=flax.core.freeze(state_dict['target']),
      step=state_dict['state']['step'],
    )

  def as_logical_axes(self) -> 'InferenceState':
    return InferenceState(
      None, flax_partitioning.get_axis_names(self.params_axes)
    )


TrainState = FlaxOptimTrainState | InferenceState
