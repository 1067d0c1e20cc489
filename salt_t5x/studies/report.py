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

"""Turns the curves of a study's runs into a verdict, tables and a plot.

Means and standard errors are over seeds. Variants of one seed start from the
same weights and read the same data, so differences from the reference are taken
seed by seed.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import itertools
from typing import Any

import matplotlib
from matplotlib import figure
import numpy as np

from salt_t5x import files, standard_errors
from salt_t5x.studies import curves as curves_lib
from salt_t5x.studies import definition

# {variant: for each seed, curves of 'accuracy' and 'log_perplexity'}
OfVariants = Mapping[str, Sequence[curves_lib.Curves]]

CAPTION = (
  'Lines are means over the seeds; bands span the lowest to the highest seed. '
  'Dotted lines mark the steps of the table. Dashed curves are runs of another '
  'length.'
)

_RECIPES = {
  'teacher': 'the small language model that teaches, trained alone',
  'baseline': 'next-token prediction alone',
  'baseline_ez': 'next-token prediction that begins with sequences that are '
  'easy for the teacher',
  'rkd': 'distillation in every step',
  'salt': 'distillation for the first n_KD steps, then next-token prediction',
  'salt_ds': 'SALT whose first stage reads sequences that the teacher selected',
  'oracle': 'a larger model that stands for the distribution of the data',
}
# Variants that have the same color in all figures.
_COLORS = {
  'SLM': 'tab:gray',
  'BASELINE': 'tab:blue',
  'RKD': 'tab:green',
  'SALT': 'tab:red',
  'SALT_DS': 'tab:orange',
  'BASELINE_EZ': 'tab:purple',
}
_per_seed = standard_errors.per_seed


def summarize(
  study: definition.Study,
  of_variants: OfVariants,
  steps: Sequence[int],
) -> dict[str, Any]:
  """Reduces held-out curves to the numbers of a table.

  Args:
    study: the study.
    of_variants: {label: curves of each seed}, in the table's order.
    steps: the rows of each variant; a teacher, or a run of another length, has
      its last step alone.

  Returns:
    A JSON-able dict. 'rows' has, for each variant and step, accuracy in percent
    and log-perplexity in nats, lists over the seeds. 'passes' has, for each
    variant and seed, the share of the reference's steps after which it stays at
    or below the reference's final log-perplexity (interpolated linearly), or
    null.
  """
  recipes = {v.label: v.recipe for v in study.expand()}
  reference = of_variants[study.reference]
  last = reference[0]['log_perplexity'][-1][0]
  rows, passes = [], {}
  for label, of_seeds in of_variants.items():
    length = of_seeds[0]['log_perplexity'][-1][0]
    is_student = length == last and recipes[label] not in ('teacher', 'oracle')
    rows += [
      {
        'variant': label,
        'step': step,
        'accuracy': [100 * dict(x['accuracy'])[step] for x in of_seeds],
        'log_perplexity': [dict(x['log_perplexity'])[step] for x in of_seeds],
      }
      for step in (steps if is_student else [length])
    ]
    if label != study.reference and is_student:
      passes[label] = []
      for mine, theirs in zip(of_seeds, reference, strict=True):
        limit = theirs['log_perplexity'][-1][1]
        step = curves_lib.first_step_below(mine['log_perplexity'], limit)
        passes[label].append(None if step is None else step / last)
  return {
    'title': study.title,
    'about': study.about,
    'reference': study.reference,
    'seeds': len(reference),
    'total_steps': last,
    'rows': rows,
    'passes': passes,
  }


@dataclasses.dataclass(frozen=True)
class _Change:
  """How a row of the table differs from another, for each seed."""

  nats: list[float]  # of log-perplexity, positive if lower
  points: list[float]  # of accuracy, in percentage points

  @classmethod
  def of(cls, row: Mapping[str, Any], theirs: Mapping[str, Any]) -> '_Change':
    minus = lambda x, y: np.subtract(x, y).tolist()
    return cls(
      minus(theirs['log_perplexity'], row['log_perplexity']),
      minus(row['accuracy'], theirs['accuracy']),
    )

  @property
  def sign(self) -> int:
    """1 if better, -1 if worse, 0 if within two standard errors."""
    mean, error = np.mean(self.nats), standard_errors.standard_error(self.nats)
    return 0 if abs(mean) <= 2 * error else int(np.sign(mean))

  def distance(self, unit: str = '') -> str:
    """Returns e.g. '0.070 ± 0.010 below'."""
    mean, error = np.mean(self.nats), standard_errors.standard_error(self.nats)
    size = standard_errors.with_error(abs(mean), error, 3)
    return f'{size}{unit} {"below" if mean >= 0 else "above"}'


def _final_changes(results: Mapping[str, Any]) -> dict[str, _Change]:
  """Compares the end of each variant in 'passes' with the reference's."""
  last = results['total_steps']
  rows = {r['variant']: r for r in results['rows'] if r['step'] == last}
  theirs = rows[results['reference']]
  return {label: _Change.of(rows[label], theirs) for label in results['passes']}


