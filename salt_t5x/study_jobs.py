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
import functools
import glob
import hashlib
import os
import re
import shutil

from salt_t5x import checkpoints, curves, engine, jobs, studies

# The task that runs are followed with.
HELD_OUT = 'minipile_causal'
# Steps of a run that is timed, and what makes it as short.
TIMED = 60
_TIMING = {
  'TRAIN_STEPS': TIMED,
  'STATS_PERIOD': 5,
  'EVAL_PERIOD': TIMED,
  'EVAL_STEPS': 1,
  'CHECKPOINT_PERIOD': TIMED,
  'WARMUP_STEPS': 1,
}


def _folder_name(recipe: str, *bindings: str) -> str:
  """'salt', or 'salt,KD_STEPS=90': readable, and fit for a path."""
  words = [re.sub(r'[^\w.=-]+', '_', x.replace(' ', '')) for x in bindings]
  return ','.join([recipe, *words])


def drop_what_was_not_evaluated(folder: str, period: int) -> None:
  """Removes checkpoints before which an evaluation is missing.

  A run saves, then evaluates. One that was killed in between would go on behind
  the evaluation, and its curve would have a hole.

  Args:
    folder: of a run.
    period: EVAL_PERIOD.
  """
  directory = os.path.join(folder, 'training_eval', HELD_OUT)
  known = dict(curves.read_scalars(directory).get('log_perplexity', ()))
  evaluated = 0
  while evaluated + period in known:
    evaluated += period
  for step, path in checkpoints.finished(folder).items():
    if step > evaluated:
      shutil.rmtree(path)


def _remove(pattern: str) -> None:
  for path in glob.glob(pattern):
    os.remove(path)


