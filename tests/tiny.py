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

"""Tiny models, tiny data, and runs of the real trainer on them.

The data is a fixed first-order Markov chain over 29 tokens, so that a model
learns something in a few steps; row i begins with a token pair that names i,
so that a batch tells which rows it holds.
"""

import functools
import os

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax
import seqio
import tensorflow as tf

from salt_t5x import models, network, schedules
from salt_t5x import teacher as teacher_lib
from salt_t5x import trainer as trainer_lib
from t5x import adafactor, checkpoints, partitioning, utils

VOCAB_SIZE = 32
LENGTH = 12
BATCH = 8


@functools.cache
def rows(count=512, seed=0):
  """[count, LENGTH] int32; row i begins with (3 + i // 29, 3 + i % 29)."""
  rng = np.random.default_rng(seed)
  successors = rng.integers(3, VOCAB_SIZE, size=(VOCAB_SIZE, 2))
  data = np.zeros((count, LENGTH), np.int32)
  for i in range(count):
    data[i, :2] = 3 + i // 29 % 29, 3 + i % 29
    for t in range(2, LENGTH):
      data[i, t] = successors[data[i, t - 1], int(rng.random() < 0.2)]
  return data


def row_ids(batch):
  """Returns which rows of `rows()` a batch holds."""
  targets = np.asarray(batch['decoder_target_tokens'])
  return ((targets[:, 0] - 3) * 29 + targets[:, 1] - 3).tolist()


def batch_of(targets):
  """Makes a model's batch of [B, T] targets (0 is padding)."""
  targets = np.asarray(targets, np.int32)
  inputs = np.pad(targets[:, :-1], ((0, 0), (1, 0)))
  return {
    'decoder_input_tokens': inputs,
    'decoder_target_tokens': targets,
    'decoder_loss_weights': (targets > 0).astype(np.float32),
  }


def batches(start=0, size=BATCH):
  """Yields batches of rows in order, for ever."""
  data = rows()
  while True:
    yield batch_of(np.take(data, range(start, start + size), 0, mode='wrap'))
    start += size


def vocabulary(size=VOCAB_SIZE):
  return seqio.PassThroughVocabulary(size, eos_id=1)


def config(**overrides):
  options = dict(
    vocab_size=VOCAB_SIZE,
    emb_dim=16,
    num_heads=2,
    num_kv_heads=1,
    head_dim=8,
    mlp_dim=32,
    num_layers=2,
    dtype='float32',
    remat_policy='none',
  )
  return network.TransformerConfig(**(options | overrides))


def optimizer():
  return adafactor.Adafactor(
    logical_factor_rules=adafactor.standard_logical_factor_rules()
  )


def make_model(vocab=None, cls=models.SaltDecoderOnlyModel, **overrides):
  model_options = {
    k: overrides.pop(k)
    for k in (
      'loss_normalizing_factor',
      'z_loss',
      'inputs_bidirectional_attention',
    )
    if k in overrides
  }
  return cls(
    module=network.Transformer(config(**overrides)),
    vocabulary=vocab or vocabulary(),
    optimizer_def=optimizer(),
    **model_options,
  )


def make_teacher_model(**overrides):
  return make_model(**(dict(emb_dim=8, num_kv_heads=2) | overrides))


class LogitsOnly(flax.linen.Module):
  """A module that offers nothing but logits, like t5x's own examples."""

  config: network.TransformerConfig

  @flax.linen.compact
  def __call__(self, *args, **kwargs):
    return network.Transformer(self.config, name='inner')(*args, **kwargs)


@functools.cache
def jitted(module, method=None):
  """A cached jit of the module on what follows the parameters."""

  @functools.partial(jax.jit, static_argnames='names')
  def run(params, args, kwargs, names):
    assert names == tuple(kwargs)
    return module.apply({'params': params}, *args, **kwargs, method=method)

  return lambda params, *args, **kwargs: np.asarray(
    run(params, args, kwargs, tuple(kwargs))
  )


