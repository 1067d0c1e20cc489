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

"""UL2's denoisers invert, keep their widths, and have the right shares."""

import jax
import numpy as np
import pytest
import seqio
import tensorflow as tf

from salt_t5x import models
from salt_t5x.data import feature_converters, ul2
import tiny

T = 256
EXTRA_IDS = 40
VOCAB_SIZE = 1000


class Vocabulary(seqio.PassThroughVocabulary):
  extra_ids = EXTRA_IDS


VOCABULARY = Vocabulary(VOCAB_SIZE - EXTRA_IDS)
FEATURES = {'targets': seqio.Feature(VOCABULARY)}


def sequences(count, length=T, seed=0):
  """[count, length] tokens below the sentinels."""
  rng = np.random.default_rng(seed)
  return rng.integers(3, VOCAB_SIZE - EXTRA_IDS, (count, length), np.int32)


def dataset(tokens, ids=None, epochs=1):
  ids = np.arange(len(tokens)) * 7919 if ids is None else ids
  data = tf.data.Dataset.from_tensor_slices(
    {'targets': tokens, 'id': np.asarray(ids, np.int64)}
  )
  return tf.data.Dataset.range(epochs).flat_map(
    lambda epoch: data.map(lambda example: {**example, 'epoch': epoch})
  )


def ul2_examples(data, length=T, **options):
  data = ul2.ul2(data, FEATURES, {'targets': length}, **options)
  return list(data.as_numpy_iterator())


def only(denoiser):
  return [float(name == denoiser) for name in ul2.DENOISERS]


def restore(example):
  """Puts each span back in place of its sentinel."""
  inputs, targets = example['inputs'], example['targets']
  if ul2.DENOISERS[example['denoiser']] in ('causal', 'prefix'):
    return np.concatenate([inputs, targets])
  is_sentinel = targets >= VOCAB_SIZE - EXTRA_IDS
  starts = np.flatnonzero(is_sentinel)
  spans = {
    targets[i]: targets[i + 1 : j]
    for i, j in zip(starts, [*starts[1:], len(targets)], strict=True)
  }
  return np.concatenate([spans.get(t, [t]) for t in inputs])


def corrupted_share_and_spans(example):
  targets = example['targets']
  spans = np.sum(targets >= VOCAB_SIZE - EXTRA_IDS)
  tokens = len(targets) - spans
  return tokens / len(restore(example)), tokens / spans


@pytest.mark.parametrize('denoiser', ul2.DENOISERS)
def test_inverts_to_the_tokens_it_read(denoiser):
  tokens = sequences(60)
  for row, example in zip(
    tokens, ul2_examples(dataset(tokens), rates=only(denoiser)), strict=True
  ):
    restored = restore(example)
    np.testing.assert_array_equal(restored, row[: len(restored)])
    width = len(example['inputs']) + len(example['targets'])
    if denoiser in ('causal', 'prefix'):
      assert width == len(restored) == T
    else:
      # All the room is used: one token more would not fit.
      assert T - 3 < width <= T
      assert len(restored) < T


@pytest.mark.parametrize(
  'denoiser, density, length',
  [('short_spans', 0.15, 3.0), ('long_spans', 0.5, 32.0)],
)
def test_share_and_length_of_spans(denoiser, density, length):
  for example in ul2_examples(dataset(sequences(20)), rates=only(denoiser)):
    share, mean = corrupted_share_and_spans(example)
    # Set numbers, rounded to whole tokens and spans.
    assert share == pytest.approx(density, abs=1 / T)
    assert mean == pytest.approx(length, rel=0.06)


def test_sentinels_are_t5s():
  """The vocabulary's last ids, counting down; each once on either side."""
  for example in ul2_examples(dataset(sequences(5)), rates=only('short_spans')):
    for side in ('inputs', 'targets'):
      found = [t for t in example[side] if t >= VOCAB_SIZE - EXTRA_IDS]
      assert found == list(
        range(VOCAB_SIZE - 1, VOCAB_SIZE - 1 - len(found), -1)
      )
      assert len(found) == 12
    assert example['targets'][0] == VOCAB_SIZE - 1


