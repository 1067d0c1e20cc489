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

"""The loops of both engines ask the same of their parts, in the same order."""

import dataclasses
import json

import loop_calls
import pytest

from salt_t5x import engine

EXPECTED = json.loads(loop_calls.FILE.read_text())


def expected(case, calls):
  """What an engine is to call, from what the real t5x called."""
  if engine.current() == engine.EMBEDDED and calls[-1] == [
    'end',
    case['first_step'],
  ]:
    # t5x leaves the manager open where no step is left to train.
    return [*calls[:-1], ['close'], calls[-1]]
  return calls


def test_the_recorded_runs_are_these():
  drawn = [dataclasses.asdict(case) for case in loop_calls.cases()]
  assert [case for case, _ in EXPECTED] == drawn
  # What they are to cover.
  for field, values in dict(
    start={loop_calls.NEW, loop_calls.OWN, loop_calls.OTHER},
    evaluates={False, True},
  ).items():
    assert {case[field] for case in drawn} == values
  ends = {str(calls[-1][1]) for _, calls in EXPECTED}
  assert {'ValueError', 'PreemptionError'} < ends and len(ends) > 10


@pytest.mark.parametrize('case, calls', EXPECTED)
def test_calls_are_those_of_t5x(case, calls):
  assert loop_calls.calls(loop_calls.Case(**case)) == expected(case, calls)
