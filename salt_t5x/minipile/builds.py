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

"""Folders of data that are built once, as a whole, and then found."""

from collections.abc import Iterator, Mapping
import contextlib
import os
import tempfile
from typing import Any

from salt_t5x import files


def is_built(folder: str, flag: str, record: Mapping[str, Any]) -> bool:
  """Returns whether a folder holds a build.

  Args:
    folder: of the build, local.
    flag: the flag that names it.
    record: what the folder's info.json must say.

  Returns:
    False if the folder is missing or empty.

  Raises:
    ValueError: it is no folder, or holds something else.
  """
  what = f'--{flag}={folder}'
  if not folder or (os.path.exists(folder) and not os.path.isdir(folder)):
    raise ValueError(f'{what}: name a folder.')
  if not os.path.isdir(folder) or not os.listdir(folder):
    return False
  remedy = f'Remove the folder or choose another --{flag}.'
  path = os.path.join(folder, 'info.json')
  if not os.path.exists(path):
    raise ValueError(
      f'{what} is neither empty nor a finished build: it has no info.json. '
      f'{remedy}'
    )
  files.claim(path, record, what=what, remedy=remedy, write=False)
  return True


@contextlib.contextmanager
def complete(folder: str, flag: str) -> Iterator[str]:
  """Makes a folder that appears under its name only when it is complete.

  Args:
    folder: local; missing or empty.
    flag: the flag that names it.

  Yields:
    A temporary folder to build in, which is renamed at the end.

  Raises:
    ValueError: the folder's parent cannot be made.
  """
  folder = os.path.realpath(folder)  # A link would block the rename.
  parent, name = os.path.split(folder)
  files.make_folder(parent, f'--{flag}={folder}')
  with tempfile.TemporaryDirectory(prefix=f'.{name}.', dir=parent) as scratch:
    # A folder inside: the scratch folder itself is closed to other users.
    build_dir = os.path.join(scratch, name)
    os.mkdir(build_dir)
    yield build_dir
    os.rename(build_dir, folder)
