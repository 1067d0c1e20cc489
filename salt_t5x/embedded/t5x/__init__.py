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

It stands in for t5x where t5x cannot be installed: one process, any number of
local devices. It was written from the API's contract. Whatever t5x offers
beyond that is not here, and asking for it raises an error that names t5x. For
scale, several hosts or anything else, install the real t5x: `salt_t5x` then
uses that one instead.
"""

import importlib
import sys

from t5x import _subset

sys.meta_path.append(_subset.ModuleFinder)


def __getattr__(name: str):
  if name.startswith('__'):
    raise AttributeError(name)
  return importlib.import_module(f't5x.{name}')
