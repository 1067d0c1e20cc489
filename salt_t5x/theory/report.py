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

"""Tables and figures of App. C and D, from the losses of completions."""

from collections.abc import Mapping, Sequence
import dataclasses
import os
from typing import Any

from absl import logging
import jax
from matplotlib import figure
import numpy as np

from salt_t5x import files, standard_errors
from salt_t5x.theory import bounds, deviations, divergences

# {T': (losses of eq. (1), of eq. (3)), [n, n_com] each, nats per token}
Parts = Mapping[int, tuple[np.ndarray, np.ndarray]]

# Title, key of `Deviations.summary`, digits.
_TABLES = (
  ('Mean |ξ̂_t|, nats per token (Tables 6 and 8)', 'mean_absolute_xi', 4),
  ("What the completions' noise alone would give", 'absolute_noise', 4),
  ('Mean ξ̂_t, 0 for text that is as the oracle expects', 'mean_xi', 4),
  ('Mean V̂_t as plugged in, nats² (Tables 7 and 9)', 'plug_in_v', 6),
  ('The same, without the noise of the completions', 'v', 6),
)

# {key of `at_omega`: (title, format)}
_COLUMNS = {
  'omega': ('ω', '.1f'),
  'div': ('DIV(ζ, ω)', '.2f'),
  'summed_v': ('Σ_t V_t', '.5f'),
  'variance': ('Var[ℓ^ω]', '.5f'),
  'last_v': ('V_T, eq. (69)', '.2e'),
  'theorem_3_2': ('Theorem 3.2', '.3g'),
  'theorem_3_4': ('Theorem 3.4', '.3g'),
  'theorem_b_7': ('Theorem B.7', '.3g'),
}

_NOTES = """
D is the oracle's distribution, not the data's. Finitely many completions add
noise to |ξ̂_t|, to the plug-in V̂_t and to the bounds; the corrected V̂_t is
unbiased, and its single values may be negative. The bounds take estimates from
one model and a sample for suprema over all models and contexts: they are
illustrations and guarantee nothing. docs/theory.md says what each number can
show, and what it cannot.
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Results:
  """The measurements.

  Attributes:
    models: {role: checkpoint}.
    held_out: the data's name.
    distillation_weight: ω of the tables.
    teacher_temperature: ρ.
    prefixes: the t's, sorted.
    training_sequences: N; None for no bounds.
    delta: δ.
    parts: {s: losses of the completions of x_1 ... x_s}.
    losses: those of the sequences themselves, [n] each.
    tokens: {name: [n, T]}, from `completions.token_divergences`.
    log_class: log |Θ|.
  """

  models: Mapping[str, str]
  held_out: str
  distillation_weight: float
  teacher_temperature: float
  prefixes: Sequence[int]
  training_sequences: int | None
  delta: float
  parts: Mapping[int, Parts]
  losses: tuple[np.ndarray, np.ndarray]
  tokens: Mapping[str, np.ndarray]
  log_class: float

  @property
  def lengths(self) -> list[int]:
    """The lengths T' of beginnings of sequences, T last."""
    return sorted(next(iter(self.parts.values())))


def log_class(params: Any) -> float:
  """Returns log |Θ|, counting every setting of 32 bits a parameter."""
  return 32 * np.log(2) * sum(x.size for x in jax.tree.leaves(params))


def deviations_at(
  results: Results, length: int, omega: float
) -> dict[int, deviations.Deviations]:
  """Returns {t: estimates} for sequences of `length` tokens and any ω."""
  mixed = {s: _mix(x[length], omega) for s, x in results.parts.items()}
  prefixes = [t for t in results.prefixes if t <= length]
  return deviations.by_prefix(mixed, prefixes)


def _mix(parts: tuple[np.ndarray, np.ndarray], omega: float) -> np.ndarray:
  """ℓ^ω of eq. (4) from its parts."""
  return (1 - omega) * parts[0] + omega * parts[1]


def at_omega(results: Results, omega: float) -> dict[str, float | None]:
  """Computes bias and variance of distillation for one ω (App. D).

  Returns:
    {'omega', 'div' (DIV(ζ, ω)), 'summed_v' (Σ_t V_t, corrected), 'variance'
    (of ℓ^ω of sequences that the oracle writes; None if ξ_1 was not estimated),
    'last_v' (eq. 69), and with N, the bounds' totals and terms}.
  """
  length, tokens = results.lengths[-1], results.tokens
  total_variation = float(np.mean(tokens['total_variation']))
  last = np.mean(tokens['log_likelihood_variance'][:, -1])
  found = deviations_at(results, length, omega)
  sum_over_t = lambda value: deviations.sum_over_positions(
    {t: float(value(x)) for t, x in found.items()}, length
  )
  # The correction may make a mean negative.
  summed_v = sum_over_t(lambda x: max(np.mean(x.corrected), 0))
  # Completions of the empty prefix are sequences from the oracle.
  written = results.parts.get(0)
  row = {
    'omega': omega,
    'div': omega * length * total_variation,
    'summed_v': summed_v,
    'variance': bounds.sample_variance(_mix(written[length], omega))
    if written
    else None,
    'last_v': float(divergences.last_variance(last, omega, length)),
  }
  if results.training_sequences is None:
    return row
  setting = bounds.Setting(
    sequences=results.training_sequences,
    largest_loss=float(np.max(tokens['largest_loss'])),
    distillation_weight=omega,
    total_variation=total_variation,
    delta=results.delta,
  )
  variance = bounds.sample_variance(_mix(results.losses, omega))
  largest = lambda x: np.max(np.abs(x.xi))
  log_class = results.log_class
  for name, bound in {
    # A finite class covers itself.
    'theorem_3_2': setting.sequence_bound(
      variance, variance, np.log(10) + log_class
    ),
    'theorem_3_4': setting.token_bound(
      float(max(map(largest, found.values()))), summed_v, log_class
    ),
    'theorem_b_7': setting.subgaussian_bound(
      sum_over_t(lambda x: largest(x) ** 2), log_class
    ),
  }.items():
    row[name] = bound.total
    row |= {f'{name}_{k}': v for k, v in dataclasses.asdict(bound).items()}
  return row