def verdict(results: Mapping[str, Any]) -> str:
  """States what helped, by how much, and how sure that is.

  Args:
    results: the return value of `summarize`.

  Returns:
    A Markdown paragraph; '' if no variant is comparable with the reference.
  """
  changes = _final_changes(results)
  if not changes:
    return ''
  order = sorted(changes, key=lambda x: -np.mean(changes[x].nats))
  reference, last = results['reference'], results['total_steps']
  points = lambda x: _per_seed(changes[x].points, 2, '+')
  by_sign = {i: [x for x in order if changes[x].sign == i] for i in (1, -1, 0)}
  texts = [f'Nothing ends better than {reference}.']
  if by_sign[1]:
    best, *by_sign[1] = by_sign[1]
    early = ''
    if any(results['passes'][best]):
      early = (
        f', and matches the final log-perplexity of {reference} after '
        f'{_percent(results["passes"][best])} of the steps'
      )
    texts = [
      f'{best} helped{" most" if by_sign[1] else ""}: after {last:,} steps it '
      f'ends {_per_seed(changes[best].nats, 3)} nats below {reference} in '
      f'held-out log-perplexity, with {points(best)} percentage points of '
      f'next-token accuracy{early}.'
    ]
  names = 'Also lower', 'Higher', 'No clear difference'
  for name, labels in zip(names, by_sign.values(), strict=True):
    listed = [
      f'{x} ({changes[x].distance(" nats")}, {points(x)} points)'
      for x in labels
    ]
    texts += [f'{name}: {", ".join(listed)}.'] if listed else []
  if results['seeds'] > 1:
    sure = (
      f'these are means ± standard errors over {results["seeds"]} seeds, and a '
      'difference counts if it exceeds two standard errors.'
    )
  else:
    sure = (
      'this is one seed, so differences may be chance; `--seeds=0,1,2` gives '
      'standard errors.'
    )
  return ' '.join(['**Verdict.**', *texts, f'*How sure:* {sure}'])


def markdown(results: Mapping[str, Any], study: definition.Study) -> str:
  """Formats the return value of `summarize` as tables and sentences.

  Args:
    results: it, with 'costs' of `costs.measure` if they are known.
    study: the study.
  """
  reference = results['reference']
  at = {(r['variant'], r['step']): r for r in results['rows']}
  rows = []
  for (label, step), row in at.items():
    theirs = at.get((reference, step)) if label != reference else None
    rows.append(
      (
        label,
        step,
        _per_seed(row['accuracy'], 2),
        _per_seed(row['log_perplexity'], 3),
        _per_seed(_Change.of(row, theirs).nats, 3) if theirs else '',
      )
    )
  models = '; '.join(
    f'*{label}*: {_RECIPES[options["recipe"]]}'
    for label, options in study.variants.items()
  )
  errors = 'One seed, hence no standard errors.'
  if results['seeds'] > 1:
    errors = (
      f'Numbers are means ± standard errors over {results["seeds"]} seeds; '
      'differences are taken seed by seed.'
    )
  header = 'model', 'step', 'accuracy, %', 'log-perplexity'
  texts = [
    f'{models}.',
    '*accuracy*: the share of held-out tokens that the model ranks first given '
    'the tokens before them. *log-perplexity*: the mean negative '
    'log-likelihood of a held-out token, in nats; lower is better. *less than '
    f"{reference}*: by how many nats the model's log-perplexity is below that "
    f'of {reference} at the same step; negative means above. {errors}',
    files.markdown_table((*header, f'less than {reference}'), rows),
  ]
  if study.best_of:
    texts.append(_best(results))
  if results['passes']:
    texts.append(_ends(results, study))
  if results.get('costs'):
    texts += _costs(results)
  return '\n\n'.join(texts) + '\n'


def _best(results: Mapping[str, Any]) -> str:
  last = results['total_steps']
  rows = [r for r in results['rows'] if r['step'] == last]
  best = min(rows, key=lambda r: np.mean(r['log_perplexity']))
  near = [
    row['variant']
    for row in rows
    if row is not best and not _Change.of(best, row).sign
  ]
  text = f'{best["variant"]} has the lowest final log-perplexity'
  if results['seeds'] > 1:
    text += f'; within two standard errors of it: {", ".join(near) or "none"}'
  return f'{text}.'


def _percent(shares: Sequence[float | None]) -> str:
  """Formats e.g. '82 ± 3%', '97% (1 of 3 seeds)' or 'not reached'."""
  found = [100 * x for x in shares if x is not None]
  if not found:
    return 'not reached'
  some = f' ({len(found)} of {len(shares)} seeds)'
  return f'{_per_seed(found, 0)}%{some if len(found) < len(shares) else ""}'


