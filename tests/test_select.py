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

"""Flags of the select command."""

import pytest

from salt_t5x import select

FLAGS = ['select', '--scores=s', '--output=o.json', '--kd_steps=5',
         '--batch_size=4']  # fmt: skip


@pytest.mark.parametrize('missing', range(1, len(FLAGS)))
def test_requires_flags(capsys, missing):
  select.parse_flags(FLAGS)
  with pytest.raises(SystemExit):
    select.parse_flags(FLAGS[:missing] + FLAGS[missing + 1 :])
  name = FLAGS[missing].split('=')[0]
  assert f'required: {name}' in capsys.readouterr().err


@pytest.mark.parametrize(
  'flag',
  [
    '--kd_steps=0',
    '--kd_steps=1e3',
    '--batch_size=-4',
    '--first_step=-1',
    '--share=nan',
    '--share=0',
    '--kind=best',
    '--output=record',
  ],
)
def test_rejects_flags_that_make_no_sense(capsys, flag):
  with pytest.raises(SystemExit):
    select.parse_flags([*FLAGS, flag])
  name, value = flag.split('=')
  message = capsys.readouterr().err.splitlines()[-1]
  assert name in message and value in message


@pytest.mark.parametrize('path', ['none', 'file'])
def test_rejects_folders_without_scores(tmp_path, path):
  (tmp_path / 'file').touch()
  path = tmp_path / path
  with pytest.raises(ValueError, match=f'--scores={path}: .*missing'):
    select.main(select.parse_flags([*FLAGS, f'--scores={path}']))
