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

"""From studies to the processes that train, score, select and measure.

Runs that are wanted twice, by one study or by several, are one.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import os
import re

from salt_t5x import engine, jobs, studies


def _folder_name(recipe: str, *bindings: str) -> str:
  """'salt', or 'salt,KD_STEPS=90': readable, and fit for a path."""
  words = [re.sub(r'[^\w.=-]+', '_', x.replace(' ', '')) for x in bindings]
  return ','.join([recipe, *words])


class JobsOfSeed:
  """Makes the jobs of one seed; runs that are wanted twice are one."""

  def __init__(self, work_dir: str, seed: str, setting: studies.Setting):
    """Constructor.

    Args:
      work_dir: holds 'data', and gets a folder for the seed.
      seed: RANDOM_SEED of initialisation; the data order is fixed.
      setting: what all runs are given.
    """
    self._folder = os.path.join(work_dir, f'seed_{seed}')
    self._environment = {
      'SALT_T5X_DATA': os.path.abspath(os.path.join(work_dir, 'data')),
      # Most runs compile the same programs.
      'JAX_COMPILATION_CACHE_DIR': os.path.abspath(
        os.path.join(work_dir, 'compiled')
      ),
      'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
    }
    self._seed, self._setting = seed, setting
    self._jobs: dict[str, jobs.Job] = {}

  @property
  def all(self) -> list[jobs.Job]:
    """In the order of waiting: what most others need comes first."""
    return sorted(self._jobs.values(), key=_depth)

  def of(self, variant: studies.Variant) -> jobs.Job:
    """The job that trains a variant; those that it needs are made, too."""
    setting, needs = self._setting, studies.NEEDS[variant.recipe]
    models = setting.format(variant.models)
    bindings = models + setting.changes(variant.recipe, variant.bindings)
    paths, before, suffix = {}, [], []
    if 'teacher' in needs:
      teacher = self._teacher(variant, models)
      paths['TEACHER_PATH'] = teacher.folder
      before.append(teacher)
      if variant.teacher:
        suffix.append(f'by={os.path.basename(teacher.folder)}')
    if 'selection' in needs:
      selection = self._selection(variant, models, bindings)
      paths['SELECTION_PATH'] = os.path.join(selection.folder, 'selection.json')
      before.append(selection)
      if variant.selection:
        suffix.append(f'on={os.path.basename(selection.folder)}')
    return self._train(variant.recipe, bindings, paths, before, suffix)

  def evaluation(
    self,
    name: str,
    students: Mapping[str, jobs.Job],
    steps: Sequence[int],
    benchmarks: str | None = None,
  ) -> jobs.Job:
    """The job that judges held-out text by checkpoints of students.

    Args:
      name: of the job.
      students: {label: job}, among them `SLM`, of which the end is judged.
      steps: of the checkpoints; they are called 'label @step'.
      benchmarks: the folder of benchmarks, if they are measured, too.
    """
    students = dict(students)
    teacher = students.pop(studies.SLM)
    paths = {
      'TEACHER_PATH': teacher.folder,
      'CHECKPOINTS': {
        f'{label} @{step}': os.path.join(job.folder, f'checkpoint_{step}')
        for step in steps
        for label, job in students.items()
      },
    }
    needs = [teacher, *students.values()]
    bindings = ['SUITE = ()']
    if benchmarks:
      paths['BENCHMARK_DATA'] = benchmarks
      bindings = []
    return self._job(
      name,
      'salt_t5x.evaluate',
      'evaluate',
      'OUTPUT_DIR',
      bindings,
      paths,
      needs,
    )

  def theory(
    self, name: str, trained: Mapping[str, jobs.Job], reference: str
  ) -> jobs.Job:
    """The job that estimates the theory's quantities.

    Args:
      name: of the job.
      trained: {label: job}, among them the student (`reference`), `SLM` and
        `ORACLE`.
      reference: the student's label.
    """
    student, teacher, oracle = (
      trained[x] for x in (reference, studies.SLM, studies.ORACLE)
    )
    return self._job(
      name,
      'salt_t5x.analyze',
      'analyze',
      'OUTPUT_DIR',
      [],
      {
        'STUDENT_PATH': student.folder,
        'TEACHER_PATH': teacher.folder,
        'ORACLE_PATH': oracle.folder,
      },
      [student, teacher, oracle],
    )

  def _teacher(
    self, variant: studies.Variant, models: Sequence[str]
  ) -> jobs.Job:
    options = dict(variant.teacher)
    recipe = options.pop('recipe', 'teacher')
    bindings = [*models, *self._setting.changes(recipe, options)]
    return self._train(recipe, bindings, {}, [], [])

  def _train(self, recipe, bindings, paths, before, suffix) -> jobs.Job:
    name = _folder_name(recipe, *bindings, *suffix)
    return self._job(
      name, 'salt_t5x.train', recipe, 'MODEL_DIR', bindings, paths, before
    )

  def _job(
    self, name, module, recipe, output, bindings, paths, before
  ) -> jobs.Job:
    folder = os.path.join(self._folder, name)
    bindings = [
      f'RANDOM_SEED={self._seed}', *self._setting.bindings, *bindings
    ]  # fmt: skip
    if module != 'salt_t5x.train':
      # Parameters of training mean nothing to others; macros they may share.
      bindings = [b for b in bindings if re.match(r'(\w+|size_\w+/.*) *=', b)]
    paths = {output: folder, **paths}
    command = [
      module,
      *(f'--gin_file={path}' for path in self._setting.files(recipe)),
      *(f'--gin.{k}={v!r}' for k, v in paths.items()),
      *(f'--gin.{b}' for b in bindings),
    ]
    # The folder may be moved.
    inputs = str(paths).replace(self._folder, '')
    options = [*bindings, self._setting.text, inputs]
    return self._add(name, folder, command, options, before)

  def _add(
    self, name, folder, command, options, before, leftovers=None
  ) -> jobs.Job:
    """Adds a job, or finds it.

    Raises:
      studies.StudyError: another one has its name.
    """
    if name not in self._jobs:
      self._jobs[name] = jobs.Job(
        f'{name} [{self._seed}]',
        folder,
        command,
        # The gin files count, too.
        {'options': options, 'gin_files': engine.gin_fingerprint()},
        before,
        self._environment,
        leftovers,
      )
    if self._jobs[name].command != command:
      raise studies.StudyError(
        f'Two different jobs are called {name}: {self._jobs[name].command} and '
        f'{command}. Give the studies other names, or run them in two '
        '--work_dir.'
      )
    return self._jobs[name]

  def _selection(
    self,
    variant: studies.Variant,
    models: Sequence[str],
    bindings: Sequence[str],
  ) -> jobs.Job:
    teacher = self._teacher(variant, models)
    # What they are made with, where it is not the setting's.
    made_with = list(models)
    if variant.teacher:
      made_with.append(f'by={os.path.basename(teacher.folder)}')
    name = _folder_name('scores', *made_with)
    scores = self._job(
      name,
      'salt_t5x.score',
      'scores',
      'SCORES_DIR',
      models,
      {'TEACHER_PATH': teacher.folder},
      [teacher],
    )
    own = self._setting.with_bindings(bindings)
    flags = {
      name: own.number(name.upper(), variant.recipe)
      for name in ('kd_steps', 'batch_size')
    }
    made_with += [f'{k}={v}' for k, v in variant.selection.items()]
    made_with += [
      f'{k}={v}'
      for k, v in flags.items()
      if v != self._setting.number(k.upper(), variant.recipe)
    ]
    flags |= variant.selection
    name = _folder_name('selection', *made_with)
    folder = os.path.join(self._folder, name)
    flags = [f'--{k}={v}' for k, v in flags.items()]
    return self._add(
      name,
      folder,
      [
        'salt_t5x.select',
        f'--scores={scores.folder}',
        f'--output={os.path.join(folder, "selection.json")}',
        *flags,
      ],
      flags,
      [scores],
      leftovers='selection.*',
    )


def _depth(job: jobs.Job) -> int:
  return 1 + max(map(_depth, job.needs), default=0)


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
  """

  name: str
  study: studies.Study
  setting: studies.Setting
  trained: dict[str, list[jobs.Job]]
  held_out: list[jobs.Job]
  benchmarks: list[jobs.Job]
  theory: list[jobs.Job]


