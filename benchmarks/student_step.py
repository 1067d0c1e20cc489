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

"""A training step of the student's network against t5x's example network.

Both train by next-token prediction with Adafactor, at equal sizes, in float32;
t5x's is `t5x.examples.decoder_only` with its model and dense loss, so the real
t5x must be importable. It compiles each layer; ours are measured so and, as the
presets have it, scanned. Prints a table and writes one JSON: the time of a
step, the ratio in one run, and XLA's temporary memory.

    python benchmarks/student_step.py --output=student_step.json
"""

import dataclasses
import statistics

from absl import app, flags
import jax
import jax.numpy as jnp
import measure
import seqio

from salt_t5x import engine, models, network
from t5x import adafactor, train_state
from t5x import models as t5x_models

_ROUNDS = flags.DEFINE_integer('rounds', 5, 'Rounds; the median counts.')
_OUTPUT = flags.DEFINE_string('output', None, 'JSON file to write.')

# {name: ((B, T), size)}.
_SHAPES = {
  # About the size of `make salt`.
  'D = 128, V = 4,096': (
    (4, 256),
    dict(
      vocab_size=4096,
      num_layers=4,
      emb_dim=128,
      mlp_dim=272,
      num_heads=4,
      head_dim=32,
    ),
  ),
  'D = 512, V = 32,128': (
    (2, 512),
    dict(
      vocab_size=32_128,
      num_layers=6,
      emb_dim=512,
      mlp_dim=2048,
      num_heads=8,
      head_dim=64,
    ),
  ),
  'D = 512, V = 256,000': (
    (1, 512),
    dict(
      vocab_size=256_000,
      num_layers=4,
      emb_dim=512,
      mlp_dim=2048,
      num_heads=4,
      head_dim=128,
    ),
  ),
}


def _models(size: dict[str, int]) -> dict[str, t5x_models.DecoderOnlyModel]:
  from t5x.examples.decoder_only import network as example

  common = dict(dtype='float32', mlp_activations=('gelu', 'linear'))
  ours = network.TransformerConfig(
    num_kv_heads=size['num_heads'],
    remat_policy='none',
    scan_layers=False,
    **common,
    **size,
  )
  scanned = dataclasses.replace(ours, scan_layers=True)
  theirs = example.TransformerConfig(
    dropout_rate=0.0, logits_via_embedding=True, **common, **size
  )
  options = dict(
    vocabulary=seqio.PassThroughVocabulary(size['vocab_size']),
    optimizer_def=adafactor.Adafactor(
      decay_rate=0.8,
      step_offset=0,
      logical_factor_rules=adafactor.standard_logical_factor_rules(),
    ),
  )
  return {
    **{
      name: models.SaltDecoderOnlyModel(
        module=network.Transformer(config), **options
      )
      for name, config in (('salt_t5x', ours), ('scanned', scanned))
    },
    't5x': t5x_models.DecoderOnlyModel(
      module=example.DecoderWrapper(theirs), **options
    ),
  }


def _program(model, batch):
  """(one training step, compiled; a call of it that keeps its state)."""
  shapes = {name: x.shape for name, x in batch.items()}
  variables = jax.jit(
    lambda key: model.get_initial_variables(
      key, shapes, {name: x.dtype for name, x in batch.items()}
    )
  )(jax.random.key(0))
  state = train_state.FlaxOptimTrainState.create(model.optimizer_def, variables)

  def step(state, batch):
    loss = lambda params: model.loss_fn(params, batch, None)[0]
    value, gradients = jax.value_and_grad(loss)(state.params)
    return state.apply_gradient(gradients, learning_rate=1e-3), value

  program = jax.jit(step, donate_argnums=0).lower(state, batch).compile()

  def call():
    nonlocal state
    state, value = program(state, batch)
    return value

  return program, call


def _measure(shape: tuple[int, int], size: dict[str, int]) -> dict[str, float]:
  targets = jax.random.randint(
    jax.random.key(1), shape, 3, size['vocab_size'], jnp.int32
  )
  batch = {
    'decoder_input_tokens': jnp.pad(targets[:, :-1], ((0, 0), (1, 0))),
    'decoder_target_tokens': targets,
    'decoder_loss_weights': jnp.ones(shape),
  }
  programs = {
    name: _program(model, batch) for name, model in _models(size).items()
  }
  seconds = measure.seconds_in_turn(
    {name: call for name, (_, call) in programs.items()}, _ROUNDS.value
  )
  result = {'batch': shape[0], 'length': shape[1], **size}
  for name, (program, _) in programs.items():
    memory = program.memory_analysis()
    result[f'{name}_seconds'] = statistics.median(seconds[name])
    result[f'{name}_temporary_bytes'] = memory.temp_size_in_bytes
  for name in ('salt_t5x', 'scanned'):
    result[f'{name}_ratio'] = measure.ratio(seconds[name], seconds['t5x'])
  return result


def main(argv):
  del argv
  if engine.current() != engine.T5X:
    raise app.UsageError('This takes the real t5x: put it on PYTHONPATH.')
  rows = {name: _measure(*shape) for name, shape in _SHAPES.items()}
  print(
    '| network | t5x, s | salt_t5x, s | ratio | scanned, s | ratio | t5x, GiB '
    '| salt_t5x, GiB | scanned, GiB |\n|---|---|---|---|---|---|---|---|---|'
  )
  for name, row in rows.items():
    gib = lambda key, row=row: f'{row[f"{key}_temporary_bytes"] / 2**30:.2f}'
    print(
      f'| {name} | {row["t5x_seconds"]:.2f} | {row["salt_t5x_seconds"]:.2f} '
      f'| {row["salt_t5x_ratio"]:.2f} | {row["scanned_seconds"]:.2f} '
      f'| {row["scanned_ratio"]:.2f} | {gib("t5x")} | {gib("salt_t5x")} '
      f'| {gib("scanned")} |'
    )
  measure.write(_OUTPUT.value, {'networks': rows})


if __name__ == '__main__':
  app.run(main)
