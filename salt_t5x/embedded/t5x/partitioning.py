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

"""Sharding over the local devices by logical axis names."""

from collections.abc import Callable, Sequence
import functools
from typing import Any

import flax
from flax.linen import partitioning as flax_partitioning
import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
import numpy as np

from t5x import _subset

__getattr__ = _subset.missing(__name__)

PyTree = Any
LogicalAxisRules = Sequence[tuple[str, str | None]]


@_subset.subset_of_t5x
def standard_logical_axis_rules() -> LogicalAxisRules:
  """Returns t5x's standard rules: (logical axis, mesh axis or None)."""
  over_model = ('vocab', 'mlp', 'heads', 'joined_kv')
  replicated = (
    *('embed', 'kv', 'relpos_buckets', 'abspos_buckets', 'length', 'layers'),
    *('stack', 'mlp_activations'),
  )
  return [
    ('batch', 'data'),
    *((name, 'model') for name in over_model),
    *((name, None) for name in replicated),
  ]


@_subset.subset_of_t5x
class PjitPartitioner:
  """Partitions functions with `jax.jit` over a (data, model) mesh."""

  def __init__(
    self,
    num_partitions: int = 1,
    model_parallel_submesh: Sequence[int] | None = None,
    logical_axis_rules: LogicalAxisRules | None = None,
  ):
    """Constructor.

    Args:
      num_partitions: size of the mesh's 'model' axis, a divisor of the number
        of local devices.
      model_parallel_submesh: t5x's TPU submesh; only its size matters here.
      logical_axis_rules: see `standard_logical_axis_rules`.
    """
    if model_parallel_submesh is not None:
      num_partitions = int(np.prod(model_parallel_submesh))
    self._num_partitions = num_partitions
    self.logical_axis_rules = tuple(
      logical_axis_rules or standard_logical_axis_rules()
    )

  @functools.cached_property
  def mesh(self) -> Mesh:
    """All local devices, with the axes 'data' and 'model'."""
    devices = np.array(jax.devices())
    if devices.size % self._num_partitions:
      raise ValueError(
        f'partitioning.PjitPartitioner.num_partitions = '
        f'{self._num_partitions} does not divide the {devices.size} devices: '
        'choose a divisor.'
      )
    return Mesh(devices.reshape(-1, self._num_partitions), ('data', 'model'))

  def _to_mesh(self, axes: Sequence[str | None]) -> PartitionSpec:
    return flax_partitioning.logical_to_mesh_axes(axes, self.logical_axis_rules)

  @property
  def data_partition_spec(self) -> PartitionSpec:
    """The partition spec of a batch."""
    return self._to_mesh(['batch'])

  def get_mesh_axes(self, train_state):
    """Returns the state with a PartitionSpec or None in place of arrays.

    Full second moments and momentum are as large as the parameter and are
    sharded like it; the factored ones are small and replicated.
    """
    specs = jax.tree.map(self._to_mesh, flax.core.unfreeze(train_state.axes))
    states = train_state.param_states
    if states is not None:
      states = jax.tree.map(
        lambda spec, state: {
          k: spec if k in ('v', 'm') and x.shape != (1,) else None
          for k, x in state.items()
        },
        specs,
        states,
      )
    return train_state.replace(step=None, params=specs, param_states=states)

  def shardings(self, specs: PyTree) -> PyTree:
    """Maps PartitionSpecs to shardings on the mesh; None replicates."""
    leaf = lambda x: x is None or isinstance(x, PartitionSpec)
    return jax.tree.map(
      lambda s: NamedSharding(self.mesh, PartitionSpec() if s is None else s),
      specs,
      is_leaf=leaf,
    )

  def partition(
    self,
    fn: Callable,
    in_axis_resources: PyTree,
    out_axis_resources: PyTree,
    donate_argnums: Sequence[int] = (),
  ) -> Callable:
    """Jits `fn` with the given partition specs (prefix trees) of its arrays."""

    def on_mesh(*args):
      with self.mesh, flax_partitioning.axis_rules(self.logical_axis_rules):
        return fn(*args)

    return jax.jit(
      on_mesh,
      in_shardings=self.shardings(in_axis_resources),
      out_shardings=self.shardings(out_axis_resources),
      donate_argnums=donate_argnums,
    )

  def compile(self, partitioned_fn: Callable, *args):
    """Compiles a partitioned function for arguments of these shapes."""
    return partitioned_fn.lower(*args).compile()


BasePartitioner = PjitPartitioner