def plan(
  of_name: Mapping[str, studies.Study],
  seeds: Sequence[str],
  setting: studies.Setting,
  work_dir: str,
) -> tuple[list[Plan], dict[str, list[jobs.Job]]]:
  """Makes the jobs of studies.

  Args:
    of_name: {name: study}.
    seeds: all runs are made with each.
    setting: what all runs are given.
    work_dir: of data and runs.

  Returns:
    (the plans, {seed: its jobs, in the order of waiting}).

  Raises:
    studies.StudyError: a step or a number is none.
  """
  plans = []
  for name, study in of_name.items():
    variants = {v.label: [] for v in studies.expand(study.variants)}
    plans.append(Plan(name, study, setting, variants, [], [], []))
    for step in study.report_at:
      setting.step(step)
  of_seeds = {}
  for seed in seeds:
    made = JobsOfSeed(work_dir, seed, setting)
    for x in plans:
      _add_seed(x, made, os.path.join(work_dir, 'benchmarks'))
    of_seeds[seed] = made.all
  return plans, of_seeds


def _add_seed(x: Plan, made: JobsOfSeed, benchmarks: str) -> None:
  study = x.study
  trained = {v.label: made.of(v) for v in studies.expand(study.variants)}
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
  if study.theory:
    x.theory.append(made.theory(f'{x.name}_numbers', trained, study.reference))
