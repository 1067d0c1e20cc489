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

"""The command `python -m salt_t5x.estimate`; see `steps`."""

import os

import jax

from salt_t5x.estimate.steps import define_flags, main, train  # noqa: F401
from t5x import gin_utils

if __name__ == '__main__':
  # No TPU is looked for: the compiler alone is needed.
  jax.config.update('jax_platforms', 'cpu')
  for name, value in (
    ('TPU_SKIP_MDS_QUERY', '1'),
    ('TPU_WORKER_HOSTNAMES', 'localhost'),
    ('TPU_ACCELERATOR_TYPE', 'v5litepod-256'),
  ):
    os.environ.setdefault(name, value)
  # Estimates may run side by side.
  os.environ.setdefault('ALLOW_MULTIPLE_LIBTPU_LOAD', '1')
  define_flags()
  gin_utils.run(main)
