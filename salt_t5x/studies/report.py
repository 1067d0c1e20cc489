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

"""Turns the curves of a study's runs into a verdict, a table and a plot.

Means and standard errors are over seeds. Variants of one seed start from the
same weights and read the same data, so differences from the reference are taken
seed by seed.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import io
import itertools
from typing import Any

import matplotlib

matplotlib.use('Agg')  # Files only; there may be no screen.

import matplotlib.pyplot as plt
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
  recipes = {v.label: v.recipe for v in definition.expand(study.variants)}
  reference = of_variants[study.reference]
  last = reference[0]['log_perplexity'][-1][0]
  rows, passes = [], {}
  for label, of_seeds in of_variants.items():
    length = of_seeds[0]['log_perplexity'][-1][0]
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


def verdict(results: Mapping[str, Any]) -> str:
  """States what helped, by how much, and how sure that is.

  Args:
    results: the return value of `summarize`.

  Returns:
    A Markdown paragraph; '' if no variant is comparable with the reference.
  """
  if not results['passes']:
    return ''
  reference, last = results['reference'], results['total_steps']
  rows = {r['variant']: r for r in results['rows'] if r['step'] == last}
  changes = {x: _Change.of(rows[x], rows[reference]) for x in results['passes']}
  order = sorted(changes, key=lambda x: -np.mean(changes[x].nats))
  helped = [x for x in order if changes[x].sign > 0]
  hurt = [x for x in order[::-1] if changes[x].sign < 0]
  same = [x for x in order if not changes[x].sign]
  texts = []
  if helped:
    best, *others = helped
    gains, points = changes[best].nats, changes[best].points
    shares = [100 * x for x in results['passes'][best] if x is not None]
    early = (
      f', and matches the final log-perplexity of {reference} after '
      f'{standard_errors.per_seed(shares, 0)}% of the steps'
      f'{_of(shares, results["passes"][best])}'
    )
    texts.append(
      f'{best} helped{" most" if others else ""}: after {last:,} steps it ends '
      f'{standard_errors.per_seed(gains, 3)} nats below {reference} in '
      'held-out log-perplexity, with '
      f'{standard_errors.per_seed(points, 2, "+")} percentage points of '
      f'next-token accuracy{early if shares else ""}.'
    )
  else:
    others = []
    texts.append(f'Nothing ends better than {reference}.')
  for name, labels in (
    ('Also lower', others),
    ('Higher', hurt),
    ('No clear difference', same),
  ):
    if labels:
      listed = ', '.join(f'{x} ({changes[x]})' for x in labels)
      texts.append(f'{name}: {listed}.')
  if results['seeds'] > 1:
    texts.append(
      f'*How sure:* these are means ± standard errors over {results["seeds"]} '
      'seeds, and a difference counts if it exceeds two standard errors.'
    )
  else:
    texts.append(
      '*How sure:* this is one seed, so differences may be chance; '
      '`--seeds=0,1,2` gives standard errors.'
    )
  return ' '.join(['**Verdict.**', *texts])


@dataclasses.dataclass(frozen=True)
class _Change:
  """How a variant ends compared with the reference, for each seed."""

  nats: list[float]  # of log-perplexity, positive if lower
  points: list[float]  # of accuracy, in percentage points

  @classmethod
  def of(cls, row: Mapping[str, Any], theirs: Mapping[str, Any]) -> '_Change':
    points = np.subtract(row['accuracy'], theirs['accuracy']).tolist()
    return cls(_gains(row, theirs), points)

  @property
  def sign(self) -> int:
    """1 if better, -1 if worse, 0 if within two standard errors."""
    return 0 if _is_same(self.nats) else int(np.sign(np.mean(self.nats)))

  def __str__(self) -> str:
    """Returns e.g. '0.070 nats below, +0.60 points'."""
    points = standard_errors.per_seed(self.points, 2, '+')
    return f'{_distance(self.nats, " nats")}, {points} points'


def _distance(gains: Sequence[float], unit: str = '') -> str:
  """Returns e.g. '0.070 ± 0.010 below' for gains over seeds."""
  mean, error = np.mean(gains), standard_errors.standard_error(gains)
  size = standard_errors.with_error(abs(mean), error, 3)
  return f'{size}{unit} {"below" if mean >= 0 else "above"}'


def markdown(results: Mapping[str, Any], study: definition.Study) -> str:
  """Formats the return value of `summarize` as a table and sentences.

  Args:
    results: it, with 'costs' of `costs.measure` if they are known.
    study: the study.
  """
  reference, last = results['reference'], results['total_steps']
  at = {(r['variant'], r['step']): r for r in results['rows']}
  rows = []
  for row in results['rows']:
    theirs = at.get((reference, row['step']))
    is_compared = theirs is not None and row['variant'] != reference
    rows.append(
      (
        row['variant'],
        row['step'],
        standard_errors.per_seed(row['accuracy'], 2),
        standard_errors.per_seed(row['log_perplexity'], 3),
        standard_errors.per_seed(_gains(row, theirs), 3) if is_compared else '',
      )
    )
  models = [
    f'*{label}*: {_RECIPES[options["recipe"]]}'
    for label, options in study.variants.items()
  ]
  header = (
    'model', 'step', 'accuracy, %', 'log-perplexity', f'less than {reference}'
  )  # fmt: skip
  if results['seeds'] > 1:
    errors = (
      f'Numbers are means ± standard errors over {results["seeds"]} seeds; '
      'differences are taken seed by seed.'
    )
  else:
    errors = 'One seed, hence no standard errors.'
  lines = [
    f'{"; ".join(models)}.\n',
    '*accuracy*: the share of held-out tokens that the model ranks first given '
    'the tokens before them. *log-perplexity*: the mean negative '
    'log-likelihood of a held-out token, in nats; lower is better. *less than '
    f"{reference}*: by how many nats the model's log-perplexity is below that "
    f'of {reference} at the same step; negative means above. {errors}\n',
    files.markdown_table(header, rows),
    '',
  ]
  if study.best_of:
    lines.append(_best([r for r in results['rows'] if r['step'] == last]))
  lines += ['', *_ends(results, study), '']
  if results.get('costs'):
    lines += ['', *_costs(results)]
  return '\n'.join(lines) + '\n'


def _gains(row: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[float]:
  """Returns how many nats a row is below another, for each seed."""
  return np.subtract(theirs['log_perplexity'], row['log_perplexity']).tolist()


def _best(rows: Sequence[Mapping[str, Any]]) -> str:
  best = min(rows, key=lambda r: np.mean(r['log_perplexity']))
  text = f'{best["variant"]} has the lowest final log-perplexity'
  if len(best['log_perplexity']) < 2:
    return f'{text}.'
  near = [
    row['variant']
    for row in rows
    if row is not best and _is_same(_gains(best, row))
  ]
  if not near:
    return f'{text}, by more than two standard errors.'
  return f'{text}; within two standard errors of it: {", ".join(near)}.'


def _is_same(differences: Sequence[float]) -> bool:
  """Whether a mean is within two standard errors of zero."""
  error = standard_errors.standard_error(differences)
  return abs(np.mean(differences)) <= 2 * error


def _ends(results: Mapping[str, Any], study: definition.Study) -> list[str]:
  """Returns a sentence on the end of each variant, here and in the paper."""
  reference, last = results['reference'], results['total_steps']
  rows = {r['variant']: r for r in results['rows'] if r['step'] == last}
  lines = []
  for label, shares in results['passes'].items():
    gains = _gains(rows[label], rows[reference])
    text = f'- {label} ends {_distance(gains)} {reference}'
    found = [100 * x for x in shares if x is not None]
    if found:
      text += (
        f' and matches its final log-perplexity after '
        f'{standard_errors.per_seed(found, 0)}% of the steps'
        f'{_of(found, shares)}.'
      )
    else:
      text += ' and does not reach its final log-perplexity.'
    lines.append(text + _in_the_paper(label, gains, shares, study))
  return lines


def _of(found: Sequence[Any], seeds: Sequence[Any]) -> str:
  if len(found) == len(seeds):
    return ''
  return f' with {len(found)} of {len(seeds)} seeds'


def _in_the_paper(
  label: str,
  gains: Sequence[float],
  shares: Sequence[float | None],
  study: definition.Study,
) -> str:
  """Compares a variant with the paper's, if the study says how that ends."""
  text = ''
  if expected := study.in_the_paper.get(label):
    if _is_same(gains):
      text += f' In the paper it ends {expected}; here no difference shows.'
    elif (np.mean(gains) > 0) == (expected == 'better'):
      text += f' In the paper, too, it ends {expected}.'
    else:
      text += f' In the paper it ends {expected}; here it does not.'
  if (share := study.passes_in_the_paper.get(label)) is not None:
    shows = None not in shares and np.mean(shares) <= share
    text += (
      f' In the paper it matches the few-shot scores of {study.reference} '
      f'after {100 * share:.0f}% of the steps'
      f'{"." if shows else "; here it takes longer."}'
    )
  return text


