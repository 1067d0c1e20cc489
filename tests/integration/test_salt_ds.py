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


"""SALT_DS from raw shards to a trained model: score, select, train."""

import collections
import dataclasses
import importlib
import os
import re
import socket
import subprocess
import sys

import gin
import jax
import notes as notes_corpus
import numpy as np
import pytest
import seqio

import reference
from salt_t5x import select as select_command
from salt_t5x import teacher as teacher_lib
from salt_t5x.selection import record as selection_record
from salt_t5x.selection import score_shards, scoring
from salt_t5x.studies import processes
from t5x import partitioning
import tiny
import tiny_runs

FOLDER = tiny_runs.TESTS / 'integration'
SCORE = notes_corpus.SCORE
SALT_DS, BASELINE_EZ = (
  str(FOLDER / f'notes_{name}.gin') for name in ('salt_ds', 'baseline_ez')
)
TEACHER_STEP = 20
BATCH, KD_STEPS = 8, 3
NEEDED = BATCH * KD_STEPS
TOLERANCE = 1e-5  # of scores, between shapes of batches and devices


@pytest.fixture(scope='module')
def notes(tmp_path_factory, chain):
  """The tasks' modules: Python's own documentation, cached."""
  folder = tmp_path_factory.mktemp('documentation')
  notes_corpus.write_documentation(folder)
  with notes_corpus.registered(folder) as module:
    notes_corpus.cache(folder)
    yield module


@pytest.fixture(scope='module')
def teacher(notes, tmp_path_factory):
  """The model directory of a teacher, trained to twice TEACHER_STEP."""
  path = tmp_path_factory.mktemp('notes_teacher')
  notes_corpus.train_teacher(path, TEACHER_STEP)
  return str(path)


def score(teacher, output, *bindings):
  """Runs the job in this process; returns its records."""
  notes_corpus.score(teacher, output, *bindings)
  return read(output)


def progress(log):
  """What a study's progress bar shows of a job's log."""
  _, pattern = processes._PROGRESS['salt_t5x.score']
  return re.findall(pattern, log)


def read(output):
  manifest = score_shards.read_manifest(str(output))
  return np.concatenate(
    [records for records, _ in score_shards.read_shards(str(output), manifest)]
  )


@pytest.fixture(scope='module')
def scores(teacher, tmp_path_factory):
  """The folder of the scores of all sequences."""
  output = tmp_path_factory.mktemp('scores') / 'k10'
  score(teacher, output)
  return str(output)


def sequences(split='train'):
  """The cache's examples in the global order."""
  source = seqio.TaskRegistry.get('notes_ul2').source
  return list(source.get_dataset(split).as_numpy_iterator())


def test_job_scores_all_sequences_in_order(scores):
  manifest = score_shards.read_manifest(scores)
  examples = sequences()
  assert manifest.examples == len(examples) > 300
  # Shards of 32, and a last one that is not full.
  assert manifest.num_shards > 5 and len(examples) % manifest.shard_size
  assert (manifest.task, manifest.split) == ('notes_sequences', 'train')
  assert manifest.step == TEACHER_STEP
  # Not in the batches of scoring, of 16.
  assert manifest.sequences_read == TEACHER_STEP * BATCH
  assert manifest.teacher.endswith(f'/checkpoint_{TEACHER_STEP}')
  at = 0
  for records, domains in score_shards.read_shards(scores, manifest):
    for record in records:
      assert record['id'] == examples[at]['id']
      assert domains[record['domain']].encode() == examples[at]['domain']
      at += 1
  assert at == len(examples)


@pytest.mark.parametrize('top_k, dtype', [(10, None), (100, 'bfloat16')])
def test_scores_equal_the_reference(teacher, scores, tmp_path, top_k, dtype):
  if dtype is None:
    records = read(scores)[:40]
  else:
    records = score(
      teacher,
      tmp_path / 'scores',
      f'TOP_K = {top_k}',
      f'teacher.Teacher.dtype = {dtype!r}',
      'SCORED_EXAMPLES = 40',
    )
  targets = np.stack([e['targets'] for e in sequences()[:40]])
  bindings = [f'TEACHER_PATH = {teacher!r}', 'SCORES_DIR = "/unused"']
  with tiny_runs.configured([SCORE], bindings):
    made = gin.get_configurable(teacher_lib.Teacher)()
  features = tiny.batch_of(targets)
  features['decoder_causal_attention'] = np.zeros_like(targets)
  params, _ = made.load(
    dataclasses.replace(made, step=TEACHER_STEP).find(),
    features,
    partitioning.PjitPartitioner(num_partitions=1),
  )
  if dtype:
    params = jax.tree.map(lambda x: x.astype('bfloat16'), params)
  # Compiled, as there: XLA rounds less to bfloat16 than what runs op by op.
  logits = jax.jit(made.model.module.apply)(
    {'params': params},
    features['decoder_input_tokens'],
    features['decoder_target_tokens'],
  )
  logits = np.asarray(logits, np.float64)
  logits = logits[..., : made.model.output_vocabulary.vocab_size]
  assert len(records) == 40
  for kind in scoring.KINDS:
    expected = [
      reference.score(*row, row[1] > 0, top_k, kind)
      for row in zip(logits, targets, strict=True)
    ]
    np.testing.assert_allclose(
      records[kind], expected, rtol=2e-5, atol=1e-6, err_msg=kind
    )


