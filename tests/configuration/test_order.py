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

"""What a user's gin file binds is not lost to a file of ours after it."""

import pytest

# Gin files name what they import.
from salt_t5x import schedules, trainer  # noqa: F401
from salt_t5x.configuration import order
from t5x import utils  # noqa: F401

PACKAGE = 'salt_t5x/gin/'
SALT = [f'{PACKAGE}{x}.gin' for x in ('students/tiny', 'runs/salt')]
IMPORTS = """
from __gin__ import dynamic_registration
import salt_t5x.schedules
from salt_t5x import schedules as s
from salt_t5x import schedules
from salt_t5x import trainer
from t5x import utils
import t5x.utils
"""


@pytest.fixture
def check(tmp_path, monkeypatch):
  """Checks the order of files; `mine` has a text."""
  monkeypatch.chdir(tmp_path)

  def check(text, *files, flags=()):
    (tmp_path / 'mine.gin').write_text(text)
    order.check(['', *(f'--gin_file={x}' for x in files), *flags])

  return check


@pytest.mark.parametrize(
  'text, replaced',
  [
    (
      'DISTILLATION_WEIGHT = 0.3',
      'runs/salt.gin comes after it and sets 0.667',
    ),
    # In a file that the recipe includes.
    ('WARMUP_STEPS = 1', 'runs/baseline.gin comes after it and sets 4000'),
    ('MIXTURE_OR_TASK_NAME = "mine"', 'baseline.gin .* sets %gin.REQUIRED'),
    ('SAVE_DATASET = False', 'runs/baseline.gin comes after it and sets None'),
    ('trainer.SaltTrainer.top_k = 10', 'runs/salt.gin .* sets None'),
    ('train/utils.DatasetConfig.split = "mine"', 'baseline.gin .* sets .train'),
    (
      'trainer.SaltTrainer:\n  schedule = @schedules.linear_decay()',
      'runs/salt.gin comes after it and sets @schedules.step',
    ),
  ],
)
def test_overrides_before_a_recipe_are_refused(check, text, replaced):
  name = text.partition(' =')[0].replace(':\n  ', '.')
  message = f'^{name} = .* in mine.gin has no effect: .*{replaced}'
  with pytest.raises(ValueError, match=f'{message}.*: name mine.gin last'):
    check(IMPORTS + text, 'mine.gin', *SALT)
  # They win.
  check(IMPORTS + text, *SALT, 'mine.gin')
  check(IMPORTS + text, 'mine.gin', *SALT, 'mine.gin')


def test_overrides_before_an_include_are_refused(check):
  text = [f"include '{x}'" for x in SALT]
  with pytest.raises(ValueError, match='put the line below the includes'):
    check('\n'.join(['KD_STEPS = 7', *text]), 'mine.gin')
  check('\n'.join([*text, 'KD_STEPS = 7']), 'mine.gin')


def test_files_in_search_paths_are_read(check, tmp_path, monkeypatch):
  (tmp_path / 'sub').mkdir()
  (tmp_path / 'sub/other.gin').write_text('KD_STEPS = 7')
  monkeypatch.setattr(order.gin.config, '_LOCATION_PREFIXES', ['', 'sub'])
  with pytest.raises(ValueError, match='KD_STEPS = 7 in sub/other.gin has no'):
    check('', 'other.gin', *SALT)


def test_bindings_that_nothing_replaces_are_accepted(check):
  text = 'VOCAB_SIZE = 99\nDISTILLATION_WEIGHT = 0.667\nMODEL = @mine.Model()\n'
  check(text, SALT[0], 'mine.gin', SALT[1])
  # Ours replace each other's, and flags all.
  check('', f'{PACKAGE}runs/baseline.gin', *SALT)
  for flags in ['--gin.KD_STEPS=8'], ['--gin_bindings', 'A = 1\nKD_STEPS = 8']:
    check('KD_STEPS = 7', 'mine.gin', *SALT, flags=flags)
  check(text, *SALT, 'mine.gin', f'{PACKAGE}data/pile.gin')
  # Runs choose one of the user's models.
  run = f'{PACKAGE}runs/pretrain_teacher.gin'
  check(text + 'TEACHER_MODEL = @mine.Small()', 'mine.gin', run)


@pytest.mark.parametrize(
  'text, file',
  [
    ('MODEL = @mine.Model()', 'recipes/tiny_baseline'),
    ('MODEL = @mine.Model()', 'runs/pretrain_teacher'),
    ('WARMUP_STEPS = 3', 'settings/gpu'),
    ('MIXTURE_OR_TASK_NAME = "mine"', 'data/pile'),
    ('NUM_MODEL_PARTITIONS = 2', 'layouts/fully_sharded'),
  ],
)
def test_every_packaged_file_may_lose_a_binding(check, text, file):
  """Whether it begins a run, or follows one."""
  file = f'{PACKAGE}{file}.gin'
  with pytest.raises(ValueError, match='in mine.gin has no effect: .* comes'):
    check(text, SALT[0], 'mine.gin', file)
  check(text, SALT[0], file, 'mine.gin')


@pytest.mark.parametrize('later', ['recipes/tiny_baseline', 'runs/sft'])
def test_recipes_that_take_a_teacher_away_are_refused(check, later):
  recipes = f'{PACKAGE}recipes/tiny_salt.gin', f'{PACKAGE}{later}.gin'
  message = f'The teacher of {recipes[0]} has no effect: {recipes[1]} comes'
  with pytest.raises(ValueError, match=message):
    check('', *recipes)
  # It is meant.
  text = f'{IMPORTS}trainer.SaltTrainer.teacher = None'
  check(text, *recipes, 'mine.gin')
  check(text, recipes[0], 'mine.gin')
  check('', *recipes[::-1], f'{PACKAGE}recipes/tiny_rkd.gin')
