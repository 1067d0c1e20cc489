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


"""UL2 over 20,000 sequences of real text, compared with the `t5` package."""

import pathlib
import sysconfig

import numpy as np
import pytest
import seqio
import tensorflow as tf

from salt_t5x.data import feature_converters, ul2

COUNT = 20_000
T = 256
BATCH = 50
EXTRA_IDS = 40
FIRST_SENTINEL = 259 + EXTRA_IDS - 1
FEATURE = seqio.Feature(seqio.ByteVocabulary(EXTRA_IDS), add_eos=False)
FEATURES = {'inputs': FEATURE, 'targets': FEATURE}


@pytest.fixture(scope='module')
def sequences():
  """[COUNT, T] bytes of the running Python's own library, as ByT5 counts."""
  size, pieces = 0, []
  root = pathlib.Path(sysconfig.get_path('stdlib'))
  for path in sorted(root.rglob('*.py')):
    pieces.append(path.read_bytes())
    size += len(pieces[-1])
    if size >= COUNT * T:
      break
  data = np.frombuffer(b''.join(pieces), np.uint8)[: COUNT * T]
  return data.reshape(COUNT, T).astype(np.int32) + 3


@pytest.fixture(scope='module')
def dataset(sequences):
  data = tf.data.Dataset.from_tensor_slices(
    {
      'targets': sequences,
      'id': np.arange(COUNT) * 6_700_417,
      'epoch': np.zeros(COUNT, np.int64),
    }
  )
  return ul2.ul2(data, FEATURES, {'targets': T})


@pytest.fixture(scope='module')
def examples(dataset):
  return list(dataset.as_numpy_iterator())


def spans_of(targets):
  """The targets' spans, each behind its sentinel."""
  starts = np.flatnonzero(targets > FIRST_SENTINEL - EXTRA_IDS)
  return [s[1:] for s in np.split(targets, starts)[1:]]


def within(values, expected, slack=0.0):
  """Asserts a mean within four standard errors."""
  error = np.std(values, ddof=1) / np.sqrt(len(values))
  assert abs(np.mean(values) - expected) <= 4 * error + slack


def test_shares_of_the_denoisers(examples):
  drawn = np.array([e['denoiser'] for e in examples])
  for index, rate in enumerate((0.6, 0.2, 0.1, 0.1)):
    within(drawn == index, rate)


def test_mean_prefix_is_a_quarter(examples):
  lengths = [len(e['inputs']) for e in examples if e['denoiser'] == 1]
  within(lengths, T / 4)
  # Uniform: its variance, too.
  spread = np.var(lengths)
  assert spread == pytest.approx((T / 2 - 1) ** 2 / 12, rel=0.05)


@pytest.mark.parametrize(
  ('denoiser', 'density', 'length'), [(2, 0.15, 3.0), (3, 0.5, 32.0)]
)
def test_share_of_tokens_corrupted_and_mean_span(
  examples, denoiser, density, length
):
  chosen = [
    spans_of(e['targets']) for e in examples if e['denoiser'] == denoiser
  ]
  assert len(chosen) > 1800
  read = (ul2.SHORT_SPANS, ul2.LONG_SPANS)[denoiser - 2].tokens_read(T)
  corrupted = [sum(map(len, spans)) for spans in chosen]
  # Whole tokens and spans: each number is rounded, and the same in all.
  within(np.array(corrupted) / read, density, slack=0.5 / read)
  lengths = [len(span) for spans in chosen for span in spans]
  spans = len(chosen[0])
  within(lengths, length, slack=length * 0.5 / spans + 0.5 / spans)


def test_every_example_inverts_to_the_tokens_it_read(examples, sequences):
  for example, row in zip(examples, sequences, strict=True):
    inputs, targets = example['inputs'], example['targets']
    if example['denoiser'] < 2:
      restored = np.concatenate([inputs, targets])
      assert len(restored) == T
    else:
      spans = iter(spans_of(targets))
      restored = []
      for token in inputs:
        is_sentinel = token > FIRST_SENTINEL - EXTRA_IDS
        restored.extend(next(spans) if is_sentinel else [token])
      assert next(spans, None) is None
      assert len(inputs) + len(targets) <= T
    np.testing.assert_array_equal(restored, row[: len(restored)])


