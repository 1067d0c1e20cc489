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

"""salt_t5x.analyze on tiny models: results, kept completions, errors."""

import hashlib
import json
import os
import pathlib
import shutil
import types

from etils import epath
import numbered_task
import numpy as np
import pytest
import seqio

from salt_t5x import analyze
from salt_t5x.checkpoints import find
from salt_t5x.data import cache_writer
from salt_t5x.inference import sampler
from salt_t5x.theory import deviations, measurement
from salt_t5x.theory import report as theory_report
from t5x import partitioning
import tiny

T = numbered_task.T
TASK = 'analyzed'
SEQUENCES, COMPLETIONS = 3, 4
FIRST = numbered_task.ordered(5)[:SEQUENCES]


@pytest.fixture(scope='module', autouse=True)
def cached_task(tmp_path_factory):
  folder = str(tmp_path_factory.mktemp('cache'))
  seqio.add_global_cache_dirs([folder])
  cache_writer.write(numbered_task.sequences_task(TASK), folder)


def make_model(**overrides):
  return tiny.make_model(
    vocab=numbered_task.VOCABULARY, vocab_size=224, **overrides
  )


SIZES = {
  'student': {},
  'teacher': {'emb_dim': 8, 'num_kv_heads': 2},
  # Reads its inputs in both directions; here it must not.
  'oracle': {'inputs_bidirectional_attention': True},
}


@pytest.fixture(scope='module')
def paths(tmp_path_factory):
  """{role: model directory} of models as initialised."""
  found = {}
  for seed, (role, sizes) in enumerate(SIZES.items()):
    found[role] = str(tmp_path_factory.mktemp(role))
    tiny.save_checkpoint(
      found[role],
      tiny.make_trainer(
        make_model(**sizes), summary_dir=found[role], seed=seed
      ),
    )
  return found


def run(output_dir, paths, **options):
  roles = {
    role: analyze.Model(make_model(**sizes), paths[role])
    for role, sizes in SIZES.items()
  }
  options = (
    roles
    | dict(
      partitioner=partitioning.PjitPartitioner(num_partitions=1),
      output_dir=str(output_dir),
      held_out_task=f'{TASK}_ul2',
      split='validation',
      task_feature_lengths={'targets': T},
      batch_size=5,  # Does not divide the 12 completions of a prefix.
      distillation_weight=0.5,
      teacher_temperature=0.25,
      sequences=SEQUENCES,
      num_completions=COMPLETIONS,
      prefixes=(1, 10, T),
      training_sequences=100,
    )
    | options
  )
  return analyze.analyze(**options)


def read(folder):
  return json.loads((folder / 'theory.json').read_text())


def assert_close(a, b):
  """The same but for rounding: other batches are other programs."""
  for x, y in zip(a['deviations'], b['deviations'], strict=True):
    assert x == pytest.approx(y, rel=1e-3, abs=1e-6)
  assert a['total_variation'] == pytest.approx(b['total_variation'], rel=1e-4)


@pytest.fixture(scope='module')
def first(paths, tmp_path_factory):
  folder = tmp_path_factory.mktemp('first')
  return folder, run(folder, paths)


def test_tables_and_files(first):
  folder, text = first
  found = read(folder)
  # T/8 to T, and the prefixes that fit each.
  assert {(x['length'], x['t']) for x in found['deviations']} == {
    (8, 1), (16, 1), (16, 10), (32, 1), (32, 10), (64, 1), (64, 10), (64, 64)
  }  # fmt: skip
  assert all(x['plug_in_v'] > x['v'] for x in found['deviations'])
  assert 0 < found['total_variation'] < 1
  assert [x['omega'] for x in found['over_omega']] == [
    i / 10 for i in range(11)
  ]
  rows = found['over_omega']
  assert rows[0]['div'] == 0 and rows[-1]['last_v'] == 0
  assert all(row['variance'] > 0 for row in rows)
  assert set(found['losses']) == set(SIZES)
  assert 0 < found['excess_error'] <= found['excess_error_limit'] <= 1
  assert rows[-1]['div'] == pytest.approx(T * found['total_variation'])
  for name in ('theorem_3_2', 'theorem_3_4', 'theorem_b_7'):
    parts = [rows[3][f'{name}_{x}'] for x in ('divergence', 'variance', 'tail')]
    assert rows[3][name] == pytest.approx(sum(parts))
  assert '| 64 |' in text and 'Theorem B.7' in text and '– |' in text
  assert (folder / 'theory.md').read_text().startswith('# The theory')
  assert (folder / 'theory.png').read_bytes()[:4] == b'\x89PNG'


