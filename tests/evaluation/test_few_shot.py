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


"""The 28 benchmarks on small local copies, against scores made by hand."""

import dataclasses
import json
import math

import numpy as np
import pytest

import few_shot_data
from salt_t5x.evaluation.few_shot import sandbox

# Each skips these tests where lm-eval is not installed.
pytest.importorskip('lm_eval')
pytest.importorskip('rouge_score')
lm_eval_model = pytest.importorskip('lm_eval.api.model')
loading = pytest.importorskip('salt_t5x.evaluation.few_shot.loading')
results = pytest.importorskip('salt_t5x.evaluation.few_shot.results')
running = pytest.importorskip('salt_t5x.evaluation.few_shot.running')
suite = pytest.importorskip('salt_t5x.evaluation.few_shot.suite')


class Pretender(lm_eval_model.LM):
  """Answers as told, by document; keeps the requests."""

  def __init__(self, answers):
    super().__init__()
    self.answers = answers
    self.requests = []
    self.truncated = {}
    self.confidences = {}

  def _count(self, kind, requests):
    self.requests += requests
    self.truncated[kind] = (1, len(requests))

  def loglikelihood(self, requests):
    self._count('loglikelihood', requests)
    found = []
    for request in requests:
      answer = self.answers[request.doc_id]
      if isinstance(answer, bool):
        found.append((-1.0 - request.doc_id, answer))
      else:
        chosen = request.idx == answer
        found.append((-0.5 if chosen else -1000.0, chosen))
    return found

  def loglikelihood_rolling(self, requests):
    raise NotImplementedError

  def generate_until(self, requests):
    self._count('generate_until', requests)
    for request in requests:
      key = request.task_name, request.doc_id
      self.confidences[key] = -10.0 - request.doc_id
    return [self.answers[request.doc_id] for request in requests]


@pytest.fixture(scope='module')
def data_dir(tmp_path_factory):
  folder = tmp_path_factory.mktemp('benchmarks')
  few_shot_data.write(folder)
  return str(folder)


@pytest.fixture(scope='module', autouse=True)
def no_hub(tmp_path_factory):
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv('HF_HOME', str(tmp_path_factory.mktemp('hub')))
    yield


@pytest.fixture(scope='module')
def tasks(data_dir):
  try:
    sandbox.check()
  except RuntimeError as e:
    pytest.skip(str(e))
  found, missing = loading.load(
    suite.PAPER, data_dir=data_dir, use_hub=False, run_programs=True, length=128
  )
  assert not missing
  return {x.benchmark.name: x for x in found}


def test_the_paper_has_28_tasks_in_7_domains():
  assert len(suite.PAPER) == 28 and len(suite.SEARCH) == 14
  assert set(few_shot_data.CASES) == {x.name for x in suite.PAPER}
  counts = {
    domain: sum(x.domain == domain for x in suite.PAPER)
    for domain in suite.DOMAINS
  }
  # Table 2.
  assert list(counts.values()) == [4, 4, 7, 1, 8, 3, 1]
  assert {x.name for x in suite.PAPER if x.shots != 1} == {'mbpp'}


@pytest.mark.parametrize('name', few_shot_data.CASES)
def test_score_is_the_one_made_by_hand(tasks, name):
  case, task = few_shot_data.CASES[name], tasks[name]
  model = Pretender(case.answers)
  result, documents = running.run(model, task, examples=None)
  assert result['score'] == pytest.approx(case.expected)
  assert result['chance'] == pytest.approx(case.chance)
  assert result['documents'] == len(case.answers) == len(documents)
  assert result['from_evaluated']
  assert (result['cut'], result['requests']) == (1, len(model.requests))
  assert [x['doc_id'] for x in documents] == list(range(len(case.answers)))
  if name != 'multirc':
    scores = [x['score'] for x in documents]
    assert np.mean(scores) == pytest.approx(case.expected)
    assert result['standard_error'] == pytest.approx(
      np.std(scores, ddof=1) / math.sqrt(len(scores))
    )
  if isinstance(case.answers[0], str):
    expected = [-10.0 - i for i in range(len(documents))]
  elif name == 'lambada':
    expected = [-1.0 - i for i in range(len(documents))]
    assert result['log_perplexity'] == pytest.approx(2.0)
  else:
    expected = [-0.5] * len(documents)
  assert [x['confidence'] for x in documents] == expected


