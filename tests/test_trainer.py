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

"""The two stages: what each computes, what it holds, and the errors before."""

import concurrent.futures
import gc
import math
import os
import threading

from etils import epath
import jax
import numpy as np
import optax
import pytest

from salt_t5x import schedules
from salt_t5x import teacher as teacher_lib
from salt_t5x import trainer as trainer_lib
from salt_t5x.checkpoints import find, run_record
from salt_t5x.data import vocabularies
from salt_t5x.runs import settings
from t5x import adafactor
from t5x import trainer as t5x_trainer
import tiny


def plain_trainer(trainer, model=None):
  """A stock t5x trainer that goes on from a trainer's present state."""
  state = jax.tree.map(
    lambda x: jax.device_put(np.array(x), x.sharding), trainer.train_state
  )
  return tiny.make_trainer(
    model=model or trainer._model, train_state=state, cls=t5x_trainer.Trainer
  )


def test_second_stage_is_bitwise_stock_t5x(teacher_dir):
  trainer = tiny.make_trainer(**tiny.distilling(teacher_dir, kd_steps=5))
  data = tiny.batches()
  trainer.compile_train(next(tiny.batches()))
  tiny.summaries(trainer, 5, batch_iter=data)
  stock = plain_trainer(trainer)
  assert type(stock) is t5x_trainer.Trainer
  ours = tiny.losses(trainer, 4, start=5)
  theirs = tiny.losses(stock, 4, start=5)
  assert ours == theirs
  tiny.assert_equal(trainer.train_state, stock.train_state)


def test_first_stage_differs_from_plain_training(teacher_dir):
  trainer = tiny.make_trainer(**tiny.distilling(teacher_dir, kd_steps=5))
  plain = tiny.make_trainer()
  ours, theirs = tiny.losses(trainer, 6), tiny.losses(plain, 6)
  assert all(a != b for a, b in zip(ours, theirs, strict=True))


def test_the_second_step_compiles_while_the_first_stage_trains(
  teacher_dir, monkeypatch
):
  go_on, compile_now = threading.Event(), trainer_lib._compile

  def compile_later(lowered):
    go_on.wait(60)
    return compile_now(lowered)

  monkeypatch.setattr(trainer_lib, '_compile', compile_later)
  trainer = tiny.make_trainer(**tiny.distilling(teacher_dir, kd_steps=3))
  trainer.compile_train(next(tiny.batches()))
  # With the other step held back, the first stage trains to its end.
  tiny.summaries(trainer, 3)
  assert not trainer._plain_step.done()
  assert trainer._compiled_train_step is None
  go_on.set()
  compiled, _ = trainer._plain_step.result()
  tiny.summaries(trainer, 2, start=3)
  assert trainer._compiled_train_step is compiled


def test_an_error_of_the_second_step_shows_in_the_first_stage(
  teacher_dir, monkeypatch
):
  def refuse(lowered):
    raise MemoryError('no room for the plain step')

  monkeypatch.setattr(trainer_lib, '_compile', refuse)
  trainer = tiny.make_trainer(**tiny.distilling(teacher_dir, kd_steps=50))
  trainer.compile_train(next(tiny.batches()))
  concurrent.futures.wait([trainer._plain_step])
  with pytest.raises(MemoryError, match='no room for the plain step'):
    tiny.summaries(trainer, 1)


def test_loss_is_the_mix_of_its_parts(teacher_dir):
  trainer = tiny.make_trainer(
    tiny.make_model(z_loss=0.01),
    **tiny.distilling(teacher_dir, kd_steps=3, weight=0.3),
  )
  for s in tiny.summaries(trainer, 3):
    per_token = s['loss_per_nonpadding_target_token']
    z_loss = s['z_loss'] / (tiny.BATCH * tiny.LENGTH)
    mix = (
      0.7 * s['salt/cross_entropy'] + 0.3 * s['salt/distillation_cross_entropy']
    )
    np.testing.assert_allclose(per_token, mix + z_loss, rtol=1e-5)
    np.testing.assert_allclose(s['salt/distillation_weight'], 0.3, rtol=1e-6)
    assert s['log_perplexity'] == s['salt/cross_entropy']
    assert s['salt/teacher_entropy'] <= s['salt/distillation_cross_entropy']
    assert s['salt/teacher_cross_entropy'] < math.log(tiny.VOCAB_SIZE) - 0.5
    assert 0 <= s['salt/agreement'] <= 1


