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

"""Gin bindings, checked on either engine before anything is constructed.

gin calls the checks when it has read all files and flags. `effects` refuses
bindings that nothing reads, `values` those of a wrong type or range, which
`parameters` lists, and `order` those of a user's file that a later file
replaces. `flags` has the bindings of the command line.
"""

import sys

import gin

from salt_t5x.configuration import effects, order, values


def register() -> None:
  """Registers the checks with gin."""
  # Before gin's own hook, whose message holds the whole configuration.
  gin.config._FINALIZE_HOOKS[:0] = [
    lambda _: order.check(sys.argv),
    effects.check_bound,
  ]
  gin.config.register_finalize_hook(effects.check)
  gin.config.register_finalize_hook(values.check)
