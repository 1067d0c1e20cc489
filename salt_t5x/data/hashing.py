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

"""Draws that depend on a name alone."""

import hashlib


def uniform(salt: str, key: str) -> float:
  """A number in [0, 1) drawn by hashing; other salts give independent draws.

  Choices that hang on the name of a thing, not on its place in a list, stay the
  same when other things come or go, and on every platform.
  """
  digest = hashlib.blake2b(f'{salt}\0{key}'.encode(), digest_size=8).digest()
  # 53 bits are what a float holds exactly; more could round up to 1.
  return (int.from_bytes(digest, 'big') >> 11) / 2**53
