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


"""Fine-tuning: initial parameters, loss, schedule and resuming."""

import contextlib
import os
import shutil

import gin
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
import seqio

from salt_t5x import fine_tune, models
from salt_t5x.checkpoints import find, run_record
from salt_t5x.checkpoints import restore as restore_lib
from salt_t5x.data import feature_converters, supervised_tasks
from salt_t5x.evaluation import supervised as supervised_lib
from salt_t5x.evaluation import text_metrics
from salt_t5x.inference import language_model
from t5x import partitioning
from t5x import train as t5x_train
import tiny
import tiny_runs

LENGTHS = {'inputs': 32, 'targets': 16}
STEPS = 30
VOCABULARY = seqio.ByteVocabulary()
COLOURS = {'fox': 'red', 'owl': 'white', 'crow': 'black', 'ant': 'black'}
MODEL = 'salt_t5x/gin/students/tiny.gin'
SFT = [MODEL, 'salt_t5x/gin/runs/sft.gin', 'fine_tune.gin']


def colours(count, first):
  """Made-up examples, numbered from `first` on."""
  animals = sorted(COLOURS)
  for i in range(first, first + count):
    animal = animals[i % 4]
    yield {'animal': f'{animal} no. {i}', 'colour': COLOURS[animal]}


@contextlib.contextmanager
def registered():
  common = dict(vocabulary=VOCABULARY, metric_fns=[text_metrics.rouge])
  supervised_tasks.register(
    'colours',
    {
      'train': lambda: colours(40, 0),
      'validation': lambda: colours(16, 40),
    },
    inputs='{animal}?',
    targets='It is {colour}.',
    **common,
  )
  supervised_tasks.register(
    'babble',
    {'train': lambda: colours(40, 0)},
    inputs='{colour}',
    targets='{animal}',
    **common,
  )
  try:
    yield
  finally:
    seqio.TaskRegistry.remove('colours')
    seqio.TaskRegistry.remove('babble')


@pytest.fixture(scope='module')
def pretrained(tmp_path_factory):
  """The model directory of a run, with checkpoints 0, 10 and 20."""
  model_dir = tmp_path_factory.mktemp('pretrained') / 'model'
  with registered():
    tiny_runs.train(
      model_dir,
      [MODEL, 'salt_t5x/gin/runs/baseline.gin', 'fine_tune.gin'],
      'MIXTURE_OR_TASK_NAME = "babble"',
      'EVAL_PERIOD = 0',
      'TRAIN_STEPS = 20',
      # The steps of both runs are then the same program, compiled once.
      'FINAL_LEARNING_RATE = 0.0',
      'from __gin__ import dynamic_registration',
      'import optax',
      f'optax.warmup_cosine_decay_schedule.decay_steps = {STEPS}',
    )
    yield model_dir


def sft(model_dir, initial, *bindings):
  return tiny_runs.train(
    model_dir,
    SFT,
    'MIXTURE_OR_TASK_NAME = "colours"',
    f'INITIAL_CHECKPOINT = {str(initial)!r}',
    f'TRAIN_STEPS = {STEPS}',
    *bindings,
    identify=lambda batch: np.asarray(batch['decoder_target_tokens']).tolist(),
  )


@pytest.fixture(scope='module')
def tuned_dir(tmp_path_factory):
  return tmp_path_factory.mktemp('tuned') / 'model'


@pytest.fixture(scope='module')
def tuned(pretrained, tuned_dir):
  return sft(tuned_dir, pretrained)


def saved(model_dir, step):
  """All arrays of a checkpoint, as a nested dict."""
  handler = ocp.PyTreeCheckpointHandler(use_ocdbt=True)
  with ocp.Checkpointer(handler) as checkpointer:
    path = os.path.join(model_dir, f'checkpoint_{step}', 'state')
    return jax.tree.map(np.asarray, checkpointer.restore(path))


def assert_equal(a, b):
  assert jax.tree.structure(a) == jax.tree.structure(b)
  jax.tree.map(np.testing.assert_array_equal, a, b)


