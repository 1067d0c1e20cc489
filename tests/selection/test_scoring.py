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

"""The scores against the NumPy reference, on real text, and as inequalities."""

import functools

from hypothesis import given, settings, strategies
from hypothesis.extra import numpy as array_strategies
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import seqio

import reference
from salt_t5x import models
from salt_t5x.kernels import token_statistics
from salt_t5x.selection import scoring
import tiny

B, T, D, V = 4, 21, 6, 150
KINDS = ('zero', 'drop', 'easy', 'mean', 'median')


def make_inputs(seed=0, batch=B, length=T, dtype=np.float32):
  """Random inputs; the sequences are T, T - 1, ... tokens long."""
  rng = np.random.default_rng(seed)
  lengths = length - np.arange(batch)[:, None] % length
  return dict(
    hidden=rng.normal(size=(batch, length, D)).astype(dtype),
    embedding=rng.normal(size=(V, D)).astype(dtype),
    targets=rng.integers(0, V, size=(batch, length)),
    weights=(np.arange(length) < lengths).astype(np.float32),
  )


@functools.partial(jax.jit, static_argnames=('vocab_size', 'top_k', 'chunk'))
def score(
  hidden, embedding, targets, weights, vocab_size=V, top_k=10, chunk=32
):
  statistics = token_statistics.token_statistics(
    hidden,
    embedding,
    targets,
    vocab_size=vocab_size,
    top_k=top_k,
    chunk=chunk,
  )
  return scoring.scores(*statistics, weights)


def expected_scores(x, logits, top_k):
  """{kind: [B] float64} of [B, T, V] logits."""
  rows = list(zip(logits, x['targets'], x['weights'] > 0, strict=True))
  return {
    kind: np.array([reference.score(*row, top_k, kind) for row in rows])
    for kind in KINDS
  }


def dense_logits(x):
  f64 = lambda k: np.asarray(x[k]).astype(np.float64)
  return f64('hidden') @ f64('embedding').T


def assert_close(got, expected, **tolerance):
  assert got.keys() == expected.keys()
  for kind in expected:
    np.testing.assert_allclose(
      got[kind], expected[kind], err_msg=kind, **(dict(rtol=2e-6) | tolerance)
    )


@pytest.mark.parametrize('top_k', [1, 10, 100, V, V + 5])
def test_equals_the_reference(top_k):
  """21 positions are no multiple of 32 / B; sequences are shorter than T."""
  x = make_inputs()
  expected = expected_scores(x, dense_logits(x), top_k)
  got = score(**x, top_k=top_k)
  assert_close(got, expected)
  if top_k == 100:
    # Neither reading is trivial here.
    assert np.all((expected['easy'] > 0.5) & (expected['easy'] < 1))
    assert np.all(expected['zero'] < expected['drop'])
  if top_k >= V:
    assert np.all(got['easy'] == 1)


def test_names_and_dtypes():
  x = make_inputs()
  log_perplexity, learnable = token_statistics.token_statistics(
    x['hidden'], x['embedding'], x['targets'], vocab_size=V, top_k=10
  )
  assert (log_perplexity.dtype, learnable.dtype) == (jnp.float32, bool)
  assert log_perplexity.shape == learnable.shape == (B, T)
  got = scoring.scores(log_perplexity, learnable, x['weights'])
  assert tuple(got) == KINDS
  assert {(v.shape, v.dtype.name) for v in got.values()} == {((B,), 'float32')}


@pytest.mark.parametrize('top_k', range(1, 7))
def test_equal_logits_rank_by_token(top_k):
  """k tokens are learnable, those of `jax.lax.top_k`."""
  logits = np.array([[[1.0, 2.0, 3.0, 2.0, 2.0]] * 5], np.float32)
  _, learnable = token_statistics.token_statistics(
    logits, None, np.arange(5)[None], vocab_size=5, top_k=top_k
  )
  expected = np.zeros(5, bool)
  expected[jax.lax.top_k(logits[0, 0], min(top_k, 5))[1]] = True
  np.testing.assert_array_equal(learnable, [expected])