def test_lengths_at_the_papers_size():
  """Design: about 1,163 of 1,280 tokens at r = 15%, and 1,241 at 50%."""
  short, long = ul2.SHORT_SPANS, ul2.LONG_SPANS
  assert short.tokens_read(1280) == 1164 and short.counts(1164) == (175, 58)
  assert long.tokens_read(1280) == 1242 and long.counts(1242) == (621, 19)


def test_span_lengths_vary_uniformly():
  """Every way to cut n into k is as likely: the first part is geometric."""
  cut = tf.function(lambda draws: ul2._split_evenly_at_random(10, 3, draws))
  counts = np.zeros(9)
  n = 3000
  for draws in np.random.default_rng(0).random((n, 9), np.float32):
    parts = np.diff(cut(tf.constant(draws)))
    assert parts.sum() == 10 and parts.min() >= 1
    counts[parts[0]] += 1
  # Of 36 ways to cut 10 in three, 9 - a have a first part of a.
  expected = np.array([0, *(np.arange(8, 0, -1) / 36)]) * n
  error = np.sqrt(expected * (1 - expected / n))
  assert np.all(np.abs(counts - expected) <= 4 * error + 1e-9)


def test_shares_of_the_denoisers_and_mean_prefix():
  n = 6000
  examples = ul2_examples(dataset(sequences(n)))
  drawn = np.bincount([e['denoiser'] for e in examples], minlength=4) / n
  expected = np.array([0.6, 0.2, 0.1, 0.1])
  error = np.sqrt(expected * (1 - expected) / n)
  assert np.all(np.abs(drawn - expected) < 4 * error), drawn
  prefixes = [len(e['inputs']) for e in examples if e['denoiser'] == 1]
  # Uniform on 1 to T/2 - 1.
  error = (T / 2) / np.sqrt(12 * len(prefixes))
  assert np.mean(prefixes) == pytest.approx(T / 4, abs=4 * error)
  assert min(prefixes) >= 1 and max(prefixes) < T / 2


def test_mode_tokens_name_the_denoiser_and_fit():
  tokens = sequences(200)
  plain = ul2_examples(dataset(tokens[:, : T - 1]), length=T - 1)
  first = VOCAB_SIZE - EXTRA_IDS
  modes = {
    'causal': first,
    'prefix': first,
    'short_spans': first + 1,
    'long_spans': first + 2,
  }
  examples = ul2_examples(dataset(tokens), mode_tokens=True)
  for row, example in zip(tokens, examples, strict=True):
    denoiser = ul2.DENOISERS[example['denoiser']]
    assert example['inputs'][0] == modes[denoiser]
    rest = example | {'inputs': example['inputs'][1:]}
    restored = restore(rest)
    np.testing.assert_array_equal(restored, row[: len(restored)])
    assert len(example['inputs']) + len(example['targets']) <= T
  assert {int(e['denoiser']) for e in examples} == {0, 1, 2, 3}
  # The mode takes the place of the last token, and nothing else.
  drawn = [e['denoiser'] for e in examples]
  assert drawn == [e['denoiser'] for e in plain]


def test_mode_tokens_need_extra_ids():
  needed = ul2.extra_ids_needed(T)
  assert needed == 12
  assert ul2.extra_ids_needed(T, mode_tokens=True) == needed + 3
  causal = only('causal')
  assert ul2.extra_ids_needed(T, causal) == 0
  assert ul2.extra_ids_needed(T, causal, mode_tokens=True) == 3


def by_id(examples):
  return {
    e['id']: (e['denoiser'], e['inputs'].tolist(), e['targets'].tolist())
    for e in examples
  }


