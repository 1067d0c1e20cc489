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

"""lm-eval's requests to a model, compared with one sequence at a time."""

import json

import numpy as np
import pytest
from sentencepiece import sentencepiece_model_pb2
import seqio
import tensorflow as tf

from salt_t5x.data import sequences
from salt_t5x.inference import language_model

# Each skips these tests where lm-eval is not installed.
lm_eval = pytest.importorskip('lm_eval')
tasks = pytest.importorskip('lm_eval.tasks')
instance = pytest.importorskip('lm_eval.api.instance')
lm_eval_model = pytest.importorskip(
  'salt_t5x.evaluation.few_shot.lm_eval_model'
)

LENGTH = 64
VOCABULARY = seqio.ByteVocabulary()
TEXTS = [
  ('The cat sat on', ' the mat.'),
  ('', 'no context'),
  ('It ends with a space ', 'and goes on'),
  ('a', 'b'),
  ('x' * 80, ' too long'),
  ('short', 'y' * 90),
]


@pytest.fixture
def adapter(reference):
  return lm_eval_model.HarnessModel(reference.compiled, VOCABULARY)


def request(kind, *arguments):
  return instance.Instance(kind, {}, arguments, 0, ('task', 0, 1))


def test_log_likelihoods(adapter, reference):
  requests = [request('loglikelihood', *pair) for pair in TEXTS]
  found = adapter.loglikelihood(requests, disable_tqdm=True)
  for (context, continuation), (value, is_greedy) in zip(
    TEXTS[:5], found[:5], strict=True
  ):
    if context.endswith(' '):  # lm-eval counts it to the next word.
      context, continuation = context[:-1], f' {continuation}'
    continuation = VOCABULARY.encode(continuation)
    context = VOCABULARY.encode(context)[-(LENGTH - len(continuation)) :]
    expected = reference.log_likelihood(context, continuation)
    np.testing.assert_allclose(value, expected[0], rtol=1e-6, atol=1e-4)
    assert is_greedy == expected[1]
  # Continuations longer than T are scored in windows, without context.
  np.testing.assert_allclose(
    found[5][0], rolling(reference, TEXTS[5][1]), rtol=1e-6, atol=1e-3
  )
  assert adapter.truncated['loglikelihood'] == (2, 6)


def rolling(reference, text):
  tokens, total, start = list(VOCABULARY.encode(text)), 0.0, 0
  while start < len(tokens):
    end = min(start + LENGTH - 1, len(tokens))
    # A last window that is short has more context.
    context = tokens[max(end - LENGTH, 0) : start]
    total += reference.log_likelihood(context, tokens[start:end])[0]
    start = end
  return total


def test_rolling_log_likelihoods_over_windows(adapter, reference):
  texts = ['tiny', 'a text that is long. ' * 11, 'z' * 63, 'z' * 64]
  requests = [request('loglikelihood_rolling', text) for text in texts]
  found = adapter.loglikelihood_rolling(requests, disable_tqdm=True)
  expected = [rolling(reference, text) for text in texts]
  np.testing.assert_allclose(found, expected, rtol=1e-6, atol=2e-3)


def test_generation_stops(adapter, reference):
  contexts = ['Once upon', 'x' * 100]
  whole = adapter.generate_until(
    [request('generate_until', x, {'max_gen_toks': 20}) for x in contexts],
    disable_tqdm=True,
  )
  for context, text in zip(contexts, whole, strict=True):
    tokens = VOCABULARY.encode(context)[-(LENGTH - 20) :]
    expected = reference.greedy(tokens, 20)
    assert text == VOCABULARY.decode([*tokens, *expected])[len(tokens) :]
  assert adapter.truncated['generate_until'] == (1, 2)
  stop = whole[0][3]
  cut = adapter.generate_until(
    [
      request(
        'generate_until', contexts[0], {'until': until, 'max_gen_toks': n}
      )
      for until, n in [([stop, '\n\n'], 20), (stop, 20), ([], 2)]
    ],
    disable_tqdm=True,
  )
  before = whole[0][: whole[0].index(stop)]
  assert cut[:2] == [before, before]
  assert whole[0].startswith(cut[2])


