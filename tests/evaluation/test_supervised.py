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


"""Evaluation by greedy decoding, held against the network's own choices."""

from absl import logging
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import seqio
import tensorflow as tf

from salt_t5x.data import supervised_tasks
from salt_t5x.evaluation import supervised as supervised_lib
from salt_t5x.evaluation import text_metrics
from salt_t5x.inference import language_model
from t5x import partitioning
import tiny

T, TARGETS = 48, 12
LENGTHS = {'inputs': T, 'targets': TARGETS}
VOCABULARY = seqio.ByteVocabulary()
EXAMPLES = [
  {'prompt': 'One day', 'answer': 'a fox'},
  {'prompt': 'x' * 50, 'answer': 'a reference that is not cut'},
  {'prompt': 'Nobody knew that', 'answer': 'it was late'},
]


@pytest.fixture(scope='module')
def made():
  """(model, its parameters, a LanguageModel)."""
  model = tiny.make_model(
    vocab=VOCABULARY, vocab_size=264, inputs_bidirectional_attention=True
  )
  tokens = jnp.ones((1, 2), jnp.int32)
  shapes = jax.eval_shape(model.module.init, jax.random.key(0), tokens, tokens)
  rng = np.random.default_rng(0)
  params = jax.tree.map(
    lambda x: jnp.array(rng.normal(size=x.shape), jnp.float32), shapes['params']
  )
  compiled = language_model.LanguageModel(
    model,
    params,
    jax.tree.map(lambda _: jax.sharding.PartitionSpec(), params),
    partitioning.PjitPartitioner(num_partitions=1),
    batch_size=2,
    length=T,
  )
  return model, params, compiled


@pytest.fixture
def register():
  def call(**options):
    seqio.TaskRegistry.remove('stories')
    options = dict(metric_fns=[text_metrics.accuracy]) | options
    return supervised_tasks.register(
      'stories',
      {'test': lambda: iter(EXAMPLES)},
      inputs='{prompt}',
      targets='{answer}',
      vocabulary=VOCABULARY,
      **options,
    )

  yield call
  seqio.TaskRegistry.remove('stories')


def greedy(made, text):
  """The likeliest tokens, one after the other, without a cache."""
  model, params, _ = made
  context = VOCABULARY.encode(text)[: T - TARGETS]
  tokens = []
  while len(tokens) < TARGETS:
    # The next token's place holds anything but padding.
    row = [*context, *tokens, 2]
    row = np.pad(row, (0, T + 1 - len(row)))[None]
    found = tiny.jitted(model.module)(
      params,
      np.roll(row, 1),
      row,
      decoder_causal_attention=(np.arange(T + 1) <= len(context))[None].astype(
        np.int32
      ),
    )
    place = len(context) + len(tokens)
    token = int(np.argmax(found[0, place, : VOCABULARY.vocab_size]))
    if token <= 1:
      break
    tokens.append(token)
  return VOCABULARY.decode(tokens)


def confidence_of(made, text, tokens):
  """log P of the tokens, and of the end where they are not TARGETS."""
  context = list(VOCABULARY.encode(text)[: T - TARGETS])
  tokens = [*tokens, VOCABULARY.eos_id][:TARGETS]
  return made[2].log_likelihoods([(context, tokens)])[0].value


