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

"""The jobs of several studies, checked before any of them begins."""

from collections.abc import Mapping, Sequence
import dataclasses
import os

from salt_t5x.studies import definition, jobs, processes


@dataclasses.dataclass(frozen=True)
class Plan:
  """A study and its jobs, a list over the seeds of each.

  Attributes:
    name: of the study's file.
    study: what is compared.
    setting: what all runs are given.
    trained: {variant: the jobs that train it}.
    held_out: judge held-out text, for `Study.buckets_at`.
    benchmarks: the same for `Study.benchmarks_at`.
    theory: the same for `Study.theory`.
    timing: {model: the jobs that time its steps}, for `Study.costs`.
  """

  name: str
  study: definition.Study
  setting: definition.Setting
  trained: dict[str, list[processes.Job]]
  held_out: list[processes.Job]
  benchmarks: list[processes.Job]
  theory: list[processes.Job]
  timing: dict[str, list[processes.Job]]


def make(
  of_name: Mapping[str, definition.Study],
  seeds: Sequence[str],
  setting: definition.Setting,
  work_dir: str,
) -> tuple[list[Plan], list[processes.Job]]:
  """Makes the jobs of studies.

  Args:
    of_name: {name: study}.
    seeds: all runs are made with each.
    setting: what all runs are given.
    work_dir: of data and runs.

  Returns:
    (the plans, their jobs, in the order of waiting).

  Raises:
    definition.StudyError: a step or a number is none, or what is to be reported
      would not be measured or kept.
  """
  plans, found = [], []
  _check_setting(setting)
  for name, study in of_name.items():
    variants = {v.label: [] for v in definition.expand(study.variants)}
    plans.append(Plan(name, study, setting, variants, [], [], [], {}))
    _check_steps(study, setting)
  for seed in seeds:
    made = jobs.JobsOfSeed(work_dir, seed, setting)
    for x in plans:
      _add_seed(x, made, os.path.join(work_dir, 'benchmarks'))
    found += made.all
  return plans, found


def _check_setting(setting: definition.Setting) -> None:
  recipes = [*definition.NEEDS, 'scores', 'evaluate', 'analyze']
  setting.check_macros(setting.bindings, recipes, '--gin')
  if 'RANDOM_SEED' in setting.bound:
    raise definition.StudyError(
      f'--gin=RANDOM_SEED={setting.bound["RANDOM_SEED"]}: it would be the same '
      'for all --seeds. Give --seeds instead.'
    )
  scoring = setting.number('SCORING_STEP', 'teacher')
  length = setting.number('TRAIN_STEPS', 'teacher')
  if scoring > length:
    raise definition.StudyError(
      f'SCORING_STEP = {scoring} is beyond the TEACHER_STEPS = {length} of the '
      'teacher that scores. Set --gin=SCORING_STEP=... to a step that it has.'
    )


def _check_steps(study: definition.Study, setting: definition.Setting) -> None:
  """Refuses steps that are not evaluated, or of which nothing is kept.

  Raises:
    definition.StudyError: there is one.
  """
  # Of the reference, as `report.summarize` takes them.
  bindings = {v.label: v.bindings for v in definition.expand(study.variants)}
  own = setting.with_bindings(setting.format(bindings[study.reference]))
  last = own.number('TRAIN_STEPS')
  period = own.number('EVAL_PERIOD')
  every = own.number('CHECKPOINT_PERIOD')
  keep = own.number('KEEP_PERIOD')
  for name in ('report_at', 'buckets_at', 'benchmarks_at'):
    for text in getattr(study, name):
      step = setting.step(text)
      if step == last:
        continue
      where = f'studies.Study.{name}: {text} is step {step}'
      if step > last or step % period:
        raise definition.StudyError(
          f'{where}, which is not evaluated: runs of {last} steps are, every '
          f'EVAL_PERIOD = {period}. Choose --gin=EVAL_PERIOD=... that divides '
          'it (and CHECKPOINT_PERIOD with it).'
        )
      if name != 'report_at' and (step % every or step % keep):
        raise definition.StudyError(
          f'{where}, of which no checkpoint is kept: CHECKPOINT_PERIOD = '
          f'{every} and KEEP_PERIOD = {keep} must divide it.'
        )


def _add_seed(x: Plan, made: jobs.JobsOfSeed, benchmarks: str) -> None:
  study = x.study
  trained = {v.label: made.of(v) for v in definition.expand(study.variants)}
  for label, job in trained.items():
    x.trained[label].append(job)
  steps = lambda texts: [x.setting.step(text) for text in texts]
  if study.buckets_at:
    job = made.evaluation(
      f'{x.name}_held_out', trained, steps(study.buckets_at)
    )
    x.held_out.append(job)
  if study.benchmarks_at:
    job = made.evaluation(
      f'{x.name}_benchmarks', trained, steps(study.benchmarks_at), benchmarks
    )
    x.benchmarks.append(job)
  if study.costs:
    for label, job in made.timing().items():
      x.timing.setdefault(label, []).append(job)
  if study.theory:
    x.theory.append(made.theory(f'{x.name}_numbers', trained, study.reference))
