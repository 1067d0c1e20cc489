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

"""Easy, medium and hard documents: tertiles, averages, tables, the command."""

import io
import json
import math
import shutil

import hypothesis
from hypothesis import strategies as st
import matplotlib.image
import numpy as np
import pytest

from salt_t5x import difficulty
from salt_t5x.evaluation import buckets

NAN = math.nan


# --- Tertiles ----------------------------------------------------------------


@pytest.mark.parametrize(
  'scores, confidences, expected',
  [
    # By score alone.
    ([0.1, 0.9, 0.5, 0.8, 0.3, 0.2], [0] * 6, [2, 0, 1, 0, 1, 2]),
    # Ties by confidence, the nearer to 0 the higher.
    ([1, 1, 1, 0, 0, 0], [-5, -1, -2, -3, -9, -4], [1, 0, 0, 1, 2, 2]),
    # The score comes before the confidence.
    ([0, 1, 0], [-0.1, -9, -0.2], [1, 0, 2]),
    # Equal in all: by position.
    ([1] * 6, [-2] * 6, [0, 0, 1, 1, 2, 2]),
    # NaN is below every confidence, but a score is a score.
    ([1, 1, 0], [NAN, -math.inf, 0], [1, 0, 2]),
    ([0.5, 0.5, 0.5], [NAN, NAN, -1], [1, 2, 0]),
    # A document or two more: in the easier buckets.
    ([4, 3, 2, 1], [0] * 4, [0, 0, 1, 2]),
    ([5, 4, 3, 2, 1], [0] * 5, [0, 0, 1, 1, 2]),
    ([1, 2], [0] * 2, [1, 0]),
    ([1], [0], [0]),
    ([], [], []),
  ],
)
def test_buckets(scores, confidences, expected):
  found = buckets.buckets(np.array(scores), np.array(confidences, float))
  assert found.tolist() == expected


documents = st.lists(
  st.tuples(
    st.sampled_from([0.0, 0.25, 0.5, 1.0]),
    st.floats(-100, 0) | st.just(NAN) | st.just(-math.inf),
  ),
  max_size=40,
)


@hypothesis.given(documents)
def test_buckets_are_even_and_ordered(found):
  scores, confidences = np.array(found).reshape(-1, 2).T
  found_buckets = buckets.buckets(scores, confidences)
  sizes = np.bincount(found_buckets, minlength=3)
  assert sizes.sum() == len(found) and len(sizes) == 3
  assert sizes.max() - sizes.min() <= 1
  assert sizes.tolist() == sorted(sizes, reverse=True)
  known = np.nan_to_num(confidences, nan=-math.inf, neginf=-math.inf)
  for i in range(len(found)):
    for j in range(len(found)):
      if (scores[i], known[i]) > (scores[j], known[j]):
        assert found_buckets[i] <= found_buckets[j]


@hypothesis.given(
  st.lists(
    st.tuples(st.sampled_from([0.0, 1.0]), st.floats(-100, 0)),
    max_size=30,
    unique=True,
  ),
  st.randoms(use_true_random=False),
)
def test_order_of_documents_only_breaks_ties(found, random):
  scores, confidences = np.array(found).reshape(-1, 2).T
  order = list(range(len(found)))
  random.shuffle(order)
  np.testing.assert_array_equal(
    buckets.buckets(scores[order], confidences[order]),
    buckets.buckets(scores, confidences)[order],
  )


# --- Averages and the table --------------------------------------------------


def test_per_bucket():
  of_documents = np.array([0, 2, 0, 1, 0])
  found = buckets.per_bucket(
    of_documents, {'A': np.array([1, 0, 0.5, 0.25, 0]), 'B': np.ones(5)}
  )
  assert list(found) == ['A', 'B']
  assert list(found['A']) == ['easy', 'medium', 'hard', 'all']
  easy = found['A']['easy']
  assert (easy.mean, easy.count) == (0.5, 3)
  # Variance (0.25 + 0 + 0.25) / 2.
  assert easy.standard_error == pytest.approx(0.5 / math.sqrt(3))
  medium = found['A']['medium']
  assert (medium.mean, medium.count) == (0.25, 1)
  assert math.isnan(medium.standard_error)
  assert found['A']['all'].mean == pytest.approx(0.35)
  assert found['B']['all'] == buckets.Mean(1.0, 0.0, 5)


def test_an_empty_bucket_has_no_mean():
  found = buckets.per_bucket(np.array([0, 1]), {'A': np.array([1.0, 0.0])})
  hard = found['A']['hard']
  assert hard.count == 0
  assert math.isnan(hard.mean) and math.isnan(hard.standard_error)


def make_task(**more):
  """12 documents, 4 a bucket, and the buckets are in order."""
  scores = {
    'SLM': [1] * 4 + [1, 1, 0, 0] + [0] * 4,
    'BASELINE @36K': [1, 0, 0, 0] + [0] * 8,
    'SALT @36K': [1, 1, 1, 1] + [1, 0, 0, 0] + [0] * 4,
    'BASELINE': [1] * 4 + [1] * 4 + [1, 1, 0, 0],
    'RKD': [1] * 4 + [0] * 4 + [1, 0, 0, 0],
    'SALT @70%': [0] * 12,
  }
  return buckets.measure(
    'trivia',
    {model: np.array(x, float) for model, x in scores.items()},
    teacher='SLM',
    confidences=-np.arange(12.0),
    baseline='BASELINE',
    **more,
  )


