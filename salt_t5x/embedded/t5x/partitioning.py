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
import dataclasses
import functools
import math
from typing import Any

from flax import traverse_util
from flax.linen import partitioning as flax_partitioning
import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
import numpy as np

from t5x import _subset

PyTree = Any
LogicalAxisRules = Sequence[tuple[str, str | None]]

__getattr__ = _subset.missing(__name__)


@_subset.subset_of_t5x
def standard_logical_axis_rules(
  activation_partitioning_dims: int = 1,
  parameter_partitioning_dims: int = 1,
  additional_rules: LogicalAxisRules | None = None,
) -> LogicalAxisRules:
  """Returns t5x's standard rules: (logical axis, mesh axis or None).

  Args:
    activation_partitioning_dims: 2 also shards activations' width over 'model'.
    parameter_partitioning_dims: 2 also shards parameters' width over 'data'.
    additional_rules: appended, so that earlier rules take precedence.
  """
  dims = (activation_partitioning_dims, parameter_partitioning_dims)
  embed = {
    (1, 1): [None],
    (2, 1): ['model'],
    (1, 2): ['data'],
    (2, 2): ['model', 'data'],
  }.get(dims)
  if embed is None:
    raise ValueError(
      'activation_partitioning_dims and parameter_partitioning_dims must be 1 '
      f'or 2, not {dims}.'
    )
  over_model = ('vocab', 'mlp', 'heads', 'joined_kv')
  replicated = [
    'kv',
    'relpos_buckets',
    'abspos_buckets',
    'length',
    'layers',
    'stack',
    'mlp_activations',
  ]
  return [
    ('batch', 'data'),
    *((name, 'model') for name in over_model),
    *(('embed', axis) for axis in embed),
    *((name, None) for name in replicated),
    *(additional_rules or ()),
  ]


@dataclasses.dataclass(frozen=True)
class DataLayout:
  """The shard of the input that this host reads; here, all of it."""

  batch_size: int
  shard_id: int = 0
  num_shards: int = 1


class _Partitioned:
  """A jitted function that runs on the mesh with the axis rules."""

  def __init__(self, jitted, mesh: Mesh, rules: LogicalAxisRules):
    self._jitted = jitted
    self._mesh = mesh
    self._rules = rules

  def __call__(self, *args):
    with self._mesh, flax_partitioning.axis_rules(self._rules):
      return self._jitted(*args)

  def lower(self, *args):
    with self._mesh, flax_partitioning.axis_rules(self._rules):
      return self._jitted.lower(*args)


class BasePartitioner:
  """The interface's name."""


@_subset.subset_of_t5x
class PjitPartitioner(BasePartitioner):
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
    self._rules = tuple(logical_axis_rules or standard_logical_axis_rules())

  @functools.cached_property
  def mesh(self) -> Mesh:
    devices = np.array(jax.devices())
    if devices.size % self._num_partitions:
      raise ValueError(
        f'partitioning.PjitPartitioner.num_partitions = '
        f'{self._num_partitions} does not divide the {devices.size} devices: '
        'choose a divisor.'
      )
    return Mesh(devices.reshape(-1, self._num_partitions), ('data', 'model'))

  @property
  def data_partition_spec(self) -> PartitionSpec:
    return flax_partitioning.logical_to_mesh_axes(['batch'], self._rules)

  @property
  def logical_axis_rules(self) -> LogicalAxisRules:
    return self._rules

  def get_data_layout(self, batch_size: int | None = None) -> DataLayout:
    """Returns the layout of a batch.

    Raises:
      ValueError: the mesh's data axis does not divide the batch.
    """
    (axes,) = self.data_partition_spec
    axes = (axes,) if isinstance(axes, str) else axes or ()
    data = math.prod(self.mesh.shape[axis] for axis in axes)
    batch_size = batch_size or data
    if batch_size % data:
      raise ValueError(
        f'BATCH_SIZE = {batch_size} is not a multiple of the {data} devices '
        'that share a batch.'
      )
    return DataLayout(batch_size)

  def get_mesh_axes(self, train_state):
    """Returns the state with a PartitionSpec or None in place of arrays."""
    logical = train_state.as_logical_axes()
    flat = traverse_util.flatten_dict(
      logical.state_dict(), keep_empty_nodes=True, sep='/'
    )
    to_mesh = lambda names: flax_partitioning.logical_to_mesh_axes(
      names, self._rules
    )
    specs = {
      k: to_mesh(v) if isinstance(v, (tuple, PartitionSpec)) else v
      for k, v in flat.items()
    }
    return logical.restore_state(traverse_util.unflatten_dict(specs, sep='/'))

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
  ) -> _Partitioned:
    """Jits `fn` with the given partition specs (prefix trees) of its arrays."""
    jitted = jax.jit(
      fn,
      in_shardings=self.shardings(in_axis_resources),
      out_shardings=self.shardings(out_axis_resources),
      donate_argnums=donate_argnums,
    )
    return _Partitioned(jitted, self.mesh, self._rules)

  def compile(self, partitioned_fn: _Partitioned, *args):
    """Compiles a partitioned function for arguments of these shapes."""
    return partitioned_fn.lower(*args).compile()


def with_sharding_constraint(x: jax.Array, spec: PartitionSpec) -> jax.Array:
  """Constrains a traced array on the mesh in use, if there is one."""
  mesh = jax.interpreters.pxla.thread_resources.env.physical_mesh
  if mesh.empty:
    return x
  return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, spec))
