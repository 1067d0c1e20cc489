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
import importlib.util
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


@dataclasses.dataclass(frozen=True)
class _Chip:
  matrix_flops: float  # peak per second, bfloat16
  cycles: float  # per second


# v5e's clock follows from its peak and its four matrix units of 128 x 128; the
# other clocks are assumed.
_CHIPS = {
  'v4': _Chip(275e12, 1.05e9),
  'v5e': _Chip(196.6e12, 1.5e9),
  'v5p': _Chip(459e12, 1.75e9),
  'v6e': _Chip(918e12, 1.75e9),
}


@dataclasses.dataclass(frozen=True)
class Estimate:
  """One program on one chip.

  Attributes:
    fits: whether the compiler placed it in the chip's memory.
    memory_bytes: the most it holds at a time; if it does not fit, what the
      compiler says it would take, or None.
    argument_bytes: {part: bytes} of what it holds before and after.
    matrix_flops: of matrix products.
    roofline_seconds: of `matrix_flops` at the chip's peak.
    estimated_seconds: the compiler's estimate; see `hlo_costs.Costs.cycles`.
    communicated_bytes: {kind of collective: bytes of the larger side}.
  """

  fits: bool
  memory_bytes: float | None
  argument_bytes: dict[str, float]
  matrix_flops: float | None = None
  roofline_seconds: float | None = None
  estimated_seconds: float | None = None
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


def chip_name(topology: str) -> str:
  """Returns the chip of a topology, e.g. 'v5e' of 'v5e:16x16'.

  Raises:
    ValueError: its peak is not known.
  """
  chip = topology.split(':')[0]
  if chip not in _CHIPS:
    raise ValueError(
      f'--topology={topology!r}: choose one of {sorted(_CHIPS)}, and a shape, '
      "e.g. 'v5e:16x16'."
    )
  return chip


def make_mesh(topology: str, slices: int, num_partitions: int):
  """The mesh of (data, model) that t5x would make of these chips.

  Args:
    topology: of a slice, e.g. 'v5e:16x16' (256 chips).
    slices: how many; 'data' goes over all of them.
    num_partitions: size of the 'model' axis, within a slice.

  Raises:
    ValueError: there is no TPU compiler or no such topology, or the partitions
      do not divide a slice.
  """
  try:
    more = {'num_slices': slices} if slices > 1 else {}
    devices = topologies.get_topology_desc(
      platform='tpu', topology_name=topology, **more
    ).devices
  except Exception as e:
    if importlib.util.find_spec('libtpu') is None:
      raise ValueError(
        f'--topology={topology!r} cannot be compiled for: that takes the '
        "package libtpu, pip install 'salt_t5x[tpu]'."
      ) from e
    raise ValueError(
      f'--topology={topology!r} cannot be compiled for ({e}). Topologies are '
      "e.g. 'v5e:16x16' and 'v5p:4x8x8'."
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
  if slices > 1:
    devices = mesh_utils.create_hybrid_device_mesh(
      shape, (slices, 1), devices, allow_split_physical_axes=True
    )
  else:
    devices = mesh_utils.create_device_mesh(
      shape, devices, allow_split_physical_axes=True
    )
  return jax.sharding.Mesh(devices, ('data', 'model'))


def on_mesh(
  partitioner: partitioning.PjitPartitioner, mesh: jax.sharding.Mesh
) -> partitioning.PjitPartitioner:
  """Returns a copy of a partitioner that uses the given mesh."""
  result = copy.copy(partitioner)
  # `mesh` is a cached property: t5x would make it of the attached devices.
  result.mesh = mesh
  return result


def estimate(
  model: models.SaltDecoderOnlyModel,
  trainer_options: Mapping[str, Any],
  partitioner: partitioning.PjitPartitioner,
  features: Mapping[str, jax.ShapeDtypeStruct],
  chip: str,
  compiler_options: Mapping[str, Any],
) -> dict[str, Estimate]:
  """Compiles a run's steps.

  Args:
    model: the student.
    trainer_options: of `trainer.SaltTrainer`, those that gin binds.
    partitioner: on a mesh of TPU devices; see `on_mesh`.
    features: of a batch, the model's.
    chip: 'v5e' and so on.
    compiler_options: of XLA:TPU.

  Returns:
    {'plain step': ...} and, if the schedule distils, 'KD step' and TEACHER.
  """
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
      {
        part: _bytes_per_chip(*arrays, partitioner.mesh)
        for part, arrays in held.items()
      },
      chip,
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
  chip: str,
  compiler_options: Mapping[str, Any],
) -> Estimate:
  try:
    compiled = lowered.compile(compiler_options=dict(compiler_options))
  except jax.errors.JaxRuntimeError as e:
    needed = re.search(r'\(([\d.]+)([MG])\) exceeds available HBM', str(e))
    if 'RESOURCE_EXHAUSTED' not in str(e):
      raise
    if not needed:
      return Estimate(False, None, arguments)
    unit = 2**30 if needed[2] == 'G' else 2**20
    return Estimate(False, float(needed[1]) * unit, arguments)
  costs = hlo_costs.read(compiled.as_text())
  peak = _CHIPS[chip]
  return Estimate(
    fits=True,
    memory_bytes=compiled.memory_analysis().peak_memory_in_bytes,
    argument_bytes=arguments,
    matrix_flops=costs.matrix_flops,
    roofline_seconds=costs.matrix_flops / peak.matrix_flops,
    estimated_seconds=costs.cycles / peak.cycles,
    communicated_bytes=costs.communicated_bytes,
  )


