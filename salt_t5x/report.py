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

"""From a run's TensorBoard files to a table and curves."""

import collections
from collections.abc import Iterator, Mapping, Sequence
import glob
import json
import os
from typing import Any

from absl import logging
import matplotlib

matplotlib.use('Agg')  # Files only; there may be no screen.

import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf
from tensorflow.core.util import event_pb2

# {tag: [(step, value), ...]}
Curves = Mapping[str, Sequence[tuple[int, float]]]

# {run: (its name in the paper, colour)}, in the order of Table 1.
RUNS = {
  'teacher': ('SLM', 'tab:gray'),
  'baseline': ('BASELINE', 'tab:blue'),
  'rkd': ('RKD', 'tab:green'),
  'salt': ('SALT', 'tab:red'),
  'salt_ds': ('SALT_DS', 'tab:orange'),
}


def read_scalars(directory: str) -> Curves:
  """Reads all scalars from a directory's event files.

  A step that was written twice (before and after a preemption) keeps the last
  value written. What a process that was killed had half-written is left out;
  the run wrote it again when it was resumed.

  Args:
    directory: e.g. `<model_dir>/train` or `<model_dir>/training_eval/<task>`.

  Returns:
    {tag: [(step, value), ...] by step}.
  """
  found = collections.defaultdict(dict)
  pattern = os.path.join(glob.escape(directory), 'events.out.tfevents.*')
  for path in sorted(glob.glob(pattern)):
    for event in events(path):
      for value in event.summary.value:
        if value.metadata.plugin_data.plugin_name == 'scalars':
          tensor = tf.make_ndarray(value.tensor)
          found[value.tag][event.step] = float(tensor)
  return {tag: sorted(points.items()) for tag, points in found.items()}


def events(path: str) -> Iterator[event_pb2.Event]:
  """The events of a file, up to where it is broken off."""
  records = tf.data.TFRecordDataset(path).as_numpy_iterator()
  while True:
    try:
      yield event_pb2.Event.FromString(next(records))
    except StopIteration:
      return
    except tf.errors.DataLossError as e:
      logging.warning('%s ends early: %s', path, e.message)
      return


def first_step_below(
  curve: Sequence[tuple[int, float]], limit: float
) -> int | None:
  """The first step from which a curve stays at or below a limit, or None."""
  first = None
  for step, value in curve:
    if value > limit:
      first = None
    elif first is None:
      first = step
  return first


def summarize(
  seeds: Sequence[Mapping[str, Curves]], kd_steps: int
) -> dict[str, Any]:
  """Reduces held-out curves to the numbers of Table 1.

  Args:
    seeds: for each seed, {run: curves with 'accuracy' and 'log_perplexity'};
      the runs of `RUNS`.
    kd_steps: n_KD; the runs were evaluated at this step.

  Returns:
    A JSON-able dict. `rows` holds (run, step, accuracy in percent and
    log-perplexity in nats, each a list over the seeds); `passes_baseline`, for
    each method, the share of the steps after which it stays at or below
    BASELINE's final log-perplexity, or null, for each seed.
  """
  last = seeds[0]['baseline']['log_perplexity'][-1][0]
  rows = []

  def add(run, step, stage):
    at = lambda tag: [dict(curves[run][tag])[step] for curves in seeds]
    rows.append(
      {
        'run': run,
        'stage': stage,
        'step': step,
        'accuracy': [100 * a for a in at('accuracy')],
        'log_perplexity': at('log_perplexity'),
      }
    )

  add('teacher', seeds[0]['teacher']['accuracy'][-1][0], 'final')
  for step, stage in ((kd_steps, 'n_KD'), (last, 'final')):
    for run in RUNS:
      if run != 'teacher':
        add(run, step, stage)
  passes = {run: [] for run in RUNS if run not in ('teacher', 'baseline')}
  for run, shares in passes.items():
    for curves in seeds:
      final = curves['baseline']['log_perplexity'][-1][1]
      step = first_step_below(curves[run]['log_perplexity'], final)
      shares.append(None if step is None else step / last)
  return {
    'kd_steps': kd_steps,
    'total_steps': last,
    'rows': rows,
    'passes_baseline': passes,
  }