def test_weight_zero_trains_like_baseline_without_a_teacher():
  trainer = tiny.make_trainer(schedule=schedules.step(0.0, 5))
  plain = tiny.make_trainer(cls=t5x_trainer.Trainer)
  assert tiny.losses(trainer, 4) == tiny.losses(plain, 4)


def test_switch_may_fall_inside_a_call(teacher_dir):
  by_one = tiny.make_trainer(**tiny.distilling(teacher_dir, kd_steps=5))
  at_once = tiny.make_trainer(**tiny.distilling(teacher_dir, kd_steps=5))
  tiny.summaries(by_one, 8)
  tiny.summaries(at_once, 8, per_call=8)
  tiny.assert_equal(by_one.train_state, at_once.train_state)


def test_no_steps_change_nothing(teacher_dir):
  """t5x trains for 0 steps where a checkpoint is at an inner loop's end."""
  trainer = tiny.make_trainer(**tiny.distilling(teacher_dir, kd_steps=2))
  trainer.train(tiny.batches(), 1, 0).result()
  before = jax.tree.map(np.asarray, trainer.train_state)
  assert trainer.train(iter(()), 0, 1).result() == {}
  jax.tree.map(np.testing.assert_array_equal, before, trainer.train_state)


def test_teacher_is_freed_at_kd_steps(teacher_dir):
  others = jax.live_arrays()  # held here, so that no other array gets their id
  trainer = tiny.make_trainer(**tiny.distilling(teacher_dir, kd_steps=2))
  data = tiny.batches()
  trainer.compile_train(next(tiny.batches()))
  arrays = jax.tree.leaves(trainer._teacher_params)
  trainer.train(data, 1, 0).result()
  assert not any(a.is_deleted() for a in arrays)
  trainer.train(data, 1, 1).result()
  assert all(a.is_deleted() for a in arrays)
  assert trainer._teacher_params is None
  shapes = {a.shape for a in arrays} - {
    a.shape for a in jax.tree.leaves(trainer.train_state)
  }
  assert shapes, 'the teacher has shapes of its own'
  gc.collect()
  known = {id(a) for a in others}
  alive = [a for a in jax.live_arrays() if id(a) not in known]
  assert not shapes & {a.shape for a in alive}


def test_linear_decay_distils_until_weight_is_zero(teacher_dir):
  options = tiny.distilling(teacher_dir)
  options['schedule'] = schedules.linear_decay(0.8, 1, 5)
  trainer = tiny.make_trainer(**options)
  seen = [s.get('salt/distillation_weight') for s in tiny.summaries(trainer, 7)]
  np.testing.assert_allclose(seen[:5], [0.8, 0.8, 0.6, 0.4, 0.2], rtol=1e-5)
  assert seen[5:] == [None, None]


def test_rkd_distils_throughout(teacher_dir):
  options = tiny.distilling(teacher_dir, total_steps=4)
  options['schedule'] = schedules.constant(1.0)
  trainer = tiny.make_trainer(**options)
  trainer.compile_train(next(tiny.batches()))
  assert trainer._compiled_train_step is None, 'no second stage to compile'
  seen = [s['salt/distillation_weight'] for s in tiny.summaries(trainer, 4)]
  assert seen == [1.0] * 4
  assert trainer._teacher_params is not None


