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

"""A second implementation of the network (App. E), in float64 NumPy.

It shares no code with `salt_t5x.network` and none of its ways: one sequence at
a time, one query at a time, rotations as matrices, no batches, masks, caches,
scans or padding. Slow on purpose.

Notation: t tokens of a sequence, D `emb_dim`, V `vocab_size`, H `num_heads`,
K `num_kv_heads`, h `head_dim`.
"""

import math

import numpy as np

_SQRT_2_OVER_PI = math.sqrt(2 / math.pi)

_ACTIVATIONS = {
  # By tanh, which is what Flax computes unless told otherwise.
  'gelu': lambda z: (
    z / 2 * (1 + np.tanh(_SQRT_2_OVER_PI * (z + 0.044715 * z * z * z)))
  ),
  'linear': lambda z: z,
  'relu': lambda z: np.where(z > 0, z, 0.0),
  'silu': lambda z: z / (1 + np.exp(-z)),
}


def _float64(tree):
  if hasattr(tree, 'items'):
    return {name: _float64(branch) for name, branch in tree.items()}
  return np.asarray(tree, np.float64)


def _layer(params, config, index):
  """The parameters of one layer, {module: {name: array}}."""
  if not config.scan_layers:
    return params[f'layers_{index}']

  def pick(tree):
    if isinstance(tree, dict):
      return {name: pick(branch) for name, branch in tree.items()}
    return tree[index]

  return pick(params['layers'])


def _rms_norm(x, scale):
  """x and result: [t, D]."""
  return scale * x / np.sqrt(np.mean(x**2, axis=1, keepdims=True) + 1e-6)


def _rotation(position, config):
  """RoPE's matrix, [h, h]: turns the planes (i, i + h / 2) by their angles."""
  half = config.head_dim // 2
  angles = position / config.max_wavelength ** (np.arange(half) / half)
  cos, sin = np.diag(np.cos(angles)), np.diag(np.sin(angles))
  return np.block([[cos, -sin], [sin, cos]])


def _attention(params, config, x, rotations, seen):
  """x and result: [t, D]; the query at i sees the positions before seen[i]."""
  result = np.zeros_like(x)
  for head in range(config.num_heads):
    w_query = params['query'][:, head]
    if config.num_kv_heads == 1:
      w_key, w_value = params['key'], params['value']
    else:
      # Neighbouring query heads share a head of keys and values.
      shared = head // (config.num_heads // config.num_kv_heads)
      w_key, w_value = params['key'][:, shared], params['value'][:, shared]
    queries = np.einsum('tij,tj->ti', rotations, x @ w_query)
    keys = np.einsum('tij,tj->ti', rotations, x @ w_key)
    values = x @ w_value
    out = np.zeros_like(values)
    for i, query in enumerate(queries):
      scores = keys[: seen[i]] @ query / math.sqrt(config.head_dim)
      weights = np.exp(scores - scores.max())
      out[i] = weights @ values[: seen[i]] / weights.sum()
    result += out @ params['out'][head]
  return result


def _mlp(params, config, x):
  """x and result: [t, D]."""
  product = np.ones((len(x), config.mlp_dim))
  for i, name in enumerate(config.mlp_activations):
    product *= _ACTIVATIONS[name](x @ params[f'wi_{i}'])
  return product @ params['wo']


def logits(params, config, tokens, prefix_length=None):
  """What the network says of each token of one sequence, given those before.

  Args:
    params: the network's parameters, scanned or not, as `config` says.
    config: a `network.TransformerConfig`; its dtype and its ways to save time
      or memory are of no concern here.
    tokens: t ids, not 0. The network reads a 0 in front and not the last one.
    prefix_length: how many of the tokens are a prefix LM's inputs, which see
      each other in both directions, with the 0 before them; None for a causal
      LM.

  Returns:
    [t, V] float64; row i is of token i.
  """
  params = _float64(params)
  read = [0, *tokens[:-1]]
  prefix = 0 if prefix_length is None else min(prefix_length + 1, len(read))
  seen = [prefix if i < prefix else i + 1 for i in range(len(read))]
  rotations = np.array([_rotation(i, config) for i in range(len(read))])
  x = params['embedding'][read]
  for index in range(config.num_layers):
    layer = _layer(params, config, index)
    normed = _rms_norm(x, layer['pre_attention_norm']['scale'])
    x = x + _attention(layer['attention'], config, normed, rotations, seen)
    normed = _rms_norm(x, layer['pre_mlp_norm']['scale'])
    x = x + _mlp(layer['mlp'], config, normed)
  x = _rms_norm(x, params['decoder_norm']['scale'])
  return x @ params['embedding'].T / math.sqrt(config.emb_dim)


def judge(logits_of, context, continuation):
  """What a model says of a continuation.

  Args:
    logits_of: (tokens, how many of them are the context) to [t, V].
    context: ids, none or more.
    continuation: ids, one or more.

  Returns:
    (log P(continuation | context) in nats, whether each token is the likeliest,
    the least distance in nats of a token from the likeliest other one: where it
    is tiny, rounding decides whether it is the likeliest).
  """
  total, is_greedy, least = 0.0, True, math.inf
  found = logits_of([*context, *continuation], len(context))
  for token, u in zip(continuation, found[len(context) :], strict=True):
    total += u[token] - u.max() - math.log(np.exp(u - u.max()).sum())
    is_greedy &= token == int(u.argmax())
    least = min(least, abs(u[token] - np.delete(u, token).max()))
  return total, is_greedy, least


def continue_greedily(logits_of, context, max_tokens, ends):
  """The likeliest tokens, one after the other, each from the whole sequence.

  Args:
    logits_of: as for `judge`.
    context: ids.
    max_tokens: how many at most.
    ends: ids that end a continuation and are no part of it.

  Returns:
    (ids, the least distance in nats between a token and the next likely one).
  """
  found, least = [], math.inf
  while len(found) < max_tokens:
    # The last token is not read: any will do.
    u = logits_of([*context, *found, 2], len(context))[-1]
    token, second = np.argsort(-u)[:2]
    least = min(least, u[token] - u[second])
    if token in ends:
      break
    found.append(int(token))
  return found, least
