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


"""Tests of salt_t5x.network."""

import dataclasses
import functools
import math
import pathlib

from flax.linen import partitioning as flax_partitioning
import gin
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import seqio

from salt_t5x import engine, network
from t5x import adafactor, decoding, models, train_state
import tiny

SIZES = pathlib.Path(__file__).parents[1] / 'gin' / 'sizes'
V, D, H, B, T = 61, 24, 4, 2, 12

CONFIG = network.TransformerConfig(
  vocab_size=V,
  emb_dim=D,
  num_heads=H,
  num_kv_heads=1,
  head_dim=10,  # Not D / H, so that a mixed-up width shows.
  mlp_dim=40,
  num_layers=2,
  dtype='float32',
  remat_policy='none',
)


def make(**changes):
  return network.Transformer(dataclasses.replace(CONFIG, **changes))


@functools.cache
def parameters(num_kv_heads=1):
  """Scanned parameters at a scale where every part of the model matters.

  Drawn here, not by `init`, with scales away from 1 and kernels large enough
  that the tied embedding does not make the model repeat its input.
  """
  module, tokens = make(num_kv_heads=num_kv_heads), jnp.ones((1, 2))
  shapes = jax.eval_shape(module.init, jax.random.key(0), tokens, tokens)
  rng = np.random.default_rng(0)

  def draw(path, leaf):
    name, normal = path[-1].key, rng.normal(size=leaf.shape)
    if name == 'scale':
      normal = 1.5 + 0.2 * normal
    elif name != 'embedding':
      fan_in = math.prod(leaf.shape[1:-1] if name == 'out' else leaf.shape[1:2])
      normal *= 1.5 / math.sqrt(fan_in)
    return jnp.asarray(normal, leaf.dtype)

  return jax.tree.map_with_path(draw, shapes['params'])


def unstack(params):
  """Parameters of the scanned model, named as the looped model names them."""
  params = dict(params)
  layers = params.pop('layers')
  for i in range(CONFIG.num_layers):
    params[f'layers_{i}'] = jax.tree.map(lambda x, i=i: x[i], layers)
  return params


def some_tokens(shape=(B, T), seed=0):
  return np.random.default_rng(seed).integers(2, V, shape).astype(np.int32)


def numpy_logits(params, tokens, mask, positions):
  """The forward pass from its formulas, in float64."""
  params = jax.tree.map(lambda x: np.asarray(x, np.float64), params)

  def norm(x, scale):
    return x / np.sqrt(np.mean(x**2, -1, keepdims=True) + 1e-6) * scale

  def gelu(x):
    inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)
    return 0.5 * x * (1 + np.tanh(inner))

  def rope(x):  # [B, T, heads, h], as complex numbers
    half = x.shape[-1] // 2
    theta = positions[:, :, None, None] * 10_000.0 ** (-np.arange(half) / half)
    z = (x[..., :half] + 1j * x[..., half:]) * np.exp(1j * theta)
    return np.concatenate([z.real, z.imag], -1)

  x = params['embedding'][tokens]
  for i in range(CONFIG.num_layers):
    layer = jax.tree.map(lambda p, i=i: p[i], params['layers'])
    attention, mlp = layer['attention'], layer['mlp']
    y = norm(x, layer['pre_attention_norm']['scale'])
    q = rope(np.einsum('btd,dhk->bthk', y, attention['query']))
    k, v = attention['key'], attention['value']
    if k.ndim == 2:
      k, v = k[:, None], v[:, None]
    k = rope(np.einsum('btd,dhk->bthk', y, k))
    v = np.einsum('btd,dhk->bthk', y, v)
    heads = []
    for head in range(H):
      shared = head // (H // k.shape[2])
      s = np.einsum('bqk,bsk->bqs', q[:, :, head], k[:, :, shared])
      s = np.where(mask, s / math.sqrt(q.shape[-1]), -np.inf)
      p = np.exp(s - s.max(-1, keepdims=True))
      p /= p.sum(-1, keepdims=True)
      heads.append(p @ v[:, :, shared] @ attention['out'][head])
    x = x + sum(heads)
    y = norm(x, layer['pre_mlp_norm']['scale'])
    x = x + (gelu(y @ mlp['wi_0']) * (y @ mlp['wi_1'])) @ mlp['wo']
  hidden = norm(x, params['decoder_norm']['scale']) / math.sqrt(D)
  return hidden @ params['embedding'].T


