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

"""What evaluations of several seeds say: easy and hard text, benchmarks."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from salt_t5x import standard_errors
from salt_t5x.evaluation import buckets as buckets_lib
from salt_t5x.evaluation import results as results_lib

# The measure of LAMBADA that shows what models at chance have learned.
_NATS = 'log_perplexity'


def buckets(
  of_seeds: Sequence[buckets_lib.Task], reference: str
) -> dict[str, Any]:
  """What each model has on easy, medium and hard text (Table 5).

  Args:
    of_seeds: held-out text by the teacher of each seed; see `difficulty`.
    reference: the models that others are compared with begin with this.

  Returns:
    {'count': sequences in each bucket, 'accuracy': {model: {bucket: percent of
    each seed}}, 'gain': the same, less the reference's of the same stage, where
    there is one}.
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
  """Formats what `buckets` returns."""
  names = list(found['count'])
  heads = [f'{x} ({found["count"][x]})' for x in names]
  lines = [
    f'| model | {" | ".join(heads)} |',
    '|---|' + '---|' * len(names),
  ]
  for model, of_model in found['accuracy'].items():
    gains = found['gain'].get(model)
    cells = []
    for x in names:
      text = standard_errors.over(of_model[x], 2)
      if gains:
        text += f' ({standard_errors.over(gains[x], 2, "+")})'
      cells.append(text)
    lines.append(f'| {model} | {" | ".join(cells)} |')
  lines += [
    '',
    'Next-token accuracy in percent on held-out sequences, in tertiles by the '
    f"teacher's; in brackets, less {found['reference']}'s of the same step, "
    'seed by seed.',
  ]
  return '\n'.join(lines) + '\n'


def few_shot(of_seeds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
  """Scores of benchmarks over seeds (Tables 2 and 12).

  Args:
    of_seeds: for each, the content of an evaluation's results.json.

  Returns:
    {'scores': {model: {benchmark, or 'Average': percent of each seed}}, 'nats':
    the same for log-perplexities, where a benchmark has them, 'documents' and
    'chance' (percent): {benchmark: number}, 'missing': {benchmark: why}}.
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
  """Formats what `few_shot` returns."""
  models = list(found['scores'])
  lines = [
    '| benchmark | documents | chance |' + ''.join(f' {x} |' for x in models),
    '|---|---|---|' + '---|' * len(models),
  ]

  def row(name, documents, chance, of_models, digits):
    cells = [standard_errors.over(of_models[x], digits) for x in models]
    lines.append(
      f'| {name} | {documents} | {chance} |' + ''.join(f' {x} |' for x in cells)
    )

  for name, count in found['documents'].items():
    of_models = {x: found['scores'][x][name] for x in models}
    row(name, count, f'{found["chance"][name]:.1f}', of_models, 1)
  of_models = {x: found['scores'][x]['Average'] for x in models}
  row('Average', '', '', of_models, 2)
  for name in found['nats'][models[0]]:
    of_models = {x: found['nats'][x][name] for x in models}
    row(f'{name}, nats', found['documents'][name], '', of_models, 2)
  lines += [
    '',
    'Scores in percent, mean ± standard error over seeds. That of a seed over '
    'documents is larger: 5 percent for a score of 50 with 100 documents.',
  ]
  if found['missing']:
    lines += ['', f'Not run: {", ".join(found["missing"])}.']
  return '\n'.join(lines) + '\n'