class JobsOfSeed:
  """Makes the jobs of one seed; runs that are wanted twice are one."""

  def __init__(self, work_dir: str, seed: str, setting: studies.Setting):
    """Constructor.

    Args:
      work_dir: holds 'data', and gets a folder for the seed.
      seed: RANDOM_SEED of initialisation; the data order is fixed.
      setting: what all runs are given.
    """
    self._work_dir = work_dir
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
    where = f'studies.Study.variants[{variant.label!r}]'
    setting.check_macros(bindings, [variant.recipe, 'teacher'], where)
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
    read = self._setting.number('TRAIN_STEPS', 'baseline')
    read *= self._setting.number('BATCH_SIZE', 'baseline')
    return self._job(
      name,
      'salt_t5x.analyze',
      'analyze',
      'OUTPUT_DIR',
      [f'TRAINING_SEQUENCES = {read}'],
      {
        'STUDENT_PATH': student.folder,
        'TEACHER_PATH': teacher.folder,
        'ORACLE_PATH': oracle.folder,
      },
      [student, teacher, oracle],
    )

  def timing(self) -> dict[str, jobs.Job]:
    """Short runs that nothing runs beside, for the costs (App. J).

    Returns:
      {'SALT': one whose first half distils, 'SLM': the teacher's training}.
    """
    teacher = self._teacher(
      studies.Variant(studies.SLM, 'teacher', {}, {}, {}, {}), []
    )
    setting = self._setting

    def job(recipe, name, more, needs):
      return self._job(
        name,
        'salt_t5x.train',
        recipe,
        'MODEL_DIR',
        setting.format(_TIMING | more),
        {'TEACHER_PATH': teacher.folder} if needs else {},
        needs,
        alone=True,
      )

    return {
      'SALT': job('salt', 'salt_timing', {'KD_STEPS': TIMED // 2}, [teacher]),
      studies.SLM: job('teacher', 'teacher_timing', {}, []),
    }

  def _teacher(
    self, variant: studies.Variant, models: Sequence[str]
  ) -> jobs.Job:
    options = dict(variant.teacher)
    recipe = options.pop('recipe', 'teacher')
    bindings = [*models, *self._setting.changes(recipe, options)]
    where = f'studies.Study.variants[{variant.label!r}]: teacher'
    self._setting.check_macros(bindings, [recipe, variant.recipe], where)
    return self._train(recipe, bindings, {}, [], [])

  def _train(self, recipe, bindings, paths, before, suffix) -> jobs.Job:
    name = _folder_name(recipe, *bindings, *suffix)
    return self._job(
      name, 'salt_t5x.train', recipe, 'MODEL_DIR', bindings, paths, before
    )

  def _job(
    self, name, module, recipe, output, bindings, paths, before, alone=False
  ) -> jobs.Job:
    folder = os.path.join(self._folder, name)
    ready = None
    bindings = [
      f'RANDOM_SEED={self._seed}', *self._setting.bindings, *bindings
    ]  # fmt: skip
    if module != 'salt_t5x.train':
      # Parameters of training mean nothing to others; macros they may share.
      bindings = [b for b in bindings if re.match(r'(\w+|size_\w+/.*) *=', b)]
    elif not alone:
      ready = functools.partial(
        drop_what_was_not_evaluated,
        folder,
        self._setting.number('EVAL_PERIOD', recipe),
      )
    paths = {output: folder, **paths}
    command = [
      module,
      *(f'--gin_file={path}' for path in self._setting.files(recipe)),
      *(f'--gin.{k}={v!r}' for k, v in paths.items()),
      *(f'--gin.{b}' for b in bindings),
    ]
    texts = map(engine.flat_gin, self._setting.files(recipe))
    options = {
      'bindings': bindings,
      # The folder may be moved.
      'inputs': str(paths).replace(self._work_dir, ''),
      # Of these alone: what other runs are configured with does not matter.
      'gin files': hashlib.sha256('\0'.join(texts).encode()).hexdigest(),
    }
    return self._add(name, folder, command, options, before, ready, alone)

  def _add(
    self, name, folder, command, options, before, ready=None, alone=False
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
        options,
        before,
        self._environment,
        ready,
        alone,
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
      {'flags': flags},
      [scores],
      # It would not write over them.
      functools.partial(
        _remove, os.path.join(glob.escape(folder), 'selection.*')
      ),
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
    timing: {'SALT' and 'SLM': the jobs that time their steps}, if the study has
      both.
  """

  name: str
  study: studies.Study
  setting: studies.Setting
  trained: dict[str, list[jobs.Job]]
  held_out: list[jobs.Job]
  benchmarks: list[jobs.Job]
  theory: list[jobs.Job]
  timing: dict[str, list[jobs.Job]]


def plan(
  of_name: Mapping[str, studies.Study],
  seeds: Sequence[str],
  setting: studies.Setting,
  work_dir: str,
) -> tuple[list[Plan], list[jobs.Job]]:
  """Makes the jobs of studies.

  Args:
    of_name: {name: study}.
    seeds: all runs are made with each.
    setting: what all runs are given.
    work_dir: of data and runs.

  Returns:
    (the plans, their jobs, in the order of waiting).

  Raises:
    studies.StudyError: a step or a number is none, or what is to be reported
      would not be measured or kept.
  """
  plans, found = [], []
  _check_setting(setting)
  for name, study in of_name.items():
    variants = {v.label: [] for v in studies.expand(study.variants)}
    plans.append(Plan(name, study, setting, variants, [], [], [], {}))
    _check_steps(study, setting)
  for seed in seeds:
    made = JobsOfSeed(work_dir, seed, setting)
    for x in plans:
      _add_seed(x, made, os.path.join(work_dir, 'benchmarks'))
    found += made.all
  return plans, found


def _check_setting(setting: studies.Setting) -> None:
  recipes = [*studies.NEEDS, 'scores', 'evaluate', 'analyze']
  setting.check_macros(setting.bindings, recipes, '--gin')
  for binding in setting.bindings:
    if re.match(r'RANDOM_SEED *=', binding):
      raise studies.StudyError(
        f'--gin={binding}: it would be the same for all --seeds. Give --seeds '
        'instead.'
      )
  scoring = setting.number('SCORING_STEP', 'teacher')
  length = setting.number('TRAIN_STEPS', 'teacher')
  if scoring > length:
    raise studies.StudyError(
      f'SCORING_STEP = {scoring} is beyond the TEACHER_STEPS = {length} of the '
      'teacher that scores. Set --gin=SCORING_STEP=... to a step that it has.'
    )


def _check_steps(study: studies.Study, setting: studies.Setting) -> None:
  """Refuses steps that are not evaluated, or of which nothing is kept.

  Raises:
    studies.StudyError: there is one.
  """
  # Of the reference, as `study_report.summarize` takes them.
  bindings = {v.label: v.bindings for v in studies.expand(study.variants)}
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
        raise studies.StudyError(
          f'{where}, which is not evaluated: runs of {last} steps are, every '
          f'EVAL_PERIOD = {period}. Choose --gin=EVAL_PERIOD=... that divides '
          'it (and CHECKPOINT_PERIOD with it).'
        )
      if name != 'report_at' and (step % every or step % keep):
        raise studies.StudyError(
          f'{where}, of which no checkpoint is kept: CHECKPOINT_PERIOD = '
          f'{every} and KEEP_PERIOD = {keep} must divide it.'
        )


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
  if study.costs:
    for label, job in made.timing().items():
      x.timing.setdefault(label, []).append(job)
  if study.theory:
    x.theory.append(made.theory(f'{x.name}_numbers', trained, study.reference))
