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

"""What damages files of ours, and what reading them may do then."""

from collections.abc import Callable
import json
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st

fuzz = settings(max_examples=60)
slow_fuzz = settings(max_examples=15)

JSON = st.recursive(
  st.none()
  | st.booleans()
  | st.integers()
  | st.floats()
  | st.text()
  | st.sampled_from([10**400, 2**63, -1, 1e308]),
  lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
  max_leaves=5,
)
# Neither is JSON to Python: it has no numbers so long, and no such depth.
HOSTILE = (b'9' * 5000, b'[' * 10**5, b'', b'\xff\xfe', b'null', b'\0')


def damaged(data: st.DataObject, content: bytes) -> bytes:
  """Flips bits, cuts an end off, or puts other bytes in place of some."""
  kind = data.draw(st.sampled_from(['flip', 'cut', 'replace']))
  start = data.draw(st.integers(0, len(content) - 1))
  if kind == 'cut':
    return content[:start]
  if kind == 'flip':
    flipped = content[start] ^ (1 << data.draw(st.integers(0, 7)))
    return content[:start] + bytes([flipped]) + content[start + 1 :]
  end = data.draw(st.integers(start, min(start + 8, len(content))))
  return content[:start] + data.draw(st.binary(max_size=8)) + content[end:]


def read_or_named(read: Callable[[], Any], name: str) -> Any:
  """What is read, or None if an error names the file."""
  try:
    return read()
  except (ValueError, FileNotFoundError) as e:
    assert name in str(e)
    return None


def lines(documents) -> bytes:
  """As JSONL."""
  return ''.join(json.dumps(x) + '\n' for x in documents).encode()
