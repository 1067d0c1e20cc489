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

"""Kills a small SALT_DS run at random points, resumes it, and compares.

    python tests/integration/kill_and_resume.py --trials=100 --output=tally.json

Each trial is a run of its own: a process that trains faults.gin is killed (or
gets SIGTERM) somewhere, sometimes more than once, and is started again until it
ends. Each start has its own number of devices and, on the real t5x, of
processes. Then every loss that was logged, the examples of every step, those
that were read twice among them, and the last checkpoint are compared with those
of a run on one device that nothing happened to: the examples exactly; the
numbers bit for bit if all starts had one device, otherwise to rounding.

All processes are forks of this one, which imports what takes long and touches
neither JAX's devices nor TensorFlow's; so a trial takes seconds.
"""

import argparse
from collections.abc import Iterator
import contextlib
import json
import os
import pathlib
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from unittest import mock

TESTS = pathlib.Path(__file__).resolve().parent.parent
sys.path[:0] = [str(TESTS), str(TESTS / 'integration')]
os.environ.setdefault('JAX_PLATFORMS', 'cpu')
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
os.environ['JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'] = '0'
os.environ['JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES'] = '-1'

import compared_runs
import jax
import notes
import orbax.checkpoint as ocp
import starts as starts_lib
import tqdm

from salt_t5x.checkpoints import find
from salt_t5x.data import order
from salt_t5x.runs import preemption
import tiny
import tiny_runs

STEPS, KD_STEPS, PERIOD = 12, 5, 3  # As in faults.gin.
TEACHER_STEP, BATCH = 10, 16
DOCUMENTS = 5
RECIPE = str(TESTS / 'integration/faults.gin')
SIZES = "include 'eight_heads.gin'"
_TIME_LIMIT = 600  # seconds, of a start


# --- In a fork ---------------------------------------------------------------


def _send(kind: int, delay: float = 0.0):
  if delay:
    timer = threading.Timer(delay, os.kill, (os.getpid(), kind))
    timer.daemon = True
    timer.start()
  else:
    os.kill(os.getpid(), kind)


@contextlib.contextmanager
def _faulty(fault: starts_lib.Fault | None):
  """Lets a fault happen; yields what observes the steps."""
  save = ocp.CheckpointManager.save

  def observe(train_state, batch):
    del batch
    if fault and fault.when == 'batch' and fault.step == int(train_state.step):
      _send(fault.signal)

  def faulty_save(self, step, *args, **kwargs):
    if fault and fault.when == 'save' and fault.step == step:
      _send(fault.signal, fault.delay)
    return save(self, step, *args, **kwargs)

  with mock.patch.object(ocp.CheckpointManager, 'save', faulty_save):
    yield observe


def train(
  world: pathlib.Path,
  model_dir: pathlib.Path,
  start: starts_lib.Start,
  number: int,
  *more_bindings: str,
  process: int = 0,
  port: int | None = None,
):
  """One process of a run.

  Args:
    world: from `build`.
    model_dir: of the run.
    start: of this process and those beside it.
    number: how often the run was started before.
    *more_bindings: of gin.
    process: the number of this one.
    port: where the first process coordinates them.
  """
  model_dir.mkdir(exist_ok=True)
  fault = start.fault
  if fault and fault.process != process:
    fault = None
  if fault and fault.when == 'time':
    _send(fault.signal, fault.delay)
  jax.config.update('jax_num_cpu_devices', start.devices)
  if start.processes > 1:  # As t5x's binary does.
    jax.distributed.initialize(f'127.0.0.1:{port}', start.processes, process)
  bindings = [
    f'MODEL_DIR = {str(model_dir)!r}',
    f'TEACHER_PATH = "{world}/teacher"',
    f'SELECTION_PATH = "{world}/selection.json"',
    *more_bindings,
  ]
  code = 0
  with (
    notes.registered(world),
    _faulty(fault) as observe,
    compared_runs.recorded(model_dir, number, process, observe),
    tiny_runs.configured([RECIPE], bindings),
  ):
    try:
      tiny_runs._train()
    except preemption.Preempted as e:
      code = e.code
  if start.processes > 1:
    jax.distributed.shutdown()  # The first process outlives the others.
  sys.exit(code)


