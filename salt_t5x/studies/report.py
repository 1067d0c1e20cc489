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

"""From the curves of a study's runs to its table, its plot and its JSON.

Means and standard errors are over seeds. Variants with the same seed begin with
the same weights and read the same data, so that differences from the reference
are taken seed by seed.
"""

from collections.abc import Mapping, Sequence
import io
import itertools
from typing import Any

import matplotlib

matplotlib.use('Agg')  # Files only; there may be no screen.

import matplotlib.pyplot as plt
import numpy as np

from salt_t5x import standard_errors
from salt_t5x.studies import curves as curves_lib
from salt_t5x.studies import definition

# {variant: for each seed, curves of 'accuracy' and 'log_perplexity'}
OfVariants = Mapping[str, Sequence[curves_lib.Curves]]

CAPTION = (
  'Lines are means over the seeds, bands reach from the least to the largest '
  'of them, dotted lines are steps of the table, dashed curves are of runs of '
  'another length.'
)

# Those that have a colour of their own in all figures.
_COLORS = {
  'SLM': 'tab:gray',
  'BASELINE': 'tab:blue',
  'RKD': 'tab:green',
  'SALT': 'tab:red',
  'SALT_DS': 'tab:orange',
  'BASELINE_EZ': 'tab:purple',
}


def summarize(
  study: definition.Study,
  of_variants: OfVariants,
  steps: Sequence[int],
) -> dict[str, Any]:
  """Reduces held-out curves to the numbers of a table.

  Args:
    study: whose variants they are.
    of_variants: {label: curves of each seed}, in the table's order.
    steps: of the columns; a variant whose run is shorter shows its last.

  Returns:
    A JSON-able dict. 'rows' has, for each variant and step, accuracy in percent
    and log-perplexity in nats, lists over the seeds. 'passes' has, for each
    variant, the share of the reference's steps after which it stays at or below
    the reference's final log-perplexity (between evaluations, a straight line),
    or null, for each seed.
  """
  recipes = {v.label: v.recipe for v in definition.expand(study.variants)}
  reference = of_variants[study.reference]
  last = reference[0]['log_perplexity'][-1][0]
  rows, passes = [], {}
  for label, of_seeds in of_variants.items():
    length = of_seeds[0]['log_perplexity'][-1][0]
    # Of a teacher only the end counts, and of a run of another length.
    is_student = length == last and recipes[label] not in ('teacher', 'oracle')
    for step in steps if is_student else [length]:
      at = lambda tag, step=step, of_seeds=of_seeds: [
        dict(curves[tag])[step] for curves in of_seeds
      ]
      rows.append(
        {
          'variant': label,
          'step': step,
          'accuracy': [100 * a for a in at('accuracy')],
          'log_perplexity': at('log_perplexity'),
        }
      )
    if label != study.reference and is_student:
      passes[label] = [
        _share(mine, theirs, last)
        for mine, theirs in zip(of_seeds, reference, strict=True)
      ]
  return {
    'title': study.title,
    'about': study.about,
    'reference': study.reference,
    'seeds': len(reference),
    'total_steps': last,
    'rows': rows,
    'passes': passes,
  }


def _share(mine, theirs, last: int) -> float | None:
  limit = theirs['log_perplexity'][-1][1]
  step = curves_lib.first_step_below(mine['log_perplexity'], limit)
  return None if step is None else step / last


