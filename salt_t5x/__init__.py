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

"""SALT for t5x: pre-training a large language model with a small one's help.

Importing the package chooses the engine (the real t5x or the embedded one) and
makes `salt_t5x/gin/...` readable by gin; see `salt_t5x.engine`.
"""

from salt_t5x import configuration, engine

__version__ = '0.1.0'

engine.activate()
engine.register_gin_reader()
configuration.register()
