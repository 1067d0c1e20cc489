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

"""Estimates: what the table says, what is refused, and a real compilation."""

import importlib.util
import os
import subprocess
import sys
import types

import jax
import jax.numpy as jnp
import pytest

from salt_t5x import schedules
from salt_t5x import teacher as teacher_lib
from salt_t5x.estimate import __main__ as command
from salt_t5x.estimate import steps as estimate_steps
from salt_t5x.kernels import sharding
from t5x import partitioning
import tiny

HAS_COMPILER = importlib.util.find_spec('libtpu') is not None
GIB = 2**30


def estimated(seconds, flops, **changes):
  return estimate_steps.Estimate(
    **dict(
      fits=True,
      memory_bytes=4 * GIB,
      argument_bytes={'parameters': 2 * GIB, 'teacher': GIB / 2},
      matrix_flops=flops,
      roofline_seconds=seconds / 2,
      estimated_seconds=seconds,
      communicated_bytes={'all-gather': 3e9, 'all-reduce': 1e9},
    )
    | changes
  )


def test_the_table_compares_the_two_steps_with_the_sum():
  text = estimate_steps.table(
    {
      'plain step': estimated(2.0, 100.0),
      'KD step': estimated(2.6, 120.0),
      estimate_steps.TEACHER: estimated(0.5, 20.0),
    }
  )
  assert '| plain step | 4.00 | parameters 2.00 + teacher 0.50 |' in text
  assert '| 1.000 | 2.000 | 4.0 |' in text
  assert '1.300 estimated, 1.200 by FLOPs' in text
  assert 'compiled apart, make 1.250 and 1.200' in text
  assert "teacher's forward pass: 1.200 estimated" in text


def test_memory_excess_comes_with_remedies():
  text = estimate_steps.table(
    {
      'plain step': estimated(2.0, 100.0),
      'KD step': estimate_steps.Estimate(22.4 * GIB, {'parameters': GIB}),
    }
  )
  assert '| KD step | does not fit: 22.40 |' in text
  assert text.splitlines()[3].endswith('| – | – | – | – |')
  for remedy in ('NUM_MICROBATCHES', 'loss_chunk', 'fully_sharded.gin'):
    assert remedy in text


@pytest.mark.parametrize(
  'topology, message',
  [('v5e:3x3x3', 'cannot be compiled'), ('v9:2x2', "choose one of .'v4'")],
)
def test_rejects_unknown_topologies(topology, message):
  with pytest.raises(ValueError, match=f"--topology='{topology}'.*{message}"):
    estimate_steps.make_mesh(topology, 1, 1)


def run_command(*arguments):
  return subprocess.run(
    [sys.executable, '-m', 'salt_t5x.estimate', *arguments],
    env=os.environ | {'TPU_SKIP_MDS_QUERY': '1'},
    capture_output=True,
    text=True,
    check=False,
  )


def test_compiler_options_keep_numbers_and_texts(capsys):
  flag = '--compiler_option='
  values = ['a=1', 'b=-1.0', 'c=True', '--d=x=y']
  args = command.parse_flags(['estimate', *[flag + v for v in values]])
  assert args.compiler_option == [
    *[('a', 1), ('b', -1.0), ('c', 'True'), ('d', 'x=y')]
  ]
  with pytest.raises(SystemExit):
    command.parse_flags(['estimate', f'{flag}a'])
  assert "'a': write NAME=VALUE" in capsys.readouterr().err


def test_needs_gin_files():
  args = command.parse_flags(['estimate'])
  with pytest.raises(SystemExit, match='--gin_file'):
    command.main(args)


@pytest.mark.parametrize('text, expected', [('a=1', 1), ('--a=-1.5', -1.5)])
def test_compiler_options_are_numbers_where_possible(text, expected):
  args = command.parse_flags(['estimate', f'--compiler_option={text}'])
  assert args.compiler_option == [('a', expected)]