def summarize(results: Results) -> dict[str, Any]:
  """Returns everything that the tables show, for JSON."""
  tokens = results.tokens
  mean = lambda name: float(np.mean(tokens[name]))
  by_sequence = np.mean(tokens['total_variation'], axis=1)
  count, num_completions = next(iter(results.parts.values()))[
    results.lengths[0]
  ][0].shape
  omega = results.distillation_weight
  return {
    'models': dict(results.models),
    'held_out': results.held_out,
    'distillation_weight': omega,
    'teacher_temperature': results.teacher_temperature,
    'num_completions': num_completions,
    'sequences': count,
    'deviations': [
      {'length': length, 't': t} | found.summary()
      for length in results.lengths
      for t, found in deviations_at(results, length, omega).items()
    ],
    'total_variation': float(np.mean(by_sequence)),
    'total_variation_error': standard_errors.standard_error(by_sequence),
    'log_likelihood_variance': mean('log_likelihood_variance'),
    'losses': {role: mean(f'{role}_loss') for role in results.models},
    'excess_loss': mean('excess_loss'),
    'excess_error': mean('excess_error'),
    'excess_error_limit': bounds.excess_error(mean('excess_loss')),
    'largest_loss': float(np.max(tokens['largest_loss'])),
    'log_class': results.log_class,
    'training_sequences': results.training_sequences,
    'delta': results.delta,
    'over_omega': [at_omega(results, i / 10) for i in range(11)],
  }


def _table(summary: Mapping[str, Any], value: str, digits: int) -> str:
  """Formats one of Tables 6 to 9: rows are lengths, columns are t."""
  rows = summary['deviations']
  cells = {
    (row['length'], row['t']): standard_errors.with_error(
      row[value], row.get(f'{value}_error'), digits
    )
    for row in rows
  }
  prefixes = sorted({row['t'] for row in rows})
  return files.markdown_table(
    ['T', *(f't = {t}' for t in prefixes)],
    [
      [length, *(cells.get((length, t), '–') for t in prefixes)]
      for length in sorted({row['length'] for row in rows})
    ],
  )


def _doubts(losses: Mapping[str, float]) -> list[str]:
  """Says so if the oracle is not the best of the models."""
  if all(losses['oracle'] <= x for x in losses.values()):
    return []
  return [
    "The oracle's loss is not the smallest of the three: it does not stand for "
    "the data's distribution, and the numbers and bounds below say little."
  ]


def markdown(summary: Mapping[str, Any], errors_over: str = 'sequences') -> str:
  """Formats the result of `summarize`; `errors_over` explains the errors."""
  has_bounds = summary['training_sequences'] is not None
  total_variation = standard_errors.with_error(
    summary['total_variation'], summary['total_variation_error'], 4
  )
  losses = ', '.join(f'{k} {x:.3f}' for k, x in summary['losses'].items())
  columns = {
    name: column
    for name, column in _COLUMNS.items()
    if has_bounds or not name.startswith('theorem')
  }
  lines = [
    '',
    *(f'- {role}: {path}' for role, path in summary['models'].items()),
    f'- {summary["sequences"]} sequences of {summary["held_out"]}, '
    f'{summary["num_completions"]} completions each; '
    f'ω = {summary["distillation_weight"]:g}, '
    f'ρ = {summary["teacher_temperature"]:g}; '
    f'± standard errors over {errors_over}',
    f'- loss on them, nats per token: {losses}',
    *(f'\n**{x}**' for x in _doubts(summary['losses'])),
    *(
      f'\n{title}:\n\n{_table(summary, value, digits)}'
      for title, value, digits in _TABLES
    ),
    f'\nTeacher and oracle, D_TV(P_ζ^ρ, D): {total_variation} (mean over '
    'tokens). Variance of log P_θ under the oracle: '
    f'{summary["log_likelihood_variance"]:.2f} nats². Largest loss of any '
    f'token anywhere (M): {summary["largest_loss"]:.1f} nats.\n',
    f"Calibration, eq. (64): the student's loss exceeds the oracle's by "
    f'{summary["excess_loss"]:.3f} nats per token under the oracle, which lets '
    "its best guess be wrong more often than the oracle's by "
    f'{summary["excess_error_limit"]:.3f} at most; it is by '
    f'{summary["excess_error"]:.3f}.\n',
    'Bias and variance over ω (App. D; DIV and Σ_t are over a sequence):\n',
    files.markdown_table(
      [title for title, _ in columns.values()],
      [
        [
          '–' if row[name] is None else format(row[name], form)
          for name, (_, form) in columns.items()
        ]
        for row in summary['over_omega']
      ],
    ),
  ]
  if has_bounds:
    lines.append(
      f'\nBounds on R(θ̂) - R(θ*) in nats per token, for N = '
      f'{summary["training_sequences"]:,} training sequences and log |Θ| = '
      f'{summary["log_class"]:.3g}, each but for a chance of '
      f'{summary["delta"]}.'
    )
  return '\n'.join(lines) + '\n' + _NOTES