def test_every_batch_is_b_by_t(dataset):
  converter = feature_converters.FixedWidthFeatureConverter(pack=False)
  batches = converter(dataset, {'targets': T}).batch(BATCH)
  count = 0
  for batch in batches.as_numpy_iterator():
    assert {v.shape for v in batch.values()} == {(BATCH, T)}
    count += 1
  assert count == COUNT // BATCH


# --- Beside T5's own span corruption ------------------------------------------


@pytest.fixture(scope='module')
def t5():
  return pytest.importorskip(
    't5.data.preprocessors', reason='the package t5 is not installed'
  )


def masks_of(corruption, length, count):
  """[count, length] of what our corruption takes out of `length` tokens."""
  tokens = tf.range(length) + 1000
  width = length + 2 * corruption.counts(length)[1]
  padded = tf.pad(tokens, [[0, width - length]])
  assert corruption.tokens_read(width) == length

  def mask(draws):
    inputs, _ = ul2.corrupt_spans(padded, corruption, 900, draws)
    kept = tf.boolean_mask(inputs, inputs >= 1000) - 1000
    return 1 - tf.scatter_nd(kept[:, None], tf.ones_like(kept), [length])

  draws = np.random.default_rng(0).random((count, width), np.float32)
  masks = tf.map_fn(mask, draws, fn_output_signature=tf.int32)
  return masks.numpy().astype(bool)


def t5_masks(t5, corruption, length, count):
  @tf.function
  def mask(seed):
    return t5.random_spans_noise_mask(
      length,
      corruption.noise_density,
      tf.stack([[seed, 1], [seed, 2]]),
      corruption.mean_span_length,
    )

  return np.stack([mask(seed).numpy() for seed in tf.range(count)])


def span_lengths(masks, length):
  """[length + 1] counts of runs of corrupted tokens, over all masks."""
  edges = np.diff(np.pad(masks, [(0, 0), (1, 1)]).astype(int), axis=1)
  starts, ends = np.argwhere(edges == 1), np.argwhere(edges == -1)
  return np.bincount(ends[:, 1] - starts[:, 1], minlength=length + 1)


@pytest.mark.parametrize(
  ('corruption', 'length'),
  [(ul2.SHORT_SPANS, 232), (ul2.LONG_SPANS, 248)],
)
def test_masks_agree_in_distribution_with_t5s(t5, corruption, length):
  count = 1000
  ours = masks_of(corruption, length, count)
  theirs = t5_masks(t5, corruption, length, count)
  # The numbers of tokens and of spans are the same in every mask.
  for masks in (ours, theirs):
    assert set(masks.sum(1)) == {corruption.counts(length)[0]}
    assert np.all(
      np.diff(np.pad(masks, [(0, 0), (1, 1)])).sum(1)
      == 2 * (corruption.counts(length)[1])
    )
  # How often each place is corrupted: four standard errors of the difference.
  p, q = ours.mean(0), theirs.mean(0)
  error = np.sqrt((p * (1 - p) + q * (1 - q)) / count)
  assert np.all(np.abs(p - q) <= 4 * error + 1e-9)
  # How long the spans are.
  a, b = span_lengths(ours, length), span_lengths(theirs, length)
  common = (a + b) >= 50
  deviation = (a - b)[common] / np.sqrt((a + b)[common])
  assert common.sum() > 8
  assert np.all(np.abs(deviation) <= 4)


@pytest.mark.parametrize('corruption', [ul2.SHORT_SPANS, ul2.LONG_SPANS])
def test_the_same_mask_gives_t5s_inputs_and_targets(t5, sequences, corruption):
  """Sentinels and their order, token for token."""
  length = corruption.tokens_read(T)
  vocabulary = FEATURE.vocabulary
  for i in range(20):
    row = tf.constant(sequences[i])
    draws = np.random.default_rng(i).random(T, np.float32)
    positions, _ = ul2.corrupt_spans(tf.range(T) + 1000, corruption, 900, draws)
    kept = positions[positions >= 1000].numpy() - 1000
    mask = tf.constant(~np.isin(np.arange(length), kept))
    inputs, targets = ul2.corrupt_spans(row, corruption, FIRST_SENTINEL, draws)
    np.testing.assert_array_equal(
      inputs,
      t5.noise_span_to_unique_sentinel(row[:length], mask, vocabulary, None),
    )
    np.testing.assert_array_equal(
      targets,
      t5.nonnoise_span_to_unique_sentinel(row[:length], mask, vocabulary, None),
    )