def test_confidence_is_the_log_likelihood_of_the_output(adapter, reference):
  context = 'Once upon'
  tokens = list(VOCABULARY.encode(context))
  generated = reference.greedy(tokens, 20)
  texts = [
    VOCABULARY.decode([*tokens, *generated[:n]])[len(context) :]
    for n in range(len(generated) + 1)
  ]
  # Up to the stop string, and with it.
  stop = texts[-1][3:5]
  end = next(n for n, text in enumerate(texts) if stop in text)
  assert 0 < end < len(generated) == 20
  for until, expected in [([], generated), ([stop], generated[:end])]:
    options = {'until': until, 'max_gen_toks': 20}
    found = instance.Instance(
      'generate_until', {}, (context, options), 0, ('answers', 7, 1)
    )
    adapter.generate_until([found], disable_tqdm=True)
    np.testing.assert_allclose(
      adapter.confidences['answers', 7],
      reference.log_likelihood(tokens, expected)[0],
      atol=1e-4,
    )


@pytest.mark.parametrize(
  'options, message',
  [
    ({'do_sample': True}, 'asks for samples'),
    ({'temperature': 0.7}, 'asks for samples'),
    ({'max_gen_toks': 64}, 'max_gen_toks = 64 must be positive and less than'),
  ],
)
def test_rejects_unsupported_generation(adapter, options, message):
  with pytest.raises(ValueError, match=message):
    adapter.generate_until([request('generate_until', 'a', options)])


# --- Tokens -------------------------------------------------------------------

# Several segmentations of 12 '=' are equally likely.
PIECES = {c: -4.0 for c in 'abcdefghijklmnopqrstuvwxyz.-\n▁１'} | {
  '=': -4.3,
  '==': -7.1,
  '====': -9.7,
  '=====': -5.0,
  '========': -10.1,
  '▁▁': -5.0,
  '▁▁▁▁': -5.5,
  '▁the': -5.0,
  '.\n': -5.0,
  '.\n-': -5.5,
  '\n\n': -5.0,
}


@pytest.fixture(scope='module')
def pieces(tmp_path_factory):
  """A vocabulary with byte fallback and the pieces above."""
  model = sentencepiece_model_pb2.ModelProto()

  def add(piece, score, kind):
    model.pieces.add(piece=piece, score=score, type=kind)

  kinds = sentencepiece_model_pb2.ModelProto.SentencePiece
  add('<pad>', 0, kinds.CONTROL)
  add('</s>', 0, kinds.CONTROL)
  add('<unk>', 0, kinds.UNKNOWN)
  for i in range(256):
    add(f'<0x{i:02X}>', -50, kinds.BYTE)
  for piece, score in PIECES.items():
    add(piece, score, kinds.NORMAL)
  spec = model.trainer_spec
  spec.byte_fallback = True
  spec.pad_id, spec.eos_id, spec.unk_id, spec.bos_id = 0, 1, 2, -1
  model.normalizer_spec.name = 'identity'
  model.normalizer_spec.add_dummy_prefix = False
  model.normalizer_spec.remove_extra_whitespaces = False
  path = tmp_path_factory.mktemp('vocabulary') / 'model'
  path.write_bytes(model.SerializeToString())
  return seqio.SentencePieceVocabulary(str(path), extra_ids=4)


class Recorder:
  """Keeps the requests that a model would get."""

  length = 64

  def log_likelihoods(self, pairs, progress=None):
    del progress
    self.pairs = pairs
    return [language_model.LogLikelihood(-1.0, 1, 1) for _ in pairs]