def make_trainer(
  model=None,
  summary_dir=None,
  train_state=None,
  cls=trainer_lib.SaltTrainer,
  seed=0,
  batch=BATCH,
  num_microbatches=None,
  num_partitions=1,
  **options,
):
  """Builds a trainer with a fresh state, or one that goes on from a state."""
  model = model or make_model()
  partitioner = partitioning.PjitPartitioner(num_partitions=num_partitions)
  init_rng, rng = jax.random.split(jax.random.PRNGKey(seed))
  initializer = utils.TrainStateInitializer(
    optimizer_def=model.optimizer_def,
    init_fn=model.get_initial_variables,
    input_shapes={'decoder_input_tokens': (batch, LENGTH)},
    input_types={'decoder_input_tokens': jnp.int32},
    partitioner=partitioner,
  )
  if train_state is None:
    train_state = initializer.from_scratch(init_rng)
  if issubclass(cls, trainer_lib.SaltTrainer):
    options = {'total_steps': 100} | options
  options = {'learning_rate_fn': optax.constant_schedule(0.05)} | options
  return cls(
    model=model,
    train_state=train_state,
    partitioner=partitioner,
    eval_names=[],
    summary_dir=summary_dir,
    train_state_axes=initializer.train_state_axes,
    rng=rng,
    num_microbatches=num_microbatches,
    **options,
  )


def distilling(teacher_dir, kd_steps=5, weight=0.667, **options):
  """Options of a trainer that distils for `kd_steps`."""
  teacher_options = {
    k: options.pop(k)
    for k in ('model', 'step', 'dtype', 'minimum_gain')
    if k in options
  }
  return dict(
    schedule=schedules.step(weight, kd_steps),
    teacher=teacher_lib.Teacher(
      **(dict(model=make_teacher_model(), path=teacher_dir) | teacher_options)
    ),
    **options,
  )


def summaries(trainer, steps, start=0, per_call=1, batch_iter=None):
  """Trains and returns each call's {metric: value}."""
  batch_iter = batch_iter or batches(start * BATCH)
  result = []
  for step in range(start, start + steps, per_call):
    future = trainer.train(batch_iter, per_call, step)
    result.append({k: v.value for k, v in future.result().items()})
  return result


def losses(trainer, steps, **kwargs):
  return [s['loss'] for s in summaries(trainer, steps, **kwargs)]


def host_copy(train_state):
  """Returns the state's arrays on the host, as a nested dict."""
  return jax.tree.map(np.array, train_state.state_dict())


def assert_equal(a, b):
  """Asserts that two states are bitwise equal."""
  a, b = host_copy(a), host_copy(b)
  assert jax.tree.structure(a) == jax.tree.structure(b)
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
    np.testing.assert_array_equal(x, y)


def save_checkpoint(model_dir, trainer):
  """Saves as t5x does."""
  manager = checkpoints.OrbaxCheckpointManagerInterface(
    directory=model_dir,
    train_state=trainer.train_state,
    partitioner=trainer._partitioner,
  )
  manager.save(trainer.train_state)
  manager.wait_until_finished()
  manager.close()


def train_teacher(model_dir, steps, period, **overrides):
  """Trains a teacher on the rows and keeps a checkpoint every `period`."""
  trainer = make_trainer(
    make_teacher_model(**overrides), summary_dir=model_dir, total_steps=steps
  )
  data = batches()
  for step in range(0, steps, period):
    save_checkpoint(model_dir, trainer)
    trainer.train(data, period, step).result()
  save_checkpoint(model_dir, trainer)
  trainer.close()


def write_task(directory, name, count=512, shards=2):
  """Writes rows as TFRecords and registers a seqio task of them."""
  data = rows(count)
  os.makedirs(directory, exist_ok=True)
  for shard in range(shards):
    path = os.path.join(directory, f'train.tfrecord-{shard:05}-of-{shards:05}')
    with tf.io.TFRecordWriter(path) as writer:
      for row in np.array_split(data, shards)[shard]:
        feature = tf.train.Feature(
          int64_list=tf.train.Int64List(value=row.tolist())
        )
        writer.write(
          tf.train.Example(
            features=tf.train.Features(feature={'targets': feature})
          ).SerializeToString()
        )
  register_task(directory, name)


def register_task(directory, name):
  pattern = os.path.join(directory, 'train.tfrecord-*')
  seqio.TaskRegistry.remove(name)
  seqio.TaskRegistry.add(
    name,
    source=seqio.TFExampleDataSource(
      split_to_filepattern={'train': pattern, 'validation': pattern},
      feature_description={
        'targets': tf.io.FixedLenFeature([LENGTH], tf.int64)
      },
    ),
    preprocessors=[
      functools.partial(
        seqio.map_over_dataset(
          lambda x: {'targets': tf.cast(x['targets'], tf.int32)}
        )
      )
    ],
    output_features={
      'targets': seqio.Feature(vocabulary(), add_eos=False, dtype=tf.int32)
    },
  )
