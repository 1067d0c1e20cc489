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

"""Two processes on one machine train what one does, and stop together.

Only where the real t5x is importable; the embedded engine has one process.
"""

import math
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import time

import compared_runs
import kill_and_resume as faults
import pytest

from salt_t5x.checkpoints import find
from salt_t5x.runs import preemption
import tiny_runs

pytestmark = pytest.mark.skipif(
  not tiny_runs.REAL_T5X,
  reason='the real t5x is not importable (see docs/engines.md)',
)

# Notes the rows of each step that lie on this process's devices, by their place
# in the global batch; makes the parameters of one step NaN, once, if told to;
# then runs t5x's train binary.
_SCRIPT = """
import salt_t5x
import json, os, runpy
import batch_rows, jax, numpy as np
from salt_t5x.runs import resilient_trainer

def record(step, batch):
  with open(os.environ['CONSUMED'], 'a') as f:
    f.write(json.dumps([step, batch_rows.hashes(batch)]) + '\\n')

cls = resilient_trainer.ResilientTrainer
train_stage, bad = cls._train_stage, [int(os.environ.get('BAD_STEP', -1))]
def observed_stage(self, step_fn, *args):
  def step(train_state, batch):
    record(int(train_state.step), batch)
    if int(train_state.step) in bad:
      bad.clear()
      state = train_state.state_dict()
      params = jax.tree.map(lambda x: x * np.nan, state['target'])
      train_state = train_state.restore_state({**state, 'target': params})
    return step_fn(train_state, batch)
  return train_stage(self, step, *args)

cls._train_stage = observed_stage
runpy.run_module('salt_t5x.train', run_name='__main__', alter_sys=True)
"""


@pytest.fixture(scope='module')
def world(tmp_path_factory):
  """The corpus of notes_task.py, cached; a teacher, its scores, a selection."""
  folder = tmp_path_factory.mktemp('processes') / 'world'
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv('SALT_T5X_TEST_CHAIN', str(folder / 'chain'))
    faults.build(folder)
    faults.select(folder)
    yield folder


class Run:
  """A run in some processes."""

  def __init__(self, world, model_dir, processes, devices, *flags, bad_step=-1):
    """Starts it.

    Args:
      world: what it needs.
      model_dir: of the run.
      processes: how many.
      devices: of each.
      *flags: of the command.
      bad_step: the step whose parameters are NaN.
    """
    self._model_dir = model_dir
    # How often the run was started before.
    self._start = len(
      list(model_dir.parent.glob(f'{model_dir.name}.*.0.jsonl'))
    )
    with socket.socket() as s:
      s.bind(('127.0.0.1', 0))
      port = s.getsockname()[1]
    command = [
      sys.executable,
      '-c',
      _SCRIPT,
      f'--gin_file={faults.RECIPE}',
      f'--gin_search_paths={tiny_runs.TESTS}/integration',
      f'--gin.MODEL_DIR={str(model_dir)!r}',
      f"--gin.TEACHER_PATH='{world}/teacher'",
      f"--gin.SELECTION_PATH='{world}/selection.json'",
      *flags,
    ]
    self._processes = []
    for index in range(processes):
      together = [
        '--multiprocess_gpu',
        f'--coordinator_address=127.0.0.1:{port}',
        f'--process_count={processes}',
        f'--process_index={index}',
      ]
      env = tiny_runs.environment(
        pythonpath=[
          tiny_runs.TESTS,
          tiny_runs.TESTS / 'integration',
          *tiny_runs.real_t5x_path(),
        ],
        SALT_T5X_TEST_NOTES=str(world),
        CONSUMED=f'{model_dir}.{self._start}.{index}.jsonl',
        BAD_STEP=str(bad_step),
        XLA_FLAGS=f'--xla_force_host_platform_device_count={devices}',
      )
      with open(f'{model_dir}.{index}.log', 'ab') as log:
        self._processes.append(
          subprocess.Popen(
            command + (together if processes > 1 else []),
            env=env,
            stdout=log,
            stderr=log,
          )
        )

  def wait(self):
    """Waits for all; returns their exit codes."""
    return [p.wait(timeout=600) for p in self._processes]

  def log(self):
    return '\n'.join(
      path.read_text(errors='replace')
      for path in sorted(self._model_dir.parent.glob('*.log'))
    )

  def steps_begun(self):
    path = pathlib.Path(f'{self._model_dir}.{self._start}.0.jsonl')
    return len(path.read_text().splitlines()) if path.exists() else 0

  def terminate(self, index):
    self._processes[index].send_signal(signal.SIGTERM)


@pytest.fixture(scope='module')
def single(world, tmp_path_factory):
  """The model directory of a run in one process."""
  model_dir = tmp_path_factory.mktemp('single') / 'model'
  run = Run(world, model_dir, 1, 1)
  assert run.wait() == [0], run.log()
  return model_dir


