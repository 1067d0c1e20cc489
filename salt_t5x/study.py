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

Without flags it trains a teacher, BASELINE, RKD, SALT and SALT_DS on real text
and compares them; this is what `make salt` does. `--study=n_kd` and others are
the paper's ablations (`gin/studies/`). What is finished is not done again; what
was interrupted goes on from where it was. Everything ends in one page,
`report.html`, with a folder of tables, curves and numbers for each study.
"""

from collections.abc import Mapping, Sequence
import os
import signal
import sys
from typing import Any

from absl import app, flags
import numpy as np

from salt_t5x import (
  costs,
  curves,
  difficulty,
  jobs,
  json_records,
  prepare,
  studies,
  study_report,
  web_page,
  whole_files,
)
from salt_t5x.analysis import theory_report

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
  'gin', [], 'Gin bindings for all runs, e.g. --gin=TRAIN_STEPS=3000.'
)

VIEWS = {
  'minipile_causal': 'Held-out text, as a causal LM',
  'minipile_ul2': "Held-out text, as UL2's mixture",
}
_ALL = (
  'main', 'weight_and_temperature', 'n_kd', 'transitions', 'teacher_size',
  'longer_teacher',
  'theory',
)  # fmt: skip


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


def collect(
  jobs_of: Mapping[str, Sequence[jobs.Job]], view: str
) -> study_report.OfVariants:
  """Reads {variant: held-out curves of each seed} of finished runs."""
  return {
    label: [
      curves.read_scalars(os.path.join(job.folder, 'training_eval', view))
      for job in of_seeds
    ]
    for label, of_seeds in jobs_of.items()
  }


def _costs(
  study: studies.Study,
  setting: studies.Setting,
  jobs_of: Mapping[str, Sequence[jobs.Job]],
  passes: Mapping[str, Sequence[float | None]],
  students: int,
) -> dict[str, Any] | None:
  """App. J, if the study has SALT and its teacher, SLM."""
  variants = {v.label: v for v in studies.expand(study.variants)}
  if not {'SALT', 'SLM'} <= variants.keys():
    return None
  kd_steps = {
    label: setting.number('KD_STEPS', v.recipe)
    for label, v in variants.items()
    if v.recipe in ('salt', 'salt_ds')
  }
  read = lambda job: curves.read_scalars(os.path.join(job.folder, 'train'))
  times = [
    costs.step_times(read(job), kd_steps['SALT']) for job in jobs_of['SALT']
  ]
  teacher = [costs.step_times(read(job), 0)[1] for job in jobs_of['SLM']]
  if not np.isfinite([*np.ravel(times), *teacher]).all():
    return None
  return costs.measure(
    passes,
    kd_steps,
    times,
    setting.number('TRAIN_STEPS', 'teacher'),
    teacher,
    setting.number('TRAIN_STEPS'),
    students,
  )


def _report(
  name: str,
  study: studies.Study,
  setting: studies.Setting,
  jobs_of: Mapping[str, Sequence[jobs.Job]],
  evaluations: Sequence[jobs.Job],
  theories: Sequence[jobs.Job],
  output_dir: str,
) -> str:
  """Writes a study's folder; returns its text, in Markdown."""
  folder = os.path.join(output_dir, name)
  steps = sorted({setting.step(x) for x in study.report_at})
  results, texts = {}, []
  for view, title in VIEWS.items():
    of_variants = collect(jobs_of, view)
    found = study_report.summarize(study, of_variants, steps)
    if view == next(iter(VIEWS)):
      found['costs'] = _costs(
        study, setting, jobs_of, found['passes'], _STUDENTS.value
      )
      picture = study_report.plot(study, of_variants, steps)
      whole_files.write_whole(os.path.join(folder, 'curves.svg'), picture)
    results[view] = found
    texts.append(
      f'### {title}\n\n{study_report.markdown(found, study.best_of)}'
    )
  if evaluations:
    tasks = [
      difficulty.read(job.folder, studies.SLM, study.reference, ['held_out'])[0]
      for job in evaluations
    ]
    found = study_report.buckets(tasks, study.reference)
    results['buckets'] = found
    texts.append(
      '### Easy, medium and hard text (Table 5)\n\n'
      f'{study_report.buckets_markdown(found)}'
    )
  if theories:
    results['theory'] = [
      json_records.read_object(os.path.join(job.folder, 'theory.json'))
      for job in theories
    ]
    texts.append(_theory(results['theory'], theories[0], folder))
  whole_files.write_json(os.path.join(folder, 'results.json'), results)
  text = '\n'.join(
    [f'## {study.title}\n', f'{study.about}\n', texts[0],
     '![Curves](curves.svg)\n', *texts[1:]]
  )  # fmt: skip
  for label, selection in _selections(jobs_of).items():
    text += _selected(label, selection, folder)
  whole_files.write_whole(os.path.join(folder, 'results.md'), text.encode())
  return text


def _theory(
  of_seeds: Sequence[Mapping[str, Any]], first: jobs.Job, folder: str
) -> str:
  """The theory's numbers over seeds, and the figures of the first."""
  with open(os.path.join(first.folder, 'theory.png'), 'rb') as f:
    whole_files.write_whole(os.path.join(folder, 'theory.png'), f.read())
  return (
    f"### The theory's numbers\n\n{theory_report.of_seeds(of_seeds)}\n"
    '![Figures](theory.png)\n'
  )