def markdown(results: Mapping[str, Any], study: definition.Study) -> str:
  """Formats what `summarize` returns as a table and sentences.

  Args:
    results: with 'costs' of `costs.measure` among them, if they are known.
    study: whose they are.
  """
  reference, last = results['reference'], results['total_steps']
  at = {(r['variant'], r['step']): r for r in results['rows']}
  lines = [
    f'| model | step | accuracy, % | log-perplexity | less than {reference} |',
    '|---|---|---|---|---|',
  ]
  for row in results['rows']:
    theirs = at.get((reference, row['step']))
    difference = ''
    if theirs is not None and row['variant'] != reference:
      difference = standard_errors.over(_gains(row, theirs), 3)
    lines.append(
      f'| {row["variant"]} | {row["step"]} '
      f'| {standard_errors.over(row["accuracy"], 2)} '
      f'| {standard_errors.over(row["log_perplexity"], 3)} | {difference} |'
    )
  lines.append('')
  if results['seeds'] > 1:
    lines.append(
      f'Mean ± standard error over {results["seeds"]} seeds; differences are '
      f'taken seed by seed.'
    )
  else:
    lines.append('One seed; what others would give is not known.')
  if study.best_of:
    lines.append(_best([r for r in results['rows'] if r['step'] == last]))
  lines += ['', *_ends(results, study), '']
  if results.get('costs'):
    lines += ['', *_costs(results)]
  return '\n'.join(lines) + '\n'


