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

"""Stopping for SIGTERM: the machine will be taken away, so save and leave.

t5x saves a checkpoint when a trainer raises `PreemptionError` with its train
state published, and raises that error on. A trainer asks `Stop.requested` after
each step; all processes of a run get the same answer at the same step.
"""

import signal
import threading

from absl import logging
import jax
from jax.experimental import multihost_utils

from t5x import trainer as t5x_trainer

# "Temporary failure" of sysexits.h: start the same command again.
EXIT_CODE = 75


class Preempted(t5x_trainer.PreemptionError, SystemExit):
  """Raised when a run stops for SIGTERM; ends the process with `EXIT_CODE`."""

  # As a class attribute it also holds for the copy that gin makes of an error
  # to add to its message.
  code = EXIT_CODE


class Stop:
  """Listens to SIGTERM from its making until `close`.

  With several processes JAX's preemption service listens, which agrees on the
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
    logging.warning(
      'SIGTERM: stopping after the step that is running, with a checkpoint.'
    )

  def requested(self, step: int) -> bool:
    """Whether to stop, now that `step` steps are done.

    To be called after every step, by all processes.
    """
    if jax.process_count() == 1:
      return self._signalled
    return multihost_utils.reached_preemption_sync_point(step)

  def close(self):
    """Gives SIGTERM back to whoever had it before."""
    if self._previous is not None:
      signal.signal(signal.SIGTERM, self._previous)
      self._previous = None