def build(world: pathlib.Path):
  """The corpus, the teacher, and its scores of the corpus."""
  os.makedirs(world / 'chain')
  tiny.write_task(str(world / 'chain'), 'chain')
  notes.write_documentation(world, DOCUMENTS)
  with notes.registered(world):
    notes.cache(world)
    examples = order.read(
      str(world / 'cache/notes_sequences'), 'train'
    ).examples
    # The second stage goes through the end of an epoch, at which the examples
    # are shared unevenly by two processes.
    assert KD_STEPS * BATCH < examples < (STEPS - 1) * BATCH, examples
    assert examples % 2, examples
    notes.train_teacher(world / 'teacher', TEACHER_STEP, SIZES)
    notes.score(
      *(world / 'teacher', world / 'scores', SIZES),
      f'TEACHER_STEP = {TEACHER_STEP}',
    )


def select(world: pathlib.Path):
  subprocess.run(
    [
      sys.executable,
      '-m',
      'salt_t5x.select',
      f'--scores={world}/scores',
      f'--output={world}/selection.json',
      f'--kd_steps={KD_STEPS}',
      f'--batch_size={BATCH}',
      '--share=0.5',  # The first stage repeats it.
    ],
    check=True,
  )


def _compare(
  model_dir: pathlib.Path, world: pathlib.Path, is_exact: bool, *was_complete
):
  """Writes how a run is not like the unbroken one."""
  compared = compared_runs.differences(
    model_dir, world / 'unbroken', STEPS, is_exact, *was_complete
  )
  _compared(model_dir).write_text(json.dumps(compared))


def _compared(model_dir: pathlib.Path) -> pathlib.Path:
  return model_dir.with_suffix('.compared.json')


# --- In the process that forks -----------------------------------------------


def fork(log: pathlib.Path, function, *args, **kwargs) -> int:
  """Starts a process that calls a function; returns its pid."""
  sys.stdout.flush()
  pid = os.fork()
  if pid:
    return pid
  code = 1
  try:
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    function(*args, **kwargs)
    code = 0
  except SystemExit as e:
    code = e.code or 0
  except BaseException:
    traceback.print_exc()
  finally:
    with contextlib.suppress(Exception):
      sys.stdout.flush()
    # Not waiting for tf.data's threads.
    os._exit(code if isinstance(code, int) else 1)


def call(log: pathlib.Path, function, *args):
  """Runs a function in a process of its own.

  Raises:
    RuntimeError: it failed.
  """
  _, status = os.waitpid(fork(log, function, *args), 0)
  if status:
    raise RuntimeError(f'{function.__name__}: {status}\n{log.read_text()}')


def run_once(
  world: pathlib.Path,
  model_dir: pathlib.Path,
  start: starts_lib.Start,
  number: int,
) -> list[int | None]:
  """Starts a run and waits for all of its processes.

  Args:
    world: from `build`.
    model_dir: of the run.
    start: what it has, and what happens to it.
    number: how often the run was started before.

  Returns:
    For each process its exit code, or minus the signal it died of; None if it
    was killed because another had died, or because the time was over.
  """
  with socket.socket() as s:
    s.bind(('127.0.0.1', 0))
    port = s.getsockname()[1]
  pids = [
    fork(
      *(model_dir.with_suffix('.log'), train, world, model_dir, start, number),
      process=process,
      port=port,
    )
    for process in range(start.processes)
  ]
  exits = {}
  deadline = time.monotonic() + _TIME_LIMIT
  while len(exits) < len(pids) and time.monotonic() < deadline:
    for process, pid in enumerate(pids):
      if process not in exits and (ended := os.waitpid(pid, os.WNOHANG))[0]:
        exits[process] = os.waitstatus_to_exitcode(ended[1])
    if {*exits.values()} - {0, preemption.EXIT_CODE}:
      break
    time.sleep(0.02)
  for process, pid in enumerate(pids):
    if process not in exits:
      os.kill(pid, signal.SIGKILL)
      os.waitpid(pid, 0)
  return [exits.get(process) for process in range(len(pids))]