def _gains(row: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[float]:
  return np.subtract(theirs['log_perplexity'], row['log_perplexity']).tolist()


def _best(rows: Sequence[Mapping[str, Any]]) -> str:
  best = min(rows, key=lambda r: np.mean(r['log_perplexity']))
  text = f'The least final log-perplexity has {best["variant"]}'
  if len(best['log_perplexity']) < 2:
    return f'{text}.'
  near = []
  for row in rows:
    more = _gains(best, row)
    if row is not best and _is_same(more):
      near.append(row['variant'])
  if not near:
    return f'{text}, by more than two standard errors.'
  return f'{text}; within two standard errors of it are {", ".join(near)}.'


def _is_same(differences: Sequence[float]) -> bool:
  """Whether a mean is within two standard errors of zero."""
  error = standard_errors.standard_error(differences)
  return abs(np.mean(differences)) <= 2 * error


def _ends(results: Mapping[str, Any], study: definition.Study) -> list[str]:
  """A sentence on each variant: where it ends, and how the paper's does."""
  reference, last = results['reference'], results['total_steps']
  rows = {r['variant']: r for r in results['rows'] if r['step'] == last}
  lines = []
  for label, shares in results['passes'].items():
    gains = _gains(rows[label], rows[reference])
    mean, error = np.mean(gains), standard_errors.standard_error(gains)
    size = standard_errors.with_error(abs(mean), error, 3)
    text = (
      f'- {label} ends {size} {"below" if mean >= 0 else "above"} {reference}'
    )
    found = [100 * x for x in shares if x is not None]
    if found:
      text += (
        f' and reaches its final log-perplexity after '
        f'{standard_errors.over(found, 0)}% of the steps{_of(found, shares)}.'
      )
    else:
      text += ' and does not reach its final log-perplexity.'
    lines.append(text + _beside_the_paper(label, gains, shares, study))
  return lines


def _of(found: Sequence[Any], of_seeds: Sequence[Any]) -> str:
  if len(found) == len(of_seeds):
    return ''
  return f' with {len(found)} of {len(of_seeds)} seeds'


def _beside_the_paper(
  label: str,
  gains: Sequence[float],
  shares: Sequence[float | None],
  study: definition.Study,
) -> str:
  text = ''
  if expected := study.in_the_paper.get(label):
    if _is_same(gains):
      text += f' In the paper it ends {expected}; no difference is seen here.'
    elif (np.mean(gains) > 0) == (expected == 'better'):
      text += f' In the paper, too, it ends {expected}.'
    else:
      text += f' In the paper it ends {expected}; that does not show here.'
  if (share := study.passes_in_the_paper.get(label)) is not None:
    shows = None not in shares and np.mean(shares) <= share
    text += (
      f" The paper's has the few-shot scores of {study.reference} after "
      f'{100 * share:.0f}% of the steps'
      f'{"." if shows else "; that does not show here."}'
    )
  return text


def _costs(results: Mapping[str, Any]) -> list[str]:
  costs, lines = results['costs'], []
  ratio = standard_errors.over(costs['ratio'], 2)
  teacher_step = standard_errors.over(costs['teacher_step'], 2)
  lines.append(
    f"A KD step takes {ratio} plain steps, and a step of the teacher's "
    f'training {teacher_step}: medians of short runs with nothing beside them. '
    f"The time saved until {results['reference']}'s final log-perplexity is "
    f'reached, in percent of the time that {results["reference"]} takes (App. '
    'J; as there, without the scoring of data):\n'
  )
  lines += [
    '| model | saved | with the whole training of the teacher | shared by '
    f'{costs["students"]} students |',
    '|---|---|---|---|',
  ]
  for label, savings in costs['savings'].items():
    cells = [
      standard_errors.over([100 * x for x in savings[k]], 0)
      + '%'
      + _of(savings[k], costs['ratio'])
      if savings[k]
      else 'not reached'
      for k in ('alone', 'with_teacher', 'shared')
    ]
    lines.append(f'| {label} | {" | ".join(cells)} |')
  return lines


def colors(labels: Sequence[str]) -> dict[str, Any]:
  """A colour for each variant."""
  # tab20 has each of tab10's colours, which are taken, and a lighter one.
  lighter = plt.colormaps['tab20'].colors[1::2]
  others = itertools.cycle([*lighter, *plt.colormaps['Dark2'].colors])
  return {x: _COLORS[x] if x in _COLORS else next(others) for x in labels}


def plot(
  study: definition.Study, of_variants: OfVariants, steps: Sequence[int]
) -> bytes:
  """Draws held-out accuracy and log-perplexity, and where they end, as SVG.

  Lines are means over seeds, bands the least and largest of them.
  """
  count = len(of_variants)
  figure, axes = plt.subplots(
    1, 3, figsize=(15, max(4.2, 0.3 * count + 1)), layout='constrained'
  )
  color_of = colors(list(of_variants))
  last = of_variants[study.reference][0]['log_perplexity'][-1][0]
  for axis, tag in zip(axes[:2], ('accuracy', 'log_perplexity'), strict=True):
    for label, of_seeds in of_variants.items():
      x = [step for step, _ in of_seeds[0][tag]]
      y = np.array([[value for _, value in c[tag]] for c in of_seeds])
      style = '-' if x[-1] == last else '--'
      axis.plot(x, y.mean(0), style, color=color_of[label], label=label)
      axis.fill_between(
        x, y.min(0), y.max(0), color=color_of[label], alpha=0.2, linewidth=0
      )
    for step in steps:
      if step != last:
        axis.axvline(step, color='black', linewidth=0.8, linestyle=':')
    axis.set(xlabel='step', title=f'held-out {tag.replace("_", "-")}')
    axis.grid(alpha=0.3)
  final = {
    label: [c['log_perplexity'][-1][1] for c in of_seeds]
    for label, of_seeds in of_variants.items()
  }
  # The first evaluations would flatten what matters.
  least = min(min(x) for x in final.values())
  axes[1].set_ylim(least - 0.1, least + 1.4)
  axes[0].legend(fontsize='small' if count <= 8 else 5)
  for row, (label, values) in enumerate(final.items()):
    axes[2].errorbar(
      np.mean(values),
      row,
      xerr=standard_errors.standard_error(values) if len(values) > 1 else None,
      marker='o',
      capsize=3,
      color=color_of[label],
    )
  axes[2].axvline(
    np.mean(final[study.reference]), color='black', linewidth=0.8, linestyle=':'
  )
  axes[2].set_yticks(range(count), list(final), fontsize='small')
  axes[2].invert_yaxis()
  axes[2].set(title='final log-perplexity (mean ± standard error)')
  axes[2].grid(alpha=0.3, axis='x')
  file = io.BytesIO()
  with plt.rc_context({'svg.hashsalt': 'salt', 'svg.fonttype': 'path'}):
    figure.savefig(file, format='svg', metadata={'Date': None})
  plt.close(figure)
  return file.getvalue()
