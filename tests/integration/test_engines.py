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

"""The two engines compute the same run, and each goes on with the other's.

Only where the real t5x is importable. pytest's header names its commit.
"""

import concurrent.futures
import math

import jax
import numpy as np
import pytest

from t5x import models as t5x_models
from t5x import trainer as t5x_trainer
import tiny
import tiny_runs

pytestmark = pytest.mark.skipif(
  not tiny_runs.REAL_T5X,
  reason='the real t5x is not importable (see docs/engines.md)',
)

STEPS, KD_STEPS = 20, 10
STOPS = 5, 15  # In the middle of each stage.


def train(model_dirs, teacher):
  """Trains the recipe in each directory, or goes on with what is there."""
  results = []
  for model_dir in model_dirs:
    run = tiny_runs.train(
      model_dir,
      [tiny_runs.RECIPE],
      f'TEACHER_PATH = {teacher!r}',
      f'TRAIN_STEPS = {STEPS}',
      f'KD_STEPS = {KD_STEPS}',
    )
    evaluated = tiny_runs.scalars(model_dir, 'training_eval/chain')
    results.append([run.rows, run.scalars, evaluated])
  return results


def call_train(engine_name, model_dirs, teacher):
  results = tiny_runs.call(
    'test_engines.train',
    [str(d) for d in model_dirs],
    teacher,
    engine_name=engine_name,
  )
  # JSON has turned the steps into strings.
  number = lambda found: {
    name: {int(step): v for step, v in points.items()}
    for name, points in found.items()
  }
  return [(rows, number(a), number(b)) for rows, a, b in results]


def in_parallel(function, arguments):
  with concurrent.futures.ThreadPoolExecutor() as pool:
    return list(pool.map(lambda a: function(*a), arguments))


@pytest.fixture(scope='module')
def unbroken(chain, teacher_dir, tmp_path_factory):
  """{engine: (model directory, (rows, scalars, evaluation scalars))}."""
  del chain
  directory = tmp_path_factory.mktemp('engines')
  names = ('t5x', 'embedded')
  done = in_parallel(
    call_train, [(n, [directory / n], teacher_dir) for n in names]
  )
  return {n: (directory / n, run) for n, [run] in zip(names, done, strict=True)}


def assert_close(found, expected, first_step=0):
  """Compares {metric: {step: value}} from a step on, to 1e-5 relative."""
  assert expected['loss']
  for name, points in expected.items():
    points = {k: v for k, v in points.items() if k > first_step}
    others = found.get(name, {})
    assert list(others) == list(points), name
    np.testing.assert_allclose(
      list(others.values()), list(points.values()), rtol=1e-5, err_msg=name
    )


def without_t5x_only(scalars):
  # t5x also logs the rate of the last microbatch.
  return {k: v for k, v in scalars.items() if k != 'learning_rate/current'}


def test_same_losses_and_rows(unbroken):
  rows, scalars, evaluated = unbroken['t5x'][1]
  other_rows, other_scalars, other_evaluated = unbroken['embedded'][1]
  assert rows == other_rows and len(rows) == STEPS
  assert len(scalars['loss']) == STEPS
  assert len(scalars['salt/teacher_cross_entropy']) == KD_STEPS
  assert_close(other_scalars, without_t5x_only(scalars))
  assert_close(other_evaluated, evaluated)
  assert set(scalars) == {*other_scalars, 'learning_rate/current'}


@pytest.mark.parametrize(
  'writer, reader', [('t5x', 'embedded'), ('embedded', 't5x')]
)
def test_each_resumes_the_other(
  writer, reader, unbroken, teacher_dir, tmp_path
):
  written, (rows, scalars, evaluated) = unbroken[writer]
  for step in STOPS:
    tiny_runs.copy_up_to(step, written, tmp_path / str(step))
  resumed = call_train(reader, [tmp_path / str(s) for s in STOPS], teacher_dir)
  for step, (new_rows, new_scalars, new_evaluated) in zip(
    STOPS, resumed, strict=True
  ):
    assert new_rows == rows[step:]
    assert_close(new_scalars, without_t5x_only(scalars), step)
    last = {k: {STEPS: v[STEPS]} for k, v in evaluated.items()}
    assert_close({k: {STEPS: v[STEPS]} for k, v in new_evaluated.items()}, last)


def test_optimizers_of_t5x_train_at_the_trainers_rate(chain, tmp_path):
  del chain
  losses = []
  for peak in (0.01, 0.05):
    run = tiny_runs.train(
      tmp_path / str(peak),
      [
        'salt_t5x/gin/students/tiny.gin',
        'salt_t5x/gin/runs/baseline.gin',
        tiny_runs.CHAIN,
      ],
      'from __gin__ import dynamic_registration',
      'from t5x import optimizers',
      'import optax',
      'OPTIMIZER = @optimizers.adamw()',
      'optimizers.adamw.learning_rate = @optax.warmup_cosine_decay_schedule()',
      f'PEAK_LEARNING_RATE = {peak}',
      'TRAIN_STEPS = 3',
    )
    losses.append(run.scalars['loss'])
  # The first update is at learning rate 0.
  assert losses[0][2] == losses[1][2]
  assert losses[0][3] != losses[1][3]


def test_decoder_only_of_t5x_teaches(tmp_path):
  """A stock t5x model, trained by stock t5x, with dropout and no record."""
  from t5x.examples.decoder_only import network  # pylint: disable=g-import-not-at-top

  module = network.DecoderWrapper(
    network.TransformerConfig(
      vocab_size=tiny.VOCAB_SIZE,
      emb_dim=16,
      num_heads=2,
      num_layers=1,
      head_dim=8,
      mlp_dim=32,
    )
  )
  stock = t5x_models.DecoderOnlyModel(
    module=module,
    vocabulary=tiny.vocabulary(),
    optimizer_def=tiny.optimizer(),
  )
  trainer = tiny.make_trainer(
    stock, summary_dir=str(tmp_path), cls=t5x_trainer.Trainer
  )
  trainer.train(tiny.batches(), 60, 0).result()
  tiny.save_checkpoint(str(tmp_path), trainer)
  trained = trainer.train_state.params

  student = tiny.make_trainer(
    **tiny.distilling(str(tmp_path), kd_steps=3, model=stock)
  )
  data = list(zip(range(4), tiny.batches(), strict=False))
  seen = tiny.summaries(student, 4, batch_iter=(batch for _, batch in data))
  for s, (_, batch) in zip(seen[:3], data, strict=False):
    # The teacher that was trained, and without its dropout.
    logits = module.apply(
      {'params': trained},
      batch['decoder_input_tokens'],
      batch['decoder_target_tokens'],
      enable_dropout=False,
    )
    log_p = jax.nn.log_softmax(logits)
    targets = batch['decoder_target_tokens'][..., None]
    expected = -np.mean(np.take_along_axis(np.array(log_p), targets, -1))
    assert expected < math.log(tiny.VOCAB_SIZE) - 0.5
    np.testing.assert_allclose(
      s['salt/teacher_cross_entropy'], expected, rtol=1e-5
    )
    mix = (
      0.333 * s['salt/cross_entropy']
      + 0.667 * s['salt/distillation_cross_entropy']
    )
    np.testing.assert_allclose(
      s['loss_per_nonpadding_target_token'], mix, rtol=1e-5
    )
  assert 'salt/teacher_cross_entropy' not in seen[3]
