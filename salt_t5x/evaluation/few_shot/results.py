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
from salt_t5x.evaluation.few_shot import running, suite
from salt_t5x.standard_errors import with_error

# {model: {benchmark: its result}}
Results = Mapping[str, Mapping[str, running.Result]]


def from_json(
  found: Mapping[str, Mapping[str, Any]],
) -> dict[str, running.Result]:
  """Converts {benchmark: JSON object} to {benchmark: result}.

  Raises:
    ValueError: a result is of another form.
  """
  results = {}
  for name, fields in found.items():
    try:
      # JSON has no NaN.
      numbers = {'score', 'standard_error'}
      if 'perplexity' in fields['measures']:
        numbers |= {'log_perplexity', 'log_perplexity_error'}
      nan = {x: math.nan for x in numbers if fields[x] is None}
      results[name] = running.Result(**(fields | nan))
    except (KeyError, TypeError) as e:
      raise ValueError(
        f'A result of {name} is not of the form that few-shot tasks have '
        f'({e!r}). Delete its files, and evaluate again.'
      ) from e
  return results


def averages(
  results: Mapping[str, running.Result], benchmarks: Sequence[suite.Benchmark]
) -> dict[str, tuple[float, float]]:
  """Averages scores over the tasks of each domain, unweighted.

  Returns:
    {domain: (mean, standard error)}, and 'Average' over all tasks. Tasks
    without a result are left out, and domains without a task.
  """
  means = {}
  for domain in [*suite.DOMAINS, 'Average']:
    found = [
      results[x.name]
      for x in benchmarks
      if x.name in results and domain in (x.domain, 'Average')
    ]
    if found:
      # Tasks are independent of each other.
      error = np.linalg.norm([x.standard_error for x in found]) / len(found)
      means[domain] = float(np.mean([x.score for x in found])), float(error)
  return means


def _best(cells: Sequence[float | None], texts: Sequence[str]) -> list[str]:
  """Sets a row's highest value in bold, unless all are equal."""
  known = [x for x in cells if x is not None and not math.isnan(x)]
  highest = max(known) if len(set(known)) > 1 else None
  return [
    f'**{text}**' if cell is not None and cell == highest else text
    for cell, text in zip(cells, texts, strict=True)
  ]


def tasks_table(results: Results, benchmarks: Sequence[suite.Benchmark]) -> str:
  """Formats all tasks as Markdown (App. H): percent, standard errors."""
  known, rows = {}, []
  for benchmark in benchmarks:
    found = [of_model.get(benchmark.name) for of_model in results.values()]
    first = next((x for x in found if x), None)
    if first is None:
      continue
    known[benchmark] = first
    texts = [
      with_error(x.score, x.standard_error, 1, scale=100) if x else '–'
      for x in found
    ]
    rows.append(
      [
        benchmark.domain,
        benchmark.title + (' †' if first.from_evaluated else ''),
        benchmark.metric,
        first.documents,
        f'{100 * first.chance:.1f}',
        *_best([x and x.score for x in found], texts),
      ]
    )
  header = ['domain', 'task', 'metric', 'documents', 'chance', *results]
  lines = [
    files.markdown_table(header, rows),
    '',
    f'Percent ± standard error; {_shots(benchmarks)}.',
  ]
  if any(x.from_evaluated for x in known.values()):
    lines.append(
      '† There is no training split here: demonstrations are other documents '
      'of the evaluated file.'
    )
  if cut := [
    f'{benchmark.title} {100 * x.cut / x.requests:.0f}%'
    for benchmark, x in known.items()
    if x.cut
  ]:
    lines.append(
      'Requests longer than the model is wide, which lost the beginning of '
      f'their context: {", ".join(cut)}.'
    )
  lines += _log_perplexities(results, benchmarks)
  return '\n'.join(lines) + '\n'


def _shots(benchmarks: Sequence[suite.Benchmark]) -> str:
  others = [f'{x.title} {x.shots}-shot' for x in benchmarks if x.shots != 1]
  return ', '.join(['1-shot', *others])


def _log_perplexities(
  results: Results, benchmarks: Sequence[suite.Benchmark]
) -> list[str]:
  lines = []
  for benchmark in benchmarks:
    found = {
      model: of_model[benchmark.name]
      for model, of_model in results.items()
      if benchmark.name in of_model
    }
    cells = [
      f'{model} {with_error(x.log_perplexity, x.log_perplexity_error, 3)}'
      for model, x in found.items()
      if x.log_perplexity is not None
    ]
    if cells:
      lines += [
        '',
        f'{benchmark.title}, log-perplexity of the right answer, nats (lower '
        f'is better): {"; ".join(cells)}.',
      ]
  return lines


def domains_table(
  results: Results, benchmarks: Sequence[suite.Benchmark]
) -> str:
  """Formats domain averages as Markdown (Table 2), in percent.

  For an incomplete domain the table shows how many of its tasks it has.
  """
  means = {
    model: averages(of_model, benchmarks) for model, of_model in results.items()
  }
  done = {name for of_model in results.values() for name in of_model}
  rows = []
  for domain in [*suite.DOMAINS, 'Average']:
    of_domain = [x for x in benchmarks if domain in (x.domain, 'Average')]
    count = sum(x.name in done for x in of_domain)
    if not count:
      continue
    tasks = count if count == len(of_domain) else f'{count} of {len(of_domain)}'
    found = [means[model].get(domain) for model in results]
    cells = [x and x[0] for x in found]
    texts = [with_error(*x, 2, scale=100) if x else '–' for x in found]
    rows.append([domain, tasks, *_best(cells, texts)])
  return files.markdown_table(['domain', 'tasks', *results], rows)


def missing_list(missing: Mapping[str, str]) -> str:
  """Lists the missing benchmarks as Markdown; '' if there are none."""
  if not missing:
    return ''
  titles = {x.name: x.title for x in suite.PAPER}
  by_reason = {}
  for name, reason in missing.items():
    by_reason.setdefault(reason, []).append(titles[name])
  return 'Not run:\n\n' + ''.join(
    f'- {", ".join(names)}: {reason}\n' for reason, names in by_reason.items()
  )


def plot(results: Results, benchmarks: Sequence[suite.Benchmark]) -> bytes:
  """Draws scores, standard errors and chance as bars: a PNG file's bytes."""
  done = [x for x in benchmarks if any(x.name in r for r in results.values())]
  canvas = figure.Figure(
    figsize=(max(6, 0.12 * len(done) * (len(results) + 1)), 4.2),
    layout='constrained',
  )
  axis = canvas.subplots()
  width = 0.85 / len(results)
  for i, (model, of_model) in enumerate(results.items()):
    places = [j for j, x in enumerate(done) if x.name in of_model]
    found = [of_model[done[j].name] for j in places]
    axis.bar(
      [j + (i + 0.5) * width - 0.425 for j in places],
      [100 * x.score for x in found],
      width,
      yerr=[100 * x.standard_error for x in found],
      error_kw={'linewidth': 0.7},
      label=model,
    )
  for j, benchmark in enumerate(done):
    chance = next(
      r[benchmark.name].chance for r in results.values() if benchmark.name in r
    )
    axis.hlines(100 * chance, j - 0.45, j + 0.45, 'black', 'dotted')
  axis.set_xticks(
    range(len(done)), [x.title for x in done], rotation=45, ha='right'
  )
  axis.margins(x=0.01)
  axis.set(ylabel='score, % (dotted: chance)')
  canvas.legend(
    loc='outside upper center', ncols=len(results), fontsize='small'
  )
  return files.encode_figure(canvas)