def prompts_of(task, answers, examples=None):
  """{document: its first request's prompt}."""
  model = Pretender(answers)
  running.run(model, task, examples)
  prompts = {}
  for request in model.requests:
    prompts.setdefault(request.doc_id, request.args[0])
  return prompts


@pytest.mark.parametrize(
  'name', [name for name, case in few_shot_data.CASES.items() if case.prompt]
)
def test_demonstrations_are_other_documents(tasks, name, monkeypatch):
  case = few_shot_data.CASES[name]
  seen = set()
  for seed in range(8):
    monkeypatch.setattr(running, '_SEED', seed)
    prompts = prompts_of(tasks[name], case.answers)
    assert prompts[0].endswith(case.prompt)
    # A document is never its own demonstration.
    assert prompts[0].count(case.prompt) == 1
    assert case.demonstration not in prompts[1]
    seen |= {i for i, x in prompts.items() if case.demonstration in x}
  # Demonstrations are drawn for each document.
  assert len(seen) >= 2


def test_answers_have_a_limit(tasks):
  for name, case in few_shot_data.CASES.items():
    model = Pretender(case.answers)
    running.run(model, tasks[name], examples=1)
    limit = tasks[name].benchmark.max_tokens
    for request in model.requests:
      if isinstance(case.answers[0], str):
        assert request.args[1]['max_gen_toks'] == min(limit, 64)
      else:
        assert request.request_type == 'loglikelihood'


def test_lambadas_demonstrations_are_spaced_as_its_requests(tasks):
  case = few_shot_data.CASES['lambada']
  model = Pretender(case.answers)
  running.run(model, tasks['lambada'], examples=None)
  texts = [x['text'] for x in case.documents]
  for request in model.requests:
    context, word = request.args
    own = texts[request.doc_id]
    others = [x for x in texts if x != own]
    assert f'{context}{word}' in [f'{x}\n\n{own}' for x in others]


def test_mbpp_has_three_demonstrations(tasks):
  answers = few_shot_data.CASES['mbpp'].answers
  prompts = prompts_of(tasks['mbpp'], answers, examples=2)
  assert len(prompts) == 2
  assert all(x.count('[DONE]') == 3 for x in prompts.values())
  # Challenge tests are not told, either.
  assert all('double("a")' not in x for x in prompts.values())


def test_all_models_get_the_same_demonstrations(tasks):
  answers = few_shot_data.CASES['boolq'].answers
  first = prompts_of(tasks['boolq'], answers)
  assert first == prompts_of(tasks['boolq'], answers)


def test_demonstrations_come_from_training_data_where_there_are(tmp_path):
  few_shot_data.write(tmp_path)
  documents = few_shot_data.CASES['rte'].documents
  (tmp_path / 'rte/train.jsonl').write_text(
    '{"premise": "A lamp.", "hypothesis": "Light.", "label": 1}\n'
  )
  (task,), _ = loading.load(
    suite.find(['rte']),
    data_dir=str(tmp_path),
    use_hub=False,
    run_programs=False,
    length=128,
  )
  model = Pretender(few_shot_data.CASES['rte'].answers)
  result, _ = running.run(model, task, examples=None)
  assert not result['from_evaluated'] and result['documents'] == len(documents)
  start = 'A lamp.\nQuestion: Light. True or False?\nAnswer: False\n\n'
  assert all(x.args[0].startswith(start) for x in model.requests)


