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

"""What the benchmarks share: calls timed in turn, and the machine's name."""

from collections.abc import Callable, Mapping
import json
import pathlib
import platform
import re
import statistics
import time
from typing import Any

import jax
import tqdm


def seconds_in_turn(
  calls: Mapping[str, Callable[[], Any]], rounds: int
) -> dict[str, list[float]]:
  """Seconds of each call in each round.

  In turn, so that a change of the machine's speed meets all of them; a round
  before the first warms up.

  Args:
    calls: {name: what is timed; the arrays it returns are waited for}.
    rounds: how many.
  """
  seconds = {name: [] for name in calls}
  for i in tqdm.trange(rounds + 1):
    for name, call in calls.items():
      start = time.perf_counter()
      jax.block_until_ready(call())
      if i:
        seconds[name].append(time.perf_counter() - start)
  return seconds


def ratio(a: list[float], b: list[float]) -> float:
  """The median over rounds of a / b."""
  return statistics.median(x / y for x, y in zip(a, b, strict=True))


def device() -> str:
  """The accelerator's or the processor's name."""
  found = jax.devices()[0]
  if found.platform != 'cpu':
    return found.device_kind
  cpuinfo = pathlib.Path('/proc/cpuinfo')
  text = cpuinfo.read_text() if cpuinfo.exists() else ''
  names = re.findall(r'model name\s*: (.*)', text)
  return f'{names[0]}, {len(names)} cores' if names else platform.machine()


def write(path: str | None, result: Mapping[str, Any]) -> None:
  """Writes a JSON file that names the device; nothing without a path."""
  if path:
    text = json.dumps({'device': device(), **result}, indent=2)
    pathlib.Path(path).write_text(text + '\n', encoding='utf-8')
