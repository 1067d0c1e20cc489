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

"""Fixtures: a tiny student, a tiny teacher, and data whose rows are known.

The suite runs on whichever engine is importable; with the real t5x on
PYTHONPATH all of it runs on that one.
"""

import gc
import importlib
import os
import pathlib
import subprocess
import sys
import tempfile

os.environ.setdefault('JAX_PLATFORMS', 'cpu')
# Most tests compile the same few programs; subprocesses share the cache, too.
# So do pytest-xdist's workers, which inherit it.
if 'PYTEST_XDIST_WORKER' not in os.environ:
  _CACHE = tempfile.TemporaryDirectory()
  os.environ['JAX_COMPILATION_CACHE_DIR'] = _CACHE.name
os.environ['JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'] = '0'
os.environ['JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES'] = '-1'
# Compiling takes longer than the tiny models' work. 0 to test what users run.
os.environ.setdefault('JAX_DISABLE_MOST_OPTIMIZATIONS', '1')
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
# Two workers may describe TPUs at the same time (test_estimate).
os.environ.setdefault('ALLOW_MULTIPLE_LIBTPU_LOAD', '1')
sys.path.insert(0, str(pathlib.Path(__file__).parent))

import hypothesis
import jax
import pytest

from salt_t5x import engine
import tiny

# Tests share the machine: how long an example takes says nothing.
hypothesis.settings.register_profile(
  'shared',
  deadline=None,
  suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
# For planted faults: the first failure is enough, however large its example.
hypothesis.settings.register_profile(
  'first_failure',
  hypothesis.settings.get_profile('shared'),
  phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],
)
hypothesis.settings.load_profile('shared')


def pytest_report_header():
  """Says what is tested: the engine and, if git knows it, t5x's commit."""
  line = f'salt_t5x engine: {engine.current()}'
  if engine.current() == engine.T5X:
    folder = pathlib.Path(importlib.import_module('t5x').__file__).parent.parent
    # Only a repository of t5x's own, not one that it lies in.
    if (folder / '.git').exists():
      commit = subprocess.run(
        ['git', '-C', folder, 'rev-parse', 'HEAD'],
        capture_output=True,
        text=True,
        check=False,
      )
      line += f' {commit.stdout.strip() or "(commit unknown)"}'
  return line


@pytest.fixture(scope='module', autouse=True)
def trainers():
  """Collects the trainers of a file: t5x's flush as they are collected.

  That fails where tf.data traces the functions of another test.
  """
  yield
  gc.collect()


@pytest.fixture
def optimized():
  """Programs are compiled as users' are."""
  name = 'jax_disable_most_optimizations'
  jax.config.update(name, False)
  yield
  jax.config.update(name, os.environ[name.upper()] != '0')


@pytest.fixture(scope='session')
def teacher_dir(tmp_path_factory):
  """A model directory with a trained tiny teacher (checkpoints 0, 30, 60)."""
  model_dir = tmp_path_factory.mktemp('teacher')
  tiny.train_teacher(str(model_dir), steps=60, period=30)
  return str(model_dir)


@pytest.fixture(scope='session')
def chain(tmp_path_factory):
  """Writes the rows of the seqio task `chain` (see chain_task.py)."""
  directory = tmp_path_factory.mktemp('chain')
  tiny.write_task(str(directory), 'chain')
  os.environ['SALT_T5X_TEST_CHAIN'] = str(directory)
  yield str(directory)
  del os.environ['SALT_T5X_TEST_CHAIN']
