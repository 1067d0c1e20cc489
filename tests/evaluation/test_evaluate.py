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


"""The evaluation command on tiny models: what it measures, keeps, refuses."""

import json
import os
import sys

import flax
import gin
import jax
import jax.numpy as jnp
import numbered_task
import numpy as np
import pytest
import seqio

import few_shot_data
from salt_t5x import evaluate, models
from salt_t5x import teacher as teacher_lib
from salt_t5x.data import cache_writer, ordered_cache, supervised_tasks
from salt_t5x.evaluation import candidates, held_out, text_metrics
from salt_t5x.inference import language_model
from t5x import partitioning, utils
import tiny
import tiny_runs

LENGTH = numbered_task.T
TASK = 'evaluated'
VOCABULARY = seqio.ByteVocabulary()
ROWS = 264


@pytest.fixture(scope='module', autouse=True)
def cached_task(tmp_path_factory):
  """101 and 5 numbered sequences, of the domains a, b and c."""
  folder = str(tmp_path_factory.mktemp('cache'))
  seqio.add_global_cache_dirs([folder])
  cache_writer.write(numbered_task.sequences_task(TASK), folder)


def make_model(**overrides):
  return tiny.make_model(vocab=VOCABULARY, vocab_size=ROWS, **overrides)


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
  """(a model directory, the parameters in it)."""
  folder = str(tmp_path_factory.mktemp('trained'))
  trainer = tiny.make_trainer(
    make_model(inputs_bidirectional_attention=True), summary_dir=folder
  )
  batches = (
    models.features_of(x['decoder_target_tokens']) for x in tiny.batches()
  )
  trainer.train(batches, 2, 0).result()
  tiny.save_checkpoint(folder, trainer)
  return folder, flax.core.unfreeze(trainer.train_state.params)


def run(output_dir, checkpoints, **options):
  options = (
    dict(
      model=make_model(inputs_bidirectional_attention=True),
      partitioner=partitioning.PjitPartitioner(num_partitions=1),
      task_feature_lengths={'targets': LENGTH},
      batch_size=4,
      suite=(),
      use_hub=False,
      held_out_cfg=utils.DatasetConfig(
        mixture_or_task_name=f'{TASK}_ul2',
        task_feature_lengths={'targets': LENGTH},
        split='validation',
        batch_size=4,
        shuffle=False,
        seed=0,
        use_cached=True,
      ),
    )
    | options
  )
  return evaluate.evaluate(
    checkpoints=checkpoints, output_dir=str(output_dir), **options
  )


def read(output_dir, *names):
  with open(os.path.join(output_dir, *names), encoding='utf-8') as f:
    return json.load(f)


def test_held_out_text_by_domain(trained, tmp_path):
  folder, params = trained
  text = run(tmp_path, {'trained': folder, 'start': None})
  found = read(tmp_path, 'results.json')['results']
  # From the network's logits of whole sequences, causal and by domain.
  tokens = np.stack([numbered_task.tokens(n) for n in range(5)])
  logits = tiny.jitted(make_model().module)(
    params, np.pad(tokens[:, :-1], [(0, 0), (1, 0)]), tokens
  )
  logits = np.asarray(logits, np.float64)[..., : VOCABULARY.vocab_size]
  log_p = logits - np.log(np.sum(np.exp(logits), -1, keepdims=True))
  nats = -np.take_along_axis(log_p, tokens[..., None], -1)[..., 0]
  hits = np.argmax(logits, -1) == tokens
  rows = {'a': [0, 3], 'b': [1, 4], 'c': [2], 'all': range(5)}
  of_trained = found['trained']['held_out']
  assert list(of_trained) == ['all', 'a', 'b', 'c']
  for domain, of_domain in rows.items():
    of_domain = list(of_domain)
    measured = of_trained[domain]
    assert measured['tokens'] == LENGTH * len(of_domain)
    assert measured['accuracy'] == pytest.approx(np.mean(hits[of_domain]))
    assert measured['log_perplexity'] == pytest.approx(
      np.mean(nats[of_domain]), abs=1e-5
    )
  # Sequences of one length: the error of the mean of their means.
  assert of_trained['all']['log_perplexity_error'] == pytest.approx(
    np.std(np.mean(nats, 1), ddof=1) / np.sqrt(5), abs=1e-6
  )
  assert of_trained['all']['accuracy_error'] == pytest.approx(
    np.std(np.mean(hits, 1), ddof=1) / np.sqrt(5), abs=1e-6
  )
  # One sequence has no standard error.
  assert of_trained['c']['log_perplexity_error'] is None
  # As initialised, another seed: another model, near log V.
  start = found['start']['held_out']['all']['log_perplexity']
  assert start != of_trained['all']['log_perplexity']
  assert start == pytest.approx(np.log(ROWS), abs=0.7)
  assert '| domain | tokens | trained | start |' in text
  assert (tmp_path / 'results.md').read_text() == text


