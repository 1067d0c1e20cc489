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

"""Finding, checking and restoring a teacher."""

import dataclasses
import math
import os
import shutil

from etils import epath
import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
import seqio

from salt_t5x import teacher as teacher_lib
from salt_t5x.checkpoints import run_record
from salt_t5x.data import vocabularies
from t5x import partitioning
import tiny


def steps_of(path, step=None):
  return teacher_lib.Teacher(None, path, step).find().name


def test_newest_or_named_checkpoint(teacher_dir):
  assert steps_of(teacher_dir) == 'checkpoint_60'
  assert steps_of(teacher_dir, 30) == 'checkpoint_30'
  assert steps_of(f'{teacher_dir}/checkpoint_0') == 'checkpoint_0'
  assert steps_of(f'{teacher_dir}/checkpoint_30', 30) == 'checkpoint_30'


def test_relative_path(teacher_dir, monkeypatch):
  monkeypatch.chdir(os.path.dirname(teacher_dir))
  found = teacher_lib.Teacher(None, os.path.basename(teacher_dir) + '/').find()
  assert os.fspath(found) == f'{teacher_dir}/checkpoint_60'


def test_resumed_run_keeps_its_teacher(teacher_dir):
  """A teacher that is still training has newer checkpoints by then."""
  teacher = teacher_lib.Teacher(tiny.make_teacher_model(), teacher_dir)
  began_with = f'{teacher_dir}/checkpoint_30'
  assert os.fspath(teacher.find_for_run(began_with)) == began_with
  # Asked for by name, another one it is.
  asked = dataclasses.replace(teacher, step=0)
  assert asked.find_for_run(began_with).name == 'checkpoint_0'
  elsewhere = '/other/teacher/checkpoint_30'
  assert teacher.find_for_run(elsewhere).name == 'checkpoint_60'
  with pytest.raises(ValueError, match='no such checkpoint'):
    teacher.find_for_run(f'{teacher_dir}/checkpoint_45')


def test_dtype_of_the_parameters():
  with pytest.raises(ValueError, match=r"teacher.Teacher.dtype = 'bf16'"):
    teacher_lib.Teacher(None, None, dtype='bf16')


def test_ignores_unfinished_checkpoints(teacher_dir, tmp_path):
  copy = shutil.copytree(teacher_dir, tmp_path / 'teacher')
  os.rename(
    copy / 'checkpoint_60', copy / 'checkpoint_60.orbax-checkpoint-tmp-1'
  )
  assert steps_of(str(copy)) == 'checkpoint_30'


@pytest.mark.parametrize(
  'path, step, message',
  [
    (None, None, 'TEACHER_PATH'),
    ('/no/such/place', None, 'no such directory'),
    # With the library's reason.
    ('nosuch://bucket/a', None, "cannot be reached .*scheme 'nosuch' not"),
    ('{dir}', 31, r'only the steps \[0, 30, 60\]'),
    ('{dir}/checkpoint_30', 60, 'names step 30'),
    ('{dir}/checkpoint_31', None, 'no such directory'),
    ('{dir}/train', None, 'no finished checkpoint'),
  ],
)
def test_rejects_missing_checkpoints(teacher_dir, path, step, message):
  os.makedirs(f'{teacher_dir}/train', exist_ok=True)
  path = path and path.format(dir=teacher_dir)
  with pytest.raises(ValueError, match=message):
    steps_of(path, step)


@pytest.mark.parametrize('form', ['as saved', 'a folder for each array'])
def test_rejects_checkpoints_of_another_step_than_their_name(
  teacher_dir, tmp_path, form
):
  source = epath.Path(teacher_dir) / 'checkpoint_60/state'
  state = tmp_path / 'checkpoint_30/state'
  if form == 'as saved':
    shutil.copytree(source, state)
  else:
    with ocp.PyTreeCheckpointer(use_ocdbt=False) as checkpointer:
      checkpointer.save(state, checkpointer.restore(source))
  message = r'teacher.Teacher.path: .*/checkpoint_30 holds the state of step 60'
  with pytest.raises(ValueError, match=message):
    steps_of(str(tmp_path))
  # Under its own name, and without a step, as other programs may write it.
  os.rename(tmp_path / 'checkpoint_30', tmp_path / 'checkpoint_60')
  assert steps_of(str(tmp_path)) == 'checkpoint_60'
  with ocp.PyTreeCheckpointer(use_ocdbt=form == 'as saved') as checkpointer:
    target = checkpointer.restore(source)['target']
    checkpointer.save(tmp_path / 'checkpoint_90/state', {'target': target})
  assert steps_of(str(tmp_path)) == 'checkpoint_90'


def test_rejects_legacy_checkpoints(tmp_path):
  os.makedirs(tmp_path / 'checkpoint_5')
  with pytest.raises(ValueError, match='not an Orbax checkpoint'):
    steps_of(str(tmp_path))


def load(teacher_dir, **options):
  teacher = teacher_lib.Teacher(
    **(dict(model=tiny.make_teacher_model(), path=teacher_dir) | options)
  )
  return teacher.load(
    teacher.find(),
    next(tiny.batches()),
    partitioning.PjitPartitioner(num_partitions=1),
  )


def test_restores_saved_parameters(teacher_dir, tmp_path):
  trainer = tiny.make_trainer(
    tiny.make_teacher_model(), summary_dir=str(tmp_path)
  )
  trainer.train(tiny.batches(), 3, 0).result()
  tiny.save_checkpoint(str(tmp_path), trainer)
  params, axes = load(str(tmp_path))
  expected = trainer.train_state.state_dict()['target']
  assert jax.tree.structure(params) == jax.tree.structure(expected)
  for a, b in zip(
    jax.tree.leaves(params), jax.tree.leaves(expected), strict=True
  ):
    np.testing.assert_array_equal(a, b)
  assert set(axes) == set(params)


