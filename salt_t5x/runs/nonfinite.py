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

"""Watches a training run's steps from the host: is the loss a number?

The host looks at a step's loss while the device is two steps ahead, so that
nothing waits. It keeps the newest state, which t5x's loop publishes only at its
end: what stops in between would otherwise be lost with the donated one.
"""

import collections
from collections.abc import Callable, Mapping
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from salt_t5x.runs import preemption
from t5x import trainer as t5x_trainer

Array = jax.Array
PyTree = Any

# Steps that the device may be ahead of the host's look at the loss.
_LAG = 2
# Steps whose metrics are kept apart before they are merged.
_UNMERGED = 64
# Next-token cross-entropies of student and teacher, while distillation lasts.
_STUDENT, _TEACHER = 'salt/cross_entropy', 'salt/teacher_cross_entropy'


class NonFiniteError(FloatingPointError):
  """The loss or the state is NaN or infinite."""


class Stopped(Exception):
  """Training is to stop after the step that was just taken."""


class Watch:
  """Wraps a training step for one call of t5x's loop.

  Attributes:
    state: the train state after the last step that was taken; None before.
    count: the steps that were taken.
  """

  def __init__(
    self,
    step_fn: Callable[[PyTree, Mapping[str, Array]], tuple[PyTree, Mapping]],
    start_step: int,
    total_steps: int,
    stop: preemption.Stop,
  ):
    """Constructor.

    Args:
      step_fn: (train state, batch) -> (new train state, metrics).
      start_step: the number of steps done before.
      total_steps: of the run, whose last step is no place to stop.
      stop: says whether to.
    """
    self.state = None
    self.count = 0
    self._unchecked = collections.deque()
    self._unmerged = []
    self._step_fn = step_fn
    self._start_step = start_step
    self._total_steps = total_steps
    self._stop = stop

  def step(self, train_state: PyTree, batch: Mapping[str, Array]):
    """The watched step.

    Raises:
      NonFiniteError: the loss of a step, up to `_LAG` ago, is not finite.
      Stopped: the run is to stop after this step.
    """
    self.state, metrics = self._step_fn(train_state, batch)
    self.count += 1
    self._unchecked.append(metrics)
    self._unmerged.append(metrics)
    if len(self._unmerged) == _UNMERGED:
      self._unmerged = [self.merged()]
    self._check_losses(_LAG)
    done = self._start_step + self.count
    if self._stop.requested(done) and done < self._total_steps:
      raise Stopped
    return self.state, metrics

  def check(self) -> None:
    """Looks at all losses and at the state; waits for the device.

    Raises:
      NonFiniteError: one is not finite.
    """
    self._check_losses(0)
    if self.state is not None and not _all_finite(self.state):
      raise NonFiniteError(
        f'Step {self._start_step + self.count}: parameters or optimizer '
        'statistics are NaN or infinite'
      )

  def _check_losses(self, lag: int) -> None:
    """Looks at the losses of all steps but the last ones."""
    while len(self._unchecked) > lag:
      step = self._start_step + self.count - len(self._unchecked) + 1
      metrics = self._unchecked.popleft()
      if not math.isfinite(metrics['loss'].total):
        if _TEACHER in metrics and math.isfinite(metrics[_STUDENT].total):
          # The student and the batch are well.
          raise NonFiniteError(f"Step {step}: the teacher's output is NaN")
        raise NonFiniteError(
          f'Step {step}: the loss is {float(metrics["loss"].total)}'
        )

  def merged(self) -> Mapping:
    """The metrics of all steps together."""
    return functools.reduce(t5x_trainer.merge_metrics, self._unmerged)

  def delete_state(self) -> None:
    """Frees the newest state's memory on the devices."""
    for array in jax.tree.leaves(self.state):
      if not array.is_deleted():
        array.delete()


@jax.jit
def _all_finite(tree: PyTree) -> Array:
  finite = [
    jnp.isfinite(x).all()
    for x in jax.tree.leaves(tree)
    if jnp.issubdtype(x.dtype, jnp.inexact)
  ]
  return jnp.stack(finite).all()


class HostCopy:
  """A copy of arrays in the memory of the hosts, to go back to."""

  def __init__(self, tree: PyTree):
    """Copies what of the arrays is on this host's devices."""

    def copy(array):
      # One copy of what several devices hold alike.
      parts = {str(s.index): np.array(s.data) for s in array.addressable_shards}
      where = {s.device: str(s.index) for s in array.addressable_shards}
      return array.shape, array.sharding, parts, where

    leaves, self._structure = jax.tree.flatten(tree)
    self._copies = [copy(x) for x in leaves]

  def restore(self) -> PyTree:
    """Returns the arrays anew, on the devices that they were on."""
    leaves = [
      jax.make_array_from_single_device_arrays(
        shape,
        sharding,
        [jax.device_put(parts[i], device) for device, i in where.items()],
      )
      for shape, sharding, parts, where in self._copies
    ]
    return jax.tree.unflatten(self._structure, leaves)