def prepare(world: pathlib.Path) -> float:
  """Builds what all runs need, and one run that nothing happens to.

  Returns:
    The seconds that this run takes, with compilation.
  """
  jax.config.update('jax_compilation_cache_dir', str(world.parent / 'xla'))
  os.environ['SALT_T5X_TEST_CHAIN'] = str(world / 'chain')  # For chain.gin.
  log = world.parent / 'prepare.log'
  call(log, build, world)
  call(log, select, world)
  start = time.monotonic()
  call(
    log,
    train,
    world,
    world / 'unbroken',
    starts_lib.Start(),
    0,
    'EVAL_PERIOD = 1',
  )
  return time.monotonic() - start


def trial(
  world: pathlib.Path, model_dir: pathlib.Path, starts: list[starts_lib.Start]
):
  """A run with faults, compared with the one without.

  Returns:
    {'starts': ..., 'faults': ..., 'exits': of the processes of each start,
    'differences': lines, 'errors': from `compared_runs.differences`}.
  """
  log = model_dir.with_suffix('.log')
  exits = []
  for number, start in enumerate(starts):
    was_complete = STEPS in find.finished(str(model_dir))
    exits.append(run_once(world, model_dir, start, number))
    saved = set(exits[-1]) == {preemption.EXIT_CODE}
    killed = start.fault and exits[-1][start.fault.process] in (
      *(-signal.SIGKILL, -signal.SIGTERM),
    )
    if not (saved or killed):
      break
  starts = starts[: len(exits)]
  found, errors = [], None
  if set(exits[-1]) != {0}:
    found = [f'exits {exits[-1]}: {log.read_text()[-3000:]}']
  else:
    is_exact = {start.topology for start in starts} == {starts_lib.ONE_DEVICE}
    call(log, _compare, model_dir, world, is_exact, was_complete)
    found, errors = json.loads(_compared(model_dir).read_text())
  return {
    'starts': [start.topology for start in starts],
    'faults': [str(start.fault) for start in starts if start.fault],
    'exits': exits,
    'differences': found,
    'errors': errors,
  }


def run(
  trials: int, seed: int, workers: int, folder: pathlib.Path
) -> Iterator[dict]:
  """Runs many trials, some at a time; yields their results."""
  world = folder / 'world'
  seconds = prepare(world)
  rng = random.Random(seed)
  running = {}
  for i in tqdm.trange(trials, unit='trial'):
    if len(running) >= workers:
      yield _collect(running, folder)
    model_dir = folder / f'trial_{i}'
    starts = starts_lib.draw(rng, seconds, STEPS, PERIOD)
    pid = fork(folder / 'trials.log', _write_trial, world, model_dir, starts)
    running[pid] = model_dir
  while running:
    yield _collect(running, folder)


def _write_trial(world, model_dir, starts):
  result = trial(world, model_dir, starts)
  model_dir.with_suffix('.json').write_text(json.dumps(result))


def _collect(running: dict[int, pathlib.Path], folder: pathlib.Path) -> dict:
  pid, status = os.wait()
  model_dir = running.pop(pid)
  if status:
    raise RuntimeError((folder / 'trials.log').read_text())
  result = json.loads(model_dir.with_suffix('.json').read_text())
  if result['differences']:
    print('\n'.join([str(model_dir), *result['differences']]), flush=True)
  else:
    shutil.rmtree(model_dir)
  return result


def main():
  parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
  parser.add_argument('--trials', type=int, default=100, help='Runs.')
  parser.add_argument('--seed', type=int, default=0, help='Of the faults.')
  parser.add_argument(
    '--workers', type=int, default=os.cpu_count(), help='Runs at a time.'
  )
  parser.add_argument('--output', help='Where the tally goes, as JSON.')
  args = parser.parse_args()
  folder = pathlib.Path(tempfile.mkdtemp(prefix='kill_and_resume'))
  start = time.monotonic()
  results = []
  for result in run(args.trials, args.seed, args.workers, folder):
    results.append(result)
    counted = starts_lib.tally(results, args.seed, time.monotonic() - start)
    if args.output:  # After each, as many trials take hours.
      pathlib.Path(args.output).write_text(json.dumps(counted, indent=1) + '\n')
  print({k: v for k, v in counted.items() if k != 'results'})
  if counted['failed']:
    sys.exit(
      f'{counted["failed"]} of {len(results)} trials failed: see {folder}'
    )
  shutil.rmtree(folder)


if __name__ == '__main__':
  main()
