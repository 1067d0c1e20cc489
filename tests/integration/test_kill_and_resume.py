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

"""A few of the trials of kill_and_resume.py; docs/kill_and_resume has many."""

import json

import pytest

from salt_t5x.runs import preemption
import tiny_runs

# SIGTERM as the first step begins; then SIGKILL in the second stage.
SEED, TRIALS = 116, 1


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
  ended_early = {e for r in tally['results'] for e in r['exits'][:-1]}
  assert {-9, preemption.EXIT_CODE} <= ended_early
  assert all(r['exits'][-1] == 0 for r in tally['results'])
