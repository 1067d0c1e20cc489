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

"""The starts of runs: their processes, devices and faults."""

import collections
import dataclasses
import random
import signal

from salt_t5x import engine


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
    process: the number of the one that it happens to.
  """

  signal: int
  when: str
  step: int = 0
  delay: float = 0.0
  process: int = 0

  def __str__(self):
    name = signal.Signals(self.signal).name
    where = 'any time' if self.when == 'time' else f'{self.when} {self.step}'
    return f'{name} at {where}'


@dataclasses.dataclass(frozen=True)
class Start:
  """What a start of a run has, and what happens to it.

  Attributes:
    processes: how many.
    devices: of each process.
    fault: None lets it end.
  """

  processes: int = 1
  devices: int = 1
  fault: Fault | None = None

  @property
  def topology(self) -> str:
    return f'{self.processes} x {self.devices}'


ONE_DEVICE = Start().topology


def draw(
  rng: random.Random, seconds: float, steps: int, period: int
) -> list[Start]:
  """Draws the starts of a run.

  Args:
    rng: draws them.
    seconds: that the run takes.
    steps: of the run.
    period: steps between its checkpoints.
  """
  # Some runs keep one device, so that all of their numbers can be compared.
  moves = rng.random() < 0.8
  starts = []
  for has_fault in [True] * rng.choice([1, 1, 2]) + [False]:
    start = Start()
    if moves:
      most = 2 if engine.current() == engine.T5X else 1
      start = Start(min(rng.choice([1, 1, 2]), most), rng.choice([1, 2, 4, 8]))
    if has_fault:
      fault = _draw_fault(rng, seconds, steps, period, start.processes)
      start = dataclasses.replace(start, fault=fault)
    starts.append(start)
  return starts


def _draw_fault(rng, seconds, steps, period, processes) -> Fault:
  kind = rng.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM])
  when = rng.choice(['batch', 'batch', 'save', 'time'])
  process = rng.randrange(processes)
  if when == 'batch':
    return Fault(kind, when, rng.randrange(steps), process=process)
  if when == 'save':
    step = rng.randrange(0, steps + 1, period)
    return Fault(kind, when, step, rng.uniform(0, 0.2), process)
  return Fault(kind, when, delay=rng.uniform(0, seconds), process=process)


def tally(results: list[dict], seed: int, seconds: float) -> dict:
  """Counts what happened in trials, and lists them."""

  def count(key):
    found = collections.Counter(str(x) for r in results for x in key(r))
    return dict(sorted(found.items()))

  def largest(exact):
    of = [
      r['errors']
      for r in results
      if r['errors'] and exact == (set(r['starts']) == {ONE_DEVICE})
    ]
    names = ('metrics', 'checkpoint')
    return {n: max((e[n] for e in of), default=None) for n in names}

  return {
    'engine': engine.current(),
    'seed': seed,
    'trials': len(results),
    'failed': sum(bool(r['differences']) for r in results),
    'trials that changed topology': sum(
      len(set(r['starts'])) > 1 for r in results
    ),
    'trials on one device throughout': sum(
      set(r['starts']) == {ONE_DEVICE} for r in results
    ),
    'starts (processes x devices of each)': count(lambda r: r['starts']),
    'faults': count(lambda r: (fault.split()[0] for fault in r['faults'])),
    'exits of processes that ended early': count(
      lambda r: (code for codes in r['exits'][:-1] for code in codes)
    ),
    'largest errors on one device throughout': largest(True),
    'largest errors otherwise': largest(False),
    'seconds': round(seconds),
    'results': results,
  }