def test_seeds_are_averaged(first):
  found = read(first[0])
  other = json.loads(json.dumps(found))
  other['total_variation'] += 0.2
  assert theory_report.markdown_over_seeds([found]) in first[1]
  text = theory_report.markdown_over_seeds([found, other])
  mean = found['total_variation'] + 0.1
  assert f'D_TV(P_ζ^ρ, D): {mean:.4f} ± 0.1000 (mean over' in text
  assert 'errors over 2 seeds' in text and '± 0.0000 |' in text


def completions_in(folder):
  """{s: [n · n_com, T]}."""
  found = {}
  for path in sorted(folder.glob('completions/*/*.bin')):
    s = int(path.name.split('_')[1])
    found.setdefault(s, []).append(np.fromfile(path, '<i4').reshape(-1, T))
  return {s: np.concatenate(parts) for s, parts in found.items()}


def test_completions_have_their_prefixes(first):
  drawn = completions_in(first[0])
  assert [*drawn, T] == deviations.prefix_lengths([1, 10, T])
  x = np.stack([numbered_task.tokens(n) for n in FIRST])
  x = np.repeat(x, COMPLETIONS, axis=0)
  for s, rows in drawn.items():
    np.testing.assert_array_equal(rows[:, :s], x[:, :s])
    assert rows.min() > 0 and rows.max() < numbered_task.VOCABULARY.vocab_size
    # Each is drawn for itself.
    different = len(np.unique(rows, axis=0))
    if s != T - 1:
      assert different == len(rows)


def test_finds_the_completions_of_earlier_versions(first, paths):
  x = np.arange(12, dtype=np.int32).reshape(3, 4)
  batches = types.SimpleNamespace(batch_size=5, count=lambda _: 1)
  drawn = types.SimpleNamespace(sample=lambda *args: pathlib.Path(args[3]))
  source = ['0123456789abcdef', '/w/oracle/checkpoint_60', 'float32', 7]
  found = measurement.complete(drawn, batches, x, [1], 2, '/w', source)
  for _, path in found:
    assert path.parts[:-1] == ('/', 'w', '46fa935cb8266d3d')
  # The same names, from the arguments of `analyze`.
  [checkpoint] = pathlib.Path(paths['oracle']).glob('checkpoint_*')
  x = np.stack([numbered_task.tokens(n) for n in FIRST])
  identity = [
    find.identity(epath.Path(checkpoint)), str(checkpoint), None,
    hashlib.sha256(x.tobytes()).hexdigest(), COMPLETIONS, 0, 5,
  ]  # fmt: skip
  digest = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]
  assert [p.name for p in first[0].glob('completions/*')] == [digest]


def test_batch_size_does_not_matter(first, paths, tmp_path):
  run(tmp_path, paths, batch_size=12)
  mine, theirs = completions_in(tmp_path), completions_in(first[0])
  for s, rows in theirs.items():
    # A tie may fall otherwise where rounding differs.
    assert np.mean(mine[s] == rows) > 0.99
  assert_close(read(tmp_path), read(first[0]))


def test_reuses_completions(first, paths, monkeypatch):
  folder, text = first
  draws = []
  draw = sampler.Sampler.sample_batch
  monkeypatch.setattr(
    sampler.Sampler,
    'sample_batch',
    lambda self, *arrays: draws.append(1) or draw(self, *arrays),
  )
  assert run(folder, paths) == text and not draws
  # A file that is cut is drawn again, and the same.
  files = sorted(folder.glob('completions/*/*.bin'))
  content = files[2].read_bytes()
  files[2].write_bytes(content[:-4])
  assert run(folder, paths) == text and len(draws) == 1
  assert files[2].read_bytes() == content
  # Another student reads the same completions.
  other = analyze.Model(make_model(), paths['student'], dtype='bfloat16')
  assert run(folder, paths, student=other) != text and len(draws) == 1
  # Another oracle draws others.
  cast = analyze.Model(
    make_model(**SIZES['oracle']), paths['oracle'], dtype='bfloat16'
  )
  run(folder, paths, oracle=cast)
  assert len(draws) == 1 + len(files)


