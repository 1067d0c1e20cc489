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

"""Tests of claims and tables."""

import pytest
import tensorflow as tf

from salt_t5x import files


def claim(path, record, **options):
  files.claim(
    str(path), record, what="DIR = 'x'", remedy='Choose another.', **options
  )


def test_claim_accepts_the_same_record_only(tmp_path):
  path = tmp_path / 'new' / 'claim.json'
  claim(path, {'a': (1, 2), 'b': None}, write=False)
  assert not path.exists()
  claim(path, {'a': (1, 2), 'b': None})
  claim(path, {'a': (1, 2)})
  with pytest.raises(
    ValueError, match=r"DIR = 'x' .*: a was \[1, 2\] .* 3\. Choose another\."
  ):
    claim(path, {'a': 3, 'b': None})
  path.write_text('{')
  with pytest.raises(ValueError, match='claim.json is damaged .*Choose'):
    claim(path, {'a': 3})


@pytest.mark.parametrize(
  'text', ['[', '[]', '{}', '{"a": 3}', '{"a": {"b": "3"}}', '{"a": {"b": -1}}']
)
def test_read_count_names_the_file(tmp_path, text):
  path = tmp_path / 'info.json'
  path.write_text('{"a": {"b": 3}}')
  assert files.read_count(str(path), '', 'a', 'b') == 3
  path.write_text(text)
  with pytest.raises(ValueError, match=f'{path} is damaged or .*Build again'):
    files.read_count(str(path), 'Build again.', 'a', 'b')


def test_cells_of_tables_hold_no_columns():
  table = files.markdown_table('ab', [['a|b\nc', r'a\|b']])
  assert table.splitlines()[2:] == [r'| a\|b c | a\|b |']


def test_markdown_table():
  assert files.markdown_table('ab', [[1, 'x']]) == (
    '| a | b |\n|---|---|\n| 1 | x |'
  )
  assert '|:--|--:|' in files.markdown_table('ab', [], align='lr')


@pytest.mark.parametrize(
  'name', ['a[1]', 'b*c', 'd?e', 'f\\g', '#%20|', 'h i', '[j', '[!k]', '{l,m}']
)
def test_a_pattern_matches_its_path_alone(tmp_path, name):
  for folder in (name, 'a1', 'bxc', 'dxe', 'fg', 'l'):
    (tmp_path / folder).mkdir()
    (tmp_path / folder / 'x-1').touch()
  pattern = files.pattern(str(tmp_path / name))
  path = str(tmp_path / name / 'x-1')
  assert tf.io.gfile.glob(f'{pattern}/x-*') == [path]
  assert tf.io.gfile.glob(f'{pattern}/x-1') == [path]