def test_data_are_known_by_their_content(tmp_path):
  """Not by the names and sizes of files, nor by their folder."""

  def data(folder, label, from_hub=False):
    path = tmp_path / folder / 'rte' / 'validation.jsonl'
    path.parent.mkdir(parents=True, exist_ok=True)
    document = '{"premise": "A lamp.", "hypothesis": "Light.", "label": %d}\n'
    path.write_text(document % label)
    (task,), _ = loading.load(
      suite.find(['rte']),
      data_dir=str(tmp_path / folder),
      use_hub=False,
      run_programs=False,
      length=128,
    )
    if from_hub:
      task.task.set_config('dataset_kwargs', None)
      task = dataclasses.replace(task, source='rte (hub)')
    return task.data

  before = data('here', 0, from_hub=True)
  assert data('there', 0, from_hub=True) == before
  assert data('here', 1, from_hub=True) != before
  before = data('here', 0)
  assert data('there', 0) == before
  assert data('here', 1) != before


def test_lists_missing_benchmarks(tmp_path):
  few_shot_data.write(tmp_path)
  (tmp_path / 'rte/validation.jsonl').unlink()
  (tmp_path / 'rte').rmdir()
  found, missing = loading.load(
    suite.find(['rte', 'cb', 'mbpp']),
    data_dir=str(tmp_path),
    use_hub=False,
    run_programs=False,
    length=128,
  )
  assert [x.benchmark.name for x in found] == ['cb']
  assert 'USE_HUB = False' in missing['rte']
  assert 'RUN_PROGRAMS = True' in missing['mbpp']
  text = results.missing_list(missing)
  assert '- RTE: ' in text and '- MBPP: ' in text


def test_a_hub_out_of_reach_is_asked_once(monkeypatch):
  asked = []

  def fail(self, spec):
    asked.append(spec)
    raise ConnectionError('no route')

  monkeypatch.setattr('lm_eval.tasks.TaskManager.load', fail)
  found, missing = loading.load(
    suite.find(['rte', 'cb']),
    data_dir=None,
    use_hub=True,
    run_programs=False,
    length=128,
  )
  assert not found and len(asked) == 1 and set(missing) == {'rte', 'cb'}
  assert any('no route' in reason for reason in missing.values())


@pytest.mark.parametrize(
  'files, message',
  [
    ({'train.jsonl': '{}'}, 'neither test.jsonl nor validation.jsonl'),
    ({'test.jsonl': '{"premise": "a"}\n'}, 'cannot be read as RTE'),
    ({'test.jsonl': 'no JSON\n'}, 'cannot be read as RTE'),
    # A demonstration would be the document at hand.
    (
      {'test.jsonl': '{"premise": "a"}\n', 'train.jsonl': '{"premise": "a"}\n'},
      'test.jsonl .* and .*train.jsonl .* have the same content',
    ),
  ],
)
def test_rejects_bad_files(tmp_path, files, message):
  (tmp_path / 'rte').mkdir()
  for name, text in files.items():
    (tmp_path / 'rte' / name).write_text(text)
  with pytest.raises(ValueError, match=message) as e:
    loading.load(
      suite.find(['rte']),
      data_dir=str(tmp_path),
      use_hub=False,
      run_programs=False,
      length=128,
    )
  assert str(tmp_path / 'rte') in str(e.value)


@pytest.mark.parametrize('labels', [[2, 0], [0, 1, 2]])
def test_answers_that_are_no_choice_are_named(tmp_path, labels):
  """Some files count classes from 1."""
  (tmp_path / 'rte').mkdir()
  lines = [
    json.dumps({'premise': 'A', 'hypothesis': 'B', 'label': x}) for x in labels
  ]
  (tmp_path / 'rte' / 'test.jsonl').write_text('\n'.join(lines))
  message = (
    rf"document {labels.index(2)} \(from 0\) has 'label' = 2, which is none of "
    r"0 \('True'\), 1 \('False'\)"
  )
  with pytest.raises(ValueError, match=message):
    loading.load(
      suite.find(['rte']),
      data_dir=str(tmp_path),
      use_hub=False,
      run_programs=False,
      length=128,
    )


