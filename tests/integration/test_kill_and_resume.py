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

"""Runs that are killed and come back with other processes and devices.

docs/kill_and_resume has many more trials.
"""

import json
import pathlib
import signal

import compared_runs
import kill_and_resume as faults
import pytest
import starts as starts_lib

from salt_t5x.runs import preemption
import tiny_runs

# SIGTERM, then SIGKILL. Each start has another number of devices; on the real
# t5x the last has two processes.
SEED, TRIALS = 4715, 1
ENGINES = ['embedded', *(['t5x'] if tiny_runs.REAL_T5X else [])]


@pytest.mark.slow
def test_killed_runs_end_like_unbroken_ones(tmp_path):
  output = tmp_path / 'tally.json'
  script = tiny_runs.TESTS / 'integration/kill_and_resume.py'
  done = tiny_runs.python(
    [
      script,
      f'--trials={TRIALS}',
      f'--seed={SEED}',
      '--workers=1',
      f'--output={output}',
    ],
    env=tiny_runs.environment(pythonpath=tiny_runs.real_t5x_path()),
  )
  assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
  tally = json.loads(output.read_text())
  assert (tally['trials'], tally['failed']) == (TRIALS, 0)
  assert tally['trials that changed topology'] == TRIALS
  ended_early = {
    code
    for r in tally['results']
    for codes in r['exits'][:-1]
    for code in codes
  }
  assert {-signal.SIGKILL, preemption.EXIT_CODE} <= ended_early
  assert all(set(r['exits'][-1]) == {0} for r in tally['results'])


# --- Called in a process of their own, which forks ---------------------------


def _start(processes, devices, fault):
  return starts_lib.Start(
    processes, devices, fault and starts_lib.Fault(*fault)
  )


def run_trials(folder, trials):
  """Runs trials of (processes, devices, fault or None) for each start."""
  folder = pathlib.Path(folder)
  faults.prepare(folder / 'world')
  return [
    faults.trial(
      folder / 'world', folder / f'trial_{i}', [_start(*x) for x in starts]
    )
    for i, starts in enumerate(trials)
  ]


def run_start(folder, number, start):
  """Runs one start on one device; the first prepares what all need."""
  folder = pathlib.Path(folder)
  if number == 0:
    faults.prepare(folder / 'world')
  return faults.run_once(
    folder / 'world', folder / 'model', _start(*start), number
  )


@pytest.mark.slow
@pytest.mark.parametrize('engine_name', ENGINES)
def test_runs_come_back_with_other_processes_and_devices(tmp_path, engine_name):
  stop, kill = int(signal.SIGTERM), int(signal.SIGKILL)
  trials = [
    [[1, 1, [stop, 'batch', 2]], [1, 8, [kill, 'batch', 7]], [1, 4, None]],
    # The second of two processes gets the signal.
    [
      [1, 1, [kill, 'batch', 4]],
      [2, 1, [stop, 'batch', 5, 0, 1]],
      [1, 1, None],
    ],
    [[2, 2, [kill, 'batch', 7, 0, 1]], [1, 2, None]],
  ]
  if engine_name == 'embedded':  # It has one process.
    trials = trials[:1]
  results = tiny_runs.call(
    'test_kill_and_resume.run_trials',
    *(str(tmp_path), trials),
    engine_name=engine_name,
  )
  saved = preemption.EXIT_CODE
  expected = [
    [[saved], [-kill], [0]],
    [[-kill], [saved, saved], [0]],
    [[None, -kill], [0]],
  ]
  assert [r['exits'] for r in results] == expected[: len(trials)]
  assert [r['differences'] for r in results] == [[]] * len(trials)


@pytest.mark.slow
@pytest.mark.skipif(not tiny_runs.REAL_T5X, reason='needs the real t5x')
def test_engines_take_turns(tmp_path):
  stop = int(signal.SIGTERM)
  turns = [
    ('embedded', [1, 1, [stop, 'batch', 2]], preemption.EXIT_CODE),
    ('t5x', [1, 2, [stop, 'batch', 7]], preemption.EXIT_CODE),
    ('embedded', [1, 1, None], 0),
  ]
  for number, (engine_name, start, expected) in enumerate(turns):
    exits = tiny_runs.call(
      'test_kill_and_resume.run_start',
      *(str(tmp_path), number, start),
      engine_name=engine_name,
      SALT_T5X_TEST_CHAIN=str(tmp_path / 'world/chain'),
    )
    log = (tmp_path / 'model.log').read_text()
    assert exits == [expected], log[-3000:]
  steps = [
    sorted(compared_runs.consumed(tmp_path / 'model', number))
    for number in range(len(turns))
  ]
  assert steps == [[0, 1, 2], [3, 4, 5, 6, 7], [8, 9, 10, 11]]
  found, _ = compared_runs.differences(
    *(tmp_path / 'model', tmp_path / 'world/unbroken', faults.STEPS, False)
  )
  # t5x also logs the rate of the last microbatch.
  assert [x for x in found if 'learning_rate/current' not in x] == []
