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

"""Bindings without effect, of a wrong type or out of range, are refused."""

import os
import sys

import gin
import pytest

from t5x import train

RECIPES = 'salt_t5x/gin/recipes/'
ALWAYS = {'MODEL_DIR': "'/run'"}


@pytest.fixture
def parse(monkeypatch):
  """Parses a recipe with flags, as a command does."""
  # Run files bind the train binary's function.
  monkeypatch.setattr(
    sys.modules['__main__'], 'train', train.train, raising=False
  )

  def parse(recipe, *flags, text=''):
    monkeypatch.setattr(sys, 'argv', ['', *(f'--gin.{x}' for x in flags)])
    bound = [x.partition('=')[0] for x in flags]
    more = [f'{k}={v}' for k, v in ALWAYS.items() if k not in bound]
    gin.clear_config()
    gin.parse_config_files_and_bindings(
      [f'{RECIPES}{recipe}.gin'], [text, *flags, *more]
    )
    return gin.query_parameter('MODEL_DIR/gin.macro.value')

  yield parse
  gin.clear_config()


@pytest.mark.parametrize(
  'recipe', ['tiny_salt', 'tiny_rkd', 'tiny_baseline', 'tiny_teacher']
)
def test_recipes_are_accepted(parse, recipe):
  assert parse(recipe) == '/run'


@pytest.mark.parametrize(
  'recipe, flag, near',
  [
    ('tiny_salt', 'TEACHER_TEMPRATURE=0.25', 'mean TEACHER_TEMPERATURE?'),
    ('tiny_salt', 'KD_STEP=2', 'mean KD_STEPS?'),
    ('tiny_salt', 'DROPOUT_RATE=0.1', 'Correct the name'),
    ('tiny_salt', "INITIAL_CHECKPOINT_PATH='/nowhere'", 'Correct the name'),
    # Known macros, which this recipe does not read.
    ('tiny_baseline', 'KD_STEPS=5', 'Correct the name'),
    ('tiny_rkd', 'KD_STEPS=5', 'Correct the name'),
    ('tiny_salt', 'schedules.linear_decay.decay_end=5', 'Refer to it: @'),
    (
      'tiny_salt',
      'network.TransformerConfig.num_layers=2',
      'size_tiny_student/',
    ),
  ],
)
def test_flags_without_effect_are_refused(parse, recipe, flag, near):
  name, _, value = flag.partition('=')
  with pytest.raises(ValueError) as e:
    parse(recipe, flag)
  message = str(e.value)
  assert f'{name} = {value} has no effect' in message and near in message


def test_unknown_macros_in_files_are_refused(parse):
  with pytest.raises(ValueError, match='TOP_KS = 3 has no effect: .* TOP_K?'):
    parse(
      'tiny_scores', text="TOP_KS = 3\nSCORES_DIR = '/x'\nTEACHER_PATH='/t'"
    )
  # A file may serve several commands.
  parse('tiny_salt', text='TOP_K = 3')
  parse('tiny_salt', text='MINE = 3\nKD_STEPS = %MINE')


@pytest.mark.parametrize(
  'flag',
  [
    *(
      'BATCH_SIZE=0',
      'BATCH_SIZE=4.0',
      'STATS_PERIOD=-2',
      "TEACHER_STEP='480'",
    ),
    *('EVAL_MIXTURE_OR_TASK_NAME=None', 'MODEL_DIR=5', "MODEL_DIR=''"),
    *('NUM_MICROBATCHES=-2', 'Z_LOSS=-1.0', 'CHECKPOINTS_TO_KEEP=0'),
    *('partitioning.PjitPartitioner.num_partitions=0', 'TRAIN_STEPS=10.5'),
    *('trainer.SaltTrainer.learning_rate_fn=0.01', 'EVAL_PERIOD=True'),
    *('PEAK_LEARNING_RATE=0', 'SAVE_DATASET=1', "RANDOM_SEED='0'"),
  ],
)
def test_values_are_refused(parse, flag):
  name, _, value = flag.partition('=')
  with pytest.raises(ValueError) as e:
    parse('tiny_salt', flag)
  message = str(e.value)
  assert name.rpartition('.')[2] in message
  assert f' = {value}: set it to ' in message


def test_warmup_must_end_within_the_run(parse):
  with pytest.raises(
    ValueError, match=r'\(WARMUP_STEPS\) = 9 must be less than .* = 9:'
  ):
    parse('tiny_salt', 'WARMUP_STEPS=9', 'TRAIN_STEPS=9', 'KD_STEPS=3')


def test_partitions_must_divide_the_model(parse):
  flag = 'partitioning.PjitPartitioner.num_partitions=3'
  with pytest.raises(ValueError, match='num_partitions = 3 does not divide'):
    parse('tiny_salt', flag)


def test_model_dir_must_be_a_folder(parse, tmp_path):
  (tmp_path / 'file').touch()
  with pytest.raises(ValueError, match=r'MODEL_DIR\) = .*file is a file'):
    parse('tiny_salt', f"MODEL_DIR='{tmp_path}/file/run'")
  monkey = pytest.MonkeyPatch()
  monkey.setattr(os, 'access', lambda *_: False)
  with (
    monkey.context(),
    pytest.raises(ValueError, match='cannot be written to'),
  ):
    parse('tiny_salt')
  monkey.undo()


@pytest.mark.parametrize(
  'path, expected',
  [
    ('runs/a', '{cwd}/runs/a'),
    ('~/a', '{home}/a'),
    ('gs://bucket/a', 'gs://bucket/a'),
    ('/a/50%#1', '/a/50%#1'),
  ],
)
def test_paths_become_absolute(parse, path, expected):
  found = parse('tiny_salt', f"MODEL_DIR='{path}'")
  home = os.path.expanduser('~')
  assert found == expected.format(cwd=os.getcwd(), home=home)
