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

"""Losses and states that are NaN or infinite, and copies of earlier states."""

import collections
from collections.abc import Callable, Mapping
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

PyTree = Any

# The host reads a loss when the device is this many steps ahead, so that
# neither waits for the other.
LAG = 2
# Next-token cross-entropies of student and teacher, while distillation lasts.
_STUDENT, _TEACHER = 'salt/cross_entropy', 'salt/teacher_cross_entropy'


class NonFiniteError(FloatingPointError):
  """The loss or the state is NaN or infinite."""


class LossCheck:
  """Checks the losses of consecutive steps, `LAG` steps behind the newest."""

  def __init__(self):
    self._unread = collections.deque()

  def problem_after(self, step: int, metrics: Mapping) -> str | None:
    """Adds a step; describes the first bad loss among those due for reading.

    Args:
      step: the number of steps done.
      metrics: t5x's metrics of the last of them; they stay on the device.
    """
    self._unread.append((step, metrics))
    return self._read(LAG)

  def problem_at_end(self, step: int, train_state: PyTree) -> str | None:
    """Waits for the device; describes the first bad loss, or a bad state."""
    problem = self._read(0)
    if problem is None and not _all_finite(train_state):
      problem = (
        f'Step {step}: parameters or optimizer statistics are NaN or infinite'
      )
    return problem

  def _read(self, lag: int) -> str | None:
    while len(self._unread) > lag:
      step, metrics = self._unread.popleft()
      if not math.isfinite(loss := metrics['loss'].total):
        # A bad batch makes both cross-entropies NaN; the z-loss makes neither.
        student, teacher = (
          name not in metrics or math.isfinite(metrics[name].total)
          for name in (_STUDENT, _TEACHER)
        )
        if student and not teacher:
          return f"Step {step}: the teacher's output is NaN"
        return f'Step {step}: the loss is {float(loss)}'
    return None


@jax.jit
def _all_finite(tree: PyTree) -> jax.Array:
  finite = [
    jnp.isfinite(x).all()
    for x in jax.tree.leaves(tree)
    if jnp.issubdtype(x.dtype, jnp.inexact)
  ]
  return jnp.stack(finite).all()


def host_copy(tree: PyTree) -> Callable[[], PyTree]:
  """Copies sharded arrays into the memory of the hosts.

  Args:
    tree: arrays on any devices; replicated shards are copied once.

  Returns:
    A function that returns the arrays, on the devices they were copied from.
  """

  def copy(array):
    parts = {str(s.index): np.array(s.data) for s in array.addressable_shards}
    shape, sharding = array.shape, array.sharding
    return lambda: jax.make_array_from_callback(
      shape, sharding, lambda index: parts[str(index)]
    )

  copies = jax.tree.map(copy, tree)
  return lambda: jax.tree.map(lambda restore: restore(), copies)