@pytest.mark.parametrize(
  'options, message',
  [
    ({'sequences': 6}, r'\(SEQUENCES\) = 6: the validation split .* has 5'),
    ({'sequences': 1}, r'\(SEQUENCES\) = 1: at least 2'),
    ({'num_completions': 1}, r'\(NUM_COMPLETIONS\) = 1: at least 2'),
    ({'distillation_weight': 1.5}, r'\(DISTILLATION_WEIGHT\) = 1.5: in \[0, 1'),
    ({'teacher_temperature': 0.0}, r'\(TEACHER_TEMPERATURE\) = 0.0: above 0'),
    (
      {'prefixes': (100, 1)},
      r'\(PREFIXES\) = \[1, 100\]: at least one, all from 1 to T = 64',
    ),
    ({'prefixes': ()}, r'\(PREFIXES\) = \[\]: at least one'),
    ({'prefixes': (0, 1)}, r'\(PREFIXES\) = \[0, 1\]: at least one'),
    ({'lengths': (16, 128)}, r'lengths = \[16, 128\]: from 1 to T = 64'),
    ({'lengths': (16, 32)}, r'lengths = \[16, 32\]: .* T among them'),
    ({'training_sequences': 10}, r'\(TRAINING_SEQUENCES\) = 10: at least 16'),
    ({'delta': 0.0}, r'delta = 0.0: between 0 and 1'),
    (
      {'oracle': analyze.Model(make_model(), None)},
      r'oracle/analyze.Model.path \(ORACLE_PATH\) = None',
    ),
    (
      {'student': analyze.Model(make_model(), '/no/such')},
      r"student/analyze.Model.path \(STUDENT_PATH\) = '/no/such'",
    ),
  ],
)
def test_rejects_options(paths, tmp_path, options, message):
  with pytest.raises(ValueError, match=message):
    run(tmp_path, paths, **options)


@pytest.mark.parametrize('role', ['student', 'teacher'])
def test_rejects_an_oracle_that_is_another_role(paths, tmp_path, role):
  copy = shutil.copytree(paths[role], tmp_path / 'copy')
  for path in (paths[role], f'{copy}/checkpoint_0'):
    oracle = analyze.Model(make_model(**SIZES[role]), path)
    with pytest.raises(
      ValueError,
      match=rf'\(ORACLE_PATH\) = {path!r} is the same checkpoint as the {role}',
    ):
      run(tmp_path / 'out', paths, oracle=oracle)


def test_rejects_a_teacher_that_is_the_student(paths, tmp_path):
  teacher = analyze.Model(make_model(), paths['student'])
  message = r'\(TEACHER_PATH\) = .* is the same checkpoint as the student'
  with pytest.raises(ValueError, match=message):
    run(tmp_path, paths, teacher=teacher)


def test_rejects_models_of_another_size(paths, tmp_path):
  # Without a record, as a model that salt_t5x did not train.
  unknown = tmp_path / 'checkpoint_0'
  os.symlink(f'{paths["teacher"]}/checkpoint_0', unknown)
  with pytest.raises(ValueError, match=r'teacher/analyze.*TEACHER_MODEL'):
    run(tmp_path, paths, teacher=analyze.Model(make_model(), str(unknown)))


@pytest.mark.parametrize('role', SIZES)
def test_rejects_models_of_another_network(paths, tmp_path, role):
  model = make_model(**SIZES[role], mlp_activations=('relu', 'linear'))
  with pytest.raises(
    ValueError, match=rf"{role}/analyze.*mlp_activations = \['gelu', 'linear'"
  ):
    run(tmp_path, paths, **{role: analyze.Model(model, paths[role])})
