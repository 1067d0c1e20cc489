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

"""Whether a run, however it was interrupted, is the run it would have been."""

import collections
import contextlib
import json
import pathlib

import batch_rows
import jax
import numpy as np
import orbax.checkpoint as ocp

from salt_t5x.checkpoints import damage, find
from salt_t5x.studies import curves
import tiny_runs

# Between numbers of processes and devices. Metrics: relative, or absolute below
# 1. Arrays of a checkpoint: relative to the largest magnitude in the array.
METRIC_TOLERANCE = 1e-5
STATE_TOLERANCE = 1e-5


@contextlib.contextmanager
def recorded(model_dir, start: int, process: int, observe=lambda *_: None):
  """Within it the rows of each step on this process's devices are recorded.

  Args:
    model_dir: the directory of the run.
    start: how often the run was started before.
    process: the number of this process.
    observe: see `tiny_runs.observed_steps`.
  """
  path = f'{model_dir}.{start}.{process}.jsonl'

  def record(train_state, batch):
    rows = batch_rows.hashes(batch)
    with open(path, 'a', encoding='utf-8') as f:
      f.write(json.dumps([int(train_state.step), rows]) + '\n')
    return observe(train_state, batch)

  with tiny_runs.observed_steps(record):
    yield


def consumed(model_dir, start='*') -> dict[int, list[list[str]]]:
  """Collects what each step read, over all processes.

  A process that was killed may leave batches of which rows are missing.

  Args:
    model_dir: the directory of the run.
    start: the start whose steps are collected; all by default.

  Returns:
    {step: for each time that it was taken, the rows of its batch, sorted}.
  """
  model_dir = pathlib.Path(model_dir)
  found = collections.defaultdict(dict)
  for path in model_dir.parent.glob(f'{model_dir.name}.{start}.*.jsonl'):
    times = collections.Counter()
    for line in path.read_text().splitlines():
      step, rows = json.loads(line)
      times[step] += 1
      taken = path.name.split('.')[-3], times[step]
      batch = found[step].setdefault(taken, {})
      for place, row in rows.items():
        # Processes may share rows.
        assert batch.setdefault(place, row) == row
  return {
    step: [sorted(batch.values()) for batch in batches.values()]
    for step, batches in found.items()
  }


def _wrong_examples(model_dir, unbroken) -> list[str]:
  """Compares the rows of every step, those of unfinished ones among them."""
  mine, theirs = consumed(model_dir), consumed(unbroken)
  found = []
  for step in sorted({*mine, *theirs}):
    [expected] = theirs.get(step, [[]])
    batches = mine.get(step, [])
    count = collections.Counter
    if expected not in batches or any(
      not count(batch) <= count(expected) for batch in batches
    ):
      found.append(f'examples {step}: {batches}, not {expected}')
  return found


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


def _state(checkpoint):
  """{path: array} of a checkpoint."""
  handler = ocp.PyTreeCheckpointHandler(use_ocdbt=True)
  with ocp.Checkpointer(handler) as checkpointer:
    tree = checkpointer.restore(
      checkpoint / 'state',
      restore_args=jax.tree.map(
        lambda _: ocp.RestoreArgs(restore_type=np.ndarray),
        handler.metadata(checkpoint / 'state').tree,
      ),
    )
  return {
    jax.tree_util.keystr(path): np.asarray(x)
    for path, x in jax.tree_util.tree_leaves_with_path(tree)
  }


def _error(a: np.ndarray, b: np.ndarray, floor: float) -> float:
  """The largest difference, in the largest magnitude of `b`; inf for NaN."""
  if a.shape != b.shape:
    return np.inf
  if np.array_equal(a, b):
    return 0.0
  error = np.max(np.abs(np.subtract(a, b, dtype=np.float64)))
  error /= max(np.max(np.abs(b)), floor)
  return float(error) if np.isfinite(error) else np.inf


def differences(
  model_dir: pathlib.Path,
  unbroken: pathlib.Path,
  last_step: int,
  is_exact: bool,
  was_complete: bool = False,
) -> tuple[list[str], dict[str, float]]:
  """Finds how a run is not what it would have been.

  Args:
    model_dir: of the run.
    unbroken: of the run that nothing happened to.
    last_step: of both.
    is_exact: whether numbers must be equal bit for bit, rather than within
      METRIC_TOLERANCE and STATE_TOLERANCE.
    was_complete: whether it was killed with its last checkpoint saved. t5x does
      not evaluate then any more.

  Returns:
    (lines, the largest error of {'metrics', 'checkpoint'}).
  """
  found = _wrong_examples(model_dir, unbroken)
  mine, theirs = _logged(model_dir), _logged(unbroken)
  # The unbroken run evaluates after every step; t5x counts the steps to the
  # next evaluation from the start of a process, so runs differ in when they do.
  theirs = {
    key: value
    for key, value in theirs.items()
    if key in mine
    or not key[0].startswith('training_eval')
    or (key[2] == last_step and not was_complete)
  }
  largest = {'metrics': 0.0, 'checkpoint': 0.0}

  def compare(kind, name, a, b, floor, tolerance):
    error = _error(np.asarray(a), np.asarray(b), floor)
    largest[kind] = max(largest[kind], error)
    if error > (0 if is_exact else tolerance):
      found.append(f'{name}: {error:.1e} from the unbroken run')

  for key in sorted({*mine, *theirs}, key=str):
    if not (key in mine and key in theirs):
      found.append(f'metric {key}: {mine.get(key)}, not {theirs.get(key)}')
      continue
    # At the stage border a metric may have two values.
    for x in mine[key]:
      nearest = min(theirs[key], key=lambda y: abs(x - y))
      compare('metrics', f'metric {key}', x, nearest, 1, METRIC_TOLERANCE)
    for y in theirs[key]:
      nearest = min(mine[key], key=lambda x: abs(x - y))
      compare('metrics', f'metric {key}', nearest, y, 1, METRIC_TOLERANCE)
  states = []
  for folder in model_dir, unbroken:
    checkpoints = find.finished(str(folder))
    found += [
      f'{path} holds a data iterator'
      for path in checkpoints.values()
      if damage.has_data_iterator(path)
    ]
    if last_step not in checkpoints:
      return [*found, f'{folder} has no checkpoint_{last_step}'], largest
    states.append(_state(checkpoints[last_step]))
  if states[0].keys() != states[1].keys():
    found.append(f'checkpoint: {set(states[0]) ^ set(states[1])}')
  for name in sorted(states[0].keys() & states[1].keys()):
    compare(
      'checkpoint',
      f'checkpoint_{last_step}{name}',
      *(state[name] for state in states),
      floor=1e-30,
      tolerance=STATE_TOLERANCE,
    )
  return found, largest
