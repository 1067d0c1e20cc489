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

"""Shardings by the logical names of arrays' axes.

The rules in force map names to mesh axes; t5x sets them, and a mesh, around
its steps (`partitioning.PjitPartitioner`). Without rules nothing is sharded.
"""

from collections.abc import Sequence
import math

from flax.linen import partitioning as flax_partitioning
import jax
from jax.interpreters import pxla

Names = tuple[str | None, ...]


def fully_sharded_rules() -> tuple[tuple[str, str | tuple[str, ...]], ...]:
  """Axis rules for models that are narrow for the number of chips.

  Every chip has sequences of its own, so that no layer splits a matrix
  product. Parameters and optimizer state are cut along D over the mesh's
  'data' axis, and gathered layer by layer. Only the logits are split over
  'model', along V. Bound in gin as `PjitPartitioner.logical_axis_rules`.

  Returns:
    (logical name, mesh axes), the first that is free counts.
  """
  return (
    # Before 'batch', which so leaves 'model' to the logits.
    ('vocab', 'model'),
    ('batch', ('data', 'model')),
    ('batch', 'data'),
    ('embed', 'data'),
  )


def spec(names: Names) -> jax.sharding.PartitionSpec | None:
  """The mesh axes of an array's axes by the rules; None without rules."""
  rules = flax_partitioning.get_axis_rules()
  if not rules:
    return None
  return flax_partitioning.logical_to_mesh_axes(names, rules)


def constrain(x: jax.Array, names: Names) -> jax.Array:
  """Shards an activation by the logical names of its axes.

  Without axis rules in force it does nothing. flax's function of this purpose
  (0.12) sees only meshes set by `jax.set_mesh`, and so silently does nothing
  under the `with Mesh(...)` in which t5x runs its steps.
  """
  return constrain_to(x, spec(names))


def constrain_to(
  x: jax.Array, axes: jax.sharding.PartitionSpec | None
) -> jax.Array:
  """Shards an activation over mesh axes, or leaves it alone for None."""
  return x if axes is None else jax.lax.with_sharding_constraint(x, axes)


def mesh() -> jax.sharding.Mesh:
  """The mesh of the `with Mesh(...)` around; empty if there is none."""
  return pxla.thread_resources.env.physical_mesh


def count(axes: str | Sequence | None) -> int:
  """How many parts one array axis has that is sharded over mesh axes."""
  if axes is None:
    return 1
  if isinstance(axes, str):
    return mesh().shape[axes]
  return math.prod(count(axis) for axis in axes)