def causal_mask(length=T):
  return np.tril(np.ones((1, length, length), bool))


# Packed rows: lengths 5 and 4, then 3 of padding; lengths 3 and 9.
SEGMENTS = np.array([[1] * 5 + [2] * 4 + [0] * 3, [1] * 3 + [2] * 9])
POSITIONS = np.array([[*range(5), *range(4), 0, 0, 0], [*range(3), *range(9)]])
PREFIX = np.array([[1, 1, 1, 0, 0, 1, 1, 0, 0, 0, 0, 0], [1] * 2 + [0] * 10])


# --- Sizes and configuration ------------------------------------------------


@pytest.mark.parametrize(
  'size, vocab_size, count',
  [
    ('0p5b', 256_000, 498_647_808),
    ('1p5b', 256_000, 1_554_080_768),
    ('2p8b', 256_000, 2_818_761_728),
    ('8p6b', 256_000, 8_598_589_440),
    ('tiny_student', 2_048, 844_928),
    ('tiny_teacher', 2_048, 418_464),
  ],
)
def test_sizes_in_gin(size, vocab_size, count):
  gin.clear_config()
  try:
    # All sizes live in one configuration.
    for path in sorted(SIZES.glob('*.gin')):
      gin.parse_config_file(str(path))
    gin.parse_config(f"""
      from __gin__ import dynamic_registration
      from salt_t5x import network
      network.TransformerConfig.vocab_size = {vocab_size}
    """)
    with gin.config_scope(f'size_{size}'):
      config = gin.get_configurable(network.TransformerConfig)()
  finally:
    gin.clear_config()
  tokens = jnp.ones((1, 8))  # t5x initialises with float tokens.
  shapes = jax.eval_shape(
    network.Transformer(config).init, jax.random.key(0), tokens, tokens
  )
  params = jax.tree.leaves(shapes['params'])
  assert sum(math.prod(x.shape) for x in params) == count
  assert {x.dtype for x in params} == {jnp.dtype('float32')}
  assert f'{count:,}' in (SIZES / f'{size}.gin').read_text()


@pytest.mark.parametrize(
  'name, value, remedy',
  [
    ('num_kv_heads', 3, 'num_heads = 4'),
    ('head_dim', 7, 'even'),
    ('remat_policy', 'ful', "'attention', 'full', 'minimal', 'none'"),
    ('mlp_activations', ('gelu', 'line'), "'linear'"),
    ('mlp_activations', (), "'linear'"),
    ('emb_dim', 0, 'positive'),
    ('num_layers', -1, 'positive'),
    ('mlp_dim', 2.5, 'positive integer'),
    ('max_wavelength', 0, 'positive'),
  ],
)
def test_config_names_the_parameter_and_the_remedy(name, value, remedy):
  with pytest.raises(ValueError) as error:
    dataclasses.replace(CONFIG, **{name: value})
  message = str(error.value)
  assert f'network.TransformerConfig.{name} = {value!r}' in message
  assert remedy in message


