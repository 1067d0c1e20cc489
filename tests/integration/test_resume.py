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

"""Stopped at any step and resumed, a run is the run it would have been.

The real gin files, driven by the engine's own `train`.
"""

import hashlib
import shutil

from flax import traverse_util
import gin
import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
import tensorstore

from salt_t5x import teacher as teacher_lib
from t5x import train as t5x_train
from t5x import utils
import tiny
import tiny_runs

STEPS, KD_STEPS = 10, 5  # As in recipe.gin.


def train(model_dir, teacher):
  return tiny_runs.train(
    model_dir, [tiny_runs.RECIPE], f'TEACHER_PATH = {str(teacher)!r}'
  )


@pytest.fixture(scope='module')
def unbroken_dir(tmp_path_factory):
  return tmp_path_factory.mktemp('unbroken') / 'model'


@pytest.fixture(scope='module')
def unbroken(chain, teacher_dir, unbroken_dir):
  del chain
  return train(unbroken_dir, teacher_dir)


def test_unbroken_run(unbroken, unbroken_dir):
  """What the other tests compare with is a run of two stages on real rows."""
  assert len(unbroken.rows) == STEPS
  # Each row is read once: no two steps can be mistaken for each other.
  assert len({i for ids in unbroken.rows for i in ids}) == STEPS * tiny.BATCH
  assert list(unbroken.scalars['loss']) == list(range(1, STEPS + 1))
  weights = unbroken.scalars['salt/distillation_weight']
  assert list(weights) == list(range(1, KD_STEPS + 1))
  assert weights[1] == pytest.approx(0.667) and weights[KD_STEPS] == 0
  evaluated = tiny_runs.scalars(unbroken_dir, 'training_eval/chain')
  assert list(evaluated['accuracy']) == [5, 10]
  assert list(evaluated['log_perplexity']) == [5, 10]


@pytest.mark.parametrize('name', ['runs/a', '~/b#c %41|é'])
def test_a_run_resumes_in_any_folder(chain, tmp_path, monkeypatch, name):
  """Relative, below the home folder, with a URL's and a pattern's signs."""
  del chain
  monkeypatch.chdir(tmp_path)
  monkeypatch.setenv('HOME', str(tmp_path))
  folder = tmp_path / name.removeprefix('~/')

  def short_run():
    return tiny_runs.train(
      name,
      [
        'salt_t5x/gin/students/tiny.gin',
        'salt_t5x/gin/runs/baseline.gin',
        tiny_runs.CHAIN,
      ],
      'TRAIN_STEPS = 2',
      'EVAL_PERIOD = 2',
    )

  unbroken = short_run()
  shutil.rmtree(folder / 'checkpoint_2')
  resumed = short_run()
  assert resumed.rows == unbroken.rows[1:]
  tiny.assert_equal(resumed.state, unbroken.state)
  assert not list(folder.glob('damaged_*'))


def assert_goes_on(resumed, resumed_dir, unbroken, unbroken_dir, step):
  assert resumed.rows == unbroken.rows[step:]
  for name, points in unbroken.scalars.items():
    expected = {k: v for k, v in points.items() if k > step}
    assert resumed.scalars.get(name, {}) == expected, name
  tiny.assert_equal(resumed.state, unbroken.state)
  one, other = (
    tiny_runs.scalars(d, 'training_eval/chain')
    for d in (resumed_dir, unbroken_dir)
  )
  assert {k: v[STEPS] for k, v in one.items()} == {
    k: v[STEPS] for k, v in other.items()
  }


@pytest.mark.parametrize('step', [0, KD_STEPS - 1])
def test_resumed_in_the_first_stage(
  step, unbroken, unbroken_dir, teacher_dir, tmp_path
):
  model_dir = tmp_path / 'model'
  tiny_runs.copy_up_to(step, unbroken_dir, model_dir)
  resumed = train(model_dir, teacher_dir)
  assert_goes_on(resumed, model_dir, unbroken, unbroken_dir, step)


@pytest.mark.parametrize('step', [KD_STEPS, STEPS - 1])
def test_resumed_in_the_second_stage_without_a_teacher(
  step, unbroken, unbroken_dir, tmp_path, monkeypatch
):
  """The teacher's directory is gone, and nothing asks for it."""

  def load(*args):
    raise AssertionError('A teacher was loaded in the second stage.')

  monkeypatch.setattr(teacher_lib.Teacher, 'load', load)
  model_dir = tmp_path / 'model'
  tiny_runs.copy_up_to(step, unbroken_dir, model_dir)
  resumed = train(model_dir, tmp_path / 'gone')
  assert_goes_on(resumed, model_dir, unbroken, unbroken_dir, step)


def test_resumed_in_the_first_stage_without_a_teacher(
  unbroken, unbroken_dir, tmp_path
):
  """The counterpart, which shows that the test above can fail."""
  model_dir = tmp_path / 'model'
  tiny_runs.copy_up_to(KD_STEPS - 1, unbroken_dir, model_dir)
  with pytest.raises(ValueError, match='teacher.Teacher.path'):
    train(model_dir, tmp_path / 'gone')