def rank_flips(a, b):
  """How many pairs of neighbours in a's order are the other way in b's."""
  order = np.lexsort([np.arange(len(a)), -a])
  return int(np.sum(np.diff(b[order]) > 0))


def assert_close(found, expected):
  """Within TOLERANCE; ranks change only among such neighbours."""
  for kind in scoring.KINDS:
    a, b = expected[kind], found[kind]
    np.testing.assert_allclose(a, b, rtol=TOLERANCE, atol=1e-6, err_msg=kind)
    flips = rank_flips(a, b)
    print(f'{kind}: {flips} rank flips among {len(a)} sequences')
    assert flips < 0.02 * len(a)


def test_scores_depend_little_on_the_batch_size(teacher, scores, tmp_path):
  other = score(
    teacher, tmp_path / 'scores', 'BATCH_SIZE = 7', 'SCORED_EXAMPLES = 80'
  )
  assert_close(other, read(scores)[:80])


@pytest.fixture(scope='module')
def scored(notes, teacher):
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv('SALT_T5X_TEST_TEACHER', teacher)
    yield importlib.import_module('scored_task')
    del sys.modules['scored_task']
    seqio.TaskRegistry.remove('notes_scored')


def by_id(examples):
  found = {int(e['id']): e['salt_score'] for e in examples}
  assert {v.shape for v in found.values()} == {(1,)}
  assert {v.dtype for v in found.values()} == {np.dtype('float32')}
  return {k: float(v[0]) for k, v in found.items()}


def test_the_preprocessor_scores_like_the_job(scored, scores):
  task = seqio.TaskRegistry.get('notes_scored')
  unscored = seqio.TaskRegistry.get('notes_sequences')
  dataset = unscored.preprocess_precache(
    task.source.get_dataset('train', shuffle=False)
  )
  examples = list(dataset.as_numpy_iterator())
  dataset = scored.add_score(dataset, kind='drop')
  assert dataset.element_spec['salt_score'].shape == (1,)
  found = list(dataset.as_numpy_iterator())
  for before, after in zip(examples, found, strict=True):
    assert {**before}.keys() | {'salt_score'} == after.keys()
    for name in before:
      np.testing.assert_array_equal(before[name], after[name])
  # Bitwise, though other sequences shared the batches.
  job = {int(r['id']): float(r['drop']) for r in read(scores)}
  assert by_id(found) == job