def _mean_and_spread(values: Sequence[float], digits: int) -> str:
  text = f'{np.mean(values):.{digits}f}'
  if len(values) > 1:
    text += f' ± {np.std(values, ddof=1):.{digits}f}'
  return text


def markdown(results: Mapping[str, Any]) -> str:
  """Formats the numbers as the paper's Table 1."""
  seeds = len(results['rows'][0]['accuracy'])
  lines = [
    '| model | stage (step) | accuracy, % | log-perplexity |',
    '|---|---|---|---|',
  ]
  for row in results['rows']:
    lines.append(
      f'| {RUNS[row["run"]][0]} | {row["stage"]} ({row["step"]}) '
      f'| {_mean_and_spread(row["accuracy"], 2)} '
      f'| {_mean_and_spread(row["log_perplexity"], 3)} |'
    )
  lines.append('')
  if seeds > 1:
    lines.append(f'Mean ± standard deviation over {seeds} seeds.')
  for run, passes in results['passes_baseline'].items():
    found = [100 * p for p in passes if p is not None]
    if found:
      of_seeds = '' if seeds == len(found) else f' ({len(found)} of {seeds})'
      lines.append(
        f"{RUNS[run][0]} passes BASELINE's final log-perplexity after "
        f'{_mean_and_spread(found, 0)}% of the steps{of_seeds}.'
      )
    else:
      lines.append(
        f"{RUNS[run][0]} does not reach BASELINE's final log-perplexity."
      )
  lines.append(f'n_KD = {results["kd_steps"]} of {results["total_steps"]}.')
  return '\n'.join(lines) + '\n'


def plot(
  path: str, seeds: Mapping[str, Mapping[str, Curves]], kd_steps: int
) -> None:
  """Draws held-out accuracy and log-perplexity over the steps (Fig. 3, 8)."""
  figure, axes = plt.subplots(1, 2, figsize=(11, 4.2), layout='constrained')
  for axis, tag in zip(axes, ('accuracy', 'log_perplexity'), strict=True):
    for i, curves in enumerate(seeds.values()):
      for run, (label, color) in RUNS.items():
        steps, values = zip(*curves[run][tag], strict=True)
        axis.plot(
          steps,
          values,
          color=color,
          linestyle='--' if run == 'teacher' else '-',
          label=None if i else label,
        )
    axis.axvline(kd_steps, color='black', linewidth=0.8, linestyle=':')
    axis.set(xlabel='step', title=f'held-out {tag.replace("_", "-")}')
    axis.grid(alpha=0.3)
  # The first evaluations would flatten what matters.
  final = [c['baseline']['log_perplexity'][-1][1] for c in seeds.values()]
  axes[1].set_ylim(min(final) - 0.15, min(final) + 1.5)
  axes[0].legend()
  axes[0].text(kd_steps, axes[0].get_ylim()[0], ' $n_{KD}$', va='bottom')
  figure.savefig(path, dpi=140)
  plt.close(figure)


def write(
  directory: str,
  results: Mapping[str, Any],
  text: str,
  seeds: Mapping[str, Mapping[str, Curves]],
  kd_steps: int,
) -> None:
  """Writes results.json, results.md and curves.png (of `seeds`)."""
  with open(
    os.path.join(directory, 'results.json'), 'w', encoding='utf-8'
  ) as f:
    json.dump(results, f, indent=2)
    f.write('\n')
  with open(os.path.join(directory, 'results.md'), 'w', encoding='utf-8') as f:
    f.write(text)
  plot(os.path.join(directory, 'curves.png'), seeds, kd_steps)
