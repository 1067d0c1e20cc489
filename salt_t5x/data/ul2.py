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

The preprocessor turns `targets`, one sequence of T tokens with a stable `id`,
into `inputs` (attended to in both directions, without loss) and `targets`
(predicted one after the other), together at most T tokens:

  causal LM        inputs none, targets all T tokens;
  prefix LM        the sequence cut in two, the prefix T/4 tokens on average;
  span corruption  a share r of the tokens, in spans of mean length µ, leaves
                   the inputs: a sentinel stands for each span there, and the
                   targets hold each sentinel followed by its span.

Two sentinels for each span must fit, too, so span corruption reads the first
L_d < T tokens and leaves the sequence's tail unused.

Each draw depends only on the seed, the example's id and the epoch: not on its
position, the host, or where a run was resumed. Draws are tf.random's, not
`hashing.uniform`'s, to be made in the graph.
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
        f'ul2.{self}: set r between 0 and 1, and µ to at least 1.'
      )

  def counts(self, length: int) -> tuple[int, int]:
    """Returns (corrupted tokens, spans) of a sequence of `length` tokens."""
    tokens = min(max(round(length * self.noise_density), 1), length - 1)
    spans = max(round(tokens / self.mean_span_length), 1)
    # A span holds a token and is followed by one, but for the last.
    return tokens, min(spans, tokens, length - tokens)

  def tokens_read(self, sequence_length: int) -> int:
    """Returns L_d, the tokens that fit in T with their sentinels."""
    for length in range(sequence_length, 1, -1):
      if length + 2 * self.counts(length)[1] <= sequence_length:
        return length
    raise ValueError(
      f"TASK_FEATURE_LENGTHS['targets'] = {sequence_length} is too short for "
      'span corruption: set at least 4.'
    )


SHORT_SPANS = SpanCorruption(0.15, 3.0)
LONG_SPANS = SpanCorruption(0.5, 32.0)

DENOISERS = ('causal', 'prefix', 'short_spans', 'long_spans')

# Mode tokens of the denoisers: [S], [R] and [X] are the first three extra ids
# (sentinels count down from the last).
_MODES = (0, 0, 1, 2)


def add_epoch(dataset: tf.data.Dataset) -> tf.data.Dataset:
  """Adds 'epoch', int64 []: the number of returns of the first 'id'.

  seqio repeats a data set before its last preprocessors, so one iterator sees
  all epochs. Each host counts the epochs of its own share, which begin and end
  with the other hosts'.
  """

  def count(state, example):
    first, epoch = state
    first = tf.where(epoch < 0, example['id'], first)
    epoch += tf.cast(example['id'] == first, tf.int64)
    return (first, epoch), {**example, 'epoch': epoch}

  return dataset.scan((np.int64(0), np.int64(-1)), count)


def _uniform(seed: int, example: Example, count: int) -> tf.Tensor:
  """[count] float32 draws, a function of the seed, the id and the epoch."""
  first = example['epoch'] * 2**32 + seed
  return tf.random.stateless_uniform([count], tf.stack([first, example['id']]))


def _split_evenly_at_random(
  total: int, parts: int, draws: tf.Tensor
) -> tf.Tensor:
  """Cuts `total` into `parts` positive integers, uniformly among all ways.

  Args:
    total: at least `parts`.
    parts: at least 1.
    draws: uniform, [total - 1], one for each place between two tokens.

  Returns:
    Edges from 0 to `total`, int32 [parts + 1].
  """
  # The cuts are the places of the parts - 1 largest draws.
  cuts = tf.math.top_k(draws, parts - 1, sorted=False).indices + 1
  in_order = -tf.math.top_k(-cuts, parts - 1).values
  return tf.concat([[0], in_order, [total]], axis=0)


def corrupt_spans(
  tokens: tf.Tensor,
  corruption: SpanCorruption,
  first_sentinel: int,
  draws: tf.Tensor,
) -> tuple[tf.Tensor, tf.Tensor]:
  """Moves spans of a sequence to the targets.

  The lengths of the spans, and those of the pieces between them, are uniform
  among all that give the set number of tokens and spans. A sequence begins with
  an uncorrupted token and ends with a span.

  Args:
    tokens: int32 [T].
    corruption: r and µ.
    first_sentinel: id of the first span's sentinel; the following ones count
      down from it, as T5's do.
    draws: uniform, [T].

  Returns:
    (inputs, targets), int32; both hold one sentinel for each span.
  """
  length = corruption.tokens_read(tokens.shape[0])
  corrupted, spans = corruption.counts(length)
  kept = length - corrupted
  kept_edges = _split_evenly_at_random(kept, spans, draws[: kept - 1])
  span_edges = _split_evenly_at_random(
    corrupted, spans, draws[kept - 1 : length - 2]
  )
  # The sequence is kept piece 0, span 0, kept piece 1, span 1, ... The results
  # are pieces, too: the inputs are kept ones and sentinels in turn, the targets
  # sentinels and spans in turn.
  order = tf.range(spans)
  kept_starts, kept_ends = kept_edges[:-1], kept_edges[1:]
  span_starts = span_edges[:-1]
  num_inputs = kept + spans
  places = _in_turn(
    [kept_starts + order, kept_ends + order],
    [num_inputs + span_starts + order, num_inputs + 1 + span_starts + order],
  )
  # The sentinels are read from behind the tokens.
  sources = _in_turn(
    [kept_starts + span_starts, length + order],
    [length + order, kept_ends + span_starts],
  )
  position = tf.range(length + 2 * spans)
  # A raw op saves reshapes. Iterators that can be saved allow no stateful ops,
  # and so no ragged tensors, which check themselves with some.
  piece = tf.raw_ops.UpperBound(
    sorted_inputs=places[None], values=position[None]
  )
  source = position + tf.gather(sources - places, piece[0] - 1)
  both = tf.gather(
    tf.concat([tokens[:length], first_sentinel - order], axis=0), source
  )
  return both[:num_inputs], both[num_inputs:]


