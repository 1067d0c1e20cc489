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

"""Reads curves from a run's TensorBoard files."""

from collections.abc import Mapping, Sequence
import os

from tensorboard.backend.event_processing import event_accumulator
import tensorflow as tf

# {tag: [(step, value), ...]}
Curves = Mapping[str, Sequence[tuple[int, float]]]


def read_all_scalars(directory: str) -> Curves:
  """Reads all scalars from a directory's event files.

  A file that ends in the middle of an event is read up to there.

  Args:
    directory: e.g. `<model_dir>/train` or `<model_dir>/training_eval/<task>`.

  Returns:
    {tag: [(step, value), ...] in the order of writing}.
  """
  if not os.path.isdir(directory):
    return {}
  events = event_accumulator.EventAccumulator(
    directory,
    size_guidance={event_accumulator.TENSORS: 0},  # 0 keeps every event.
    purge_orphaned_data=False,
  ).Reload()
  return {
    tag: [(x.step, float(tf.make_ndarray(x.tensor_proto))) for x in tensors]
    for tag in events.Tags()['tensors']
    if events.SummaryMetadata(tag).plugin_data.plugin_name == 'scalars'
    and (tensors := events.Tensors(tag))
  }


def read_scalars(directory: str) -> Curves:
  """Reads a directory's scalars, one value for each step.

  A step that was written twice (before and after a preemption) keeps the last
  value.

  Args:
    directory: as in `read_all_scalars`.

  Returns:
    {tag: [(step, value), ...] sorted by step}.
  """
  return {
    tag: sorted(dict(points).items())
    for tag, points in read_all_scalars(directory).items()
  }


def first_step_below(
  curve: Sequence[tuple[int, float]], limit: float
) -> float | None:
  """Returns the step from which a curve stays at or below a limit, or None.

  The curve is interpolated linearly between its points.
  """
  first = before = None
  for step, value in curve:
    if value > limit:
      first = None
    elif first is None:
      first = step
      if before is not None:
        s, v = before
        first = s + (step - s) * (v - limit) / (v - value)
    before = step, value
  return first
