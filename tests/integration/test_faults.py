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

"""Faults in whole runs: how they end, and that they can be gone on with.

The real gin files, driven by the engine's own `train`. `kill_and_resume.py`
does the same with processes that are killed anywhere.
"""

import json
import math
import os
import shutil

import jax
import numpy as np
import pytest

from salt_t5x.checkpoints import damage as damage_lib
from salt_t5x.checkpoints import find
from salt_t5x.runs import model_dir as model_dir_lib
from salt_t5x.runs import nonfinite
import tiny
import tiny_runs

STEPS, KD_STEPS, PERIOD = 8, 4, 2


def train(model_dir, teacher, *bindings):
  return tiny_runs.train(
    model_dir,
    [tiny_runs.RECIPE],
    f'TEACHER_PATH = {str(teacher)!r}',
    f'TRAIN_STEPS = {STEPS}',
    f'KD_STEPS = {KD_STEPS}',
    f'CHECKPOINT_PERIOD = {PERIOD}',
    'EVAL_PERIOD = 4',
    *bindings,
  )


@pytest.fixture(scope='module')
def unbroken_dir(tmp_path_factory):
  return tmp_path_factory.mktemp('unbroken') / 'model'


@pytest.fixture(scope='module')
def unbroken(chain, teacher_dir, unbroken_dir):
  del chain
  return train(unbroken_dir, teacher_dir)


@pytest.fixture
def stopped(unbroken, unbroken_dir, tmp_path):
  """A copy of the run as it was after six steps."""
  del unbroken
  model_dir = tmp_path / 'model'
  shutil.copytree(unbroken_dir, model_dir)
  shutil.rmtree(model_dir / f'checkpoint_{STEPS}')
  yield model_dir
  model_dir_lib.release(str(model_dir))


def last_step(model_dir):
  return max(find.finished(str(model_dir)))


def test_resumes_from_the_checkpoint_before_a_damaged_one(
  stopped, unbroken, teacher_dir
):
  for file in (stopped / 'checkpoint_6').rglob('manifest.ocdbt'):
    os.truncate(file, 5)
  resumed = train(stopped, teacher_dir)
  assert resumed.rows == unbroken.rows[4:]
  tiny.assert_equal(resumed.state, unbroken.state)
  assert (stopped / 'damaged_checkpoint_6').is_dir()


@pytest.mark.parametrize(
  'at, binding, parameter, before, now',
  [
    (2, 'KD_STEPS = 5', 'n_KD (KD_STEPS)', KD_STEPS, 5),
    (6, 'KD_STEPS = 5', 'n_KD (KD_STEPS)', KD_STEPS, 5),
    (2, 'BATCH_SIZE = 4', 'BATCH_SIZE', tiny.BATCH, 4),
    (
      2,
      'TEACHER_TEMPERATURE = 1.0',
      'trainer.SaltTrainer.teacher_temperature',
      0.25,
      1.0,
    ),
    (
      2,
      'DISTILLATION_WEIGHT = 0.5',
      'trainer.SaltTrainer.schedule',
      'step(0.667, 4)',
      'step(0.5, 4)',
    ),
    (
      2,
      'trainer.SaltTrainer.top_k = 3',
      'trainer.SaltTrainer.top_k',
      None,
      3,
    ),
  ],
)
def test_a_changed_configuration_is_refused(
  stopped, teacher_dir, at, binding, parameter, before, now
):
  for step in range(at + 1, STEPS):
    shutil.rmtree(stopped / f'checkpoint_{step}', ignore_errors=True)
  with pytest.raises(ValueError) as error:
    train(stopped, teacher_dir, binding)
  assert f'{parameter} = {now!r}, and was {before!r}' in str(error.value)
  # Saved data iterators do not fit another batch size, whoever allows it.
  is_allowed = 'ALLOW_CHANGES_ON_RESUME' in str(error.value)
  assert is_allowed is (parameter != 'BATCH_SIZE')
  assert last_step(stopped) == at


def test_another_teacher_is_refused_and_a_moved_one_is_not(
  stopped, unbroken, teacher_dir, tmp_path
):
  for step in (4, 6):
    shutil.rmtree(stopped / f'checkpoint_{step}')
  other = tmp_path / 'other'
  tiny.train_teacher(str(other), steps=60, period=60)
  with pytest.raises(ValueError, match=r'teacher\.Teacher\.path = .*other/'):
    train(stopped, other)
  moved = tmp_path / 'moved'
  shutil.copytree(teacher_dir, moved)
  resumed = train(stopped, moved)
  assert resumed.rows == unbroken.rows[2:]
  tiny.assert_equal(resumed.state, unbroken.state)