def test_held_out_examples(trained, tmp_path):
  run(tmp_path, {'trained': trained[0]}, held_out_examples=3)
  found = read(tmp_path, 'trained', 'held_out.json')
  assert found['result']['all']['tokens'] == 3 * LENGTH
  assert found['options']['checkpoint'].endswith('checkpoint_2')


def test_names_of_one_checkpoint_are_logged(trained, tmp_path, caplog):
  same = {'A': trained[0], 'B': f'{trained[0]}/checkpoint_2', 'start': None}
  run(tmp_path, same, held_out_examples=1)
  found = [x for x in caplog.messages if 'are the same checkpoint' in x]
  assert len(found) == 1 and "CHECKPOINTS): 'A' and 'B' are" in found[0]


@pytest.fixture
def benchmarks(tmp_path, monkeypatch):
  pytest.importorskip('lm_eval')
  pytest.importorskip('rouge_score')
  monkeypatch.setenv('HF_HOME', str(tmp_path / 'hub'))
  few_shot_data.write(tmp_path / 'data')
  return str(tmp_path / 'data')


def test_few_shot_results_are_computed_once(
  trained, benchmarks, tmp_path, monkeypatch
):
  options = dict(suite=['rte', 'nq_open', 'mbpp'], data_dir=benchmarks)
  output = tmp_path / 'output'
  checkpoints = {'trained': trained[0], 'start': None}
  model = make_model(inputs_bidirectional_attention=True)
  teacher = teacher_lib.Teacher(model=model, path=trained[0])
  text = run(output, checkpoints, teacher=teacher, **options)
  assert '| documents | chance | SLM | trained | start |' in text
  assert '| SuperGLUE | RTE † | Acc | 3 | 50.0 |' in text
  assert '- MBPP: ' in text and 'RUN_PROGRAMS' in text
  assert (output / 'results.png').read_bytes().startswith(b'\x89PNG')
  found = read(output, 'results.json')
  assert list(found['results']) == ['SLM', 'trained', 'start']
  assert set(found['results']['start']) == {'held_out', 'rte', 'nq_open'}
  # One checkpoint, one result.
  assert found['results']['SLM'] == found['results']['trained']
  lines = (output / 'start/nq_open.jsonl').read_text().splitlines()
  documents = [json.loads(line) for line in lines]
  assert [x['doc_id'] for x in documents] == [0, 1, 2]
  assert all(x['confidence'] < 0 for x in documents)

  # Rerunning computes only the missing results.
  os.remove(output / 'start/rte.json')
  ran = []
  score = language_model.LanguageModel.log_likelihoods

  def recorded(self, pairs, *args):
    ran.append(len(pairs))
    return score(self, pairs, *args)

  monkeypatch.setattr(language_model.LanguageModel, 'log_likelihoods', recorded)
  assert run(output, checkpoints, teacher=teacher, **options) == text
  assert ran == [6]  # RTE's three documents, two choices each
  with pytest.raises(ValueError, match='another configuration: .*OUTPUT_DIR'):
    run(output, checkpoints, teacher=teacher, examples=2, **options)


