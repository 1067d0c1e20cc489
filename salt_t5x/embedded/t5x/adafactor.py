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
import jax
import jax.numpy as jnp
import numpy as np

from t5x import _subset

__getattr__ = _subset.missing(__name__)

Array = jax.Array
PyTree = Any


class FactorDim(enum.Enum):
  """The role of a parameter's dimension in the factored second moments."""

  NONE = None
  BATCH = 1
  ROW = 2
  COLUMN = 3


@_subset.subset_of_t5x
def standard_logical_factor_rules() -> Mapping[str, FactorDim]:
  """Returns t5x's standard table: logical axis name -> `FactorDim`."""
  columns = ('vocab', 'mlp', 'heads', 'kv', 'joined_kv', 'mlp_activations')
  return {
    'embed': FactorDim.ROW,
    **dict.fromkeys(columns, FactorDim.COLUMN),
    **dict.fromkeys(('layers', 'stack'), FactorDim.BATCH),
    **dict.fromkeys(('relpos_buckets', 'layer_norm_scale'), FactorDim.NONE),
  }


# eq=False: jitted functions hold it as a static value, compared by identity.
@_subset.subset_of_t5x
@dataclasses.dataclass(eq=False)
class Adafactor:
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

  def _factorization(self, axes, shape: tuple[int, ...]):
    """Returns (dimensions to average over, None or (row dims, column dims))."""
    rules = self.logical_factor_rules
    dims = [(rules or {}).get(name) for name in axes]
    is_factored = {FactorDim.ROW, FactorDim.COLUMN} <= {*dims}
    is_bad = None in dims or (is_factored and FactorDim.NONE in dims)
    # Matrices need no rules.
    if is_bad and (rules is not None or len(shape) > 2):
      raise ValueError(
        f'adafactor.Adafactor.logical_factor_rules = {rules} does not fit a '
        f'parameter with the axes {tuple(axes)}: give each axis a rule, and do '
        'not mix ROW and COLUMN with NONE.'
      )
    if len(shape) <= 2 and FactorDim.BATCH not in dims:
      # As in t5x, a matrix is factored if both of its sides are large.
      everything = tuple(range(len(shape)))
      if len(shape) < 2 or min(shape) < self.min_dim_size_to_factor:
        return everything, None
      smaller, larger = np.argsort(shape, kind='stable')
      return everything, ((int(smaller),), (int(larger),))
    rows, columns, averaged = (
      tuple(i for i, d in enumerate(dims) if d in kinds)
      for kinds in (
        (FactorDim.ROW,),
        (FactorDim.COLUMN,),
        (FactorDim.ROW, FactorDim.COLUMN, FactorDim.NONE),
      )
    )
    return averaged, (rows, columns) if is_factored else None

  def _init_param_state(self, axes, param: Array) -> dict[str, Array]:
    shapes = {} if self.beta1 is None else {'m': param.shape}
    _, factors = self._factorization(axes, param.shape)
    if factors is None:
      shapes['v'] = param.shape
    else:
      rows, columns = factors
      shapes['v_row'] = np.delete(param.shape, columns)
      shapes['v_col'] = np.delete(param.shape, rows)
    return {
      k: jnp.zeros(shapes.get(k, (1,)), jnp.float32)
      for k in ('v_row', 'v_col', 'v', 'm')
    }

  def init_state(self, params: PyTree, axes: PyTree) -> PyTree:
    """Returns the initial state of each parameter."""
    return jax.tree.map(
      self._init_param_state, flax.core.unfreeze(axes), params
    )

  def _update(self, learning_rate, step, axes, param, state, grad):
    """Updates one parameter: (new parameter, new state)."""
    averaged, factors = self._factorization(axes, param.shape)
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
    if self.weight_decay_rate is not None:
      param = (1.0 - self.weight_decay_rate) * param
    return (param - update).astype(param.dtype), new_state

  def apply_gradient(self, learning_rate, step, params, states, grads, axes):
    """Returns (new parameters, their new states)."""
    updated = jax.tree.map(
      lambda *x: self._update(learning_rate, step, *x),
      flax.core.unfreeze(axes),
      params,
      states,
      grads,
    )
    part = lambda i: jax.tree.map(lambda _, pair: pair[i], params, updated)
    return part(0), part(1)
