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

"""A trained model, compiled to judge texts and to continue them.

`LanguageModel` takes token ids; `harness.py` makes it a model of lm-eval. Texts
are laid out as in training: the context is the "inputs" of a prefix LM and the
continuation its "targets", so that a model that was trained to read its inputs
in both directions does so here. A model without that is causal throughout.
"""

from collections.abc import Callable, Iterator, Sequence
import copy
import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tqdm

from salt_t5x import models
from salt_t5x.inference import batches as batches_lib
from salt_t5x.kernels import token_statistics
from t5x import models as t5x_models
from t5x import partitioning

Array = jax.Array
PyTree = Any
Tokens = Sequence[int]


@dataclasses.dataclass(frozen=True)
class Judgement:
  """What a model says of a continuation.

  Attributes:
    log_likelihood: log P(continuation | context) in nats.
    hits: tokens that are the most likely one.
    tokens: of the continuation.
  """

  log_likelihood: float
  hits: int
  tokens: int

  @property
  def is_greedy(self) -> bool:
    return self.hits == self.tokens


class LanguageModel:
  """Judges and continues sequences of tokens.

  Sequences are run in order of their length, B at a time, at the least of a few
  widths that holds them: a program is compiled for each width.
  """

  def __init__(
    self,
    model: t5x_models.DecoderOnlyModel,
    params: PyTree,
    axes: PyTree,
    partitioner: partitioning.BasePartitioner,
    batch_size: int,
    length: int,
  ):
    """Constructor; compiles nothing yet.

    Args:
      model: a t5x decoder-only model.
      params: its parameters, on the partitioner's mesh.
      axes: their partition specs.
      partitioner: shards the batch.
      batch_size: B, a multiple of the devices that share a batch.
      length: T, the most tokens of a sequence.

    Raises:
      ValueError: the batch cannot be shared by the devices.
    """
    self._whole = batches_lib.WholeBatches(partitioner, batch_size)
    self.length = length
    self._batch_size = batch_size
    self._params = params
    spec = self._whole.spec
    partition = functools.partial(
      partitioner.partition,
      in_axis_resources=(axes, spec, spec),
      out_axis_resources=None,
    )
    self._judge = partition(functools.partial(_judge, model, self._whole.chunk))
    self._continue = partition(functools.partial(_continue, model))

  def with_params(self, params: PyTree) -> 'LanguageModel':
    """The same programs, compiled once, for another checkpoint's parameters."""
    other = copy.copy(self)
    other._params = params
    return other

  def judge(
    self, pairs: Sequence[tuple[Tokens, Tokens]], progress: str | None = None
  ) -> list[Judgement]:
    """Judges continuations.

    Args:
      pairs: (context, continuation); the context may be empty, the
        continuation not. Together they are at most T tokens.
      progress: what a progress bar says; None for no bar.

    Returns:
      A judgement of each pair.

    Raises:
      ValueError: a pair is too long, or has no continuation.
    """
    for context, continuation in pairs:
      if not len(continuation):
        raise ValueError('A continuation has no tokens.')
      self._check_length(len(context) + len(continuation))
    sizes = [len(a) + len(b) for a, b in pairs]
    results: list[Judgement] = [Judgement(0.0, 0, 0)] * len(pairs)
    for rows, width in self._batches(sizes, progress):
      tokens, contexts = self._empty(width)
      for place, row in enumerate(rows):
        context, continuation = pairs[row]
        tokens[place, : sizes[row]] = [*context, *continuation]
        contexts[place] = len(context), sizes[row]
      found = jax.device_get(self._run(self._judge, tokens, contexts))
      for place, row in enumerate(rows):
        results[row] = Judgement(
          # float32 sums of long windows are off by 1e-4.
          float(np.sum(found[0][place], dtype=np.float64)),
          int(found[1][place]),
          len(pairs[row][1]),
        )
    return results

  def log_likelihoods(
    self, pairs: Sequence[tuple[Tokens, Tokens]], progress: str | None = None
  ) -> list[tuple[float, bool]]:
    """`judge`, as (log-likelihood, is greedy)."""
    return [
      (x.log_likelihood, x.is_greedy) for x in self.judge(pairs, progress)
    ]

  def continuations(
    self,
    contexts: Sequence[Tokens],
    max_tokens: int,
    progress: str | None = None,
  ) -> list[list[int]]:
    """Continues contexts with the most likely token, one after the other.

    Args:
      contexts: at most T - 1 tokens each.
      max_tokens: the most tokens of a continuation; at T tokens in all a
        sequence ends, too.
      progress: what a progress bar says; None for no bar.

    Returns:
      For each context, its continuation, which ends before the first
      end-of-sequence token.

    Raises:
      ValueError: a context is too long.
    """
    for context in contexts:
      self._check_length(len(context) + 1)
    sizes = [min(len(x) + max_tokens, self.length) for x in contexts]
    results: list[list[int]] = [[]] * len(contexts)
    for rows, width in self._batches(sizes, progress):
      tokens, lengths = self._empty(width)
      for place, row in enumerate(rows):
        context = contexts[row]
        tokens[place, : len(context)] = context
        lengths[place] = len(context), len(context)
      found = jax.device_get(self._run(self._continue, tokens, lengths))
      for place, row in enumerate(rows):
        count = sizes[row] - len(contexts[row])
        results[row] = _until_zero(found[place][:count])
    return results

  def _check_length(self, length: int):
    if length > self.length:
      raise ValueError(
        f'A sequence of {length} tokens is longer than length = {self.length}.'
      )

  def _batches(
    self, sizes: Sequence[int], progress: str | None
  ) -> Iterator[tuple[list[int], int]]:
    """Yields (indices of at most B sequences, the width they run at)."""
    # The longest first: what does not fit in memory fails at once.
    order = sorted(range(len(sizes)), key=lambda i: -sizes[i])
    with tqdm.tqdm(
      total=len(sizes),
      desc=progress,
      unit='text',
      leave=False,
      disable=True if progress is None or jax.process_index() else None,
    ) as bar:
      for start in range(0, len(order), self._batch_size):
        rows = order[start : start + self._batch_size]
        yield rows, self._width(sizes[rows[0]])
        bar.update(len(rows))

  def _width(self, size: int) -> int:
    """The least of T, T/2, T/4, ... that holds `size` tokens, at least 32."""
    width = self.length
    while width // 2 >= max(size, 32):
      width //= 2
    return width

  def _empty(self, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Zeros: ([B, width] tokens, [B, 2] tokens of the context and in all)."""
    return (
      np.zeros((self._batch_size, width), np.int32),
      np.zeros((self._batch_size, 2), np.int32),
    )

  def _run(self, program: Callable[..., PyTree], *arrays: np.ndarray) -> PyTree:
    return program(self._params, *map(self._whole.put, arrays))


def _judge(
  model: t5x_models.DecoderOnlyModel,
  chunk: int,
  params: PyTree,
  targets: Array,
  lengths: Array,
) -> tuple[Array, Array]:
  """([B, T] log-likelihoods, [B] tokens that are the likeliest)."""
  log_perplexity, is_highest = token_statistics.token_statistics(
    *models.hidden_and_embedding(
      model, params, models.features_of(targets, lengths[:, 0])
    ),
    targets,
    vocab_size=model.output_vocabulary.vocab_size,
    top_k=1,
    chunk=chunk,
  )
  positions = jnp.arange(targets.shape[1])
  counts = (positions >= lengths[:, :1]) & (positions < lengths[:, 1:])
  return (
    jnp.where(counts, -log_perplexity, 0.0),
    jnp.sum(is_highest, axis=-1, where=counts),
  )


def _continue(
  model: t5x_models.DecoderOnlyModel,
  params: PyTree,
  tokens: Array,
  lengths: Array,
) -> Array:
  """[B, T] int: greedy continuations, which end with EOS or at T tokens."""
  vocab_size = model.output_vocabulary.vocab_size

  def tokens_only(logits, state):
    # An embedding may have rows that are no tokens.
    del state
    return jnp.where(
      jnp.arange(logits.shape[-1]) < vocab_size, logits, -jnp.inf
    )

  found, _ = model.predict_batch_with_aux(
    params,
    models.features_of(tokens, lengths[:, 0]),
    decoder_params={'temperature': 0.0, 'logit_callback_fn': tokens_only},
  )
  # t5x writes the end-of-sequence token and zeros after it.
  return jnp.where(found == model.output_vocabulary.eos_id, 0, found)


def _until_zero(tokens: np.ndarray) -> list[int]:
  ends = np.flatnonzero(tokens == 0)
  return tokens[: ends[0] if len(ends) else None].tolist()
