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

from salt_t5x import losses
from salt_t5x.kernels import chunked_losses, sharding
from t5x import partitioning
import tiny_runs

BATCH, LENGTH, CHUNK, WIDTH, ROWS = 16, 10, 4, 8, 512
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


def inputs(kind, dtype):
  rng = np.random.default_rng(0)
  normal = lambda *shape: jnp.asarray(rng.normal(size=shape), dtype)
  x = dict(
    student_hidden=normal(BATCH, LENGTH, WIDTH) / 2,
    student_embedding=normal(ROWS, WIDTH).astype(np.float32),
    targets=rng.integers(0, ROWS - 3, (BATCH, LENGTH)),
    # As packing and padding leave them: some positions do not count.
    weights=(rng.random((BATCH, LENGTH)) < 0.6).astype(np.float32),
  )
  if kind != 'next token':
    x |= dict(
      teacher_hidden=normal(BATCH, LENGTH, WIDTH) / 2,
      # Fewer rows, which do not divide by the devices.
      teacher_embedding=normal(ROWS - 3, WIDTH),
    )
  return x


def loss_of(kind, module, **more):
  if kind == 'next token':
    return functools.partial(module.next_token_loss, z_loss=0.01, **more)
  return functools.partial(
    module.distillation_loss,
    distillation_weight=0.667,
    teacher_temperature=0.5,
    top_k=3 if kind == 'top k' else None,
    z_loss=0.01,
    **more,
  )


def with_gradients(loss, x):
  def value(hidden, embedding):
    arguments = x | {'student_hidden': hidden, 'student_embedding': embedding}
    sums = loss(**arguments)
    return sums.loss, sums

  (_, sums), gradients = jax.value_and_grad(value, (0, 1), has_aux=True)(
    x['student_hidden'], x['student_embedding']
  )
  return sums, gradients


def by_microbatches(count, loss, x):
  """`with_gradients`, summed over a scan of microbatches as trainers do."""
  is_head = lambda name: name.endswith('embedding')
  rows = {
    k: v.reshape(count, -1, *v.shape[1:])
    for k, v in x.items()
    if not is_head(k)
  }
  heads = {k: v for k, v in x.items() if is_head(k)}

  def add(total, part):
    sums, (d_hidden, d_embedding) = with_gradients(loss, heads | part)
    return jax.tree.map(jnp.add, total, (sums, d_embedding)), d_hidden

  zeros = lambda x: jnp.zeros(x.shape, x.dtype)
  shapes = jax.eval_shape(lambda x: with_gradients(loss, x), x)
  first = jax.tree.map(zeros, (shapes[0], shapes[1][1]))
  (sums, d_embedding), d_hidden = jax.lax.scan(add, first, rows)
  return sums, (d_hidden.reshape(x['student_hidden'].shape), d_embedding)


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


def errors(found, expected):
  """[(dtype, greatest error beside the greatest value)] of all arrays."""

  def error(a, b):
    b = b.astype(np.float32)
    return float(jnp.max(jnp.abs(a - b)) / jnp.max(jnp.abs(b)))

  return [
    (str(a.dtype), error(a, b))
    for a, b in zip(
      jax.tree.leaves(found), jax.tree.leaves(expected), strict=True
    )
  ]


def compare():
  """For each of CASES, what `compare_one` finds."""
  return [compare_one(*case) for case in CASES]


def compare_one(kind, dtype, microbatches, layouts):
  """For each layout: (errors of the sums, of the gradients, collectives)."""
  x = inputs(kind, dtype)
  expected = jax.jit(functools.partial(with_gradients, loss_of(kind, losses)))(
    x
  )
  chunked = loss_of(kind, chunked_losses, chunk=CHUNK)
  run = functools.partial(with_gradients, chunked)
  if microbatches > 1:
    run = functools.partial(by_microbatches, microbatches, chunked)
  results = []
  for shape, rules in layouts:
    mesh = jax.sharding.Mesh(
      np.array(jax.devices()).reshape(shape), ('data', 'model')
    )
    rules = rules or partitioning.standard_logical_axis_rules()
    with mesh, flax_partitioning.axis_rules(rules):
      # Not `run` itself, whose trace for the last mesh jax.jit remembers.
      compiled = jax.jit(lambda x: run(x)).lower(x).compile()
      found = compiled(x)
    results.append(
      [
        *(errors(*pair) for pair in zip(found, expected, strict=True)),
        collectives(compiled.as_text()),
      ]
    )
  return results


# (loss, dtype, microbatches, layouts).
CASES = [
  ('next token', 'float32', 1, LAYOUTS),
  ('full', 'float32', 1, LAYOUTS),
  ('top k', 'float32', 1, LAYOUTS),
  ('full', 'float32', 2, LAYOUTS[-1:]),
  ('next token', 'bfloat16', 2, LAYOUTS[-1:]),
  ('full', 'bfloat16', 2, LAYOUTS[2:3]),
  ('top k', 'bfloat16', 1, LAYOUTS[-1:]),
]


def test_meshes_change_nothing_and_gather_no_vocabulary():
  results = tiny_runs.call(
    'test_sharded_losses.compare',
    engine_name='embedded',
    XLA_FLAGS=f'--xla_force_host_platform_device_count={DEVICES}',
    # What travels is read from the programs that users would run.
    JAX_DISABLE_MOST_OPTIMIZATIONS='0',
  )
  for (*case, layouts), by_layout in zip(CASES, results, strict=True):
    assert len(by_layout) == len(layouts)
    for result in by_layout:
      check(*case, *result)


def check(kind, dtype, microbatches, of_sums, of_gradients, moved):
  assert max(error for _, error in of_sums) < 1e-5
  # The gradients' dtypes are those of what they are by.
  assert [x for x, _ in of_gradients] == [dtype, 'float32']
  tolerance = 1e-5 if dtype == 'float32' else 2**-7
  assert max(error for _, error in of_gradients) < tolerance
  # What may travel in the loop: hidden states and, from every device, its own
  # top k. Neither logits nor gradients of the embedding do.
  tokens = BATCH * CHUNK
  limit = tokens * max(WIDTH, 3 * DEVICES if kind == 'top k' else 0)
  assert limit < tokens * ROWS // DEVICES
  assert limit < ROWS * WIDTH
  in_loops = [size for in_loop, size in moved if in_loop]
  assert in_loops
  if microbatches == 1:  # Microbatches are a loop, too.
    assert max(in_loops) <= limit, moved
