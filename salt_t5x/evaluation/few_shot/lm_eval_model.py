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

"""Adapts `language_model.LanguageModel` to lm-eval's model interface.

lm-eval provides the tasks, prompts and metrics of few-shot evaluation; this
module answers its three kinds of request with a t5x model.
"""

import bisect
from collections.abc import Sequence
import itertools

from absl import logging
from lm_eval.api import instance
from lm_eval.api import model as lm_eval_model
import seqio
import tensorflow as tf

from salt_t5x.inference import language_model

# t5x shifts sequences right, so that every sequence begins after a 0.
_BEGIN = 0
# The most tokens of an answer where a task sets no limit.
_MAX_TOKENS = 256
# (context, scored tokens)
_Pair = tuple[list[int], list[int]]


class HarnessModel(lm_eval_model.TemplateLM):
  """Answers lm-eval's requests.

  Requests longer than the model's T lose the beginning of their context; their
  number is logged and kept in `truncated`.

  Attributes:
    truncated: {kind of request: (requests cut, requests)}, of its last call.
    confidences: {(task, document): log-likelihood in nats of the generated
      text}.
  """

  def __init__(
    self, model: language_model.LanguageModel, vocabulary: seqio.Vocabulary
  ):
    """Constructor.

    Args:
      model: scores and continues sequences of tokens.
      vocabulary: the model's vocabulary.
    """
    super().__init__()
    self._model = model
    self._vocabulary = vocabulary
    # Traced once: a call of the vocabulary's loads its model.
    self._encode = tf.function(
      vocabulary.encode_tf, input_signature=[tf.TensorSpec([], tf.string)]
    )
    self.truncated: dict[str, tuple[int, int]] = {}
    self.confidences: dict[tuple[str | None, int | None], float] = {}

  @property
  def eot_token_id(self) -> int:
    return self._vocabulary.eos_id

  @property
  def prefix_token_id(self) -> int:
    """The token that stands for an empty context."""
    return _BEGIN

  def tok_encode(
    self, string: str, add_special_tokens: bool | None = None, **kwargs
  ) -> list[int]:
    """Tokens, without any for beginning or end.

    They are those of training: tensorflow_text and SentencePiece's Python
    module differ where several segmentations are equally likely.
    """
    del add_special_tokens, kwargs
    return self._encode(string).numpy().tolist()

  def _encode_pair(
    self, context: str, continuation: str
  ) -> tuple[list[int], list[int]]:
    """Tokens of a context and of its continuation, as they are when joined.

    A piece that spans the join belongs to the continuation. White space at the
    end of the context does, too, as in lm-eval.
    """
    stripped = context.rstrip()
    continuation = context[len(stripped) :] + continuation
    whole = self.tok_encode(stripped + continuation)
    alone = self.tok_encode(stripped)
    pairs = zip(whole, alone, strict=False)
    shared = sum(1 for _ in itertools.takewhile(lambda x: x[0] == x[1], pairs))
    return whole[:shared], whole[shared:]

  def _loglikelihood_tokens(
    self, requests, disable_tqdm: bool = False, **kwargs
  ) -> list[tuple[float, bool]]:
    del kwargs
    parts, cut = [], 0
    # The answers to a question are compared: none may count more of it.
    shared: dict[str, int] = {}
    for (question, _), context, _ in requests:
      shared[question] = min(shared.get(question, len(context)), len(context))
    for texts, context, continuation in requests:
      continuation = context[shared[texts[0]] :] + continuation
      context = context[: shared[texts[0]]]
      if not continuation:
        raise ValueError(
          f'An answer has no tokens: {texts[1]!r}, after {texts[0][-200:]!r}. '
          'Mend the document, or leave the task out of SUITE.'
        )
      context = [token for token in context if token != _BEGIN]
      room = self._model.length - len(continuation)
      cut += room < len(context)
      # Continuations longer than T are scored in windows, like long texts.
      trimmed = context[-room:] if room > 0 else []
      parts.append(
        self._windows(continuation) if room < 0 else [(trimmed, continuation)]
      )
    self._count('loglikelihood', cut, len(requests))
    return self._scores(parts, None if disable_tqdm else 'Log-likelihoods')

  def loglikelihood_rolling(
    self, requests: Sequence[instance.Instance], disable_tqdm: bool = False
  ) -> list[float]:
    """log P of whole texts, each token scored once, in windows of T."""
    parts = [self._windows(self.tok_encode(x.args[0])) for x in requests]
    found = self._scores(parts, None if disable_tqdm else 'Log-likelihoods')
    return [value for value, _ in found]

  def _scores(
    self, parts: Sequence[Sequence[_Pair]], progress: str | None
  ) -> list[tuple[float, bool]]:
    """(log P, whether all is greedy) of texts in (context, tokens) parts."""
    windows = list(itertools.chain.from_iterable(parts))
    found = iter(self._model.log_likelihoods(windows, progress))
    likelihoods = [[next(found) for _ in of_text] for of_text in parts]
    return [
      (sum(x.value for x in of_text), all(x.is_greedy for x in of_text))
      for of_text in likelihoods
    ]

  def generate_until(
    self, requests: Sequence[instance.Instance], disable_tqdm: bool = False
  ) -> list[str]:
    """Greedy continuations, up to the first of a request's stop strings.

    Raises:
      ValueError: a request asks for samples, or for T or more tokens.
    """
    contexts, limits, stops, cut = [], [], [], 0
    for request in requests:
      context, options = request.args
      if options.get('do_sample') or options.get('temperature'):
        raise ValueError(
          f'{request.task_name} asks for samples, {options}: only greedy '
          'generation is supported; set do_sample: false and temperature: 0.'
        )
      limit = options.get('max_gen_toks', _MAX_TOKENS)
      if not 0 < limit < self._model.length:
        raise ValueError(
          f'{request.task_name}: max_gen_toks = {limit} must be positive and '
          f'less than the {self._model.length} tokens of a sequence.'
        )
      until = options.get('until') or []
      stops.append([until] if isinstance(until, str) else until)
      limits.append(limit)
      tokens, room = self.tok_encode(context), self._model.length - limit
      contexts.append(tokens[-room:])
      cut += room < len(tokens)
    self._count('generate_until', cut, len(requests))
    found = self._model.continuations(
      contexts, limits, None if disable_tqdm else 'Continuations'
    )
    texts, outputs = [], []
    for context, tokens, limit, stop in zip(
      contexts, found, limits, stops, strict=True
    ):
      texts.append(_until(self._decoded(context, tokens), stop))
      # Append EOS to outputs that stopped early.
      whole = [*tokens, self.eot_token_id][:limit]
      outputs.append((context, self._stopped(context, tokens, stop) or whole))
    likelihoods = self._model.log_likelihoods(outputs)
    for request, likelihood in zip(requests, likelihoods, strict=True):
      key = request.task_name, request.doc_id
      self.confidences[key] = likelihood.value
    return texts

  def _stopped(
    self, context: list[int], tokens: list[int], stops: Sequence[str]
  ) -> list[int]:
    """The fewest tokens that hold a stop string; none if there is no stop."""

    def holds_stop(count):
      text = self._decoded(context, tokens[:count])
      return any(stop and stop in text for stop in stops)

    counts = range(1, len(tokens) + 1)
    first = bisect.bisect_left(counts, True, key=holds_stop)
    return tokens[: counts[first]] if first < len(counts) else []

  def _windows(self, tokens: list[int]) -> list[_Pair]:
    """Windows of T tokens, as lm-eval's: (context, scored tokens)."""
    step = self._model.length - 1
    windows = []
    for start in range(0, len(tokens), step):
      scored = tokens[start : start + step]
      # The last window may be short; it has more context.
      first = max(start + len(scored) - step - 1, 0)
      windows.append((tokens[first:start], scored))
    return windows

  def _decoded(self, context: list[int], tokens: list[int]) -> str:
    """Decodes tokens in context; alone they would lose a leading space."""
    decode = self._vocabulary.decode
    return decode([*context, *tokens])[len(decode(context)) :]

  def _count(self, kind: str, cut: int, requests: int):
    self.truncated[kind] = cut, requests
    if cut:
      logging.warning(
        '%s: %d of %d requests are longer than %d tokens; their contexts were '
        'trimmed at the beginning.',
        kind,
        cut,
        requests,
        self._model.length,
      )


def _until(text: str, stops: Sequence[str]) -> str:
  """The text before the first of the stop strings."""
  ends = [text.find(stop) for stop in stops if stop and stop in text]
  return text[: min(ends, default=len(text))]