def test_changes_can_be_allowed(stopped, unbroken, teacher_dir, tmp_path):
  """Another teacher, a longer first stage; the record is the new one."""
  for step in (4, 6):
    shutil.rmtree(stopped / f'checkpoint_{step}')
  options = (
    'TEACHER_STEP = 30',
    'KD_STEPS = 6',
    'ALLOW_CHANGES_ON_RESUME = True',
  )
  resumed = train(stopped, teacher_dir, *options)
  assert resumed.rows == unbroken.rows[2:]
  record = json.loads((stopped / 'salt_t5x.json').read_text())
  assert record['kd_steps'] == 6
  assert record['teacher'].endswith('checkpoint_30')
  weights = resumed.scalars['salt/distillation_weight']
  assert weights[6] == 0 and weights[5] == pytest.approx(0.667)


# --- Losses that are not finite ----------------------------------------------


def poisoned(bad):
  """Within it the loss of a step is NaN, once."""
  left = {bad}

  def poison(train_state, batch):
    del batch
    if int(train_state.step) in left:
      left.clear()
      state = train_state.state_dict()
      params = jax.tree.map(lambda x: x * math.nan, state['target'])
      train_state = train_state.restore_state({**state, 'target': params})
    return train_state

  return tiny_runs.observed_steps(poison)


@pytest.mark.parametrize('bad', [KD_STEPS, STEPS - 1])
def test_nan_never_reaches_a_checkpoint(unbroken, teacher_dir, tmp_path, bad):
  """A run that stopped for it goes on from the last good one."""
  model_dir = tmp_path / 'model'
  with (
    poisoned(bad),
    pytest.raises(nonfinite.NonFiniteError, match=f'Step {bad + 1}: the loss'),
  ):
    train(model_dir, teacher_dir)
  assert last_step(model_dir) == bad // PERIOD * PERIOD
  model_dir_lib.release(str(model_dir))
  resumed = train(model_dir, teacher_dir)
  assert resumed.rows == unbroken.rows[bad // PERIOD * PERIOD :]
  tiny.assert_equal(resumed.state, unbroken.state)


def test_skips_bad_batches_if_configured(unbroken, teacher_dir, tmp_path):
  model_dir = tmp_path / 'model'
  bad = 5
  with poisoned(bad):
    run = train(model_dir, teacher_dir, 'MAX_SKIPPED_BATCHES = 1')
  # Every step is a call of t5x's loop here; the batch alone is passed over.
  assert run.rows[: bad + 1] == unbroken.rows[: bad + 1]
  assert run.rows[bad + 1 : bad + 3] == unbroken.rows[bad + 1 :]
  assert len(run.rows) == STEPS + 1 and int(run.state.step) == STEPS
  assert np.isfinite(list(run.scalars['loss'].values())).all()
  assert tiny_runs.scalars(model_dir)['salt/skipped_batches'] == {bad: 1}


# --- The disk ----------------------------------------------------------------

_WITH_A_FULL_DISK = """
import resource, salt_t5x, sys
import orbax.checkpoint as ocp
import test_faults

save = ocp.CheckpointManager.save
def limited_save(self, step, *args, **kwargs):
  if step == 4:
    # As a full disk does, the kernel refuses to write more.
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, resource.RLIM_INFINITY))
  return save(self, step, *args, **kwargs)

ocp.CheckpointManager.save = limited_save
test_faults.train(sys.argv[1], sys.argv[2])
"""


def test_full_disk_ends_the_run_and_keeps_checkpoints(
  unbroken, teacher_dir, tmp_path
):
  model_dir = tmp_path / 'model'
  env = tiny_runs.environment(
    pythonpath=[
      tiny_runs.TESTS,
      tiny_runs.TESTS / 'integration',
      *tiny_runs.real_t5x_path(),
    ]
  )
  done = tiny_runs.python(
    ['-c', _WITH_A_FULL_DISK, str(model_dir), teacher_dir], env
  )
  assert done.returncode not in (0, 75), done.stdout[-3000:]
  assert 'File too large' in done.stderr or 'EFBIG' in done.stderr
  assert last_step(model_dir) == 2
  assert damage_lib.describe(find.finished(str(model_dir))[2]) is None
  resumed = train(model_dir, teacher_dir)
  assert resumed.rows == unbroken.rows[2:]
  tiny.assert_equal(resumed.state, unbroken.state)
