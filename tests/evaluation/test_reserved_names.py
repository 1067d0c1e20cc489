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

"""Names that users choose are also ours: each is kept apart, or refused."""

import json
import types

import pytest
import seqio
import tensorflow as tf

from salt_t5x.evaluation import candidates, held_out, results, supervised
from salt_t5x.inference import language_model
from salt_t5x.selection import report as selection_report
from salt_t5x.studies import definition


class Model:
  """One hit in two tokens, and a nat each."""

  def log_likelihoods(self, pairs, progress=None):
    del progress
    return [language_model.LogLikelihood(-2.0, 1, 2) for _ in pairs]

  def continuations(self, contexts, limits, progress=None):
    del limits, progress
    return [list(b'yes') for _ in contexts]


DOMAINS = ['all', 'all_', 'not_finite', 'a|b', 'a', '']


def test_a_domain_does_not_replace_the_total():
  sequences = [(domain, [3, 4]) for domain in DOMAINS]
  found, documents = held_out.measure(Model(), sequences)
  assert {name: x['tokens'] for name, x in found.items()} == {
    'all': 12, 'a': 2, 'a|b': 2, 'all_': 2, 'all__': 2, 'not_finite': 2,
  }  # fmt: skip
  assert [x['domain'] for x in documents[:3]] == ['all_', 'all__', 'not_finite']


def test_a_domain_named_not_finite_does_not_remove_a_model(tmp_path):
  found, _ = held_out.measure(Model(), [(x, [3, 4]) for x in DOMAINS])
  store = results.Store(str(tmp_path))
  store.write('A', 'held_out', {}, found, [])
  reason = {results.NOT_FINITE: 'NaN after 3 tokens'}
  store.write('B', 'held_out', {}, reason, [])
  text = results.report(store, ['A', 'B'], ['held_out'], {}, (), True)
  assert '| not_finite | 2 |' in text
  assert 'A has no scores' not in text and 'B has no scores' in text
  # A bar in a name begins no column.
  (row,) = [x for x in text.splitlines() if x.startswith('| a\\|b |')]
  assert row.replace('\\|', '').count('|') == 4
  assert list(json.loads((tmp_path / 'results.json').read_text())[
    results.NOT_FINITE
  ]) == ['B']  # fmt: skip


@pytest.mark.parametrize(
  'name',
  ['results.json', 'results.md', 'results.json.tmp', 'difficulty.png',
   'a|b', 'a\nb', '..', 'a/b', ''],
)  # fmt: skip
def test_checkpoints_have_no_names_of_files_or_columns(name):
  with pytest.raises(ValueError, match='next to results.json'):
    candidates.find(None, {name: None}, None, None, {}, None)


@pytest.mark.parametrize('label', ['', '.hidden', 'a|b', 'a\nb', 'a@5', 'a/b'])
def test_variants_have_the_names_of_checkpoints(label):
  with pytest.raises(definition.StudyError, match='begin with no dot'):
    definition.Study(
      'title', 'about', {'BASELINE': {'recipe': 'baseline'},
                         label: {'recipe': 'baseline'}}
    )  # fmt: skip


def test_two_metrics_of_one_name_are_both_kept():
  def strict(targets, predictions):
    del targets, predictions
    return {'accuracy': 10.0}

  def lenient(targets, predictions):
    del targets, predictions
    return {'accuracy': 90.0}

  vocabulary = seqio.ByteVocabulary()
  example = {'inputs': vocabulary.encode_tf('a'),
             'targets': vocabulary.encode_tf('b')}  # fmt: skip
  task = types.SimpleNamespace(
    name='task',
    get_dataset=lambda *_, **__: tf.data.Dataset.from_tensors(example),
    output_features={
      name: types.SimpleNamespace(vocabulary=vocabulary) for name in example
    },
    postprocess_fn=lambda text, **_: text,
    predict_metric_fns=[strict, lenient],
  )
  metrics, _ = supervised.evaluate(
    Model(), task, 'test', {'inputs': 8, 'targets': 4}
  )
  assert metrics == {'accuracy': 10.0, 'accuracy #2': 90.0}


@pytest.mark.parametrize(
  'domain, label',
  [('all', 'all_'), ('all_', 'all__'), ('', '(none)'), ('alle', 'alle')],
)
def test_domains_of_a_selection(domain, label):
  [(name, *_)] = selection_report._by_count({domain: [2, 1]})
  assert name == label