@pytest.mark.parametrize('scan_layers', [True, False])
@pytest.mark.parametrize('num_kv_heads', [H, 2, 1])
def test_logical_axes(scan_layers, num_kv_heads):
  module = make(scan_layers=scan_layers, num_kv_heads=num_kv_heads)
  tokens = jnp.ones((1, 2))
  shapes = jax.eval_shape(module.init, jax.random.key(0), tokens, tokens)
  assert set(shapes) == {'params', 'params_axes'}
  params = jax.tree.flatten_with_path(shapes['params'])[0]
  axes = flax_partitioning.get_axis_names(shapes['params_axes'])
  for path, param in params:
    names = axes
    for key in path:
      names = names[key.key]
    assert len(names) == param.ndim, path
    assert set(names) <= {'layers', 'vocab', 'embed', 'mlp', 'heads', 'kv'}
    # 'heads' is sharded over the model axis: it must be worth splitting.
    assert ('heads', 1) not in zip(names, param.shape, strict=True)
    # t5x's Adafactor factors rows ('embed') against columns (the rest).
    matrix = [n for n in names if n != 'layers']
    assert matrix.count('embed') == 1, path
    assert ('scale' in path[-1].key) == (len(matrix) == 1)


def test_annotations_hold_on_a_mesh():
  rules = (
    ('batch', 'data'),
    ('vocab', 'model'),
    ('mlp', 'model'),
    ('heads', 'model'),
    ('embed', None),
    ('kv', None),
    ('length', None),
    ('layers', None),
  )
  module, tokens = make(), some_tokens()
  plain = tiny.jitted(module)(parameters(), tokens, tokens)
  mesh = jax.sharding.Mesh(
    np.array(jax.devices()[:1]).reshape(1, 1), ('data', 'model')
  )
  # The context in which t5x runs its steps; flax's own annotations miss it.
  with mesh, flax_partitioning.axis_rules(rules):
    apply = jax.jit(lambda p: module.apply({'params': p}, tokens, tokens))
    assert 'sharding_constraint' in str(apply.trace(parameters()).jaxpr)
    sharded = apply(parameters())
  np.testing.assert_allclose(sharded, plain, rtol=1e-5, atol=1e-5)


# --- The forward pass -------------------------------------------------------


@pytest.mark.parametrize('num_kv_heads', [H, 2, 1])
def test_forward_matches_numpy(num_kv_heads):
  params, tokens = parameters(num_kv_heads), some_tokens()
  logits = tiny.jitted(make(num_kv_heads=num_kv_heads))(params, tokens, tokens)
  expected = numpy_logits(params, tokens, causal_mask(), np.arange(T)[None])
  assert logits.dtype == np.float32
  np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=2e-5)


def test_packed_prefix_lm_matches_numpy():
  tokens = some_tokens()
  mask = np.zeros((B, T, T), bool)
  for b in range(B):
    for i in range(T):
      for j in range(T):
        together = PREFIX[b, i] and PREFIX[b, j]
        same = SEGMENTS[b, i] == SEGMENTS[b, j]
        mask[b, i, j] = same and (j <= i or together)
  expected = numpy_logits(parameters(), tokens, mask, POSITIONS)
  logits = tiny.jitted(make())(
    parameters(), tokens, tokens, SEGMENTS, POSITIONS, PREFIX
  )
  np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_logits_are_hidden_states_times_output_embedding(dtype):
  module, tokens = make(dtype=dtype), some_tokens()
  variables = {'params': parameters()}
  logits = module.apply(variables, tokens, tokens)
  hidden = module.apply(variables, tokens, tokens, method='hidden_states')
  embedding = module.output_embedding(parameters())
  assert (hidden.shape, hidden.dtype) == ((B, T, D), jnp.dtype(dtype))
  assert (embedding.shape, embedding.dtype) == ((V, D), jnp.float32)
  assert (logits.shape, logits.dtype) == ((B, T, V), jnp.float32)
  product = jnp.einsum(
    'btd,vd->btv',
    hidden,
    embedding.astype(dtype),
    preferred_element_type=jnp.float32,
  )
  np.testing.assert_array_equal(logits, product)


def test_bfloat16_is_close_to_float32():
  tokens = some_tokens()
  exact = tiny.jitted(make())(parameters(), tokens, tokens)
  rough = tiny.jitted(make(dtype='bfloat16'))(parameters(), tokens, tokens)
  assert 0 < np.std(rough - exact) < 0.05 * np.std(exact)