@pytest.fixture
def sums():
  """A supervised task: three sums."""
  examples = [{'sum': f'{i} + 1 =', 'answer': f'{i + 1}'} for i in range(3)]
  yield supervised_tasks.register(
    'sums',
    {'validation': lambda: iter(examples)},
    inputs='{sum}',
    targets='{answer}',
    vocabulary=VOCABULARY,
    metric_fns=[text_metrics.accuracy],
  )
  seqio.TaskRegistry.remove('sums')


def test_supervised_tasks(trained, sums, tmp_path):
  lengths = {'inputs': LENGTH, 'targets': 4}
  text = run(
    tmp_path,
    {'trained': trained[0], 'start': None},
    held_out_cfg=None,
    task_feature_lengths=lengths,
    supervised_tasks=['sums'],
  )
  assert '| task | metric | examples | trained | start |' in text
  assert '| sums | accuracy | 3 | 0.00 ± 0.00 | 0.00 ± 0.00 |' in text
  lines = (tmp_path / 'start/sums.jsonl').read_text().splitlines()
  documents = [json.loads(line) for line in lines]
  assert [x['target'] for x in documents] == ['1', '2', '3']
  assert all(x['score'] == 0 and x['confidence'] < 0 for x in documents)
  options = dict(held_out_cfg=None, supervised_tasks=['sums'])
  with pytest.raises(ValueError, match='targets must leave room for inputs'):
    run(tmp_path, {'a': None}, **options)
  options |= dict(task_feature_lengths=lengths)
  for split, message in [
    ('test', r'validation.*\{task: split\}'),
    ({}, 'None: sums has'),
  ]:
    with pytest.raises(ValueError, match=f'SUPERVISED_SPLIT.*{message}'):
      run(tmp_path, {'a': None}, supervised_split=split, **options)


def test_rejects_results_on_other_examples(sums, tmp_path):
  """The task has its name and as many examples, but another answer."""
  options = dict(
    held_out_cfg=None,
    supervised_tasks=['sums'],
    task_feature_lengths={'inputs': LENGTH, 'targets': 4},
  )
  run(tmp_path, {'start': None}, **options)
  sums.source._tensors.clear()
  examples = sums.source._files['validation']()
  changed = [x | {'answer': x['answer'].replace('3', '4')} for x in examples]
  sums.source._files['validation'] = lambda: changed
  with pytest.raises(ValueError, match=r'sums\.json holds results of another'):
    run(tmp_path, {'start': None}, **options)


def test_lists_missing_benchmarks(tmp_path):
  pytest.importorskip('lm_eval')
  pytest.importorskip('rouge_score')
  text = run(tmp_path, {'a': None}, held_out_cfg=None, suite=['wic'])
  assert '- WiC: no local files, and USE_HUB = False' in text


def test_rejects_results_of_another_model(tmp_path):
  run(tmp_path, {'a': None}, held_out_examples=1)
  with pytest.raises(ValueError, match='another configuration: .*OUTPUT_DIR'):
    run(
      tmp_path, {'a': None}, model=make_model(mlp_dim=16), held_out_examples=1
    )
  # With the same shapes.
  model = make_model(
    mlp_activations=('relu', 'linear'), inputs_bidirectional_attention=True
  )
  with pytest.raises(ValueError, match='results of another configuration'):
    run(tmp_path, {'a': None}, model=model, held_out_examples=1)


def test_the_readmes_command():
  files = ['students/2p8b', 'runs/evaluate', 'data/pile']
  bindings = [
    "CHECKPOINTS = {'BASELINE': '/no/such/place'}",
    "OUTPUT_DIR = '/nor/here'",
    'HELD_OUT = @held_out/utils.DatasetConfig()',
    "HELD_OUT_TASK = 'pile_causal'",
  ]
  with (
    tiny_runs.configured([f'salt_t5x/gin/{x}.gin' for x in files], bindings),
    pytest.raises(ValueError, match='BASELINE.*there is no such directory'),
  ):
    gin.get_configurable(evaluate.evaluate)()


