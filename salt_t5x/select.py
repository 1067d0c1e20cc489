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


"""Chooses what the first stage reads, by the scores of salt_t5x.score.

    python -m salt_t5x.select --scores=DIR --output=FILE.json \
      --kd_steps=36000 --batch_size=2048

SALT_DS (Section 4): the m = n_KD · B examples with the highest scores, of
those that the scoring teacher had not read. It had read as many batches of
this size as its checkpoint's step says; if its batches were of another size,
give --first_step.

    ... --kind=easy --share=0.4

BASELINE_EZ (App. M): a share of all the data, unless --first_step is given. (Of
another kind of score, --share is of what the teacher had not read.) The first
stage goes through it as often as it must.

Of equal scores the lower id comes first. FILE.json is the record that a run is
given; FILE.md and FILE.png beside it show what was selected.
"""

import argparse
import collections
from collections.abc import Iterator, Mapping, Sequence
import dataclasses
import io
import os
import re
import sys

from absl import app
from absl.flags import argparse_flags
from matplotlib import figure
import numpy as np
import tensorflow as tf
import tqdm

from salt_t5x import display, score_shards, selection, whole_files

_QUANTILES = (100, 90, 75, 50, 25, 10, 0)
_BINS = 100
_DOMAINS_DRAWN = 25

# {name: int64 [2], in the pool and selected}
Domains = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Pool:
  """The records that take part.

  Attributes:
    directory: of the scores.
    manifest: of the scores.
    kind: of score.
    first_position: in the global order.
  """

  directory: str
  manifest: score_shards.Manifest
  kind: str
  first_position: int

  @property
  def size(self) -> int:
    return max(self.manifest.examples - self.first_position, 0)

  def read(self, purpose: str) -> Iterator[tuple[np.ndarray, list[str]]]:
    """Yields (records, names of their domains) by shard; shows progress.

    Raises:
      ValueError: a shard is missing or damaged, a score is not finite, or an
        id is negative.
    """
    shards = score_shards.read_shards(self.directory, self.manifest)
    progress = tqdm.tqdm(
      shards, f'reading {purpose}', self.manifest.num_shards, unit='shard'
    )
    for index, (records, domains) in enumerate(progress):
      start = index * self.manifest.shard_size
      first = min(max(self.first_position - start, 0), len(records))
      records = records[first:]
      # The mean is of all tokens: a token that is not a number is in it,
      # though medians may pass it by.
      wrong = ~np.isfinite(records[self.kind]) | ~np.isfinite(records['mean'])
      wrong |= records['id'] < 0
      if wrong.any():
        i = int(wrong.argmax())
        raise ValueError(
          f'{self.directory}: shard {index} of the scores has, at position '
          f'{start + first + i} of the global order, {self.kind} = '
          f'{records[self.kind][i]}, mean = {records["mean"][i]} and id = '
          f'{records["id"][i]}. Scores must '
          'be finite and ids at least 0: find out why they are not, and score '
          'the data anew.'
        )
      if len(records):
        yield records, domains


def select(
  pool: Pool, count: int, needed: int
) -> tuple[selection.Selection, str, bytes]:
  """Selects the top `count` records.

  Args:
    pool: of at least so many.
    count: m.
    needed: examples that the first stage reads.

  Returns:
    (record, report as Markdown, report's plot as PNG).

  Raises:
    ValueError: see `Pool.read`; or ids repeat.
  """
  # Nearest ranks; the selected records are the first of the pool.
  ranks = [
    1 + round((1 - q / 100) * (size - 1))
    for q in _QUANTILES
    for size in (pool.size, count)
  ]
  threshold, scores = selection.find_threshold(
    lambda purpose: ((r[pool.kind], r['id']) for r, _ in pool.read(purpose)),
    count,
    ranks,
  )
  manifest = pool.manifest
  record = selection.Selection(
    kind=pool.kind,
    threshold_score=threshold.score,
    threshold_id=threshold.id,
    selected=count,
    pool=pool.size,
    first_position=pool.first_position,
    ties=threshold.ties,
    ties_selected=threshold.ties_selected,
    needed=needed,
    top_k=manifest.top_k,
    teacher=manifest.teacher,
    step=manifest.step,
    task=manifest.task,
    split=manifest.split,
    data=manifest.data,
    scores=pool.directory,
  )
  quantiles = dict(
    zip(_QUANTILES, zip(scores[::2], scores[1::2], strict=True), strict=True)
  )
  edges = np.histogram_bin_edges(
    [], _BINS, (quantiles[0][0], quantiles[100][0])
  )
  histogram, domains = _count(pool, record, edges)
  return (
    record,
    markdown(record, domains, quantiles),
    plot(record, domains, histogram, edges),
  )


