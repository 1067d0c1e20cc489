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

"""Hashes, and draws that depend on a name alone."""

import hashlib


def digest(*parts: bytes) -> int:
  """Hashes the concatenation of some bytes to 64 bits, on every platform."""
  content = hashlib.blake2b(b''.join(parts), digest_size=8).digest()
  return int.from_bytes(content, 'big')


def uniform(salt: str, key: str) -> float:
  """Draws a number in [0, 1) by hashing; other salts draw independently.

  A choice that depends on the name of a thing, not on its place in a list,
  stays the same when other things are added or removed.
  """
  # A float holds 53 bits exactly; more could round up to 1.
  return (digest(f'{salt}\0{key}'.encode()) >> 11) / 2**53