def _costs(results: Mapping[str, Any]) -> list[str]:
  costs, reference = results['costs'], results['reference']
  ratio = standard_errors.per_seed(costs['ratio'], 2)
  teacher_step = standard_errors.per_seed(costs['teacher_step'], 2)
  rows = [
    (
      label,
      *(
        f'{standard_errors.per_seed([100 * x for x in savings[k]], 0)}%'
        f'{_of(savings[k], costs["ratio"])}'
        if savings[k]
        else 'not reached'
        for k in ('alone', 'with_teacher', 'shared')
      ),
    )
    for label, savings in costs['savings'].items()
  ]
  shared = f'shared by {costs["students"]} students'
  return [
    f"A KD step takes {ratio} plain steps, and a step of the teacher's "
    f'training {teacher_step} (medians of short runs that ran alone). The '
    f'table has the time saved until the final log-perplexity of {reference} '
    f'is matched, in percent of the training time of {reference} (App. J; as '
    "there, without scoring). The columns differ in how much of the teacher's "
    'training counts: nothing, all of it, or a share.\n',
    files.markdown_table(
      ('model', 'saved', 'with the whole training of the teacher', shared), rows
    ),
  ]


def colors(labels: Sequence[str]) -> dict[str, Any]:
  """Returns a color for each variant."""
  # The lighter half of tab20; the other half is tab10, which _COLORS uses.
  lighter = plt.colormaps['tab20'].colors[1::2]
  others = itertools.cycle([*lighter, *plt.colormaps['Dark2'].colors])
  return {x: _COLORS[x] if x in _COLORS else next(others) for x in labels}


def plot(
  study: definition.Study, of_variants: OfVariants, steps: Sequence[int]
) -> bytes:
  """Draws held-out accuracy and log-perplexity as SVG; see `CAPTION`."""
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
  # Cuts off the first evaluations, which would flatten the rest.
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