@pytest.mark.parametrize('num_microbatches', [4])
def test_microbatches_change_nothing(teacher_dir, num_microbatches):
  padded = tiny.rows()[: 4 * tiny.BATCH].copy()
  padded[::3, 7:] = 0
  data = [tiny.batch_of(b) for b in np.split(padded, 4)]
  whole = tiny.make_trainer(**tiny.distilling(teacher_dir, kd_steps=3))
  split = tiny.make_trainer(
    num_microbatches=num_microbatches,
    **tiny.distilling(teacher_dir, kd_steps=3),
  )
  a = tiny.summaries(whole, 4, batch_iter=iter(data))
  b = tiny.summaries(split, 4, batch_iter=iter(data))
  for one, other in zip(a, b, strict=True):
    for name in one:
      if not name.startswith('timing'):
        np.testing.assert_allclose(
          one[name], other[name], rtol=2e-4, err_msg=name
        )


def test_packed_rows_give_the_sums_of_single_ones(teacher_dir):
  """Sums over tokens do not know about packing."""
  data = tiny.rows()[:8]
  one = tiny.batch_of(np.concatenate([data[:4], data[4:]]))
  packed = {k: np.concatenate([v[:4], v[4:]], axis=1) for k, v in one.items()}
  ones = np.ones((4, tiny.LENGTH), np.int32)
  packed['decoder_segment_ids'] = np.concatenate([ones, 2 * ones], axis=1)
  packed['decoder_positions'] = np.tile(np.arange(tiny.LENGTH), (4, 2))
  model, teacher = tiny.make_model(), tiny.make_teacher_model()
  init = lambda m, seed: m.get_initial_variables(
    jax.random.PRNGKey(seed),
    {'decoder_input_tokens': (8, tiny.LENGTH)},
    {'decoder_input_tokens': np.int32},
  )['params']
  params, teacher_params = init(model, 0), init(teacher, 1)

  @jax.jit
  def loss(batch):
    return model.distillation_loss_fn(
      params,
      batch,
      None,
      teacher_model=teacher,
      teacher_params=teacher_params,
      distillation_weight=0.667,
      teacher_temperature=0.25,
      top_k=None,
    )

  (a, metrics_a), (b, metrics_b) = loss(one), loss(packed)
  np.testing.assert_allclose(a, b, rtol=1e-5)
  for name in ('accuracy', 'log_perplexity', 'salt/agreement'):
    np.testing.assert_allclose(
      metrics_a[name].compute(), metrics_b[name].compute(), rtol=1e-5
    )


def test_any_module_that_returns_logits_teaches(teacher_dir, tmp_path):
  """Hidden states and embedding are a short cut, not a condition."""
  model = tiny.make_teacher_model()
  model.module = tiny.LogitsOnly(model.module.config)
  trainer = tiny.make_trainer(model, summary_dir=str(tmp_path), total_steps=40)
  trainer.train(tiny.batches(), 40, 0).result()
  tiny.save_checkpoint(str(tmp_path), trainer)
  student = tiny.make_trainer(
    **tiny.distilling(str(tmp_path), kd_steps=3, model=model)
  )
  for s in tiny.summaries(student, 3):
    assert s['salt/teacher_cross_entropy'] < math.log(tiny.VOCAB_SIZE) - 0.5


def test_top_k_distils_another_loss(teacher_dir):
  full = tiny.make_trainer(**tiny.distilling(teacher_dir))
  top = tiny.make_trainer(**tiny.distilling(teacher_dir, top_k=4))
  everything = tiny.make_trainer(
    **tiny.distilling(teacher_dir, top_k=tiny.VOCAB_SIZE)
  )
  a, b, c = (tiny.losses(t, 2) for t in (full, top, everything))
  assert a[0] != b[0]
  np.testing.assert_allclose(a, c, rtol=1e-4)


