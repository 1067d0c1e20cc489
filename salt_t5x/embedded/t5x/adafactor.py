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

"""Adafactor (Shazeer & Stern, 2018) with t5x's options and state layout.

optax's Adafactor has a different state and does not support logical axes, so
t5x could not resume its runs. The state of each parameter is `v_row` and
`v_col` (factored second moments) or `v` (the full second moment), and `m`
(momentum); unused entries are zeros of shape [1].
"""

from collections.abc import Mapping
import dataclasses
import enum
from typing import Any

import flax
from flax import traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from t5x import _subset, optimizers

Array = jax.Array
PyTree = Any

__getattr__ = _subset.missing(__name__)


class FactorDim(enum.Enum):
  """The role of a parameter's dimension in the factored second moments."""

  NONE = None
  BATCH = 1
  ROW = 2
  COLUMN = 3


@_subset.subset_of_t5x
def standard_logical_factor_rules() -> Mapping[str, FactorDim]:
  """Returns t5x's standard table: logical axis name -> `FactorDim`."""
  names = {
    FactorDim.ROW: ('embed',),
    FactorDim.COLUMN: [
      'vocab',
      'mlp',
      'heads',
      'kv',
      'joined_kv',
      'q_wi_fused',
      'o_wo_fused',
      'multiquery_heads',
      'kv_fused',
      'mlp_activations',
    ],
    FactorDim.BATCH: ('layers', 'stack'),
    FactorDim.NONE: ('relpos_buckets', 'layer_norm_scale'),
  }
  return flax.core.freeze({n: dim for dim, ns in names.items() for n in ns})


def _flatten(tree: PyTree) -> dict[str, Any]:
  return traverse_util.flatten_dict(flax.core.unfreeze(tree), sep='/')


def _unflatten_like(flat: dict[str, Any], like: PyTree) -> PyTree:
  tree = traverse_util.unflatten_dict(flat, sep='/')
  return (
    flax.core.freeze(tree) if isinstance(like, flax.core.FrozenDict) else tree
  )