def test_rejects_unknown_names():
  with pytest.raises(ValueError, match="there is no 'arc'"):
    suite.find(['arc'])
  with pytest.raises(ValueError, match='there is no such folder'):
    loading.load(
      suite.PAPER,
      data_dir='/no/such/folder',
      use_hub=False,
      run_programs=False,
      length=128,
    )


def _result(score, **kwargs):
  options = dict(
    score=score,
    standard_error=0.01,
    chance=0.25,
    documents=100,
    cut=0,
    requests=100,
    source='here',
    from_evaluated=False,
    log_perplexity=None,
    log_perplexity_error=None,
    measures={},
  )
  return options | kwargs


def test_tables():
  found = {
    'A': {
      'arc_easy': _result(0.5, cut=20, from_evaluated=True),
      'lambada': _result(
        0.1,
        chance=0.0,
        log_perplexity=5.25,
        log_perplexity_error=0.125,
        measures={'perplexity': 190.6},
      ),
      'piqa': _result(0.75),
    },
    'B': {'arc_easy': _result(0.25), 'piqa': _result(0.5)},
  }
  tables = results.tasks_table(found, suite.PAPER)
  rows = [line for line in tables.splitlines() if line.startswith('| ')]
  assert rows[1:] == [
    '| Commonsense Reasoning | ARC-E † | Acc | 100 | 25.0 | **50.0 ± 1.0** '
    '| 25.0 ± 1.0 |',
    '| Commonsense Reasoning | PiQA | Acc | 100 | 25.0 | **75.0 ± 1.0** '
    '| 50.0 ± 1.0 |',
    '| LAMBADA | LAMBADA | Acc | 100 | 0.0 | 10.0 ± 1.0 | – |',
  ]
  assert 'ARC-E 20%' in tables and 'MBPP 3-shot' in tables
  assert 'nats (lower is better): A 5.250 ± 0.125.' in tables
  domains = results.domains_table(found, suite.PAPER)
  rows = [line for line in domains.splitlines() if line.startswith('| ')]
  assert rows[1:] == [
    # Of two tasks: sqrt(0.01² + 0.01²) / 2.
    '| Commonsense Reasoning | 2 of 7 | **62.50 ± 0.71** | 37.50 ± 0.71 |',
    '| LAMBADA | 1 | 10.00 ± 1.00 | – |',
    '| Average | 3 of 28 | **45.00 ± 0.58** | 37.50 ± 0.71 |',
  ]
  assert results.plot(found, suite.PAPER).startswith(b'\x89PNG')


def test_averages_are_the_papers():
  # BASELINE's column of Table 12.
  column = [
    8.7, 43.15, 28.2, 8.7, 57.0, 42.3, 54.8, 57.9, 68.4, 37.1, 62.8, 50.0, 75.4,
    77.2, 63.0, 36.2, 64.3, 58.9, 79.0, 54.2, 55.6, 87.1, 47.2, 77.9, 4.1, 5.1,
    4.6, 16.2,
  ]  # fmt: skip
  found = {
    x.name: _result(score / 100)
    for x, score in zip(suite.PAPER, column, strict=True)
  }
  means = results.averages(found, suite.PAPER)
  paper = [22.19, 53.0, 61.99, 36.2, 65.53, 4.6, 16.2, 47.32]
  np.testing.assert_allclose(
    [100 * mean for mean, _ in means.values()], paper, atol=0.0051
  )


def test_bootstrapped_error_of_f1():
  rng = np.random.default_rng(1)
  right = rng.integers(2, size=400)
  predicted = np.where(rng.random(400) < 0.7, right, 1 - right)
  found = running._f1_error(list(zip(right, predicted, strict=True)))
  # Of fresh samples.
  fresh = []
  for _ in range(300):
    right = rng.integers(2, size=400)
    predicted = np.where(rng.random(400) < 0.7, right, 1 - right)
    hits = np.sum(right & predicted)
    fresh.append(2 * hits / (right.sum() + predicted.sum()))
  assert found == pytest.approx(np.std(fresh), rel=0.2)
