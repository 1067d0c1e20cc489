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


"""Selects the examples of the first stage by the scores of salt_t5x.score.

    python -m salt_t5x.select --scores=DIR --output=FILE.json \
      --kd_steps=36000 --batch_size=2048

SALT_DS (Section 4): the m = n_KD · B examples with the highest scores.
Sequences the scoring checkpoint was trained on are excluded, as its training
run recorded them. Without a record they are taken for the first n_0 batches of
this size, where n_0 is its step; --first_step sets another number of batches.

    ... --kind=easy --share=0.4

BASELINE_EZ (App. M): a share of all the data, unless --first_step is given.
(With another kind of score, --share excludes what the teacher was trained on.)
The first stage repeats it as often as needed.

Among equal scores the lower id comes first. FILE.json is the record for
SELECTION_PATH; FILE.md and FILE.png report on the selection.
"""

import argparse
from collections.abc import Sequence
import dataclasses
import os

from absl import logging
import tensorflow as tf

from salt_t5x import command, files
from salt_t5x.selection import pool as pool_lib
from salt_t5x.selection import record as selection_record
from salt_t5x.selection import report, score_shards, scoring


def parse_flags(argv: Sequence[str]) -> argparse.Namespace:
  """Parses the flags of `salt_t5x.select`."""
  parser = command.parser(
    'salt_t5x.select',
    'Selects the examples of the first stage by their scores.',
  )
  add = parser.add_argument
  add(
    '--scores',
    type=command.path,
    required=True,
    help='the folder that salt_t5x.score wrote',
  )
  add(
    '--output',
    type=command.path,
    required=True,
    help='the record, FILE.json; must not exist',
  )
  positive = command.at_least(1)
  add('--kd_steps', type=positive, required=True, help='n_KD of the run')
  add('--batch_size', type=positive, required=True, help='B, in examples')
  add(
    '--first_step',
    type=command.at_least(0),
    help='batches to leave out at the beginning of the global order; default: '
    'what the scoring teacher was trained on; with --kind=easy --share 0',
  )
  add('--kind', choices=scoring.KINDS, default='zero', help='of score')
  add('--share', type=command.positive(1), help='of the pool; not kd_steps')
  args = parser.parse_args(argv[1:])
  if not args.output.endswith('.json'):
    parser.error(f'--output={args.output}: must end with .json.')
  return args


def _beginning(
  args: argparse.Namespace, manifest: score_shards.Manifest
) -> tuple[int, str]:
  """Returns the position where the pool begins, and why."""
  if args.first_step is not None:
    return args.first_step * args.batch_size, (
      f'--first_step={args.first_step} batches of {args.batch_size:,}'
    )
  if args.kind == 'easy' and args.share is not None:
    return 0, 'a share of all data is selected'
  if (read := manifest.sequences_read) is None:
    reason = (
      f"the teacher's step, {manifest.step:,}, times --batch_size="
      f'{args.batch_size}, as no record tells what it was trained on'
    )
    logging.warning(
      'The pool begins at %s. If its batches had another size, or other data, '
      'set --first_step.',
      reason,
    )
    return manifest.step * args.batch_size, reason
  if not read:
    return 0, 'the teacher was trained on none of these data'
  return read, 'the teacher was trained on what comes before, by its record'


def main(args: argparse.Namespace) -> None:
  """Selects as the flags say; writes the record and its report."""
  folder, path = map(files.absolute, (args.scores, args.output))
  stem = path.removesuffix('.json')
  for suffix in ('.json', '.md', '.png'):
    if tf.io.gfile.exists(stem + suffix):
      raise ValueError(
        f'--output={args.output}: {stem}{suffix} exists, and a run may be '
        'reading the selection. Choose another name, or delete what a '
        'selection that was stopped has left.'
      )
  manifest = score_shards.read_manifest(folder)
  first_position, reason = _beginning(args, manifest)
  pool = pool_lib.Pool(folder, manifest, args.kind, first_position)
  count = args.kd_steps * args.batch_size
  if args.share is not None:
    count = max(round(args.share * pool.size), 1)
  if count > pool.size:
    raise ValueError(
      f'{count:,} examples (--kd_steps={args.kd_steps} times --batch_size='
      f'{args.batch_size}) are to be selected, but the pool has '
      f'{pool.size:,}: {args.scores} holds scores of {manifest.examples:,}, '
      f'and the first {pool.first_position:,} of them are left out. Lower '
      '--kd_steps or --batch_size, leave out less (--first_step, or an earlier '
      'checkpoint to score with), score more data, or select a --share, which '
      'the first stage may repeat.'
    )
  # Before all scores are read.
  files.make_folder(os.path.dirname(path), f'--output={args.output}')
  record, statistics = pool.select(count, args.kd_steps, args.batch_size)
  text = report.markdown(record, statistics, reason)
  files.write_whole(f'{stem}.png', report.plot(record, statistics))
  files.write_whole(f'{stem}.md', text.encode())
  record = dataclasses.replace(record, share=args.share)
  # Last, so that a record always has its report.
  selection_record.write(path, record)
  print(text, end='')


if __name__ == '__main__':
  command.run(main, parse_flags)