@pytest.mark.parametrize(
  'options, message',
  [
    ({'checkpoints': {}}, 'CHECKPOINTS.* = {}: write'),
    ({'held_out_cfg': None}, 'nothing to measure: set SUITE'),
    (
      {'held_out_cfg': None, 'suite': ['wic'], 'held_out_examples': 1},
      r'\(HELD_OUT_EXAMPLES\) = 1 has no effect: set HELD_OUT',
    ),
    ({'data_dir': '/data'}, r"\(BENCHMARK_DATA\) = '/data' .* set SUITE"),
    ({'run_programs': True}, r'\(RUN_PROGRAMS\) = True .* set SUITE'),
    (
      {'supervised_split': 'test'},
      r"\(SUPERVISED_SPLIT\) = 'test' has no effect: set SUPERVISED_TASKS",
    ),
    (
      {'supervised_split': {'a': 'test'}, 'supervised_tasks': 'b'},
      r"\(SUPERVISED_SPLIT\) = {'a': 'test'} has no effect: .*_TASKS",
    ),
    ({'teacher': None}, r'teacher.Teacher.path = None: set TEACHER_PATH'),
    ({'checkpoints': {'a': '/no/such'}}, r"\['a'\] = '/no/such'.*no such dir"),
    ({'model': 'narrow'}, r'trained.*network.*mlp_dim = 32 \(and is now 16\)'),
    ({'model': 'unknown'}, 'The model of .trained. is not the architecture'),
    (
      {'model': 'activations'},
      r"trained.*mlp_activations = \['gelu', 'linear'",
    ),
    ({'model': 'vocabulary'}, 'trained with another vocabulary .*VOCABULARY'),
    ({'task_feature_lengths': {'targets': 32}}, 'up to 64 tokens, but TASK_'),
    ({'teacher': 'SLM'}, "CHECKPOINTS.* 'SLM' is kept for the teacher"),
  ],
)
def test_checks_arguments_before_measuring(
  trained, tmp_path, monkeypatch, options, message
):
  def fail(*args):
    raise AssertionError('It began to measure.')

  monkeypatch.setattr(held_out, 'measure', fail)
  checkpoints = options.pop('checkpoints', {'trained': trained[0]})
  if options.get('model') == 'narrow':
    options['model'] = make_model(mlp_dim=16)
  if options.get('model') == 'unknown':
    # Without a record, as a model that salt_t5x did not train.
    os.symlink(f'{trained[0]}/checkpoint_2', tmp_path / 'checkpoint_2')
    checkpoints = {'trained': str(tmp_path / 'checkpoint_2')}
    options['model'] = make_model(mlp_dim=16)
  if options.get('model') == 'activations':
    options['model'] = make_model(mlp_activations=('relu', 'linear'))
  if options.get('model') == 'vocabulary':
    options['model'] = tiny.make_model(
      vocab=seqio.ByteVocabulary(extra_ids=3), vocab_size=ROWS
    )
  if 'teacher' in options:
    path = options['teacher'] and trained[0]
    checkpoints = {options['teacher'] or 'trained': trained[0]}
    options['teacher'] = teacher_lib.Teacher(model=make_model(), path=path)
  with pytest.raises(ValueError, match=message):
    run(tmp_path, checkpoints, **options)


def test_without_lm_eval(trained, tmp_path, monkeypatch):
  monkeypatch.setitem(
    sys.modules, 'salt_t5x.evaluation.few_shot.lm_eval_model', None
  )
  monkeypatch.delattr(
    'salt_t5x.evaluation.few_shot.lm_eval_model', raising=False
  )
  with pytest.raises(ImportError, match=r"pip install 'salt_t5x\[evaluate\]'"):
    run(tmp_path, {'trained': trained[0]}, suite='paper')


