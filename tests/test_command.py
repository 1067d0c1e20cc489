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

"""What commands share: tasks by name, gin files by flags."""

import subprocess
import sys

import pytest
import seqio

from salt_t5x import command, difficulty, engine, select, study
from salt_t5x.minipile import prepare


@pytest.mark.parametrize('name', ['', '.', '.tasks', 'no/such.py', 'no.such'])
def test_rejects_modules_that_do_not_exist(name):
  with pytest.raises(SystemExit, match='--module_import=.*import statement'):
    command.find_task('task', [name])


@pytest.mark.parametrize(
  'source, error',
  [
    ('raise ValueError("its own")', ValueError),
    ('import not_there', ModuleNotFoundError),
  ],
)
def test_errors_within_a_module_pass(tmp_path, monkeypatch, source, error):
  (tmp_path / 'broken_tasks.py').write_text(source)
  monkeypatch.syspath_prepend(tmp_path)
  with pytest.raises(error, match='its own|not_there'):
    command.find_task('task', ['broken_tasks'])


def test_unknown_tasks_list_near_names(monkeypatch):
  monkeypatch.setattr(
    seqio.TaskRegistry, '_REGISTRY', {'short_spans': None, 'x': None}
  )
  with pytest.raises(SystemExit, match='--task=short_span: .*: short_spans'):
    command.find_task('short_span', [])


@pytest.mark.parametrize(
  'flag, expected', [(None, False), ('', True), ('=true', True), ('=0', False)]
)
def test_boolean_flags_are_those_of_absl(flag, expected):
  argv = ['score', *([] if flag is None else [f'--multiprocess_gpu{flag}'])]
  args = command.parse_gin_command('salt_t5x.score', 'Scores.', argv)
  assert args.multiprocess_gpu is expected


@pytest.mark.parametrize('name', ['score', 'train'])
def test_help_of_gin_commands(name):
  if name == 'train' and engine.current() != engine.EMBEDDED:
    pytest.skip("t5x's own train binary has its own help")
  text = subprocess.run(
    [sys.executable, '-m', f'salt_t5x.{name}', '--help'],
    capture_output=True,
    text=True,
    check=True,
  ).stdout
  assert f'usage: python -m salt_t5x.{name} [' in text
  assert {'score': 'Scores a cache', 'train': 'Trains a model'}[name] in text


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


@pytest.mark.parametrize(
  'module, flag, others',
  [
    (select, 'scores', '--output=x.json --kd_steps=1 --batch_size=1'),
    (select, 'output', '--scores=x --kd_steps=1 --batch_size=1'),
    (difficulty, 'results', '--teacher=SLM'),
    (study, 'work_dir', ''),
    (study, 'output_dir', ''),
    (prepare, 'data_dir', ''),
    (prepare, 'cache_dir', '--data_dir=x'),
  ],
)
def test_flags_of_paths_know_the_home_folder(monkeypatch, module, flag, others):
  """A shell leaves the tilde of --flag=~/folder as it is."""
  monkeypatch.setenv('HOME', '/home/me')
  argv = ['', f'--{flag}=~/a.json', *others.split()]
  assert getattr(module.parse_flags(argv), flag) == '/home/me/a.json'


def test_unknown_flags_name_the_nearest(capsys):
  flags = ['--scores=s', '--output=o.json', '--kd_steps=1', '--batch_size=1']
  with pytest.raises(SystemExit):
    select.parse_flags(['select', *flags, '--first_steps=3'])
  assert 'Did you mean --first_step?' in capsys.readouterr().err
