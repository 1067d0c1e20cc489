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

"""The embedded engine: the part of t5x's API that SALT's gin files use.

It replaces t5x where t5x cannot be installed, for one process with any number
of local devices. It was written from the API's contract, not from t5x's code.
Using any other part of t5x raises an error that names t5x. For several hosts,
or for the rest of t5x, install the real t5x, which `salt_t5x` then uses.
"""

import importlib
import sys

from t5x import _subset

sys.meta_path.append(_subset.ModuleFinder)


def __getattr__(name: str):
  if name.startswith('__'):
    raise AttributeError(name)
  return importlib.import_module(f't5x.{name}')
