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

"""Model directories: damaged and unfinished checkpoints, and the lock."""

import fcntl
import os
import pathlib
import re
import shutil
import subprocess
import sys

from etils import epath
import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
import tensorflow as tf

from salt_t5x.checkpoints import damage as damage_lib
from salt_t5x.checkpoints import find
from salt_t5x.checkpoints import restore as restore_lib
from salt_t5x.runs import model_dir as model_dir_lib
import tiny


@pytest.fixture(scope='module')
def checkpoint(teacher_dir, tmp_path_factory):
  """A checkpoint with a data iterator."""
  folder = tmp_path_factory.mktemp('whole')
  checkpoint = folder / 'checkpoint_60'
  shutil.copytree(pathlib.Path(teacher_dir) / 'checkpoint_60', checkpoint)
  return checkpoint


@pytest.fixture(scope='module')
def restore():
  """Reads the parameters of a checkpoint."""
  trainer = tiny.make_trainer(tiny.make_teacher_model())
  shapes = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), trainer.train_state.params
  )
  return lambda checkpoint: restore_lib.parameters(
    epath.Path(checkpoint),
    shapes,
    trainer._train_state_axes.params,
    trainer._partitioner.mesh,
    parameter='MODEL',
  )


def test_finds_all_damage_that_matters(checkpoint, restore, tmp_path):
  assert damage_lib.describe(epath.Path(checkpoint)) is None
  expected = restore(checkpoint)
  files = [p.relative_to(checkpoint) for p in checkpoint.rglob('*')]
  files = sorted(f for f in files if (checkpoint / f).is_file())
  found = set()
  for number, file in enumerate(files):
    for kind in ('gone', 'empty', 'half'):
      copy = tmp_path / f'{number}_{kind}' / 'checkpoint_60'
      shutil.copytree(checkpoint, copy)
      if kind == 'gone':
        (copy / file).unlink()
      else:
        length = (copy / file).stat().st_size
        os.truncate(copy / file, 0 if kind == 'empty' else length // 2)
      damage = damage_lib.describe(epath.Path(copy))
      if damage:
        found.add(str(file))
      else:
        jax.tree.map(np.testing.assert_array_equal, restore(copy), expected)
  assert {'state/manifest.ocdbt', 'state/_METADATA'} <= found
  assert any(name.startswith('state/ocdbt.process_0/d/') for name in found)


def test_finds_damage_to_a_data_iterator(checkpoint, tmp_path):
  folder = tmp_path / 'checkpoint_60'
  shutil.copytree(checkpoint, folder)
  (folder / 'dataset').mkdir(exist_ok=True)
  iterator = iter(tf.data.Dataset.range(5))
  prefix = folder / 'dataset/train_ds-000-of-001'
  tf.train.Checkpoint(ds=iterator).write(str(prefix))
  assert damage_lib.describe(epath.Path(folder)) is None
  for name in (f'{prefix}.index', f'{prefix}.data-00000-of-00001'):
    content = pathlib.Path(name).read_bytes()
    for damaged in (None, b'', content[:-20]):
      if damaged is None:
        os.unlink(name)
      else:
        pathlib.Path(name).write_bytes(damaged)
      found = damage_lib.describe(epath.Path(folder))
      assert "'dataset' cannot be read" in found
    pathlib.Path(name).write_bytes(content)


def test_finds_a_missing_share_of_the_data(checkpoint, tmp_path):
  """Each process saves its data iterator in a folder of its own."""
  folder = tmp_path / 'checkpoint_60'
  shutil.copytree(checkpoint, folder)
  iterator = tf.train.Checkpoint(ds=iter(tf.data.Dataset.range(5)))
  for share in range(2):
    place = folder / f'dataset/process_{share}-of-2'
    place.mkdir(parents=True)
    iterator.write(str(place / f'train_ds-00{share}-of-002'))
  assert damage_lib.describe(epath.Path(folder)) is None
  [index] = (folder / 'dataset/process_0-of-2').glob('*.index')
  os.truncate(index, 3)
  assert "'dataset' cannot be read" in damage_lib.describe(epath.Path(folder))
  shutil.rmtree(folder / 'dataset/process_0-of-2')
  assert 'share 0 of 2 is missing' in damage_lib.describe(epath.Path(folder))
  (folder / '_CHECKPOINT_METADATA').write_text(
    '{"item_handlers": {"dataset": "x"}}'
  )
  shutil.rmtree(folder / 'dataset')
  assert "no 'dataset'" in damage_lib.describe(epath.Path(folder))


@pytest.mark.parametrize(
  'error',
  [
    tf.errors.UnavailableError(None, None, '503'),
    PermissionError('denied'),
    ValueError('UNAVAILABLE: Error reading'),
  ],
)
def test_unreachable_storage_is_an_error(model_dir, monkeypatch, error):
  """Otherwise good checkpoints would be renamed."""

  def fail(*args):
    raise error

  monkeypatch.setattr(damage_lib, '_value_ends', fail)
  with pytest.raises(ValueError, match=r'MODEL_DIR = .* cannot be used') as e:
    model_dir_lib.prepare(str(model_dir))
  assert e.value.__cause__ is error
  assert sorted(find.finished(str(model_dir))) == [30, 60]


@pytest.mark.parametrize('is_described', [True, False])
def test_names_the_parameter_of_unreadable_checkpoints(
  checkpoint, monkeypatch, is_described
):
  def fail(*args):
    raise PermissionError('no access')

  monkeypatch.setattr(ocp.PyTreeCheckpointHandler, 'metadata', fail)
  if not is_described:  # A fault that is gone when the damage is sought.
    monkeypatch.setattr(damage_lib, 'describe', lambda _: None)
  message = 'MODEL: .*checkpoint_60 cannot be read: no access. Restore'
  with pytest.raises(ValueError, match=message):
    restore_lib.check_architecture(epath.Path(checkpoint), {}, 'MODEL')


@pytest.fixture
def model_dir(checkpoint, tmp_path):
  """Checkpoints 30, 60 and 90, of which the last was not finished."""
  folder = tmp_path / 'model'
  for step in (30, 60):
    shutil.copytree(checkpoint, folder / f'checkpoint_{step}')
  (folder / 'checkpoint_90.orbax-checkpoint-tmp-1').mkdir()
  yield folder
  model_dir_lib.release(str(folder))


def cut(folder, step):
  os.truncate(folder / f'checkpoint_{step}/state/manifest.ocdbt', 10)


def test_damage_is_found_in_a_folder_whose_name_is_a_pattern(
  model_dir, tmp_path
):
  """Where `glob` matches nothing, all checks of a store's values passed."""
  folder = tmp_path / 'runs[1]'
  shutil.copytree(model_dir, folder)
  assert [x.name for x in find.unfinished(str(folder))] == [
    'checkpoint_90.orbax-checkpoint-tmp-1'
  ]
  copy = epath.Path(folder / 'checkpoint_60')
  assert damage_lib.describe(copy) is None
  values = max(
    (x for x in pathlib.Path(copy, 'state').rglob('d/*') if x.is_file()),
    key=lambda x: x.stat().st_size,
  )
  os.truncate(values, 1000)
  # The largest file holds values alone, or the index as well.
  assert re.match(
    "its 'state' cannot be read|state/.* has 1000 of the",
    damage_lib.describe(copy),
  )


def test_leaves_whole_checkpoints(model_dir, caplog):
  before = sorted(os.listdir(model_dir))
  model_dir_lib.prepare(str(model_dir))
  assert sorted({*os.listdir(model_dir)} - {'in_use'}) == before
  assert 'checkpoint_90.orbax-checkpoint-tmp-1 was never finished' in (
    caplog.text
  )


def test_renames_damaged_checkpoints(model_dir, caplog):
  cut(model_dir, 60)
  model_dir_lib.prepare(str(model_dir))
  assert list(find.finished(str(model_dir))) == [30]
  assert (model_dir / 'damaged_checkpoint_60/state').is_dir()
  assert 'checkpoint_60 is damaged' in caplog.text
  # Other checkpoints of this step are damaged later.
  for i in (1, 2):
    shutil.copytree(model_dir / 'checkpoint_30', model_dir / 'checkpoint_60')
    cut(model_dir, 60)
    model_dir_lib.prepare(str(model_dir))
    assert (model_dir / f'damaged_checkpoint_60.{i}/state').is_dir()


def test_rejects_a_directory_without_whole_checkpoints(model_dir):
  cut(model_dir, 30)
  cut(model_dir, 60)
  for _ in range(2):
    with pytest.raises(ValueError, match='all of its checkpoints are damaged'):
      model_dir_lib.prepare(str(model_dir))
    assert sorted(find.finished(str(model_dir))) == [30, 60]


def test_restarts_if_only_step_0_is_damaged(checkpoint, tmp_path):
  folder = tmp_path / 'model'
  shutil.copytree(checkpoint, folder / 'checkpoint_0')
  cut(folder, 0)
  model_dir_lib.prepare(str(folder))
  assert not find.finished(str(folder))
  model_dir_lib.release(str(folder))


_OTHER_PROCESS = """
import fcntl, sys
file = open(sys.argv[1], 'w')
fcntl.flock(file, fcntl.LOCK_EX)
file.write('process 7 on elsewhere')
file.flush()
print('locked', flush=True)
sys.stdin.read()
"""


def test_rejects_a_directory_in_use(tmp_path):
  """The error names the other process; its end frees the directory."""
  folder = tmp_path / 'model'
  folder.mkdir()
  with subprocess.Popen(
    [sys.executable, '-c', _OTHER_PROCESS, folder / 'in_use'],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
  ) as other:
    assert other.stdout.readline() == b'locked\n'
    with pytest.raises(ValueError) as error:
      model_dir_lib.prepare(str(folder))
    assert f'MODEL_DIR = {str(folder)!r}' in str(error.value)
    assert 'in use by another process' in str(error.value)
    assert 'process 7 on elsewhere' in str(error.value)
    other.kill()
  model_dir_lib.prepare(str(folder))
  model_dir_lib.prepare(str(folder))  # The owner may do so again.
  assert f'process {os.getpid()} on' in (folder / 'in_use').read_text()
  with (folder / 'in_use').open() as file, pytest.raises(BlockingIOError):
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
  model_dir_lib.release(str(folder))
  with (folder / 'in_use').open() as file:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_copies_have_the_same_identity(checkpoint, tmp_path, teacher_dir):
  copy = tmp_path / 'elsewhere'
  shutil.copytree(checkpoint, copy)
  identity = find.identity(epath.Path(checkpoint))
  assert find.identity(epath.Path(copy)) == identity
  other = epath.Path(teacher_dir) / 'checkpoint_30'
  assert find.identity(other) != identity
