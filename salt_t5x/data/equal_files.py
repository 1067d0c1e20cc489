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
import os
from typing import Any

from absl import logging
import tensorflow as tf

_COMPARED_BYTES = 1_000_000  # of each end


def check(
  files: Mapping[str, Iterable[str]],
  given: Mapping[str, Any],
  learned: str = 'train',
) -> None:
  """Checks that no split has a text twice, or one that a model learns from.

  Files are equal if their sizes and the first and last MB are. Two splits that
  are only evaluated may share files: a warning is logged.

  Args:
    files: {split: its files}, local or remote.
    given: {split: what its files were given as}, for messages.
    learned: the split that a model learns from.

  Raises:
    ValueError: a split has two equal files, or shares one with `learned`.
  """
  splits = {}
  for split, paths in files.items():
    for path in paths:
      of_path = splits.setdefault(path, [])
      if split not in of_path:
        of_path.append(split)
  sizes = collections.defaultdict(list)
  for path, of_path in splits.items():
    if len(of_path) > 1:
      names = ' and '.join(f'{x} ({given[x]!r})' for x in of_path)
      _report(f'{path} is in two splits, {names}', of_path, learned)
    sizes[tf.io.gfile.stat(path).length].append(path)
  for size, paths in sizes.items():
    found = collections.defaultdict(list)
    for path in paths if size and len(paths) > 1 else ():
      equal = found[digest(path, size)]
      for other in equal:
        _report(
          ' and '.join(
            f'{x} ({", ".join(splits[x])} split)' for x in (other, path)
          )
          + ' have the same content',
          splits[other] + splits[path],
          learned,
        )
      equal.append(path)


def _report(what: str, splits: list[str], learned: str):
  """Refuses equal texts in these splits, or warns of them."""
  if len(set(splits)) < len(splits):
    raise ValueError(f'{what}: its text would count twice. Remove one of them.')
  if learned in splits:
    raise ValueError(
      f'{what}: what is evaluated would be trained on. Give each split its own '
      'files.'
    )
  logging.warning('%s: their results are not independent.', what)


def describe(source: Any, split: str) -> dict[str, str]:
  """Identifies the raw files of a split by their sizes and ends.

  Args:
    source: a seqio data source.
    split: its split.

  Returns:
    {file name: hexadecimal}; empty if its shards are no files, or cannot be
    read any more.
  """
  found = {}
  try:
    paths = source.list_shards(split)
    names = [os.path.basename(x) for x in paths]
    for path, name in zip(paths, names, strict=True):
      # Sources without files name their shards like the split.
      if tf.io.gfile.exists(path) and not tf.io.gfile.isdir(path):
        size = tf.io.gfile.stat(path).length
        content = hashlib.sha256(f'{size} '.encode() + digest(path, size))
        key = name if names.count(name) == 1 else path
        found[key] = content.hexdigest()[:16]
  except (OSError, ValueError, tf.errors.OpError):
    return {}
  return found


def digest(path: str, size: int) -> bytes:
  """Hashes the ends of a file of `size` bytes."""
  with tf.io.gfile.GFile(path, 'rb') as file:
    digest = hashlib.sha256(file.read(_COMPARED_BYTES))
    if size > _COMPARED_BYTES:
      file.seek(max(size - _COMPARED_BYTES, _COMPARED_BYTES))
      digest.update(file.read(_COMPARED_BYTES))
  return digest.digest()