def test_prompts_have_the_tokens_of_training(pieces):
  """Python's SentencePiece differs where segmentations are equally likely."""
  texts = [
    '=' * 12,
    f'a\n{"=" * 7}\n{"=" * 37}',
    'a' + ' ' * 7 + 'b',
    '   leading and trailing   ',
    '\n\n\nlines.\n- a\n',
    'ＦＵＬＬ　１２３',
    '好的, é, e\u0301',
    'x <extra_id_0> y',
    '',
  ]
  data = tf.data.Dataset.from_tensor_slices({'text': texts})
  features = {'targets': seqio.Feature(pieces)}
  trained = sequences.tokenize(data, features).as_numpy_iterator()
  trained = [example['targets'].tolist() for example in trained]
  assert pieces.encode(texts[0]) != trained[0]
  adapter = lm_eval_model.HarnessModel(Recorder(), pieces)
  assert [adapter.tok_encode(text) for text in texts] == trained


@pytest.mark.parametrize(
  'context, continuation, scored',
  [
    ('the end', ' the end', [' the', ' ', 'e', 'n', 'd']),
    # A piece spans the join, before or after white space.
    ('the end.', '\n- a', ['.\n-', ' ', 'a']),
    ('the end.\n', '- a', ['.\n-', ' ', 'a']),
    ('the end.', '\nb', ['.\n', 'b']),
    ('the end.\n', '\nb', ['\n\n', 'b']),
    ('the end ', 'the', [' the']),
    ('a   ', '   b', ['  ', '    ', 'b']),
    ('', 'a', ['a']),
  ],
)
def test_context_and_answer_are_the_tokens_of_the_whole_text(
  pieces, context, continuation, scored
):
  """None is lost, and none is twice, where a piece spans the join."""
  recorder = Recorder()
  adapter = lm_eval_model.HarnessModel(recorder, pieces)
  adapter.loglikelihood(
    [request('loglikelihood', context, continuation)], disable_tqdm=True
  )
  [(before, answer)] = recorder.pairs
  assert before + answer == adapter.tok_encode(context + continuation)
  assert [pieces.decode([t]) for t in answer] == scored


def test_answers_to_a_question_count_the_same_context(pieces):
  """Though a piece spans the join of one of them."""
  recorder = Recorder()
  adapter = lm_eval_model.HarnessModel(recorder, pieces)
  answers = ['\n- a', ' the']
  adapter.loglikelihood(
    [request('loglikelihood', 'the end.', x) for x in answers],
    disable_tqdm=True,
  )
  (context, first), (other, second) = recorder.pairs
  assert context == other
  for answer, tokens in zip(answers, (first, second), strict=True):
    assert context + tokens == adapter.tok_encode('the end.' + answer)


TASK = """
task: colours
dataset_path: json
dataset_kwargs: {{data_files: {{test: {path}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: "{{{{answer}}}}"
metric_list: [{{metric: acc, aggregation: mean, higher_is_better: true}}]
"""


def test_lm_eval_runs_a_task(adapter, reference, tmp_path, monkeypatch):
  monkeypatch.setenv('HF_HOME', str(tmp_path / 'hub'))
  items = [
    {'question': f'{x}:', 'choices': [' red', ' blue', ' green'], 'answer': i}
    for i, x in [(0, 'blood'), (1, 'sky'), (2, 'grass')]
  ]
  path = tmp_path / 'items.jsonl'
  path.write_text('\n'.join(map(json.dumps, items)))
  (tmp_path / 'tasks').mkdir()
  (tmp_path / 'tasks/colours.yaml').write_text(TASK.format(path=path))
  found = lm_eval.simple_evaluate(
    adapter,
    tasks=['colours'],
    task_manager=tasks.TaskManager(
      include_path=str(tmp_path / 'tasks'), include_defaults=False
    ),
  )
  chosen = [
    np.argmax(
      [
        reference.log_likelihood(
          VOCABULARY.encode(x['question']), VOCABULARY.encode(choice)
        )[0]
        for choice in x['choices']
      ]
    )
    for x in items
  ]
  expected = np.mean(
    [c == x['answer'] for c, x in zip(chosen, items, strict=True)]
  )
  assert found['results']['colours']['acc,none'] == pytest.approx(expected)
