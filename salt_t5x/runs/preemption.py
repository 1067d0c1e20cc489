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

"""SIGTERM, the notice of a preemption: save a checkpoint and leave.

`Stop` listens; `resilient_trainer` asks it after each step and raises
`Preempted`. t5x saves a checkpoint when a trainer raises `PreemptionError` with
its train state published, and raises that error again.
"""

import signal
import threading

from absl import logging
import jax
from jax.experimental import multihost_utils

from t5x import trainer as t5x_trainer

# EX_TEMPFAIL of sysexits.h: start the same command again.
EXIT_CODE = 75


class Preempted(t5x_trainer.PreemptionError, SystemExit):
  """Raised when a run stops for SIGTERM; ends the process with `EXIT_CODE`."""

  # A class attribute, so that it holds for the copy that gin makes of an
  # exception to add to its message.
  code = EXIT_CODE


class Stop:
  """Listens to SIGTERM from its construction until `close`.

  With several processes JAX's preemption service listens and agrees on the
  step to stop after; with one, a signal handler does, if this is the main
  thread (Python allows no other to set one).
  """

  def __init__(self):
    self._signalled = False
    self._previous = None
    if (
      jax.process_count() == 1
      and threading.current_thread() is threading.main_thread()
    ):
      self._previous = signal.signal(signal.SIGTERM, self._handle)

  def _handle(self, signum, frame):
    del signum, frame
    self._signalled = True
    logging.warning('SIGTERM: stopping after this step, with a checkpoint.')

  def requested(self, step: int) -> bool:
    """Whether to stop; all processes call this after every step.

    Args:
      step: the number of steps done.
    """
    if jax.process_count() == 1:
      return self._signalled
    return multihost_utils.reached_preemption_sync_point(step)

  def close(self):
    """Restores the previous handler of SIGTERM."""
    if self._previous is not None:
      signal.signal(signal.SIGTERM, self._previous)
      self._previous = None
