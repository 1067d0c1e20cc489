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


"""Three made-up documents of each of the 28 benchmarks, in its own form.

`CASES` has what a pretended model answers to each, and what the metric is by
hand.
"""

import dataclasses
import json
import pathlib
from typing import Any


@dataclasses.dataclass(frozen=True)
class Case:
  """A benchmark's documents and a model's answers to them.

  Attributes:
    documents: in the data set's form.
    answers: to each: the choice's index, the text, or whether it is greedy.
    expected: the score, by hand.
    chance: by hand.
    split: that is evaluated.
    parts: what the prompt of the first document ends with, and what answers a
      demonstration of the second ends with.
  """

  documents: list[dict[str, Any]]
  answers: list[Any]
  expected: float
  chance: float = 0.0
  split: str = 'validation'
  prompt: str = ''
  demonstration: str = ''


def _squad(id_, context, question, answers):
  starts = [context.find(x) for x in answers]
  return {
    'id': id_,
    'title': 'Harbours',
    'context': context,
    'question': question,
    'answers': {'text': answers, 'answer_start': starts},
  }


_GOLD_PASSAGES = [
  _squad(
    'english-1', 'The ferry left at nine.', 'When did it leave?', ['nine']
  ),
  _squad(
    'english-2',
    'Blue paint covers the old wall.',
    'What covers the wall?',
    ['Blue paint', 'paint'],
  ),
  _squad('finnish-1', 'Lautta on punainen.', 'Mikä on punainen?', ['Lautta']),
  _squad('english-3', 'Three goats ate the hay.', 'Who ate?', ['Three goats']),
]
# F1 by hand: 'the nine' is 'nine' without its article: 1. 'red paint' shares
# one of two words with 'blue paint' (1/2) and has precision 1/2 and recall 1
# against 'paint': 2/3. 'nobody' shares none: 0.
_GOLD_ANSWERS = ['the nine', 'red paint', 'nobody']
_GOLD_F1 = (1 + 2 / 3 + 0) / 3


def _arc(question, texts, key):
  return {
    'id': question,
    'question': question,
    'choices': {'text': texts, 'label': ['A', 'B', 'C', 'D'][: len(texts)]},
    'answerKey': key,
  }


def _race(article, question, options, answer):
  return {
    'example_id': article,
    'article': article,
    'question': question,
    'options': options,
    'answer': answer,
  }


_RACE = Case(
  documents=[
    _race('Ann keeps bees.', 'What does Ann keep?', list('bcde'), 'A'),
    _race('Bob sails.', 'What does Bob do?', ['a', 'b', 'c', 'sails'], 'D'),
    _race('Rain fell.', 'What fell?', ['snow', 'rain', 'hail', 'ash'], 'B'),
  ],
  answers=[0, 3, 0],
  expected=2 / 3,
  chance=1 / 4,
  split='test',
  prompt='Article: Ann keeps bees.\n\nQuestion: What does Ann keep?\nAnswer:',
  demonstration='Question: What does Bob do?\nAnswer: sails\n\n',
)

_ARC = Case(
  documents=[
    _arc('Ice is', ['hot', 'cold', 'loud'], 'B'),
    _arc('Fire is', ['hot', 'cold', 'loud'], 'A'),
    _arc('Night is', ['dark', 'red'], 'A'),
  ],
  answers=[1, 2, 0],
  expected=2 / 3,
  chance=(1 / 3 + 1 / 3 + 1 / 2) / 3,
  split='test',
)


def _choices(documents, answers, expected, chance=0.5, **kwargs):
  return Case(documents, answers, expected, chance, **kwargs)


def _summary(text, summary):
  return Case(
    documents=[
      {text: 'Rain fell all day.', summary: 'It rained all day long'},
      {text: 'The shop sells tea.', summary: 'A shop sells tea'},
      {text: 'Goats climb.', summary: 'Goats can climb'},
    ],
    # Bigrams by hand. 'it rained all night': 2 of its 3, 2 of 4: F = 4/7.
    # 'a shop sells tea': 1. 'nothing at all': 0.
    answers=['It rained all night', 'A shop sells tea', 'nothing at all'],
    expected=(4 / 7 + 1 + 0) / 3,
    split='test',
    prompt='Article: Rain fell all day.\n\nSummary:',
    demonstration=(
      'Article: The shop sells tea.\n\nSummary: A shop sells tea\n\n'
    ),
  )


def _record(passage, query, entities, answers):
  return {
    'passage': passage,
    'query': query,
    'entities': entities,
    'answers': answers,
  }


def _multirc(question, answer, label):
  return {
    'paragraph': 'Tom has two cats and a dog.',
    'question': question,
    'answer': answer,
    'label': label,
  }


def _mbpp(id_, text, code, tests, challenge=()):
  return {
    'task_id': id_,
    'text': text,
    'code': code,
    'test_list': tests,
    'test_setup_code': '',
    'challenge_test_list': list(challenge),
  }


def _story(endings, right):
  return {
    'input_sentence_1': 'Kim baked.',
    'input_sentence_2': 'It smelled good.',
    'input_sentence_3': 'Friends came.',
    'input_sentence_4': 'They sat down.',
    'sentence_quiz1': endings[0],
    'sentence_quiz2': endings[1],
    'answer_right_ending': right,
  }


