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

"""Writes the results folder of a study from the files of its runs."""

from collections.abc import Mapping, Sequence
import os
from typing import Any

import jax

from salt_t5x import engine, files
from salt_t5x.evaluation import buckets
from salt_t5x.minipile import prepare
from salt_t5x.studies import (
  costs,
  curves,
  definition,
  evaluations,
  jobs,
  plans,
  processes,
  report,
)
from salt_t5x.theory import report as theory_report


def write(plan: plans.Plan, output_dir: str, students: int) -> str:
  """Writes the results folder of a study whose jobs are done.

  Args:
    plan: the study and its jobs.
    output_dir: gets a folder of the study's name.
    students: the number of students that share the cost of the teacher.

  Returns:
    The text of results.md, Markdown with a '## ' heading; its pictures are in
    the folder.
  """
  study, folder = plan.study, os.path.join(output_dir, plan.name)
  steps = sorted({plan.setting.step(x) for x in study.report_at})
  of_variants = _collect(plan)
  found = report.summarize(study, of_variants, steps)
  if plan.timing:
    found['costs'] = _costs(plan, found['passes'], students)
  picture = report.plot(study, of_variants, steps)
  files.write_whole(os.path.join(folder, 'curves.svg'), picture)
  results = {'held_out': found}
  texts = [
    f'{report.verdict(found)}\n',
    f'*In the paper:* {study.about}\n',
    '### Held-out text\n',
    report.markdown(found, study),
    '![Held-out accuracy and log-perplexity over the steps](curves.svg)\n',
    f'{report.CAPTION}\n',
  ]
  for name, (found, text) in _further(plan, folder).items():
    results[name] = found
    texts.append(text)
  files.write_json(os.path.join(folder, 'results.json'), results)
  texts += [
    _selected(label, selection, folder)
    for label, selection in _selections(plan).items()
  ]
  text = '\n'.join([f'## {study.title}\n', *texts])
  files.write_whole(os.path.join(folder, 'results.md'), text.encode())
  return text


def _collect(plan: plans.Plan) -> report.OfVariants:
  """Reads {variant: held-out curves for each seed}."""
  return {
    label: [jobs.held_out_curves(job.folder, plan.setting) for job in of_seeds]
    for label, of_seeds in plan.trained.items()
  }


def _costs(
  plan: plans.Plan,
  passes: Mapping[str, Sequence[float | None]],
  students: int,
) -> dict[str, Any]:
  """Measures the costs (App. J) from the timed jobs."""
  setting = plan.setting
  total = setting.number('TRAIN_STEPS')
  kd_steps = {}
  for v in definition.expand(plan.study.variants):
    if v.label not in passes:
      continue
    own = setting.with_bindings(setting.format(v.bindings))
    if v.recipe in ('salt', 'salt_ds'):
      kd_steps[v.label] = own.number('KD_STEPS', v.recipe)
    elif v.recipe == 'rkd':
      kd_steps[v.label] = total

  times = {
    label: [
      costs.step_time(curves.read_scalars(os.path.join(job.folder, 'train')))
      for job in of_seeds
    ]
    for label, of_seeds in plan.timing.items()
  }
  return costs.measure(
    passes,
    kd_steps,
    times['RKD'],
    times['BASELINE'],
    setting.number('TRAIN_STEPS', 'teacher'),
    times[definition.SLM],
    total,
    students,
  )


