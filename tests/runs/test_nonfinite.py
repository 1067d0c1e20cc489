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

"""Non-finite losses, SIGTERM and bad data, as the trainer meets them."""

import math
import os
import signal
import threading
import types
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorflow as tf

from salt_t5x.checkpoints import run_record
from salt_t5x.runs import nonfinite, preemption, resilient_trainer
from salt_t5x.studies import curves
from t5x import trainer as t5x_trainer
import tiny
import tiny_runs


def poisoned(bad, **kwargs):
  """Batches whose loss weights are NaN at some positions in the data."""
  for i, batch in enumerate(tiny.batches(**kwargs)):
    if i in bad:
      batch['decoder_loss_weights'] = np.full_like(
        batch['decoder_loss_weights'], math.nan
      )
    yield batch


@pytest.mark.parametrize('bad', [3, 5])
def test_nan_loss_stops_the_run(teacher_dir, bad):
  """Within the call of `train` that meets it, so before t5x saves."""
  trainer = tiny.make_trainer(**tiny.distilling(teacher_dir, kd_steps=5))
  with pytest.raises(nonfinite.NonFiniteError) as error:
    trainer.train(poisoned({bad}), 10, 0)
  assert f'Step {bad + 1}: the loss is nan' in str(error.value)
  assert 'MAX_SKIPPED_BATCHES' in str(error.value)


def test_infinite_state_stops_the_run():
  """The loss of its step is finite, and the next loss would come too late."""
  trainer = tiny.make_trainer()
  trainer._learning_rate_fn = lambda step: jnp.inf
  with pytest.raises(nonfinite.NonFiniteError, match='Step 1: parameters or'):
    trainer.train(tiny.batches(), 1, 0)


def test_names_a_teacher_that_turns_nan(teacher_dir):
  """After the first batch, on which the teacher is checked."""
  trainer = tiny.make_trainer(**tiny.distilling(teacher_dir, kd_steps=5))
  data = tiny.batches()
  trainer.train(data, 1, 0).result()
  trainer._teacher_params = jax.tree.map(
    lambda x: jax.device_put(jnp.full_like(x, math.nan), x.sharding),
    trainer._teacher_params,
  )
  with pytest.raises(nonfinite.NonFiniteError) as error:
    trainer.train(data, 2, 1)
  assert "Step 2: the teacher's output is NaN" in str(error.value)


def test_the_teacher_is_not_blamed_for_the_z_loss():
  metrics = {
    'loss': math.nan,
    'salt/cross_entropy': 1,
    'salt/teacher_cross_entropy': 1,
  }
  metrics = {k: types.SimpleNamespace(total=v) for k, v in metrics.items()}
  check = nonfinite.LossCheck()
  assert check.problem_after(1, metrics) is None
  assert check.problem_at_end(1, {}) == 'Step 1: the loss is nan'


def test_skips_bad_batches(teacher_dir, tmp_path):
  """Training continues from the start of t5x's loop, with the data after it."""
  bad = 5
  options = tiny.distilling(teacher_dir, kd_steps=6)
  trainer = tiny.make_trainer(
    summary_dir=str(tmp_path), max_skipped_batches=10, **options
  )
  data = poisoned({bad})
  for start in (0, 4):
    trainer.train(data, 4, start).result()
  assert int(trainer.train_state.step) == 8

  # The loop ran steps 0 to 3, 4 to 5 (n_KD), and 6 to 7. The run skips all
  # batches of the second call, up to the bad one.
  begin, drawn = 4, 2
  record = run_record.read(str(tmp_path))
  assert record.skipped_batches == [[begin, drawn]]
  expected = tiny.make_trainer(**options)
  kept = [
    batch
    for i, batch in zip(range(20), tiny.batches(), strict=False)
    if not begin <= i < begin + drawn
  ]
  expected.train(iter(kept), 8, 0).result()
  tiny.assert_equal(trainer.train_state, expected.train_state)
  trainer.close()
  assert tiny_runs.scalars(tmp_path)['salt/skipped_batches'] == {begin: drawn}


def test_bounds_the_number_of_skipped_batches():
  trainer = tiny.make_trainer(max_skipped_batches=5)
  data = poisoned({1, 4, 9})
  trainer.train(data, 2, 0).result()  # Drops 0 and 1.
  with pytest.raises(nonfinite.NonFiniteError) as error:
    trainer.train(data, 4, 2)
  assert 'MAX_SKIPPED_BATCHES = 5 to at least' in str(error.value)


def test_shows_progress_once_it_trains(monkeypatch):
  bars = []
  bar = lambda **options: bars.append(options) or mock.MagicMock()
  monkeypatch.setattr(resilient_trainer.tqdm, 'tqdm', bar)
  trainer = tiny.make_trainer()
  trainer.close()
  assert not bars  # As in `salt_t5x.estimate`.
  trainer = tiny.make_trainer()
  trainer.train(tiny.batches(), 1, 0).result()
  trainer.train(tiny.batches(), 1, 1).result()
  assert [x['initial'] for x in bars] == [0]