def test_rejects_batches_that_the_chips_cannot_share(monkeypatch):
  mesh = jax.sharding.AbstractMesh((4, 1), ('data', 'model'))
  monkeypatch.setattr(estimate_steps, 'make_mesh', lambda *_: mesh)
  data = types.SimpleNamespace(
    pack=False, task_feature_lengths={'targets': 8}, batch_size=6
  )
  args = command.parse_flags(['estimate', '--topology=v5e:2x2'])
  with pytest.raises(ValueError, match='BATCH_SIZE = 6 is not a multiple'):
    command.train(None, data, partitioning.PjitPartitioner(1), args)


needs_compiler = pytest.mark.skipif(
  not HAS_COMPILER, reason='libtpu, the TPU compiler, is not installed'
)


@needs_compiler
def test_partitions_must_divide_the_chips():
  with pytest.raises(ValueError, match='num_partitions = 3 .* does not divide'):
    estimate_steps.make_mesh('v5e:2x2', 1, 3)


@needs_compiler
@pytest.mark.parametrize('slices, partitions', [(1, 2), (1, 4), (2, 8)])
def test_partitions_may_cut_across_the_torus(slices, partitions):
  mesh = estimate_steps.make_mesh('v5e:4x4', slices, partitions)
  chips = 16 * slices
  assert mesh.shape == {'data': chips // partitions, 'model': partitions}


@needs_compiler
@pytest.mark.parametrize('rules', ['standard', 'fully sharded'])
def test_steps_compile_for_a_tpu(rules):
  mesh = estimate_steps.make_mesh('v5e:2x2', 1, 2)
  if rules == 'standard':
    rules = partitioning.standard_logical_axis_rules()
  else:
    rules = sharding.fully_sharded_rules()
  partitioner = partitioning.PjitPartitioner(
    num_partitions=1, logical_axis_rules=rules
  )
  shape = (tiny.BATCH, tiny.LENGTH)
  features = {
    name: jax.ShapeDtypeStruct(shape, dtype)
    for name, dtype in (
      ('decoder_input_tokens', jnp.int32),
      ('decoder_target_tokens', jnp.int32),
      ('decoder_loss_weights', jnp.float32),
    )
  }
  options = dict(
    total_steps=10,
    schedule=schedules.step(0.5, 5),
    # There is no such checkpoint, and none is needed.
    teacher=teacher_lib.Teacher(tiny.make_teacher_model(), 'nowhere'),
    num_microbatches=None,
    learning_rate_fn=lambda step: 0.1,
  )
  found = estimate_steps.estimate(
    tiny.make_model(), options, partitioner, mesh, features, 'v5e:2x2', {}
  )
  assert list(found) == ['plain step', 'KD step', estimate_steps.TEACHER]
  plain, kd, teacher = found.values()
  assert all(e.fits and e.estimated_seconds > 0 for e in found.values())
  # The KD step is a plain step and the teacher's forward pass.
  assert kd.matrix_flops == plain.matrix_flops + teacher.matrix_flops
  assert kd.argument_bytes == plain.argument_bytes | teacher.argument_bytes
  assert sum(plain.communicated_bytes.values()) > 0


@needs_compiler
def test_the_command_estimates_a_recipe(tmp_path):
  done = run_command(
    '--topology=v5e:2x2',
    '--gin_file=salt_t5x/gin/recipes/2p8b_from_1p5b.gin',
    '--gin_file=salt_t5x/gin/layouts/fully_sharded.gin',
    '--gin.NUM_MODEL_PARTITIONS=2',
    '--gin.BATCH_SIZE=4',
    "--gin.TASK_FEATURE_LENGTHS={'targets': 64}",
    '--gin.VOCAB_SIZE=512',
    '--gin.size_2p8b/network.TransformerConfig.num_layers=2',
    '--gin.size_1p5b/network.TransformerConfig.num_layers=2',
    f'--output={tmp_path / "found.json"}',
  )
  assert done.returncode == 0, done.stderr[-3000:]
  assert 'KD step / plain step' in done.stdout
  assert (tmp_path / 'found.json').exists()
