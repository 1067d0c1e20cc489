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
import shutil
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
  processes,
  report,
)
from salt_t5x.theory import report as theory_report

# Macros that the page shows.
_NUMBERS = (
  'TRAIN_STEPS', 'TEACHER_STEPS', 'KD_STEPS', 'DISTILLATION_WEIGHT',
  'TEACHER_TEMPERATURE', 'BATCH_SIZE', 'SEQUENCE_LENGTH', 'VOCAB_SIZE',
  'PEAK_LEARNING_RATE', 'WARMUP_STEPS',
)  # fmt: skip


def write(plan: jobs.Plan, output_dir: str, students: int) -> str:
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
  of_variants = {
    label: [jobs.held_out_curves(job.folder, plan.setting) for job in of_seeds]
    for label, of_seeds in plan.trained.items()
  }
  found = report.summarize(study, of_variants, steps)
  if plan.timed:
    found['costs'] = _costs(plan, found['passes'], students)
  picture = report.plot(study, of_variants, steps)
  files.write_whole(os.path.join(folder, 'curves.svg'), picture)
  results = {'held_out': found}
  texts = [
    f'## {study.title}\n',
    f'{report.verdict(found)}\n',
    f'*In the paper:* {study.about}\n',
    '### Held-out text\n',
    report.markdown(found, study),
    '![Held-out accuracy and log-perplexity over the steps](curves.svg)\n',
    f'{report.CAPTION}\n',
  ]
  if of_seeds := plan.measured.get('buckets'):
    tasks = [
      buckets.read(job.folder, definition.SLM, study.reference, ['held_out'])[0]
      for job in of_seeds
    ]
    results['buckets'] = evaluations.buckets(tasks, study.reference)
    texts.append(evaluations.buckets_markdown(results['buckets']))
  if of_seeds := plan.measured.get('benchmarks'):
    found = _read(of_seeds, 'results.json')
    results['benchmarks'] = evaluations.few_shot(found)
    texts.append(evaluations.few_shot_markdown(results['benchmarks']))
  if of_seeds := plan.measured.get('theory'):
    results['theory'] = _read(of_seeds, 'theory.json')
    for job, found in zip(of_seeds, results['theory'], strict=True):
      for role, path in found['models'].items():
        found['models'][role] = _shorten(path, job)
    shutil.copy(os.path.join(of_seeds[0].folder, 'theory.png'), folder)
    texts.append(
      "### The theory's numbers\n\n"
      f'{theory_report.markdown_over_seeds(results["theory"])}\n'
      '![Figures](theory.png)\n\nThe figures show the first seed.\n'
    )
  files.write_json(os.path.join(folder, 'results.json'), results)
  texts += [
    _selected(label, need, folder)
    for label, of_seeds in plan.trained.items()
    for need in of_seeds[0].needs
    if need.command[0] == 'salt_t5x.select'
  ]
  text = '\n'.join(texts)
  files.write_whole(os.path.join(folder, 'results.md'), text.encode())
  return text


def _costs(
  plan: jobs.Plan, passes: Mapping[str, Sequence[float | None]], students: int
) -> dict[str, Any]:
  """Measures the costs (App. J) from the timed jobs."""
  setting = plan.setting
  total = setting.number('TRAIN_STEPS')
  kd_steps = {}
  for v in plan.study.expand():
    if v.label in passes and v.recipe in ('salt', 'salt_ds'):
      own = setting.with_bindings(setting.format(v.bindings))
      kd_steps[v.label] = own.number('KD_STEPS', v.recipe)
    elif v.label in passes and v.recipe == 'rkd':
      kd_steps[v.label] = total
  times = {
    label: [
      costs.step_time(curves.read_scalars(os.path.join(job.folder, 'train')))
      for job in of_seeds
    ]
    for label, of_seeds in plan.timed.items()
  }
  teacher_steps = setting.number('TRAIN_STEPS', 'teacher')
  return costs.measure(passes, kd_steps, times, teacher_steps, total, students)


def _read(of_seeds: Sequence[processes.Job], name: str) -> list[dict[str, Any]]:
  """Reads a JSON file of each seed's job, or names the damaged one."""
  found = []
  for job in of_seeds:
    path = os.path.join(job.folder, name)
    try:
      found.append(files.read_json_object(path))
    except ValueError as e:
      raise ValueError(
        f'{path} is damaged: {e}. Delete {job.folder}, and run the study again.'
      ) from e
  return found


def _shorten(text: str, job: processes.Job) -> str:
  """Shortens the paths of a seed's runs: their folder may move."""
  return text.replace(os.path.dirname(job.folder), '…')


def _selected(label: str, selection: processes.Job, folder: str) -> str:
  """Returns a selection's report, and copies its picture to `folder`."""
  path = os.path.join(selection.folder, 'selection')
  name = f'{os.path.basename(selection.folder)}.png'
  with open(f'{path}.md', encoding='utf-8') as f:
    text = _shorten(f.read(), selection).removeprefix('# Selection\n')
  shutil.copy(f'{path}.png', os.path.join(folder, name))
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
  numbers = ', '.join(f'{x} = {setting.value(x)!r}' for x in _NUMBERS)
  held_out = setting.number('EVAL_STEPS') * setting.number('BATCH_SIZE')
  return (
    '## Configuration\n\n'
    f'- Recipes: {recipes}, and those of the other models; {numbers}\n'
    f'- Further gin bindings: {bindings}\n'
    f'- Seeds: {", ".join(seeds)}; {count} jobs in all. A seed determines the '
    "initial parameters and UL2's draws; all seeds read the same sequences in "
    'the same order.\n'
    f'- Curves and the first table are over at most {held_out} held-out '
    'sequences; easy and hard text is over more of them.\n'
    f'- {engine.current()} engine, jax {jax.__version__}\n\n'
    f'### Data\n\n{prepare.table(info)}\n'
  )