def test_starts_from_the_parameters_only(tuned, tuned_dir, pretrained):
  del tuned
  begun, before, scratch = (
    saved(tuned_dir, 0),
    saved(pretrained, 20),
    saved(pretrained, 0),
  )
  assert_equal(begun['target'], before['target'])
  # As in a run from scratch: the step and Adafactor's state.
  assert_equal(begun['state'], scratch['state'])
  assert begun['state']['step'] == 0 != before['state']['step']
  moments = lambda x: sum(
    np.abs(y).sum() for y in jax.tree.leaves(x['state']['param_states'])
  )
  assert moments(before) > moments(begun)
  difference = jax.tree.map(
    lambda x, y: np.abs(x - y).max(), before['target'], scratch['target']
  )
  assert max(jax.tree.leaves(difference)) > 0.01


@pytest.fixture(scope='module')
def compiled(pretrained):
  """A checkpoint directory -> a LanguageModel."""
  with tiny_runs.configured(
    SFT,
    [
      'MIXTURE_OR_TASK_NAME = "colours"',
      'MODEL_DIR = "/no"',
      'INITIAL_CHECKPOINT = "/no"',
    ],
  ):
    model = gin.get_bindings(t5x_train.train)['model']
  partitioner = partitioning.PjitPartitioner(num_partitions=1)
  batch = models.features_of(np.ones((8, 32), np.int32))
  shapes, axes = models.shapes_and_axes(model, batch, partitioner)

  def params(model_dir, step):
    return restore_lib.parameters(
      find.checkpoint(str(model_dir), step, parameter='model_dir'),
      shapes,
      axes,
      partitioner.mesh,
      parameter='MODEL',
    )

  made = language_model.LanguageModel(
    model, params(pretrained, 20), axes, partitioner, 8, 32
  )
  return lambda *checkpoint: made.with_params(params(*checkpoint))


def held_out_loss(model):
  """Nats for each token of the held-out targets, one text at a time."""
  pairs = [
    (
      VOCABULARY.encode(f'{x["animal"]}?'),
      [*VOCABULARY.encode(f'It is {x["colour"]}.'), 1],
    )
    for x in colours(16, 40)
  ]
  found = model.log_likelihoods(pairs)
  return -sum(x.value for x in found) / sum(x.tokens for x in found)


def test_learns_and_is_evaluated(tuned, tuned_dir, pretrained, compiled):
  del tuned
  rouge_scorer = pytest.importorskip('rouge_score.rouge_scorer')
  before, after = compiled(pretrained, 20), compiled(tuned_dir, STEPS)
  losses = held_out_loss(before), held_out_loss(after)
  assert losses[1] < losses[0] / 2
  # What the run wrote is of the same tokens: the targets', and no others.
  written = tiny_runs.scalars(tuned_dir, 'training_eval/colours')[
    'log_perplexity'
  ]
  assert list(written) == list(range(10, STEPS + 1, 10))
  assert written[STEPS] == pytest.approx(losses[1], rel=0.01)

  task = seqio.TaskRegistry.get('colours')
  evaluate = lambda model: supervised_lib.evaluate(
    model, task, 'validation', LENGTHS
  )
  (worse, _), (better, examples) = evaluate(before), evaluate(after)
  assert better['rouge1'] > 50 > worse['rouge1']
  assert len(examples) == 16
  for name, value in better.items():
    scorer = rouge_scorer.RougeScorer([name])
    scores = [
      scorer.score(x['target'], x['prediction'])[name].fmeasure
      for x in examples
    ]
    assert value == pytest.approx(100 * np.mean(scores))


def test_schedule_of_the_paper(tuned, pretrained):
  rates = tuned.scalars['learning_rate']
  # 2 warm-up steps to the peak, a cosine to 0. Step s is written as s + 1.
  assert rates[1] == 0
  np.testing.assert_allclose(rates[3], 0.1, rtol=1e-6)
  assert 0 < rates[STEPS] < 1e-3
  with tiny_runs.configured(
    [MODEL, 'salt_t5x/gin/runs/sft.gin'],
    [
      'from __gin__ import dynamic_registration',
      'import seqio',
      'VOCABULARY = @seqio.ByteVocabulary()',
      'MIXTURE_OR_TASK_NAME = "colours"',
      'MODEL_DIR = "/no"',
      f'INITIAL_CHECKPOINT = {str(pretrained)!r}',
    ],
  ):
    options = gin.get_bindings(fine_tune.FineTuneTrainer)
    train = gin.get_bindings(t5x_train.train)
  rate = options['learning_rate_fn']
  assert train['total_steps'] == options['total_steps'] == 10_000
  found = [rate(step) for step in (0, 100, 200, 5_100, 10_000)]
  np.testing.assert_allclose(found, [0, 5e-5, 1e-4, 5e-5, 0], atol=1e-10)
  assert options['initial_checkpoint'] == str(pretrained)
  for data in ('train_dataset_cfg', 'train_eval_dataset_cfg'):
    assert train[data].task_feature_lengths == {'inputs': 1280, 'targets': 256}