def run_evaluation(output_dir, **options):
  return evaluate.evaluate(
    **{
      'model': None,
      'checkpoints': {'A': None},
      'partitioner': None,
      'output_dir': str(output_dir),
      'task_feature_lengths': {'targets': 8},
      'batch_size': 2,
      **options,
    }
  )


@pytest.mark.parametrize(
  'name, value, message',
  [
    ('task_feature_lengths', {}, r'TASK_FEATURE_LENGTHS = \{\}'),
    ('task_feature_lengths', {'inputs': 8}, 'TASK_FEATURE_LENGTHS = .*inputs'),
    ('task_feature_lengths', {'targets': 0}, 'TASK_FEATURE_LENGTHS = .* 0}'),
    ('task_feature_lengths', {'targets': 8.0}, 'TASK_FEATURE_LENGTHS = .*8.0'),
    ('task_feature_lengths', 8, 'TASK_FEATURE_LENGTHS = 8'),
    ('examples', 0, r'EXAMPLES\) = 0'),
    ('held_out_examples', 0, r'HELD_OUT_EXAMPLES\) = 0'),
    ('examples', -1, r'EXAMPLES\) = -1'),
    ('examples', True, r'EXAMPLES\) = True'),
    ('examples', '10', r"EXAMPLES\) = '10'"),
    ('checkpoints', 'path', r"CHECKPOINTS\) = 'path': write {"),
    ('checkpoints', {'A': 5}, r"CHECKPOINTS\) = {'A': 5}"),
    ('checkpoints', {5: None}, r'CHECKPOINTS\) = {5: '),
    ('checkpoints', {'': None}, r"CHECKPOINTS\) = {'': "),
    ('checkpoints', {'../A': None}, r"CHECKPOINTS\) = {'../A': "),
    ('checkpoints', {'..': None}, r"CHECKPOINTS\) = {'..': "),
  ],
)
def test_rejects_values(tmp_path, name, value, message):
  with pytest.raises(ValueError, match=message):
    run_evaluation(tmp_path / 'out', **{name: value})


def test_rejects_a_folder_that_cannot_be_made(tmp_path):
  (tmp_path / 'file').touch()
  with pytest.raises(ValueError, match='OUTPUT_DIR.*file.*cannot be made'):
    run_evaluation(tmp_path / 'file' / 'out')


@pytest.mark.parametrize('name', ['no_such_task', 5, None])
def test_rejects_unknown_held_out_tasks(name):
  with pytest.raises(ValueError, match=f'HELD_OUT_TASK = {name!r}: '):
    ordered_cache.read_sequences(name, 'validation')


def test_a_model_that_predicts_nan_has_no_scores(
  trained, sums, benchmarks, tmp_path, monkeypatch
):
  """Its accuracy is not that of a guess: it is in no table, and said why."""
  load = candidates.Candidate.load

  def load_nan(candidate, *args):
    params, axes = load(candidate, *args)
    if candidate.checkpoint:
      return params, axes
    return jax.tree.map(lambda x: jnp.full_like(x, jnp.nan), params), axes

  monkeypatch.setattr(candidates.Candidate, 'load', load_nan)
  options = dict(
    task_feature_lengths={'inputs': LENGTH, 'targets': 4},
    supervised_tasks=sums.name,
    suite=('rte', 'nq_open'),
    data_dir=benchmarks,
  )
  text = run(tmp_path, {'good': trained[0], 'bad': None}, **options)
  content = read(tmp_path, 'results.json')
  assert list(content['results']) == ['good']
  assert set(content['not_finite']['bad']) == set(content['results']['good'])
  assert 'bad has no scores, since its outputs are not finite: held_' in text
  assert '| good |' in text and '| bad |' not in text
  text = run(tmp_path / 'alone', {'bad': None}, **options)
  assert text.startswith('# Results\n\nbad has no scores') and '|' not in text
