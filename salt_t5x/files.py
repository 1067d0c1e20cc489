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


"""Reads and writes files, local or remote: atomically, checked, and claimed.

JSON that cannot be read is a `ValueError` whatever is wrong with it; the caller
adds the file's name and the remedy.
"""

from collections.abc import Iterable, Mapping, Sequence
import dataclasses
import io
import json
import math
import os
import re
from typing import Any, TypeVar, get_args

import tensorflow as tf


def write_whole(path: str, content: bytes) -> None:
  """Writes a file, all of it or nothing; its folder is made if missing."""
  if folder := os.path.dirname(path):
    tf.io.gfile.makedirs(folder)
  with tf.io.gfile.GFile(f'{path}.tmp', 'wb') as f:
    f.write(content)
  tf.io.gfile.rename(f'{path}.tmp', path, overwrite=True)


def absolute(path: str) -> str:
  """Returns the absolute path, `~` expanded; URLs are absolute already."""
  return path if '://' in path else os.path.abspath(os.path.expanduser(path))


def pattern(path: str) -> str:
  """Returns the pattern for `tf.io.gfile.glob` that matches this path alone."""
  return re.sub(r'([*?\[\\])', r'\\\1', path)


def why_missing(path: str) -> str:
  """Says why a path that seems not to be there cannot be read.

  Whether a folder exists is False, too, for storage that does not answer.

  Args:
    path: local or remote.

  Returns:
    'there is no such directory', or that it cannot be reached, and why.
  """
  try:
    tf.io.gfile.stat(path)
  except tf.errors.NotFoundError:
    pass
  except tf.errors.OpError as e:
    return f'it cannot be reached ({" ".join(e.message.split())})'
  return 'there is no such directory'


def make_folder(path: str, name: str) -> None:
  """Makes a folder for results before there are any that could be lost.

  Args:
    path: of the folder, local or remote; it may be there.
    name: of the flag or gin parameter that gives it, and its value.

  Raises:
    ValueError: it cannot be made, or a local one cannot be written to.
  """
  try:
    tf.io.gfile.makedirs(path)
  except tf.errors.OpError as e:
    raise ValueError(f'{name}: {path} cannot be made ({e.message}).') from e
  if '://' not in path and not os.access(path, os.W_OK):
    raise ValueError(f'{name}: {path} cannot be written to.')


def write_json(path: str, content: Any) -> None:
  """Writes JSON, which has neither NaN nor infinities: they become null."""
  text = json.dumps(_finite(content), indent=2, allow_nan=False)
  write_whole(path, f'{text}\n'.encode())


def _finite(content: Any) -> Any:
  if isinstance(content, Mapping):
    return {name: _finite(x) for name, x in content.items()}
  if isinstance(content, list | tuple):
    return [_finite(x) for x in content]
  is_finite = not isinstance(content, float) or math.isfinite(content)
  return content if is_finite else None


Record = TypeVar('Record')


def read_json(path: str) -> Any:
  """Parses a file, local or remote.

  Raises:
    ValueError: it cannot be read, or is no JSON; the message says why.
  """
  try:
    with tf.io.gfile.GFile(path, 'rb') as f:
      return json.loads(f.read())
  except (tf.errors.OpError, RecursionError) as e:
    raise ValueError(str(e)) from e


def read_json_object(path: str) -> dict[str, Any]:
  """As `read_json`, of a file that holds an object.

  Raises:
    ValueError: see `read_json`; or it holds something else.
  """
  content = read_json(path)
  if not isinstance(content, dict):
    raise ValueError(f'it holds a {type(content).__name__}, not an object')
  return content


def read_count(path: str, remedy: str, *keys: str) -> int:
  """Reads a non-negative integer from nested JSON objects.

  Args:
    path: the file.
    remedy: the imperative sentence that ends the error message.
    *keys: the key in each object, from the outermost inwards.

  Raises:
    ValueError: see `read_json_object`; or it holds no such integer.
  """
  try:
    value = read_json_object(path)
    for key in keys:
      value = value[key]
    if type(value) is not int or value < 0:
      raise ValueError(f'{keys[-1]} = {value!r}')
  except (KeyError, TypeError, ValueError) as e:
    raise ValueError(f'{path} is damaged or foreign ({e!r}). {remedy}') from e
  return value