def test_causal():
  tokens, changed = some_tokens(), some_tokens()
  changed[:, 7] += 1 - 2 * (changed[:, 7] == V - 1)
  run = tiny.jitted(make())
  before = run(parameters(), tokens, tokens)
  after = run(parameters(), changed, changed)
  np.testing.assert_array_equal(before[:, :7], after[:, :7])
  assert (np.abs(before - after)[:, 7:].max(-1) > 1e-3).all()


def test_packed_sequences_do_not_see_each_other():
  tokens = some_tokens()
  run = tiny.jitted(make())
  packed = run(parameters(), tokens, tokens, SEGMENTS, POSITIONS)
  assert np.isfinite(packed).all()
  for start, stop in [(0, 5), (5, 9)]:
    alone = np.zeros((B, T), np.int32)
    alone[:, : stop - start] = tokens[:1, start:stop]
    logits = run(parameters(), alone, alone)[0, : stop - start]
    np.testing.assert_allclose(
      packed[0, start:stop], logits, rtol=1e-5, atol=2e-5
    )


def test_prefix_is_seen_whole_and_targets_stay_causal():
  tokens, run = some_tokens(), tiny.jitted(make())
  prefix = np.array([[1] * 5 + [0] * 7, [1] * 3 + [0] * 9])

  def logits(tokens):
    return run(parameters(), tokens, tokens, decoder_causal_attention=prefix)

  # The last token of each prefix moves every earlier position's logits.
  before, late = logits(tokens), tokens.copy()
  late[0, 4], late[1, 2] = 2 + (late[0, 4] == 2), 2 + (late[1, 2] == 2)
  moved = np.abs(logits(late) - before).max(-1)
  assert (moved[0] > 1e-4).all() and (moved[1] > 1e-4).all()
  # A target token moves nothing before itself.
  late = tokens.copy()
  late[:, 8] = 2 + (late[:, 8] == 2)
  moved = np.abs(logits(late) - before).max(-1)
  assert (moved[:, :8] == 0).all() and (moved[:, 8:] > 1e-4).all()


@pytest.mark.parametrize('prefix_lm', [False, True])
def test_padding_on_the_right_changes_nothing(prefix_lm):
  # One in all of the row's `decoder_causal_attention`: padding must not count
  # as prefix even where the data says so.
  extra = {'decoder_causal_attention': np.ones((B, T))} if prefix_lm else {}
  tokens = some_tokens()
  targets = tokens.copy()
  targets[:, 8:] = 0
  other = tokens.copy()
  other[:, 8:] = some_tokens(seed=1)[:, 8:]
  run = tiny.jitted(make())
  before = run(parameters(), tokens, targets, **extra)[:, :8]
  after = run(parameters(), other, targets, **extra)[:, :8]
  np.testing.assert_array_equal(before, after)


def test_dropout_flag_is_accepted_and_without_effect():
  module, tokens = make(), some_tokens()
  on, off = (
    jax.jit(functools.partial(module.apply, enable_dropout=flag))(
      {'params': parameters()}, tokens, tokens
    )
    for flag in (True, False)
  )
  np.testing.assert_array_equal(on, off)


# --- Training ---------------------------------------------------------------


def cross_entropy(module, params, tokens):
  logits = module.apply({'params': params}, tokens[:, :-1], tokens[:, 1:])
  chosen = jnp.take_along_axis(logits, tokens[:, 1:, None], -1)[..., 0]
  return jnp.mean(jax.nn.logsumexp(logits, -1) - chosen)


def test_scan_equals_loop():
  tokens = some_tokens()

  def value_and_grad(module, params):
    loss = functools.partial(cross_entropy, module, tokens=tokens)
    return jax.jit(jax.value_and_grad(loss))(params)

  loss, grads = value_and_grad(make(), parameters())
  looped_loss, looped = value_and_grad(
    make(scan_layers=False), unstack(parameters())
  )
  np.testing.assert_allclose(loss, looped_loss, rtol=1e-6)
  jax.tree.map(
    functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6),
    unstack(grads),
    looped,
  )


