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

"""A trained model, compiled to score continuations and to generate them.

`LanguageModel` takes token ids; `few_shot/lm_eval_model.py` adapts it to
lm-eval. The context of a text is laid out as a prefix LM's "inputs" and the
continuation as its "targets", as in training: a model trained to read inputs in
both directions does so here. Other models are causal throughout.
"""

from collections.abc import Sequence
import copy
import dataclasses
import functools
import itertools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from salt_t5x import models
from salt_t5x.inference import batches as batches_lib
from salt_t5x.kernels import token_statistics
from t5x import models as t5x_models
from t5x import partitioning

Array = jax.Array
PyTree = Any
Tokens = Sequence[int]


class NonFiniteOutputError(FloatingPointError):
  """A model predicts NaN or infinity, so that it has no scores."""


@dataclasses.dataclass(frozen=True)
class LogLikelihood:
  """The likelihood of a continuation.

  Attributes:
    value: log P(continuation | context) in nats.
    hits: tokens that the model ranks first.
    tokens: in the continuation.
  """

  value: float
  hits: int
  tokens: int

  @property
  def is_greedy(self) -> bool:
    """Whether greedy decoding gives the continuation."""
    return self.hits == self.tokens


class LanguageModel:
  """Scores and continues sequences of tokens.

  Sequences are sorted by length and run B at a time, padded to one of a few
  widths; one program is compiled for each width.
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
      length: T, the maximum number of tokens in a sequence.

    Raises:
      ValueError: the devices cannot share the batch.
    """
    self._batches = batches_lib.GlobalBatches(partitioner, batch_size)
    self.length = length
    self._params = params
    self._score = self._batches.program(
      functools.partial(_score, model, self._batches.chunk), axes
    )
    self._continue = self._batches.program(
      functools.partial(_continue, model), axes
    )

  def with_params(self, params: PyTree) -> 'LanguageModel':
    """Returns the same compiled programs with other parameters."""
    other = copy.copy(self)
    other._params = params
    return other

  def log_likelihoods(
    self, pairs: Sequence[tuple[Tokens, Tokens]], progress: str | None = None
  ) -> list[LogLikelihood]:
    """Scores continuations.

    Args:
      pairs: (context, continuation), at most T tokens together; the context may
        be empty, the continuation not.
      progress: label of a progress bar; None for no bar.

    Returns:
      One for each pair.

    Raises:
      NonFiniteOutputError: a log-likelihood is NaN or infinite.
      ValueError: a pair is too long, or has no continuation.
    """
    if any(not len(continuation) for _, continuation in pairs):
      raise ValueError('A continuation has no tokens.')
    sizes = [len(a) + len(b) for a, b in pairs]
    prompts = [([*a, *b], len(a)) for a, b in pairs]
    found = [
      # float32 sums over long windows err by 1e-4.
      LogLikelihood(float(np.sum(x, dtype=np.float64)), int(hits), len(pair[1]))
      for (x, hits), pair in zip(
        self._run(self._score, prompts, sizes, progress), pairs, strict=True
      )
    ]
    if wrong := sum(not math.isfinite(x.value) for x in found):
      raise NonFiniteOutputError(
        f'the log-likelihoods of {wrong} of {len(found)} texts are NaN or '
        'infinite'
      )
    return found

  def continuations(
    self,
    contexts: Sequence[Tokens],
    max_tokens: int | Sequence[int],
    progress: str | None = None,
  ) -> list[list[int]]:
    """Continues contexts by greedy decoding.

    Args:
      contexts: at most T - 1 tokens each.
      max_tokens: the maximum length of the continuations, or of each; they also
        end where the sequence reaches T tokens.
      progress: label of a progress bar; None for no bar.

    Returns:
      The continuation of each context, up to and without the first
      end-of-sequence token.

    Raises:
      ValueError: a context is too long.
    """
    given = np.array([len(x) for x in contexts], int)
    sizes = np.minimum(given + np.asarray(max_tokens, int), self.length)
    sizes = np.maximum(sizes, given + 1).tolist()
    prompts = [(x, len(x)) for x in contexts]
    found = self._run(self._continue, prompts, sizes, progress)
    return [
      [*itertools.takewhile(bool, tokens[: size - len(context)].tolist())]
      for (tokens,), size, context in zip(found, sizes, contexts, strict=True)
    ]

  def _run(
    self,
    program: batches_lib.Program,
    prompts: Sequence[tuple[Tokens, int]],
    sizes: Sequence[int],
    progress: str | None,
  ) -> list[tuple[np.ndarray, ...]]:
    """Runs a program on (tokens, context length) pairs of given final sizes."""
    longest = max(sizes, default=0)
    if longest > self.length:
      raise ValueError(
        f'A sequence of {longest} tokens is longer than length = {self.length}.'
      )
    # The longest first: a batch that does not fit in memory fails at once.
    order = np.argsort([-x for x in sizes], kind='stable')
    results = [()] * len(sizes)
    with batches_lib.progress_bar(
      len(sizes), 'text', progress, hidden=not progress, leave=False
    ) as bar:
      for (rows,) in self._batches.split(order):
        tokens = np.zeros((len(rows), self._width(sizes[rows[0]])), np.int32)
        lengths = np.zeros((len(rows), 2), np.int32)
        for place, row in enumerate(rows):
          prompt, context = prompts[row]
          tokens[place, : len(prompt)] = prompt
          lengths[place] = context, len(prompt)
        found = program(self._params, tokens, lengths)
        for row, *parts in zip(rows, *found, strict=True):
          results[row] = tuple(parts)
        bar.update(len(rows))
    return results

  def _width(self, size: int) -> int:
    """The least of T, T/2, T/4, ... that holds `size` tokens, at least 32."""
    width = self.length
    while width // 2 >= max(size, 32):
      width //= 2
    return width


def _score(
  model: t5x_models.DecoderOnlyModel,
  chunk: int,
  params: PyTree,
  targets: Array,
  lengths: Array,
) -> tuple[Array, Array]:
  """Returns ([B, T] log-likelihoods, [B] number of tokens ranked first)."""
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
) -> tuple[Array]:
  """Returns [B, T] int: greedy continuations, zeros from their ends on."""

  def tokens_only(logits, _):
    # An embedding may have more rows than the vocabulary has tokens.
    rows = jnp.arange(logits.shape[-1])
    return jnp.where(
      rows < model.output_vocabulary.vocab_size, logits, -jnp.inf
    )

  found, _ = model.predict_batch_with_aux(
    params,
    models.features_of(tokens, lengths[:, 0]),
    decoder_params={'temperature': 0.0, 'logit_callback_fn': tokens_only},
  )
  # t5x writes the end-of-sequence token and zeros after it.
  return (jnp.where(found == model.output_vocabulary.eos_id, 0, found),)
