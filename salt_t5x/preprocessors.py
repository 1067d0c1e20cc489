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

"""UL2 for a decoder-only model, as seqio preprocessors (App. E).

An example comes as `targets`, one sequence of T tokens, and a stable `id`; it
leaves as `inputs` (attended to in both directions, no loss) and `targets`
(predicted one after the other), together at most T tokens:

  causal LM        inputs none, targets all T tokens;
  prefix LM        the sequence cut in two, the prefix T/4 tokens on average;
  span corruption  a share r of the tokens, in spans of mean length µ, leaves
                   the inputs: a sentinel stands for each span there, and the
                   targets hold each sentinel followed by its span.

Two sentinels a span must fit, too, so span corruption reads the first L_d < T
tokens and leaves the sequence's tail unused.

All that is random hangs on the seed, the example's id and the epoch, and on
nothing else: not on its position, the host, or where a run was resumed.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import functools

import numpy as np
import seqio
import tensorflow as tf

Example = Mapping[str, tf.Tensor]

# The paper's mixture, 6:2:1:1.
RATES = (6.0, 2.0, 1.0, 1.0)


@dataclasses.dataclass(frozen=True)
class SpanCorruption:
  """Span corruption: r `noise_density`, µ `mean_span_length`."""

  noise_density: float
  mean_span_length: float

  def __post_init__(self):
    if not 0 < self.noise_density < 1 or not self.mean_span_length >= 1:
      raise ValueError(
        f'preprocessors.SpanCorruption({self.noise_density}, '
        f'{self.mean_span_length}): r lies between 0 and 1, and a span has at '
        'least one token.'
      )

  def counts(self, length: int) -> tuple[int, int]:
    """Returns (corrupted tokens, spans) of a sequence of `length` tokens."""
    tokens = min(max(round(length * self.noise_density), 1), length - 1)
    spans = max(round(tokens / self.mean_span_length), 1)
    # A span holds a token and is followed by one, but for the last.
    return tokens, min(spans, tokens, length - tokens)

  def tokens_read(self, sequence_length: int) -> int:
    """L_d: how many tokens fit in T together with their sentinels."""
    for length in range(sequence_length, 1, -1):
      if length + 2 * self.counts(length)[1] <= sequence_length:
        return length
    raise ValueError(f'Sequences of {sequence_length} tokens are too short.')


SHORT_SPANS = SpanCorruption(0.15, 3.0)
LONG_SPANS = SpanCorruption(0.5, 32.0)

DENOISERS = ('causal', 'prefix', 'short_spans', 'long_spans')


def add_epoch(dataset: tf.data.Dataset) -> tf.data.Dataset:
  """Adds 'epoch', int64 []: how often the first 'id' has come back.

  seqio repeats a data set before its last preprocessors, so one iterator sees
  all epochs. Each host counts its own share's, which begin and end together
  with the other hosts'.
  """

  def count(state, example):
    first, epoch, begun = state
    epoch += tf.cast(begun & (example['id'] == first), tf.int64)
    first = tf.where(begun, first, example['id'])
    return (first, epoch, True), {**example, 'epoch': epoch}

  return dataset.scan(
    (tf.constant(0, tf.int64), tf.constant(0, tf.int64), False), count
  )


def _seed(seed: int, example: Example, purpose: int) -> tf.Tensor:
  """A stateless seed, int64 [2]: (run's seed, purpose and epoch; id)."""
  first = example['epoch'] * 2**32 + (seed * 2**8 + purpose)
  return tf.stack([first, example['id']])


def _split_evenly_at_random(
  total: int, parts: int, seed: tf.Tensor
) -> tf.Tensor:
  """Cuts `total` into `parts` positive integers, all ways equally likely.

  Args:
    total: at least `parts`.
    parts: at least 1.
    seed: stateless, [2].

  Returns:
    int32 [parts] lengths that sum to `total`.
  """
  # The cuts are parts - 1 of the total - 1 places between tokens.
  draws = tf.random.stateless_uniform([total - 1], seed)
  cuts = tf.sort(tf.math.top_k(draws, parts - 1, sorted=False).indices) + 1
  edges = tf.concat([[0], cuts, [total]], axis=0)
  return edges[1:] - edges[:-1]


def corrupt_spans(
  tokens: tf.Tensor,
  corruption: SpanCorruption,
  first_sentinel: int,
  seed: tf.Tensor,
) -> tuple[tf.Tensor, tf.Tensor]:
  """Takes spans out of a sequence.

  The lengths of the spans, and of what lies between them, are uniform among
  all that give the set number of tokens and spans. A sequence begins with an
  uncorrupted token and ends with a span.

  Args:
    tokens: int32 [T].
    corruption: r and µ.
    first_sentinel: id of the first span's sentinel; the following ones count
      down from it, as T5's do.
    seed: stateless, [2].

  Returns:
    (inputs, targets), int32; both hold one sentinel for each span.
  """
  length = corruption.tokens_read(tokens.shape[0])
  corrupted, spans = corruption.counts(length)
  kept_lengths = _split_evenly_at_random(length - corrupted, spans, seed)
  span_lengths = _split_evenly_at_random(
    corrupted, spans, seed + tf.constant([1 << 62, 0], tf.int64)
  )
  # Sequence: kept piece 0, span 0, kept piece 1, span 1, ...
  kept_ends, span_ends = tf.cumsum(kept_lengths), tf.cumsum(span_lengths)
  span_starts = kept_ends + span_ends - span_lengths
  position = tf.range(length)
  # The span that a token lies in or, if it is kept, comes before.
  span = tf.searchsorted(kept_ends + span_ends, position, side='right')
  is_kept = position < tf.gather(span_starts, span)
  # Each token moves by the tokens of the other kind before it, and by the
  # sentinels. All is placed at once, the targets after the inputs. (Scatters
  # are stateless, as an iterator that can be saved needs it; ragged tensors
  # check themselves by stateful ops.)
  num_inputs = length - corrupted + spans
  place = tf.where(
    is_kept,
    position - tf.gather(span_ends - span_lengths, span) + span,
    num_inputs + position - tf.gather(kept_ends, span) + span + 1,
  )
  order = tf.range(spans)
  place_of_sentinels = tf.concat(
    [kept_ends + order, num_inputs + span_ends - span_lengths + order], axis=0
  )
  sentinels = first_sentinel - order
  both = tf.scatter_nd(
    tf.concat([place, place_of_sentinels], axis=0)[:, None],
    tf.concat([tokens[:length], sentinels, sentinels], axis=0),
    [length + 2 * spans],
  )
  return both[:num_inputs], both[num_inputs:]


def split_prefix(
  tokens: tf.Tensor, seed: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
  """Cuts a sequence in two; the prefix is T/4 tokens on average.

  Its length is uniform on 1 to 2 · (T // 4) - 1.

  Args:
    tokens: int32 [T], T at least 4.
    seed: stateless, [2].

  Returns:
    (inputs, targets), int32, T tokens together.
  """
  quarter = tokens.shape[0] // 4
  length = tf.random.stateless_uniform(
    [], seed, minval=1, maxval=2 * quarter, dtype=tf.int32
  )
  return tokens[:length], tokens[length:]


def causal(tokens: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
  """All tokens are targets."""
  del seed
  return tokens[:0], tokens


def _sentinels_needed(sequence_length: int) -> int:
  return max(
    c.counts(c.tokens_read(sequence_length))[1]
    for c in (SHORT_SPANS, LONG_SPANS)
  )


def ul2(
  dataset: tf.data.Dataset,
  output_features: Mapping[str, seqio.Feature],
  sequence_length: Mapping[str, int],
  rates: Sequence[float] = RATES,
  seed: int = 0,
) -> tf.data.Dataset:
  """Draws a denoiser for each sequence, and applies it.

  Args:
    dataset: of {'targets': int32 [T], 'id': int64 []}, epoch after epoch.
    output_features: the task's; 'targets' has the vocabulary.
    sequence_length: 'targets' is T.
    rates: of `DENOISERS`, in any unit; one that is 0 is never drawn.
    seed: of the run, in [0, 2^24); equal seeds corrupt equally.

  Returns:
    A dataset of 'inputs' and 'targets' (int32), 'denoiser' (int32 [], an index
    into `DENOISERS`), 'epoch', and what else there was.

  Raises:
    ValueError: too few extra ids for the sentinels, or rates that are none.
  """
  if len(rates) != len(DENOISERS) or min(rates) < 0 or not sum(rates) > 0:
    raise ValueError(
      f'preprocessors.ul2.rates = {rates}: give one rate, at least 0, for each '
      f'of {DENOISERS}; the paper uses {RATES}.'
    )
  length = sequence_length['targets']
  vocabulary = output_features['targets'].vocabulary
  needed = _sentinels_needed(length)
  if rates[2] + rates[3] > 0 and vocabulary.extra_ids < needed:
    raise ValueError(
      f'VOCABULARY has {vocabulary.extra_ids} extra ids, and span corruption '
      f'of {length} tokens needs {needed} sentinels: set the extra_ids of the '
      'vocabulary to at least that, for student, teacher and task alike.'
    )
  first_sentinel = vocabulary.vocab_size - 1
  spans = lambda corruption: functools.partial(
    corrupt_spans, corruption=corruption, first_sentinel=first_sentinel
  )
  denoisers = (causal, split_prefix, spans(SHORT_SPANS), spans(LONG_SPANS))
  shares = np.cumsum(np.asarray(rates, np.float64) / sum(rates))

  def denoise(example):
    tokens = tf.ensure_shape(example['targets'], [length])
    draw = tf.random.stateless_uniform(
      [], _seed(seed, example, 0), dtype=tf.float64
    )
    which = tf.reduce_sum(tf.cast(draw >= shares[:-1], tf.int32))
    inputs, targets = tf.switch_case(
      which,
      [
        functools.partial(d, tokens, seed=_seed(seed, example, 1))
        for d in denoisers
      ],
    )
    return {**example, 'inputs': inputs, 'targets': targets, 'denoiser': which}

  return add_epoch(dataset).map(denoise, num_parallel_calls=tf.data.AUTOTUNE)