@pytest.mark.parametrize('step', [0, 20])
def test_resumes_without_initial_checkpoint(step, tuned, tuned_dir, tmp_path):
  """The path is set, but nothing is there any more."""
  model_dir = tmp_path / 'model'
  model_dir.mkdir()
  shutil.copy(tuned_dir / 'salt_t5x.json', model_dir)
  for k in range(0, step + 1, 10):
    name = f'checkpoint_{k}'
    shutil.copytree(tuned_dir / name, model_dir / name)
  resumed = sft(model_dir, tmp_path / 'gone')
  assert resumed.rows == tuned.rows[step:]
  for name, points in tuned.scalars.items():
    expected = {k: v for k, v in points.items() if k > step}
    assert resumed.scalars[name] == expected, name
  tiny.assert_equal(resumed.state, tuned.state)


def test_a_resumed_run_began_with_the_same_checkpoint(
  tuned, tuned_dir, pretrained, tmp_path
):
  """Whatever its path; a checkpoint saved again is another one."""
  del tuned
  model_dir = tmp_path / 'model'
  (model_dir / 'checkpoint_10').mkdir(parents=True)
  shutil.copy(tuned_dir / 'initial_checkpoint.json', model_dir)
  check = lambda x: fine_tune._check_resumed(str(x), str(model_dir))
  copy = shutil.copytree(pretrained, tmp_path / 'copy')
  for path in pretrained, copy, pretrained / 'checkpoint_20', tmp_path / 'gone':
    check(path)
  manifest = copy / 'checkpoint_20' / 'state' / 'manifest.ocdbt'
  manifest.write_bytes(manifest.read_bytes() + b'another')
  for path in copy, copy / 'checkpoint_20', pretrained / 'checkpoint_0':
    with pytest.raises(ValueError, match='INITIAL_CHECKPOINT.*identity was'):
      check(path)
  # Pre-training has gone on, and keeps only newer checkpoints.
  shutil.rmtree(copy / 'checkpoint_20')
  check(copy)


def test_loss_counts_targets_only(tuned):
  """Each token of a target counts once, and no token of the inputs."""
  rows = np.array(tuned.rows[0], np.int32)
  lengths = {
    f'{x["animal"]}?': len(f'It is {x["colour"]}.') + 1 for x in colours(40, 0)
  }
  contexts, targets = [], []
  for row in rows:
    text = VOCABULARY.decode(row[row > 1].tolist())
    [context] = [x for x in lengths if text.startswith(x)]
    contexts.append(len(context))
    targets.append(lengths[context])
  task = seqio.TaskRegistry.get('colours')
  converter = feature_converters.FixedWidthFeatureConverter(pack=False)
  batch = next(
    converter(task.get_dataset(LENGTHS), LENGTHS)
    .batch(len(rows))
    .as_numpy_iterator()
  )
  np.testing.assert_array_equal(batch['decoder_target_tokens'], rows)
  weights = batch['decoder_loss_weights']
  np.testing.assert_array_equal(weights.sum(axis=1), targets)

  model = tiny.make_model(
    vocab=VOCABULARY,
    vocab_size=264,
    num_layers=1,
    inputs_bidirectional_attention=True,
  )
  shapes = jax.eval_shape(
    model.module.init, jax.random.key(0), batch['decoder_input_tokens'], rows
  )
  rng = np.random.default_rng(0)
  params = jax.tree.map(
    lambda x: jnp.array(rng.normal(size=x.shape), jnp.float32), shapes['params']
  )
  loss = jax.jit(lambda batch: model.loss_fn(params, batch, None)[0])
  relabelled = rows.copy()
  for row, context in zip(relabelled, contexts, strict=True):
    row[:context] = 7
  assert loss({**batch, 'decoder_target_tokens': relabelled}) == loss(batch)
  # Which can fail: a target's label counts.
  relabelled[0, contexts[0]] = 7
  assert loss({**batch, 'decoder_target_tokens': relabelled}) != loss(batch)