@pytest.mark.usefixtures('optimized')
def test_92_layers_are_as_long_a_program_as_4():
  def program(num_layers):
    module = make(num_layers=num_layers, remat_policy='attention')
    tokens = some_tokens()
    params = jax.eval_shape(module.init, jax.random.key(0), tokens, tokens)
    loss = functools.partial(cross_entropy, module, tokens=tokens)
    step = jax.jit(jax.grad(loss)).lower(params['params'])
    return step.compile().as_text().count('\n')

  # XLA's optimised program is all there is to compile.
  assert program(92) == program(4)


@pytest.mark.parametrize('scan_layers', [True, False])
def test_remat_changes_work_not_gradients(scan_layers):
  tokens = some_tokens()
  params = parameters() if scan_layers else unstack(parameters())
  traced, products = {}, {}
  for policy in ('none', 'minimal', 'attention', 'full'):
    module = make(scan_layers=scan_layers, remat_policy=policy)
    loss = functools.partial(cross_entropy, module, tokens=tokens)
    traced[policy] = jax.jit(jax.grad(loss)).trace(params)
    products[policy] = str(traced[policy].jaxpr).count('dot_general')
  assert products['none'] < products['minimal'] < products['full']
  assert products['none'] < products['attention'] < products['full']
  if scan_layers:  # Compiling the loop as well would show nothing more.
    grads = {k: v.lower().compile()(params) for k, v in traced.items()}
    for policy in ('minimal', 'attention', 'full'):
      jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6),
        grads[policy],
        grads['none'],
      )


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_initial_cross_entropy_is_near_log_v(dtype):
  # Logits of scale 1 cost half a nat. A wide and shallow model adds some: its
  # last hidden state still resembles the input, whose logit it raises.
  vocab_size = 2048
  module = make(
    vocab_size=vocab_size,
    emb_dim=128,
    head_dim=24,
    mlp_dim=272,
    num_layers=4,
    dtype=dtype,
  )
  tokens = np.random.default_rng(0).integers(0, vocab_size, (4, 65))
  params = jax.jit(module.init)(jax.random.key(0), tokens, tokens)['params']
  attention = params['layers']['attention']
  for kernel, fan_in in [
    (attention['query'], 128),
    (attention['value'], 128),
    (attention['out'], H * 24),
    (params['layers']['mlp']['wo'], 272),
    (params['embedding'], 1),
  ]:
    np.testing.assert_allclose(np.std(kernel), fan_in**-0.5, rtol=0.03)
  loss = jax.jit(functools.partial(cross_entropy, module))(params, tokens)
  assert abs(loss / math.log(vocab_size) - 1) < 0.1


# --- Decoding ---------------------------------------------------------------


def with_cache(module, params, *args, cache=None, **kwargs):
  """One jitted call of the module; returns (logits, cache)."""
  variables = {'params': params} | ({'cache': cache} if cache else {})
  apply = functools.partial(module.apply, mutable=['cache'], **kwargs)
  logits, variables = jax.jit(apply)(variables, *args)
  return logits, variables['cache']


def step_from(module, params, cache, tokens, starts, stop):
  """Feeds tokens[b, starts[b]:] one by one; the logits of each step."""

  @jax.jit
  def step(cache, token):
    return module.apply(
      {'params': params, 'cache': cache},
      token,
      token,
      enable_dropout=False,
      decode=True,
      max_decode_length=T,
      mutable=['cache'],
    )

  rows = np.arange(len(tokens))
  for i in range(stop):
    # Rows at the end keep stepping, as under t5x.
    token = tokens[rows, np.minimum(starts + i, T - 1)][:, None]
    logits, variables = step(cache, token)
    cache = variables['cache']
    yield np.asarray(logits[:, 0])