def _count(
  pool: Pool, record: selection.Selection, edges: np.ndarray
) -> tuple[np.ndarray, Domains]:
  """Counts the pool's scores by bin, and domains; checks the selection."""
  histogram = np.zeros(len(edges) - 1, np.int64)
  domains = collections.defaultdict(lambda: np.zeros(2, np.int64))
  for records, names in pool.read('domains'):
    scores = records[pool.kind]
    histogram += np.histogram(scores, edges)[0]
    is_selected = record.is_selected(scores, records['id'])
    for column, found in enumerate((records, records[is_selected])):
      counts = np.bincount(found['domain'], minlength=len(names))
      for name, count in zip(names, counts, strict=True):
        domains[name][column] += count
  selected = sum(count for _, count in domains.values())
  if selected != record.selected:
    raise ValueError(
      f'{pool.directory}: {selected} records instead of {record.selected} are '
      f'selected, as several have the id {record.threshold_id}. Ids must not '
      'repeat: give the task ids that are its own, and score the data anew.'
    )
  return histogram, domains


# --- The report ---------------------------------------------------------------


def _printable(text: str) -> str:
  return display.escape(text).replace('\n', r'\n')


def _by_count(domains: Domains) -> list[tuple[str, int, int]]:
  """(name, in the pool, selected), most frequent first."""
  rows = [(name, *map(int, counts)) for name, counts in domains.items()]
  return sorted((r for r in rows if r[1]), key=lambda row: (-row[1], row[0]))


def markdown(
  record: selection.Selection,
  domains: Domains,
  quantiles: Mapping[int, tuple[float, float]],
) -> str:
  """Formats the report; `quantiles` are {percent: (pool, selected)}."""
  if record.needed > record.selected:
    use = (
      f'repeats the selected ones: each {record.repeats:.2f} times on average'
    )
  elif record.needed == record.selected:
    use = 'reads each selected one once'
  else:
    use = (
      f'reads the first {record.needed / record.selected:.2%} of the selected '
      'ones in the global order; none repeats'
    )
  lines = [
    '# Selection',
    '',
    f'- {record.selected:,} of {record.pool:,} examples '
    f'({record.selected / record.pool:.2%}) are selected, those with the '
    f'highest score `{record.kind}`, k = {record.top_k}.',
    f'- The pool begins at position {record.first_position:,} of the global '
    f'order of {_code(record.task)}, split {_code(record.split)}.',
    f'- The scores are by {_code(record.teacher)}.',
    f'- The threshold is the score {_short(record.threshold_score)}, which '
    f'{record.ties:,} examples have; of these the {record.ties_selected:,} '
    f'with ids up to {record.threshold_id} are selected.',
    f'- The first stage takes {record.needed:,} examples: it {use}.',
    '',
    '| domain | in the pool | share, % | selected | share, % |',
    '|---|--:|--:|--:|--:|',
  ]
  for name, before, after in _by_count(domains):
    lines.append(
      f'| {_escape(name)} | {before:,} | {100 * before / record.pool:.2f} '
      f'| {after:,} | {100 * after / record.selected:.2f} |'
    )
  lines += [
    f'| all | {record.pool:,} | 100.00 | {record.selected:,} | 100.00 |',
    '',
    '| quantile of the scores | in the pool | selected |',
    '|---|--:|--:|',
  ]
  for percent, (before, after) in quantiles.items():
    lines.append(f'| {percent}% | {_short(before)} | {_short(after)} |')
  return '\n'.join(lines) + '\n'


def _short(score: float) -> str:
  return f'{score:.6g}'


def _escape(text: str) -> str:
  return re.sub(r'([\\`*_\[\]<>|~$&])', r'\\\1', _printable(text))


def _code(text: str) -> str:
  return f'`{_printable(text)}`'


def plot(
  record: selection.Selection,
  domains: Domains,
  histogram: np.ndarray,
  edges: np.ndarray,
) -> bytes:
  """Draws the scores with the threshold, and domains before and after."""
  rows = _by_count(domains)[:_DOMAINS_DRAWN]
  canvas = figure.Figure(
    figsize=(11, max(4.2, 1.2 + 0.32 * len(rows))), layout='constrained'
  )
  left, right = canvas.subplots(1, 2)
  left.stairs(histogram, edges, fill=True, color='tab:gray')
  left.axvline(record.threshold_score, color='tab:red')
  left.set(
    title='scores in the pool, and the threshold',
    xlabel=f'score ({record.kind}, k = {record.top_k})',
    ylabel='examples',
  )
  y = np.arange(len(rows))
  names, before, after = zip(*rows, strict=True)
  for offset, counts, total, label, color in (
    (-0.2, before, record.pool, 'pool', 'tab:gray'),
    (0.2, after, record.selected, 'selected', 'tab:red'),
  ):
    shares = 100 * np.array(counts) / total
    right.barh(y + offset, shares, 0.4, label=label, color=color)
  # Without `parse_math`, two dollar signs would enclose a formula.
  labels = [_printable(name)[:30] for name in names]
  right.set_yticks(y, labels, parse_math=False)
  right.invert_yaxis()
  others = len(domains) - len(rows)
  right.set(
    title='domains' + (f' (and {others} others)' if others else ''),
    xlabel='share, %',
  )
  right.legend()
  for axis in (left, right):
    axis.grid(alpha=0.3)
  png = io.BytesIO()
  canvas.savefig(png, format='png', dpi=140)
  return png.getvalue()


