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

"""Plans studies: the processes that train, score, select and evaluate.

Runs that several variants or studies need are made once.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import functools
import hashlib
import os
import re
import shutil
from typing import Any

from salt_t5x.checkpoints import find
from salt_t5x.studies import curves, definition, processes

# {recipe: (module, the macro of its folder)}; the other recipes train.
_PROGRAMS = {
  'scores': ('salt_t5x.score', 'SCORES_DIR'),
  'evaluate': ('salt_t5x.evaluate', 'OUTPUT_DIR'),
  'analyze': ('salt_t5x.analyze', 'OUTPUT_DIR'),
}
# {timed model: recipe}. RKD times the KD step, since SALT compiles its second
# step meanwhile. A timed run is short, and does little but steps.
_TIMED = {'RKD': 'rkd', 'BASELINE': 'baseline', definition.SLM: 'teacher'}
_TIMING = {
  'TRAIN_STEPS': 60,
  'STATS_PERIOD': 5,
  'EVAL_PERIOD': 60,
  'EVAL_STEPS': 1,
  'CHECKPOINT_PERIOD': 60,
  'WARMUP_STEPS': 1,
}


@dataclasses.dataclass(frozen=True)
class Plan:
  """A study and its jobs, in lists over the seeds.

  Attributes:
    name: the name of the study's file.
    study: the variants and measurements.
    setting: the configuration that all runs share.
    trained: {variant: the jobs that train it}.
    measured: {'buckets', 'benchmarks' or 'theory': the jobs that evaluate
      trained models}, as far as the study requests them.
    timed: {model: the jobs that time its steps}, for `Study.costs`.
  """

  name: str
  study: definition.Study
  setting: definition.Setting
  trained: dict[str, list[processes.Job]]
  measured: dict[str, list[processes.Job]]
  timed: dict[str, list[processes.Job]]


def plan(
  studies: Mapping[str, definition.Study],
  seeds: Sequence[str],
  setting: definition.Setting,
  work_dir: str,
) -> tuple[list[Plan], list[processes.Job]]:
  """Plans the jobs of studies, and checks them before any of them begins.

  Args:
    studies: {name: study}.
    seeds: every run is made once with each.
    setting: the configuration that all runs share.
    work_dir: holds data, benchmarks and runs.

  Returns:
    (the plans, their jobs; those that others need come first).

  Raises:
    definition.StudyError: a step or a number is none, or results would not be
      measured or kept.
  """
  if 'RANDOM_SEED' in setting.bound:
    raise definition.StudyError(
      f'--gin=RANDOM_SEED={setting.bound["RANDOM_SEED"]}: it would be the same '
      'for all --seeds. Give --seeds instead.'
    )
  every = *definition.NEEDS, *_PROGRAMS
  setting.check_macros(setting.bound, every, '--gin')
  scoring = setting.number('SCORING_STEP', 'teacher')
  length = setting.number('TRAIN_STEPS', 'teacher')
  if scoring > length:
    raise definition.StudyError(
      f'SCORING_STEP = {scoring} is beyond the TEACHER_STEPS = {length} of the '
      'teacher that scores. Set --gin=SCORING_STEP=... to a step that it has.'
    )
  made = [JobsOfSeed(work_dir, seed, setting) for seed in seeds]
  plans = []
  for name, study in studies.items():
    _check_steps(study, setting)
    for v in study.expand():
      teacher = {**v.teacher}
      recipes = v.recipe, teacher.pop('recipe', 'teacher')
      names = *v.models, *v.bindings, *teacher
      where = f'studies.Study.variants[{v.label!r}]'
      setting.check_macros(names, recipes, where)
    trained = {v.label: [x.train(v) for x in made] for v in study.expand()}
    measured, timed = {}, {}
    if study.buckets_at:
      measured['buckets'] = [
        x.evaluate(f'{name}_held_out', study, study.buckets_at) for x in made
      ]
    if study.benchmarks_at:
      folder = os.path.join(work_dir, 'benchmarks')
      measured['benchmarks'] = [
        x.evaluate(f'{name}_benchmarks', study, study.benchmarks_at, folder)
        for x in made
      ]
    if study.theory:
      measured['theory'] = [x.analyze(f'{name}_numbers', study) for x in made]
    if study.costs:
      timed = {
        label: [
          x.train(definition.Variant(label, recipe, _TIMING), alone=True)
          for x in made
        ]
        for label, recipe in _TIMED.items()
      }
    plans.append(Plan(name, study, setting, trained, measured, timed))
  return plans, [job for x in made for job in x.all]


def _check_steps(study: definition.Study, setting: definition.Setting) -> None:
  """Refuses steps at which the reference is not evaluated or not kept."""
  [reference] = [v for v in study.expand() if v.label == study.reference]
  own = setting.with_bindings(setting.format(reference.bindings))
  last = own.number('TRAIN_STEPS')
  for name, *periods in (
    ('report_at', 'EVAL_PERIOD'),
    ('buckets_at', 'EVAL_PERIOD', 'CHECKPOINT_PERIOD', 'KEEP_PERIOD'),
    ('benchmarks_at', 'EVAL_PERIOD', 'CHECKPOINT_PERIOD', 'KEEP_PERIOD'),
  ):
    found = {period: own.number(period) for period in periods}
    for text in getattr(study, name):
      step = setting.step(text)
      if step > last or (step < last and any(step % x for x in found.values())):
        listed = ', '.join(f'{k} = {x}' for k, x in found.items())
        raise definition.StudyError(
          f'studies.Study.{name}: {text} is step {step}, which is not measured '
          f'or not kept: runs of {last} steps are, every {listed}. Choose '
          'divisors of it with --gin.'
        )


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
    folder: the folder of a run.
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


def _empty(folder: str) -> None:
  shutil.rmtree(folder)
  os.mkdir(folder)


class JobsOfSeed:
  """Makes the jobs of one seed, each of them once."""

  def __init__(self, work_dir: str, seed: str, setting: definition.Setting):
    """Constructor.

    Args:
      work_dir: holds 'data', and gets a folder for the seed.
      seed: RANDOM_SEED of initialisation; the data order is fixed.
      setting: the configuration that all runs share.
    """
    self._work_dir, self._seed, self._setting = work_dir, seed, setting
    path = lambda name: os.path.abspath(os.path.join(work_dir, name))
    self._environment = {
      'SALT_T5X_DATA': path('data'),
      # Most runs compile the same programs.
      'JAX_COMPILATION_CACHE_DIR': path('compiled'),
      'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
    }
    self._jobs: dict[str, processes.Job] = {}

  @property
  def all(self) -> list[processes.Job]:
    """All jobs; those that others need come first."""
    return list(self._jobs.values())

  def train(
    self, variant: definition.Variant, alone: bool = False
  ) -> processes.Job:
    """Returns the job that trains a variant, after making those it needs."""
    recipe, setting = variant.recipe, self._setting
    bindings = setting.format(variant.models)
    bindings += setting.changes(recipe, variant.bindings)
    name, paths, needs = [recipe, *bindings], {}, []
    if definition.NEEDS[recipe]:
      own = {'recipe': 'teacher', **variant.teacher}
      teacher = self.train(
        definition.Variant(
          variant.label, own.pop('recipe'), own, variant.models
        )
      )
    if 'teacher' in definition.NEEDS[recipe]:
      paths['TEACHER_PATH'] = teacher.folder
      needs.append(teacher)
      name += _by(variant, teacher)
    if 'selection' in definition.NEEDS[recipe]:
      selection = self._select(variant, teacher, bindings)
      paths['SELECTION_PATH'] = os.path.join(selection.folder, 'selection.json')
      needs.append(selection)
      if variant.selection:
        name.append(f'on={os.path.basename(selection.folder)}')
    name = f'{recipe}_timing' if alone else _folder_name(*name)
    return self._run(name, recipe, bindings, paths, needs, alone)

  def evaluate(
    self,
    name: str,
    study: definition.Study,
    steps: Sequence[str],
    benchmarks: str | None = None,
  ) -> processes.Job:
    """Returns the job that evaluates a study's students and its teacher, SLM.

    Args:
      name: the job's name.
      study: the study.
      steps: the steps of the students' checkpoints, as in `Study.buckets_at`.
        In tables they are called 'label @step'.
      benchmarks: the folder of benchmarks; None for held-out text alone.
    """
    students = {v.label: self.train(v) for v in study.expand()}
    teacher = students.pop(definition.SLM)
    paths = {
      'TEACHER_PATH': teacher.folder,
      'CHECKPOINTS': {
        f'{label} @{step}': os.path.join(job.folder, f'checkpoint_{step}')
        for step in map(self._setting.step, steps)
        for label, job in students.items()
      },
    }
    bindings = ['SUITE = ()']
    if benchmarks:
      paths['BENCHMARK_DATA'], bindings = benchmarks, []
    needs = [teacher, *students.values()]
    return self._run(name, 'evaluate', bindings, paths, needs)

  def analyze(self, name: str, study: definition.Study) -> processes.Job:
    """Returns the job that estimates the theory's quantities for a study."""
    trained = {v.label: self.train(v) for v in study.expand()}
    roles = {
      'STUDENT_PATH': trained[study.reference],
      'TEACHER_PATH': trained[definition.SLM],
      'ORACLE_PATH': trained[definition.ORACLE],
    }
    number = functools.partial(self._setting.number, recipe='baseline')
    sequences = number('TRAIN_STEPS') * number('BATCH_SIZE')
    return self._run(
      name,
      'analyze',
      [f'TRAINING_SEQUENCES = {sequences}'],
      {macro: job.folder for macro, job in roles.items()},
      list(roles.values()),
    )

  def _select(
    self,
    variant: definition.Variant,
    teacher: processes.Job,
    bindings: Sequence[str],
  ) -> processes.Job:
    models = self._setting.format(variant.models)
    # Names tell how scores and selections differ from those of the setting.
    differs = [*models, *_by(variant, teacher)]
    scores = self._run(
      _folder_name('scores', *differs),
      'scores',
      models,
      {'TEACHER_PATH': teacher.folder},
      [teacher],
    )
    own = self._setting.with_bindings(bindings)
    kind = variant.selection.get('kind', 'zero')
    kinds = own.value('first_stage.FirstStage.kinds', variant.recipe)
    if kind not in kinds:  # Known before a teacher is trained.
      raise definition.StudyError(
        f'studies.Study.variants: {variant.label!r} selects by {kind!r}, but '
        f"{variant.recipe} by {' or '.join(kinds)}: set 'selection': "
        "{'kind': ...} to that."
      )
    if variant.recipe == 'baseline_ez' and 'share' not in variant.selection:
      raise definition.StudyError(
        f'studies.Study.variants: {variant.label!r} repeats a share of all '
        "data: set 'selection': {'kind': 'easy', 'share': 0.4}."
      )
    differs += [f'{k}={v}' for k, v in variant.selection.items()]
    flags = {}
    for name in 'kd_steps', 'batch_size':
      flags[name] = own.number(name.upper(), variant.recipe)
      if flags[name] != self._setting.number(name.upper(), variant.recipe):
        differs.append(f'{name}={flags[name]}')
    flags = [f'--{k}={v}' for k, v in (flags | variant.selection).items()]
    name = _folder_name('selection', *differs)
    output = os.path.join(self._folder(name), 'selection.json')
    return self._add(
      name,
      ['salt_t5x.select', f'--scores={scores.folder}', f'--output={output}']
      + flags,
      {'flags': flags},
      [scores],
      # select does not overwrite the files of an interrupted job.
      prepare=functools.partial(_empty, self._folder(name)),
    )

  def _folder(self, name: str) -> str:
    return os.path.join(self._work_dir, f'seed_{self._seed}', name)

  def _run(
    self,
    name: str,
    recipe: str,
    bindings: Sequence[str],
    paths: Mapping[str, Any],
    needs: Sequence[processes.Job],
    alone: bool = False,
  ) -> processes.Job:
    """Returns the job that runs a recipe."""
    setting, folder = self._setting, self._folder(name)
    module, output = _PROGRAMS.get(recipe, ('salt_t5x.train', 'MODEL_DIR'))
    bindings = [f'RANDOM_SEED={self._seed}', *setting.bindings, *bindings]
    prepare = total = None
    if module == 'salt_t5x.train':
      total = setting.with_bindings(bindings).number('TRAIN_STEPS', recipe)
      prepare = functools.partial(
        drop_unevaluated_checkpoints, folder, setting, recipe
      )
      if alone:  # A timed run begins at its first step.
        prepare = functools.partial(_empty, folder)
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
      # As in a file: runs that share them read some of them.
      *(f'--gin_bindings={b}' for b in bindings),
    ]
    texts = '\0'.join(config.text for config in setting.configs(recipe))
    options = {
      'bindings': bindings,
      # Relative, since the folder may be moved.
      'inputs': str(paths).replace(self._work_dir, ''),
      # The recipe's own files: those of other runs do not matter.
      'gin files': hashlib.sha256(texts.encode()).hexdigest(),
    }
    data = {
      'corpus': self._environment['SALT_T5X_DATA'],
      'benchmarks': paths.get('BENCHMARK_DATA'),
    }
    return self._add(
      name,
      command,
      options,
      needs,
      inputs={k: os.path.join(x, 'info.json') for k, x in data.items() if x},
      prepare=prepare,
      alone=alone,
      total=total,
    )

  def _add(
    self,
    name: str,
    command: Sequence[str],
    options: Mapping[str, Any],
    needs: Sequence[processes.Job],
    **more: Any,
  ) -> processes.Job:
    """Adds a job, or finds it; two jobs of one name raise a `StudyError`."""
    job = processes.Job(
      f'{name} [{self._seed}]',
      self._folder(name),
      command,
      options,
      needs,
      self._environment,
      **more,
    )
    found = self._jobs.setdefault(name, job)
    if found.command != command:
      raise definition.StudyError(
        f'Two different jobs are called {name}: {found.command} and {command}. '
        'Give the studies other names, or run them in two --work_dir.'
      )
    return found


def _folder_name(recipe: str, *bindings: str) -> str:
  """Returns e.g. 'salt,KD_STEPS=90', with characters that paths may have."""
  words = [re.sub(r'[^\w.=-]+', '_', x.replace(' ', '')) for x in bindings]
  return ','.join([recipe, *words])


def _by(variant: definition.Variant, teacher: processes.Job) -> list[str]:
  """Names a variant's own teacher; [] for that of the setting."""
  return [f'by={os.path.basename(teacher.folder)}'] if variant.teacher else []
