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
import unicodedata

import numpy as np

_ROUGES = ('rouge1', 'rouge2', 'rougeLsum')

# A number, perhaps with a sign, a currency, thousands' commas, a power of ten
# and a denominator, or a mixed number.
# What ends a sentence is no part of it, nor is the hyphen of a range its sign.
_NUMBER = re.compile(
  r'((?:(?<![\w.)])-)?(?:[$€£¥]-?)?(?:\d[\d,]*(?:\.\d+)?|\.\d+)'
  r'(?:[eE][+-]?\d{1,2}(?!\w))?)'
  r'(?:(?: (\d+))?/([1-9]\d{0,2})(?![\d/]))?'
)
# How LaTeX and typographers write the same.
_SPELLINGS = {
  r'[\u2212\u2013\uff0d]': '-',
  r'\{,\}': ',',
  r'\\\$': '$',
  r'(?<=\d)(?:\\,|[\u00a0\u2009\u202f])(?=\d{3}(?!\d))': ',',
  r'(?<=\d)\\([dt]?frac)': r' \\\1',
  r'\\[dt]?frac\{(\d+)\}\{(\d+)\}': r'\1/\2',
  r'\\[dt]?frac(\d)(\d)': r'\1/\2',
  r'(?<=\d) ?(?:\\times|\\cdot|[×·*x]) ?10\^\{?(-?\d{1,2})\}?': r'e\1',
}
_VULGAR_FRACTION = re.compile('[\u00bc-\u00be\u2150-\u215e]')
_ANSWER = '####'
# Of scripts without spaces, each character is a word.
_UNSPACED = (
  '\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff'
  '\U00020000-\U0003ffff'
)
_WORD = re.compile(f'[{_UNSPACED}]|[^{_UNSPACED}\\s]+')


def rouge(
  targets: Sequence[str], predictions: Sequence[str]
) -> dict[str, float]:
  """ROUGE-1, ROUGE-2 and ROUGE-Lsum, F-measures, without stemming.

  ROUGE-Lsum compares sentence by sentence, and newlines are what separates
  sentences: CNN/DailyMail's highlights have them. A text without is one
  sentence.

  rouge-score's words are of a-z and 0-9. Where most letters of a target are
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
  english, others = (
    rouge_scorer.RougeScorer(_ROUGES, tokenizer=tokenizer)
    for tokenizer in (None, _UnicodeTokenizer())
  )
  scores = []
  for target, prediction in zip(targets, predictions, strict=True):
    letters = [x for x in target if x.isalpha()]
    is_english = 2 * sum(map(str.isascii, letters)) >= len(letters)
    scorer = english if is_english else others
    scores.append(scorer.score(target, prediction))
  return {
    name: 100 * float(np.mean([score[name].fmeasure for score in scores]))
    for name in _ROUGES
  }


class _UnicodeTokenizer:
  """A tokenizer of rouge-score for all scripts."""

  def tokenize(self, text: str) -> list[str]:
    # Letters, numbers and marks, such as Devanagari's vowels.
    kinds = [(x, unicodedata.category(x)) for x in text.lower()]
    joined = ''.join(
      x if kind[0] in 'LMN' else ' ' for x, kind in kinds if kind != 'Cf'
    )
    return _WORD.findall(joined)


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
  answer = _VULGAR_FRACTION.sub(
    lambda x: unicodedata.normalize('NFKC', x[0]).replace('\u2044', '/'),
    re.sub(rf'(?<=\d)(?={_VULGAR_FRACTION.pattern})', ' ', answer),
  )
  for spelling, usual in _SPELLINGS.items():
    answer = re.sub(spelling, usual, answer)
  numbers = _NUMBER.findall(answer)
  if not numbers:
    return None
  number, numerator, denominator = numbers[0 if mark else -1]
  number = fractions.Fraction(re.sub('[$€£¥,]', '', number))
  if numerator:  # A mixed number, such as 1 1/2.
    part = fractions.Fraction(int(numerator), int(denominator))
    return number + (-part if number < 0 else part)
  return number / int(denominator or 1)
