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

import re

from matplotlib import figure
import numpy as np

from salt_t5x import files
from salt_t5x.data import render
from salt_t5x.selection import pool as pool_lib
from salt_t5x.selection import record as selection_record


def _printable(text: str) -> str:
  return render.escape(text).replace('\n', r'\n')


def markdown(
  record: selection_record.Selection, statistics: pool_lib.Statistics
) -> str:
  """Formats a selection as tables in Markdown."""
  special = re.compile(r'([\\`*_\[\]<>|~$&])')
  domains = files.markdown_table(
    ('domain', 'in the pool', 'share, %', 'selected', 'share, %'),
    [
      (
        special.sub(r'\\\1', _printable(name)),
        f'{before:,}',
        f'{100 * before / record.pool:.2f}',
        f'{after:,}',
        f'{100 * after / record.selected:.2f}',
      )
      for name, (before, after) in [
        *sorted(
          statistics.domains.items(), key=lambda item: (-item[1][0], item[0])
        ),
        ('all', np.array([record.pool, record.selected])),
      ]
    ],
    '-rrrr',
  )
  return f"""# Selection

- {record.selected:,} of {record.pool:,} examples \
({record.selected / record.pool:.2%}) are selected, those with the \
highest score `{record.kind}`, k = {record.top_k}.
- The pool begins at position {record.first_position:,} of the global \
order of `{_printable(record.task)}`, split `{_printable(record.split)}`.
- The scores are by `{_printable(record.teacher)}`.
- The threshold is the score {record.threshold_score:.6g}, which \
{record.ties:,} examples have; of these the {record.ties_selected:,} \
with ids up to {record.threshold_id} are selected.
- The first stage reads {record.needed:,} examples of them in the global order,
  each {record.repeats:.4g} times on average.

{domains}
"""


def plot(
  record: selection_record.Selection, statistics: pool_lib.Statistics
) -> bytes:
  """Plots a histogram of the scores, and the threshold; returns a PNG."""
  canvas = figure.Figure(figsize=(6, 4), layout='constrained')
  axis = canvas.subplots()
  axis.stairs(
    statistics.histogram, statistics.edges, fill=True, color='tab:gray'
  )
  axis.axvline(record.threshold_score, color='tab:red')
  axis.set(
    title='scores in the pool, and the threshold',
    xlabel=f'score ({record.kind}, k = {record.top_k})',
    ylabel='examples',
  )
  axis.grid(alpha=0.3)
  return files.encode_figure(canvas)
