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

from absl import logging
from lm_eval import utils as lm_eval_utils
from lm_eval.api import instance
from lm_eval.api import model as lm_eval_model
import seqio

from salt_t5x.inference import language_model

# t5x shifts sequences right, so that every sequence begins after a 0.
_BEGIN = 0


class HarnessModel(lm_eval_model.TemplateLM):
  """Answers lm-eval's requests.

  Requests longer than the model's T lose the beginning of their context; their
  number is logged and kept in `truncated`.

  Attributes:
    truncated: {kind of request: (requests cut, requests)}, over all calls.
    confidences: {(task, document): log-likelihood in nats of the generated
      text}.
  """

  def __init__(
    self,
    model: language_model.LanguageModel,
    vocabulary: seqio.Vocabulary,
    max_tokens: int = 256,
  ):
    """Constructor.

    Args:
      model: scores and continues sequences of tokens.
      vocabulary: the model's vocabulary.
      max_tokens: tokens to generate for a task that sets no limit.
    """
    super().__init__()
    self._model = model
    self._vocabulary = vocabulary
    self._max_tokens = max_tokens
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
    """Tokens, without any for beginning or end."""
    del add_special_tokens, kwargs
    return list(self._vocabulary.encode(string))

  def _loglikelihood_tokens(
    self, requests, disable_tqdm: bool = False, **kwargs
  ) -> list[tuple[float, bool]]:
    del kwargs
    pairs, windows, cut = [], {}, 0
    for i, (texts, context, continuation) in enumerate(requests):
      if not continuation:
        raise ValueError(
          f'An answer has no tokens: {texts[1]!r}, after {texts[0][-200:]!r}. '
          'Mend the document, or leave the task out of SUITE.'
        )
      context = [token for token in context if token != _BEGIN]
      room = self._model.length - len(continuation)
      cut += room < len(context)
      if room < 0:
        windows[i] = self._windows(continuation)
      pairs.append((_last(context, room), continuation))
    self._count('loglikelihood', cut, len(requests))
    # Continuations longer than T are scored in windows, like long texts.
    asked = [pair for i, pair in enumerate(pairs) if i not in windows]
    asked += [window for found in windows.values() for window in found]
    likelihoods = self._model.log_likelihoods(
      asked, None if disable_tqdm else 'Log-likelihoods'
    )
    answers = ((x.value, x.is_greedy) for x in likelihoods)
    found = {i: next(answers) for i in range(len(pairs)) if i not in windows}
    for i, parts in windows.items():
      values = [next(answers) for _ in parts]
      found[i] = sum(v for v, _ in values), all(g for _, g in values)
    return [found[i] for i in range(len(pairs))]

  def loglikelihood_rolling(
    self, requests: Sequence[instance.Instance], disable_tqdm: bool = False
  ) -> list[float]:
    """log P of whole texts, each token scored once, in windows of T."""
    windows = [
      self._windows(self.tok_encode(request.args[0])) for request in requests
    ]
    answers = iter(
      self._model.log_likelihoods(
        [window for found in windows for window in found],
        None if disable_tqdm else 'Rolling log-likelihoods',
      )
    )
    return [sum(next(answers).value for _ in found) for found in windows]

  def generate_until(
    self, requests: Sequence[instance.Instance], disable_tqdm: bool = False
  ) -> list[str]:
    """Greedy continuations, up to the first of a request's stop strings.

    Raises:
      ValueError: a request asks for samples, or for T or more tokens.
    """
    groups: dict[int, list[int]] = {}
    for i, request in enumerate(requests):
      options = request.args[1]
      if options.get('do_sample') or options.get('temperature'):
        raise ValueError(
          f'{request.task_name} asks for samples, {options}: only greedy '
          'generation is supported; set do_sample: false and temperature: 0.'
        )
      max_tokens = options.get('max_gen_toks', self._max_tokens)
      if not 0 < max_tokens < self._model.length:
        raise ValueError(
          f'{request.task_name}: max_gen_toks = {max_tokens} must be positive '
          f'and less than the {self._model.length} tokens of a sequence.'
        )
      groups.setdefault(max_tokens, []).append(i)
    results, cut = [''] * len(requests), 0
    generated = []  # (request, context, its tokens up to a stop string)
    for max_tokens, rows in groups.items():
      room = self._model.length - max_tokens
      contexts = [self.tok_encode(requests[i].args[0]) for i in rows]
      cut += sum(len(x) > room for x in contexts)
      contexts = [_last(x, room) for x in contexts]
      found = self._model.continuations(
        contexts, max_tokens, None if disable_tqdm else 'Continuations'
      )
      for i, context, tokens in zip(rows, contexts, found, strict=True):
        until = requests[i].args[1].get('until') or []
        stops = [until] if isinstance(until, str) else until
        results[i] = _until(self._decoded(context, tokens), stops)
        # Append EOS to outputs that stopped early.
        ended = [self.eot_token_id] if len(tokens) < max_tokens else []
        tokens = self._stopped(context, tokens, stops) or [*tokens, *ended]
        generated.append((i, context, tokens))
    self._count('generate_until', cut, len(requests))
    found = self._model.log_likelihoods([(a, b) for _, a, b in generated])
    for (i, _, _), likelihood in zip(generated, found, strict=True):
      key = requests[i].task_name, requests[i].doc_id
      self.confidences[key] = likelihood.value
    return results

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

  def _windows(self, tokens: list[int]) -> list[tuple[list[int], list[int]]]:
    """Windows of T tokens: (context, scored tokens)."""
    windows = lm_eval_utils.get_rolling_token_windows(
      tokens, _BEGIN, max_seq_len=self._model.length - 1, context_len=1
    )
    pairs = map(lm_eval_utils.make_disjoint_window, windows)
    return [
      ([token for token in context if token != _BEGIN], scored)
      for context, scored in pairs
    ]

  def _decoded(self, context: list[int], tokens: list[int]) -> str:
    """Decodes tokens in context; alone they would lose a leading space."""
    decode = self._vocabulary.decode
    return decode([*context, *tokens])[len(decode(context)) :]

  def _count(self, kind: str, cut: int, requests: int):
    before = self.truncated.get(kind, (0, 0))
    self.truncated[kind] = before[0] + cut, before[1] + requests
    if cut:
      logging.warning(
        '%s: %d of %d requests are longer than %d tokens; their contexts were '
        'trimmed at the beginning.',
        kind,
        cut,
        requests,
        self._model.length,
      )


def _last(tokens: list[int], count: int) -> list[int]:
  """The last `count` tokens; none if that is not positive."""
  return tokens[max(len(tokens) - max(count, 0), 0) :]


def _until(text: str, stops: Sequence[str]) -> str:
  """The text before the first of the stop strings."""
  ends = [text.find(stop) for stop in stops if stop and stop in text]
  return text[: min(ends, default=len(text))]