@pytest.mark.parametrize('scan_layers', [True, False])
@pytest.mark.parametrize('num_kv_heads', [H, 1])
def test_step_by_step_equals_forward(scan_layers, num_kv_heads):
  module = make(scan_layers=scan_layers, num_kv_heads=num_kv_heads)
  params, tokens = parameters(num_kv_heads), some_tokens()
  if not scan_layers:
    params = unstack(params)
  full = tiny.jitted(module)(params, tokens, tokens)
  # The call that makes the cache leaves it empty.
  token = jnp.ones((B, 1), jnp.int32)
  _, empty = with_cache(
    module, params, token, token, decode=True, max_decode_length=T
  )
  layers = (CONFIG.num_layers,) if scan_layers else ()
  name = 'layers' if scan_layers else 'layers_1'
  cache = empty[name]['attention']
  assert cache['cache_index'].shape == (*layers, B)
  assert cache['cached_key'].shape == (*layers, B, T, num_kv_heads, 10)
  assert not any(np.any(x) for x in jax.tree.leaves(empty))
  steps = step_from(module, params, empty, tokens, np.zeros(B, int), T)
  for i, logits in enumerate(steps):
    np.testing.assert_allclose(logits, full[:, i], rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize('bidirectional', [False, True])
@pytest.mark.parametrize('scan_layers, num_kv_heads', [(True, 1), (False, H)])
def test_prefill_then_steps_equal_forward(
  bidirectional, scan_layers, num_kv_heads
):
  module = make(scan_layers=scan_layers, num_kv_heads=num_kv_heads)
  params, tokens = parameters(num_kv_heads), some_tokens()
  if not scan_layers:
    params = unstack(params)
  # As t5x does it: `lengths` indexes the last token of the prompt, which the
  # mask covers and the first step feeds again.
  lengths = np.array([6, 3])
  prompt = (np.arange(T) <= lengths[:, None]).astype(np.int32)
  prefix = prompt if bidirectional else None
  full = tiny.jitted(module)(params, tokens, tokens, None, None, prefix)
  _, cache = with_cache(
    module,
    params,
    tokens * prompt,
    prompt,
    decoder_causal_attention=prefix,
    prefill=True,
    prefill_lengths=lengths,
  )
  steps = step_from(module, params, cache, tokens, lengths, T - 3)
  for i, logits in enumerate(steps):
    for b in range(B):
      if lengths[b] + i < T:
        np.testing.assert_allclose(
          logits[b], full[b, lengths[b] + i], rtol=1e-5, atol=2e-5
        )


def test_a_row_past_the_end_leaves_its_cache_alone():
  module, tokens = make(), some_tokens()
  prefill = {'prefill': True, 'prefill_lengths': np.array([T, T - 2])}
  _, cache = with_cache(module, parameters(), tokens, tokens, **prefill)
  _, after = with_cache(
    module, parameters(), tokens[:, :1], tokens[:, :1], cache=cache, decode=True
  )
  before, after = cache['layers']['attention'], after['layers']['attention']
  changed = np.any(before['cached_key'] != after['cached_key'], axis=(0, 3, 4))
  np.testing.assert_array_equal(changed[0], np.zeros(T, bool))
  np.testing.assert_array_equal(changed[1], np.arange(T) == T - 2)
  np.testing.assert_array_equal(after['cache_index'], [[T + 1, T - 1]] * 2)


@pytest.mark.parametrize(
  'kwargs, message',
  [
    ({'decode': True, 'prefill': True}, 'first'),
    ({'prefill': True}, 'prefill_lengths'),
    ({'decode': True, 'decoder_segment_ids': SEGMENTS}, 'Packed'),
    ({'decode': True, 'max_decode_length': T}, 'one token'),
    ({'decode': True, 'max_decode_length': 2 * T}, 'max_decode_length'),
    ({'prefill': True, 'prefill_lengths': np.ones(B, int)}, 'does not fit'),
  ],
)
def test_misused_cache_is_refused(kwargs, message):
  module, tokens = make(), some_tokens()
  variables = {'params': parameters()}
  shapes = jax.eval_shape(
    functools.partial(module.apply, decode=True, mutable=['cache']),
    variables,
    tokens,
    tokens,
  )
  cache = jax.tree.map(jnp.zeros_like, shapes[1])
  long = some_tokens((B, T + 1)) if 'fit' in message else tokens
  with pytest.raises(ValueError, match=message):
    module.apply(
      {**variables, **cache}, long, long, mutable=['cache'], **kwargs
    )


# --- In t5x's hands ----------------------------------------------------------


@pytest.mark.parametrize(
  'scan_layers, num_kv_heads, bidirectional, num_decodes',
  [(True, 1, True, 1), (True, 1, True, 2), (False, H, False, 1)],
)
def test_t5x_greedy_decoding(
  scan_layers, num_kv_heads, bidirectional, num_decodes
):
  if num_decodes > 1 and engine.current() == engine.EMBEDDED:
    pytest.skip('The embedded engine decodes one continuation of a row.')
  module = make(scan_layers=scan_layers, num_kv_heads=num_kv_heads)
  params = parameters(num_kv_heads)
  if not scan_layers:
    params = unstack(params)
  model = models.DecoderOnlyModel(
    module,
    seqio.PassThroughVocabulary(size=V),
    optimizer_def=None,
    decode_fn=functools.partial(decoding.temperature_sample, topk=1),
    inputs_bidirectional_attention=bidirectional,
  )
  lengths = np.array([6, 3])
  prompt = (np.arange(T) <= lengths[:, None]).astype(np.int32)
  tokens = np.pad(some_tokens((B, T - 1)), [(0, 0), (1, 0)])  # BOS is 0.
  batch = {
    'decoder_input_tokens': tokens,
    'decoder_target_tokens': tokens,
    'decoder_causal_attention': prompt,
  }
  predict = functools.partial(
    model.predict_batch_with_aux,
    **({'num_decodes': num_decodes} if num_decodes > 1 else {}),
    decoder_params={'eos_id': V + 1},  # Never drawn: decode to the end.
  )
  predicted, _ = jax.jit(predict)(params, batch)
  drawn = set()
  for b, length in enumerate(lengths):
    row = (tokens * prompt)[b : b + 1]
    prefix = prompt[b : b + 1] if bidirectional else None
    generated = []
    for i in range(length, T):
      logits = tiny.jitted(module)(
        params, row, prompt[b : b + 1], None, None, prefix
      )
      generated.append(int(logits[0, i].argmax()))
      if i + 1 < T:
        row[0, i + 1] = generated[-1]
    drawn |= set(generated)
    np.testing.assert_array_equal(predicted[b, : T - length], generated)
  assert len(drawn) > 3  # Not just repeated tokens.


@pytest.mark.parametrize('scan_layers', [True, False])
@pytest.mark.parametrize('num_kv_heads', [H, 1])
def test_t5x_adafactor_factors_every_matrix(scan_layers, num_kv_heads):
  module = make(scan_layers=scan_layers, num_kv_heads=num_kv_heads)
  tokens = jnp.ones((1, 2))
  shapes = jax.eval_shape(module.init, jax.random.key(0), tokens, tokens)
  optimizer = adafactor.Adafactor(
    learning_rate=0.1,
    min_dim_size_to_factor=2,
    logical_factor_rules=adafactor.standard_logical_factor_rules(),
  )

  def train(variables):
    state = train_state.FlaxOptimTrainState.create(optimizer, variables)
    return state.apply_gradient(state.params, learning_rate=0.1).state_dict()

  updated = jax.eval_shape(train, shapes)
  params, states = updated['target'], updated['state']['param_states']
  for path, param in jax.tree.flatten_with_path(params)[0]:
    slots = states
    for key in path:
      slots = slots[key.key]
    # A scale keeps one entry per parameter, a kernel rows and columns.
    is_scale = path[-1].key == 'scale'
    assert (slots['v'].shape == param.shape) == is_scale, path
    assert (slots['v_row'].shape == (1,)) == is_scale, path
