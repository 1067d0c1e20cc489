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


"""Shows examples of a seqio task or mixture as the model will see them.

    python -m salt_t5x.look --task=NAME --module_import=my.tasks \
      --sequence_length=1280

prints a few examples, in the order of the split, after
`FixedWidthFeatureConverter`: which tokens are attended to in both directions,
which bear loss, how much of the width is used, and the text itself. A strip
shows the regions of an example, and the margin of the text repeats the region's
sign. A bar in the margin begins a line of the text; a wrapped line has none.
Span corruption also shows the original. Text without tokens (a task of
documents) is printed as it is.

`--position=P` begins at any place of a task in a global order, at once, and
`--step=S --batch_size=B` at the batch of a step. With `--model_dir` it is what
that run reads or read at the step, also where it skipped batches before, and in
the first stage of SALT_DS.

Only printable characters and line breaks reach the terminal: all others are
printed as Python escapes.
"""

import argparse
from collections.abc import Sequence
import signal
import sys

import seqio

from salt_t5x import command
from salt_t5x.data import bad_lines, examples, vocabularies
from salt_t5x.runs import train_data


def parse_flags(argv: Sequence[str]) -> argparse.Namespace:
  """Parses the command's flags."""
  parser = command.parser(
    'salt_t5x.look', 'Shows examples of a task as the model will see them.'
  )
  command.add_task_flags(parser)
  add = parser.add_argument
  positive = command.at_least(1)
  add('--sequence_length', type=positive, help='T; none for documents')
  add('--split', default='train')
  add('--examples', type=positive, default=4, help='to print')
  count = command.at_least(0)
  add('--skip', type=count, default=0, help='examples to skip')
  add('--position', type=count, help='of the first example in the order')
  add('--step', type=count, help='show the batch of a step, with --batch_size')
  add('--batch_size', type=positive, help='B')
  add(
    '--model_dir',
    type=command.path,
    help='of a run, whose B, skipped batches and selection determine the batch '
    'of --step',
  )
  add('--use_cached', action='store_true', help="read the task's cache")
  add(
    '--seqio_additional_cache_dirs',
    type=command.words,
    default=[],
    help='folders of cached tasks, separated by commas',
  )
  add('--max_tokens', type=positive, default=120, help='of each region, about')
  return parser.parse_args(argv[1:])


def _find_step(
  task: seqio.Task | seqio.Mixture,
  position: int | None,
  step: int | None,
  batch_size: int | None,
  model_dir: str | None,
) -> tuple[seqio.Task, int]:
  """Returns the task that a run reads, and the position of a step's batch."""
  if step is None or position is not None or not (batch_size or model_dir):
    raise examples.FlagError(
      'A batch is named by --step with --batch_size or --model_dir, and '
      'without --position.'
    )
  if not model_dir:
    return task, step * batch_size
  try:
    return train_data.find_batch(task, model_dir, step, batch_size)
  except (KeyError, OSError, ValueError) as e:
    raise examples.FlagError(f'--model_dir={model_dir}: {e}') from e


def main(args: argparse.Namespace) -> None:
  """Prints the examples that the flags select."""
  # The reader may stop early, as `head` and `less` do.
  signal.signal(signal.SIGPIPE, signal.SIG_DFL)
  options = vars(args)
  task = command.find_task(options.pop('task'), options.pop('module_import'))
  seqio.add_global_cache_dirs(options.pop('seqio_additional_cache_dirs'))
  where = [options.pop(x) for x in ('step', 'batch_size', 'model_dir')]
  try:
    if where != [None] * 3:
      task, options['position'] = _find_step(task, args.position, *where)
    for line in examples.show(task, **options):
      print(line)
  except (
    bad_lines.DamagedShardError,
    examples.FlagError,
    vocabularies.VocabularyError,
  ) as e:
    sys.exit(str(e))


if __name__ == '__main__':
  command.run(main, parse_flags)
