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

"""Log-likelihoods and continuations against one sequence at a time."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorflow as tf

from salt_t5x import models
from salt_t5x.data import feature_converters
from salt_t5x.inference import batches, language_model
from t5x import partitioning
import tiny
import tiny_runs

LENGTH = 64
# A row more than the vocabulary has tokens: no token, and never the likeliest.
ROWS = tiny.VOCAB_SIZE + 8


@functools.cache
def make(bidirectional=False, batch_size=4):
  """(a random model, its parameters, a LanguageModel)."""
  model = tiny.make_model(
    vocab_size=ROWS, inputs_bidirectional_attention=bidirectional
  )
  tokens = jnp.ones((1, 2), jnp.int32)
  params = model.module.init(jax.random.key(0), tokens, tokens)['params']
  # Far apart logits, so that the likeliest token is not a matter of rounding.
  params = jax.tree.map(lambda x: 3 * x, params)
  params['embedding'] = params['embedding'].at[tiny.VOCAB_SIZE :].set(50)
  axes = jax.tree.map(lambda _: jax.sharding.PartitionSpec(), params)
  compiled = language_model.LanguageModel(
    model,
    params,
    axes,
    partitioning.PjitPartitioner(num_partitions=1),
    batch_size=batch_size,
    length=LENGTH,
  )
  return model, params, compiled


def values(compiled, pairs):
  return [x.value for x in compiled.log_likelihoods(pairs)]


def some_tokens(rng, count):
  return rng.integers(2, tiny.VOCAB_SIZE, count).tolist()


def logits(model, params, tokens, context, bidirectional):
  """[t, V]: the logits of one sequence alone."""
  # What follows a token changes nothing; one width compiles once.
  padded = np.pad(tokens, (0, LENGTH + 1 - len(tokens)))[None]
  prefix = (np.arange(LENGTH + 1) <= context)[None].astype(np.int32)
  found = tiny.jitted(model.module)(
    params,
    np.roll(padded, 1),
    padded,
    decoder_causal_attention=prefix if bidirectional else None,
  )
  return np.asarray(found[0, : len(tokens), : tiny.VOCAB_SIZE], np.float64)


@pytest.mark.parametrize('bidirectional', [False, True])
def test_log_likelihoods_equal_one_by_one(bidirectional):
  model, params, compiled = make(bidirectional)
  rng = np.random.default_rng(0)
  pairs = [
    (some_tokens(rng, a), some_tokens(rng, b))
    for a, b in [(0, 1), (0, 5), (3, 2), (20, 30), (60, 4), (1, 63), (33, 1)]
  ]
  # One whose continuation is the model's own.
  context = some_tokens(rng, 4)
  pairs.append((context, compiled.continuations([context], 1)[0]))
  found = compiled.log_likelihoods(pairs)
  greedy = []
  for (context, continuation), likelihood in zip(pairs, found, strict=True):
    tokens = [*context, *continuation]
    u = logits(model, params, tokens, len(context), bidirectional)
    log_p = u - np.log(np.sum(np.exp(u), -1, keepdims=True))
    places = np.arange(len(context), len(tokens))
    expected = np.sum(log_p[places, continuation])
    np.testing.assert_allclose(likelihood.value, expected, rtol=1e-5, atol=1e-4)
    greedy.append(bool(np.all(np.argmax(u[places], -1) == continuation)))
    assert likelihood.is_greedy == greedy[-1]
  assert greedy[-1] and not all(greedy)


@pytest.mark.parametrize('bidirectional', [False, True])
def test_continuations_with_a_cache_equal_those_without(bidirectional):
  model, params, compiled = make(bidirectional)
  rng = np.random.default_rng(1)
  contexts = [some_tokens(rng, n) for n in (1, 7, 8, 30, 60, 63)]
  found = compiled.continuations(contexts, 12)
  for context, continuation in zip(contexts, found, strict=True):
    expected = []
    while len(expected) < min(12, LENGTH - len(context)):
      # The next token's place holds anything but padding.
      tokens = [*context, *expected, 2]
      u = logits(model, params, tokens, len(context), bidirectional)
      token = int(np.argmax(u[-1]))
      if token <= 1:  # EOS, or t5x's padding
        break
      expected.append(token)
    assert continuation == expected
  assert len({tuple(x[:3]) for x in found}) > 2


def test_batch_size_does_not_matter():
  pairs = some_pairs()
  one = values(make(batch_size=1)[2], pairs)
  many = values(make()[2], pairs)
  np.testing.assert_allclose(one, many, rtol=1e-5, atol=1e-5)


def some_pairs():
  rng = np.random.default_rng(3)
  return [
    (some_tokens(rng, rng.integers(0, 40)), some_tokens(rng, 1 + i % 20))
    for i in range(11)
  ]


def short(pairs):
  """Contexts whose continuations are of one width, and compile once."""
  return [x for x, _ in pairs if len(x) < 26]


def on_devices():
  """[log-likelihoods, continuations], batch and parameters in parts."""
  model, params, _ = make(batch_size=8)
  partitioner = partitioning.PjitPartitioner(num_partitions=2)
  features = batches.feature_shapes(8, LENGTH)
  _, axes = models.shapes_and_axes(model, features, partitioner)
  params = jax.tree.map(
    lambda x, spec: jax.device_put(
      x,
      jax.sharding.NamedSharding(
        # t5x has None where nothing is cut.
        partitioner.mesh,
        spec or jax.sharding.PartitionSpec(),
      ),
    ),
    params,
    axes,
  )
  assert any(
    not x.sharding.is_fully_replicated for x in jax.tree.leaves(params)
  )
  compiled = language_model.LanguageModel(
    model, params, axes, partitioner, batch_size=8, length=LENGTH
  )
  pairs = some_pairs()
  return [values(compiled, pairs), compiled.continuations(short(pairs), 6)]


def test_devices_do_not_matter():
  _, _, compiled = make()
  pairs = some_pairs()
  expected = values(compiled, pairs)
  likelihoods, continuations = tiny_runs.call(
    'test_language_model.on_devices',
    # t5x gives all of a CPU's devices to the model axis.
    engine_name='embedded',
    XLA_FLAGS='--xla_force_host_platform_device_count=4',
  )
  np.testing.assert_allclose(likelihoods, expected, rtol=1e-5, atol=1e-4)
  assert continuations == compiled.continuations(short(pairs), 6)


def test_features_are_the_converters():
  context, continuation = [5, 6, 7], [8, 9]
  data = tf.data.Dataset.from_tensors(
    {
      'inputs': np.array(context, np.int32),
      'targets': np.array(continuation, np.int32),
    }
  )
  converter = feature_converters.FixedWidthFeatureConverter(pack=False)
  expected = next(
    converter(data, {'inputs': 8, 'targets': 8}).as_numpy_iterator()
  )
  targets = np.array([[*context, *continuation, 0, 0, 0]])
  found = models.features_of(targets, np.array([3]))
  assert found.keys() == expected.keys()
  for name, value in expected.items():
    np.testing.assert_array_equal(found[name][0], value, err_msg=name)


def test_rejects_lengths():
  compiled = make()[2]
  with pytest.raises(ValueError, match='65 tokens is longer than length = 64'):
    compiled.log_likelihoods([([2] * 60, [3] * 5)])
  with pytest.raises(ValueError, match='no tokens'):
    compiled.log_likelihoods([([2], [])])
  with pytest.raises(ValueError, match='65 tokens is longer'):
    compiled.continuations([[2] * 64], 1)