def test_resume_past_kd_steps_needs_no_teacher(teacher_dir):
  trainer = tiny.make_trainer(**tiny.distilling(teacher_dir, kd_steps=2))
  tiny.losses(trainer, 3)
  resumed = tiny.make_trainer(
    trainer._model,
    train_state=trainer.train_state,
    **tiny.distilling('/no/such/teacher', kd_steps=2),
  )
  resumed.compile_train(next(tiny.batches()))
  assert resumed._teacher_params is None
  assert len(tiny.losses(resumed, 2, start=3)) == 2


@pytest.mark.parametrize('kd_steps', [2, 3, 5])
def test_a_run_that_begins_later_cannot_distil(teacher_dir, tmp_path, kd_steps):
  """From another run's checkpoint: it would distil less, or not at all."""
  other = tiny.make_trainer(cls=t5x_trainer.Trainer)
  other.train(tiny.batches(), 3, 0).result()
  options = dict(summary_dir=str(tmp_path), train_state=other.train_state)
  distilling = tiny.distilling(teacher_dir, kd_steps=kd_steps)
  with pytest.raises(
    ValueError, match=f'begins at step 3, .* n_KD = {kd_steps}'
  ):
    tiny.make_trainer(other._model, **options, **distilling)
  assert not list(tmp_path.iterdir())
  tiny.make_trainer(other._model, **options)


def test_run_at_step_0_reads_from_the_beginning(tmp_path):
  """t5x saves the first checkpoint with one batch already read."""

  class Data:
    def __init__(self):
      self.reset()
      next(self)

    def __iter__(self):
      return self

    def __next__(self):
      return next(self._it)

    def reset(self):
      self._it = tiny.batches()

  fresh = tiny.make_trainer(summary_dir=str(tmp_path))
  expected = tiny.losses(tiny.make_trainer(), 2)
  assert tiny.losses(fresh, 2, batch_iter=Data()) == expected
  # Later in the run the iterator is where it was saved, and is left alone.
  later = tiny.make_trainer(
    fresh._model, summary_dir=str(tmp_path), train_state=fresh.train_state
  )
  assert int(later.train_state.step) == 2
  data = Data()
  later.train(data, 1, 2).result()
  assert tiny.row_ids(next(data))[0] == 2 * tiny.BATCH


def test_run_that_starts_later_keeps_its_place(tmp_path):
  """From another run's checkpoint, the data is where that one left it."""
  stock = tiny.make_trainer(cls=t5x_trainer.Trainer)
  stock.train(tiny.batches(), 2, 0).result()
  tiny.save_checkpoint(str(tmp_path), stock)
  trainer = tiny.make_trainer(
    stock._model, summary_dir=str(tmp_path), train_state=stock.train_state
  )

  class Data:
    def __init__(self):
      self._batches = tiny.batches(2 * tiny.BATCH)

    def reset(self):
      raise AssertionError('reset')

    def __next__(self):
      return next(self._batches)

  trainer.train(Data(), 1, 2).result()


def test_record(teacher_dir, tmp_path):
  tiny.make_trainer(summary_dir=str(tmp_path), **tiny.distilling(teacher_dir))
  checkpoint = f'{teacher_dir}/checkpoint_60'
  rate = 'learning_rate_fn (PEAK_LEARNING_RATE) at step'
  assert run_record.read(str(tmp_path)) == run_record.RunRecord(
    vocabulary=vocabularies.fingerprint(tiny.vocabulary()),
    vocab_size=tiny.VOCAB_SIZE,
    kd_steps=5,
    teacher=checkpoint,
    teacher_identity=find.identity(epath.Path(checkpoint)),
    schedule='step(0.667, 5)',
    teacher_temperature=0.25,
    network={
      'class': 'Transformer',
      'inputs_bidirectional_attention': False,
      'emb_dim': 16,
      'num_heads': 2,
      'num_kv_heads': 1,
      'head_dim': 8,
      'mlp_dim': 32,
      'num_layers': 2,
      'mlp_activations': ['gelu', 'linear'],
      'max_wavelength': 10000,
    },
    optimization={
      'TRAIN_STEPS': 100,
      'models.SaltDecoderOnlyModel.z_loss (Z_LOSS)': 0.0,
      'models.SaltDecoderOnlyModel.loss_normalizing_factor': 'None',
      **{f'{rate} {100 * i // 8}': 0.05 for i in range(9)},
      **settings.describe_optimizer(tiny.optimizer()),
    },
  )
  (tmp_path / 'checkpoint_0').mkdir()  # It has begun.
  with pytest.raises(ValueError, match='MODEL_DIR.*another vocabulary'):
    tiny.make_trainer(
      tiny.make_model(tiny.vocabulary(31)), summary_dir=str(tmp_path)
    )


