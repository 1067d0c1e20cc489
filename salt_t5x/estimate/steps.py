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

"""What a run would cost on TPUs, found on any machine.

    python -m salt_t5x.estimate --topology=v5e:16x16 \
      --gin_file=salt_t5x/gin/recipes/2p8b_from_1p5b.gin \
      --gin_file=salt_t5x/gin/layouts/fully_sharded.gin

It takes the gin files and bindings of a training run, compiles the run's own
steps for a TPU topology with the compiler of the `libtpu` package, and prints
whether they fit, what they compute and move, and the compiler's estimate of
their time. There need be no TPU, no data and no teacher's checkpoint.

The estimates leave out communication, gathers, scatters and copies, and were
not checked on hardware: compare them with each other, not with a clock.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import importlib.util
import json
import math
import re
from typing import Any

from absl import flags
from etils import epath
import gin
import jax
from jax.experimental import mesh_utils, topologies
import jax.numpy as jnp
import numpy as np

from salt_t5x import command as command_lib
from salt_t5x import models
from salt_t5x import teacher as teacher_lib
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
    shapes, self._teacher_axes = teacher_lib.shapes_and_axes(
      self._teacher.model, batch, self._partitioner
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


def on_mesh(partitioner: partitioning.PjitPartitioner, mesh):
  """A partitioner as configured, on a mesh of its own."""
  cls = type(partitioner)
  result = object.__new__(type('OnMesh', (cls,), {'mesh': mesh}))
  result.__dict__.update(partitioner.__dict__)
  result.__dict__.pop('mesh', None)  # if it was asked for, and cached
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
  """Of arrays with these partition specs; None is replicated."""

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
  """With so many digits after the point, or three in all if it is small."""
  return f'{x:.{digits}f}' if x >= 0.1 else f'{x:.3g}'


def table(estimates: Mapping[str, Estimate]) -> str:
  """Markdown, per chip, with the ratios that matter below."""
  lines = [
    '| per chip | memory, GiB | of it held | matrix FLOPs | at peak, s '
    '| estimated, s | communicated, GB |',
    '|---|---|---|---|---|---|---|',
  ]
  for name, e in estimates.items():
    held = ' + '.join(
      f'{part} {_number(size / 2**30, 2)}'
      for part, size in e.argument_bytes.items()
    )
    memory = '?'
    if e.memory_bytes is not None:
      memory = _number(e.memory_bytes / 2**30, 2)
    if not e.fits:
      lines.append(
        f'| {name} | does not fit: {memory} | {held} | – | – | – | – |'
      )
      continue
    moved = sum(e.communicated_bytes.values()) / 1e9
    lines.append(
      f'| {name} | {memory} | {held} | {e.matrix_flops:.3e} '
      f'| {_number(e.roofline_seconds, 3)} | {_number(e.estimated_seconds, 3)} '
      f'| {_number(moved, 1)} |'
    )
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


# --- The command --------------------------------------------------------------


def train(
  model: models.SaltDecoderOnlyModel,
  train_dataset_cfg: utils.DatasetConfig,
  partitioner: partitioning.BasePartitioner,
  **others: Any,
) -> dict[str, Estimate]:
  """Takes what gin binds of t5x's `train`, and estimates instead."""
  del others
  topology, slices = flags.FLAGS.topology, flags.FLAGS.slices
  chip = topology.split(':')[0]
  if chip not in _CHIPS:
    raise ValueError(
      f'--topology={topology!r}: choose one of {sorted(_CHIPS)}, and a shape, '
      "e.g. 'v5e:16x16'."
    )
  partitions = partitioner._num_partitions or math.prod(
    partitioner._model_parallel_submesh
  )
  mesh = make_mesh(topology, slices, partitions)
  if train_dataset_cfg.pack:
    raise ValueError(
      'utils.DatasetConfig.pack = True is not estimated; unset it.'
    )
  length = max(train_dataset_cfg.task_feature_lengths.values())
  partitioner = on_mesh(partitioner, mesh)
  rows = jax.sharding.NamedSharding(mesh, partitioner.data_partition_spec)
  shape = (train_dataset_cfg.batch_size, length)
  try:
    rows.shard_shape(shape)
  except ValueError as e:
    raise ValueError(
      f'BATCH_SIZE = {shape[0]} is not a multiple of the chips that share a '
      f'batch ({rows.spec[0]!r} of {dict(mesh.shape)}).'
    ) from e
  features = {
    name: jax.ShapeDtypeStruct(shape, dtype)
    for name, dtype in (
      ('decoder_input_tokens', jnp.int32),
      ('decoder_target_tokens', jnp.int32),
      ('decoder_loss_weights', jnp.float32),
      # Of a prefix LM, as UL2's.
      ('decoder_causal_attention', jnp.int32),
    )
  }
  return estimate(
    model,
    gin.get_bindings('salt_t5x.trainer.SaltTrainer'),
    partitioner,
    features,
    chip,
    _compiler_options(),
  )


def _compiler_options() -> dict[str, Any]:
  found = {}
  for option in flags.FLAGS.compiler_option:
    name, is_given, value = option.lstrip('-').partition('=')
    if not is_given:
      raise ValueError(f'--compiler_option={option!r}: write NAME=VALUE.')
    # XLA takes numbers as numbers, e.g. exec_time_optimization_effort=-1.0.
    for convert in (int, float, str):
      try:
        found[name] = convert(value)
        break
      except ValueError:
        pass
  return found


def define_flags():
  """As of t5x's train binary, and the chips."""
  flags.DEFINE_multi_string('gin_file', [], "The training run's gin files.")
  flags.DEFINE_multi_string('gin_bindings', [], 'Gin bindings.')
  flags.DEFINE_list('gin_search_paths', ['.'], 'Where gin files are found.')
  flags.DEFINE_string('topology', 'v5e:16x16', 'The chips of a slice.')
  flags.DEFINE_integer('slices', 1, 'Slices of chips.', lower_bound=1)
  flags.DEFINE_multi_string(
    'compiler_option',
    [],
    'NAME=VALUE, as in the LIBTPU_INIT_ARGS of the run; e.g. '
    'xla_tpu_scoped_vmem_limit_kib=65536.',
  )
  flags.DEFINE_string('output', None, 'JSON file to write, too.')


def main(argv: Sequence[str]) -> None:
  if len(argv) > 1:
    raise ValueError(f'Not understood: {argv[1:]}')
  if not flags.FLAGS.gin_file:
    raise ValueError(
      "--gin_file is missing: give a training run's files, e.g. "
      'salt_t5x/gin/recipes/2p8b_from_1p5b.gin.'
    )
  output = flags.FLAGS.output
  if output:  # Compiling takes minutes: what cannot be written is told first.
    epath.Path(output).parent.mkdir(parents=True, exist_ok=True)
  # Last: what a run must name and costs do not depend on.
  command_lib.parse_gin('salt_t5x/gin/runs/estimate.gin')
  found = gin.get_configurable(train)()
  print(table(found))
  if output:
    result = {name: dataclasses.asdict(e) for name, e in found.items()}
    epath.Path(output).write_text(json.dumps(result, indent=2) + '\n')
