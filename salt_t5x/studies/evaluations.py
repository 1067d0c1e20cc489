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

# The measure of LAMBADA that tells models at chance apart.
_NATS = 'log_perplexity'


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
    text = standard_errors.per_seed(found['accuracy'][model][bucket], 2)
    if gains := found['gain'].get(model):
      text += f' ({standard_errors.per_seed(gains[bucket], 2, "+")})'
    return text

  table = files.markdown_table(
    ('model', *(f'{x} ({count})' for x, count in found['count'].items())),
    [
      (model, *(cell(model, bucket) for bucket in found['count']))
      for model in found['accuracy']
    ],
  )
  return (
    f'{table}\n\nNext-token accuracy in percent on held-out sequences, split '
    "into tertiles by the teacher's accuracy (number of sequences in brackets "
    f'at the top); in brackets, the difference from {found["reference"]} at '
    'the same step, taken seed by seed.\n'
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
  scores = {
    model: {
      x: [100 * of_seed[model][x]['score'] for of_seed in results]
      for x in benchmarks
    }
    for model in results[0]
  }
  for of_model in scores.values():
    of_model['Average'] = np.mean(list(of_model.values()), axis=0).tolist()
  return {
    'scores': scores,
    'nats': {
      model: {
        x: [of_seed[model][x][_NATS] for of_seed in results]
        for x in benchmarks
        if 'perplexity' in first[x]['measures']
      }
      for model in results[0]
    },
    'documents': {x: first[x]['documents'] for x in benchmarks},
    'chance': {x: 100 * first[x]['chance'] for x in benchmarks},
    'missing': of_seeds[0]['missing'],
  }


def few_shot_markdown(found: Mapping[str, Any]) -> str:
  """Formats the return value of `few_shot`."""
  scores, nats, documents = found['scores'], found['nats'], found['documents']

  def row(heads, of_models, benchmark, digits):
    values = (x[benchmark] for x in of_models.values())
    return *heads, *(standard_errors.per_seed(x, digits) for x in values)

  rows = [
    row((name, count, f'{found["chance"][name]:.1f}'), scores, name, 1)
    for name, count in documents.items()
  ]
  rows.append(row(('Average', '', ''), scores, 'Average', 2))
  rows += [
    row((f'{name}, nats', documents[name], ''), nats, name, 2)
    for name in next(iter(nats.values()))
  ]
  table = files.markdown_table(
    ('benchmark', 'documents', 'chance', *scores), rows
  )
  text = (
    f'{table}\n\nScores in percent, mean ± standard error over seeds. The '
    "standard error of one seed's score over the documents is larger: 5 "
    'percent for a score of 50 with 100 documents.\n'
  )
  if found['missing']:
    text += f'\nNot run: {", ".join(found["missing"])}.\n'
  return text