def _number(x: float, digits: int) -> str:
  """Formats a number; small ones have three significant digits."""
  return f'{x:.{digits}f}' if x >= 0.1 else f'{x:.3g}'


def table(estimates: Mapping[str, Estimate]) -> str:
  """Formats estimates as Markdown, with the ratios of the steps below."""
  header = (
    'per chip', 'memory, GiB', 'of it held', 'matrix FLOPs', 'at peak, s',
    'estimated, s', 'communicated, GB',
  )  # fmt: skip
  rows = []
  for name, e in estimates.items():
    held = ' + '.join(
      f'{part} {_number(size / 2**30, 2)}'
      for part, size in e.argument_bytes.items()
    )
    memory = '?'
    if e.memory_bytes is not None:
      memory = _number(e.memory_bytes / 2**30, 2)
    if not e.fits:
      rows.append((name, f'does not fit: {memory}', held, *'––––'))
      continue
    moved = sum(e.communicated_bytes.values()) / 1e9
    rows.append(
      (
        name,
        memory,
        held,
        f'{e.matrix_flops:.3e}',
        _number(e.roofline_seconds, 3),
        _number(e.estimated_seconds, 3),
        _number(moved, 1),
      )
    )
  lines = [files.markdown_table(header, rows)]
  if not all(e.fits for e in estimates.values()):
    lines += [
      '',
      'To make it fit: more NUM_MICROBATCHES, while a microbatch is a multiple '
      'of the chips that share a batch; a smaller '
      'models.SaltDecoderOnlyModel.loss_chunk; '
      "network.TransformerConfig.remat_policy = 'full'; "
      "teacher.Teacher.dtype = 'bfloat16'; layouts/fully_sharded.gin, with "
      'more NUM_MODEL_PARTITIONS if that leaves a chip fewer than 128 columns '
      'of D; or more chips.',
    ]
  elif 'KD step' in estimates:
    plain, kd, teacher = (
      estimates[name] for name in ('plain step', 'KD step', TEACHER)
    )
    ratio = lambda get: get(kd) / get(plain)
    apart = lambda get: 1 + get(teacher) / get(plain)
    more = (kd.estimated_seconds - plain.estimated_seconds) / (
      teacher.estimated_seconds
    )
    flops = lambda e: e.matrix_flops
    seconds = lambda e: e.estimated_seconds
    lines += [
      '',
      f'KD step / plain step: {ratio(seconds):.3f} estimated, '
      f"{ratio(flops):.3f} by FLOPs. A plain step and the teacher's forward "
      f'pass, compiled apart, make {apart(seconds):.3f} and '
      f'{apart(flops):.3f}.',
      f"(KD - plain) / teacher's forward pass: {more:.3f} estimated.",
    ]
  return '\n'.join(lines)
