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

"""Targets and measures of the tasks in this package's YAML files.

lm-eval calls them with a document, in its data set's own form, and with the
model's answers.
"""

from collections.abc import Mapping, Sequence
import re
from typing import Any

from lm_eval.tasks.tydiqa import utils as question_answering

from salt_t5x.evaluation import text_metrics
from salt_t5x.evaluation.few_shot import sandbox

Document = Mapping[str, Any]

NO_ANSWER = 'unanswerable'


def squad_v2_target(doc: Document) -> str:
  """The first answer, or `NO_ANSWER` where the passage holds none."""
  return doc['answers']['text'][0] if doc['answers']['text'] else NO_ANSWER


def squad_v2(doc: Document, results: Sequence[str]) -> dict[str, float]:
  """Exact match and F1 of normalised answers; saying `NO_ANSWER` is one."""
  answers = doc['answers']['text'] or [NO_ANSWER]
  return question_answering.process_results_en({'answers': answers}, results)


def record_passage(doc: Document) -> str:
  """The passage, with its highlights as sentences."""
  return re.sub(r'\s*@highlight\s*', '\n- ', doc['passage'])


def record_choices(doc: Document) -> list[str]:
  """The query with each entity in the place of the blank."""
  return [doc['query'].replace('@placeholder', x) for x in _entities(doc)]


def record_answers(doc: Document) -> list[int]:
  """Which choices are right."""
  return [i for i, x in enumerate(_entities(doc)) if x in doc['answers']]


def record_first_answer(doc: Document) -> int:
  """A right choice, for demonstrations."""
  return record_answers(doc)[0]


def _entities(doc: Document) -> list[str]:
  return sorted(set(doc['entities']))


def rouge2(references: Sequence[str], predictions: Sequence[str]) -> float:
  """ROUGE-2's F-measure of one prediction, between 0 and 1."""
  return text_metrics.rouge(references, predictions)['rouge2'] / 100


def pass_at_1(doc: Document, results: Sequence[str]) -> dict[str, float]:
  """Whether the program passes the task's tests, without challenge tests."""
  sandbox.check()
  outcome = sandbox.run(
    results[0], doc['test_list'], setup=doc.get('test_setup_code') or ''
  )
  return {'pass_at_1': float(outcome.passed)}
