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
import functools
import glob
import hashlib
import os
import re
import shutil

from salt_t5x.checkpoints import find
from salt_t5x.studies import curves, definition, processes

# A run that is timed: short, and without what is no step.
_TIMING = {
  'TRAIN_STEPS': 60,
  'STATS_PERIOD': 5,
  'EVAL_PERIOD': 60,
  'EVAL_STEPS': 1,
  'CHECKPOINT_PERIOD': 60,
  'WARMUP_STEPS': 1,
}


def _folder_name(recipe: str, *bindings: str) -> str:
  """'salt', or 'salt,KD_STEPS=90': readable, and fit for a path."""
  words = [re.sub(r'[^\w.=-]+', '_', x.replace(' ', '')) for x in bindings]
  return ','.join([recipe, *words])


def held_out_curves(folder: str, setting: definition.Setting) -> curves.Curves:
  """What a run's evaluations found, by EVAL_MIXTURE_OR_TASK_NAME."""
  name = setting.value('EVAL_MIXTURE_OR_TASK_NAME')
  return curves.read_scalars(os.path.join(folder, 'training_eval', name))


def drop_what_was_not_evaluated(
  folder: str, setting: definition.Setting, recipe: str
) -> None:
  """Removes checkpoints before which an evaluation is missing.

  A run saves, then evaluates. One that was killed in between would go on behind
  the evaluation, and its curve would have a hole.

  Args:
    folder: of a run.
    setting: has EVAL_PERIOD, and the name of what is evaluated.
    recipe: of the run.
  """
  known = dict(held_out_curves(folder, setting).get('log_perplexity', ()))
  period = setting.number('EVAL_PERIOD', recipe)
  evaluated = 0
  while evaluated + period in known:
    evaluated += period
  for step, path in find.finished(folder).items():
    if step > evaluated:
      shutil.rmtree(path)


def _remove(pattern: str) -> None:
  for path in glob.glob(pattern):
    os.remove(path)


class JobsOfSeed:
  """Makes the jobs of one seed; runs that are wanted twice are one."""

  def __init__(self, work_dir: str, seed: str, setting: definition.Setting):
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
    self._jobs: dict[str, processes.Job] = {}

  @property
  def all(self) -> list[processes.Job]:
    """In the order of waiting: what most others need comes first."""
    return sorted(self._jobs.values(), key=_depth)

  def of(self, variant: definition.Variant) -> processes.Job:
    """The job that trains a variant; those that it needs are made, too."""
    setting, needs = self._setting, definition.NEEDS[variant.recipe]
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
    students: Mapping[str, processes.Job],
    steps: Sequence[int],
    benchmarks: str | None = None,
  ) -> processes.Job:
    """The job that judges held-out text by checkpoints of students.

    Args:
      name: of the job.
      students: {label: job}, among them `SLM`, of which the end is judged.
      steps: of the checkpoints; they are called 'label @step'.
      benchmarks: the folder of benchmarks, if they are measured, too.
    """
    students = dict(students)
    teacher = students.pop(definition.SLM)
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
    self, name: str, trained: Mapping[str, processes.Job], reference: str
  ) -> processes.Job:
    """The job that estimates the theory's quantities.

    Args:
      name: of the job.
      trained: {label: job}, among them the student (`reference`), `SLM` and
        `ORACLE`.
      reference: the student's label.
    """
    student, teacher, oracle = (
      trained[x] for x in (reference, definition.SLM, definition.ORACLE)
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

  def timing(self) -> dict[str, processes.Job]:
    """Short runs that nothing runs beside, for the costs (App. J).

    Not SALT's, in whose first stage the second one's step is compiled.

    Returns:
      {'RKD': one that distils, 'BASELINE': one that does not, 'SLM': the
      teacher's training}.
    """
    variant = definition.Variant(definition.SLM, 'teacher', {}, {}, {}, {})
    teacher = self._teacher(variant, [])

    def job(recipe, paths, needs):
      return self._job(
        f'{recipe}_timing',
        'salt_t5x.train',
        recipe,
        'MODEL_DIR',
        self._setting.format(_TIMING),
        paths,
        needs,
        alone=True,
      )

    return {
      'RKD': job('rkd', {'TEACHER_PATH': teacher.folder}, [teacher]),
      'BASELINE': job('baseline', {}, []),
      definition.SLM: job('teacher', {}, []),
    }

  def _teacher(
    self, variant: definition.Variant, models: Sequence[str]
  ) -> processes.Job:
    options = dict(variant.teacher)
    recipe = options.pop('recipe', 'teacher')
    bindings = [*models, *self._setting.changes(recipe, options)]
    where = f'studies.Study.variants[{variant.label!r}]: teacher'
    self._setting.check_macros(bindings, [recipe, variant.recipe], where)
    return self._train(recipe, bindings, {}, [], [])

  def _train(self, recipe, bindings, paths, before, suffix) -> processes.Job:
    name = _folder_name(recipe, *bindings, *suffix)
    return self._job(
      name, 'salt_t5x.train', recipe, 'MODEL_DIR', bindings, paths, before
    )

  def _job(
    self, name, module, recipe, output, bindings, paths, before, alone=False
  ) -> processes.Job:
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
        self._setting,
        recipe,
      )
    paths = {output: folder, **paths}
    command = [
      module,
      *(f'--gin_file={path}' for path in self._setting.files(recipe)),
      *(f'--gin.{k}={v!r}' for k, v in paths.items()),
      *(f'--gin.{b}' for b in bindings),
    ]
    texts = [config.text for config in self._setting.configs(recipe)]
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
  ) -> processes.Job:
    """Adds a job, or finds it.

    Raises:
      definition.StudyError: another one has its name.
    """
    if name not in self._jobs:
      self._jobs[name] = processes.Job(
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
      raise definition.StudyError(
        f'Two different jobs are called {name}: {self._jobs[name].command} and '
        f'{command}. Give the studies other names, or run them in two '
        '--work_dir.'
      )
    return self._jobs[name]

  def _selection(
    self,
    variant: definition.Variant,
    models: Sequence[str],
    bindings: Sequence[str],
  ) -> processes.Job:
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


def _depth(job: processes.Job) -> int:
  return 1 + max(map(_depth, job.needs), default=0)
