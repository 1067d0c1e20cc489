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


"""Evaluation by greedy decoding, compared with the network's own choices."""

from absl import logging
import numpy as np
import pytest
import seqio
import tensorflow as tf

from salt_t5x.data import supervised_tasks
from salt_t5x.evaluation import supervised as supervised_lib
from salt_t5x.evaluation import text_metrics

T, TARGETS = 64, 12
LENGTHS = {'inputs': T, 'targets': TARGETS}
VOCABULARY = seqio.ByteVocabulary()
EXAMPLES = [
  {'prompt': 'One day', 'answer': 'a fox'},
  {'prompt': 'x' * 80, 'answer': 'a reference that is not cut'},
  {'prompt': 'Nobody knew that', 'answer': 'it was late'},
]


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


def tokens_of(text):
  return list(VOCABULARY.encode(text))[: T - TARGETS]


def greedy(reference, text):
  return VOCABULARY.decode(reference.greedy(tokens_of(text), TARGETS))


def test_predictions_equal_greedy_decoding(reference, register, monkeypatch):
  logged = []
  monkeypatch.setattr(logging, 'warning', lambda *args: logged.append(args))
  expected = [greedy(reference, x['prompt']) for x in EXAMPLES]
  assert len(set(expected)) == 3
  seen = []

  def count(targets, predictions):
    seen.append((list(targets), list(predictions)))
    return {'longest': max(map(len, predictions))}

  task = register(metric_fns=[text_metrics.accuracy, count])
  metrics, results = supervised_lib.evaluate(
    reference.compiled, task, 'test', LENGTHS
  )
  answers = [x['answer'] for x in EXAMPLES]
  assert [x.pop('doc_id') for x in results] == [0, 1, 2]
  assert [x.pop('score') for x in results] == [0.0] * 3
  for x, confidence in zip(
    EXAMPLES, [x.pop('confidence') for x in results], strict=True
  ):
    context = tokens_of(x['prompt'])
    tokens = reference.greedy(context, TARGETS)
    # Outputs that stopped early include their end.
    tokens = [*tokens, VOCABULARY.eos_id][:TARGETS]
    assert confidence == pytest.approx(
      reference.log_likelihood(context, tokens)[0], abs=1e-3
    )
  assert results == [
    {'inputs': x['prompt'], 'target': x['answer'], 'prediction': y,
     'inputs_cut': cut}
    for x, y, cut in zip(EXAMPLES, expected, [0, 28, 0], strict=True)
  ]  # fmt: skip
  # Targets are whole where they are compared.
  assert seen[0] == (answers, expected)
  assert metrics == {'accuracy': 0, 'longest': max(map(len, expected))}
  assert logged == [(logged[0][0], 'stories', 1, 3, T - TARGETS)]


def test_scores_a_right_answer(reference, register, monkeypatch):
  answers = [greedy(reference, x['prompt']) for x in EXAMPLES]
  right = [
    {'prompt': x['prompt'], 'answer': answer}
    for x, answer in zip(EXAMPLES, answers, strict=True)
  ]
  right[1]['answer'] = 'another'
  monkeypatch.setitem(globals(), 'EXAMPLES', right)
  metrics, _ = supervised_lib.evaluate(
    reference.compiled, register(), 'test', LENGTHS
  )
  assert metrics == {'accuracy': pytest.approx(200 / 3)}
  metrics, results = supervised_lib.evaluate(
    reference.compiled, register(), 'test', LENGTHS, max_examples=1
  )
  assert metrics == {'accuracy': 100}
  assert len(results) == 1


def test_a_task_of_seqios_own(reference):
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
  metrics, results = supervised_lib.evaluate(
    reference.compiled, task, 'test', LENGTHS
  )
  prediction = greedy(reference, text)
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
    supervised_lib.evaluate(reference.compiled, task, 'empty', LENGTHS)


@pytest.mark.parametrize(
  'lengths, options, message',
  [
    ({'targets': T}, {}, 'TASK_FEATURE_LENGTHS = .* leave room'),
    ({'inputs': T, 'targets': 0}, {}, 'TASK_FEATURE_LENGTHS = .* leave room'),
    (LENGTHS, {'metric_fns': []}, 'stories has no metric of predictions'),
  ],
)
def test_rejects_tasks(lengths, options, message, register):
  with pytest.raises(ValueError, match=message):
    supervised_lib.check(register(**options), lengths)
