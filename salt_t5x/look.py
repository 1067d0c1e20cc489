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

Only printable characters and line breaks reach the terminal: all others, and
bytes that form no character, are printed as Python escapes.
"""

import argparse
from collections.abc import Sequence
import signal
import sys

from absl import app, flags
import seqio
import tensorflow as tf

from salt_t5x import command
from salt_t5x.data import examples, render


def parse_flags(argv: Sequence[str]) -> argparse.Namespace:
  """Parses flags apart from absl's, whose names the tasks' modules may use."""
  flags.FLAGS(argv[:1])
  parser = argparse.ArgumentParser(
    prog='python -m salt_t5x.look',
    description='Shows examples of a task as the model will see them.',
  )
  add = parser.add_argument
  add('--task', required=True, help='a registered task or mixture')
  add(
    '--module_import',
    action='append',
    default=[],
    help='a module that registers tasks; may be given several times',
  )
  add('--sequence_length', type=int, help='T; a task without tokens needs none')
  add('--split', default='train')
  add('--examples', type=int, default=4, help='how many to print')
  add('--skip', type=int, default=0, help='how many to skip before')
  add(
    '--use_cached', action='store_true', help="read seqio's cache of the task"
  )
  add(
    '--seqio_additional_cache_dirs',
    type=lambda text: text.split(','),
    default=[],
    help='where cached tasks are looked for, separated by commas',
  )
  add('--pack', action='store_true', help='pack short examples together')
  add(
    '--max_tokens', type=int, default=120, help='shown of each region of text'
  )
  add(
    '--statistics',
    type=int,
    default=0,
    help='how many examples the table at the end counts, if more than printed',
  )
  args = parser.parse_args(argv[1:])
  minima = dict(
    sequence_length=1, examples=0, skip=0, max_tokens=1, statistics=0
  )
  for name, minimum in minima.items():
    value = getattr(args, name)
    if value is not None and value < minimum:
      parser.error(f'--{name}={value}: must be at least {minimum}.')
  if not max(args.examples, args.statistics):
    parser.error('--examples=0 and --statistics=0: there is nothing to show.')
  return args


def main(args: argparse.Namespace) -> None:
  """Prints the examples that the flags select."""
  # The accelerator may be in use by another process.
  tf.config.set_visible_devices([], 'GPU')
  # The reader may stop early, as `head` and `less` do.
  signal.signal(signal.SIGPIPE, signal.SIG_DFL)
  sys.stdout.reconfigure(errors='backslashreplace')
  options = vars(args)
  task = command.find_task(options.pop('task'), options.pop('module_import'))
  seqio.add_global_cache_dirs(options.pop('seqio_additional_cache_dirs'))
  paint = render.colour if sys.stdout.isatty() else render.plain
  try:
    for line in examples.show(task, **options, paint=paint):
      print(line)
  except examples.OptionError as error:
    sys.exit(str(error))


if __name__ == '__main__':
  app.run(main, flags_parser=parse_flags)
