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

"""Turns studies into processes that train, score, select and evaluate.

Runs that several variants or studies need are made once.
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

# A run that is timed is short, and does little but steps.
_TIMING = {
  'TRAIN_STEPS': 60,
  'STATS_PERIOD': 5,
  'EVAL_PERIOD': 60,
  'EVAL_STEPS': 1,
  'CHECKPOINT_PERIOD': 60,
  'WARMUP_STEPS': 1,
}


def _folder_name(recipe: str, *bindings: str) -> str:
  """Returns e.g. 'salt,KD_STEPS=90', with characters that paths may have."""
  words = [re.sub(r'[^\w.=-]+', '_', x.replace(' ', '')) for x in bindings]
  return ','.join([recipe, *words])


def held_out_curves(folder: str, setting: definition.Setting) -> curves.Curves:
  """Reads the evaluations of a run on EVAL_MIXTURE_OR_TASK_NAME."""
  name = setting.value('EVAL_MIXTURE_OR_TASK_NAME')
  return curves.read_scalars(os.path.join(folder, 'training_eval', name))


def drop_unevaluated_checkpoints(
  folder: str, setting: definition.Setting, recipe: str
) -> None:
  """Removes the checkpoints after the first missing evaluation.

  A run saves, then evaluates. A run killed in between would resume after the
  evaluation and leave a gap in its curve.

  Args:
    folder: of a run.
    setting: binds EVAL_PERIOD and the evaluated task.
    recipe: the run's recipe.
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
  """Makes the jobs of one seed, each of them once."""

  def __init__(self, work_dir: str, seed: str, setting: definition.Setting):
    """Constructor.

    Args:
      work_dir: holds 'data', and gets a folder for the seed.
      seed: RANDOM_SEED of initialisation; the data order is fixed.
      setting: the configuration that all runs share.
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
    """All jobs; those that others need come first."""
    return sorted(self._jobs.values(), key=_depth)

  def of(self, variant: definition.Variant) -> processes.Job:
    """Returns the job that trains a variant, after making those it needs."""
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
    """Returns the job that evaluates checkpoints of students.

    Args:
      name: of the job.
      students: {label: job}, with `SLM`, whose last checkpoint is evaluated.
      steps: of the students' checkpoints, which are called 'label @step'.
      benchmarks: the folder of benchmarks; None for held-out text alone.
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
    """Returns the job that estimates the theory's quantities.

    Args:
      name: of the job.
      trained: {label: job}, with `reference`, `SLM` and `ORACLE`.
      reference: the student's label.
    """
    student, teacher, oracle = (
      trained[x] for x in (reference, definition.SLM, definition.ORACLE)
    )
    sequences = self._setting.number('TRAIN_STEPS', 'baseline')
    sequences *= self._setting.number('BATCH_SIZE', 'baseline')
    return self._job(
      name,
      'salt_t5x.analyze',
      'analyze',
      'OUTPUT_DIR',
      [f'TRAINING_SEQUENCES = {sequences}'],
      {
        'STUDENT_PATH': student.folder,
        'TEACHER_PATH': teacher.folder,
        'ORACLE_PATH': oracle.folder,
      },
      [student, teacher, oracle],
    )

  def timing(self) -> dict[str, processes.Job]:
    """Returns short runs that run alone, for the costs (App. J).

    RKD times the KD step, since SALT compiles its second step meanwhile.

    Returns:
      {'RKD': KD steps, 'BASELINE': plain steps, 'SLM': the teacher's training}.
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
    setting, folder = self._setting, os.path.join(self._folder, name)
    ready = total = None
    bindings = [f'RANDOM_SEED={self._seed}', *setting.bindings, *bindings]
    if module == 'salt_t5x.train':
      own = setting.with_bindings(bindings)
      total = own.number('TRAIN_STEPS', recipe)
      if not alone:
        ready = functools.partial(
          drop_unevaluated_checkpoints, folder, setting, recipe
        )
    else:
      # Other commands share the macros of training, but not its parameters.
      bindings = [b for b in bindings if re.match(r'(\w+|size_\w+/.*) *=', b)]
      if module == 'salt_t5x.score':
        total = setting.number('SCORED_EXAMPLES', recipe)
    paths = {output: folder, **paths}
    command = [
      module,
      *(f'--gin_file={path}' for path in setting.files(recipe)),
      *(f'--gin.{k}={v!r}' for k, v in paths.items()),
      *(f'--gin.{b}' for b in bindings),
    ]
    texts = '\0'.join(config.text for config in setting.configs(recipe))
    options = {
      'bindings': bindings,
      # Relative, since the folder may be moved.
      'inputs': str(paths).replace(self._work_dir, ''),
      # The recipe's own files: those of other runs do not matter.
      'gin files': hashlib.sha256(texts.encode()).hexdigest(),
    }
    return self._add(
      name, folder, command, options, before, ready=ready, alone=alone,
      total=total,
    )  # fmt: skip

  def _add(
    self, name, folder, command, options, before, **more
  ) -> processes.Job:
    """Adds a job, or finds it; two jobs of one name raise a `StudyError`."""
    if name not in self._jobs:
      self._jobs[name] = processes.Job(
        f'{name} [{self._seed}]',
        folder,
        command,
        options,
        before,
        self._environment,
        **more,
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
    # Names tell how scores differ from those of the setting alone.
    differs = list(models)
    if variant.teacher:
      differs.append(f'by={os.path.basename(teacher.folder)}')
    scores = self._job(
      _folder_name('scores', *differs),
      'salt_t5x.score',
      'scores',
      'SCORES_DIR',
      models,
      {'TEACHER_PATH': teacher.folder},
      [teacher],
    )
    own = self._setting.with_bindings(bindings)
    flags = dict(variant.selection)
    differs += [f'{k}={v}' for k, v in flags.items()]
    sizes = {}
    for name in 'kd_steps', 'batch_size':
      sizes[name] = own.number(name.upper(), variant.recipe)
      if sizes[name] != self._setting.number(name.upper(), variant.recipe):
        differs.append(f'{name}={sizes[name]}')
    name = _folder_name('selection', *differs)
    folder = os.path.join(self._folder, name)
    flags = [f'--{k}={v}' for k, v in (sizes | flags).items()]
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
      # select does not overwrite the files of an interrupted job.
      ready=functools.partial(
        _remove, os.path.join(glob.escape(folder), 'selection.*')
      ),
    )


def _depth(job: processes.Job) -> int:
  return 1 + max(map(_depth, job.needs), default=0)
