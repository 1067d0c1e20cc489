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


"""The corpus of notes_task.py, registered for a while."""

import contextlib
import gc
import importlib
import sys

import pytest
import seqio

import runs


@contextlib.contextmanager
def registered(folder):
  """Within it the tasks `notes_*` read `folder`; yields their module."""
  # Trainers of earlier tests flush as they are collected; not while tf.data
  # traces (see runs.train).
  gc.collect()
  before = list(seqio.get_global_cache_dirs())
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv('SALT_T5X_TEST_NOTES', str(folder))
    patch.syspath_prepend(str(runs.TESTS))
    yield importlib.import_module('notes_task')
    del sys.modules['notes_task']
  seqio.set_global_cache_dirs(before)
  for registry in (seqio.TaskRegistry, seqio.MixtureRegistry):
    for name in list(registry.names()):
      if name.startswith('notes_'):
        registry.remove(name)
