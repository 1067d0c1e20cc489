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

"""Feature converters of fixed width."""

from collections.abc import Mapping

import seqio
import tensorflow as tf


class FixedWidthFeatureConverter(seqio.PrefixLMFeatureConverter):
  """A prefix LM's features, exactly T wide: inputs and targets share T.

  seqio's own converter reserves room for both the longest inputs and the
  longest targets, so UL2's batches would be 2 T wide. Here "inputs" and
  "targets" of an example have at most T tokens together (longer ones are cut),
  and T is the largest of the task's feature lengths. Inputs are attended to in
  both directions and bear no loss; without inputs, an example is a causal LM's.
  Short examples can be packed (`pack=True`).
  """

  def __call__(
    self, ds: tf.data.Dataset, task_feature_lengths: Mapping[str, int]
  ) -> tf.data.Dataset:
    if 'inputs' not in ds.element_spec:
      ds = ds.map(
        lambda example: {**example, 'inputs': example['targets'][:0]},
        num_parallel_calls=tf.data.AUTOTUNE,
      )
    width = max(task_feature_lengths.values())
    return super().__call__(ds, {'inputs': width, 'targets': width})

  def _concat_task_feature_lengths(
    self, task_feature_lengths: Mapping[str, int]
  ) -> Mapping[str, int]:
    names = super()._concat_task_feature_lengths(task_feature_lengths)
    return dict.fromkeys(names, max(task_feature_lengths.values()))

  def get_model_feature_lengths(
    self, task_feature_lengths: Mapping[str, int]
  ) -> Mapping[str, int]:
    names = super().get_model_feature_lengths(task_feature_lengths)
    return dict.fromkeys(names, max(task_feature_lengths.values()))