def test_restores_in_bfloat16(teacher_dir):
  exact, _ = load(teacher_dir)
  params, _ = load(teacher_dir, dtype='bfloat16')
  for a, b in zip(jax.tree.leaves(exact), jax.tree.leaves(params), strict=True):
    assert b.dtype == jax.numpy.bfloat16
    np.testing.assert_allclose(a, b.astype(np.float32), rtol=1e-2)


def test_vocabulary_of_the_teacher(teacher_dir, tmp_path, caplog):
  model = tiny.make_teacher_model()
  check = lambda path, x: teacher_lib.Teacher(model, path).check_record(x)
  check(teacher_dir, tiny.vocabulary())
  check(f'{teacher_dir}/checkpoint_60', tiny.vocabulary())
  with pytest.raises(ValueError, match=r'32 tokens.*31 tokens'):
    check(f'{teacher_dir}/checkpoint_60', tiny.vocabulary(31))
  # A teacher from elsewhere has no record: said, not refused.
  check(str(tmp_path), tiny.vocabulary())


@pytest.mark.parametrize(
  'name, value, was',
  [
    ('mlp_activations', ('relu',), "['gelu', 'linear']"),
    ('max_wavelength', 9, 10000),
  ],
)
def test_network_of_the_teacher(teacher_dir, name, value, was):
  """Its parameters fit, but it would compute something else."""
  model = tiny.make_teacher_model(**{name: value})
  with pytest.raises(ValueError) as e:
    teacher_lib.Teacher(model, teacher_dir).check_record(tiny.vocabulary())
  message = str(e.value)
  assert (
    f'teacher.Teacher.path = {teacher_dir!r}: it was trained with' in message
  )
  assert f'network.TransformerConfig.{name} = {was}' in message


def test_attention_to_inputs_of_the_teacher(teacher_dir):
  model = tiny.make_teacher_model(inputs_bidirectional_attention=True)
  with pytest.raises(
    ValueError,
    match='trained with models.SaltDecoderOnlyModel.inputs_bidirectional_'
    r'attention = False \(and is now True\)',
  ):
    teacher_lib.Teacher(model, teacher_dir).check_record(tiny.vocabulary())


def test_compute_settings_may_differ(teacher_dir):
  model = tiny.make_teacher_model(remat_policy='none', dtype='bfloat16')
  teacher_lib.Teacher(model, teacher_dir).check_record(tiny.vocabulary())


def test_padding_rows_may_differ(teacher_dir):
  """The same tokens, but a student padded to more rows."""
  student = tiny.make_model(vocab_size=tiny.VOCAB_SIZE + 8)
  trainer = tiny.make_trainer(student, **tiny.distilling(teacher_dir))
  assert np.isfinite(tiny.losses(trainer, 2)).all()


def test_teacher_with_fewer_rows_than_tokens(teacher_dir):
  narrow = tiny.make_teacher_model(vocab_size=tiny.VOCAB_SIZE - 2)
  with pytest.raises(ValueError, match=r'30 output rows.*32 tokens'):
    load(teacher_dir, model=narrow)


def test_features_the_teacher_cannot_take(teacher_dir):
  """A prefix-LM teacher needs to know the prefix."""
  model = tiny.make_teacher_model(inputs_bidirectional_attention=True)
  with pytest.raises(ValueError, match='cannot be applied to the features'):
    load(teacher_dir, model=model)


@pytest.mark.parametrize('value', [math.log(32) - 0.49, 9.0, math.nan])
def test_rejects_weak_teachers(value):
  with pytest.raises(
    ValueError, match=r'teacher /a/checkpoint_0 .* log V = 3\.466'
  ):
    teacher_lib.check_cross_entropy(value, 32, 0.5, '/a/checkpoint_0')


def test_accepts_strong_teachers():
  teacher_lib.check_cross_entropy(math.log(32) - 0.51, 32, 0.5, '/a')


def test_rejects_damaged_records(tmp_path):
  record = run_record.RunRecord('a', 3, 36_000, '/a/checkpoint_5')
  run_record.write(str(tmp_path), record)
  assert run_record.read(str(tmp_path)) == record
  path = tmp_path / 'salt_t5x.json'
  for text in ('', '{', '[]', '{"vocabulary": "a"}', 'null'):
    path.write_text(text)
    with pytest.raises(ValueError, match=r'salt_t5x\.json is damaged'):
      run_record.read(str(tmp_path))


def test_fingerprint_knows_the_vocabulary_not_its_file():
  a, b = tiny.vocabulary(), tiny.vocabulary(31)
  assert vocabularies.fingerprint(a) == vocabularies.fingerprint(
    tiny.vocabulary()
  )
  assert vocabularies.fingerprint(a) != vocabularies.fingerprint(b)


@pytest.mark.parametrize('content', [None, b'', b'no model'])
def test_rejects_vocabulary_files(tmp_path, content):
  path = tmp_path / 'vocabulary.model'
  if content is not None:
    path.write_bytes(content)
  with pytest.raises(
    ValueError, match=f'VOCABULARY.*{path.name}.*SentencePiece model'
  ):
    vocabularies.fingerprint(seqio.SentencePieceVocabulary(str(path)))


@pytest.mark.parametrize('file', ['_METADATA', 'manifest.ocdbt'])
def test_rejects_damaged_teachers(teacher_dir, tmp_path, file):
  shutil.copytree(teacher_dir, tmp_path / 'teacher')
  path = tmp_path / 'teacher/checkpoint_60/state' / file
  os.truncate(path, path.stat().st_size // 2)
  with pytest.raises(ValueError, match='checkpoint_60 is damaged'):
    load(str(tmp_path / 'teacher'))
