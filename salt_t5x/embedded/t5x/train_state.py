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

__getattr__ = _subset.missing(__name__)

PyTree = Any


class FlaxOptimTrainState(struct.PyTreeNode):
  """The parameters of a model and the optimizer's state for each of them.

  Attributes:
    step: [] int32.
    params: {name: ... array}.
    param_states: the optimizer's state of each parameter; None for inference.
    optimizer_def: the optimizer, or None for inference.
    axes: the logical axis names of each parameter, as PartitionSpecs.
  """

  step: Any
  params: PyTree
  param_states: PyTree
  optimizer_def: optimizers.OptimizerDefType = struct.field(pytree_node=False)
  axes: flax.core.FrozenDict = struct.field(pytree_node=False)

  @classmethod
  def create(cls, optimizer_def, model_variables) -> 'FlaxOptimTrainState':
    """Returns the state at step 0 for a model's initial variables."""
    variables = flax.core.unfreeze(model_variables)
    params = variables.pop('params')
    axes = variables.pop('params_axes', None)
    if axes is None:
      _subset.refuse('a model without logical axes for its parameters')
    if variables:
      _subset.refuse(f'a model with the mutable collections {list(variables)}')
    axes = flax_partitioning.get_axis_names(axes)
    states = optimizer_def and optimizer_def.init_state(params, axes)
    return cls(jnp.asarray(0, jnp.int32), params, states, optimizer_def, axes)

  def state_dict(self) -> dict[str, Any]:
    """Returns the content of a checkpoint."""
    state = {'step': self.step}
    if self.param_states is not None:
      state['param_states'] = self.param_states
    return {'target': self.params, 'state': state}

  def restore_state(self, state_dict) -> 'FlaxOptimTrainState':
    """Returns the state with the content of a checkpoint."""
    content = flax.core.unfreeze(state_dict)
    return self.replace(params=content['target'], **content['state'])

  def apply_gradient(self, grads, learning_rate) -> 'FlaxOptimTrainState':
    """Returns the state after one step of the optimizer."""
    params, states = self.optimizer_def.apply_gradient(
      learning_rate, self.step, self.params, self.param_states, grads, self.axes
    )
    return self.replace(step=self.step + 1, params=params, param_states=states)


TrainState = FlaxOptimTrainState
