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

"""Runs of the real gin files, in this process and in others.

An engine cannot be exchanged within a process, so whatever compares two of
them, or has another number of devices, runs a script of its own (`python`).
"""

from collections.abc import Mapping
import contextlib
import gc
import json
import os
import pathlib
import shutil
import subprocess
import sys
from typing import Any, NamedTuple
from unittest import mock

import gin

from salt_t5x import engine
from salt_t5x.runs import resilient_trainer
from salt_t5x.studies import curves
from t5x import train as t5x_train
import tiny

TESTS = pathlib.Path(__file__).resolve().parent
ROOT = TESTS.parent
CHAIN = str(TESTS / 'integration/chain.gin')
RECIPE = str(TESTS / 'integration/recipe.gin')
REAL_T5X = engine.current() == engine.T5X

gin.add_config_file_search_path(str(TESTS / 'integration'))
# As `python -m t5x.train` does before it parses.
_train = gin.configurable(t5x_train.train)


@contextlib.contextmanager
def configured(files, bindings=()):
  """Within it gin holds these files and bindings, and nothing else.

  t5x's run files bind `__main__.train`, so the engine's is put there.
  """
  main = sys.modules['__main__']
  with mock.patch.object(main, 'train', t5x_train.train, create=True):
    gin.clear_config()
    try:
      gin.parse_config_files_and_bindings(files, bindings)
      yield
    finally:
      gin.clear_config()


class Run(NamedTuple):
  """What a run did.

  Attributes:
    state: the last train state.
    rows: for each step, what identifies the rows that it read.
    scalars: {metric: {step: value}} of training, without timings.
  """

  state: Any
  rows: list[list]
  scalars: dict[str, dict[int, float]]


def scalars(model_dir, collection='train'):
  """Reads a run's metrics back: {metric: {step: value}}, without timings."""
  found = curves.read_scalars(os.path.join(model_dir, collection))
  return {k: dict(v) for k, v in found.items() if not k.startswith('timing/')}


@contextlib.contextmanager
def observed_steps(observe):
  """Within it `observe(train_state, batch)` is called before every step.

  Args:
    observe: returns the train state to step from, or None to keep it.
  """
  cls = resilient_trainer.ResilientTrainer
  train_stage = cls._train_stage

  def observed_stage(self, step_fn, *args):
    def step(train_state, batch):
      changed = observe(train_state, batch)
      return step_fn(train_state if changed is None else changed, batch)

    return train_stage(self, step, *args)

  with mock.patch.object(cls, '_train_stage', observed_stage):
    yield


def train(model_dir, files, *bindings, identify=tiny.row_ids) -> Run:
  """Trains with gin files by the engine's own `train`.

  Args:
    model_dir: of the run.
    files: of gin.
    *bindings: of gin.
    identify: names the rows of a batch, in a list.
  """
  # t5x's trainers flush their metrics when they are collected. One of an
  # earlier test must not do so while tf.data traces: the flush would become
  # part of the data set, whose iterator could then not be saved.
  gc.collect()
  rows = []
  with (
    observed_steps(lambda _, batch: rows.append(identify(batch))),
    configured(files, [f'MODEL_DIR = {str(model_dir)!r}', *bindings]),
  ):
    _, state = _train()
  return Run(state, rows, scalars(os.path.expanduser(model_dir)))


def copy_up_to(step, source, target, first=0):
  """Copies a model directory as it was when the run stopped at `step`."""
  os.makedirs(target)
  shutil.copy(os.path.join(source, 'salt_t5x.json'), target)
  for k in range(first, step + 1):
    name = f'checkpoint_{k}'
    shutil.copytree(os.path.join(source, name), os.path.join(target, name))


def environment(
  engine_name: str = '', pythonpath=(), **variables: str
) -> dict[str, str]:
  """The environment of a process: a forced engine, or what it finds itself.

  Args:
    engine_name: 't5x', 'embedded', or '' to leave the choice open.
    pythonpath: replaces PYTHONPATH; the real t5x, if this process has it, is
      only there if it is repeated (`real_t5x_path`) or installed.
    **variables: to set beside.
  """
  inherited = {
    k: v for k, v in os.environ.items() if k != engine.ENGINE_VARIABLE
  }
  forced = {engine.ENGINE_VARIABLE: engine_name} if engine_name else {}
  path = os.pathsep.join(str(p) for p in pythonpath)
  return inherited | {'PYTHONPATH': path} | forced | variables


def real_t5x_path() -> list[str]:
  """What PYTHONPATH needs to find this process's real t5x, if it has one."""
  return os.environ.get('PYTHONPATH', '').split(os.pathsep) if REAL_T5X else []


def python(
  args, env: Mapping[str, str], cwd=None
) -> subprocess.CompletedProcess:
  """Runs Python and returns its output, whatever its exit status."""
  return subprocess.run(
    [sys.executable, *args],
    env=env,
    cwd=cwd,
    capture_output=True,
    text=True,
    check=False,
  )


def call(function: str, *args, engine_name: str, **variables: str) -> Any:
  """Calls `module.function(*args)` of a test module on an engine.

  Args:
    function: 'module.function'; its module is in one of the tests' folders.
    *args: JSON values.
    engine_name: 't5x' or 'embedded'.
    **variables: environment variables to set.

  Returns:
    What it returned, through JSON.
  """
  module, name = function.split('.')
  script = (
    # The seam first: the modules of the tests import t5x.
    'import salt_t5x, importlib, json, sys\n'
    f'result = importlib.import_module({module!r}).{name}'
    f'(*json.loads({json.dumps(args)!r}))\n'
    'print("\\n" + json.dumps(result))'
  )
  env = environment(
    engine_name,
    [TESTS, *filter(os.path.isdir, TESTS.iterdir()), *real_t5x_path()],
    **variables,
  )
  done = python(['-c', script], env)
  assert done.returncode == 0, done.stderr[-5000:]
  return json.loads(done.stdout.splitlines()[-1])