def test_rejects_negative_max_skipped_batches():
  with pytest.raises(ValueError, match='max_skipped_batches = -1'):
    tiny.make_trainer(max_skipped_batches=-1)


def test_host_copy_outlives_donation():
  tree = {'a': jnp.arange(6.0).reshape(2, 3), 'b': jnp.int32(4)}
  restore = nonfinite.host_copy(tree)
  jax.tree.map(lambda x: x.delete(), tree)
  restored = restore()
  np.testing.assert_array_equal(restored['a'], np.arange(6.0).reshape(2, 3))
  assert restored['b'] == 4 and restored['b'].dtype == jnp.int32


# --- SIGTERM -----------------------------------------------------------------


def terminated(at):
  """Batches during whose drawing SIGTERM arrives."""
  for i, batch in enumerate(tiny.batches()):
    if i == at:
      os.kill(os.getpid(), signal.SIGTERM)
    yield batch


@pytest.mark.parametrize('at', [0, 4, 5])
def test_sigterm_publishes_the_state_after_the_step(teacher_dir, tmp_path, at):
  before = signal.getsignal(signal.SIGTERM)
  options = tiny.distilling(teacher_dir, kd_steps=5)
  trainer = tiny.make_trainer(summary_dir=str(tmp_path), **options)
  with pytest.raises(preemption.Preempted) as error:
    trainer.train(terminated(at), 10, 0)
  assert isinstance(error.value, t5x_trainer.PreemptionError)
  assert error.value.code == preemption.EXIT_CODE == 75
  assert int(trainer.train_state.step) == at + 1
  expected = tiny.make_trainer(**options)
  expected.train(tiny.batches(), at + 1, 0).result()
  tiny.assert_equal(trainer.train_state, expected.train_state)
  # The metrics since the last summary are on disk already.
  assert at + 1 in tiny_runs.scalars(tmp_path)['loss']
  expected.close()
  trainer.close()
  assert signal.getsignal(signal.SIGTERM) == before


def test_sigterm_in_a_bad_step():
  """The run skips the bad batch and stops after the first good step."""
  expected = tiny.make_trainer()
  expected.train(tiny.batches(), 2, 0).result()
  expected.train(tiny.batches(3 * tiny.BATCH), 1, 2).result()
  expected.close()
  trainer = tiny.make_trainer(max_skipped_batches=10)
  data = tiny.batches()
  trainer.train(data, 2, 0).result()

  def bad_then_good():
    batch = next(data)
    batch['decoder_loss_weights'] = batch['decoder_loss_weights'] * math.nan
    os.kill(os.getpid(), signal.SIGTERM)
    yield batch
    yield from data

  with pytest.raises(preemption.Preempted):
    trainer.train(bad_then_good(), 5, 2)
  assert int(trainer.train_state.step) == 3
  tiny.assert_equal(trainer.train_state, expected.train_state)
  trainer.close()


def test_sigterm_in_the_last_step_does_not_stop_the_run():
  trainer = tiny.make_trainer(total_steps=3)
  trainer.train(terminated(2), 3, 0).result()
  assert int(trainer.train_state.step) == 3
  trainer.close()


def test_threads_do_not_handle_sigterm():
  before = signal.getsignal(signal.SIGTERM)
  made = []
  thread = threading.Thread(target=lambda: made.append(preemption.Stop()))
  thread.start()
  thread.join()
  assert signal.getsignal(signal.SIGTERM) == before
  assert not made[0].requested(1)


# --- Data --------------------------------------------------------------------


def test_names_unreadable_data():
  def data():
    yield from (b for _, b in zip(range(2), tiny.batches(), strict=False))
    raise tf.errors.DataLossError(None, None, 'x.tfrecord: truncated')

  trainer = tiny.make_trainer()
  with pytest.raises(OSError, match='x.tfrecord.*Restore it and start'):
    trainer.train(data(), 5, 0)


def test_names_data_that_end_early():
  trainer = tiny.make_trainer()
  data = [b for _, b in zip(range(2), tiny.batches(), strict=False)]
  with pytest.raises(ValueError, match='ended before TRAIN_STEPS = 100'):
    trainer.train(iter(data), 5, 0)


def test_curves_omit_half_written_events(tmp_path):
  trainer = tiny.make_trainer(summary_dir=str(tmp_path))
  data = tiny.batches()
  for step in range(3):
    trainer.train(data, 1, step).result()
  trainer.close()
  expected = curves.read_scalars(str(tmp_path / 'train'))
  [path] = (tmp_path / 'train').glob('events.*')
  os.truncate(path, path.stat().st_size - 5)
  found = curves.read_scalars(str(tmp_path / 'train'))
  missing = [
    (name, point)
    for name, points in expected.items()
    for point in points
    if point not in found.get(name, [])
  ]
  assert len(missing) == 1
