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

"""Trains a teacher, BASELINE, RKD, SALT and SALT_DS, and compares them.

`python -m salt_t5x.compare --work_dir=runs/salt` is what `make salt` runs: it
prepares real text, trains the models with the tiny recipes through the train
binary, has the teacher's early checkpoint score the text for SALT_DS, evaluates
on held-out text as models train, and writes a table and the curves. What is
finished is not done again; what was interrupted goes on from where it was.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import glob
import os
import re
import shutil
import signal
import subprocess
import sys
import time

from absl import app, flags
import tqdm

from salt_t5x import engine, json_records, prepare, report, whole_files

_WORK_DIR = flags.DEFINE_string(
  'work_dir', 'runs/salt', 'Where data, runs and results are kept.'
)
_SEEDS = flags.DEFINE_list(
  'seeds', ['0'], 'One whole comparison, teacher included, for each.'
)
_WORKERS = flags.DEFINE_integer(
  'workers',
  3,
  'Runs at a time: one more than a small machine has cores, as starting a run '
  'and writing checkpoints leave a core idle.',
  lower_bound=1,
)
_GIN = flags.DEFINE_multi_string(
  'gin', [], 'Gin bindings for all runs, e.g. --gin=TRAIN_STEPS=3000.'
)

VIEWS = ('minipile_causal', 'minipile_ul2')

_RECIPES = 'salt_t5x/gin/recipes'


class RunError(RuntimeError):
  """A run failed."""


def _train(run: 'Run') -> list[str]:
  paths = {'MODEL_DIR': run.folder}
  if 'teacher' in run.needs:
    paths['TEACHER_PATH'] = run.folder_of('teacher')
  if 'selection' in run.needs:
    paths['SELECTION_PATH'] = run.folder_of('selection', 'selection.json')
  return _with_gin('salt_t5x.train', run, paths, run.bindings)


def _score(run: 'Run') -> list[str]:
  paths = {'SCORES_DIR': run.folder, 'TEACHER_PATH': run.folder_of('teacher')}
  # Parameters of training mean nothing to this job; macros it may share.
  macros = [b for b in run.bindings if re.match(r'\w+ *=', b)]
  return _with_gin('salt_t5x.score', run, paths, macros)


def _with_gin(
  module: str, run: 'Run', paths: Mapping[str, str], bindings: Sequence[str]
) -> list[str]:
  paths = [f'{name}={path!r}' for name, path in paths.items()]
  return [
    module,
    f'--gin_file={_RECIPES}/tiny_{run.name}.gin',
    *(f'--gin.{b}' for b in [*paths, *bindings]),
  ]


def _select(run: 'Run') -> list[str]:
  output = run.folder_of('selection', 'selection.json')
  for left in glob.glob(run.folder_of('selection', 'selection.*')):
    os.remove(left)  # by a comparison that was stopped just then
  return [
    'salt_t5x.select',
    f'--scores={run.folder_of("scores")}',
    f'--output={output}',
    f'--kd_steps={read_macro("KD_STEPS", run.bindings)}',
    f'--batch_size={read_macro("BATCH_SIZE", run.bindings)}',
  ]


@dataclasses.dataclass(frozen=True)
class Stage:
  """A part of the comparison, in a process of its own.

  Attributes:
    command: makes the module's name and its flags.
    needs: the stages that come before it.
  """

  command: Callable[['Run'], list[str]]
  needs: tuple[str, ...] = ()


# In the order of waiting: what others need comes first.
STAGES = {
  'teacher': Stage(_train),
  'baseline': Stage(_train),
  'scores': Stage(_score, ('teacher',)),
  'rkd': Stage(_train, ('teacher',)),
  'selection': Stage(_select, ('scores',)),
  'salt_ds': Stage(_train, ('teacher', 'selection')),
  'salt': Stage(_train, ('teacher',)),
}


def read_macro(name: str, bindings: Sequence[str]) -> int:
  """Reads a number that bindings or the recipe of SALT_DS give to a macro."""
  texts = [*reversed(bindings)]
  for recipe in ('tiny_salt_ds', 'tiny'):
    texts.append(engine.read_gin(f'{_RECIPES}/{recipe}.gin'))
  # gin itself would want the train binary's `__main__`.
  for text in texts:
    if match := re.search(rf'^{name} *=(.*)', text, re.M):
      value = match[1].split('#')[0].strip()
      if not value.isdecimal():
        raise app.UsageError(
          f'--gin={name}={value}: {name} must be a number here.'
        )
      return int(value)
  raise ValueError(f'No recipe binds {name}.')


def _training_progress(run: 'Run', log: str) -> tuple[int, int | None]:
  """(steps that are done, steps of the run if known)."""
  steps = re.findall(r'\[(\d+)\] collection=train ', log)
  total = None
  config = os.path.join(run.folder, 'config.gin')
  if os.path.exists(config):
    with open(config, encoding='utf-8') as f:
      if found := re.search(r'^TRAIN_STEPS = (\d+)', f.read(), re.M):
        total = int(found[1])
  return int(steps[-1]) if steps else 0, total


def _scoring_progress(log: str) -> tuple[int, int | None]:
  """(sequences that are scored, sequences to score if known)."""
  found = re.findall(r'Shard \d+: (\d+) of (\d+) sequences', log)
  return tuple(map(int, found[-1])) if found else (0, None)


class Run:
  """One stage with one seed, in a process of its own."""

  def __init__(self, name: str, seed: str, work_dir: str, bindings):
    """Constructor.

    Args:
      name: a key of `STAGES`.
      seed: RANDOM_SEED of initialisation; the data order is fixed.
      work_dir: of the comparison.
      bindings: further gin bindings.
    """
    self.name = name
    self.needs = STAGES[name].needs
    self._seed_dir = os.path.join(work_dir, f'seed_{seed}')
    self._data_dir = os.path.join(work_dir, 'data')
    self.folder = self.folder_of(name)
    self.bindings = [f'RANDOM_SEED={seed}', *bindings]
    # What the run is made with; the gin files count, too.
    self._options = {
      'bindings': self.bindings,
      'gin_files': engine.gin_fingerprint(),
    }
    self._process = None
    self._log = os.path.join(self.folder, 'log.txt')
    self._options_file = os.path.join(self.folder, 'options.json')
    self._done_file = os.path.join(self.folder, 'done')
    self.progress = None

  def folder_of(self, name: str, *path: str) -> str:
    """A stage's folder, or a path in it."""
    return os.path.join(self._seed_dir, name, *path)

  def is_done(self) -> bool:
    """Tells whether the run has finished.

    Raises:
      RunError: it was begun with other options than it has now.
    """
    if os.path.exists(self._options_file):
      try:
        begun_with = json_records.read(self._options_file)
      except ValueError as e:
        raise RunError(
          f'{self._options_file} is damaged ({e}), so that nobody knows what '
          f'{self.folder} was begun with. Delete that folder, or choose '
          'another --work_dir.'
        ) from e
      if begun_with != self._options:
        raise RunError(
          f'{self.folder} was begun with {begun_with}, and now '
          f'{self._options} is asked for. Delete it, or choose another '
          '--work_dir.'
        )
    return os.path.exists(self._done_file)

  def start(self, position: int):
    """Starts the process, with a progress bar in line `position`."""
    os.makedirs(self.folder, exist_ok=True)
    whole_files.write_json(self._options_file, self._options)
    # Runs share the machine: no memory of their own.
    xla_flags = os.environ.get('XLA_FLAGS', '')
    environment = os.environ | {
      'SALT_T5X_DATA': os.path.abspath(self._data_dir),
      'XLA_FLAGS': f'{xla_flags} --xla_cpu_multi_thread_eigen=false',
      'XLA_PYTHON_CLIENT_PREALLOCATE': 'false',
      # Huge pages: a step's arrays are new memory, and page faults took a
      # fifth of the time.
      'GLIBC_TUNABLES': 'glibc.malloc.hugetlb=1',
    }
    command = [sys.executable, '-m', *STAGES[self.name].command(self)]
    with open(self._log, 'w', encoding='utf-8') as log:
      self._process = subprocess.Popen(
        command, env=environment, stdout=log, stderr=subprocess.STDOUT
      )
    unit = 'sequence' if self.name == 'scores' else 'step'
    self.progress = tqdm.tqdm(
      desc=f'{self.name:9}', position=position, unit=unit, leave=True
    )

  def poll(self) -> bool:
    """Updates the progress bar; True once the run has finished.

    Raises:
      RunError: the run failed; the message ends with its log's last lines.
    """
    code = self._process.poll()
    with open(self._log, encoding='utf-8', errors='replace') as f:
      log = f.read()
    done, total = (
      _scoring_progress(log)
      if self.name == 'scores'
      else _training_progress(self, log)
    )
    if (done, total) != (self.progress.n, self.progress.total):
      self.progress.n, self.progress.total = done, total
      self.progress.refresh()
    if code is None:
      return False
    self.progress.close()
    if code:
      tail = '\n'.join(log.splitlines()[-15:])
      raise RunError(f'{self.name} failed; the end of {self._log}:\n{tail}')
    with open(self._done_file, 'w', encoding='utf-8'):
      pass
    return True

  def stop(self):
    if self._process is not None and self._process.poll() is None:
      # Not SIGTERM, at which the run would save a checkpoint here and now: t5x
      # would then count its periods from there, and the checkpoints and
      # evaluations that the comparison needs would not come.
      self._process.kill()
      self._process.wait()


