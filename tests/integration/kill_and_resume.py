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
ends. Then every loss that was logged, the examples of every step, those that
were read twice among them, and the last checkpoint are compared with those of a
run that nothing happened to.

All processes are forks of this one, which imports what takes long and touches
neither JAX's devices nor TensorFlow's; so a trial takes seconds.
"""

import argparse
import collections
import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import random
import shutil
import signal
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

import jax
import notes
import numpy as np
import orbax.checkpoint as ocp
import tqdm

from salt_t5x import engine
from salt_t5x.checkpoints import find
from salt_t5x.runs import preemption
from salt_t5x.studies import curves
import tiny
import tiny_runs

STEPS, KD_STEPS, PERIOD = 12, 5, 3  # As in faults.gin.
TEACHER_STEP, BATCH = 20, 8
RECIPE = str(TESTS / 'integration/faults.gin')
_CONSUMED = 'consumed.jsonl'


@dataclasses.dataclass(frozen=True)
class Fault:
  """What happens to a process.

  Attributes:
    signal: SIGKILL or SIGTERM.
    when: 'batch' (before `step` is taken), 'save' (`delay` seconds after the
      checkpoint of `step` begins to be written) or 'time' (`delay` seconds
      after the start).
    step: from 0.
    delay: seconds.
  """

  signal: int
  when: str
  step: int = 0
  delay: float = 0.0

  def __str__(self):
    name = signal.Signals(self.signal).name
    where = 'any time' if self.when == 'time' else f'{self.when} {self.step}'
    return f'{name} at {where}'


def draw(rng: random.Random, seconds: float) -> Fault:
  """Draws a fault of a run that takes `seconds`."""
  kind = rng.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM])
  when = rng.choice(['batch', 'batch', 'save', 'time'])
  if when == 'batch':
    return Fault(kind, when, rng.randrange(STEPS))
  if when == 'save':
    step = rng.randrange(0, STEPS + 1, PERIOD)
    return Fault(kind, when, step, rng.uniform(0, 0.2))
  return Fault(kind, when, delay=rng.uniform(0, seconds))


# --- In a fork ---------------------------------------------------------------


def _send(kind: int, delay: float = 0.0):
  if delay:
    timer = threading.Timer(delay, os.kill, (os.getpid(), kind))
    timer.daemon = True
    timer.start()
  else:
    os.kill(os.getpid(), kind)


def _rows(batch):
  """What identifies the examples of a batch."""
  arrays = (np.asarray(batch[k]) for k in sorted(batch))
  rows = zip(*arrays, strict=True)
  return [
    hashlib.sha256(b''.join(x.tobytes() for x in row)).hexdigest()[:12]
    for row in rows
  ]


@contextlib.contextmanager
def _recorded(model_dir: pathlib.Path, fault: Fault | None):
  """Notes which examples each step reads, and lets the fault happen."""
  save = ocp.CheckpointManager.save

  def record(train_state, batch):
    step = int(train_state.step)
    with open(model_dir / _CONSUMED, 'a', encoding='utf-8') as f:
      f.write(json.dumps([step, _rows(batch)]) + '\n')
    if fault and fault.when == 'batch' and fault.step == step:
      _send(fault.signal)

  def faulty_save(self, step, *args, **kwargs):
    if fault and fault.when == 'save' and fault.step == step:
      _send(fault.signal, fault.delay)
    return save(self, step, *args, **kwargs)

  with (
    tiny_runs.observed_steps(record),
    mock.patch.object(ocp.CheckpointManager, 'save', faulty_save),
  ):
    yield


def train(
  world: pathlib.Path,
  model_dir: pathlib.Path,
  fault: Fault | None,
  *more_bindings: str,
):
  """One process of a run."""
  model_dir.mkdir(exist_ok=True)
  if fault and fault.when == 'time':
    _send(fault.signal, fault.delay)
  bindings = [
    f'MODEL_DIR = {str(model_dir)!r}',
    f'TEACHER_PATH = "{world}/teacher"',
    f'SELECTION_PATH = "{world}/selection.json"',
    *more_bindings,
  ]
  with (
    notes.registered(world),
    _recorded(model_dir, fault),
    tiny_runs.configured([RECIPE], bindings),
  ):
    tiny_runs._train()


def build(world: pathlib.Path):
  """The corpus, the teacher, and its scores of the corpus."""
  os.makedirs(world / 'chain')
  tiny.write_task(str(world / 'chain'), 'chain')
  notes.write_documentation(world)
  with notes.registered(world):
    notes.cache(world)
    notes.train_teacher(world / 'teacher', TEACHER_STEP)
    notes.score(world / 'teacher', world / 'scores')


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
    ],
    check=True,
  )


def _logged(model_dir: pathlib.Path) -> dict[tuple, set[float]]:
  """{(collection, metric, step): all values that were logged}."""
  found = collections.defaultdict(set)
  files = model_dir.rglob('events.out.tfevents.*')
  for folder in {path.parent for path in files}:
    collection = str(folder.relative_to(model_dir))
    for tag, points in curves.read_all_scalars(str(folder)).items():
      if not tag.startswith('timing/'):
        for step, value in points:
          found[collection, tag, step].add(value)
  return found


def _consumed(model_dir: pathlib.Path) -> dict[int, set[tuple]]:
  """{step: all batches that it was taken with}."""
  found = collections.defaultdict(set)
  for line in (model_dir / _CONSUMED).read_text().splitlines():
    step, rows = json.loads(line)
    found[step].add(tuple(rows))
  return found


def differences(
  model_dir: pathlib.Path, unbroken: pathlib.Path, was_complete: bool = False
) -> list[str]:
  """How a run is not what it would have been.

  Args:
    model_dir: of the run.
    unbroken: of the run that nothing happened to.
    was_complete: whether it was killed with its last checkpoint saved. t5x does
      not evaluate then any more.
  """
  mine, theirs = _logged(model_dir), _logged(unbroken)
  # The unbroken run evaluates after every step; t5x counts the steps to the
  # next evaluation from the start of a process, so runs differ in when they do.
  theirs = {
    key: value
    for key, value in theirs.items()
    if key in mine
    or not key[0].startswith('training_eval')
    or (key[2] == STEPS and not was_complete)
  }
  found = []
  for name, a, b in [
    ('metric', mine, theirs),
    ('examples', _consumed(model_dir), _consumed(unbroken)),
  ]:
    found += [
      f'{name} {key}: {a.get(key)}, not {b.get(key)}'
      for key in sorted({*a, *b}, key=str)
      if a.get(key) != b.get(key)
    ]
  states = []
  for folder in model_dir, unbroken:
    last = find.finished(str(folder)).get(STEPS)
    if last is None:
      return [*found, f'{folder} has no checkpoint_{STEPS}']
    handler = ocp.PyTreeCheckpointHandler(use_ocdbt=True)
    with ocp.Checkpointer(handler) as checkpointer:
      states.append(
        checkpointer.restore(
          last / 'state',
          restore_args=jax.tree.map(
            lambda _: ocp.RestoreArgs(restore_type=np.ndarray),
            handler.metadata(last / 'state').tree,
          ),
        )
      )
  equal = jax.tree.map(np.array_equal, *states)
  found += [
    f'checkpoint_{STEPS}{jax.tree_util.keystr(path)}'
    for path, same in jax.tree_util.tree_leaves_with_path(equal)
    if not same
  ]
  return found


def _compare(model_dir: pathlib.Path, unbroken: pathlib.Path, *was_complete):
  if found := differences(model_dir, unbroken, *was_complete):
    print('\n'.join(found))
    sys.exit(1)


# --- In the process that forks -----------------------------------------------


def fork(log: pathlib.Path, function, *args) -> int:
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
    function(*args)
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


def wait(pid: int) -> int:
  """Waits for a process; its exit code, or minus the signal it died of."""
  _, status = os.waitpid(pid, 0)
  return os.waitstatus_to_exitcode(status)


def call(log: pathlib.Path, function, *args):
  """Runs a function in a process of its own.

  Raises:
    RuntimeError: it failed.
  """
  code = wait(fork(log, function, *args))
  if code:
    raise RuntimeError(f'{function.__name__}: exit {code}\n{log.read_text()}')


def prepare(world: pathlib.Path) -> float:
  """Builds what all runs need, and one run that nothing happens to.

  Returns:
    The seconds that this run takes, with compilation.
  """
  log = world.parent / 'prepare.log'
  call(log, build, world)
  call(log, select, world)
  start = time.monotonic()
  call(log, train, world, world / 'unbroken', None, 'EVAL_PERIOD = 1')
  return time.monotonic() - start


def trial(world: pathlib.Path, model_dir: pathlib.Path, faults: list[Fault]):
  """A run with faults, compared with the one without.

  Returns:
    {'faults': ..., 'exits': of its processes, 'differences': lines}.
  """
  log = model_dir.with_suffix('.log')
  exits = []
  for fault in [*faults, None]:
    was_complete = STEPS in find.finished(str(model_dir))
    exits.append(wait(fork(log, train, world, model_dir, fault)))
    saved = exits[-1] == preemption.EXIT_CODE
    killed = exits[-1] in (-signal.SIGKILL, -signal.SIGTERM)
    if fault is None or not (saved or killed):
      break
  found = []
  if exits[-1]:
    found = [f'exit {exits[-1]}: {log.read_text()[-3000:]}']
  elif code := wait(
    fork(log, _compare, model_dir, world / 'unbroken', was_complete)
  ):
    found = [f'compare: {code}: {log.read_text()[-3000:]}']
  return {
    'faults': [str(f) for f in faults],
    'exits': exits,
    'differences': found,
  }


def run(trials: int, seed: int, workers: int, folder: pathlib.Path) -> list:
  """Runs many trials, some at a time; returns their results."""
  world = folder / 'world'
  os.environ['SALT_T5X_TEST_CHAIN'] = str(world / 'chain')  # For chain.gin.
  seconds = prepare(world)
  rng = random.Random(seed)
  plans = [
    [draw(rng, seconds) for _ in range(rng.choice([1, 1, 2]))]
    for _ in range(trials)
  ]
  running, results = {}, []
  with tqdm.tqdm(total=trials, unit='trial') as progress:
    for i, faults in enumerate(plans):
      while len(running) >= workers:
        results.append(_collect(running, folder))
        progress.update()
      model_dir = folder / f'trial_{i}'
      pid = fork(folder / 'trials.log', _write_trial, world, model_dir, faults)
      running[pid] = model_dir
    while running:
      results.append(_collect(running, folder))
      progress.update()
  return results


def _write_trial(world, model_dir, faults):
  result = trial(world, model_dir, faults)
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
  jax.config.update('jax_compilation_cache_dir', str(folder / 'xla'))
  start = time.monotonic()
  results = run(args.trials, args.seed, args.workers, folder)
  failed = [r for r in results if r['differences']]
  faults = collections.Counter(
    fault.split()[0] for r in results for fault in r['faults']
  )
  exits = collections.Counter(e for r in results for e in r['exits'][:-1])
  tally = {
    'engine': engine.current(),
    'trials': len(results),
    'failed': len(failed),
    'faults': dict(faults),
    'exits of processes that ended early': {
      str(k): v for k, v in sorted(exits.items())
    },
    'seconds': round(time.monotonic() - start),
    'results': results,
  }
  if args.output:
    pathlib.Path(args.output).write_text(json.dumps(tally, indent=1) + '\n')
  print({k: v for k, v in tally.items() if k != 'results'})
  if failed:
    sys.exit(f'{len(failed)} of {len(results)} trials failed: see {folder}')
  shutil.rmtree(folder)


if __name__ == '__main__':
  main()
