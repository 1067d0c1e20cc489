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

"""The rooms: imports go downwards, and no file is long (CONTRIBUTING.md)."""

import ast
import pathlib

ROOT = pathlib.Path(__file__).parents[1] / 'salt_t5x'
# From what one types down to the pure functions. A room imports its own modules
# and rooms of later rows.
FLOORS = [
  'score select evaluate difficulty analyze sample study vocabulary shuffle '
  'look train',
  'estimate',
  'fine_tune',
  'trainer',
  'studies launch',
  'runs',
  'minipile evaluation theory selection',
  'teacher',
  'inference',
  'models network',
  'metrics',
  'data kernels checkpoints',
  'command',
  'configuration',
  'losses schedules files standard_errors engine',
]
FLOOR = {room: i for i, row in enumerate(FLOORS) for room in row.split()}
COMMANDS = FLOORS[0].split()


def room_of(path):
  return path.relative_to(ROOT).with_suffix('').parts[0]


def imports(path):
  """The parts of each name of salt_t5x that a file imports."""
  for node in ast.walk(ast.parse(path.read_text('utf-8'))):
    if isinstance(node, ast.ImportFrom) and node.module:
      names = [f'{node.module}.{name.name}' for name in node.names]
    elif isinstance(node, ast.Import):
      names = [name.name for name in node.names]
    else:
      continue
    for name in names:
      package, *parts = name.split('.')
      if package == 'salt_t5x' and parts:
        yield parts


def files():
  paths = [p for p in ROOT.rglob('*.py') if 'embedded' not in p.parts]
  assert len(paths) > 60
  return [p for p in paths if room_of(p) not in ('__init__', 'gin', 'tasks')]


def test_every_room_has_a_floor():
  assert {room_of(path) for path in files()} == FLOOR.keys()


def test_imports_go_downwards():
  found = {
    f'{path.relative_to(ROOT)} imports {".".join(name)}'
    for path in files()
    for name in imports(path)
    if name[0] != room_of(path) and FLOOR[name[0]] <= FLOOR[room_of(path)]
  }
  assert not found


def test_only_runs_read_the_first_stage():
  readers = {
    room_of(path)
    for path in files()
    if ['selection', 'first_stage'] in list(imports(path))
  }
  assert readers == {'runs'}


def test_files_are_short():
  for path in ROOT.rglob('*.py'):
    lines = len(path.read_text('utf-8').splitlines())
    limit = 200 if room_of(path) in COMMANDS else 450
    name = path.relative_to(ROOT).as_posix()
    assert lines <= limit, f'{name} has {lines} lines'
