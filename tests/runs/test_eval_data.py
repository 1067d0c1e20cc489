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

"""Evaluation data: each example counts once, and none is evaluated silently."""

import jax
import numpy as np
import pytest
import seqio
import tensorflow as tf

from salt_t5x.data import feature_converters
from salt_t5x.runs import eval_data
from t5x import utils
import tiny

COUNT = 11


def add_task(name, rows, splits=('train', 'validation')):
  """Registers a task whose splits all hold these rows."""
  seqio.TaskRegistry.add(
    name,
    source=seqio.FunctionDataSource(
      lambda split, shuffle_files, seed=None: (
        tf.data.Dataset.from_tensor_slices({'targets': rows})
      ),
      splits,
    ),
    preprocessors=[],
    output_features={
      'targets': seqio.Feature(tiny.vocabulary(), add_eos=False)
    },
  )


@pytest.fixture
def tasks(monkeypatch):
  """The tasks `short` (11 rows), `no_tokens`, `empty`, `train_only`."""
  monkeypatch.setattr(seqio.TaskRegistry, '_REGISTRY', {})
  monkeypatch.setattr(seqio.MixtureRegistry, '_REGISTRY', {})
  add_task('short', tiny.rows()[:COUNT])
  add_task('no_tokens', 0 * tiny.rows()[:COUNT])
  add_task('empty', tiny.rows()[:0])
  add_task('train_only', tiny.rows()[:COUNT], ['train'])
  seqio.MixtureRegistry.add('both', ['short', 'train_only'], default_rate=1.0)


def read(task, eval_steps=9, shard_id=0, num_shards=1, eval_period=1):
  """{task: its batches}."""
  cfg = utils.DatasetConfig(
    mixture_or_task_name=task,
    task_feature_lengths={'targets': tiny.LENGTH},
    split='validation',
    batch_size=4,
    shuffle=False,
    seed=0,
  )
  found = eval_data.get_datasets(
    cfg,
    shard_id,
    num_shards,
    eval_steps,
    feature_converters.FixedWidthFeatureConverter,
    eval_period=eval_period,
  )
  assert all(
    x.element_spec['decoder_target_tokens'].shape
    == (4 // num_shards, tiny.LENGTH)
    for x in found.values()
  )
  return {name: list(x.as_numpy_iterator()) for name, x in found.items()}


def row_ids(batches):
  """The rows that have loss tokens."""
  kept = [
    {k: v[x['decoder_loss_weights'].any(1)] for k, v in x.items()}
    for x in batches
  ]
  return [row for batch in kept for row in tiny.row_ids(batch)]


@pytest.mark.parametrize('eval_steps, rows', [(2, 8), (3, COUNT), (9, COUNT)])
def test_examples_count_once(tasks, eval_steps, rows):
  del tasks
  batches = read('short', eval_steps)['short']
  assert row_ids(batches) == list(range(rows))
  assert len(batches) == min(eval_steps, 3)


def test_hosts_share_the_batches(tasks):
  del tasks
  shares = [read('short', 9, i, 2)['short'] for i in range(2)]
  assert [len(x) for x in shares] == [3, 3]
  assert row_ids(shares[0]) == list(range(0, COUNT, 2))
  assert row_ids(shares[1]) == list(range(1, COUNT, 2))


def test_padding_changes_no_metric(tasks):
  """What is evaluated does not depend on EVAL_STEPS or the batch's size."""
  del tasks
  model = tiny.make_model()
  params = model.get_initial_variables(
    jax.random.PRNGKey(0),
    {'decoder_input_tokens': (4, tiny.LENGTH)},
    {'decoder_input_tokens': np.int32},
  )['params']
  [*_, last] = read('short')['short']
  whole = {k: v[: COUNT % 4] for k, v in last.items()}
  found, expected = (model.loss_fn(params, x, None)[1] for x in (last, whole))
  for name in ('accuracy', 'log_perplexity'):
    np.testing.assert_allclose(
      found[name].compute(), expected[name].compute(), rtol=1e-6
    )


def test_mixtures_and_their_tasks(tasks):
  del tasks
  found = read('both')
  assert {k: sorted(row_ids(v)) for k, v in found.items()} == {
    'short': list(range(COUNT)),
    'both': list(range(COUNT)),
  }


@pytest.mark.parametrize(
  'task, message',
  [
    ('train_only', r"has no split 'validation', only \['train'\]: .*"),
    ('no_tokens', 'no token with a loss weight.*'),
    ('empty', 'no token with a loss weight.*'),
  ],
)
def test_nothing_to_evaluate_is_an_error(tasks, task, message):
  del tasks
  with pytest.raises(
    ValueError, match=f"EVAL_MIXTURE_OR_TASK_NAME = '{task}'.*{message}"
  ) as e:
    read(task)
  assert 'set EVAL_PERIOD = 0' in str(e.value)
  assert read(task, eval_period=0) == {}
