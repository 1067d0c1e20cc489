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

"""The chunked losses on a mesh: equal to dense, without gathering V."""

import functools
import math
import re

from flax.linen import partitioning as flax_partitioning
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import runs
from salt_t5x import chunked_losses, losses, sharding
from t5x import partitioning

BATCH, LENGTH, CHUNK, WIDTH, ROWS = 8, 10, 4, 8, 512
DEVICES = 8
# (data, model) of the mesh, and t5x's standard rules or these.
LAYOUTS = [
  *(((n, DEVICES // n), None) for n in (8, 4, 2, 1)),
  ((2, 4), sharding.fully_sharded_rules()),
]
COLLECTIVE = re.compile(
  r'= (.*) (all-gather|all-reduce|all-to-all|collective-permute|'
  r'reduce-scatter)(?:-start)?\('
)


def inputs():
  rng = np.random.default_rng(0)
  normal = lambda *shape: rng.normal(size=shape).astype(np.float32)
  return dict(
    student_hidden=normal(BATCH, LENGTH, WIDTH) / 2,
    student_embedding=normal(ROWS, WIDTH),
    teacher_hidden=normal(BATCH, LENGTH, WIDTH) / 2,
    # Fewer rows, which do not divide by the devices.
    teacher_embedding=normal(ROWS - 3, WIDTH),
    targets=rng.integers(0, ROWS - 3, (BATCH, LENGTH)),
    weights=rng.integers(0, 2, (BATCH, LENGTH)).astype(np.float32),
  )


def with_gradients(loss, x):
  def value(hidden, embedding):
    arguments = x | {'student_hidden': hidden, 'student_embedding': embedding}
    sums = loss(**arguments)
    return sums.loss, sums

  return jax.value_and_grad(value, (0, 1), has_aux=True)(
    x['student_hidden'], x['student_embedding']
  )


def collectives(text):
  """[(in a loop, values moved)] of a compiled program."""
  loops = set(re.findall(r'body=%?([\w.-]+)', text))
  found = []
  for computation in re.split(r'\n\n', text):
    name = re.match(r'\s*(?:ENTRY )?%?([\w.-]+)', computation)
    for shapes, _ in COLLECTIVE.findall(computation):
      sizes = [
        math.prod(int(n) for n in dims.split(',') if n)
        for dims in re.findall(r'\[([\d,]*)\]', shapes)
      ]
      found.append((bool(name) and name[1] in loops, sum(sizes)))
  return found


def compare(top_k):
  """For each layout: (greatest relative error, collectives)."""
  x = inputs()
  options = dict(
    distillation_weight=0.667,
    teacher_temperature=0.5,
    top_k=top_k,
    z_loss=0.01,
  )
  dense = functools.partial(losses.distillation_loss, **options)
  expected = jax.jit(functools.partial(with_gradients, dense))(x)
  chunked = functools.partial(
    chunked_losses.distillation_loss, **options, chunk=CHUNK
  )
  results = []
  for shape, rules in LAYOUTS:
    mesh = jax.sharding.Mesh(
      np.array(jax.devices()).reshape(shape), ('data', 'model')
    )
    rules = rules or partitioning.standard_logical_axis_rules()
    with mesh, flax_partitioning.axis_rules(rules):
      run = jax.jit(functools.partial(with_gradients, chunked))
      compiled = run.lower(x).compile()
      found = compiled(x)
    errors = jax.tree.map(
      lambda a, b: float(jnp.max(jnp.abs(a - b)) / jnp.max(jnp.abs(b))),
      found,
      expected,
    )
    results.append(
      [max(jax.tree.leaves(errors)), collectives(compiled.as_text())]
    )
  return results


@pytest.mark.parametrize('top_k', [None, 3])
def test_meshes_change_nothing_and_gather_no_vocabulary(top_k):
  results = runs.call(
    'test_sharded_losses.compare',
    top_k,
    engine_name='embedded',
    XLA_FLAGS=f'--xla_force_host_platform_device_count={DEVICES}',
  )
  assert len(results) == len(LAYOUTS)
  # What may travel in the loop: hidden states and, from every device, its own
  # top k. Neither logits nor gradients of the embedding do.
  tokens = BATCH * CHUNK
  limit = tokens * max(WIDTH, (top_k or 0) * DEVICES)
  assert limit < tokens * ROWS // DEVICES
  assert limit < ROWS * WIDTH
  for error, moved in results:
    assert error < 1e-5
    assert any(in_loop for in_loop, _ in moved)
    assert max(size for in_loop, size in moved if in_loop) <= limit, moved