def assert_same(model_dir, single):
  expected = compared_runs.consumed(single)
  assert sorted(expected) == list(range(faults.STEPS))
  assert {len(rows) for [rows] in expected.values()} == {faults.BATCH}
  assert compared_runs.consumed(model_dir) == expected
  for collection in ('train', 'training_eval/notes_ul2'):
    mine, theirs = (
      tiny_runs.scalars(d, collection) for d in (model_dir, single)
    )
    assert mine.keys() == theirs.keys()
    for name, points in theirs.items():
      assert mine[name] == pytest.approx(points, rel=1e-5, abs=1e-6), name


@pytest.mark.parametrize(
  'devices, partitions',
  [
    pytest.param(1, 1, id='each its share of the batch'),
    pytest.param(2, 2, id='a sharded teacher, half of the batch each'),
    pytest.param(1, 2, id='a teacher sharded over the processes'),
  ],
)
def test_two_processes_train_like_one(
  world, single, tmp_path, devices, partitions
):
  model_dir = tmp_path / 'model'
  run = Run(
    world,
    model_dir,
    2,
    devices,
    f'--gin.partitioning.PjitPartitioner.num_partitions={partitions}',
  )
  assert run.wait() == [0, 0], run.log()
  assert_same(model_dir, single)


def test_processes_stop_and_resume_together(world, single, tmp_path):
  """SIGTERM reaches one of them."""
  model_dir = tmp_path / 'model'
  run = Run(world, model_dir, 2, 1)
  deadline = time.monotonic() + 300
  while run.steps_begun() < 2 and time.monotonic() < deadline:
    time.sleep(0.02)
  run.terminate(1)
  exits = run.wait()
  assert exits == [preemption.EXIT_CODE] * 2, run.log()
  step = max(find.finished(str(model_dir)))
  assert 2 <= step < faults.STEPS
  assert max(compared_runs.consumed(model_dir)) == step - 1
  run = Run(world, model_dir, 2, 1)
  assert run.wait() == [0, 0], run.log()
  # Other steps are evaluated then; see the documentation.
  shutil.rmtree(model_dir / 'training_eval')
  shutil.copytree(single / 'training_eval', model_dir / 'training_eval')
  assert_same(model_dir, single)


def test_processes_go_back_together_from_nan(world, single, tmp_path):
  """The parameters are sharded over them."""
  model_dir = tmp_path / 'model'
  bad = 4
  flags = [
    '--gin.partitioning.PjitPartitioner.num_partitions=2',
    # Steps are logged one by one, so one batch is passed over.
    '--gin.MAX_SKIPPED_BATCHES=1',
  ]
  run = Run(world, model_dir, 2, 1, *flags, bad_step=bad)
  assert run.wait() == [0, 0], run.log()
  mine, theirs = (
    tiny_runs.scalars(d, 'train')['loss'] for d in (model_dir, single)
  )
  assert sorted(mine) == sorted(theirs)
  for step, loss in theirs.items():
    # t5x logs step n under n + 1.
    assert math.isfinite(mine[step])
    assert (mine[step] == pytest.approx(loss, rel=1e-5)) == (step <= bad), step
  assert tiny_runs.scalars(model_dir, 'train')['salt/skipped_batches'] == {
    bad: 1
  }
  # The batches move up, also when one process with two devices goes on.
  read, expected = (compared_runs.consumed(d) for d in (model_dir, single))
  assert read[bad] == expected[bad] + expected[bad + 1]
  for step in range(bad + 1, faults.STEPS - 1):
    assert read[step] == expected[step + 1]
  for step in (9, 12):
    shutil.rmtree(model_dir / f'checkpoint_{step}')
  run = Run(world, model_dir, 1, 2, *flags)
  assert run.wait() == [0], run.log()
  assert compared_runs.consumed(model_dir, start=1) == {
    step: read[step] for step in range(6, faults.STEPS)
  }
  run = Run(world, tmp_path / 'stops', 2, 1, flags[0], bad_step=bad)
  assert 0 not in run.wait()
  assert f'Step {bad + 1}: the loss is nan' in run.log()
  assert max(find.finished(str(tmp_path / 'stops'))) == 3


def test_saved_iterators_refuse_other_numbers_of_processes(world, tmp_path):
  model_dir = tmp_path / 'model'
  flags = ['--gin.SAVE_DATASET=True', '--gin.CHECKPOINT_PERIOD=1']
  run = Run(world, model_dir, 1, 1, *flags)
  deadline = time.monotonic() + 300
  while run.steps_begun() < 2 and time.monotonic() < deadline:
    time.sleep(0.02)
  run.terminate(0)
  assert run.wait() == [preemption.EXIT_CODE], run.log()
  run = Run(world, model_dir, 2, 1, *flags)
  assert 0 not in run.wait()
  assert (
    'read 1 shares of the data, and its data iterators do not fit 2'
    in run.log()
  )


def test_a_second_run_in_the_directory_is_refused_by_all(world, tmp_path):
  model_dir = tmp_path / 'model'
  first = Run(world, model_dir, 1, 1)
  deadline = time.monotonic() + 300
  while not (model_dir / 'in_use').exists() and time.monotonic() < deadline:
    time.sleep(0.02)
  second = Run(world, model_dir, 2, 1)
  exits = second.wait()
  assert 0 not in exits and preemption.EXIT_CODE not in exits
  assert first.wait() == [0]
  assert 'is in use by another process' in second.log()