def test_differences_are_from_the_baseline_of_the_stage():
  task = make_task()
  assert list(task.differences) == ['SALT @36K', 'RKD']
  easy = task.differences['SALT @36K']['easy']
  assert easy.mean == 0.75
  # Of the differences 0, 1, 1, 1: they are paired.
  assert easy.standard_error == pytest.approx(0.25)
  hard = task.differences['RKD']['hard']
  assert (hard.mean, hard.standard_error) == (-0.25, 0.25)


def test_markdown():
  text = buckets.markdown([make_task()], 'SLM', 'BASELINE')
  table = [line for line in text.splitlines() if line.startswith('|')]
  assert table == [
    '| model | Easy (4) | Medium (4) | Hard (4) | All (12) |',
    '|---|--:|--:|--:|--:|',
    '| SLM | 100.0 ± 0.0 | 50.0 ± 28.9 | 0.0 ± 0.0 | 50.0 ± 15.1 |',
    '| BASELINE @36K | 25.0 ± 25.0 | 0.0 ± 0.0 | 0.0 ± 0.0 | 8.3 ± 8.3 |',
    # 3 standard errors; 1; none; 0.33 ± 0.14.
    '| SALT @36K | **100.0 ± 0.0** | 25.0 ± 25.0 | 0.0 ± 0.0 '
    '| **41.7 ± 14.9** |',
    '| BASELINE | 100.0 ± 0.0 | 100.0 ± 0.0 | 50.0 ± 28.9 | 83.3 ± 11.2 |',
    # All four are worse, without any spread.
    '| RKD | 100.0 ± 0.0 | *0.0 ± 0.0* | 25.0 ± 25.0 | *41.7 ± 14.9* |',
    # There is no BASELINE @70%.
    '| SALT @70% | 0.0 ± 0.0 | 0.0 ± 0.0 | 0.0 ± 0.0 | 0.0 ± 0.0 |',
  ]
  assert '## trivia' in text
  assert 'worse* than BASELINE of the same stage by more than 2' in text
  assert 'not a number' not in text and 'No results' not in text


def test_markdown_of_few_documents_and_missing_models():
  scores = {'SLM': np.array([0.0, 1.0]), 'SALT': np.array([1.0, 1.0])}
  task = buckets.measure(
    'tiny', scores, 'SLM', np.array([-1, NAN]), missing=['RKD', 'untrained']
  )
  text = buckets.markdown([task], 'SLM')
  assert '| SLM | 100.0 | 0.0 | – | 50.0 ± 50.0 |' in text
  assert '| SALT | 100.0 | 100.0 | – | 100.0 ± 0.0 |' in text
  assert 'not a number in 1 of 2 documents' in text
  assert 'No results: RKD, untrained.' in text
  assert 'same stage' not in text
  png = io.BytesIO(buckets.plot([task]))
  assert matplotlib.image.imread(png, format='png').std() > 0


# --- The command -------------------------------------------------------------


def write(folder, model, task, rows):
  path = folder / model / f'{task}.jsonl'
  path.parent.mkdir(exist_ok=True)
  lines = [
    json.dumps({'doc_id': i, 'score': score, 'confidence': confidence})
    for i, score, confidence in rows
  ]
  path.write_text('\n'.join(lines) + '\n')
  # Evaluations leave these files here, too.
  path.with_suffix('.json').write_text('{}')


@pytest.fixture
def results(tmp_path):
  """Two tasks of four checkpoints, one of which has but one task."""
  folder = tmp_path / 'evaluation'
  folder.mkdir()
  (folder / 'results.json').write_text('{}')
  rows = [(7, 1, -3.0), (2, 0, -1.0), (4, 1, -2.0)]
  write(folder, 'SLM', 'boolq', rows)
  write(folder, 'SLM', 'arc', [(0, 0, None), (1, 0, NAN), (2, 0, -5)])
  write(folder, 'BASELINE', 'boolq', [(2, 0, 0), (4, 0, 0), (7, 1, 0)])
  write(folder, 'BASELINE', 'arc', [(0, 1, 0), (1, 0, 0), (2, 0, 0)])
  write(folder, 'SALT @100K', 'boolq', [(2, 1, 0), (4, 1, 0), (7, 1, 0)])
  write(folder, 'SALT @36K', 'boolq', [(2, 1, 0), (4, 1, 0), (7, 0, 0)])
  return folder


def run(folder, *flags):
  difficulty.main(
    difficulty.parse_flags(['', f'--results={folder}', '--teacher=SLM', *flags])
  )