# --- The command --------------------------------------------------------------


def parse_flags(argv: Sequence[str]) -> argparse.Namespace:
  parser = argparse_flags.ArgumentParser(
    prog='python -m salt_t5x.select',
    description='Chooses what the first stage reads, by scores.',
  )
  add = parser.add_argument
  add('--scores', required=True, help='the folder that salt_t5x.score wrote')
  add(
    '--output',
    required=True,
    help='the record, FILE.json; FILE.md and FILE.png are written beside it; '
    'none may exist',
  )
  add('--kd_steps', type=int, required=True, help='n_KD of the run to come')
  add('--batch_size', type=int, required=True, help='B of it, in examples')
  add(
    '--first_step',
    type=int,
    help='batches to leave out at the beginning of the global order; default: '
    "the scoring teacher's step, n_0; with --kind=easy --share 0",
  )
  add('--kind', choices=score_shards.KINDS, default='zero', help='of score')
  add(
    '--share',
    type=float,
    help='select this share of the pool instead of kd_steps * batch_size',
  )
  args = parser.parse_args(argv[1:])
  if not args.output.endswith('.json'):
    parser.error(f'--output={args.output}: must end with .json.')
  for name, minimum in (('kd_steps', 1), ('batch_size', 1), ('first_step', 0)):
    value = getattr(args, name)
    if value is not None and value < minimum:
      parser.error(f'--{name}={value}: must be at least {minimum}.')
  if args.share is not None and not 0 < args.share <= 1:
    parser.error(f'--share={args.share}: must be above 0, and 1 at most.')
  return args


def _absolute(path: str) -> str:
  return path if '://' in path else os.path.abspath(path)


def _count_to_select(args: argparse.Namespace, pool: Pool) -> int:
  """m.

  Raises:
    ValueError: the pool is too small.
  """
  needed = args.kd_steps * args.batch_size
  if args.share is None:
    count = needed
    why = f'--kd_steps={args.kd_steps} · --batch_size={args.batch_size}'
  else:
    count = max(round(args.share * pool.size), 1)
    why = f'--share={args.share}'
  if count > pool.size:
    raise ValueError(
      f'{why}: {count:,} examples are to be selected, but the pool has '
      f'{pool.size:,}: {args.scores} holds scores of '
      f'{pool.manifest.examples:,}, and the first {pool.first_position:,} of '
      'them are left out. Take fewer steps or smaller batches, leave out less '
      '(--first_step, or an earlier checkpoint to score with), score more '
      'data, or select a --share, which the first stage may repeat.'
    )
  return count


def main(args: argparse.Namespace) -> None:
  sys.stdout.reconfigure(errors='backslashreplace')
  folder, path = map(_absolute, (args.scores, args.output))
  stem = path.removesuffix('.json')
  for suffix in ('.json', '.md', '.png'):
    if tf.io.gfile.exists(stem + suffix):
      raise ValueError(
        f'--output={args.output}: {stem}{suffix} exists, and a run may be '
        'reading the selection. Choose another name, or delete what a '
        'selection that was stopped has left.'
      )
  try:
    manifest = score_shards.read_manifest(folder)
  except ValueError as e:
    raise ValueError(f'--scores={args.scores}: {e}') from e
  first_step = args.first_step
  if first_step is None:
    is_ez = args.kind == 'easy' and args.share is not None
    first_step = 0 if is_ez else manifest.step
  pool = Pool(folder, manifest, args.kind, first_step * args.batch_size)
  count = _count_to_select(args, pool)
  # Before all scores are read.
  whole_files.make_folder(os.path.dirname(path), f'--output={args.output}')
  record, text, png = select(pool, count, args.kd_steps * args.batch_size)
  whole_files.write_whole(f'{stem}.png', png)
  whole_files.write_whole(f'{stem}.md', text.encode())
  # Last, so that a record always has its report.
  selection.write(path, record)
  print(text, end='')


if __name__ == '__main__':
  app.run(main, flags_parser=parse_flags)