def make_trainer(initial, summary_dir=None):
  model = tiny.make_model(
    vocab=VOCABULARY,
    vocab_size=264,
    scan_layers=True,
    inputs_bidirectional_attention=True,
  )
  return tiny.make_trainer(
    model,
    summary_dir=summary_dir and str(summary_dir),
    cls=fine_tune.FineTuneTrainer,
    initial_checkpoint=initial and str(initial),
  )


@pytest.mark.parametrize('name, step', [('', 20), ('checkpoint_10', 10)])
def test_accepts_model_directories_and_checkpoints(name, step, pretrained):
  with make_trainer(pretrained / name) as trainer:
    found = tiny.host_copy(trainer.train_state)
  assert_equal(found['target'], saved(pretrained, step)['target'])
  assert found['state']['step'] == 0


def test_trains_bfloat16_checkpoints_in_float32(
  pretrained, tmp_path, monkeypatch
):
  restore = restore_lib.parameters
  monkeypatch.setattr(
    restore_lib,
    'parameters',
    lambda *args, **kwargs: restore(*args, **{**kwargs, 'dtype': 'bfloat16'}),
  )
  with make_trainer(pretrained) as trainer:
    found = trainer.train_state.params
  assert {x.dtype.name for x in jax.tree.leaves(found)} == {'float32'}


def other_vocabulary(pretrained, tmp_path):
  """A copy whose record names another vocabulary."""
  copy = tmp_path / 'other'
  shutil.copytree(pretrained, copy)
  run_record.write(str(copy), run_record.RunRecord('other', 259))
  return copy


def other_architecture(pretrained, tmp_path):
  del pretrained
  handler = ocp.PyTreeCheckpointHandler(use_ocdbt=True)
  with ocp.Checkpointer(handler) as checkpointer:
    checkpointer.save(
      tmp_path / 'other/checkpoint_5/state',
      {'target': {'embedding': np.zeros((264, 8))}},
    )
  return tmp_path / 'other'


@pytest.mark.parametrize(
  'initial, message',
  [
    (lambda *_: None, 'INITIAL_CHECKPOINT.* = None: set it to the model'),
    (lambda *_: '', "INITIAL_CHECKPOINT.* = '': set it to the model"),
    (lambda _, x: x / 'no', 'INITIAL_CHECKPOINT.*there is no such direct'),
    (lambda _, x: x, 'INITIAL_CHECKPOINT.*holds no finished checkpoint'),
    (
      lambda x, _: x / 'checkpoint_15',
      'INITIAL_CHECKPOINT.*there is no such directory',
    ),
    (
      other_architecture,
      r'(?s)MODEL is not the architecture of .*embedding is \(264, 8\) in',
    ),
    (other_vocabulary, 'INITIAL_CHECKPOINT.*with another vocabulary'),
  ],
)
def test_rejects_initial_checkpoints(initial, message, pretrained, tmp_path):
  summary_dir = tmp_path / 'model'
  summary_dir.mkdir()
  with pytest.raises(ValueError, match=message):
    make_trainer(initial(pretrained, tmp_path), summary_dir)
  # Nothing of the run has begun.
  assert not list(summary_dir.iterdir())


def test_resumed_run_rejects_an_empty_initial_checkpoint(pretrained):
  with pytest.raises(ValueError, match="INITIAL_CHECKPOINT.* = '': set it to"):
    make_trainer('', pretrained)


@pytest.mark.parametrize('name', ['', 'checkpoint_20'])
def test_rejects_the_model_dir_of_the_pretraining_run(name, pretrained):
  with pytest.raises(ValueError, match='choose another MODEL_DIR'):
    make_trainer(pretrained / name, pretrained)


def test_rejects_restore_checkpoint_config(pretrained, tmp_path):
  with pytest.raises(
    ValueError, match='RestoreCheckpointConfig.path .*step 20'
  ):
    sft(
      tmp_path / 'model',
      pretrained,
      f'utils.RestoreCheckpointConfig.path = "{pretrained}/checkpoint_20"',
      'utils.RestoreCheckpointConfig.mode = "specific"',
    )
