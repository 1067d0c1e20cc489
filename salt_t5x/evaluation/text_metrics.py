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


"""Measures of generated texts, as seqio metric functions (Tables 4 and 15).

Each takes targets and predictions, two lists of texts, and gives percents.
"""

from collections.abc import Sequence
import fractions
import re

import numpy as np

_ROUGES = ('rouge1', 'rouge2', 'rougeLsum')

# A number, perhaps with a sign, a dollar, thousands' commas and a denominator.
# What ends a sentence is no part of it, nor is the hyphen of a range its sign.
_NUMBER = re.compile(
  r'((?:(?<![\w.)])-)?(?:\$-?)?(?:\d[\d,]*(?:\.\d+)?|\.\d+))'
  r'(?:/([1-9]\d{0,2})(?![\d/]))?'
)
# How LaTeX and typographers write the same.
_SPELLINGS = {
  r'\u2212': '-',
  r'\{,\}': ',',
  r'\\[dt]?frac\{(\d+)\}\{(\d+)\}': r'\1/\2',
}
_ANSWER = '####'
# Words of any script; those of scripts without spaces are single characters.
_WORD = re.compile(
  '[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff'
  '\U00020000-\U0003ffff]|[^\\W_]+'
)


def rouge(
  targets: Sequence[str], predictions: Sequence[str]
) -> dict[str, float]:
  """ROUGE-1, ROUGE-2 and ROUGE-Lsum, F-measures, without stemming.

  ROUGE-Lsum compares sentence by sentence, and newlines are what separates
  sentences: CNN/DailyMail's highlights have them. A text without is one
  sentence.

  rouge-score's words are of a-z and 0-9. Where most letters of the targets are
  others, words are those of Unicode, and single characters in scripts without
  spaces.

  Args:
    targets: the reference summaries.
    predictions: the generated ones.

  Returns:
    {'rouge1', 'rouge2', 'rougeLsum'}, means over texts.

  Raises:
    ImportError: the package rouge-score is missing.
  """
  try:
    from rouge_score import rouge_scorer
  except ImportError as error:
    raise ImportError(
      "ROUGE needs rouge-score: pip install 'salt_t5x[evaluate]'."
    ) from error
  letters = [x for x in ''.join(targets) if x.isalpha()]
  is_latin = 2 * sum(map(str.isascii, letters)) >= len(letters)
  scorer = rouge_scorer.RougeScorer(
    _ROUGES, tokenizer=None if is_latin else _UnicodeTokenizer()
  )
  scores = [
    scorer.score(*pair) for pair in zip(targets, predictions, strict=True)
  ]
  return {
    name: 100 * float(np.mean([score[name].fmeasure for score in scores]))
    for name in _ROUGES
  }


class _UnicodeTokenizer:
  """A tokenizer of rouge-score for all scripts."""

  def tokenize(self, text: str) -> list[str]:
    return _WORD.findall(text.lower())


def accuracy(
  targets: Sequence[str], predictions: Sequence[str]
) -> dict[str, float]:
  """{'accuracy': share of equal texts}; white space around them is nothing."""
  pairs = zip(targets, predictions, strict=True)
  right = [a.strip() == b.strip() for a, b in pairs]
  return {'accuracy': 100 * float(np.mean(right))}


def gsm8k_accuracy(
  targets: Sequence[str], predictions: Sequence[str]
) -> dict[str, float]:
  """Share of texts that come to the same number (GSM8K).

  Args:
    targets: answers of the data set, which end in '#### ' and a number.
    predictions: generated answers; one without a number is wrong.

  Returns:
    {'accuracy'}.

  Raises:
    ValueError: a target has no number.
  """
  right = []
  for target, prediction in zip(targets, predictions, strict=True):
    expected = final_number(target)
    if expected is None:
      raise ValueError(f'The answer {target!r} of GSM8K has no number.')
    right.append(final_number(prediction) == expected)
  return {'accuracy': 100 * float(np.mean(right))}


def final_number(text: str) -> fractions.Fraction | None:
  """The number that a solution comes to.

  Args:
    text: of a solution.

  Returns:
    The first number after '####'; without that mark, the last of all. None if
    there is none.
  """
  _, mark, answer = text.partition(_ANSWER)
  answer = answer if mark else text
  for spelling, usual in _SPELLINGS.items():
    answer = re.sub(spelling, usual, answer)
  numbers = _NUMBER.findall(answer)
  if not numbers:
    return None
  number, denominator = numbers[0 if mark else -1]
  number = fractions.Fraction(number.replace('$', '').replace(',', ''))
  return number / int(denominator or 1)