def _ends(results: Mapping[str, Any], study: definition.Study) -> str:
  """Formats the end of each variant, here and in the paper."""
  reference = results['reference']
  text = (
    f'*matches after*: the share of the steps after which the log-perplexity '
    f'stays at or below the final one of {reference}'
  )
  header = ['model', f'ends, compared with {reference}', 'matches after']
  rows = [
    [label, change.distance(), _percent(results['passes'][label])]
    for label, change in _final_changes(results).items()
  ]
  if study.in_the_paper or study.passes_in_the_paper:
    text += '; in the paper, its few-shot scores are matched'
    header += ['ends, in the paper', 'matches after, in the paper']
    for row in rows:
      share = study.passes_in_the_paper.get(row[0])
      row += [
        study.in_the_paper.get(row[0], '–'),
        '–' if share is None else _percent([share]),
      ]
  return f'{files.markdown_table(header, rows)}\n\n{text}.'


def _costs(results: Mapping[str, Any]) -> list[str]:
  costs, reference = results['costs'], results['reference']
  # Seeds that do not match the reference have no savings.
  missing = lambda x: [None] * (len(costs['ratio']) - len(x))
  rows = [
    (label, *(_percent([*x, *missing(x)]) for x in savings.values()))
    for label, savings in costs['savings'].items()
  ]
  shared = f'shared by {costs["students"]} students'
  return [
    f'A KD step takes {_per_seed(costs["ratio"], 2)} plain steps, and a step '
    f"of the teacher's training {_per_seed(costs['teacher_step'], 2)} (medians "
    'of short runs that ran alone). The table has the time saved until the '
    f'final log-perplexity of {reference} is matched, in percent of the '
    f'training time of {reference} (App. J; as there, without scoring). The '
    "columns differ in how much of the teacher's training counts: nothing, all "
    'of it, or a share.',
    files.markdown_table(
      ('model', 'saved', 'with the whole training of the teacher', shared), rows
    ),
  ]


def colors(labels: Sequence[str]) -> dict[str, Any]:
  """Returns a color for each variant."""
  # The lighter half of tab20; the other half is tab10, which _COLORS uses.
  palettes = matplotlib.colormaps
  others = itertools.cycle(
    [*palettes['tab20'].colors[1::2], *palettes['Dark2'].colors]
  )
  return {x: _COLORS[x] if x in _COLORS else next(others) for x in labels}


def plot(
  study: definition.Study, of_variants: OfVariants, steps: Sequence[int]
) -> bytes:
  """Draws held-out accuracy and log-perplexity as SVG; see `CAPTION`."""
  count = len(of_variants)
  height = max(4.2, 0.3 * count + 1)
  canvas = figure.Figure(figsize=(15, height), layout='constrained')
  accuracy, log_perplexity, ends = canvas.subplots(1, 3)
  color_of = colors(list(of_variants))
  last = of_variants[study.reference][0]['log_perplexity'][-1][0]
  dotted = dict(color='black', linewidth=0.8, linestyle=':')
  for axis, tag in (accuracy, 'accuracy'), (log_perplexity, 'log_perplexity'):
    for label, of_seeds in of_variants.items():
      x = [step for step, _ in of_seeds[0][tag]]
      y = np.array([[value for _, value in c[tag]] for c in of_seeds])
      style, color = '-' if x[-1] == last else '--', color_of[label]
      axis.plot(x, y.mean(0), style, color=color, label=label)
      axis.fill_between(
        x, y.min(0), y.max(0), color=color, alpha=0.2, linewidth=0
      )
    for step in {*steps} - {last}:
      axis.axvline(step, **dotted)
    axis.set(xlabel='step', title=f'held-out {tag.replace("_", "-")}')
    axis.grid(alpha=0.3)
  accuracy.legend(fontsize='small' if count <= 8 else 5)
  final = {
    label: [c['log_perplexity'][-1][1] for c in of_seeds]
    for label, of_seeds in of_variants.items()
  }
  # Cuts off the first evaluations, which would flatten the rest.
  least = min(map(min, final.values()))
  log_perplexity.set_ylim(least - 0.1, least + 1.4)
  for row, (label, values) in enumerate(final.items()):
    error = standard_errors.standard_error(values) if len(values) > 1 else None
    ends.errorbar(
      np.mean(values),
      row,
      xerr=error,
      marker='o',
      capsize=3,
      color=color_of[label],
    )
  ends.axvline(np.mean(final[study.reference]), **dotted)
  ends.set_yticks(range(count), list(final), fontsize='small')
  ends.invert_yaxis()
  ends.set(title='final log-perplexity (mean ± standard error)')
  ends.grid(alpha=0.3, axis='x')
  with matplotlib.rc_context({'svg.hashsalt': 'salt', 'svg.fonttype': 'path'}):
    return files.encode_figure(canvas, format='svg', metadata={'Date': None})
