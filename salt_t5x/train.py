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

"""Trains a model: `python -m salt_t5x.train --gin_file=... --gin.NAME=VALUE`.

This is t5x's own train binary, run on whichever engine is there. With the real
t5x, `python -m t5x.train` with the same flags does the same.
"""

import runpy
import sys

from salt_t5x import command, engine

if __name__ == '__main__':
  print(f'salt_t5x: running on the {engine.current()} engine.', flush=True)
  command.check_bindings(sys.argv)
  # Run as `__main__`, since t5x's run files bind `__main__.train`.
  runpy.run_module('t5x.train', run_name='__main__', alter_sys=True)
