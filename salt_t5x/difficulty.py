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

"""Results on documents that are easy, medium and hard for the teacher (App. M).

    python -m salt_t5x.difficulty --results=DIR --teacher=SLM \
      --baseline=BASELINE

DIR is the output folder of `salt_t5x.evaluate`, with the results of each
document in DIR/CHECKPOINT/TASK.jsonl. The documents of a task are split into
tertiles by the teacher's scores, and the scores of each checkpoint are averaged
over each tertile (Tables 5, 24 to 26). The command writes difficulty.md, .json
and .png to DIR.

'SALT @36K' names a checkpoint of an early stage: it is compared with
'BASELINE @36K', and 'SALT' with 'BASELINE'.
"""

import argparse
from collections.abc import Sequence
import dataclasses
import os

from salt_t5x import command, files
from salt_t5x.evaluation import buckets


def parse_flags(argv: Sequence[str]) -> argparse.Namespace:
  """Parses the flags of `salt_t5x.difficulty`."""
  parser = command.parser(
    'salt_t5x.difficulty',
    'Easy, medium and hard documents of an evaluation (App. M).',
  )
  add = parser.add_argument
  add(
    '--results',
    type=command.path,
    required=True,
    help='the folder of salt_t5x.evaluate',
  )
  add(
    '--teacher', required=True, help='the checkpoint that defines the buckets'
  )
  add('--baseline', help='the checkpoint that others are compared with')
  add('--tasks', type=command.words, help="a,b; default: all the teacher's")
  return parser.parse_args(argv[1:])


def main(args: argparse.Namespace) -> None:
  """Writes and prints the tables."""
  tasks = buckets.read(args.results, args.teacher, args.baseline, args.tasks)
  text = buckets.markdown(tasks, args.teacher, args.baseline)
  numbers = {
    'teacher': args.teacher,
    'baseline': args.baseline,
    'tasks': {x.name: dataclasses.asdict(x) for x in tasks},
  }
  stem = os.path.join(args.results, 'difficulty')
  files.write_whole(f'{stem}.png', buckets.plot(tasks))
  files.write_json(f'{stem}.json', numbers)
  files.write_whole(f'{stem}.md', text.encode())
  print(text, end='')


if __name__ == '__main__':
  command.run(main, parse_flags)
