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
import decimal
import re

import numpy as np

_ROUGES = ('rouge1', 'rouge2', 'rougeLsum')

# A number, perhaps with a sign, a dollar and thousands' commas. What ends a
# sentence is no part of it, nor is the hyphen of a range its sign.
_NUMBER = re.compile(r'(?:(?<![\w.)])-)?(?:\$-?)?(?:\d[\d,]*(?:\.\d+)?|\.\d+)')
_ANSWER = '####'


def rouge(
  targets: Sequence[str], predictions: Sequence[str]
) -> dict[str, float]:
  """ROUGE-1, ROUGE-2 and ROUGE-Lsum, F-measures, without stemming.

  ROUGE-Lsum compares sentence by sentence, and newlines are what separates
  sentences: CNN/DailyMail's highlights have them. A text without is one
  sentence.

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
  scorer = rouge_scorer.RougeScorer(_ROUGES)
  scores = [
    scorer.score(*pair) for pair in zip(targets, predictions, strict=True)
  ]
  return {
    name: 100 * float(np.mean([score[name].fmeasure for score in scores]))
    for name in _ROUGES
  }


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


def final_number(text: str) -> decimal.Decimal | None:
  """The number that a solution comes to.

  Args:
    text: of a solution.

  Returns:
    The first number after '####'; without that mark, the last of all. None if
    there is none.
  """
  _, mark, answer = text.partition(_ANSWER)
  numbers = _NUMBER.findall(answer if mark else text)
  if not numbers:
    return None
  number = numbers[0 if mark else -1]
  return decimal.Decimal(number.replace('$', '').replace(',', ''))
