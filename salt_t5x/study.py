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
are the paper's ablations (`gin/studies/`). What is finished is not done again;
what was interrupted goes on from where it was. Everything ends in one page,
`report.html`, with a folder of tables, curves and numbers for each study.
"""

from collections.abc import Sequence
import os
import signal
import sys

from absl import app, flags

from salt_t5x.minipile import prepare
from salt_t5x.studies import definition, plans, processes, results, web_page

_WORK_DIR = flags.DEFINE_string(
  'work_dir', 'runs/salt', 'Where data and runs are kept.'
)
_OUTPUT_DIR = flags.DEFINE_string(
  'output_dir', None, 'Where results go; by default --work_dir.'
)
_STUDY = flags.DEFINE_list(
  'study',
  ['main'],
  'Names of gin/studies/*.gin, or paths of gin files of your own; "all" for '
  "all of the package's.",
)
_SEEDS = flags.DEFINE_list(
  'seeds', ['0'], 'Every run, teachers included, for each.'
)
_SETTING = flags.DEFINE_string(
  'setting',
  None,
  'A gin file for all runs, or the name of one of gin/settings/: "gpu" for '
  'larger models on a GPU machine. The default is for a small machine.',
)
_WORKERS = flags.DEFINE_integer(
  'workers',
  3,
  'Runs at a time: one more than a small machine has cores, as starting a run '
  'and writing checkpoints leave a core idle. On a GPU, 1.',
  lower_bound=1,
)
_STUDENTS = flags.DEFINE_integer(
  'students',
  4,
  "Among how many students the teacher's training is shared, for the costs.",
  lower_bound=1,
)
_GIN = flags.DEFINE_multi_string(
  'gin', [], 'Gin bindings for all runs, e.g. --gin=STUDENT_STEPS=3000.'
)

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


def _check_seeds(seeds: Sequence[str]) -> None:
  if (
    not seeds
    or not all(x.isdecimal() for x in seeds)
    or len({*map(int, seeds)}) < len(seeds)
  ):
    raise app.UsageError(
      f'--seeds={",".join(seeds)}: give different whole numbers, separated by '
      'commas.'
    )


def main(argv: Sequence[str]) -> None:
  if len(argv) > 1:
    raise app.UsageError(f'Not understood: {argv[1:]}')
  _check_seeds(_SEEDS.value)
  work_dir = os.path.abspath(_WORK_DIR.value)
  output_dir = os.path.abspath(_OUTPUT_DIR.value or _WORK_DIR.value)
  names = _ALL if _STUDY.value == ['all'] else _STUDY.value
  # What is wrong is told now, not after the teacher's training.
  try:
    setting = definition.Setting(_GIN.value, _SETTING.value)
    found = list(definition.read(names))
    of_name = dict(found)
    if len(of_name) < len(found):
      raise definition.StudyError(
        f'--study={",".join(names)}: two studies have one name; rename a file.'
      )
    planned, made = plans.make(of_name, _SEEDS.value, setting, work_dir)
    data = {
      name: setting.number(name.upper())
      for name in ('sequence_length', 'vocab_size', 'megabytes')
    }
  except definition.StudyError as e:
    raise app.UsageError(str(e)) from e
  # Like Ctrl-C: the runs end with this process.
  for kind in signal.SIGTERM, signal.SIGHUP:
    signal.signal(kind, lambda *_: sys.exit('Terminated.'))
  try:
    info = prepare.build(
      os.path.join(work_dir, 'data'),
      cache_dir=os.path.join(os.path.dirname(work_dir), 'wheels'),
      **data,
    )
  except ValueError as e:
    raise app.UsageError(
      f'{e} For this command it is {work_dir}/data: choose another --work_dir.'
    ) from e
  print(prepare.table(info))
  if any(plan.benchmarks for plan in planned):
    # What benchmarks need is an extra.
    from salt_t5x.minipile import benchmark_data

    benchmark_data.build(
      os.path.join(work_dir, 'benchmarks'),
      os.path.join(os.path.dirname(work_dir), 'wheels'),
    )
  print(f'Logs are in {work_dir}/seed_*/*/log.txt')
  try:
    processes.run_all(made, _WORKERS.value)
  except processes.JobError as e:
    sys.exit(f'\n{e}')
  texts = {
    plan.name: results.write(plan, output_dir, _STUDENTS.value)
    for plan in planned
  }
  page = os.path.join(output_dir, 'report.html')
  configuration = results.configuration(setting, info, _SEEDS.value, len(made))
  web_page.write(
    page,
    title='SALT in small' if len(planned) > 1 else planned[0].study.title,
    sections=[
      *((text, os.path.join(output_dir, name)) for name, text in texts.items()),
      (configuration, output_dir),
    ],
  )
  for text in texts.values():
    print(f'\n{text}')
  print(
    f'All of it: {page}\n'
    f'Numbers:   {output_dir}/*/results.json\n'
    f'More:      tensorboard --logdir {work_dir}\n'
    'Next:      change the recipe with --gin (gin/recipes/tiny_salt.gin says '
    'what), see gin/studies/ for more comparisons, or read "From your own t5x '
    'project" in README.md.'
  )


if __name__ == '__main__':
  app.run(main)