def markdown_over_seeds(summaries: Sequence[Mapping[str, Any]]) -> str:
  """Formats the results of `summarize` for several seeds as their means.

  Errors are over seeds rather than over sequences. Lines that name checkpoints
  name the first seed's.
  """

  def merge(*values):
    first = values[0]
    if isinstance(first, Mapping):
      merged = {k: merge(*(v[k] for v in values)) for k in first}
      return merged | {
        f'{k}_error': standard_errors.standard_error([v[k] for v in values])
        for k in first
        if f'{k}_error' in first
      }
    if isinstance(first, list):
      return [merge(*x) for x in zip(*values, strict=True)]
    if isinstance(first, float) and None not in values:
      return float(np.mean(values))
    return first

  if len(summaries) == 1:
    return markdown(summaries[0])
  return markdown(
    merge(*summaries), f'{len(summaries)} seeds, the first of which is named'
  )


def _plot(results: Results, summary: Mapping[str, Any]) -> bytes:
  canvas = figure.Figure(figsize=(15, 8), layout='constrained')
  (xi, v, mean_xi), (mean_v, trade_off, distance) = canvas.subplots(2, 3)
  length = results.lengths[-1]
  found = deviations_at(results, length, results.distillation_weight)

  def curve(axis, rows, x, y, **style):
    axis.plot([row[x] for row in rows], [row[y] for row in rows], **style)

  for axis, name, title in (
    (xi, 'xi', r'$\hat\xi_t$, nats per token'),
    (v, 'squared', r'$\hat V_t$ (plug-in), nats$^2$'),
  ):
    for t in list(found)[:: max(1, len(found) // 5)]:
      values = getattr(found[t], name)
      axis.hist(values, bins=40, histtype='step', label=f't = {t}')
    axis.set(title=f'{title}, T = {length}', ylabel='sequences')
  for x in results.lengths:
    rows = [row for row in summary['deviations'] if row['length'] == x]
    curve(mean_xi, rows, 't', 'mean_absolute_xi', label=f'T = {x}', marker='o')
  mean_xi.set(
    title=r'mean $|\hat\xi_t|$', xlabel='t', xscale='log', yscale='log'
  )
  for name, label in (('plug_in_v', 'plug-in'), ('v', 'corrected')):
    curve(mean_v, rows, 't', name, label=label, marker='o')
  mean_v.set(title=rf'mean $\hat V_t$, T = {length}', xlabel='t', xscale='log')
  for axis in xi, v, mean_xi, mean_v:
    axis.legend()
  for axis, name, label, color in (
    (trade_off, 'summed_v', r'$\Sigma_t V_t$ (variance)', 'tab:blue'),
    (trade_off.twinx(), 'div', r'DIV$(\zeta, \omega)$ (bias)', 'tab:red'),
  ):
    curve(axis, summary['over_omega'], 'omega', name, color=color)
    axis.set_ylabel(label, color=color)
    axis.set_ylim(bottom=0)
  trade_off.set(title='bias and variance', xlabel=r'$\omega$')
  by_position = np.mean(results.tokens['total_variation'], axis=0)
  distance.plot(np.arange(1, length + 1), by_position)
  distance.set(
    title=r'$D_{TV}(P_{\zeta^\rho}, D)$ by position', xlabel='t', ylim=(0, 1)
  )
  for axis in xi, v, mean_xi, mean_v, trade_off, distance:
    axis.grid(alpha=0.3)
  return files.encode_figure(canvas, dpi=110)


def write(results: Results, output_dir: str, write: bool) -> str:
  """Writes theory.json, theory.md and theory.png.

  Args:
    results: the measurements.
    output_dir: the folder of the files.
    write: False on all processes but one.

  Returns:
    The tables, as Markdown.
  """
  summary = summarize(results)
  text = f'# The theory, from these models\n{markdown(summary)}'
  if write:
    for doubt in _doubts(summary['losses']):
      logging.warning('%s', doubt)
    path = lambda name: os.path.join(output_dir, name)
    files.write_json(path('theory.json'), summary)
    files.write_whole(path('theory.png'), _plot(results, summary))
    files.write_whole(
      path('theory.md'), f'{text}\n![Figures](theory.png)\n'.encode()
    )
  return text
