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

"""Trains a teacher, then BASELINE and SALT, and compares them (Table 1).

`python -m salt_t5x.compare --work_dir=runs/salt` is what `make salt` runs: it
prepares real text, trains the three models with the tiny recipes through the
train binary, evaluates them on held-out text as they train, and writes a table
and the curves. What is finished is not done again; what was interrupted goes
on from its last checkpoint.
"""

from collections.abc import Mapping, Sequence
import json
import os
import re
import subprocess
import sys
import time

from absl import app, flags
import tqdm

from salt_t5x import engine, prepare, report

_WORK_DIR = flags.DEFINE_string(
  'work_dir', 'runs/salt', 'Where data, runs and results are kept.'
)
_SEEDS = flags.DEFINE_list(
  'seeds', ['0'], 'One whole comparison, teacher included, for each.'
)
_WORKERS = flags.DEFINE_integer(
  'workers',
  2,
  'Runs at a time. Models this small gain nothing from a second core.',
  lower_bound=1,
)
_GIN = flags.DEFINE_multi_string(
  'gin', [], 'Gin bindings for all runs, e.g. --gin=TRAIN_STEPS=3000.'
)

# Run -> the run whose checkpoint it needs.
RUNS = {'teacher': None, 'baseline': None, 'salt': 'teacher'}
# Models are compared by the first view of the held-out text; what UL2 makes of
# it stands beside.
VIEWS = ('minipile_causal', 'minipile_ul2')


class RunError(RuntimeError):
  """A training run failed."""


class Run:
  """One training run in a process of its own."""

  def __init__(self, name: str, seed: str, work_dir: str, bindings):
    """Constructor.

    Args:
      name: a key of `RUNS`.
      seed: RANDOM_SEED of initialisation; the data order is fixed.
      work_dir: of the comparison.
      bindings: further gin bindings.
    """
    self.name = name
    self.needs = RUNS[name]
    self.model_dir = os.path.join(work_dir, f'seed_{seed}', name)
    self._data_dir = os.path.join(work_dir, 'data')
    self._bindings = [
      f'MODEL_DIR={self.model_dir!r}',
      f'RANDOM_SEED={seed}',
      *bindings,
    ]
    if self.needs:
      teacher = os.path.join(work_dir, f'seed_{seed}', self.needs)
      self._bindings.append(f'TEACHER_PATH={teacher!r}')
    # What the run is made with; the gin files count, too.
    self._options = {
      'bindings': self._bindings,
      'gin_files': engine.gin_fingerprint(),
    }
    self._process = None
    self._log = os.path.join(self.model_dir, 'log.txt')
    self._options_file = os.path.join(self.model_dir, 'options.json')
    self._done_file = os.path.join(self.model_dir, 'done')
    self.progress = None

  def is_done(self) -> bool:
    """Tells whether the run has finished.

    Raises:
      RunError: it was begun with other options than it has now.
    """
    if os.path.exists(self._options_file):
      with open(self._options_file, encoding='utf-8') as f:
        begun_with = json.load(f)
      if begun_with != self._options:
        raise RunError(
          f'{self.model_dir} was begun with {begun_with}, and now '
          f'{self._options} is asked for. Delete it, or choose another '
          '--work_dir.'
        )
    return os.path.exists(self._done_file)

  def start(self, position: int):
    """Starts the process, with a progress bar in line `position`."""
    os.makedirs(self.model_dir, exist_ok=True)
    with open(self._options_file, 'w', encoding='utf-8') as f:
      json.dump(self._options, f)
    # Two runs share the machine: no thread pool and no memory of their own.
    xla_flags = os.environ.get('XLA_FLAGS', '')
    environment = os.environ | {
      'SALT_T5X_DATA': os.path.abspath(self._data_dir),
      'XLA_FLAGS': f'{xla_flags} --xla_cpu_multi_thread_eigen=false',
      'XLA_PYTHON_CLIENT_PREALLOCATE': 'false',
    }
    command = [
      sys.executable,
      '-m',
      'salt_t5x.train',
      f'--gin_file=salt_t5x/gin/recipes/tiny_{self.name}.gin',
      *(f'--gin.{b}' for b in self._bindings),
    ]
    with open(self._log, 'w', encoding='utf-8') as log:
      self._process = subprocess.Popen(
        command, env=environment, stdout=log, stderr=subprocess.STDOUT
      )
    self.progress = tqdm.tqdm(
      desc=f'{self.name:9}', position=position, unit='step', leave=True
    )

  def poll(self) -> bool:
    """Updates the progress bar; True once the run has finished.

    Raises:
      RunError: the run failed; the message ends with its log's last lines.
    """
    code = self._process.poll()
    with open(self._log, encoding='utf-8', errors='replace') as f:
      log = f.read()
    if self.progress.total is None:
      config = os.path.join(self.model_dir, 'config.gin')
      if os.path.exists(config):
        with open(config, encoding='utf-8') as f:
          self.progress.total = int(
            re.search(r'^TRAIN_STEPS = (\d+)', f.read(), re.M)[1]
          )
    steps = re.findall(r'\[(\d+)\] collection=train ', log)
    if steps and int(steps[-1]) != self.progress.n:
      self.progress.n = int(steps[-1])
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
      self._process.terminate()
      self._process.wait()


