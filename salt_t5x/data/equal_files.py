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

"""Checks that the files of a data source hold their texts once."""

import collections
from collections.abc import Iterable, Mapping
import hashlib
from typing import Any

import tensorflow as tf

_COMPARED_BYTES = 1_000_000  # of each end


def check(files: Mapping[str, Iterable[str]], given: Mapping[str, Any]) -> None:
  """Checks that no file is in two splits, and that no two files are equal.

  Files are equal if their sizes and the first and last MB are.

  Args:
    files: {split: its files}, local or remote.
    given: {split: what its files were given as}, for messages.

  Raises:
    ValueError: a file is in two splits, or equals another.
  """
  splits = {}
  for split, paths in files.items():
    for path in paths:
      other = splits.setdefault(path, split)
      if other != split:
        raise ValueError(
          f'{path} is in two splits, {other} ({given[other]!r}) and {split} '
          f'({given[split]!r}): what is evaluated would be trained on. Give '
          'each split its own files.'
        )
  sizes = collections.defaultdict(list)
  for path in splits:
    sizes[tf.io.gfile.stat(path).length].append(path)
  for size, paths in sizes.items():
    found = {}
    for path in paths if size and len(paths) > 1 else ():
      other = found.setdefault(_digest(path, size), path)
      if other != path:
        raise ValueError(
          f'{other} ({splits[other]} split) and {path} ({splits[path]} split) '
          'have the same content: its text would count twice. Remove one of '
          'them.'
        )


def _digest(path: str, size: int) -> bytes:
  """Hashes the ends of a file."""
  with tf.io.gfile.GFile(path, 'rb') as file:
    digest = hashlib.sha256(file.read(_COMPARED_BYTES))
    if size > _COMPARED_BYTES:
      file.seek(max(size - _COMPARED_BYTES, _COMPARED_BYTES))
      digest.update(file.read(_COMPARED_BYTES))
  return digest.digest()