def test_corruption_hangs_on_the_id_and_not_on_the_position():
  tokens, ids = sequences(40), np.arange(40) * 31
  order = np.random.default_rng(1).permutation(40)
  here = by_id(ul2_examples(dataset(tokens, ids)))
  there = by_id(ul2_examples(dataset(tokens[order], ids[order]).shard(2, 1)))
  assert len(there) == 20
  assert there == {i: here[i] for i in there}
  assert by_id(ul2_examples(dataset(tokens, ids), seed=1)) != here


def test_each_epoch_has_its_own_corruption_which_is_reproducible():
  data = dataset(sequences(30), epochs=3)
  one, other = ul2_examples(data), ul2_examples(data)
  assert by_id(one[:30]) != by_id(one[30:60])
  for a, b in zip(one, other, strict=True):
    np.testing.assert_array_equal(a['inputs'], b['inputs'])
    np.testing.assert_array_equal(a['targets'], b['targets'])


def test_epochs_are_counted_where_the_data_do_not_number_them():
  tokens = sequences(30)
  numbered = ul2_examples(dataset(tokens, epochs=3))
  without = ul2_examples(
    dataset(tokens, epochs=3).map(
      lambda example: {k: v for k, v in example.items() if k != 'epoch'}
    )
  )
  for a, b in zip(numbered, without, strict=True):
    assert a['epoch'] == b['epoch']
    np.testing.assert_array_equal(a['inputs'], b['inputs'])
    np.testing.assert_array_equal(a['targets'], b['targets'])


def test_iterator_resumes_across_an_epochs_end(tmp_path):
  data = ul2.ul2(dataset(sequences(10), epochs=99), FEATURES, {'targets': T})
  iterator = iter(data)
  for _ in range(7):
    next(iterator)
  path = tf.train.Checkpoint(ds=iterator).write(str(tmp_path / 'ds'))
  expected = [next(iterator) for _ in range(12)]
  restored = iter(data)
  tf.train.Checkpoint(ds=restored).read(path).assert_consumed()
  for a in expected:
    b = next(restored)
    for name in a:
      np.testing.assert_array_equal(a[name], b[name])


@pytest.mark.parametrize(
  'rates', [(1, 1, 1), (0, 0, 0, 0), (1, 1, 1, -1), (float('nan'),) * 4]
)
def test_rates_that_are_none(rates):
  with pytest.raises(ValueError, match=r'ul2\.rates'):
    ul2_examples(dataset(sequences(1)), rates=rates)


def test_too_few_sentinels():
  with pytest.raises(ValueError, match='40 extra ids.*needs 58'):
    ul2_examples(dataset(sequences(1, 1280)), length=1280)
  # Without span corruption none are needed.
  assert ul2_examples(
    dataset(sequences(1, 1280)), length=1280, rates=only('prefix')
  )


@pytest.mark.parametrize('options', [(0.0, 3.0), (1.0, 3.0), (0.5, 0.5)])
def test_span_corruption_out_of_range(options):
  with pytest.raises(ValueError, match='SpanCorruption'):
    ul2.SpanCorruption(*options)


# --- Feature conversion -------------------------------------------------------


def convert(examples, pack=False, length=T):
  features = {k: [e[k] for e in examples] for k in ('inputs', 'targets')}
  data = tf.data.Dataset.from_generator(
    lambda: (
      {'inputs': i, 'targets': t}
      for i, t in zip(features['inputs'], features['targets'], strict=True)
    ),
    output_signature={
      k: tf.TensorSpec([None], tf.int32) for k in ('inputs', 'targets')
    },
  )
  converter = feature_converters.FixedWidthFeatureConverter(pack=pack)
  lengths = {'inputs': length, 'targets': length}
  return list(converter(data, lengths).as_numpy_iterator())