def _selections(
  jobs_of: Mapping[str, Sequence[jobs.Job]],
) -> dict[str, jobs.Job]:
  """{variant: its selection}, those of the first seed."""
  return {
    label: need
    for label, of_seeds in jobs_of.items()
    for need in of_seeds[0].needs
    if os.path.exists(os.path.join(need.folder, 'selection.json'))
  }


def _selected(label: str, selection: jobs.Job, folder: str) -> str:
  """What was selected, with its picture, which is copied to `folder`."""
  path = lambda end: os.path.join(selection.folder, f'selection.{end}')
  name = f'{os.path.basename(selection.folder)}.png'
  with open(path('md'), encoding='utf-8') as f:
    text = f.read().removeprefix('# Selection\n')
  with open(path('png'), 'rb') as f:
    whole_files.write_whole(os.path.join(folder, name), f.read())
  return f'\n### What {label} selected\n{text}\n![Scores and domains]({name})\n'


def main(argv: Sequence[str]) -> None:
  if len(argv) > 1:
    raise app.UsageError(f'Not understood: {argv[1:]}')
  _check_seeds(_SEEDS.value)
  work_dir = os.path.abspath(_WORK_DIR.value)
  output_dir = os.path.abspath(_OUTPUT_DIR.value or _WORK_DIR.value)
  names = _ALL if _STUDY.value == ['all'] else _STUDY.value
  # What is wrong is told now, not after the teacher's training.
  try:
    setting = studies.Setting(_GIN.value, _SETTING.value)
    of_name = dict(studies.read(names))
    # {study: {variant: jobs of each seed}}
    of_studies = {
      name: {v.label: [] for v in studies.expand(study.variants)}
      for name, study in of_name.items()
    }
    evaluations = {name: [] for name in of_name}
    theories = {name: [] for name in of_name}
    of_seeds = {}
    for seed in _SEEDS.value:
      of_seed = of_seeds[seed] = studies.JobsOfSeed(work_dir, seed, setting)
      for name, study in of_name.items():
        trained = {
          variant.label: of_seed.of(variant)
          for variant in studies.expand(study.variants)
        }
        for label, job in trained.items():
          of_studies[name][label].append(job)
        if study.theory:
          theories[name].append(
            of_seed.theory(f'{name}_numbers', trained, study.reference)
          )
        steps = [setting.step(x) for x in study.buckets_at]
        if steps:
          evaluations[name].append(
            of_seed.evaluation(f'{name}_held_out', trained, steps)
          )
    for study in of_name.values():
      for step in study.report_at:
        setting.step(step)
  except studies.StudyError as e:
    raise app.UsageError(str(e)) from e
  # Like Ctrl-C: the runs end with this process.
  signal.signal(signal.SIGTERM, lambda *_: sys.exit('Terminated.'))
  info = prepare.build(
    os.path.join(work_dir, 'data'),
    cache_dir=os.path.join(os.path.dirname(work_dir), 'wheels'),
    sequence_length=setting.number('SEQUENCE_LENGTH'),
    vocab_size=setting.number('VOCAB_SIZE'),
    megabytes=setting.number('MEGABYTES'),
  )
  print(prepare.table(info))
  try:
    for seed, of_seed in of_seeds.items():
      print(f'Seed {seed}; logs in {work_dir}/seed_{seed}/*/log.txt')
      jobs.run_all(of_seed.all, _WORKERS.value)
  except jobs.JobError as e:
    sys.exit(f'\n{e}')
  texts = {
    name: _report(
      name,
      study,
      setting,
      of_studies[name],
      evaluations[name],
      theories[name],
      output_dir,
    )
    for name, study in of_name.items()
  }
  page = os.path.join(output_dir, 'report.html')
  web_page.write(
    page,
    title='SALT in small'
    if len(texts) > 1
    else next(iter(of_name.values())).title,
    sections=[
      *((text, os.path.join(output_dir, name)) for name, text in texts.items()),
      (_configuration(setting, info, of_seeds), output_dir),
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


def _configuration(
  setting: studies.Setting,
  info: Mapping[str, Any],
  of_seeds: Mapping[str, studies.JobsOfSeed],
) -> str:
  """What was run, in Markdown."""
  files = ', '.join(
    path.removeprefix('salt_t5x/') for path in setting.files('salt')
  )
  bindings = ', '.join(f'`{b}`' for b in setting.bindings) or 'none'
  numbers = ', '.join(
    f'{name} = {setting.macro(name)}'
    for name in ('TRAIN_STEPS', 'KD_STEPS', 'BATCH_SIZE', 'VOCAB_SIZE')
  )
  runs = sum(len(of_seed.all) for of_seed in of_seeds.values())
  return (
    '## Configuration\n\n'
    f'- Recipes: {files}, and those of the other models; {numbers}\n'
    f'- Further gin bindings: {bindings}\n'
    f'- Seeds: {", ".join(of_seeds)}; {runs} jobs in all\n\n'
    f'### Data\n\n{prepare.table(info)}\n'
  )


if __name__ == '__main__':
  app.run(main)
