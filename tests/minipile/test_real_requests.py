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

"""500 requests of real benchmarks to a trained student, against NumPy.

Not in continuous integration, which has neither. After `make evaluate`:

    SALT_T5X_REQUESTS=runs/salt/benchmarks SALT_T5X_DATA=runs/salt/data \
    SALT_T5X_CHECKPOINT=runs/salt/seed_0/salt OPENBLAS_NUM_THREADS=1 \
      python -m pytest -s tests/test_real_requests.py

It takes minutes, and far more if NumPy shares small products among threads.
"""

import itertools
import json
import os

import gin
import jax
import network_reference
import numpy as np
import pytest

from salt_t5x import models
from salt_t5x.checkpoints import find
from salt_t5x.checkpoints import restore as restore_lib
from salt_t5x.inference import language_model
from t5x import partitioning
import tiny_runs

_NAMES = ('SALT_T5X_REQUESTS', 'SALT_T5X_CHECKPOINT', 'SALT_T5X_DATA')
_MISSING = [name for name in _NAMES if name not in os.environ]
if _MISSING:
  pytest.skip(
    f'{", ".join(_MISSING)} not set: they name the folder that '
    'salt_t5x.minipile.benchmark_data writes, the model directory of a '
    'student of `make salt`, and the data it was trained on, in this order: '
    f'{", ".join(_NAMES)}.',
    allow_module_level=True,
  )
# Each skips these tests where lm-eval is not installed.
pytest.importorskip('lm_eval')
instance = pytest.importorskip('lm_eval.api.instance')
harness = pytest.importorskip('salt_t5x.evaluation.few_shot.lm_eval_model')

T = 128
MAX_TOKENS = 32


@pytest.fixture(scope='module')
def made():
  """(lm-eval's view of the student, its tokens' model, reference's logits)."""
  files = [
    str(tiny_runs.ROOT / 'gin' / path)
    for path in ('students/tiny.gin', 'recipes/tiny.gin')
  ]
  bindings = [
    'from __gin__ import dynamic_registration',
    'import builtins',
    'builtins.dict.model = %MODEL',
  ]
  with tiny_runs.configured(files, bindings):
    model = gin.get_configurable(dict)()['model']
  partitioner = partitioning.PjitPartitioner(num_partitions=1)
  shapes, axes = models.shapes_and_axes(
    model, models.features_of(np.zeros((1, T), np.int32)), partitioner
  )
  params = restore_lib.parameters(
    find.checkpoint(
      os.environ['SALT_T5X_CHECKPOINT'], parameter='SALT_T5X_CHECKPOINT'
    ),
    shapes,
    axes,
    partitioner.mesh,
    parameter='gin/students/tiny.gin',
  )
  tokens_model = language_model.LanguageModel(
    model, params, axes, partitioner, batch_size=16, length=T
  )
  vocabulary = model.output_vocabulary
  exact = jax.tree.map(lambda x: np.asarray(x, np.float64), params)

  def logits_of(tokens, context_length):
    # The student is trained as a prefix LM.
    found = network_reference.logits(
      exact, model.module.config, tokens, context_length
    )
    return found[:, : vocabulary.vocab_size]

  return harness.HarnessModel(tokens_model, vocabulary), tokens_model, logits_of


def documents(name, split, count=None):
  path = os.path.join(os.environ['SALT_T5X_REQUESTS'], name, f'{split}.jsonl')
  with open(path, encoding='utf-8') as lines:
    return [json.loads(line) for line in itertools.islice(lines, count)]


def request(kind, *arguments, doc_id=0):
  return instance.Instance(kind, {}, arguments, 0, ('task', doc_id, 1))


def judged_texts():
  """400 pairs of (context, continuation)."""
  for document in documents('lambada', 'test', 200):
    context, word = document['text'].rsplit(' ', 1)
    yield context, f' {word}'
  for i, document in enumerate(documents('hellaswag', 'validation', 100)):
    context = f'{document["ctx_a"]} {document["ctx_b"].capitalize()}'
    yield context, f' {document["endings"][i % 4]}'
  for i, document in enumerate(documents('arc_easy', 'test', 100)):
    choices = document['choices']['text']
    question = f'Question: {document["question"]}\nAnswer:'
    yield question, f' {choices[i % len(choices)]}'


def report(kind, differences, **more):
  print(
    f'\n{len(differences)} {kind}: largest difference {max(differences):.2g}, '
    + ', '.join(f'{name} {value}' for name, value in more.items())
  )


