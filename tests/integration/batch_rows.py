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

"""What identifies the examples of a batch, for processes of their own, too."""

import hashlib

import numpy as np


def hashes(batch) -> dict[int, str]:
  """Hashes the rows that lie on this process's devices.

  Args:
    batch: {feature: global array}.

  Returns:
    {place in the global batch: the hash of the row's features}.
  """
  rows = {}
  for name in sorted(batch):
    for shard in batch[name].addressable_shards:
      first = shard.index[0].start or 0
      for i, row in enumerate(np.asarray(shard.data)):
        rows.setdefault(first + i, {})[name] = row.tobytes()
  return {
    place: hashlib.sha256(b''.join(row.values())).hexdigest()[:12]
    for place, row in rows.items()
  }