def _further(plan: plans.Plan, folder: str) -> dict[str, tuple[Any, str]]:
  """Returns {name: (numbers, text)} of the evaluations after training."""
  further = {}
  if plan.held_out:
    of_seeds = [
      buckets.read(
        job.folder, definition.SLM, plan.study.reference, ['held_out']
      )[0]
      for job in plan.held_out
    ]
    found = evaluations.buckets(of_seeds, plan.study.reference)
    table = evaluations.buckets_markdown(found)
    text = f'### Easy, medium and hard text (Table 5)\n\n{table}'
    further['buckets'] = found, text
  if plan.benchmarks:
    found = evaluations.few_shot(_read(plan.benchmarks, 'results.json'))
    table = evaluations.few_shot_markdown(found)
    further['benchmarks'] = found, f'### Few-shot benchmarks\n\n{table}'
  if plan.theory:
    found = _read(plan.theory, 'theory.json')
    for job, of_seed in zip(plan.theory, found, strict=True):
      of_seed['models'] = {
        role: _without_folder(path, job)
        for role, path in of_seed['models'].items()
      }
    _copy(os.path.join(plan.theory[0].folder, 'theory.png'), folder)
    tables = theory_report.markdown_over_seeds(found)
    text = (
      f"### The theory's numbers\n\n{tables}\n"
      '![Figures](theory.png)\n\nThe figures show the first seed.\n'
    )
    further['theory'] = found, text
  return further


def _read(of_seeds: Sequence[processes.Job], name: str) -> list[dict[str, Any]]:
  return [
    files.read_json_object(os.path.join(job.folder, name)) for job in of_seeds
  ]


def _without_folder(text: str, job: processes.Job) -> str:
  """Shortens the paths of a seed's runs, whose folder may be moved."""
  return text.replace(os.path.dirname(job.folder), '…')


def _copy(path: str, folder: str, name: str | None = None) -> None:
  with open(path, 'rb') as f:
    target = os.path.join(folder, name or os.path.basename(path))
    files.write_whole(target, f.read())


def _selections(plan: plans.Plan) -> dict[str, processes.Job]:
  """Returns {variant: its selection job} for the first seed."""
  return {
    label: need
    for label, of_seeds in plan.trained.items()
    for need in of_seeds[0].needs
    if os.path.exists(os.path.join(need.folder, 'selection.json'))
  }


def _selected(label: str, selection: processes.Job, folder: str) -> str:
  """Returns a selection's report, and copies its picture to `folder`."""
  path = lambda end: os.path.join(selection.folder, f'selection.{end}')
  name = f'{os.path.basename(selection.folder)}.png'
  with open(path('md'), encoding='utf-8') as f:
    text = f.read().removeprefix('# Selection\n')
  text = _without_folder(text, selection)
  _copy(path('png'), folder, name)
  return (
    f'### What {label} selected, with the first seed\n{text}\n'
    f'![Scores and domains]({name})\n'
  )


def configuration(
  setting: definition.Setting,
  info: Mapping[str, Any],
  seeds: Sequence[str],
  count: int,
) -> str:
  """Describes the configuration of the runs in Markdown.

  Args:
    setting: the configuration that all runs share.
    info: describes the data; see `prepare.build`.
    seeds: of the runs.
    count: the number of jobs.
  """
  recipes = ', '.join(
    path.removeprefix('salt_t5x/') for path in setting.files('salt')
  )
  bindings = ', '.join(f'`{b}`' for b in setting.bindings) or 'none'
  numbers = ', '.join(
    f'{name} = {setting.value(name)!r}'
    for name in (
      'TRAIN_STEPS',
      'TEACHER_STEPS',
      'KD_STEPS',
      'DISTILLATION_WEIGHT',
      'TEACHER_TEMPERATURE',
      'BATCH_SIZE',
      'SEQUENCE_LENGTH',
      'VOCAB_SIZE',
      'PEAK_LEARNING_RATE',
      'WARMUP_STEPS',
    )
  )
  held_out = setting.number('EVAL_STEPS') * setting.number('BATCH_SIZE')
  # Markdown shows indented text as it is.
  table = '\n'.join(f'    {x}' for x in prepare.table(info).splitlines())
  return (
    '## Configuration\n\n'
    f'- Recipes: {recipes}, and those of the other models; {numbers}\n'
    f'- Further gin bindings: {bindings}\n'
    f'- Seeds: {", ".join(seeds)}; {count} jobs in all. A seed determines the '
    "initial parameters and UL2's draws; all seeds read the same sequences in "
    'the same order.\n'
    f'- Curves and the first table are over {held_out} held-out sequences; '
    'easy and hard text is over more of them.\n'
    f'- {engine.current()} engine, jax {jax.__version__}\n\n'
    f'### Data\n\n{table}\n'
  )