def resume(path, rate=0.01, steps=8, warmup=2, **options):
  """A run whose learning rate follows a cosine, as the recipes' does."""
  learning_rate_fn = optax.warmup_cosine_decay_schedule(
    0.0, rate, warmup, steps, 0.001
  )
  return tiny.make_trainer(
    tiny.make_model(**options),
    summary_dir=str(path),
    total_steps=steps,
    learning_rate_fn=learning_rate_fn,
  )


@pytest.mark.parametrize(
  'changes, listed',
  [
    # The cosine of a longer run lifts the learning rate again.
    ({'steps': 16}, 'TRAIN_STEPS = 16, and was 8'),
    ({'steps': 16}, '(PEAK_LEARNING_RATE) at step 8 = '),
    ({'rate': 0.02}, '(PEAK_LEARNING_RATE) at step 2 = 0.02, and was 0.01'),
    ({'warmup': 1}, '(PEAK_LEARNING_RATE) at step 1 = 0.01, and was 0.005'),
    ({'z_loss': 0.1}, '(Z_LOSS) = 0.1, and was 0.0'),
    (
      {'loss_normalizing_factor': 96.0},
      "loss_normalizing_factor = '96.0', and was 'None'",
    ),
    (
      {'mlp_activations': ('relu', 'linear')},
      "mlp_activations = ['relu', 'linear'], and was ['gelu', 'linear']",
    ),
    ({'max_wavelength': 9}, 'max_wavelength = 9, and was 10000'),
    (
      {'inputs_bidirectional_attention': True},
      'models.SaltDecoderOnlyModel.inputs_bidirectional_attention = True, and '
      'was False',
    ),
  ],
)
def test_resume_names_what_changes_the_rest_of_the_run(
  tmp_path, changes, listed
):
  resume(tmp_path)
  (tmp_path / 'checkpoint_0').mkdir()  # It has begun.
  resume(tmp_path)
  with pytest.raises(ValueError) as e:
    resume(tmp_path, **changes)
  message = str(e.value)
  assert listed in message and f'MODEL_DIR = {str(tmp_path)!r}' in message
  assert 'ALLOW_CHANGES_ON_RESUME = True' in message


@pytest.mark.parametrize(
  'name, value, was',
  [
    ('decay_rate', 0.9, 0.8),
    ('clipping_threshold', None, 1.0),
    ('weight_decay_rate', 0.1, None),
    ('step_offset', 5, 0),
  ],
)
def test_resume_names_changes_of_the_optimizer(tmp_path, name, value, was):
  def start(**changes):
    model = tiny.make_model()
    model.optimizer_def = adafactor.Adafactor(
      logical_factor_rules=adafactor.standard_logical_factor_rules(), **changes
    )
    tiny.make_trainer(model, summary_dir=str(tmp_path))

  start()
  (tmp_path / 'checkpoint_0').mkdir()  # It has begun.
  start()
  with pytest.raises(ValueError) as e:
    start(**{name: value})
  assert f'adafactor.Adafactor.{name} = {value}, and was {was}' in str(e.value)


