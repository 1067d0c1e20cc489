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

"""The network, and what judges texts with it, against a second one."""

import jax
import jax.numpy as jnp
import network_reference
import numpy as np
import pytest

from salt_t5x import network
from salt_t5x.inference import language_model
from t5x import partitioning
import tiny

T = 12
OPTIONS = {
  'multi_query': {},
  'multi_head': {'num_kv_heads': 2},
  'grouped_query': {'num_heads': 4, 'num_kv_heads': 2},
  'wide_heads': {'head_dim': 10},
  'silu': {'mlp_activations': ('silu', 'linear')},
  'relu': {'mlp_activations': ('relu',)},
  'three_projections': {'mlp_activations': ('linear', 'silu', 'gelu')},
  'short_wavelength': {'max_wavelength': 30.0},
  'three_layers': {'num_layers': 3},
}


def random_parameters(module):
  """Values of which none is special: no scale is 1, no layers are alike."""
  tokens = jnp.ones((1, 2), jnp.int32)
  shapes = jax.eval_shape(module.init, jax.random.key(0), tokens, tokens)
  rng = np.random.default_rng(0)

  def draw(path, leaf):
    normal = rng.normal(size=leaf.shape)
    if path[-1].key == 'scale':
      normal = 1 + 0.3 * normal
    elif path[-1].key != 'embedding':
      normal *= 0.3
    return jnp.asarray(normal, leaf.dtype)

  return jax.tree.map_with_path(draw, shapes['params'])


def make(**options):
  module = network.Transformer(tiny.config(**options))
  return module, random_parameters(module)


def some_tokens(rng, count):
  return rng.integers(2, tiny.VOCAB_SIZE, count).tolist()


def network_logits(module, params, sequences, prefix_lengths):
  """Each sequence's [t, V], in one padded batch; None: without a mask."""
  targets = np.array([np.pad(x, (0, T - len(x))) for x in sequences])
  prefix = None
  if prefix_lengths is not None:
    lengths = [-1 if n is None else n for n in prefix_lengths]
    prefix = (np.arange(T) <= np.array(lengths)[:, None]).astype(np.int32)
  inputs = np.pad(targets[:, :-1], ((0, 0), (1, 0)))
  found = tiny.jitted(module)(
    params, inputs, targets, decoder_causal_attention=prefix
  )
  return [row[: len(x)] for row, x in zip(found, sequences, strict=True)]


def assert_logits_equal(module, params, sequences, prefix_lengths=None):
  found = network_logits(module, params, sequences, prefix_lengths)
  prefixes = prefix_lengths or [None] * len(sequences)
  for u, tokens, prefix in zip(found, sequences, prefixes, strict=True):
    expected = network_reference.logits(params, module.config, tokens, prefix)
    assert expected.shape == (len(tokens), tiny.VOCAB_SIZE)
    np.testing.assert_allclose(
      u, expected, rtol=0, atol=1e-4, err_msg=f'{len(tokens)}, {prefix}'
    )


# --- The network -------------------------------------------------------------


@pytest.mark.parametrize(
  'option, scan_layers',
  [
    *((option, True) for option in OPTIONS),
    ('multi_query', False),
    ('multi_head', False),
    ('three_layers', False),
  ],
)
def test_logits_of_all_lengths_and_prefixes(option, scan_layers):
  module, params = make(**OPTIONS[option], scan_layers=scan_layers)
  rng = np.random.default_rng(1)
  cases = [
    (some_tokens(rng, length), prefix)
    for length in range(1, T + 1)
    for prefix in (None, *sorted({0, 1, length // 2, length - 1, length}))
  ]
  assert_logits_equal(module, params, *map(list, zip(*cases, strict=True)))


@pytest.mark.parametrize('scan_layers', [True, False])
def test_logits_without_a_mask(scan_layers):
  module, params = make(num_heads=4, num_kv_heads=2, scan_layers=scan_layers)
  rng = np.random.default_rng(2)
  sequences = [some_tokens(rng, length) for length in range(1, T + 1)]
  assert_logits_equal(module, params, sequences)


@pytest.mark.parametrize('scan_layers', [True, False])
def test_every_parameter_and_the_prefix_would_be_missed(scan_layers):
  module, params = make(scan_layers=scan_layers)
  tokens = some_tokens(np.random.default_rng(3), T)
  [found] = network_logits(module, params, [tokens], [6])

  def distance(params, prefix=6, tokens=tokens):
    other = network_reference.logits(params, module.config, tokens, prefix)
    return np.abs(other - found).max()

  assert distance(params) < 1e-4
  paths, tree = jax.tree.flatten_with_path(params)
  for changed, (path, _) in enumerate(paths):
    leaves = [
      x * (1.1 if i == changed else 1) for i, (_, x) in enumerate(paths)
    ]
    assert distance(jax.tree.unflatten(tree, leaves)) > 1e-2, path
  for prefix in (None, 5, 7):
    assert distance(params, prefix) > 1e-2
  assert distance(params, tokens=tokens[1:2] + tokens[:1] + tokens[2:]) > 1e-2


# --- The language model ------------------------------------------------------


@pytest.fixture(scope='module', params=[False, True], ids=['causal', 'prefix'])
def made(request):
  """(a LanguageModel, the reference's logits of the tokens)."""
  bidirectional = request.param
  model = tiny.make_model(
    # Rows past the vocabulary are no tokens, though likely ones.
    vocab_size=tiny.VOCAB_SIZE + 8,
    inputs_bidirectional_attention=bidirectional,
  )
  params = random_parameters(model.module)
  # Far apart logits, so that the likeliest token is no matter of rounding.
  params['embedding'] *= 3
  params['embedding'] = params['embedding'].at[tiny.VOCAB_SIZE :].set(50)
  compiled = language_model.LanguageModel(
    model,
    params,
    jax.tree.map(lambda _: jax.sharding.PartitionSpec(), params),
    partitioning.PjitPartitioner(num_partitions=1),
    batch_size=4,
    length=64,
  )

  def logits_of(tokens, context_length):
    prefix = context_length if bidirectional else None
    found = network_reference.logits(
      params, model.module.config, tokens, prefix
    )
    return found[:, : tiny.VOCAB_SIZE]

  return compiled, logits_of


def test_log_likelihoods(made):
  compiled, logits_of = made
  rng = np.random.default_rng(4)
  pairs = [
    (some_tokens(rng, a), some_tokens(rng, b))
    for a, b in [(0, 1), (0, 9), (5, 3), (30, 2), (31, 33), (61, 3)]
  ]
  for count in (1, 10):
    context = some_tokens(rng, 8)
    pairs.append((context, compiled.continuations([context], count)[0]))
  found = compiled.log_likelihoods(pairs)
  for pair, x in zip(pairs, found, strict=True):
    expected, agrees, least = network_reference.judge(logits_of, *pair)
    assert least > 1e-4
    np.testing.assert_allclose(x.value, expected, rtol=0, atol=1e-4)
    assert x.is_greedy == agrees
  assert [x.is_greedy for x in found] == [False] * 6 + [True] * 2


def test_greedy_continuations(made):
  compiled, logits_of = made
  rng = np.random.default_rng(5)
  contexts = [some_tokens(rng, n) for n in (1, 2, 17, 31, 40, 60)]
  found = compiled.continuations(contexts, 10)
  for context, continuation in zip(contexts, found, strict=True):
    expected, least = network_reference.continue_greedily(
      logits_of, context, min(10, 64 - len(context)), ends=(0, 1)
    )
    assert least > 1e-4
    assert continuation == expected
  assert len({tuple(x) for x in found}) == len(found)
