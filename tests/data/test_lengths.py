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

"""TASK_FEATURE_LENGTHS that would cut the data are refused, or explained."""

import numbered_task
from numbered_task import T
import pytest
import seqio
import tensorflow as tf

from salt_t5x.data import (
  feature_converters,
  lengths,
  supervised_tasks,
)
from t5x import utils
import tiny

FIXED_WIDTH = feature_converters.FixedWidthFeatureConverter


@pytest.fixture(autouse=True)
def registry(monkeypatch):
  monkeypatch.setattr(seqio.TaskRegistry, '_REGISTRY', {})


def config(task_feature_lengths, name='data'):
  return utils.DatasetConfig(
    mixture_or_task_name=name,
    task_feature_lengths=task_feature_lengths,
    split='train',
    batch_size=4,
    shuffle=False,
    seed=0,
  )


def register(targets, inputs=None):
  """A seqio task of examples of these numbers of tokens."""
  sizes = {'targets': targets} | ({'inputs': inputs} if inputs else {})

  def read(split, shuffle_files, seed=None):
    del split, shuffle_files, seed
    features = {
      name: tf.ragged.constant([[5] * n for n in of_feature], tf.int32)
      for name, of_feature in sizes.items()
    }
    return tf.data.Dataset.from_tensor_slices(features).map(
      lambda x: {k: tf.convert_to_tensor(v) for k, v in x.items()}
    )

  feature = seqio.Feature(tiny.vocabulary(), add_eos=False)
  seqio.TaskRegistry.add(
    'data',
    source=seqio.FunctionDataSource(read, ['train']),
    preprocessors=[],
    output_features=dict.fromkeys(sizes, feature),
  )


@pytest.mark.parametrize(
  'found, message',
  [
    ({'inputs': 32}, "{'inputs': 32}: set it to {'targets': T}"),
    ({'targets': 64.0}, "{'targets': 64.0}: set it to"),
    (64, '= 64: set it to'),
    ({'inputs': 8, 'targets': 8}, "no feature 'inputs' here, only .*targets"),
  ],
)
def test_form(found, message):
  register([8])
  with pytest.raises(ValueError, match='TASK_FEATURE_LENGTHS.*' + message):
    lengths.check(config(found), FIXED_WIDTH)


@pytest.mark.parametrize(
  'found',
  [
    # By habit: prefixes would be trimmed, and their targets would stay.
    {'inputs': T // 2, 'targets': T},
    # Batches would be wider, for nothing.
    {'inputs': 2 * T, 'targets': T},
    {'targets': T // 2},
    {'targets': 2 * T},
  ],
)
def test_sequences_of_a_cache_have_one_length(found):
  numbered_task.sequences_task('data')
  with pytest.raises(ValueError) as e:
    lengths.check(config(found, 'data_ul2'), FIXED_WIDTH)
  assert f'TASK_FEATURE_LENGTHS = {found}: data_ul2 reads' in str(e.value)
  assert f"Set it to {{'targets': {T}}}" in str(e.value)
  for right in ({'targets': T}, {'inputs': T, 'targets': T}):
    assert lengths.check(config(right, 'data_ul2'), FIXED_WIDTH) == right


def test_sequences_without_a_task_have_one_length():
  """`sample` and `analyze` share gin files with training."""
  for right in ({'targets': T}, {'inputs': T, 'targets': T}):
    assert lengths.sequence_length(right) == T
  with pytest.raises(ValueError, match=f"Set it to {{'targets': {T}}}"):
    lengths.sequence_length({'inputs': T // 2, 'targets': T})
  with pytest.raises(ValueError, match="no feature 'other' here"):
    lengths.sequence_length({'other': T, 'targets': T})


def test_cutting_every_example_is_an_error():
  register([300, 310])
  with pytest.raises(
    ValueError, match=r'100% of the first 2 .* 58.0% in all; .* 310 tokens'
  ):
    lengths.check(config({'targets': 128}), FIXED_WIDTH)
  lengths.check(config({'targets': 310}), FIXED_WIDTH)


def test_cutting_some_examples_is_logged(caplog):
  register([100, 300])
  lengths.check(config({'targets': 200}), FIXED_WIDTH)
  assert '50% of the first 2 examples of data' in caplog.text
  assert 'tokens of their targets, 25.0% in all' in caplog.text


def test_inputs_and_targets_share_the_width(caplog):
  register(targets=[10, 10], inputs=[10, 2])
  lengths.check(config({'inputs': 12, 'targets': 12}), FIXED_WIDTH)
  assert '50% of the first 2 examples' in caplog.text
  caplog.clear()
  # Another converter gives each its own.
  lengths.check(
    config({'inputs': 12, 'targets': 12}), seqio.PrefixLMFeatureConverter
  )
  assert not caplog.text


def test_supervised_tasks_say_what_they_cut(caplog):
  supervised_tasks.register(
    'data',
    {
      'train': lambda: [
        {'q': 'q' * 30, 'a': 'a' * 3},
        {'q': 'q' * 10, 'a': 'a' * 15},
      ]
    },
    inputs='{q}',
    targets='{a}',
    vocabulary=seqio.ByteVocabulary(),
    metric_fns=[],
  )
  lengths.check(config({'inputs': 32, 'targets': 12}), FIXED_WIDTH)
  inputs, targets = caplog.messages
  assert '50% of the first 2 examples' in inputs and 'inputs, 25.0%' in inputs
  assert '50% of the first 2 examples' in targets
  assert 'the longest targets have 16 tokens' in targets
  caplog.clear()
  lengths.check(config({'inputs': 48, 'targets': 16}), FIXED_WIDTH)
  assert not caplog.text