def _in_turn(*pairs: list[tf.Tensor]) -> tf.Tensor:
  """[a0, b0, a1, b1, ...] of each pair of vectors (a, b), one after another."""
  return tf.reshape(
    tf.concat([tf.stack(pair, axis=1) for pair in pairs], axis=0), [-1]
  )


def split_prefix(
  tokens: tf.Tensor, draws: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
  """Cuts a sequence in two; the prefix is T/4 tokens on average.

  Its length is uniform on 1 to 2 · (T // 4) - 1.

  Args:
    tokens: int32 [T], T at least 4.
    draws: uniform, [T]; only the first is used.

  Returns:
    (inputs, targets), int32, T tokens together.
  """
  lengths = 2 * (tokens.shape[0] // 4) - 1
  length = 1 + tf.cast(draws[0] * lengths, tf.int32)
  return tokens[:length], tokens[length:]


def causal(tokens: tf.Tensor, draws: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
  """Makes all tokens targets."""
  del draws
  return tokens[:0], tokens


def extra_ids_needed(
  sequence_length: int,
  rates: Sequence[float] = RATES,
  mode_tokens: bool = False,
) -> int:
  """Returns the number of extra ids that sequences of T tokens need."""
  spans = [
    c.counts(c.tokens_read(sequence_length - mode_tokens))[1]
    for c, rate in zip((SHORT_SPANS, LONG_SPANS), rates[2:], strict=True)
    if rate
  ]
  return max(spans, default=0) + (len(set(_MODES)) if mode_tokens else 0)


def ul2(
  dataset: tf.data.Dataset,
  output_features: Mapping[str, seqio.Feature],
  sequence_length: Mapping[str, int],
  rates: Sequence[float] = RATES,
  mode_tokens: bool = False,
  seed: int = 0,
) -> tf.data.Dataset:
  """Draws a denoiser for each sequence, and applies it.

  Args:
    dataset: {'targets': int32 [T], 'id': int64 []}, epoch after epoch. Without
      'epoch' (int64 []), `add_epoch` counts them.
    output_features: the task's; 'targets' has the vocabulary.
    sequence_length: 'targets' is T.
    rates: relative rates of `DENOISERS`; 0 excludes one.
    mode_tokens: whether inputs begin with a token that names the kind of
      denoiser, [S], [R] or [X]; it replaces the sequence's last token.
    seed: of the run, in [0, 2^32); equal seeds corrupt equally.

  Returns:
    A dataset of 'inputs' and 'targets' (int32), 'denoiser' (int32 [], an index
    into `DENOISERS`), 'epoch', and the other features.

  Raises:
    ValueError: too few extra ids for the sentinels, a sequence of another
      length, or impossible rates.
  """
  if len(rates) != len(DENOISERS) or min(rates) < 0 or not sum(rates) > 0:
    raise ValueError(
      f'ul2.ul2.rates = {rates}: give one rate, at least 0, for each '
      f'of {DENOISERS}; the paper uses {RATES}.'
    )
  length = sequence_length['targets']
  shape = dataset.element_spec['targets'].shape
  if not shape.is_compatible_with([length]):
    raise ValueError(
      f"TASK_FEATURE_LENGTHS['targets'] = {length}, but the task's sequences "
      f'have {shape[0]} tokens: set it to that, or cut and cache sequences of '
      'another length.'
    )
  vocabulary = output_features['targets'].vocabulary
  needed = extra_ids_needed(length, rates, mode_tokens)
  if vocabulary.extra_ids < needed:
    raise ValueError(
      f'VOCABULARY has {vocabulary.extra_ids} extra ids, and UL2 on sequences '
      f'of {length} tokens needs {needed}: set the extra_ids of the vocabulary '
      'to at least that, for student, teacher and task alike.'
    )
  first_sentinel = vocabulary.vocab_size - 1
  first_mode = vocabulary.vocab_size - vocabulary.extra_ids
  spans = lambda corruption: functools.partial(
    corrupt_spans, corruption=corruption, first_sentinel=first_sentinel
  )
  denoisers = (causal, split_prefix, spans(SHORT_SPANS), spans(LONG_SPANS))
  shares = np.cumsum(np.asarray(rates) / sum(rates)).astype(np.float32)
  drawn = np.flatnonzero(rates)
  # A single denoiser needs no switch, which is measurably faster.
  only = int(drawn[0]) if len(drawn) == 1 else None

  def denoise(example):
    tokens = tf.ensure_shape(example['targets'], [length])
    if mode_tokens:
      tokens = tokens[:-1]
    draws = _uniform(seed, example, 1 + length)
    apply = [functools.partial(d, tokens, draws=draws[1:]) for d in denoisers]
    if only is None:
      which = tf.reduce_sum(tf.cast(draws[0] >= shares[:-1], tf.int32))
      inputs, targets = tf.switch_case(which, apply)
    else:
      which = tf.constant(only)
      inputs, targets = apply[only]()
    if mode_tokens:
      mode = first_mode + tf.gather(_MODES, which)
      inputs = tf.concat([[mode], inputs], axis=0)
    return {**example, 'inputs': inputs, 'targets': targets, 'denoiser': which}

  if 'epoch' not in dataset.element_spec:
    dataset = add_epoch(dataset)
  return dataset.map(denoise, num_parallel_calls=tf.data.AUTOTUNE)
