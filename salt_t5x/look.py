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
  add('--skip', type=command.at_least(0), default=0, help='examples to skip')
  add('--use_cached', action='store_true', help="read the task's cache")
  add(
    '--seqio_additional_cache_dirs',
    type=command.words,
    default=[],
    help='folders of cached tasks, separated by commas',
  )
  add('--max_tokens', type=positive, default=120, help='of each region, about')
  return parser.parse_args(argv[1:])


def main(args: argparse.Namespace) -> None:
  """Prints the examples that the flags select."""
  # The reader may stop early, as `head` and `less` do.
  signal.signal(signal.SIGPIPE, signal.SIG_DFL)
  options = vars(args)
  task = command.find_task(options.pop('task'), options.pop('module_import'))
  seqio.add_global_cache_dirs(options.pop('seqio_additional_cache_dirs'))
  try:
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