def test_log_likelihoods(made):
  view, _, logits_of = made
  texts = list(judged_texts())
  found = view.loglikelihood(
    [request('loglikelihood', *pair) for pair in texts], disable_tqdm=True
  )
  differences, sizes, flags, nearest = [], [], [], []
  for (context, continuation), (value, is_greedy) in zip(
    texts, found, strict=True
  ):
    # Spaces are part of the word that follows them.
    stripped = context.rstrip()
    whole = view.tok_encode(context + continuation)
    before = view.tok_encode(stripped)
    after = whole[len(before) :]
    before = before[max(len(before) + len(after) - T, 0) :]
    expected, agrees, least = network_reference.judge(logits_of, before, after)
    differences.append(abs(value - expected))
    sizes.append(len(before) + len(after))
    flags.append((is_greedy, agrees))
    nearest.append(least)
  report(
    'log-likelihoods',
    differences,
    lengths=f'{min(sizes)} to {max(sizes)}',
    greedy=sum(a for a, _ in flags),
    nearest=f'{min(nearest):.2g}',
    largest=f'{min(x for x, _ in found):.0f}',
  )
  assert len(found) == 400
  # All three widths, and contexts that were cut.
  assert min(sizes) <= 32 and any(32 < x <= 64 for x in sizes)
  assert view.truncated['loglikelihood'][0] > 0
  assert max(differences) < 1e-4
  assert all(a == b for a, b in flags)


def test_rolling_log_likelihoods(made):
  view, _, logits_of = made
  # Of 3 to 5 windows. What float32 leaves of a token's log-likelihood, 1e-6,
  # adds up: of more than about 1,000 tokens the sum may be off by 1e-4.
  texts = [
    text
    for text in dict.fromkeys(
      document['context'] for document in documents('squad', 'validation')
    )
    if 2 * (T - 1) < len(view.tok_encode(text)) <= 5 * (T - 1)
  ][:50]
  found = view.loglikelihood_rolling(
    [request('loglikelihood_rolling', text) for text in texts],
    disable_tqdm=True,
  )
  differences, windows = [], []
  for text, value in zip(texts, found, strict=True):
    tokens, expected, start, count = view.tok_encode(text), 0.0, 0, 0
    while start < len(tokens):
      end = min(start + T - 1, len(tokens))
      # As much context as there is room for, one token at least.
      context = tokens[max(end - T, 0) : start]
      expected += network_reference.judge(
        logits_of, context, tokens[start:end]
      )[0]
      start, count = end, count + 1
    differences.append(abs(value - expected))
    windows.append(count)
  report(
    'rolling log-likelihoods',
    differences,
    windows=f'{min(windows)} to {max(windows)}',
    largest=f'{min(found):.0f}',
  )
  assert len(found) == 50 and min(windows) == 3 and max(windows) == 5
  assert max(differences) < 1e-4


def test_generation(made):
  view, tokens_model, logits_of = made
  contexts = [
    f'Question: {document["question"]}\nAnswer:'
    for document in documents('triviaqa', 'validation', 50)
  ]
  options = {'max_gen_toks': MAX_TOKENS, 'until': []}
  texts = view.generate_until(
    [
      request('generate_until', context, options, doc_id=i)
      for i, context in enumerate(contexts)
    ],
    disable_tqdm=True,
  )
  ids = [view.tok_encode(context)[-(T - MAX_TOKENS) :] for context in contexts]
  with_cache = tokens_model.continuations(ids, MAX_TOKENS)
  differences, nearest = [], []
  for i, (context, tokens) in enumerate(zip(ids, with_cache, strict=True)):
    expected, least = network_reference.continue_greedily(
      logits_of, context, MAX_TOKENS, ends=(0, view.eot_token_id)
    )
    nearest.append(least)
    assert tokens == expected
    decode = view._vocabulary.decode
    assert decode([*context, *expected]) == decode(context) + texts[i]
    if len(expected) < MAX_TOKENS:
      expected.append(view.eot_token_id)
    [found] = tokens_model.log_likelihoods([(context, expected)])
    log_likelihood, agrees, _ = network_reference.judge(
      logits_of, context, expected
    )
    assert found.is_greedy and agrees
    differences.append(abs(found.value - log_likelihood))
    differences.append(abs(view.confidences['task', i] - log_likelihood))
  report(
    'log-likelihoods of 50 continuations',
    differences,
    nearest=f'{min(nearest):.2g}',
  )
  assert len(set(texts)) > 10
  assert max(differences) < 1e-4