# eq=False: jitted functions hold it as a static value, compared by identity.
@_subset.subset_of_t5x
@dataclasses.dataclass(eq=False)
class Adafactor(optimizers.OptimizerDef):
  """Adafactor; see t5x's documentation for the options."""

  learning_rate: float | None = None
  multiply_by_parameter_scale: bool = True
  beta1: float | None = None
  decay_rate: float = 0.8
  step_offset: int = 0
  clipping_threshold: float | None = 1.0
  weight_decay_rate: float | None = None
  min_dim_size_to_factor: int = 128
  epsilon1: float = 1e-30
  epsilon2: float = 1e-3
  logical_factor_rules: Mapping[str, FactorDim] | None = None

  def __post_init__(self):
    self._factor_rules: dict[str, tuple[FactorDim, ...]] | None = None

  def set_param_axes(self, param_logical_axes: PyTree):
    """Derives each parameter's factorisation from its logical axis names.

    Raises:
      ValueError: an axis has no rule, or a parameter has rows and columns but
        also dimensions that are neither.
    """
    if self.logical_factor_rules is None:
      return
    rules = {}
    for path, names in _flatten(param_logical_axes).items():
      if unknown := [n for n in names if n not in self.logical_factor_rules]:
        raise ValueError(
          'adafactor.Adafactor.logical_factor_rules has no rule for the axes '
          f'{unknown} of {path}: add one.'
        )
      dims = tuple(self.logical_factor_rules[n] for n in names)
      if {FactorDim.ROW, FactorDim.COLUMN} <= set(dims):
        if FactorDim.NONE in dims:
          raise ValueError(
            f'{path}: the factor rules {dims} of {names} mix ROW and COLUMN '
            'with NONE; change adafactor.Adafactor.logical_factor_rules.'
          )
      else:
        # Rows without columns (or the reverse) cannot be factored.
        dims = tuple(
          FactorDim.BATCH if d is FactorDim.BATCH else FactorDim.NONE
          for d in dims
        )
      rules[path] = dims
    self._factor_rules = rules

  def _factorization(self, path: str, shape: tuple[int, ...]):
    """Returns (dimensions to average over, None or (row dims, column dims))."""
    rank = len(shape)
    rule = self._factor_rules[path] if self._factor_rules else None
    if rule is None or (rank <= 2 and FactorDim.BATCH not in rule):
      # As in t5x, without a rule a matrix is factored if both sides are large.
      if rank > 2:
        raise ValueError(
          f'{path} {shape} has more than two dimensions and no factor rule; '
          'set adafactor.Adafactor.logical_factor_rules.'
        )
      everything = tuple(range(rank))
      if rank < 2 or min(shape) < self.min_dim_size_to_factor:
        return everything, None
      smaller, larger = np.argsort(shape, kind='stable')
      return everything, ((int(smaller),), (int(larger),))
    dims = lambda kind: tuple(i for i, d in enumerate(rule) if d is kind)
    averaged = tuple(i for i, d in enumerate(rule) if d is not FactorDim.BATCH)
    rows, columns = dims(FactorDim.ROW), dims(FactorDim.COLUMN)
    return averaged, (rows, columns) if rows else None

  def _init_param_state(self, path: str, param: Array) -> dict[str, Array]:
    state = {k: jnp.zeros((1,)) for k in ('v_row', 'v_col', 'v', 'm')}
    _, factors = self._factorization(path, param.shape)
    if factors is None:
      state['v'] = jnp.zeros(param.shape, jnp.float32)
    else:
      rows, columns = factors
      state['v_row'] = jnp.zeros(np.delete(param.shape, columns), jnp.float32)
      state['v_col'] = jnp.zeros(np.delete(param.shape, rows), jnp.float32)
    if self.beta1 is not None:
      state['m'] = jnp.zeros(param.shape, jnp.float32)
    return state

  def init_state(self, params: PyTree) -> optimizers.OptimizerState:
    states = {
      k: self._init_param_state(k, v) for k, v in _flatten(params).items()
    }
    return optimizers.OptimizerState(
      step=jnp.asarray(0, jnp.int32),
      param_states=_unflatten_like(states, params),
    )

  def _update(self, path, learning_rate, step, param, state, grad):
    """Updates one parameter: (new parameter, new state)."""
    averaged, factors = self._factorization(path, param.shape)
    mean = lambda x: jnp.mean(x, axis=averaged, keepdims=True)
    grad = grad.astype(jnp.float32)
    new_state = {k: jnp.zeros((1,)) for k in state}

    # β̂₂ of step t is 1 - t^-decay_rate, counted from 1.
    t = jnp.asarray(step - self.step_offset, jnp.float32) + 1.0
    decay = 1.0 - t ** (-self.decay_rate)
    squared = grad * grad + self.epsilon1
    if factors is None:
      v = decay * state['v'] + (1.0 - decay) * squared
      new_state['v'] = v
      update = grad * v**-0.5
    else:
      rows, columns = factors
      v_row = decay * state['v_row'] + (1.0 - decay) * jnp.mean(
        squared, columns
      )
      v_col = decay * state['v_col'] + (1.0 - decay) * jnp.mean(squared, rows)
      new_state['v_row'], new_state['v_col'] = v_row, v_col
      # The row axes' positions after averaging over the columns.
      rows_left = tuple(r - sum(c < r for c in columns) for r in rows)
      row_factor = (v_row / jnp.mean(v_row, rows_left, keepdims=True)) ** -0.5
      update = (
        grad
        * jnp.expand_dims(row_factor, columns)
        * jnp.expand_dims(v_col**-0.5, rows)
      )
    if self.clipping_threshold is not None:
      rms = jnp.sqrt(mean(update * update))
      update = update / jnp.maximum(1.0, rms / self.clipping_threshold)

    scale = learning_rate
    if self.multiply_by_parameter_scale:
      rms = jnp.sqrt(mean(param * param))
      scale = scale * jnp.maximum(rms, self.epsilon2)
    update = scale * update
    if self.beta1 is not None:
      update = self.beta1 * state['m'] + (1.0 - self.beta1) * update
      new_state['m'] = update
    kept = (
      1.0 if self.weight_decay_rate is None else 1.0 - self.weight_decay_rate
    )
    return (kept * param - update).astype(param.dtype), new_state

  def apply_gradient(self, learning_rate, params, state, grads):
    """Returns (new parameters, new `OptimizerState`)."""
    is_state = lambda _, x: 'v_row' in x
    states = traverse_util.flatten_dict(
      flax.core.unfreeze(state.param_states), is_leaf=is_state, sep='/'
    )
    flat_grads = _flatten(grads)
    new_params, new_states = {}, {}
    for path, param in _flatten(params).items():
      new_params[path], new_states[path] = self._update(
        path, learning_rate, state.step, param, states[path], flat_grads[path]
      )
    return _unflatten_like(new_params, params), optimizers.OptimizerState(
      step=state.step + 1, param_states=_unflatten_like(new_states, params)
    )

  def derive_logical_axes(
    self, optimizer: optimizers.Optimizer, param_logical_axes: PyTree
  ) -> optimizers.Optimizer:
    """Returns the optimizer with logical axis names (or None) as leaves.

    Full second moments and momentum are as large as the parameter and are
    sharded like it; the factored ones are small and replicated.
    """
    names = _flatten(param_logical_axes)

    def state_axes(path, x):
      parameter, _, key = path.rpartition('/')
      full = key in ('v', 'm') and x.shape != (1,)
      return names[parameter] if full else None

    states = _flatten(optimizer.state_dict()['state']['param_states'])
    states = {path: state_axes(path, x) for path, x in states.items()}
    param_states = traverse_util.unflatten_dict(states, sep='/')
    return optimizer.restore_state(
      {
        'target': flax.core.unfreeze(param_logical_axes),
        'state': {'step': None, 'param_states': param_states},
      }
    )