CASES = {
  'nq_open': Case(
    [
      {'question': 'who wrote the letter', 'answer': ['Mary Hill', 'M. Hill']},
      {'question': 'where is the mill', 'answer': ['by the river']},
      {'question': 'how many oars', 'answer': ['four', '4']},
    ],
    # Case, punctuation and articles do not count.
    ['m hill', 'the sea', '4'],
    2 / 3,
  ),
  'triviaqa': Case(
    [
      {'question': q, 'answer': {'value': a[0], 'aliases': a}}
      for q, a in [
        ('Which bird sings at night', ['Nightingale', 'The nightingale']),
        ('Which sea is salty', ['All']),
        ('Which tree has needles', ['Pine', 'Fir']),
      ]
    ],
    ['nightingale!', 'none', 'oak'],
    1 / 3,
  ),
  'tydiqa_nocontext': Case(
    _GOLD_PASSAGES,
    _GOLD_ANSWERS,
    _GOLD_F1,
    prompt='Question: When did it leave?\nAnswer:',
    demonstration='Question: What covers the wall?\nAnswer: Blue paint\n\n',
  ),
  'webqs': Case(
    [
      {'question': 'what colour is the barn?', 'answers': ['Red', 'Dark red']},
      {'question': 'who lives there?', 'answers': ['Ida']},
      {'question': 'what grows?', 'answers': ['Rye']},
    ],
    ['dark red.', 'Ida', 'wheat'],
    2 / 3,
    split='test',
    prompt='Question: what colour is the barn?\nAnswer:',
    demonstration='Question: who lives there?\nAnswer: Ida\n\n',
  ),
  'race_middle': _RACE,
  'race_high': _RACE,
  'squadv2': Case(
    [
      _squad('1', 'The mayor is Ada.', 'Who is mayor?', ['Ada', 'the Ada']),
      _squad('2', 'Trams run late.', 'Who drives?', []),
      _squad('3', 'Tea is hot.', 'What is hot?', ['Tea']),
    ],
    ['ada.', 'unanswerable', 'unanswerable'],
    2 / 3,
    prompt=(
      'Title: Harbours\n\nBackground: The mayor is Ada.\n\nQuestion: Who is '
      'mayor?\n\nAnswer:'
    ),
    demonstration='Question: Who drives?\n\nAnswer: unanswerable\n\n',
  ),
  'tydiqa_goldp': Case(_GOLD_PASSAGES, _GOLD_ANSWERS, _GOLD_F1),
  'arc_easy': _ARC,
  'arc_challenge': _ARC,
  'hellaswag': _choices(
    [
      {
        'ctx_a': 'A man holds a rope.',
        'ctx_b': 'he',
        'activity_label': 'Climbing',
        'endings': ['eats it.', 'climbs.', 'sings.', 'sleeps.'],
        'label': str(label),
      }
      for label in (1, 2, 0)
    ],
    [1, 2, 3],
    2 / 3,
    1 / 4,
  ),
  'openbookqa': _choices(
    [
      {
        'question_stem': stem,
        'choices': {'text': list('abcd'), 'label': ['A', 'B', 'C', 'D']},
        'answerKey': key,
      }
      for stem, key in [('Plants need', 'A'), ('Wood', 'B'), ('Metal', 'D')]
    ],
    [0, 1, 0],
    2 / 3,
    1 / 4,
    split='test',
  ),
  'piqa': _choices(
    [
      {'goal': goal, 'sol1': 'Use a knife.', 'sol2': 'Use a cloud.', 'label': x}
      for goal, x in [('Cut bread', 0), ('Cut rope', 0), ('Shade a field', 1)]
    ],
    [0, 1, 1],
    2 / 3,
  ),
  'storycloze': _choices(
    [
      _story(['They ate.', 'They flew.'], 1),
      _story(['It rained soup.', 'They talked.'], 2),
      _story(['They left.', 'It sang.'], 1),
    ],
    [0, 0, 0],
    2 / 3,
    split='test',
  ),
  'winogrande': _choices(
    [
      {
        'sentence': f'The {x} does not fit the bag because _ is big.',
        'option1': f'the {x}',
        'option2': 'the bag',
        'answer': answer,
      }
      for x, answer in [('kite', '1'), ('ball', '2'), ('hat', '1')]
    ],
    [0, 1, 1],
    2 / 3,
  ),
  'lambada': Case(
    [
      {'text': 'He opened the door and saw the dog'},
      {'text': 'She sang, and all listened to the song'},
      {'text': 'The boat came back to the quay'},
    ],
    [True, False, True],
    2 / 3,
    split='test',
  ),
  'boolq': _choices(
    [
      {'passage': 'Cats purr.', 'question': q, 'label': label}
      for q, label in [('do cats purr', 1), ('do cats fly', 0), ('is it', 1)]
    ],
    [1, 0, 0],
    2 / 3,
  ),
  'cb': _choices(
    [
      {'premise': 'It rains.', 'hypothesis': h, 'label': label}
      for h, label in [('Water falls', 0), ('It is dry', 1), ('It is May', 2)]
    ],
    [0, 0, 2],
    2 / 3,
    1 / 3,
  ),
  'copa': _choices(
    [
      {
        'premise': f'The {x} fell.',
        'choice1': 'It was pushed.',
        'choice2': 'It was blue.',
        'question': 'cause',
        'label': label,
      }
      for x, label in [('cup', 0), ('vase', 0), ('jar', 1)]
    ],
    [0, 1, 1],
    2 / 3,
  ),
  'multirc': _choices(
    [
      _multirc('Which pets?', 'Two cats', 1),
      _multirc('Which pets?', 'A horse', 0),
      _multirc('How many cats?', 'Two', 1),
      _multirc('How many cats?', 'Nine', 0),
    ],
    # Right: yes no yes no. Predicted: yes yes no no. One hit of two, of two.
    [1, 1, 0, 0],
    1 / 2,
    # Guessing: precision is the share of yes, 1/2; recall 1/2.
    1 / 2,
    prompt=(
      'Tom has two cats and a dog.\nQuestion: Which pets?\nAnswer: Two cats\n'
      'Is the answer correct?'
    ),
    demonstration='Answer: A horse\nIs the answer correct? no\n\n',
  ),
  'rte': _choices(
    [
      {'premise': 'Snow fell.', 'hypothesis': h, 'label': label}
      for h, label in [('It snowed.', 0), ('It was hot.', 1), ('Flakes.', 0)]
    ],
    [0, 1, 1],
    2 / 3,
  ),
  'record': _choices(
    [
      _record(
        'Oslo beat Bergen.\n@highlight\nOslo won',
        '@placeholder lost the game.',
        ['Oslo', 'Bergen', 'Oslo'],
        ['Bergen'],
      ),
      _record(
        'Ana met Li and Bo.',
        '@placeholder met Li.',
        ['Ana', 'Li', 'Bo'],
        ['Ana'],
      ),
      _record(
        'Ulm is near Blau.',
        '@placeholder is near.',
        ['Ulm', 'Blau'],
        ['Ulm', 'Blau'],
      ),
    ],
    # Choices are entities by name: Bergen, Oslo; Ana, Bo, Li; Blau, Ulm.
    [0, 2, 1],
    2 / 3,
    # Of the last one's two, both are right.
    (1 / 2 + 1 / 3 + 2 / 2) / 3,
    prompt='Oslo beat Bergen.\n- Oslo won',
    demonstration='Ana met Li and Bo.\nAna met Li.\n\n',
  ),
  'wic': _choices(
    [
      {
        'word': 'bank',
        'sentence1': 'The bank is open.',
        'sentence2': second,
        'start1': 4,
        'end1': 8,
        'start2': 4,
        'end2': 8,
        'label': label,
      }
      for second, label in [
        ('The bank is wet.', 0),
        ('The bank is shut.', 1),
        ('The bank is steep.', 0),
      ]
    ],
    [0, 1, 1],
    2 / 3,
  ),
  'wsc': _choices(
    [
      {
        'text': 'Ann told Sue that she won .',
        'span1_index': 0,
        'span1_text': name,
        'span2_index': 4,
        'span2_text': 'she',
        'label': label,
      }
      for name, label in [('Ann', 1), ('Sue', 0), ('Bea', 0)]
    ],
    [1, 1, 0],
    2 / 3,
  ),
  'xlsum': _summary('text', 'summary'),
  'xsum': _summary('document', 'summary'),
  'wikilingua': _summary('source', 'target'),
  'mbpp': Case(
    [
      _mbpp(
        11,
        'Double a number.',
        'def double(x):\n  return 2 * x',
        ['assert double(2) == 4', 'assert double(-1) == -2'],
        # Ignored (App. F).
        ['assert double("a") == 4'],
      ),
      _mbpp(
        12,
        'Add one.',
        'def more(x):\n  return x + 1',
        ['assert more(1) == 2', 'assert more(2) == 3'],
      ),
      _mbpp(13, 'Negate.', 'def neg(x):\n  return -x', ['assert neg(1) == -1']),
      _mbpp(14, 'Square.', 'def sq(x):\n  return x * x', ['assert sq(3) == 9']),
    ],
    [
      'def double(x):\n  return x + x',
      # Right for the first test only.
      'def more(x):\n  return 2 * x',
      'def neg(x)\n  return',
      'def sq(x):\n  return x ** 2',
    ],
    2 / 4,
    split='test',
    prompt=(
      'Write a Python function. Double a number. It must pass these tests:\n\n'
      'assert double(2) == 4\nassert double(-1) == -2\n[BEGIN]\n'
    ),
    demonstration='[BEGIN]\ndef more(x):\n  return x + 1\n[DONE]\n\n',
  ),
}


def write(folder: pathlib.Path) -> None:
  """Writes `<benchmark>/<split>.jsonl` of all of them."""
  for name, case in CASES.items():
    (folder / name).mkdir(parents=True)
    lines = ''.join(json.dumps(x) + '\n' for x in case.documents)
    (folder / name / f'{case.split}.jsonl').write_text(lines)
