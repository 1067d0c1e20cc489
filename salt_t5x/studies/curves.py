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

"""Curves out of a run's TensorBoard files."""

import collections
from collections.abc import Iterator, Mapping, Sequence
import glob
import os

from absl import logging
import tensorflow as tf
from tensorflow.core.util import event_pb2

# {tag: [(step, value), ...]}
Curves = Mapping[str, Sequence[tuple[int, float]]]


def read_scalars(directory: str) -> Curves:
  """Reads all scalars from a directory's event files.

  A step that was written twice (before and after a preemption) keeps the last
  value written. What a process that was killed had half-written is left out;
  the run wrote it again when it was resumed.

  Args:
    directory: e.g. `<model_dir>/train` or `<model_dir>/training_eval/<task>`.

  Returns:
    {tag: [(step, value), ...] by step}.
  """
  found = collections.defaultdict(dict)
  pattern = os.path.join(glob.escape(directory), 'events.out.tfevents.*')
  for path in sorted(glob.glob(pattern)):
    for event in events(path):
      for value in event.summary.value:
        if value.metadata.plugin_data.plugin_name == 'scalars':
          tensor = tf.make_ndarray(value.tensor)
          found[value.tag][event.step] = float(tensor)
  return {tag: sorted(points.items()) for tag, points in found.items()}


def events(path: str) -> Iterator[event_pb2.Event]:
  """The events of a file, up to where it is broken off."""
  records = tf.data.TFRecordDataset(path).as_numpy_iterator()
  while True:
    try:
      yield event_pb2.Event.FromString(next(records))
    except StopIteration:
      return
    except tf.errors.DataLossError as e:
      logging.warning('%s ends early: %s', path, e.message)
      return


def first_step_below(
  curve: Sequence[tuple[int, float]], limit: float
) -> float | None:
  """The step from which a curve stays at or below a limit, or None.

  Between two points it is a straight line.
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
