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

"""JSON from outside, read so that all that is wrong with it is a ValueError.

Whoever reads a file adds its name and the remedy.
"""

from collections.abc import Mapping
import dataclasses
import json
from typing import Any, TypeVar, get_args

import tensorflow as tf

Record = TypeVar('Record')


def read(path: str) -> Any:
  """Parses a file, local or remote.

  Raises:
    ValueError: it cannot be read, or is no JSON; the message says why.
  """
  try:
    with tf.io.gfile.GFile(path, 'rb') as f:
      return json.loads(f.read())
  except (tf.errors.OpError, RecursionError) as e:
    raise ValueError(str(e)) from e


def read_object(path: str) -> dict[str, Any]:
  """As `read`, of a file that holds an object.

  Raises:
    ValueError: see `read`; or it holds something else.
  """
  content = read(path)
  if not isinstance(content, Mapping):
    raise ValueError(f'it holds a {type(content).__name__}, not an object')
  return content


def read_record(path: str, cls: type[Record]) -> Record:
  """Reads the fields of a dataclass whose constructor checks them.

  Raises:
    ValueError: see `read_object`; or they are not the dataclass's.
  """
  content = read_object(path)
  try:
    return cls(**content)
  except TypeError as e:
    raise ValueError(str(e)) from e


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