def read_record(path: str, cls: type[Record]) -> Record:
  """Reads the fields of a dataclass whose constructor checks them.

  Raises:
    ValueError: see `read_json_object`; or they are not the dataclass's.
  """
  content = read_json_object(path)
  try:
    return cls(**content)
  except TypeError as e:
    raise ValueError(f'written by another version: {e}') from e


def check_types(record: Any) -> None:
  """Compares a dataclass's values with their declared types, as JSON has them.

  Raises:
    ValueError: a value is of another type. True is no int, and 1 no float.
  """
  for field in dataclasses.fields(record):
    value = getattr(record, field.name)
    allowed = get_args(field.type) or (field.type,)
    if type(value) not in allowed:
      names = ' or '.join(x.__name__ for x in allowed)
      raise ValueError(f'{field.name} = {value!r} is no {names}')


def differences(
  before: Mapping[str, Any], now: Mapping[str, Any]
) -> dict[str, tuple[Any, Any]]:
  """Compares two records as JSON stores them.

  Args:
    before: the earlier record; keys that `now` lacks are ignored.
    now: the later record.

  Returns:
    {key of `now`: (earlier value or None, later value)} where these differ.
  """
  now = json.loads(json.dumps(_finite(now)))
  return {
    name: (before.get(name), value)
    for name, value in now.items()
    if before.get(name) != value
  }


def claim(
  path: str,
  record: Mapping[str, Any],
  *,
  what: str,
  remedy: str,
  write: bool = True,
) -> None:
  """Reserves a folder for one configuration: the same as before, or an error.

  Args:
    path: the JSON file that describes the folder's content. It may hold more
      keys than `record`.
    record: what it must say.
    what: the parameter and its value, which begin the error message.
    remedy: an imperative sentence that ends it.
    write: whether to write the file where there is none; False on processes
      other than the first, and for folders that are described at the end.

  Raises:
    ValueError: the file is damaged, or describes another configuration.
  """
  if not tf.io.gfile.exists(path):
    if write:
      write_json(path, record)
    return
  try:
    before = read_json_object(path)
  except ValueError as e:
    raise ValueError(f'{what}: {path} is damaged ({e}). {remedy}') from e
  if found := differences(before, record):
    listed = '; '.join(
      f'{name} was {was!r} and is now {now!r}'
      for name, (was, now) in found.items()
    )
    raise ValueError(
      f'{what} holds results of another configuration: {listed}. {remedy}'
    )


def encode_figure(figure: Any, **options: Any) -> bytes:
  """Encodes a matplotlib figure, as PNG unless options of `savefig` differ."""
  file = io.BytesIO()
  figure.savefig(file, **{'format': 'png', 'dpi': 140} | options)
  return file.getvalue()


def markdown_table(
  header: Sequence[str], rows: Iterable[Sequence[Any]], align: str = ''
) -> str:
  """Formats a Markdown table.

  Args:
    header: names of the columns.
    rows: cells, formatted with `str`; those may hold `|` and line breaks.
    align: 'l', 'c', 'r' or '-' (unset) for each column; '' for unset ones.

  Returns:
    The lines of the table, joined by newlines, without one at the end.
  """
  marks = {'l': ':--', 'c': ':-:', 'r': '--:', '-': '---'}
  rule = [marks[x] for x in align] or ['---'] * len(header)
  lines = [header, *rows]
  cell = lambda x: re.sub(r'(?<!\\)\|', r'\|', ' '.join(str(x).splitlines()))
  text = [f'| {" | ".join(map(cell, line))} |' for line in lines]
  return '\n'.join([text[0], f'|{"|".join(rule)}|', *text[1:]])