def test_begun_from_the_checkpoint_of_another_run(
  unbroken, unbroken_dir, tmp_path
):
  """It continues with the other's state and data; it is resumed like any.

  It says that it does not distil: a first stage would have no step.
  """
  begin = KD_STEPS + 1

  def begin_or_go_on(model_dir):
    return tiny_runs.train(
      model_dir,
      [tiny_runs.RECIPE],
      'utils.RestoreCheckpointConfig.path = '
      f'"{unbroken_dir}/checkpoint_{begin}"',
      'utils.RestoreCheckpointConfig.mode = "specific"',
      'DISTILLATION_WEIGHT = 0',
    )

  first = begin_or_go_on(tmp_path / 'first')
  assert_goes_on(first, tmp_path / 'first', unbroken, unbroken_dir, begin)
  step = STEPS - 1
  tiny_runs.copy_up_to(step, tmp_path / 'first', tmp_path / 'second', begin)
  second = begin_or_go_on(tmp_path / 'second')
  assert_goes_on(second, tmp_path / 'second', unbroken, unbroken_dir, step)


def test_checkpoints_hold_the_student_and_nothing_else(
  unbroken, unbroken_dir, chain
):
  del unbroken, chain
  bindings = ['MODEL_DIR = "/no"', 'TEACHER_PATH = "/no"']
  with tiny_runs.configured([tiny_runs.RECIPE], bindings):
    built = gin.get_bindings(t5x_train.train)
  student = built['model']
  shapes = utils.TrainStateInitializer(
    optimizer_def=student.optimizer_def,
    init_fn=student.get_initial_variables,
    input_shapes={'decoder_input_tokens': (tiny.BATCH, tiny.LENGTH)},
    input_types={'decoder_input_tokens': np.int32},
    partitioner=built['partitioner'],
  ).global_train_state_shape
  flatten = lambda tree: traverse_util.flatten_dict(tree, sep='/')
  expected = {
    k: (tuple(v.shape), str(v.dtype))
    for k, v in flatten(shapes.state_dict()).items()
  }
  handler = ocp.PyTreeCheckpointHandler(use_ocdbt=True)
  for step in range(STEPS + 1):
    checkpoint = unbroken_dir / f'checkpoint_{step}'
    items = {p.name for p in checkpoint.iterdir() if p.is_dir()}
    assert items == {'state', 'dataset'}
    found = {
      k: (tuple(v.shape), str(v.dtype))
      for k, v in flatten(handler.metadata(checkpoint / 'state').tree).items()
    }
    assert found == expected
    # And what is on disk is what the metadata lists.
    spec = {'driver': 'ocdbt', 'base': f'file://{checkpoint}/state/'}
    keys = tensorstore.KvStore.open(spec).result().list().result()
    arrays = {k.decode().partition('/')[0] for k in keys}
    assert arrays == {k.replace('/', '.') for k in found}


# --- The teacher's directory -------------------------------------------------


def listing(directory):
  """Everything below a directory: {path: (mode, time, contents)}."""
  found = {}
  for path in [directory, *sorted(directory.rglob('*'))]:
    stat = path.stat()
    data = path.read_bytes() if path.is_file() else b''
    found[str(path.relative_to(directory))] = (
      stat.st_mode,
      stat.st_mtime_ns,
      hashlib.sha256(data).hexdigest(),
    )
  return found


@pytest.fixture
def writing_teacher(teacher_dir, tmp_path):
  """The directory of a teacher that is just saving its next checkpoint."""
  directory = tmp_path / 'teacher'
  shutil.copytree(teacher_dir, directory)
  shutil.copytree(
    directory / 'checkpoint_60/state',
    directory / 'checkpoint_90.orbax-checkpoint-tmp-1234567890/state',
  )
  return directory


def test_restoring_leaves_the_teacher_as_it_is(writing_teacher, teacher_dir):
  """Read-only folders are enough, and a save in progress survives."""
  folders = [writing_teacher, *writing_teacher.rglob('*')]
  folders = [f for f in folders if f.is_dir()]
  for folder in folders:
    folder.chmod(0o555)
  before = listing(writing_teacher)
  try:
    trainer = tiny.make_trainer(
      total_steps=1, **tiny.distilling(str(writing_teacher), kd_steps=1)
    )
    trainer.compile_train(next(tiny.batches()))
    restored = jax.tree.map(np.array, trainer._teacher_params)
    trainer.train(tiny.batches(), 1, 0).result()
    # Root may write anywhere; so look whether anything was written.
    assert listing(writing_teacher) == before
  finally:
    for folder in folders:
      folder.chmod(0o755)
  assert any('checkpoint_90.orbax-checkpoint-tmp' in path for path in before)
  # The newest finished checkpoint was taken.
  teacher = tiny.distilling(teacher_dir, step=60)['teacher']
  newest, _ = teacher.load(
    teacher.find(),
    next(tiny.batches()),
    trainer._partitioner,
  )
  jax.tree.map(np.testing.assert_array_equal, restored, newest)
