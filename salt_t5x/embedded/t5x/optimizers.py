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

"""Optimizers: a definition (hyperparameters) with its target and state."""

from typing import Any

from flax import serialization, struct

from t5x import _subset

__getattr__ = _subset.missing(__name__)


@struct.dataclass
class OptimizerState:
  """The step, int32 [], and the state of each parameter."""

  step: Any
  param_states: Any


class OptimizerDef:
  """Base class; subclasses define `init_state` and `apply_gradient`."""

  def create(self, target: Any) -> 'Optimizer':
    return Optimizer(self, self.init_state(target), target)


class Optimizer(struct.PyTreeNode):
  """Parameters (`target`) and optimizer state, updated together."""

  optimizer_def: OptimizerDef = struct.field(pytree_node=False)
  state: OptimizerState
  target: Any

  def apply_gradient(self, grads: Any, learning_rate: Any) -> 'Optimizer':
    target, state = self.optimizer_def.apply_gradient(
      learning_rate, self.target, self.state, grads
    )
    return self.replace(target=target, state=state)

  def state_dict(self) -> dict[str, Any]:
    return {
      'target': serialization.to_state_dict(self.target),
      'state': serialization.to_state_dict(self.state),
    }

  def restore_state(self, state_dict: dict[str, Any]) -> 'Optimizer':
    restore = serialization.from_state_dict
    return self.replace(
      target=restore(self.target, state_dict['target']),
      state=restore(self.state, state_dict['state']),
    )


OptimizerDefType = OptimizerDef