def test_beam_workers_score_like_the_job(scored, notes, teacher, scores):
  pytest.importorskip('apache_beam', reason='apache-beam is not installed')
  done = subprocess.run(
    [
      sys.executable,
      '-m',
      'seqio.scripts.cache_tasks_main',
      '--module_import=scored_task',
      '--tasks=notes_scored',
      f'--output_cache_dir={notes.DIRECTORY}/cache',
      '--min_shards=2',
    ],
    env=tiny_runs.environment(
      pythonpath=[tiny_runs.TESTS, FOLDER, *tiny_runs.real_t5x_path()],
      SALT_T5X_TEST_NOTES=notes.DIRECTORY,
      SALT_T5X_TEST_TEACHER=teacher,
    ),
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr[-5000:]
  cached = seqio.TaskRegistry.get('notes_scored').get_dataset(
    split='train', use_cached=True, shuffle=False
  )
  job = {int(r['id']): float(r['zero']) for r in read(scores)}
  assert by_id(cached.as_numpy_iterator()) == job


def test_rerun_computes_only_missing_shards(
  teacher, scores, tmp_path, monkeypatch, caplog
):
  caplog.set_level('INFO', logger='absl')
  write = score_shards.write_shard

  def stop_at_the_third(directory, index, *args):
    if index == 2:
      raise KeyboardInterrupt
    write(directory, index, *args)

  output = tmp_path / 'scores'
  shards = 5
  binding = f'SCORED_EXAMPLES = {32 * shards}'
  with monkeypatch.context() as patch:
    patch.setattr(score_shards, 'write_shard', stop_at_the_third)
    with pytest.raises(KeyboardInterrupt):
      score(teacher, output, binding)
  assert sorted(p.name for p in output.glob('*.bin')) == [
    'scores-00000.bin',
    'scores-00001.bin',
  ]
  (output / 'scores-00000.bin').unlink()
  made = []

  def note(directory, index, *args):
    made.append(index)
    write(directory, index, *args)

  monkeypatch.setattr(score_shards, 'write_shard', note)
  caplog.clear()
  found = score(teacher, output, binding)
  np.testing.assert_array_equal(found, read(scores)[: 32 * shards])
  assert made == [0, *range(2, shards)]
  assert '32 of 160 sequences are scored.' in caplog.text
  assert progress(caplog.text) == ['32', '64', '96', '128']
  assert re.search(
    r'128 of 128 sequences .* \d+ tokens per second', caplog.text
  )
  # Nothing is left to do.
  score(teacher, output, binding)
  assert len(made) == shards - 1


def command(notes, teacher, output, *flags, devices=1, **variables):
  return dict(
    args=[
      '-m',
      'salt_t5x.score',
      f'--gin_file={SCORE}',
      f'--gin_search_paths={FOLDER}',
      f'--gin.TEACHER_PATH={teacher!r}',
      f'--gin.SCORES_DIR={str(output)!r}',
      *flags,
    ],
    env=tiny_runs.environment(
      pythonpath=[tiny_runs.TESTS, FOLDER, *tiny_runs.real_t5x_path()],
      SALT_T5X_TEST_NOTES=notes.DIRECTORY,
      XLA_FLAGS=f'--xla_force_host_platform_device_count={devices}',
      **variables,
    ),
  )


def in_two_processes(notes, teacher, output, *flags):
  """[(exit status, stderr)] of a job in two processes of one device each."""
  with socket.socket() as s:
    s.bind(('127.0.0.1', 0))
    address = f'127.0.0.1:{s.getsockname()[1]}'
  processes = []
  for index in range(2):
    options = command(
      notes,
      teacher,
      output,
      *flags,
      '--multiprocess_gpu',
      f'--coordinator_address={address}',
      '--process_count=2',
      f'--process_index={index}',
    )
    processes.append(
      subprocess.Popen(
        [sys.executable, *options['args']],
        env=options['env'],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
      )
    )
  errors = [process.communicate()[1] for process in processes]
  return [(p.returncode, e) for p, e in zip(processes, errors, strict=True)]


def test_two_processes_score_as_one(notes, teacher, scores, tmp_path):
  output = tmp_path / 'scores'
  for code, error in in_two_processes(
    notes, teacher, output, '--gin.SCORED_EXAMPLES=80'
  ):
    assert code == 0, error[-5000:]
  assert len(list(output.glob('*.bin'))) == 3
  assert_close(read(output), read(scores)[:80])


@pytest.mark.slow  # In part test_score_shards.test_rejects_another_manifest.
def test_all_processes_reject_another_configuration(notes, teacher, scores):
  for code, error in in_two_processes(notes, teacher, scores, '--gin.TOP_K=5'):
    assert code and 'top_k was 10 and is now 5' in error, error[-5000:]


def test_scores_depend_little_on_devices(notes, teacher, scores, tmp_path):
  done = tiny_runs.python(
    **command(
      notes,
      teacher,
      tmp_path / 'scores',
      '--gin.partitioning.PjitPartitioner.num_partitions=2',
      '--gin.SCORED_EXAMPLES=80',
      devices=2,
    )
  )
  assert done.returncode == 0, done.stderr[-5000:]
  assert 'scored 80 sequences of notes_sequences (train)' in done.stdout
  assert progress(done.stderr) == ['32', '64', '80']
  assert_close(read(tmp_path / 'scores'), read(scores)[:80])


def select(scores, output, *flags):
  argv = [
    f'--scores={scores}',
    f'--output={output}',
    f'--kd_steps={KD_STEPS}',
    f'--batch_size={BATCH}',
    *flags,
  ]
  select_command.main(select_command.parse_flags(['select', *argv]))
  return str(output)


def rows_of(batch):
  return [row.tobytes() for row in np.asarray(batch['decoder_target_tokens'])]


def batches_of(examples):
  rows = [np.asarray(e['targets']).tobytes() for e in examples]
  return [rows[i : i + BATCH] for i in range(0, len(rows), BATCH)]


def test_salt_ds_trains_on_the_selection_and_resumes(teacher, scores, tmp_path):
  path = select(scores, tmp_path / 'selection.json')
  bindings = [f'TEACHER_PATH = {teacher!r}', f'SELECTION_PATH = {path!r}']
  unbroken = tiny_runs.train(
    tmp_path / 'a', [SALT_DS], *bindings, identify=rows_of
  )

  # The teacher has read the first 20 batches; of the rest, the highest scores.
  examples, records = sequences(), read(scores)
  seen = TEACHER_STEP * BATCH
  order = np.lexsort([records['id'][seen:], -records['zero'][seen:]])
  chosen = sorted(seen + order[:NEEDED])
  expected = batches_of([examples[i] for i in chosen])
  later = batches_of(examples[NEEDED : NEEDED + 3 * BATCH])
  assert unbroken.rows == expected + later
  weights = unbroken.scalars['salt/distillation_weight']
  # t5x logs step n under n + 1; the last 0 marks the end.
  assert [weights[step] for step in (1, 2)] == [pytest.approx(0.667)] * 2

  for stopped in (3,):  # More in test_kill_and_resume.
    folder = tmp_path / f'stopped_{stopped}'
    tiny_runs.copy_up_to(stopped, tmp_path / 'a', folder)
    resumed = tiny_runs.train(folder, [SALT_DS], *bindings, identify=rows_of)
    assert resumed.rows == unbroken.rows[stopped:]
    tiny.assert_equal(resumed.state, unbroken.state)


def test_baseline_ez_repeats_a_share_of_all_data(scores, tmp_path):
  path = select(
    scores, tmp_path / 'selection.json', '--kind=easy', '--share=0.02'
  )
  record = selection_record.read(path)
  assert record.repeats > 1 and record.first_position == 0
  run = tiny_runs.train(
    tmp_path / 'a',
    [BASELINE_EZ],
    f'SELECTION_PATH = {path!r}',
    identify=rows_of,
  )
  examples, records = sequences(), read(scores)
  order = np.lexsort([records['id'], -records['easy']])
  chosen = sorted(order[: record.selected])
  found = [row for batch in run.rows for row in batch]
  [*once] = (examples[i]['targets'].tobytes() for i in chosen)
  assert found[: len(once)] == once
  # Each further pass has an order of its own.
  for start in range(0, NEEDED, len(once)):
    part = found[start : min(start + len(once), NEEDED)]
    left = collections.Counter(once) - collections.Counter(part)
    assert left.total() == len(once) - len(part)
  assert run.rows[KD_STEPS:] == batches_of(examples[NEEDED:][: 3 * BATCH])
  assert 'salt/distillation_weight' not in run.scalars


@pytest.mark.parametrize(
  'binding, message',
  [
    ('TOP_K = 270', r'270 \(TOP_K\) is not between 1 and the 269 tokens'),
    ('SCORED_EXAMPLES = 100000', r'100000 \(SCORED_EXAMPLES\)'),
    ('TEACHER_STEP = 26000', 'teacher.Teacher.step = 26000.*20, 40'),
    ('TEACHER_STEP = 0', 'A model that knows nothing has log V'),
    ('score.score.batches_per_shard = 0', 'batches_per_shard = 0: set it'),
    ('MIXTURE_OR_TASK_NAME = "notes_sequences"', 'global order'),
    ('VOCABULARY = @tiny.vocabulary()', 'VOCABULARY is '),
    ('teacher.Teacher.minimum_gain = 5', 'minimum_gain'),
    (
      "network.TransformerConfig.mlp_activations = ('relu', 'linear')",
      r"Teacher.path = .*mlp_activations = \['gelu', 'linear'",
    ),
  ],
)
def test_rejects_score_options(teacher, tmp_path, binding, message):
  with pytest.raises(ValueError, match=message):
    score(teacher, tmp_path / 'scores', binding)
  assert not list(tmp_path.glob('scores/*.bin'))


def test_training_rejects_another_first_stage(teacher, scores, tmp_path):
  path = select(scores, tmp_path / 'selection.json')
  with pytest.raises(ValueError, match='kd_steps is 3 there and 2 here'):
    tiny_runs.train(
      tmp_path / 'a',
      [SALT_DS],
      f'TEACHER_PATH = {teacher!r}',
      f'SELECTION_PATH = {path!r}',
      'KD_STEPS = 2',
    )
  assert not [f for f in os.listdir(tmp_path / 'a') if f.startswith('check')]