def test_allowed_changes_are_recorded(tmp_path):
  resume(tmp_path)
  (tmp_path / 'checkpoint_0').mkdir()
  options = dict(summary_dir=str(tmp_path), total_steps=16)
  tiny.make_trainer(allow_changes=True, **options)
  tiny.make_trainer(**options)
  found = run_record.read(str(tmp_path)).optimization
  assert found['TRAIN_STEPS'] == 16


def test_resume_distils_from_the_teacher_it_began_with(teacher_dir, tmp_path):
  (tmp_path / 'checkpoint_0').mkdir()
  run_record.write(
    str(tmp_path),
    run_record.RunRecord(
      vocabularies.fingerprint(tiny.vocabulary()),
      tiny.VOCAB_SIZE,
      kd_steps=5,
      teacher=f'{teacher_dir}/checkpoint_30',
      teacher_identity=find.identity(epath.Path(teacher_dir) / 'checkpoint_30'),
      schedule='step(0.667, 5)',
      teacher_temperature=0.25,
    ),
  )
  resumed = tiny.make_trainer(
    summary_dir=str(tmp_path), **tiny.distilling(teacher_dir)
  )
  named = tiny.make_trainer(**tiny.distilling(teacher_dir, step=30))
  newest = tiny.make_trainer(**tiny.distilling(teacher_dir))
  a, b, c = (tiny.losses(t, 1) for t in (resumed, named, newest))
  assert a == b != c


def test_metrics_reach_tensorboard(teacher_dir, tmp_path):
  trainer = tiny.make_trainer(
    summary_dir=str(tmp_path), **tiny.distilling(teacher_dir, kd_steps=2)
  )
  tiny.summaries(trainer, 3)
  trainer.close()
  from salt_t5x.studies import curves

  scalars = curves.read_scalars(os.path.join(tmp_path, 'train'))
  assert [s for s, _ in scalars['loss']] == [1, 2, 3]
  weights = dict(scalars['salt/distillation_weight'])
  assert weights[2] == 0.0 and weights[1] == pytest.approx(0.667)
  for name in (
    'salt/cross_entropy',
    'salt/distillation_cross_entropy',
    'salt/teacher_cross_entropy',
    'salt/agreement',
  ):
    assert len(scalars[name]) == 2


# --- Errors, each before anything compiles -----------------------------------


@pytest.mark.parametrize('rho', [0.0, -1.0, math.nan, math.inf])
def test_temperature_out_of_range(teacher_dir, rho):
  with pytest.raises(ValueError, match='teacher_temperature = .*positive'):
    tiny.make_trainer(**tiny.distilling(teacher_dir, teacher_temperature=rho))


@pytest.mark.parametrize('k', [0, tiny.VOCAB_SIZE + 1])
def test_top_k_out_of_range(teacher_dir, k):
  with pytest.raises(ValueError, match=f'top_k = {k} '):
    tiny.make_trainer(**tiny.distilling(teacher_dir, top_k=k))


def test_schedule_past_the_run(teacher_dir):
  with pytest.raises(ValueError, match=r'schedules.step.kd_steps = 9 .* = 8'):
    tiny.make_trainer(**tiny.distilling(teacher_dir, kd_steps=9, total_steps=8))


def test_no_teacher():
  with pytest.raises(ValueError, match='trainer.SaltTrainer.teacher = None'):
    tiny.make_trainer(schedule=schedules.step(0.5, 5))


@pytest.mark.parametrize('path', [None, ''])
def test_no_teacher_path(path):
  with pytest.raises(
    ValueError, match=r'teacher.Teacher.path = .*TEACHER_PATH'
  ):
    tiny.make_trainer(**tiny.distilling(path))


def test_teacher_of_another_vocabulary(teacher_dir):
  with pytest.raises(ValueError, match='another vocabulary'):
    tiny.make_trainer(
      tiny.make_model(tiny.vocabulary(31)), **tiny.distilling(teacher_dir)
    )


