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

"""Folders that are built once: found, refused, complete or not there."""

import json
import os

import pytest

from salt_t5x.minipile import builds, corpus, prepare

RECORD = {'length': 3, 'name': 'x'}


def never(build_dir):
  raise AssertionError('built')


def test_finds_a_build(tmp_path):
  info = RECORD | {'more': 1}
  (tmp_path / 'info.json').write_text(json.dumps(info))
  assert builds.build(str(tmp_path), 'dir', RECORD, never) == info


@pytest.mark.parametrize(
  'info, message',
  [
    (None, 'which has an info.json'),
    ('', 'damaged'),
    ('[]', 'damaged'),
    ('{', 'damaged'),
    ('{"length": 3}', "name was None and is now 'x'"),
    ('{"length": 4, "name": "x"}', 'length was 4 and is now 3'),
  ],
)
def test_keeps_folders_of_something_else(tmp_path, info, message):
  (tmp_path / 'mine').touch()
  if info is not None:
    (tmp_path / 'info.json').write_text(info)
  with pytest.raises(
    ValueError, match=f'--dir={tmp_path}.*{message}.*Remove the folder'
  ):
    builds.build(str(tmp_path), 'dir', RECORD, never)
  assert (tmp_path / 'mine').exists()


def test_builds_check_their_folder_before_the_work(tmp_path, monkeypatch):
  monkeypatch.delattr(corpus, 'fetch')
  (tmp_path / 'file').write_text('mine')
  (tmp_path / 'info.json').write_text('{"arguments": 1}')
  for path in (tmp_path / 'file', tmp_path):
    with pytest.raises(ValueError, match=f'--data_dir={path}[: ]'):
      prepare.build(str(path), 'wheels', 128, 2048, 30)
  with pytest.raises(ValueError, match='--data_dir=: name a folder'):
    prepare.build('', 'wheels', 128, 2048, 30)
  assert (tmp_path / 'file').read_text() == 'mine'


@pytest.mark.parametrize('exists', [False, True])
def test_a_build_is_complete_or_not_there(tmp_path, exists):
  folder = tmp_path / 'new' / 'build'
  if exists:
    folder.mkdir(parents=True)

  def interrupted(build_dir):
    open(os.path.join(build_dir, 'half'), 'w').close()
    raise KeyboardInterrupt

  def make(build_dir):
    open(os.path.join(build_dir, 'whole'), 'w').close()
    return {'more': 1}

  with pytest.raises(KeyboardInterrupt):
    builds.build(str(folder), 'dir', RECORD, interrupted)
  assert list(folder.parent.iterdir()) == [folder] * exists
  info = builds.build(str(folder), 'dir', RECORD, make)
  assert info == RECORD | {'more': 1}
  assert list(folder.parent.iterdir()) == [folder]
  assert sorted(os.listdir(folder)) == ['info.json', 'whole']
  assert json.loads((folder / 'info.json').read_text()) == info
