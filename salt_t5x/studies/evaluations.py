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

"""Evaluations over several seeds: easy and hard text, and benchmarks."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from salt_t5x import files, standard_errors
from salt_t5x.evaluation import buckets as buckets_lib
from salt_t5x.evaluation import results as results_lib

_per_seed = standard_errors.per_seed


def buckets(
  of_seeds: Sequence[buckets_lib.Task], reference: str
) -> dict[str, Any]:
  """Collects the accuracy on easy, medium and hard text (Table 5).

  Args:
    of_seeds: held-out text, split by the teacher of each seed.
    reference: the model that others are compared with, or the beginning of
      'reference @step'.

  Returns:
    {'count': sequences in each bucket, 'accuracy': {model: {bucket: percent for
    each seed}}, 'gain': the same as differences from the reference of the same
    step, where there is one}.
  """

  def collect(means_of):
    return {
      model: {
        bucket: [100 * means_of(task)[model][bucket].mean for task in of_seeds]
        for bucket in (*buckets_lib.BUCKETS, buckets_lib.ALL)
      }
      for model in means_of(of_seeds[0])
    }

  first = next(iter(of_seeds[0].means.values()))
  return {
    'reference': reference,
    'count': {bucket: mean.count for bucket, mean in first.items()},
    'accuracy': collect(lambda task: task.means),
    'gain': collect(lambda task: task.differences),
  }


def buckets_markdown(found: Mapping[str, Any]) -> str:
  """Formats the return value of `buckets`."""

  def cell(model, bucket):
    text = _per_seed(found['accuracy'][model][bucket], 2)
    if gains := found['gain'].get(model):
      text += f' ({_per_seed(gains[bucket], 2, "+")})'
    return text

  table = files.markdown_table(
    ('model', *(f'{x} ({count})' for x, count in found['count'].items())),
    [
      (model, *(cell(model, bucket) for bucket in found['count']))
      for model in found['accuracy']
    ],
  )
  return (
    f'### Easy, medium and hard text (Table 5)\n\n{table}\n\n'
    'Next-token accuracy in percent on held-out sequences, split into tertiles '
    "by the teacher's accuracy (number of sequences in brackets at the top); "
    f'in brackets, the difference from {found["reference"]} at the same step, '
    'taken seed by seed.\n'
  )


def few_shot(of_seeds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
  """Collects scores of benchmarks (Tables 2 and 12).

  Args:
    of_seeds: for each seed, the content of an evaluation's results.json.

  Returns:
    {'scores': {model: {benchmark or 'Average': percent for each seed}}, 'nats':
    the same for log-perplexities of benchmarks that have them, 'documents' and
    'chance' (percent): {benchmark: number}, 'missing': {benchmark: reason}}.
  """
  results = [x['results'] for x in of_seeds]
  first = next(iter(results[0].values()))
  benchmarks = [x for x in first if x != results_lib.HELD_OUT]

  def collect(name, benchmarks, scale=1):
    return {
      model: {
        x: [scale * of_seed[model][x][name] for of_seed in results]
        for x in benchmarks
      }
      for model in results[0]
    }

  scores = collect('score', benchmarks, 100)
  for of_model in scores.values():
    of_model['Average'] = np.mean(list(of_model.values()), axis=0).tolist()
  # LAMBADA's log-perplexity tells models at chance apart.
  with_nats = [x for x in benchmarks if 'perplexity' in first[x]['measures']]
  return {
    'scores': scores,
    'nats': collect('log_perplexity', with_nats),
    'documents': {x: first[x]['documents'] for x in benchmarks},
    'chance': {x: 100 * first[x]['chance'] for x in benchmarks},
    'missing': of_seeds[0]['missing'],
  }


def few_shot_markdown(found: Mapping[str, Any]) -> str:
  """Formats the return value of `few_shot`."""
  documents, chance = found['documents'], found['chance']

  def row(label, name, kind, digits, chance=''):
    values = (of_model[name] for of_model in found[kind].values())
    cells = [_per_seed(x, digits) for x in values]
    return [label, documents.get(name, ''), chance, *cells]

  rows = [row(x, x, 'scores', 1, f'{chance[x]:.1f}') for x in documents]
  rows.append(row('Average', 'Average', 'scores', 2))
  with_nats = next(iter(found['nats'].values()))
  rows += [row(f'{x}, nats', x, 'nats', 2) for x in with_nats]
  table = files.markdown_table(
    ('benchmark', 'documents', 'chance', *found['scores']), rows
  )
  missing = ', '.join(found['missing'])
  return (
    f'### Few-shot benchmarks\n\n{table}\n\n'
    'Scores in percent, mean ± standard error over seeds. The standard error '
    "of one seed's score over the documents is larger: 5 percent for a score "
    'of 50 with 100 documents.\n'
  ) + (f'\nNot run: {missing}.\n' if missing else '')