def test_every_denoiser_is_t_wide():
  examples = ul2_examples(dataset(sequences(120)))
  assert len({int(e['denoiser']) for e in examples}) == 4
  for example, batch in zip(examples, convert(examples), strict=True):
    assert {v.shape for v in batch.values()} == {(T,)}
    n, m = len(example['inputs']), len(example['targets'])
    both = np.concatenate([example['inputs'], example['targets']])
    padding = np.zeros(T - n - m, np.int32)
    np.testing.assert_array_equal(
      batch['decoder_target_tokens'], np.concatenate([both, padding])
    )
    np.testing.assert_array_equal(batch['decoder_input_tokens'][0], 0)
    np.testing.assert_array_equal(
      batch['decoder_input_tokens'][1 : n + m], both[:-1]
    )
    np.testing.assert_array_equal(
      batch['decoder_loss_weights'], [0] * n + [1] * m + [0] * len(padding)
    )
    # The inputs, and the position that predicts the first target.
    np.testing.assert_array_equal(
      batch['decoder_causal_attention'], [1] * (n + 1) + [0] * (T - n - 1)
    )


def test_prefix_is_seen_in_both_directions_and_bears_no_loss():
  """The batch in a model's hands, student and teacher alike."""
  tokens = sequences(64)
  examples = [e for e in ul2_examples(dataset(tokens)) if e['denoiser'] == 1][
    :4
  ]
  rows = convert(examples)
  batch = {k: np.stack([r[k] for r in rows]) for k in rows[0]}
  model = tiny.make_model(
    VOCABULARY,
    vocab_size=VOCAB_SIZE,
    inputs_bidirectional_attention=True,
  )
  params = model.get_initial_variables(
    jax.random.key(0),
    {'decoder_input_tokens': (4, T)},
    {'decoder_input_tokens': np.int32},
  )['params']

  @jax.jit
  def parts(batch):
    loss, metrics = model.distillation_loss_fn(
      params,
      batch,
      None,
      teacher_model=model,
      teacher_params=params,
      distillation_weight=0.5,
      teacher_temperature=1.0,
      top_k=None,
    )
    hidden, _ = models.hidden_and_embedding(model, params, batch)
    return loss, metrics['salt/agreement'].compute(), hidden

  loss, agreement, hidden = parts(batch)
  assert np.isfinite(loss) and agreement == 1
  # Another last input token changes what the first position sees.
  changed = {k: v.copy() for k, v in batch.items()}
  lengths = [len(e['inputs']) for e in examples]
  for row, n in enumerate(lengths):
    changed['decoder_input_tokens'][row, n] += 1
  other_loss, _, other_hidden = parts(changed)
  assert np.all(np.any(hidden[:, 0] != other_hidden[:, 0], axis=-1))
  assert loss != other_loss
  # Other targets on the inputs' places do not: they bear no loss.
  for row, n in enumerate(lengths):
    changed = {k: v.copy() for k, v in batch.items()}
    changed['decoder_target_tokens'][row, :n] += 1
    assert parts(changed)[0] == loss


def test_packs_short_examples():
  examples = [
    {'inputs': np.array([5, 6], np.int32), 'targets': np.array([7], np.int32)},
    {'inputs': np.array([8], np.int32), 'targets': np.array([9], np.int32)},
  ]
  (batch,) = convert(examples, pack=True, length=6)
  expected = {
    'decoder_target_tokens': [5, 6, 7, 8, 9, 0],
    'decoder_input_tokens': [0, 5, 6, 0, 8, 0],
    'decoder_loss_weights': [0, 0, 1, 0, 1, 0],
    'decoder_causal_attention': [1, 1, 1, 1, 1, 0],
    'decoder_segment_ids': [1, 1, 1, 2, 2, 0],
    'decoder_positions': [0, 1, 2, 0, 1, 0],
  }
  assert {k: v.tolist() for k, v in batch.items()} == expected


def test_truncates_long_sequences():
  long = {'inputs': np.arange(3, 8), 'targets': np.arange(8, 13)}
  (batch,) = convert(
    [{k: v.astype(np.int32) for k, v in long.items()}], length=6
  )
  assert batch['decoder_target_tokens'].tolist() == [3, 4, 5, 6, 7, 8]
  assert batch['decoder_loss_weights'].tolist() == [0, 0, 0, 0, 0, 1]
