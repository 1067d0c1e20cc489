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


"""Next-token accuracy and log-perplexity on held-out text (Table 1)."""

from collections.abc import Sequence
import math
from typing import Any

import numpy as np

from salt_t5x import files
from salt_t5x.inference import language_model
from salt_t5x.standard_errors import with_error

ALL = 'all'


def measure(
  model: language_model.LanguageModel,
  sequences: Sequence[tuple[str, Sequence[int]]],
) -> tuple[dict[str, dict[str, float]], list[dict[str, Any]]]:
  """Measures next-token accuracy and log-perplexity, by domain.

  Args:
    model: the model.
    sequences: (domain, tokens) of each sequence, at most T tokens.

  Returns:
    ({domain, or `ALL`: {'accuracy': share of tokens that are the likeliest,
    'log_perplexity': nats per token, 'accuracy_error' and
    'log_perplexity_error': their standard errors over sequences (NaN for one),
    'tokens': number of tokens}}, [{'doc_id': number, 'domain', 'score':
    accuracy, 'confidence': the sequence's log-likelihood, nats}]).
  """
  found = model.log_likelihoods(
    [([], tokens) for _, tokens in sequences], 'Held-out text'
  )
  documents, of_domains = [], {}
  for i, ((domain, _), x) in enumerate(zip(sequences, found, strict=True)):
    # A domain may have the name of the row for all text.
    domain += '_' * (domain.rstrip('_') == ALL)
    score = x.hits / x.tokens
    documents.append(
      {'doc_id': i, 'domain': domain, 'score': score, 'confidence': x.value}
    )
    if domain:
      of_domains.setdefault(domain, []).append(x)
  groups = {ALL: found} | dict(sorted(of_domains.items()))
  return {name: _measure(x) for name, x in groups.items()}, documents


def _measure(
  found: Sequence[language_model.LogLikelihood],
) -> dict[str, float]:
  tokens, hits, losses = np.array(
    [(x.tokens, x.hits, -x.value) for x in found], np.float64
  ).T
  result = {}
  for name, values in (('accuracy', hits), ('log_perplexity', losses)):
    result[name], result[f'{name}_error'] = _ratio(values, tokens)
  return result | {'tokens': int(tokens.sum())}


def _ratio(values: np.ndarray, tokens: np.ndarray) -> tuple[float, float]:
  """(sum of values / sum of tokens, its standard error over sequences)."""
  ratio, n = values.sum() / tokens.sum(), len(values)
  if n < 2:
    return float(ratio), math.nan
  residuals = np.sum((values - ratio * tokens) ** 2) * n / (n - 1)
  return float(ratio), float(np.sqrt(residuals) / tokens.sum())


def markdown(results: dict[str, dict[str, dict[str, float]]]) -> str:
  """Formats {model: result of `measure`} as Markdown, a row per domain."""

  def cell(x):
    accuracy = with_error(x['accuracy'], x['accuracy_error'], 2, scale=100)
    nats = with_error(x['log_perplexity'], x['log_perplexity_error'], 3)
    return f'{accuracy} / {nats}'

  first = next(iter(results.values()))
  rows = [
    [domain, of_domain['tokens'], *(cell(x[domain]) for x in results.values())]
    # `ALL` comes last.
    for domain, of_domain in sorted(first.items(), key=lambda x: x[0] == ALL)
  ]
  table = files.markdown_table(['domain', 'tokens', *results], rows)
  return (
    f'{table}\n\nAccuracy in percent / log-perplexity in nats a token, '
    '± standard errors over sequences.\n'
  )
