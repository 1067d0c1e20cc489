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

"""The report on a selection: tables and a plot."""

from collections.abc import Mapping
import re

from matplotlib import figure
import numpy as np

from salt_t5x import files
from salt_t5x.data import render
from salt_t5x.selection import pool as pool_lib
from salt_t5x.selection import record as selection_record

_DOMAINS_DRAWN = 25
_ALL = 'all'


def _printable(text: str) -> str:
  return render.escape(text).replace('\n', r'\n')


def _label(domain: str) -> str:
  """A domain's name in tables, which is neither empty nor that of the total."""
  return (domain or '(none)') + '_' * (domain.rstrip('_') == _ALL)


def _by_count(domains: Mapping[str, np.ndarray]) -> list[tuple[str, int, int]]:
  """(name, in the pool, selected), most frequent first."""
  rows = [
    (_printable(_label(x)), int(n[0]), int(n[1])) for x, n in domains.items()
  ]
  return sorted(rows, key=lambda row: (-row[1], row[0]))


def markdown(
  record: selection_record.Selection,
  statistics: pool_lib.Statistics,
  reason: str,
) -> str:
  """Formats a selection as tables in Markdown.

  Args:
    record: the selection.
    statistics: the selection compared with its pool.
    reason: why the pool begins where it does.
  """
  use = f'repeats the selected ones: each {record.repeats:.2f} times on average'
  if record.repeats == 1:
    use = 'reads each selected one once'
  elif record.repeats < 1:
    use = (
      f'reads the first {record.repeats:.2%} of the selected ones, each once'
    )
  special = re.compile(r'([\\`*_\[\]<>|~$&])')
  domains = files.markdown_table(
    ('domain', 'in the pool', 'share, %', 'selected', 'share, %'),
    [
      (
        special.sub(r'\\\1', name),
        f'{before:,}',
        f'{100 * before / record.pool:.2f}',
        f'{after:,}',
        f'{100 * after / record.selected:.2f}',
      )
      for name, before, after in [
        *_by_count(statistics.domains),
        (_ALL, record.pool, record.selected),
      ]
    ],
    '-rrrr',
  )
  quantiles = files.markdown_table(
    ('quantile of the scores', 'in the pool', 'selected'),
    [
      (f'{percent}%', f'{before:.6g}', f'{after:.6g}')
      for percent, (before, after) in statistics.quantiles.items()
    ],
    '-rr',
  )
  return f"""# Selection

- {record.selected:,} of {record.pool:,} examples \
({record.selected / record.pool:.2%}) are selected, those with the \
highest score `{record.kind}`, k = {record.top_k}.
- The pool begins at position {record.first_position:,} of the global \
order of `{_printable(record.task)}`, split `{_printable(record.split)}`: \
{reason}.
- The scores are by `{_printable(record.teacher)}`.
- The threshold is the score {record.threshold_score:.6g}, which \
{record.ties:,} examples have; of these the {record.ties_selected:,} \
with ids up to {record.threshold_id} are selected.
- The first stage takes {record.needed:,} examples: it {use}.

{domains}

{quantiles}
"""


def plot(
  record: selection_record.Selection, statistics: pool_lib.Statistics
) -> bytes:
  """Plots scores with the threshold, and domains; returns a PNG."""
  rows = _by_count(statistics.domains)[:_DOMAINS_DRAWN]
  names, *counts = zip(*rows, strict=True)
  y = np.arange(len(names))
  height = max(4.2, 1.2 + 0.32 * len(y))
  canvas = figure.Figure((11, height), layout='constrained')
  left, right = canvas.subplots(1, 2)
  left.stairs(
    statistics.histogram, statistics.edges, fill=True, color='tab:gray'
  )
  left.axvline(record.threshold_score, color='tab:red')
  left.set(
    title='scores in the pool, and the threshold',
    xlabel=f'score ({record.kind}, k = {record.top_k})',
    ylabel='examples',
  )
  shares = 100 * np.array(counts) / [[record.pool], [record.selected]]
  right.barh(y - 0.2, shares[0], 0.4, label='pool', color='tab:gray')
  right.barh(y + 0.2, shares[1], 0.4, label='selected', color='tab:red')
  # Without `parse_math`, two dollar signs would enclose a formula.
  right.set_yticks(y, [name[:30] for name in names], parse_math=False)
  right.invert_yaxis()
  title = f'{len(y)} of {len(statistics.domains)} domains'
  right.set(title=title, xlabel='share, %')
  right.legend()
  for axis in (left, right):
    axis.grid(alpha=0.3)
  return files.encode_figure(canvas)