def run_all(runs: Sequence[Run], workers: int):
  """Runs what is not done yet, `workers` at a time, each after what it needs.

  Raises:
    RunError: a run failed; the others are stopped and can be resumed.
  """
  waiting = [r for r in runs if not r.is_done()]
  for name in sorted({r.name for r in runs} - {r.name for r in waiting}):
    print(f'{name}: already done.')
  running: list[Run] = []
  try:
    while waiting or running:
      for run in list(waiting):
        unfinished = {r.name for r in waiting + running}
        if len(running) < workers and unfinished.isdisjoint(run.needs):
          waiting.remove(run)
          taken = {r.progress.pos for r in running}
          run.start(min(i for i in range(workers) if -i not in taken))
          running.append(run)
      time.sleep(1)
      running = [r for r in running if not r.poll()]
  finally:
    for run in running:
      run.stop()


def collect(work_dir: str, seed: str, task: str) -> Mapping[str, report.Curves]:
  """Reads {run: held-out curves} of a finished comparison."""
  return {
    name: report.read_scalars(
      os.path.join(work_dir, f'seed_{seed}', name, 'training_eval', task)
    )
    for name in report.RUNS
  }


def main(argv: Sequence[str]):
  if len(argv) > 1:
    raise app.UsageError(f'Not understood: {argv[1:]}')
  seeds = _SEEDS.value
  if (
    not seeds
    or not all(x.isdecimal() for x in seeds)
    or len({*map(int, seeds)}) < len(seeds)
  ):
    raise app.UsageError(
      f'--seeds={",".join(seeds)}: give different whole numbers, separated by '
      'commas.'
    )
  # What is wrong with them is told now, not after the teacher's training.
  kd_steps = read_macro('KD_STEPS', _GIN.value)
  read_macro('BATCH_SIZE', _GIN.value)
  # Like Ctrl-C: the runs end with this process.
  signal.signal(signal.SIGTERM, lambda *_: sys.exit('Terminated.'))
  work_dir = os.path.abspath(_WORK_DIR.value)
  data_dir = os.path.join(work_dir, 'data')
  info = prepare.build(
    data_dir,
    cache_dir=os.path.join(os.path.dirname(work_dir), 'wheels'),
    sequence_length=128,
    vocab_size=2048,
    megabytes=30,
  )
  print(prepare.table(info))
  runs = {
    seed: [Run(name, seed, work_dir, _GIN.value) for name in STAGES]
    for seed in _SEEDS.value
  }
  try:
    for seed, group in runs.items():
      print(f'Training with seed {seed}; logs in {group[0].folder}/..')
      run_all(group, _WORKERS.value)
  except RunError as e:
    sys.exit(f'\n{e}')
  curves = {
    view: {seed: collect(work_dir, seed, view) for seed in _SEEDS.value}
    for view in VIEWS
  }
  results = {
    view: report.summarize(list(of_view.values()), kd_steps)
    for view, of_view in curves.items()
  }
  tables = '\n'.join(
    f'Held-out text, {view}:\n\n{report.markdown(result)}'
    for view, result in results.items()
  )
  first = runs[_SEEDS.value[0]][0]
  with open(
    first.folder_of('selection', 'selection.md'), encoding='utf-8'
  ) as f:
    selected = f.read()
  shutil.copy(
    first.folder_of('selection', 'selection.png'),
    os.path.join(work_dir, 'selection.png'),
  )
  text = (
    f'# Results\n\n{tables}\n![Curves](curves.png)\n\n{selected}\n'
    '![Scores and domains](selection.png)\n'
  )
  report.write(work_dir, results, text, curves[VIEWS[0]], kd_steps)
  print(f'\n{tables}')
  print(
    f'All of it: {work_dir}/results.md (with curves.png and selection.png)\n'
    f'Numbers:   {work_dir}/results.json\n'
    f'More:      tensorboard --logdir {work_dir}\n'
    'Next:      change the recipe with --gin (gin/recipes/tiny_salt.gin says '
    'what), or read "From your own t5x project" in README.md.'
  )


if __name__ == '__main__':
  app.run(main)