def train_all(runs: Sequence[Run], workers: int):
  """Trains what is not done yet, `workers` at a time, teachers first.

  Raises:
    RunError: a run failed; the others are stopped and can be resumed.
  """
  waiting = [r for r in runs if not r.is_done()]
  for name in sorted({r.name for r in runs} - {r.name for r in waiting}):
    print(f'{name}: already trained.')
  running: list[Run] = []
  try:
    while waiting or running:
      unfinished = {r.name for r in waiting + running}
      for run in list(waiting):
        if len(running) < workers and run.needs not in unfinished:
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
    for name in RUNS
  }


def main(argv: Sequence[str]):
  if len(argv) > 1:
    raise app.UsageError(f'Not understood: {argv[1:]}')
  work_dir = os.path.abspath(_WORK_DIR.value)
  info = prepare.build(
    os.path.join(work_dir, 'data'),
    cache_dir=os.path.join(os.path.dirname(work_dir), 'wheels'),
    sequence_length=128,
    vocab_size=2048,
    megabytes=30,
  )
  print(prepare.table(info))
  runs = {
    seed: [Run(name, seed, work_dir, _GIN.value) for name in RUNS]
    for seed in _SEEDS.value
  }
  try:
    for seed, group in runs.items():
      print(f'Training with seed {seed}; logs in {group[0].model_dir}/..')
      train_all(group, _WORKERS.value)
  except RunError as e:
    sys.exit(f'\n{e}')
  first_salt = runs[_SEEDS.value[0]][-1]
  with open(
    os.path.join(first_salt.model_dir, 'config.gin'), encoding='utf-8'
  ) as f:
    kd_steps = int(re.search(r'^KD_STEPS = (\d+)', f.read(), re.M)[1])
  curves = {
    view: {seed: collect(work_dir, seed, view) for seed in _SEEDS.value}
    for view in VIEWS
  }
  results = {
    view: report.summarize(list(of_view.values()), kd_steps)
    for view, of_view in curves.items()
  }
  text = '\n'.join(
    f'Held-out text, {view}:\n\n{report.markdown(result)}'
    for view, result in results.items()
  )
  report.write(work_dir, results, text, curves[VIEWS[0]], kd_steps)
  print(f'\n{text}')
  print(
    f'Curves: {work_dir}/curves.png\n'
    f'Table:  {work_dir}/results.md and results.json\n'
    f'More:   tensorboard --logdir {work_dir}\n'
    'Next:   change the recipe with --gin (gin/recipes/tiny_salt.gin says '
    'what), or read "From your own t5x project" in README.md.'
  )


if __name__ == '__main__':
  app.run(main)
