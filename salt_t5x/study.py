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

"""Runs studies and reports them: `python -m salt_t5x.study`.

Without flags it trains a teacher, BASELINE, RKD, SALT, SALT_DS and BASELINE_EZ
on real text and compares them, as `make salt` does. `--study=n_kd` and others
are the paper's ablations (`gin/studies/`). Rerunning computes only the missing
results. They are written to one page, `report.html`, and to a folder of tables,
curves and numbers for each study.
"""

import argparse
from collections.abc import Sequence
import os
import signal
import sys

from salt_t5x import command, files
from salt_t5x.minipile import prepare
from salt_t5x.studies import definition, jobs, processes, results, web_page

_ALL = (
  'main',
  'weight_and_temperature',
  'n_kd',
  'transitions',
  'teacher_size',
  'longer_teacher',
  'few_shot',
  'theory',
)


def _seeds(text: str) -> list[str]:
  seeds = text.split(',')
  if not all(map(str.isdecimal, seeds)) or len({*map(int, seeds)}) < len(seeds):
    raise argparse.ArgumentTypeError(
      f'{text!r}: give different whole numbers, separated by commas.'
    )
  return seeds


def parse_flags(argv: Sequence[str]) -> argparse.Namespace:
  """Parses the flags of a study."""
  parser = command.parser('salt_t5x.study', 'Runs studies and reports them.')
  add = parser.add_argument
  add(
    '--work_dir',
    type=command.path,
    default='runs/salt',
    help='where data and runs are kept',
  )
  add(
    '--output_dir',
    type=command.path,
    help='where results go; default: --work_dir',
  )
  add(
    '--study',
    type=command.words,
    default=['main'],
    help='names of gin/studies/*.gin, or paths of gin files of your own, '
    'separated by commas; "all" for all of the package',
  )
  add(
    '--seeds',
    type=_seeds,
    default=['0'],
    help='every model, teachers included, is trained once for each seed',
  )
  add(
    '--setting',
    help='a gin file for all runs, or the name of one of gin/settings/: "gpu" '
    'for larger models on a GPU; the default is for a small machine',
  )
  add(
    '--workers',
    type=command.at_least(1),
    default=3,
    help='runs at a time: one more than a small machine has cores, since '
    'start-up and checkpoints leave a core idle; 1 on a GPU',
  )
  add(
    '--students',
    type=command.at_least(1),
    default=4,
    help="students that share the cost of the teacher's training",
  )
  add(
    '--gin',
    action='append',
    default=[],
    help='a gin binding for all runs, e.g. --gin=STUDENT_STEPS=3000',
  )
  return parser.parse_args(argv[1:])


def main(args: argparse.Namespace) -> None:
  """Runs the studies that the flags name, and writes their report."""
  work_dir = os.path.abspath(args.work_dir)
  output_dir = os.path.abspath(args.output_dir or args.work_dir)
  wheels = os.path.join(os.path.dirname(work_dir), 'wheels')
  # Errors surface now, not after the teacher's training.
  try:
    setting = definition.Setting(args.gin, args.setting)
    studies = definition.read(_ALL if args.study == ['all'] else args.study)
    plans, made = jobs.plan(studies, args.seeds, setting, work_dir)
    data = {
      name: setting.number(name.upper())
      for name in ('sequence_length', 'vocab_size', 'megabytes')
    }
  except definition.StudyError as e:
    sys.exit(str(e))
  # As at Ctrl-C, the runs end with this process.
  for kind in signal.SIGTERM, signal.SIGHUP:
    signal.signal(kind, lambda *_: sys.exit('Terminated.'))
  folder = os.path.join(work_dir, 'data')
  try:
    info = prepare.build(folder, cache_dir=wheels, **data)
  except ValueError as e:
    sys.exit(f'{e} For this command it is {folder}: choose another --work_dir.')
  print(prepare.table(info))
  if any('benchmarks' in plan.measured for plan in plans):
    # Imported here because it needs an extra.
    from salt_t5x.minipile import benchmark_data

    benchmark_data.build(os.path.join(work_dir, 'benchmarks'), wheels)
  print(f'Logs are in {work_dir}/seed_*/*/log.txt')
  try:
    processes.run_all(made, args.workers)
  except processes.JobError as e:
    sys.exit(f'\n{e}')
  sections = [
    (
      results.write(plan, output_dir, args.students),
      os.path.join(output_dir, plan.name),
    )
    for plan in plans
  ]
  print(*(text for text, _ in sections), sep='\n')
  configuration = results.configuration(setting, info, args.seeds, len(made))
  page = web_page.page('SALT in small', [*sections, (configuration, '')])
  path = os.path.join(output_dir, 'report.html')
  files.write_whole(path, page.encode())
  print(
    f'All of it: {path}\n'
    f'Numbers:   {output_dir}/*/results.json\n'
    f'More:      tensorboard --logdir {work_dir}\n'
    'Next:      change the recipe with --gin (gin/recipes/tiny_salt.gin says '
    'what), see gin/studies/ for more comparisons, or read "From your own t5x '
    'project" in README.md.'
  )


if __name__ == '__main__':
  command.run(main, parse_flags)