@pytest.mark.parametrize('top_k', [1, 3, 5])
def test_nan_is_never_learnable(top_k):
  """NaN ranks first, so it takes a place, and hits nothing."""
  nan = np.nan
  logits = np.array(
    [[[nan] * 5] * 5, [[0, nan, 2, 1, -np.inf]] * 5], np.float32
  )
  log_perplexity, learnable = token_statistics.token_statistics(
    logits, None, np.arange(5)[None].repeat(2, 0), vocab_size=5, top_k=top_k
  )
  assert np.all(np.isnan(log_perplexity))
  rank = np.array([3, 0, 1, 2, 4])
  expected = [[False] * 5, (rank < top_k) & (np.arange(5) != 1)]
  np.testing.assert_array_equal(learnable, expected)


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
def test_equal_rows_of_the_embedding_tie_exactly(dtype):
  """A target's own logit is never above it; a lower copy ranks just before."""
  x = make_inputs(2)
  x['embedding'][V // 2 :] = x['embedding'][: V // 2]
  x['hidden'], x['embedding'] = (
    jnp.asarray(x[k], dtype) for k in ('hidden', 'embedding')
  )
  x['targets'] %= V // 2
  # Copies come in pairs: the lower one has an odd place, the other the next.
  first = score(**x, top_k=9)
  second = score(**(x | dict(targets=x['targets'] + V // 2)), top_k=10)
  assert_close(first, expected_scores(x, dense_logits(x), 9), rtol=1e-5)
  for kind in first:
    np.testing.assert_array_equal(first[kind], second[kind])
  # Only the most likely token is first, and not its copy.
  for copy, share in (0, 1), (V // 2, 0):
    top = dense_logits(x)[..., : V // 2].argmax(-1) + copy
    assert np.all(score(**(x | dict(targets=top)), top_k=1)['easy'] == share)


def test_bfloat16_teacher_is_computed_in_float32():
  """Products of bfloat16 are exact in float32, so only sums round.

  A logit of 6 terms below 8 in size is then good to 6 * 2^-24 * 8, about 3e-6;
  in bfloat16 it would be to 2^-9 * 8, about 2e-2.
  """
  x = make_inputs(3)
  x |= {k: jnp.asarray(x[k], jnp.bfloat16) for k in ('hidden', 'embedding')}
  for top_k in 1, 10, 100:
    expected = expected_scores(x, dense_logits(x), top_k)
    assert_close(score(**x, top_k=top_k), expected, rtol=0, atol=1e-5)
  # The hidden states' dtype is the dtype of the product.
  wide = x | dict(embedding=x['embedding'].astype(jnp.float32))
  assert_close(score(**wide), score(**x), rtol=0)


def test_padding_rows_of_the_embedding_take_no_part():
  x = make_inputs(4)
  rng = np.random.default_rng(0)
  rows = 10 * rng.normal(size=(30, D)).astype(np.float32)
  padded = x | dict(embedding=np.concatenate([x['embedding'], rows]))
  assert_close(score(**padded), score(**x), rtol=1e-6)
  logits = (padded['hidden'] @ padded['embedding'].T, None)
  from_logits = padded | dict(zip(('hidden', 'embedding'), logits, strict=True))
  assert_close(score(**from_logits), score(**x), rtol=1e-5)


def test_padding_tokens_do_not_count():
  x = make_inputs(5)
  shorter = {k: v if k == 'embedding' else v[:, :9] for k, v in x.items()}
  shorter['weights'] = np.ones_like(shorter['weights'])
  longer = x | dict(weights=(np.arange(T) < 9) * np.full((B, 1), 0.5))
  assert_close(score(**longer), score(**shorter), rtol=1e-6)


def test_first_token_counts():
  x = make_inputs(6)
  x['weights'] = (np.arange(T) < 1) * np.ones((B, 1))
  first, _ = token_statistics.token_statistics(
    x['hidden'], x['embedding'], x['targets'], vocab_size=V, top_k=10
  )
  np.testing.assert_array_equal(score(**x)['median'], first[:, 0])


def test_a_sequence_without_tokens_scores_zero():
  x = make_inputs(7)
  x['weights'][1] = 0
  got = score(**x)
  assert all(values[1] == 0 for values in got.values())
  assert_close(got, expected_scores(x, dense_logits(x), 10))


def test_drop_without_a_learnable_token_is_zero():
  logits = np.zeros((1, 3, 4), np.float32)
  logits[..., 0] = 5
  targets = np.array([[1, 2, 3]])
  got = score(logits, None, targets, np.ones((1, 3)), vocab_size=4, top_k=1)
  assert got['drop'] == got['zero'] == got['easy'] == 0
  assert got['median'] > 5


def test_extreme_logits_stay_finite():
  """A sure and right token has log-perplexity +0.0, not -0.0."""
  logits = np.full((1, 2, 4), -3e4, np.float32)
  logits[..., 2] = 3e4
  log_perplexity, learnable = token_statistics.token_statistics(
    logits, None, np.array([[2, 1]]), vocab_size=4, top_k=1
  )
  np.testing.assert_array_equal(log_perplexity, [[0, 6e4]])
  assert not np.signbit(log_perplexity).any()
  np.testing.assert_array_equal(learnable, [[True, False]])


@pytest.mark.parametrize('chunk', [1, 5 * B, B * T, 1000])
def test_chunks_do_not_matter(chunk):
  x = make_inputs(8)
  assert_close(score(**x, chunk=chunk), score(**x), rtol=1e-5)


@pytest.mark.usefixtures('optimized')
def test_no_array_of_the_logits_exists():
  """The largest array beside the inputs is one chunk's logits."""
  x = make_inputs(9, length=64)
  program = score.lower(**x, chunk=4 * B).compile()
  text = program.as_text()
  assert f'[4,{B},{V}]' in text or f'[{4 * B},{V}]' in text
  assert f'[64,{B},{V}]' not in text and f'[{B},64,{V}]' not in text
  assert f'[{64 * B},{V}]' not in text and f'[16,4,{B},{V}]' not in text
  # A few copies of one chunk's, where all logits are 16 chunks.
  limit = 6 * (4 * 4 * B * V) + x['hidden'].nbytes
  assert program.memory_analysis().temp_size_in_bytes < limit


def test_neighbours_do_not_matter_bitwise():
  """A sequence scores the same wherever it is in a batch, with whomever."""
  x = make_inputs(10, batch=8)
  names = [k for k in x if k != 'embedding']
  expected = score(**x)
  order = np.random.default_rng(0).permutation(8)
  permuted = score(**(x | {k: x[k][order] for k in names}))
  # The last partial batch of a run: three sequences and padding.
  partial = {k: np.concatenate([x[k][:3], 0 * x[k][3:]]) for k in names}
  padded = score(**(x | partial))
  for kind, values in expected.items():
    np.testing.assert_array_equal(permuted[kind], values[order])
    np.testing.assert_array_equal(padded[kind][:3], values[:3])
    np.testing.assert_array_equal(padded[kind][3:], 0)


@pytest.fixture(scope='module')
def text_batch():
  """Bytes of Python's documentation strings, of different lengths."""
  vocabulary = seqio.ByteVocabulary()
  texts = [int.__doc__, str.split.__doc__, dict.__doc__, abs.__doc__]
  targets = np.zeros((4, 100), np.int32)
  for row, text in zip(targets, texts, strict=True):
    ids = vocabulary.encode(text)[:100]
    row[: len(ids)] = ids
  assert len({(row > 0).sum() for row in targets}) > 1
  return tiny.batch_of(targets)


@pytest.mark.parametrize(
  'dtype,logits_only', [('float32', False), ('bfloat16', True)]
)
def test_a_model_on_real_text(text_batch, dtype, logits_only):
  vocabulary = seqio.ByteVocabulary()
  rows = vocabulary.vocab_size + 5
  model = tiny.make_model(vocabulary, vocab_size=rows, dtype=dtype)
  if logits_only:
    model.module = tiny.LogitsOnly(model.module.config)
  tokens = [
    text_batch[f'decoder_{name}_tokens'] for name in ('input', 'target')
  ]

  @jax.jit
  def run():
    params = model.module.init(jax.random.key(0), *tokens)['params']
    logits = model.module.apply({'params': params}, *tokens)
    return logits, models.hidden_and_embedding(model, params, text_batch)

  logits, (hidden, embedding) = run()
  logits = np.asarray(logits, np.float64)[..., : vocabulary.vocab_size]
  assert (embedding is None) == logits_only
  x = dict(
    targets=text_batch['decoder_target_tokens'],
    weights=text_batch['decoder_loss_weights'],
  )
  for top_k in 1, 10, 100:
    got = score(
      hidden,
      embedding,
      **x,
      vocab_size=vocabulary.vocab_size,
      top_k=top_k,
      chunk=128,
    )
    assert_close(got, expected_scores(x, logits, top_k), rtol=2e-5)


def _arrays(dtype, **options):
  return array_strategies.arrays(dtype, (3, 8), **options)


@settings(max_examples=300, derandomize=True)
@given(
  _arrays(
    np.float32,
    # XLA may flush subnormal numbers to 0.
    elements=strategies.floats(0, 2.0**60, width=32, allow_subnormal=False)
    | strategies.sampled_from([0.0, 1.0, 2.0]),
  ),
  _arrays(bool),
  _arrays(np.float32, elements=strategies.sampled_from([0.0, 1.0])),
)
def test_inequalities(log_perplexity, learnable, weights):
  got = jax.jit(scoring.scores)(log_perplexity, learnable, weights)
  got = {kind: np.asarray(values) for kind, values in got.items()}
  for values in got.values():
    assert np.isfinite(values).all() and not np.signbit(values).any()
  assert np.all(got['easy'] <= 1)
  # A gated loss is its loss or 0, and a median keeps the order.
  assert np.all(got['zero'] <= got['median'])
  # `drop` leaves out the zeros of `zero`.
  assert np.all(got['zero'] <= got['drop'])
  for b, tokens in enumerate(weights > 0):
    inside = learnable[b] & tokens
    values = log_perplexity[b]
    if 2 * inside.sum() < tokens.sum():
      assert got['zero'][b] == 0
    if inside.sum() == tokens.sum():
      assert got['zero'][b] == got['drop'][b] == got['median'][b]
    if inside.any():
      assert values[inside].min() <= got['drop'][b] <= values[inside].max()
    if tokens.any():
      # At least half of the tokens are no less than the median.
      mean = got['mean'][b].astype(np.float64)
      assert mean >= got['median'][b] / 2 * (1 - 1e-5)
      low, high = values[tokens].min(), values[tokens].max()
      assert low * (1 - 1e-6) <= mean <= high * (1 + 1e-6)
      np.testing.assert_array_equal(got['median'][b], np.median(values[tokens]))


@pytest.mark.parametrize(
  'options', [dict(top_k=0), dict(chunk=0), dict(vocab_size=V + 1)]
)
def test_rejects_options(options):
  (name, value), *_ = options.items()
  with pytest.raises(ValueError, match=f'{name} = {value}'):
    score(**make_inputs(), **options)
