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

"""Restores the parameters of a checkpoint onto a mesh."""

from collections.abc import Iterator
import contextlib
from typing import Any

from etils import epath
from flax import traverse_util
import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from salt_t5x.checkpoints import damage

PyTree = Any


@contextlib.contextmanager
def _naming_damage(
  checkpoint: epath.Path, parameter: str, only_reads: bool = False
) -> Iterator[None]:
  """Raises a `ValueError` that names the parameter and the damage, if any."""
  try:
    yield
  except Exception as e:
    problem = f'cannot be read: {e}' if only_reads else None
    try:
      if found := damage.describe(checkpoint):
        problem = f'is damaged: {found}'
    except Exception as out_of_reach:
      problem = f'cannot be read: {out_of_reach}'
    if problem is None:
      raise
    raise ValueError(
      f'{parameter}: {checkpoint} {problem}. Restore it, or name another '
      'checkpoint.'
    ) from e


def check_architecture(
  checkpoint: epath.Path, shapes: PyTree, parameter: str
) -> None:
  """Compares the shapes of a checkpoint's parameters with a model's.

  Args:
    checkpoint: a `checkpoint_<step>` directory.
    shapes: the model's parameters, as `jax.ShapeDtypeStruct`s.
    parameter: the gin parameter of the model, for messages.

  Raises:
    ValueError: names or shapes differ, or the checkpoint cannot be read.
  """
  with _naming_damage(checkpoint, parameter, only_reads=True):
    handler = ocp.PyTreeCheckpointHandler(use_ocdbt=True)
    metadata = handler.metadata(checkpoint / 'state').tree
  flatten = lambda tree: traverse_util.flatten_dict(tree, sep='/')
  found = {k: tuple(v.shape) for k, v in flatten(metadata['target']).items()}
  expected = {k: tuple(v.shape) for k, v in flatten(shapes).items()}
  differences = [
    f'{name} is {found.get(name, "missing")} in the checkpoint, '
    f'{expected.get(name, "missing")} in the model'
    for name in sorted({*expected, *found})
    if expected.get(name) != found.get(name)
  ]
  if differences:
    listed = '\n  '.join(differences[:4])
    raise ValueError(
      f'{parameter} is not the architecture of {checkpoint}; '
      f'{len(differences)} parameters differ:\n  {listed}\nInclude the '
      'gin file of the size (and VOCAB_SIZE) it was trained with.'
    )


def parameters(
  checkpoint: epath.Path,
  shapes: PyTree,
  axes: PyTree,
  mesh: jax.sharding.Mesh,
  *,
  dtype: str | None = None,
  parameter: str,
) -> PyTree:
  """Restores the parameters alone, sharded over a mesh.

  Args:
    checkpoint: a `checkpoint_<step>` directory.
    shapes: the model's parameters, as `jax.ShapeDtypeStruct`s.
    axes: their partition specs.
    mesh: the mesh.
    dtype: the parameters' dtype; None keeps that of the checkpoint.
    parameter: the gin parameter of the model, for messages.

  Returns:
    The parameters.

  Raises:
    ValueError: the checkpoint has another architecture, or is damaged.
  """
  check_architecture(checkpoint, shapes, parameter)
  restore_args = jax.tree.map(
    lambda _, spec: ocp.ArrayRestoreArgs(
      mesh=mesh,
      mesh_axes=spec or jax.sharding.PartitionSpec(),
      dtype=dtype and jnp.dtype(dtype),
    ),
    shapes,
    axes,
  )
  args = ocp.args.PyTreeRestore(
    item={'target': shapes},
    restore_args={'target': restore_args},
    partial_restore=True,
  )
  with (
    _naming_damage(checkpoint, parameter),
    ocp.PyTreeCheckpointer(use_ocdbt=True) as checkpointer,
  ):
    return checkpointer.restore(checkpoint / 'state', args=args)['target']
