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

"""Reads a run's scalars back from its TensorBoard files."""

import collections
import glob
import os

import tensorflow as tf


def read_scalars(directory: str) -> dict[str, list[tuple[int, float]]]:
  """Reads all scalars that were written below a directory's event files.

  A step that was written twice (before and after a preemption) keeps the last
  value written.

  Args:
    directory: e.g. `<model_dir>/train` or `<model_dir>/training_eval/<task>`.

  Returns:
    {tag: [(step, value), ...] by step}.
  """
  found = collections.defaultdict(dict)
  pattern = os.path.join(glob.escape(directory), 'events.out.tfevents.*')
  for path in sorted(glob.glob(pattern)):
    for event in tf.compat.v1.train.summary_iterator(path):
      for value in event.summary.value:
        if value.metadata.plugin_data.plugin_name == 'scalars':
          tensor = tf.make_ndarray(value.tensor)
          found[value.tag][event.step] = float(tensor)
  return {tag: sorted(points.items()) for tag, points in found.items()}
