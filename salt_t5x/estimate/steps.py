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

"""Compiles a run's steps for TPUs and reads their costs off the programs."""

from collections.abc import Mapping
import copy
import dataclasses
import functools
import math
import re
from typing import Any

import jax
from jax.experimental import mesh_utils, topologies
import numpy as np

from salt_t5x import files, models
from salt_t5x import trainer as trainer_lib
from salt_t5x.estimate import hlo_costs
from t5x import partitioning, utils

PyTree = Any

TEACHER = "teacher's forward pass"


# {chip: (peak matrix FLOPs in bfloat16, cycles), per second}. v5e's clock
# follows from its peak and its four matrix units of 128 x 128; the other clocks
# are assumed.
_CHIPS = {
  'v4': (275e12, 1.05e9),
  'v5e': (196.6e12, 1.5e9),
  'v5p': (459e12, 1.75e9),
  'v6e': (918e12, 1.75e9),
}


@dataclasses.dataclass(frozen=True)
class Estimate:
  """One program on one chip.

  Attributes:
    memory_bytes: the most it holds at a time; if it does not fit, what the
      compiler says it would take, or NaN.
    argument_bytes: {part: bytes} of what it holds before and after.
    fits: whether the compiler placed it in the chip's memory; if not, the
      following are NaN or None.
    matrix_flops: of matrix products.
    roofline_seconds: of `matrix_flops` at the chip's peak.
    estimated_seconds: the compiler's estimate; see `hlo_costs.Costs.cycles`.
    communicated_bytes: {kind of collective: bytes of the larger side}.
  """

  memory_bytes: float
  argument_bytes: dict[str, float]
  fits: bool = False
  matrix_flops: float = math.nan
  roofline_seconds: float = math.nan
  estimated_seconds: float = math.nan
  communicated_bytes: dict[str, float] | None = None


class _Trainer(trainer_lib.SaltTrainer):
  """A trainer whose state and teacher are shapes only."""

  def _find_teacher(self, recorded, model):
    del recorded, model

  def _load_teacher(self, batch):
    shapes, self._teacher_axes = self._teacher.shapes_and_axes(
      batch, self._partitioner
    )
    dtype = self._teacher.dtype
    self._teacher_params = jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(x.shape, dtype or x.dtype), shapes
    )

  def programs(self, state, features):
    """Yields (name, lowered program, {part held: (arrays, specs)})."""
    axes = self._train_state_axes
    held = {
      'parameters': (state.params, axes.params),
      'optimizer': (state.param_states, axes.param_states),
    }
    step = self._partitioned_train_step
    yield 'plain step', step.lower(state, features), held
    if self._distils(0):
      self._load_teacher(features)
      teacher = self._teacher_params
      of_teacher = {'teacher': (teacher, self._teacher_axes)}
      step = self._partitioned_distillation_step
      yield (
        'KD step',
        step.lower(state, features, teacher),
        held | of_teacher,
      )
      loss = self._partitioned_teacher_loss
      yield TEACHER, loss.lower(teacher, features), of_teacher


