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

"""Tables of few-shot results: all tasks (Table 12) and domains (Table 2)."""

from collections.abc import Mapping, Sequence
import math
from typing import Any

from matplotlib import figure
import numpy as np

from salt_t5x import files
from salt_t5x.evaluation import bar_charts
from salt_t5x.evaluation.few_shot import suite
from salt_t5x.standard_errors import with_error

# {benchmark: its result of `running.run`, with None for NaN, as JSON has it}
ModelResults = Mapping[str, Mapping[str, Any]]
# {model: its results}
Results = Mapping[str, ModelResults]
_AVERAGE = 'Average'


def averages(
  results: ModelResults, benchmarks: Sequence[suite.Benchmark]
) -> dict[str, tuple[float, float]]:
  """Averages scores over the tasks of each domain, unweighted.

  Returns:
    {domain: (mean, standard error)}, and 'Average' over all tasks. Tasks
    without a result are left out, and domains without a task.
  """
  means = {}
  for domain in [*suite.DOMAINS, _AVERAGE]:
    found = [
      (results[x.name]['score'], results[x.name]['standard_error'])
      for x in benchmarks
      if x.name in results and domain in (x.domain, _AVERAGE)
    ]
    if found:
      scores, errors = np.array(found, float).T
      # Tasks are independent of each other.
      error = np.linalg.norm(errors) / len(found)
      means[domain] = float(np.mean(scores)), float(error)
  return means


def _row(cells: Sequence[tuple[float, float] | None], digits: int) -> list[str]:
  """Formats scores in percent; the highest is bold, unless all are equal."""
  scores = {x[0] for x in cells if x and x[0] is not None}
  scores = {x for x in scores if not math.isnan(x)}
  highest = max(scores) if len(scores) > 1 else None
  texts = []
  for cell in cells:
    text = with_error(*cell, digits, scale=100) if cell else '–'
    is_highest = cell and highest is not None and cell[0] == highest
    texts.append(f'**{text}**' if is_highest else text)
  return texts


def tasks_table(results: Results, benchmarks: Sequence[suite.Benchmark]) -> str:
  """Formats all tasks as Markdown (App. H): percent, standard errors."""
  rows, cut, nats, is_marked = [], [], [], False
  for benchmark in benchmarks:
    found = {model: x.get(benchmark.name) for model, x in results.items()}
    first = next(filter(None, found.values()), None)
    if first is None:
      continue
    title, is_marked = benchmark.title, is_marked or first['from_evaluated']
    rows.append(
      [
        benchmark.domain,
        title + (' †' if first['from_evaluated'] else ''),
        benchmark.metric,
        first['documents'],
        f'{100 * first["chance"]:.1f}',
        *_row(
          [x and (x['score'], x['standard_error']) for x in found.values()], 1
        ),
      ]
    )
    if first['cut']:
      cut.append(f'{title} {100 * first["cut"] / first["requests"]:.0f}%')
    if 'perplexity' in first['measures']:
      cells = [
        f'{model} '
        + with_error(x['log_perplexity'], x['log_perplexity_error'], 3)
        for model, x in found.items()
        if x
      ]
      nats += [
        '',
        f'{title}, log-perplexity of the right answer, nats (lower is better): '
        f'{"; ".join(cells)}.',
      ]
  header = ['domain', 'task', 'metric', 'documents', 'chance', *results]
  others = [f'{x.title} {x.shots}-shot' for x in benchmarks if x.shots != 1]
  lines = [
    files.markdown_table(header, rows),
    '',
    f'Percent ± standard error; {", ".join(["1-shot", *others])}.',
  ]
  if is_marked:
    lines.append(
      '† There is no training split here: demonstrations are other documents '
      'of the evaluated file.'
    )
  if cut:
    lines.append(
      'Requests longer than the model is wide, which lost the beginning of '
      f'their context: {", ".join(cut)}.'
    )
  return '\n'.join(lines + nats) + '\n'


def domains_table(
  results: Results, benchmarks: Sequence[suite.Benchmark]
) -> str:
  """Formats domain averages as Markdown (Table 2), in percent.

  For an incomplete domain the table shows how many of its tasks it has.
  """
  means = [averages(x, benchmarks) for x in results.values()]
  done = {name for of_model in results.values() for name in of_model}
  rows = []
  for domain in [*suite.DOMAINS, _AVERAGE]:
    names = {x.name for x in benchmarks if domain in (x.domain, _AVERAGE)}
    if count := len(names & done):
      tasks = count if names <= done else f'{count} of {len(names)}'
      rows.append([domain, tasks, *_row([x.get(domain) for x in means], 2)])
  return files.markdown_table(['domain', 'tasks', *results], rows)


def missing_list(missing: Mapping[str, str]) -> str:
  """Lists the missing benchmarks, {name: reason}, as Markdown."""
  titles = {x.name: x.title for x in suite.PAPER}
  by_reason = {}
  for name, reason in missing.items():
    by_reason.setdefault(reason, []).append(titles[name])
  return 'Not run:\n\n' + ''.join(
    f'- {", ".join(names)}: {reason}\n' for reason, names in by_reason.items()
  )


def plot(results: Results, benchmarks: Sequence[suite.Benchmark]) -> bytes:
  """Draws scores, standard errors and chance as bars: a PNG file's bytes."""
  missing = {'score': math.nan, 'standard_error': math.nan}
  done, chances = [], []
  for benchmark in benchmarks:
    found = [x[benchmark.name] for x in results.values() if benchmark.name in x]
    if found:
      done.append(benchmark)
      chances.append(100 * found[0]['chance'])
  canvas = figure.Figure(
    figsize=(max(6, 0.12 * len(done) * (len(results) + 1)), 4.2),
    layout='constrained',
  )
  axis = canvas.subplots()
  scores = {}
  for model, of_model in results.items():
    found = [of_model.get(x.name, missing) for x in done]
    scores[model] = [(x['score'], x['standard_error']) for x in found]
  titles, places = [x.title for x in done], np.arange(len(done))
  bar_charts.draw(axis, titles, scores)
  axis.set_xticks(places, titles, rotation=45, ha='right')
  axis.hlines(chances, places - 0.45, places + 0.45, 'black', 'dotted')
  axis.margins(x=0.01)
  axis.set_ylabel('score, % (dotted: chance)')
  canvas.legend(
    loc='outside upper center', ncols=len(results), fontsize='small'
  )
  return files.encode_figure(canvas)
