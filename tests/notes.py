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
import os
import pathlib
import pydoc_data.topics
import sys

import gin
import pytest
import seqio

from salt_t5x import score as score_job
from salt_t5x.data import cache_writer, pile_shards
import tiny_runs

SCORE = str(tiny_runs.TESTS / 'integration/notes_score.gin')


@contextlib.contextmanager
def registered(folder):
  """Within it the tasks `notes_*` read `folder`; yields their module."""
  # Trainers of earlier tests flush as they are collected; not while tf.data
  # traces (see tiny_runs.train).
  gc.collect()
  before = list(seqio.get_global_cache_dirs())
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv('SALT_T5X_TEST_NOTES', str(folder))
    patch.syspath_prepend(str(tiny_runs.TESTS))
    yield importlib.import_module('notes_task')
    del sys.modules['notes_task']
  seqio.set_global_cache_dirs(before)
  for registry in (seqio.TaskRegistry, seqio.MixtureRegistry):
    for name in list(registry.names()):
      if name.startswith('notes_'):
        registry.remove(name)


def write_documentation(folder: pathlib.Path, documents: int = 24):
  """Writes the raw shards: Python's own documentation.

  Args:
    folder: of the shards.
    documents: how many the training split has, at most 24.
  """
  texts = sorted(pydoc_data.topics.topics.items())
  os.makedirs(folder / 'train')
  # One shard: Beam's workers would cut each of several by itself.
  for name, part in [('train/00', texts[:documents]), ('val', texts[24:36])]:
    documents = [(text[:2000], key[0]) for key, text in part]
    pile_shards.write(str(folder / f'{name}.jsonl.zst'), documents)


def cache(folder):
  """Caches `notes_sequences`; its tasks are registered."""
  cache_writer.write(
    seqio.TaskRegistry.get('notes_sequences'), os.path.join(folder, 'cache')
  )


def train_teacher(model_dir, step, *bindings):
  """Trains the tiny teacher to twice `step`, with a checkpoint at `step`."""
  tiny_runs.train(
    model_dir,
    [
      'salt_t5x/gin/teachers/tiny.gin',
      'salt_t5x/gin/runs/pretrain_teacher.gin',
      'notes_data.gin',
    ],
    f'TRAIN_STEPS = {2 * step}',
    f'CHECKPOINT_PERIOD = {step}',
    f'EVAL_PERIOD = {step}',
    'KEEP_PERIOD = None',
    *bindings,
  )


def score(teacher, output, *bindings):
  """Runs the scoring job in this process."""
  gc.collect()
  bindings = [
    f'TEACHER_PATH = {str(teacher)!r}',
    f'SCORES_DIR = {str(output)!r}',
    *bindings,
  ]
  with tiny_runs.configured([SCORE], bindings):
    gin.get_configurable(score_job.score)()
