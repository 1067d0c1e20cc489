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

import numpy as np

from salt_t5x import global_order, language_model

ALL = 'all'


def read(
  name: str, split: str, examples: int | None
) -> list[tuple[str, list[int]]]:
  """Reads the sequences of a cache, in its global order.

  Args:
    name: a task over a `global_order.CachedSource`. What it draws or cuts plays
      no part: whole sequences are judged, as a causal LM's.
    split: of the cache, e.g. 'validation'.
    examples: how many; None for all.

  Returns:
    (domain, tokens) of each; the domain is '' where the cache has none.

  Raises:
    ValueError: the task reads its data in another way.
  """
  source = global_order.get_task(name).source
  count = examples or source.num_input_examples(split)
  records = source.records(split).take(count).map(source.parser(split))
  return [
    (
      example.get('domain', b'').decode(),
      example['targets'][example['targets'] > 0].tolist(),
    )
    for example in records.as_numpy_iterator()
  ]


def measure(
  model: language_model.LanguageModel,
  sequences: Sequence[tuple[str, Sequence[int]]],
) -> dict[str, dict[str, float]]:
  """Judges every token of the sequences, given those before it.

  Args:
    model: the model.
    sequences: (domain, tokens) of each, at most T tokens.

  Returns:
    {domain, or `ALL`: {'accuracy': share of tokens that are the likeliest,
    'log_perplexity': nats a token, 'log_perplexity_error': standard error of
    it, over sequences, 'tokens': how many}}.
  """
  judged = [(domain, x) for domain, x in sequences if x]
  found = model.judge([([], x) for _, x in judged], 'Held-out text')
  domains = [domain for domain, _ in judged]
  groups = {ALL: range(len(judged))} | {
    domain: [i for i, other in enumerate(domains) if other == domain]
    for domain in sorted(set(domains))
    if domain
  }
  return {
    name: _measure([found[i] for i in rows]) for name, rows in groups.items()
  }


def _measure(
  judgements: Sequence[language_model.Judgement],
) -> dict[str, float]:
  tokens = np.array([x.tokens for x in judgements], np.float64)
  losses = np.array([-x.log_likelihood for x in judgements], np.float64)
  hits = sum(x.hits for x in judgements)
  mean = losses.sum() / tokens.sum()
  # Of a ratio of sums.
  residuals = losses - mean * tokens
  error = np.sqrt(np.sum(residuals**2)) / tokens.sum()
  return {
    'accuracy': hits / tokens.sum(),
    'log_perplexity': mean,
    'log_perplexity_error': error,
    'tokens': int(tokens.sum()),
  }


def markdown(results: dict[str, dict[str, dict[str, float]]]) -> str:
  """{model: what `measure` found} as a Markdown table, domains in rows."""
  models = list(results)
  first = results[models[0]]
  lines = [
    '| domain | tokens |' + ''.join(f' {model} |' for model in models),
    '|---|---|' + '---|' * len(models),
  ]
  for domain in [x for x in first if x != ALL] + [ALL]:
    cells = [
      f' {100 * of_model[domain]["accuracy"]:.2f} / '
      f'{of_model[domain]["log_perplexity"]:.3f} '
      f'± {of_model[domain]["log_perplexity_error"]:.3f} |'
      for of_model in results.values()
    ]
    lines.append(f'| {domain} | {first[domain]["tokens"]} |' + ''.join(cells))
  lines += [
    '',
    'Accuracy in percent / log-perplexity in nats a token ± standard error '
    'over sequences.',
  ]
  return '\n'.join(lines) + '\n'