def make_mesh(topology: str, slices: int, num_partitions: int):
  """Returns the mesh of (data, model) that t5x would make of these chips.

  Args:
    topology: of a slice, e.g. 'v5e:16x16' (256 chips).
    slices: how many; 'data' goes over all of them.
    num_partitions: size of the 'model' axis, within a slice.

  Raises:
    ValueError: the chip's peak is unknown, there is no TPU compiler or no such
      topology, or the partitions do not divide a slice.
  """
  if topology.split(':')[0] not in _CHIPS:
    raise ValueError(
      f'--topology={topology!r}: choose one of {sorted(_CHIPS)}, and a shape, '
      "e.g. 'v5e:16x16'."
    )
  try:
    more = {'num_slices': slices} if slices > 1 else {}
    devices = topologies.get_topology_desc(
      platform='tpu', topology_name=topology, **more
    ).devices
  except Exception as e:
    raise ValueError(
      f'--topology={topology!r} cannot be compiled for ({e}). The compiler is '
      "in the package libtpu (pip install 'salt_t5x[tpu]'); topologies are "
      "'v5e:16x16', 'v5p:4x8x8' and others."
    ) from e
  chips = len(devices) // slices
  if chips % num_partitions:
    raise ValueError(
      f'partitioning.PjitPartitioner.num_partitions = {num_partitions} '
      '(NUM_MODEL_PARTITIONS of layouts/fully_sharded.gin) does not divide the '
      f'{chips} chips of a slice, --topology={topology!r}.'
    )
  shape = (chips // num_partitions, num_partitions)
  # Split: t5x takes any number of partitions that divides a slice, too.
  make = functools.partial(
    mesh_utils.create_device_mesh, allow_split_physical_axes=True
  )
  if slices > 1:
    make = functools.partial(
      mesh_utils.create_hybrid_device_mesh,
      dcn_mesh_shape=(slices, 1),
      allow_split_physical_axes=True,
    )
  return jax.sharding.Mesh(make(shape, devices=devices), ('data', 'model'))


def estimate(
  model: models.SaltDecoderOnlyModel,
  trainer_options: Mapping[str, Any],
  partitioner: partitioning.PjitPartitioner,
  mesh: jax.sharding.Mesh,
  features: Mapping[str, jax.ShapeDtypeStruct],
  topology: str,
  compiler_options: Mapping[str, Any],
) -> dict[str, Estimate]:
  """Compiles a run's steps.

  Args:
    model: the student.
    trainer_options: of `trainer.SaltTrainer`, those that gin binds.
    partitioner: gives the axis rules.
    mesh: of TPU devices, which replaces the partitioner's.
    features: of a batch, the model's.
    topology: see `make_mesh`.
    compiler_options: of XLA:TPU.

  Returns:
    {'plain step': ...} and, if the schedule distils, 'KD step' and TEACHER.
  """
  partitioner = copy.copy(partitioner)
  # `mesh` is a cached property: t5x would make it of the attached devices.
  partitioner.mesh = mesh
  initializer = utils.TrainStateInitializer(
    optimizer_def=model.optimizer_def,
    init_fn=model.get_initial_variables,
    input_shapes={k: v.shape for k, v in features.items()},
    input_types={k: v.dtype for k, v in features.items()},
    partitioner=partitioner,
  )
  state = initializer.global_train_state_shape
  # The trainer asks at which step it begins.
  tree = state.state_dict()
  tree['state']['step'] = np.zeros((), np.int32)
  trainer = _Trainer(
    model=model,
    train_state=state.restore_state(tree),
    partitioner=partitioner,
    eval_names=[],
    summary_dir=None,
    train_state_axes=initializer.train_state_axes,
    rng=np.zeros((2,), np.uint32),
    **trainer_options,
  )
  return {
    name: _compile(
      lowered,
      {part: _bytes_per_chip(*arrays, mesh) for part, arrays in held.items()},
      topology,
      compiler_options,
    )
    for name, lowered, held in trainer.programs(state, features)
  }


def _bytes_per_chip(tree: PyTree, axes: PyTree, mesh) -> float:
  """Returns the bytes of arrays with these specs; None is replicated."""

  def size(spec, x):
    spec = jax.sharding.PartitionSpec() if spec is None else spec
    sharding = jax.sharding.NamedSharding(mesh, spec)
    return math.prod(sharding.shard_shape(x.shape)) * x.dtype.itemsize

  is_spec = lambda x: x is None or isinstance(x, jax.sharding.PartitionSpec)
  sizes = jax.tree.map(size, axes, tree, is_leaf=is_spec)
  return float(sum(jax.tree.leaves(sizes)))


def _compile(
  lowered,
  arguments: dict[str, float],
  topology: str,
  compiler_options: Mapping[str, Any],
) -> Estimate:
  try:
    compiled = lowered.compile(compiler_options=dict(compiler_options))
  except jax.errors.JaxRuntimeError as e:
    if 'RESOURCE_EXHAUSTED' not in str(e):
      raise
    needed = re.search(r'\(([\d.]+)([MG])\) exceeds available HBM', str(e))
    size, unit = needed.groups() if needed else ('nan', 'G')
    return Estimate(float(size) * {'G': 2**30, 'M': 2**20}[unit], arguments)
  costs = hlo_costs.read(compiled.as_text())
  peak, clock = _CHIPS[topology.split(':')[0]]
  return Estimate(
    fits=True,
    memory_bytes=compiled.memory_analysis().peak_memory_in_bytes,
    argument_bytes=arguments,
    matrix_flops=costs.matrix_flops,
    roofline_seconds=costs.matrix_flops / peak,
    estimated_seconds=costs.cycles / clock,
    communicated_bytes=costs.communicated_bytes,
  )


def _number(x: float, digits: int) -> str:
  """Formats a number; small ones have three significant digits."""
  if math.isnan(x):
    return '?'
  return f'{x:.{digits}f}' if x >= 0.1 else f'{x:.3g}'


def table(estimates: Mapping[str, Estimate]) -> str:
  """Formats estimates as Markdown, with the ratios of the steps below."""
  rows = [
    (
      name,
      ('' if e.fits else 'does not fit: ') + _number(e.memory_bytes / 2**30, 2),
      ' + '.join(
        f'{part} {_number(size / 2**30, 2)}'
        for part, size in e.argument_bytes.items()
      ),
      *(
        (
          f'{e.matrix_flops:.3e}',
          _number(e.roofline_seconds, 3),
          _number(e.estimated_seconds, 3),
          _number(sum(e.communicated_bytes.values()) / 1e9, 1),
        )
        if e.fits
        else '––––'
      ),
    )
    for name, e in estimates.items()
  ]
  header = (
    *('per chip', 'memory, GiB', 'of it held', 'matrix FLOPs', 'at peak, s'),
    *('estimated, s', 'communicated, GB'),
  )
  text = files.markdown_table(header, rows)
  if not all(e.fits for e in estimates.values()):
    return (
      f'{text}\n\nTo make it fit: more NUM_MICROBATCHES, while a microbatch is '
      'a multiple of the chips that share a batch; a smaller '
      'models.SaltDecoderOnlyModel.loss_chunk; '
      "network.TransformerConfig.remat_policy = 'full'; "
      "teacher.Teacher.dtype = 'bfloat16'; layouts/fully_sharded.gin, with "
      'more NUM_MODEL_PARTITIONS if that leaves a chip fewer than 128 columns '
      'of D; or more chips.'
    )
  if 'KD step' not in estimates:
    return text
  (plain, kd, teacher), (plain_flops, kd_flops, teacher_flops) = (
    [getattr(estimates[name], x) for name in ('plain step', 'KD step', TEACHER)]
    for x in ('estimated_seconds', 'matrix_flops')
  )
  return (
    f'{text}\n\nKD step / plain step: {kd / plain:.3f} estimated, '
    f'{kd_flops / plain_flops:.3f} by FLOPs. A plain step and the '
    f"teacher's forward pass, compiled apart, make {1 + teacher / plain:.3f} "
    f'and {1 + teacher_flops / plain_flops:.3f}.\n'
    f"(KD - plain) / teacher's forward pass: {(kd - plain) / teacher:.3f} "
    'estimated.'
  )