def test_the_command(results, capsys):
  run(results, '--baseline=BASELINE')
  text = capsys.readouterr().out
  assert text == (results / 'difficulty.md').read_text()
  arc, boolq = text.split('## ')[1:]
  rows = [line for line in boolq.splitlines() if line.startswith('| ')]
  assert rows[1:] == [
    # Document 4, then 7, then 2.
    '| SLM | 100.0 | 100.0 | 0.0 | 66.7 ± 33.3 |',
    '| SALT @36K | 100.0 | 0.0 | 100.0 | 66.7 ± 33.3 |',
    '| SALT @100K | 100.0 | 100.0 | 100.0 | 100.0 ± 0.0 |',
    '| BASELINE | 0.0 | 100.0 | 0.0 | 33.3 ± 33.3 |',
  ]
  # Document 2, whose confidence is known, is the easiest.
  assert '| BASELINE | 0.0 | 100.0 | 0.0 | 33.3 ± 33.3 |' in arc
  assert 'not a number in 2 of 3 documents' in arc
  assert 'No results: SALT @36K, SALT @100K.' in arc
  numbers = json.loads(
    (results / 'difficulty.json').read_text(), parse_constant=pytest.fail
  )
  assert numbers['teacher'] == 'SLM' and numbers['baseline'] == 'BASELINE'
  assert list(numbers['tasks']) == ['arc', 'boolq']
  assert numbers['tasks']['boolq']['means']['SALT @36K']['medium'] == {
    'mean': 0.0,
    'standard_error': None,
    'count': 1,
  }
  assert numbers['tasks']['arc']['missing'] == ['SALT @36K', 'SALT @100K']
  image = matplotlib.image.imread(results / 'difficulty.png')
  assert image.shape[0] > 400 and image.std() > 0


def test_omits_nested_results(results, capsys):
  copy = results / 'copy'
  shutil.copytree(results / 'SLM', copy / 'SLM')
  shutil.move(results / 'SALT @36K', copy)
  run(results, '--tasks=boolq')
  assert 'SALT @36K' not in capsys.readouterr().out


def test_some_tasks_only(results, capsys):
  run(results, '--tasks=boolq')
  text = capsys.readouterr().out
  assert '## boolq' in text and '## arc' not in text


@pytest.mark.parametrize(
  'flags, message',
  [
    (['--tasks=boolq,race'], '--tasks=race: .* has no such results, only of'),
    (['--baseline=RKD'], '--baseline=RKD: .* has no such results'),
    (['--teacher=TEACHER'], r"--teacher=TEACHER: .* only of \['BASELINE', "),
    (['--results=/no/such'], '--results=/no/such: there is no'),
  ],
)
def test_rejects_unknown_names(results, flags, message):
  with pytest.raises(ValueError, match=message):
    run(results, *flags)


def test_rejects_other_documents(results):
  write(results, 'BASELINE', 'boolq', [(2, 0, 0), (5, 0, 0), (7, 1, 0)])
  with pytest.raises(ValueError) as e:
    run(results)
  assert 'SLM or BASELINE lacks document 4 of boolq; 2 differ' in str(e.value)
  assert str(results) in str(e.value)


def test_rejects_documents_of_other_data(results):
  """The numbers of the documents are the same; their texts are not."""
  for path in results.glob('*/boolq.json'):
    path.write_text(json.dumps({'options': {'data': 'a'}}))
  run(results, '--tasks=boolq')
  path = results / 'BASELINE/boolq.json'
  path.write_text(json.dumps({'options': {'data': 'b'}}))
  with pytest.raises(ValueError, match=r'BASELINE was .* than SLM \(b and a\)'):
    run(results, '--tasks=boolq')
  path.write_text('{')
  with pytest.raises(ValueError, match='boolq.json is damaged'):
    run(results, '--tasks=boolq')


@pytest.mark.parametrize(
  'line',
  [
    '{"doc_id": 9, "score": 1}',
    '{"doc_id": 9, ',
    '[1]',
    '{"doc_id": 2, "score": 1, "confidence": 0}',
    '{"doc_id": 9, "score": NaN, "confidence": 0}',
    '{"doc_id": 9, "score": null, "confidence": 0}',
  ],
)
def test_rejects_damaged_files(results, line):
  with open(results / 'SALT @36K/boolq.jsonl', 'a', encoding='utf-8') as f:
    f.write(line)
  with pytest.raises(ValueError, match='line 4: expected a doc_id of its own'):
    run(results, '--tasks=boolq')


def test_rejects_empty_files(results):
  (results / 'BASELINE/boolq.jsonl').write_text('')
  with pytest.raises(ValueError, match='holds no documents'):
    run(results)


@pytest.mark.parametrize(
  'flags, message',
  [
    (['--teacher=t'], 'required: --results'),
    (['--results=r'], 'required: --teacher'),
    (['--results=r', '--teacher=t', '--nonsense=1'], '--nonsense=1'),
  ],
)
def test_rejects_flags(capsys, flags, message):
  with pytest.raises(SystemExit):
    difficulty.parse_flags(['difficulty', *flags])
  assert message in capsys.readouterr().err.splitlines()[-1]