def test_predictions_equal_greedy_decoding(made, register, monkeypatch):
  logged = []
  monkeypatch.setattr(logging, 'warning', lambda *args: logged.append(args))
  expected = [greedy(made, x['prompt']) for x in EXAMPLES]
  assert len(set(expected)) == 3
  seen = []

  def count(targets, predictions):
    seen.append((list(targets), list(predictions)))
    return {'longest': max(map(len, predictions))}

  task = register(metric_fns=[text_metrics.accuracy, count])
  metrics, results = supervised_lib.evaluate(made[2], task, 'test', LENGTHS)
  answers = [x['answer'] for x in EXAMPLES]
  assert [x.pop('doc_id') for x in results] == [0, 1, 2]
  assert [x.pop('score') for x in results] == [0.0] * 3
  for x, confidence in zip(
    EXAMPLES, [x.pop('confidence') for x in results], strict=True
  ):
    tokens = made[2].continuations(
      [VOCABULARY.encode(x['prompt'])[: T - TARGETS]], TARGETS
    )[0]
    assert confidence == pytest.approx(
      confidence_of(made, x['prompt'], tokens), abs=1e-3
    )
  assert results == [
    {'inputs': x['prompt'], 'target': x['answer'], 'prediction': y,
     'inputs_cut': cut}
    for x, y, cut in zip(EXAMPLES, expected, [0, 50 - 36, 0], strict=True)
  ]  # fmt: skip
  # Targets are whole where they are compared.
  assert seen[0] == (answers, expected)
  assert metrics == {'accuracy': 0, 'longest': max(map(len, expected))}
  assert logged == [(logged[0][0], 'stories', 1, 3, T - TARGETS)]


def test_scores_a_right_answer(made, register, monkeypatch):
  answers = [greedy(made, x['prompt']) for x in EXAMPLES]
  right = [
    {'prompt': x['prompt'], 'answer': answer}
    for x, answer in zip(EXAMPLES, answers, strict=True)
  ]
  right[1]['answer'] = 'another'
  monkeypatch.setitem(globals(), 'EXAMPLES', right)
  metrics, _ = supervised_lib.evaluate(made[2], register(), 'test', LENGTHS)
  assert metrics == {'accuracy': pytest.approx(200 / 3)}
  metrics, results = supervised_lib.evaluate(
    made[2], register(), 'test', LENGTHS, max_examples=1
  )
  assert metrics == {'accuracy': 100}
  assert len(results) == 1


def test_a_task_of_seqios_own(made):
  """Its postprocessor and its decoded targets are used, as seqio does."""
  text = EXAMPLES[0]['prompt']

  def read(split, shuffle_files, seed=None):
    del shuffle_files, seed
    found = tf.data.Dataset.from_tensors(
      {
        'inputs': np.array(VOCABULARY.encode(text), np.int32),
        'targets': np.array(VOCABULARY.encode('a fox'), np.int32),
      }
    )
    return found.take(0) if split == 'empty' else found

  task = seqio.Task(
    'own',
    source=seqio.FunctionDataSource(read, ['test', 'empty']),
    preprocessors=[],
    output_features={
      'inputs': seqio.Feature(VOCABULARY, add_eos=False),
      'targets': seqio.Feature(VOCABULARY, add_eos=False),
    },
    postprocess_fn=lambda x, example, is_target: (x[:2], is_target),
    metric_fns=[lambda targets, predictions: {'seen': (targets, predictions)}],
  )
  metrics, results = supervised_lib.evaluate(made[2], task, 'test', LENGTHS)
  prediction = greedy(made, text)
  assert metrics == {'seen': ([('a ', True)], [(prediction[:2], False)])}
  assert results[0].pop('confidence') < 0
  # A metric that is no number makes no score.
  assert results == [
    {
      'doc_id': 0,
      'inputs': text,
      'target': 'a fox',
      'prediction': prediction,
    }
  ]
  with pytest.raises(ValueError, match="split 'empty' of own has no example"):
    supervised_lib.evaluate(made[2], task, 'empty', LENGTHS)


@pytest.mark.parametrize(
  'lengths',
  [
    {'targets': T},
    {'inputs': T, 'targets': 0},
    {'inputs': T + 1, 'targets': 12},
  ],
)
def test_rejects_lengths_without_room(lengths, made, register):
  with pytest.raises(
    ValueError, match='TASK_FEATURE_LENGTHS = .*(leave room|made for 48)'
  ):
    supervised_lib.evaluate(made[2], register(), 'test', lengths)


def test_rejects_tasks(made, register):
  with pytest.raises(ValueError, match='stories has no metric of predictions'):
    supervised_lib.evaluate(made[2], register(metric_fns=[]), 'test', LENGTHS)
