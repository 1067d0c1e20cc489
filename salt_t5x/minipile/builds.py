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

from collections.abc import Callable, Mapping
import os
import tempfile
from typing import Any

from salt_t5x import files


def build(
  folder: str,
  flag: str,
  record: Mapping[str, Any],
  make: Callable[[str], Mapping[str, Any]],
) -> dict[str, Any]:
  """Builds a folder, or finds it built.

  The folder appears under its name only when it is complete.

  Args:
    folder: local; missing, empty, or a build with the same record.
    flag: the flag that names it.
    record: describes the build in the folder's info.json.
    make: fills the folder whose path it is given, and returns what info.json
      says besides the record.

  Returns:
    The content of info.json.

  Raises:
    ValueError: the folder holds something else, or cannot be made.
  """
  what = f'--{flag}={folder}'
  if not folder:
    raise ValueError(f'{what}: name a folder.')
  remedy = f'Remove the folder or choose another --{flag}.'
  folder = os.path.realpath(folder)  # A link would block the rename.
  path = os.path.join(folder, 'info.json')
  if os.path.exists(path):
    files.claim(path, record, what=what, remedy=remedy)
    return files.read_json_object(path)
  is_folder = os.path.isdir(folder)
  if os.path.exists(folder) and not (is_folder and not os.listdir(folder)):
    raise ValueError(
      f'{what} is neither an empty folder nor a finished build, which has an '
      f'info.json. {remedy}'
    )
  parent, name = os.path.split(folder)
  files.make_folder(parent, what)
  with tempfile.TemporaryDirectory(prefix=f'.{name}.', dir=parent) as scratch:
    # A folder inside: the scratch folder itself is closed to other users.
    build_dir = os.path.join(scratch, name)
    os.mkdir(build_dir)
    info = {**record, **make(build_dir)}
    files.write_json(os.path.join(build_dir, 'info.json'), info)
    os.rename(build_dir, folder)
  return info
