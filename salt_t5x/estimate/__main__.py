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

import argparse
from collections.abc import Sequence
import contextlib
import dataclasses
import math
import os
from typing import Any

import gin
import jax
import jax.numpy as jnp

from salt_t5x import command, files, models
from salt_t5x.estimate import steps
from t5x import partitioning, utils


def _compiler_option(text: str) -> tuple[str, Any]:
  name, is_given, value = text.lstrip('-').partition('=')
  if not is_given:
    raise argparse.ArgumentTypeError(f'{text!r}: write NAME=VALUE.')
  # XLA takes numbers as numbers, e.g. exec_time_optimization_effort=-1.0.
  for convert in (int, float):
    with contextlib.suppress(ValueError):
      return name, convert(value)
  return name, value


def parse_flags(argv: Sequence[str]) -> argparse.Namespace:
  """Parses the flags of an estimate."""
  parser = command.parser(
    'salt_t5x.estimate', 'Estimates the cost of a run on TPUs.'
  )
  command.add_gin_flags(parser)
  add = parser.add_argument
  add('--topology', default='v5e:16x16', help='the chips of a slice')
  add('--slices', type=command.at_least(1), default=1, help='slices of chips')
  add(
    '--compiler_option',
    type=_compiler_option,
    action='append',
    default=[],
    help='NAME=VALUE, as in the LIBTPU_INIT_ARGS of the run; e.g. '
    'xla_tpu_scoped_vmem_limit_kib=65536',
  )
  add('--output', type=command.path, help='a JSON file for the numbers')
  return parser.parse_args(argv[1:])


def train(
  model: models.SaltDecoderOnlyModel,
  train_dataset_cfg: utils.DatasetConfig,
  partitioner: partitioning.BasePartitioner,
  args: argparse.Namespace,
  **others: Any,
) -> dict[str, steps.Estimate]:
  """Estimates the run that gin configures as t5x's `train`.

  Args:
    model: the student.
    train_dataset_cfg: gives the shape of a batch.
    partitioner: is put on a mesh of the topology's chips.
    args: the flags.
    **others: further arguments of t5x's `train`; unused.

  Raises:
    ValueError: the topology, the batch or the partitions do not fit.
  """
  del others
  if train_dataset_cfg.pack:
    raise ValueError(
      'utils.DatasetConfig.pack = True is not estimated; unset it.'
    )
  partitions = partitioner._num_partitions or math.prod(
    partitioner._model_parallel_submesh
  )
  mesh = steps.make_mesh(args.topology, args.slices, partitions)
  rows = jax.sharding.NamedSharding(mesh, partitioner.data_partition_spec)
  length = max(train_dataset_cfg.task_feature_lengths.values())
  shape = (train_dataset_cfg.batch_size, length)
  try:
    rows.shard_shape(shape)
  except ValueError as e:
    raise ValueError(
      f'BATCH_SIZE = {shape[0]} is not a multiple of the chips that share a '
      f'batch ({rows.spec[0]!r} of {dict(mesh.shape)}).'
    ) from e
  batch = jax.ShapeDtypeStruct(shape, jnp.int32)
  return steps.estimate(
    model,
    gin.get_bindings('salt_t5x.trainer.SaltTrainer'),
    partitioner,
    mesh,
    # With the feature of a prefix LM, as in UL2.
    jax.eval_shape(models.features_of, batch),
    args.topology,
    dict(args.compiler_option),
  )


def main(args: argparse.Namespace) -> None:
  """Estimates the run, and prints and writes the result."""
  if args.output:  # Compiling takes minutes: check the folder first.
    files.make_folder(
      os.path.dirname(os.path.abspath(args.output)), f'--output={args.output}'
    )
  # The last file replaces paths and vocabularies, which have no cost.
  command.parse_gin(args, 'salt_t5x/gin/runs/estimate.gin')
  found = gin.get_configurable(train)(args=args)
  print(steps.table(found))
  if args.output:
    files.write_json(
      args.output, {name: dataclasses.asdict(e) for name, e in found.items()}
    )


if __name__ == '__main__':
  # The compiler alone is needed, so no TPU is looked for.
  jax.config.update('jax_platforms', 'cpu')
  for name, value in (
    ('TPU_SKIP_MDS_QUERY', '1'),
    ('TPU_WORKER_HOSTNAMES', 'localhost'),
    ('TPU_ACCELERATOR_TYPE', 'v5litepod-256'),
    # Estimates may run side by side.
    ('ALLOW_MULTIPLE_LIBTPU_LOAD', '1'),
  ):
    os.environ.setdefault(name, value)
  command.run(main, parse_flags)