def test_teacher_of_another_network(teacher_dir):
  model = tiny.make_teacher_model(mlp_activations=('relu', 'linear'))
  with pytest.raises(
    ValueError,
    match=r"teacher.Teacher.path = .*mlp_activations = \['gelu', 'linear'\]",
  ):
    tiny.make_trainer(**tiny.distilling(teacher_dir, model=model))


def test_teacher_of_another_architecture(teacher_dir, tmp_path):
  # Without a record, as a teacher that salt_t5x did not train.
  os.symlink(f'{teacher_dir}/checkpoint_60', tmp_path / 'checkpoint_60')
  trainer = tiny.make_trainer(
    **tiny.distilling(str(tmp_path), model=tiny.make_teacher_model(mlp_dim=48))
  )
  with pytest.raises(
    ValueError, match=r'teacher.Teacher.model is not the architecture'
  ) as e:
    trainer.compile_train(next(tiny.batches()))
  assert '(in the checkpoint' not in str(e.value)
  assert 'wi_0' in str(e.value) and '32' in str(e.value)


@pytest.mark.parametrize('damage', [lambda x: 0 * x, lambda x: np.nan * x])
def test_teacher_that_knows_nothing(teacher_dir, monkeypatch, damage):
  """Zeros and NaN are found before the first update."""
  load = teacher_lib.Teacher.load

  def damaged(*args):
    params, axes = load(*args)
    return jax.tree.map(damage, params), axes

  monkeypatch.setattr(teacher_lib.Teacher, 'load', damaged)
  trainer = tiny.make_trainer(**tiny.distilling(teacher_dir))
  before = tiny.host_copy(trainer.train_state)
  with pytest.raises(ValueError, match='minimum_gain'):
    trainer.train(tiny.batches(), 1, 0)
  for x, y in zip(
    jax.tree.leaves(before),
    jax.tree.leaves(tiny.host_copy(trainer.train_state)),
    strict=True,
  ):
    np.testing.assert_array_equal(x, y)


def test_untrained_teacher(teacher_dir):
  trainer = tiny.make_trainer(**tiny.distilling(teacher_dir, step=0))
  with pytest.raises(ValueError, match=r'knows nothing has log V'):
    trainer.train(tiny.batches(), 1, 0)


def test_normalizer_that_depends_on_the_microbatch():
  model = tiny.make_model(loss_normalizing_factor='NUM_REAL_TARGET_TOKENS')
  with pytest.raises(ValueError, match='loss_normalizing_factor.*microbatches'):
    tiny.make_trainer(model, num_microbatches=2)


def test_student_with_fewer_rows_than_tokens():
  with pytest.raises(ValueError, match=r'VOCAB_SIZE.* = 30 .* 32 tokens'):
    tiny.make_trainer(tiny.make_model(vocab_size=tiny.VOCAB_SIZE - 2))


@pytest.mark.parametrize('distils', [False, True])
def test_first_batch_without_tokens(teacher_dir, distils):
  options = tiny.distilling(teacher_dir) if distils else {}
  trainer = tiny.make_trainer(**options)
  empty = tiny.batch_of(np.zeros((tiny.BATCH, tiny.LENGTH)))
  with pytest.raises(ValueError, match='MIXTURE_.*no token with a loss weight'):
    trainer.train(iter([empty]), 1, 0)


def test_constant_normalizer_scales_the_loss():
  plain = tiny.make_trainer(tiny.make_model(z_loss=0.1))
  scaled = tiny.make_trainer(
    tiny.make_model(z_loss=0.1, loss_normalizing_factor=96.0)
  )
  a, b = tiny.summaries(plain, 1)[0], tiny.summaries(scaled, 1)[0]
  np.testing.assert_allclose(a['loss'], 96 * b['loss'], rtol=1e-6)
  np.testing.assert_allclose(a['z_loss'], 96 * b['z_loss'], rtol=1e-6)
  assert a['log_perplexity'] == b['log_perplexity']
