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

"""The number of devices, and how the teacher lies on them, change nothing."""

import concurrent.futures
import functools

import jax
import numpy as np
import pytest

from salt_t5x.kernels import sharding
from t5x import partitioning
import tiny
import tiny_runs

# Eight heads, so that up to eight devices can share each kernel.
STUDENT = dict(num_heads=8, num_kv_heads=1, head_dim=4)
TEACHER = dict(emb_dim=8, num_heads=8, num_kv_heads=8, head_dim=4)
STEPS = 3


def train(teacher_dir, num_partitions):
  """Trains on all devices of this process.

  Args:
    teacher_dir: of a teacher of size TEACHER.
    num_partitions: devices that share a model.

  Returns:
    (size of the mesh's two axes, teacher arrays that are cut into pieces,
    metrics of each step).
  """
  trainer = tiny.make_trainer(
    tiny.make_model(**STUDENT),
    num_partitions=num_partitions,
    # Nothing but the first stage: the second is stock t5x's.
    total_steps=STEPS,
    **tiny.distilling(
      teacher_dir, kd_steps=STEPS, model=tiny.make_model(**TEACHER)
    ),
  )
  trainer.compile_train(next(tiny.batches()))
  cut = [
    jax.tree_util.keystr(path)
    for path, x in jax.tree_util.tree_leaves_with_path(trainer._teacher_params)
    if not x.sharding.is_fully_replicated
  ]
  summaries = [
    {k: float(v) for k, v in s.items() if not k.startswith('timing/')}
    for s in tiny.summaries(trainer, STEPS)
  ]
  mesh = trainer._partitioner.mesh
  return [mesh.shape['data'], mesh.shape['model'], cut, summaries]


def train_each(teacher_dir, partitions):
  return [train(teacher_dir, n) for n in partitions]


def train_fully_sharded(teacher_dir, num_partitions):
  """`train`, laid out as gin/layouts/fully_sharded.gin says."""
  rules = sharding.fully_sharded_rules()
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(
      partitioning,
      'PjitPartitioner',
      functools.partial(partitioning.PjitPartitioner, logical_axis_rules=rules),
    )
    return train(teacher_dir, num_partitions)


# (engine, devices, num_partitions to try, the meshes' model axes). t5x makes
# all local CPU devices share one model, whatever num_partitions.
CASES = [
  ('embedded', 1, [1], [1]),
  ('embedded', 2, [1], [1]),
  ('embedded', 8, [2], [2]),
]
if tiny_runs.REAL_T5X:
  CASES += [('t5x', n, [1], [n]) for n in (1, 2, 4, 8)]


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
  """The model directory of a teacher of size TEACHER."""
  teacher_dir = str(tmp_path_factory.mktemp('teacher'))
  tiny.train_teacher(teacher_dir, steps=60, period=60, **TEACHER)
  return teacher_dir


@pytest.fixture(scope='module')
def results(trained):
  """{(engine, devices): what `train_each` returned}."""

  def run(case):
    engine_name, devices, partitions, _ = case
    return tiny_runs.call(
      'test_devices.train_each',
      trained,
      partitions,
      engine_name=engine_name,
      XLA_FLAGS=f'--xla_force_host_platform_device_count={devices}',
    )

  with concurrent.futures.ThreadPoolExecutor(2) as pool:
    done = pool.map(run, CASES)
    return {c[:2]: r for c, r in zip(CASES, done, strict=True)}


@pytest.mark.parametrize('engine_name, devices, partitions, models', CASES)
def test_devices_change_nothing(
  engine_name, devices, partitions, models, results
):
  expected = results['embedded', 1][0][-1]
  assert len(expected) == STEPS
  assert {'loss', 'salt/teacher_cross_entropy'} < set(expected[-1])
  found = results[engine_name, devices]
  assert len(found) == len(partitions)
  for (data, model, cut, summaries), size in zip(found, models, strict=True):
    assert (data, model) == (devices // size, size)
    # Every kernel and the embedding are in pieces, or nothing is.
    kernels = ('embedding', 'query', 'key', 'value', 'out', 'wi_0', 'wo')
    for name in kernels:
      assert any(name in path for path in cut) == (model > 1), name
    for step, (one, other) in enumerate(zip(summaries, expected, strict=True)):
      for metric in other:
        np.testing.assert_allclose(
          one[metric], other[metric], rtol=1e-5, err_msg=f'{metric} {step}'
        )


@pytest.mark.parametrize(
  'engine_name, partitions, mesh',
  [('embedded', 4, (2, 4))] + [('t5x', 1, (1, 8))] * tiny_runs.REAL_T5X,
)
def test_fully_sharded_changes_nothing(
  engine_name, partitions, mesh, trained, results
):
  data, model, cut, summaries = tiny_runs.call(
    'test_devices.train_fully_sharded',
    trained,
    partitions,
    engine_name=engine_name,
    XLA_FLAGS='--xla_force_host_platform_device_count=8',
  )
  assert (data, model) == mesh
  assert any('embedding' in path for path in cut)
  assert any('wi_0' in path for path in cut) == (data > 1)
  expected = results['embedded', 1][0][-1]
  for one, other in zip(summaries, expected, strict=True):
    for metric in other:
      np.testing.assert_allclose(
        one[metric], other[metric], rtol=1e-5, err_msg=metric
      )
