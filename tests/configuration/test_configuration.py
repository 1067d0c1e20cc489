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

import contextlib
import os
import pathlib
import re
import sys
import types

import gin
import pytest

from salt_t5x import engine
from salt_t5x.studies import definition, jobs
from t5x import train

RECIPES = 'salt_t5x/gin/recipes/'
GIN = pathlib.Path(engine.__file__).parents[1] / 'gin'
# A user's, which recipes of the paper's sizes need.
DATA = """
from __gin__ import dynamic_registration
import seqio
VOCABULARY = @seqio.PassThroughVocabulary()
seqio.PassThroughVocabulary.size = 256
MIXTURE_OR_TASK_NAME = 'mine'
"""
# What the recipes require.
ALWAYS = {
  'MODEL_DIR': "'/run'",
  'SELECTION_PATH': "'/selection'",
  'INITIAL_CHECKPOINT': "'/model'",
  'SCORES_DIR': "'/scores'",
  'TEACHER_PATH': "'/teacher'",
  'STUDENT_PATH': "'/student'",
  'ORACLE_PATH': "'/oracle'",
  'CHECKPOINTS': "{'A': '/a'}",
  'OUTPUT_DIR': "'/output'",
}


@pytest.fixture
def parse(monkeypatch):
  """Parses a recipe with flags, as a command does."""
  # Run files bind the train binary's function.
  monkeypatch.setattr(
    sys.modules['__main__'], 'train', train.train, raising=False
  )

  def parse(recipe, *flags, text='', required=True, argv=()):
    monkeypatch.setattr(
      sys, 'argv', ['', *argv, *(f'--gin.{x}' for x in flags)]
    )
    bound = [x.partition('=')[0] for x in flags]
    macros = ALWAYS if required else {'MODEL_DIR': ALWAYS['MODEL_DIR']}
    more = [f'{k}={v}' for k, v in macros.items() if k not in bound]
    gin.clear_config()
    gin.parse_config_files_and_bindings(
      [f'{RECIPES}{recipe}.gin'], [text, *flags, *more]
    )
    return gin.query_parameter('MODEL_DIR/gin.macro.value')

  yield parse
  gin.clear_config()


# tiny.gin is a part of others.
_ALL_RECIPES = sorted({x.stem for x in pathlib.Path(GIN).glob('recipes/*.gin')})


@pytest.mark.parametrize('recipe', [x for x in _ALL_RECIPES if x != 'tiny'])
def test_recipes_are_accepted(parse, recipe):
  text = '' if 'tiny' in recipe else DATA
  assert parse(recipe, text=text) == '/run'


@pytest.mark.parametrize('study', [x.stem for x in GIN.glob('studies/*.gin')])
def test_the_jobs_of_studies_are_accepted(parse, monkeypatch, tmp_path, study):
  """Parses what the processes of a study do."""
  setting = definition.Setting()
  _, made = jobs.plan(definition.read([study]), ['0'], setting, str(tmp_path))
  parsed = 0
  for job in made:
    words = [x.partition('=')[::2] for x in job.command[1:]]
    files = [value for flag, value in words if flag == '--gin_file']
    if files:
      bound = [value for flag, value in words if flag == '--gin_bindings']
      paths = [x.removeprefix('--gin.') for x in job.command if '--gin.' in x]
      monkeypatch.setattr(sys, 'argv', list(job.command))
      gin.clear_config()
      gin.parse_config_files_and_bindings(files, [*paths, *bound])
      parsed += 1
  assert parsed


@pytest.mark.parametrize(
  'recipe, flag, near',
  [
    ('tiny_salt', 'TEACHER_TEMPRATURE=0.25', 'mean TEACHER_TEMPERATURE?'),
    ('tiny_salt', 'KD_STEP=2', 'mean KD_STEPS?'),
    ('tiny_salt', 'DROPOUT_RATE=0.1', 'Correct the name'),
    ('tiny_salt', "INITIAL_CHECKPOINT_PATH='/nowhere'", 'Correct the name'),
    # Known macros, which this recipe does not read.
    ('tiny_baseline', 'KD_STEPS=5', 'Correct the name'),
    (
      'tiny_rkd',
      'KD_STEPS=5',
      'the schedule is schedules.constant, which reads DISTILLATION_WEIGHT.',
    ),
    ('tiny_salt', 'schedules.linear_decay.decay_end=5', 'Refer to it: @'),
    (
      'tiny_salt',
      'network.TransformerConfig.num_layers=2',
      'size_tiny_student/',
    ),
    # gin does not bind base classes.
    (
      'tiny_sft',
      'trainer.SaltTrainer.num_microbatches=2',
      'mean salt_t5x.fine_tune.FineTuneTrainer.num_microbatches?',
    ),
    ('tiny_sft', "teacher.Teacher.path='/x'", 'Refer to it: @'),
    (
      'tiny_baseline',
      'trainer.SaltTrainer.teacher_temperature=0.5',
      'schedule',
    ),
    ('tiny_baseline', 'trainer.SaltTrainer.top_k=5', 'SaltTrainer.schedule'),
    ('tiny_salt', 'first_stage.FirstStage.kd_steps=5', 'Refer to it: @'),
  ],
)
def test_flags_without_effect_are_refused(parse, recipe, flag, near):
  name, _, value = flag.partition('=')
  # A flag may name what the recipe has not imported.
  imports = 'network', 'schedules', 'teacher', 'trainer'
  text = 'from __gin__ import dynamic_registration\n' + ''.join(
    f'from salt_t5x import {x}\n' for x in imports
  )
  text += 'from salt_t5x.selection import first_stage\n'
  with pytest.raises(ValueError) as e:
    parse(recipe, flag, text=text)
  message = str(e.value)
  assert f'{name} = {value} has no effect' in message and near in message


def test_a_teacher_that_a_later_file_takes_away_is_missed(parse):
  names = 'runs/baseline', 'recipes/tiny'
  text = '\n'.join(f"include 'salt_t5x/gin/{x}.gin'" for x in names)
  with pytest.raises(ValueError, match='TEACHER_PATH = .* @teacher.Teacher()'):
    parse('tiny_salt', "TEACHER_PATH='/teacher'", text=text)


def test_a_linear_decay_names_its_own_macros(parse):
  text = _IMPORTS + (
    'from salt_t5x import schedules\n'
    'trainer.SaltTrainer.schedule = @schedules.linear_decay()'
  )
  message = 'KD_STEPS = 4 .* which reads DECAY_END and DECAY_START and DISTILLA'
  with pytest.raises(ValueError, match=message):
    parse('tiny_salt', 'KD_STEPS=4', text=text)


@pytest.mark.parametrize('name', ['TEACHER_PATH', 'KD_STEPS'])
@pytest.mark.parametrize('is_flag', [True, False])
def test_the_method_that_a_file_sets_must_have_an_effect(
  parse, tmp_path, name, is_flag
):
  """Other macros may be for other commands."""
  bound = f'{name} = {"4" if name == "KD_STEPS" else repr("/teacher")}'
  (tmp_path / 'mine.gin').write_text(f'{bound}\nTOP_K = 3\nDECAY_END = 9')
  argv = [f'--gin_file={tmp_path}/mine.gin']
  if is_flag:
    argv = [f'--gin_bindings={bound}']
  without = _IMPORTS + (
    'trainer.SaltTrainer.teacher = None\ntrainer.SaltTrainer.schedule = None\n'
  )
  with pytest.raises(ValueError, match=f'{name} = .* has no effect'):
    parse('tiny_salt', text=without + bound, argv=argv)
  for recipe in 'tiny_baseline', 'tiny_rkd', 'tiny_scores', 'tiny_sft':
    assert parse(recipe, text=bound, argv=argv) == '/run'


def test_a_held_out_task_without_held_out_text_is_refused(parse):
  text = 'HELD_OUT = None'
  with pytest.raises(ValueError, match='has no effect.*bind @held_out/utils.D'):
    parse('tiny_evaluate', "HELD_OUT_TASK='mine'", text=text)
  # A file may serve several commands.
  assert parse('tiny_evaluate', text=text) == '/run'


def required(path):
  """Macros that the header of a run file says are required."""
  text = path.read_text()
  header = text.partition('Required')[2].partition('Commonly')[0]
  found = {
    name
    for names in re.findall(r'^# - ([A-Z_, ]+)', header, re.M)
    for name in names.split(', ')
  }
  for include in re.findall(r"^include '(?:salt_t5x/gin/)(.*)'", text, re.M):
    found |= required(GIN / include)
  return found


@pytest.mark.parametrize(
  'run', sorted(x.stem for x in (GIN / 'runs').glob('*.gin'))
)
def test_runs_accept_their_own_defaults(parse, run):
  models = {
    'MODEL': 'students',
    'TEACHER_MODEL': 'teachers',
    'ORACLE_MODEL': 'oracles',
  }
  values = ALWAYS | {
    'MIXTURE_OR_TASK_NAME': "'mine'",
    'HELD_OUT_TASK': "'mine'",
    'EXAMPLES': '64',
  }
  path = GIN / 'runs' / f'{run}.gin'
  needed = required(path)
  if run == 'estimate':  # It follows a run's own file.
    needed = required(GIN / 'runs/salt_ds.gin')
    path = GIN / 'runs/salt_ds.gin'
  files = [f'{GIN}/{x}/tiny.gin' for k, x in models.items() if k in needed]
  bindings = [
    f'{k}={values[k]}'
    for k in sorted(needed)
    if k not in models and not (run == 'pretrain_teacher' and k == 'MODEL')
  ]
  gin.clear_config()
  more = [f'{GIN}/runs/estimate.gin'] if run == 'estimate' else []
  gin.parse_config_files_and_bindings(
    [*files, str(path), *more],
    [DATA.replace("MIXTURE_OR_TASK_NAME = 'mine'", ''), *bindings],
  )
  assert needed


def test_shared_bindings_may_have_no_effect(parse):
  """Studies and sweeps give all of their runs the same ones."""
  with pytest.raises(ValueError, match='RANDOM_SEED = 0 has no effect'):
    parse('tiny_scores', 'RANDOM_SEED=0')
  for argv in (['--gin_bindings=RANDOM_SEED=0'], []):
    assert parse('tiny_scores', text='RANDOM_SEED = 0', argv=argv) == '/run'


def test_files_may_serve_several_commands(parse):
  text = (
    'from __gin__ import dynamic_registration\n'
    'from salt_t5x import teacher\n'
    'from salt_t5x import trainer\n'
    'MINE = 0.5\n'
    'trainer.SaltTrainer.teacher_temperature = %MINE\n'
    "teacher.Teacher.path = '/x'\n"
  )
  for recipe in 'tiny_baseline', 'tiny_sft', 'tiny_scores':
    assert parse(recipe, text=text) == '/run'


def test_files_before_a_recipe_do_not_lose_their_bindings(parse, tmp_path):
  (tmp_path / 'mine.gin').write_text('BATCH_SIZE = 8')
  recipe = f'--gin_file={RECIPES}tiny_salt.gin'
  argv = [f'--gin_file={tmp_path}/mine.gin', recipe]
  with pytest.raises(ValueError, match='BATCH_SIZE = 8 .*tiny.gin .* sets 4'):
    parse('tiny_salt', argv=argv)
  assert parse('tiny_salt', argv=argv[::-1]) == '/run'


def test_scopes_without_effect_are_refused(parse):
  flag = 'size_tiny_studnt/network.TransformerConfig.num_layers=2'
  with pytest.raises(ValueError, match='mean size_tiny_student/network'):
    parse('tiny_salt', flag)
  parse('tiny_salt', 'size_tiny_student/network.TransformerConfig.num_layers=2')


def test_unknown_macros_in_files_are_refused(parse):
  with pytest.raises(ValueError, match='TOP_KS = 3 has no effect: .* TOP_K?'):
    parse('tiny_scores', text='TOP_KS = 3')
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
    *('adafactor.Adafactor.learning_rate=0.1',),
  ],
)
def test_values_are_refused(parse, flag):
  name, _, value = flag.partition('=')
  with pytest.raises(ValueError) as e:
    parse('tiny_salt', flag)
  message = str(e.value)
  assert name.rpartition('.')[2] in message
  assert f' = {value}: set it to ' in message


@pytest.mark.parametrize(
  'recipe, flag',
  [
    *(
      ('tiny_salt', x)
      for x in (
        *("TASK_FEATURE_LENGTHS={'inputs': 128}", 'TASK_FEATURE_LENGTHS=128'),
        *('SEQUENCE_LENGTH=0', "SEQUENCE_LENGTH='128'", 'KD_STEPS=-1'),
        *(
          'KD_STEPS=36.5',
          'DISTILLATION_WEIGHT=1.5',
          "DISTILLATION_WEIGHT='1'",
        ),
        *('TEACHER_TEMPERATURE=0', 'trainer.SaltTrainer.top_k=0'),
        *('trainer.SaltTrainer.schedule=0.5', "teacher.Teacher.dtype='bf16'"),
        *("MODEL='tiny'", 'teacher.Teacher.model=None', 'VOCAB_SIZE=2048.0'),
        *("network.TransformerConfig.dtype='fp32'", 'MAX_SKIPPED_BATCHES=-1'),
        *("network.TransformerConfig.remat_policy='some'", 'EVAL_STEPS=0'),
        *("network.TransformerConfig.mlp_activations='relu'",),
        *('network.TransformerConfig.scan_layers=1', 'TEACHER_PATH=5'),
        *('network.TransformerConfig.max_wavelength=0', "WARMUP_STEPS='80'"),
        *('size_tiny_student/network.TransformerConfig.num_layers=0',),
        *('size_tiny_student/network.TransformerConfig.num_heads=4.0',),
        *('models.SaltDecoderOnlyModel.loss_chunk=0', 'RANDOM_SEED=-1'),
        *('models.SaltDecoderOnlyModel.loss_normalizing_factor=0',),
        *('adafactor.Adafactor.decay_rate=1.0', 'USE_CACHED_TASKS=1'),
        *('utils.RestoreCheckpointConfig.path=3', "VOCABULARY='/v'"),
        *('ALLOW_CHANGES_ON_RESUME=1', "OPTIMIZER='adam'"),
      )
    ),
    ('tiny_salt', "teacher.Teacher.dtype='float16'"),
    ('tiny_salt', "teacher.Teacher.minimum_gain='0.1'"),
    ('tiny_teacher', 'KEEP_PERIOD=0'),
    ('tiny_salt_ds', 'SELECTION_PATH=0'),
    ('tiny_sft', 'INITIAL_CHECKPOINT=None'),
    ('tiny_sft', 'EVAL_SPLIT=None'),
    *(('tiny_scores', x) for x in ('TOP_K=0', 'SCORED_EXAMPLES=0')),
    *(
      ('tiny_evaluate', x)
      for x in (
        *('EXAMPLES=0', 'USE_HUB=0', 'SUITE=3', 'RUN_PROGRAMS=None'),
        *("HELD_OUT_EXAMPLES='all'", "evaluate.evaluate.dtype='half'"),
        *("CHECKPOINTS={'A': 5}", "CHECKPOINTS='runs/a'"),
        *("SUPERVISED_SPLIT={'a': 3}",),
        *('SUPERVISED_TASKS=None', 'SUPERVISED_SPLIT=None', 'BENCHMARK_DATA=1'),
      )
    ),
    *(
      ('tiny_analyze', x)
      for x in (
        *('SEQUENCES=1', 'NUM_COMPLETIONS=1', 'PREFIXES=(0, 1)', 'PREFIXES=5'),
        *('TRAINING_SEQUENCES=10', 'analyze.analyze.delta=1.0'),
        *('analyze.analyze.seed=None', "analyze.analyze.lengths='64'"),
      )
    ),
  ],
)
def test_parameters_have_types_and_ranges(parse, recipe, flag):
  name, _, value = flag.partition('=')
  with pytest.raises(ValueError, match=': set it to ') as e:
    parse(recipe, flag)
  message = str(e.value)
  if name != 'SEQUENCE_LENGTH':  # It is inside of another value.
    assert name.rpartition('.')[2] in message
  assert value in message


@pytest.mark.parametrize(
  'recipe, flag',
  [
    ('tiny_salt', "TASK_FEATURE_LENGTHS={'inputs': 128, 'targets': 128}"),
    ('tiny_salt', 'TASK_FEATURE_LENGTHS={"targets": %SEQUENCE_LENGTH}'),
    ('tiny_salt', 'trainer.SaltTrainer.schedule=@schedules.linear_decay()'),
    ('tiny_salt', 'trainer.SaltTrainer.top_k=10'),
    ('tiny_salt', 'DISTILLATION_WEIGHT=1'),
    ('tiny_salt', 'PEAK_LEARNING_RATE=1'),
    ('tiny_salt', "teacher.Teacher.dtype='bfloat16'"),
    ('tiny_salt', 'models.SaltDecoderOnlyModel.loss_normalizing_factor=512'),
    ('tiny_salt', 'partitioning.PjitPartitioner.model_parallel_submesh=(1, 1)'),
    ('tiny_salt', 'CHECKPOINTS_TO_KEEP=None'),
    ('tiny_salt', "network.TransformerConfig.mlp_activations=['gelu']"),
    ('tiny_evaluate', "SUITE=['lambada']"),
    ('tiny_evaluate', "SUPERVISED_SPLIT={'sft_gsm8k': 'test'}"),
    ('tiny_evaluate', "CHECKPOINTS={'A': '/a', 'untrained': None}"),
    ('tiny_analyze', 'TRAINING_SEQUENCES=None'),
  ],
)
def test_values_are_accepted(parse, recipe, flag):
  assert parse(recipe, flag) == '/run'


def test_missing_macros_are_named(parse):
  with pytest.raises(ValueError, match='^SELECTION_PATH: required.*--gin.SEL'):
    parse('tiny_salt_ds', required=False)
  with pytest.raises(ValueError, match='%RATE: nothing sets this macro'):
    parse('tiny_salt', 'PEAK_LEARNING_RATE=%RATE')
  with pytest.raises(ValueError, match='%TRAIN_STEP: .* mean TRAIN_STEPS'):
    parse('tiny_salt', 'KD_STEPS=%TRAIN_STEP')
  with pytest.raises(ValueError, match='%MODEL: .* Include a file of students'):
    parse('../runs/baseline', "MIXTURE_OR_TASK_NAME='x'")


_IMPORTS = (
  'from __gin__ import dynamic_registration\nimport optax\n'
  'from salt_t5x import fine_tune\nfrom salt_t5x import trainer\n'
)
_SCHEDULE = 'optax.warmup_cosine_decay_schedule'


@pytest.mark.parametrize(
  'flags, message',
  [
    (
      ['WARMUP_STEPS=9', 'TRAIN_STEPS=9'],
      r'\(WARMUP_STEPS\) = 9 must be less than .*\(TRAIN_STEPS\) = 9:',
    ),
    # WARMUP_STEPS is 80.
    ([f'{_SCHEDULE}.decay_steps=50'], r'= 80 must .*decay_steps = 50:'),
    # The beginning of a long schedule.
    ([f'{_SCHEDULE}.decay_steps=960', 'TRAIN_STEPS=50'], None),
    (
      [
        'trainer.SaltTrainer.learning_rate_fn=@optax.constant_schedule()',
        'optax.constant_schedule.value=0.1',
        'TRAIN_STEPS=50',
      ],
      None,
    ),
  ],
)
def test_warmup_must_end_within_the_schedule(parse, flags, message):
  text = _IMPORTS + '\n'.join(flags)
  if message is None:
    assert parse('tiny_baseline', text=text) == '/run'
    return
  with pytest.raises(ValueError, match=message):
    parse('tiny_baseline', text=text)


def test_unused_schedules_are_not_checked(parse):
  """runs/sft.gin has another trainer's, too."""
  text = _IMPORTS + (
    'fine_tune.FineTuneTrainer.learning_rate_fn = @optax.constant_schedule()\n'
    'optax.constant_schedule.value = 0.1\nTRAIN_STEPS = 9'
  )
  assert parse('tiny_sft', text=text) == '/run'


def test_macros_that_refer_to_themselves_are_refused(parse):
  with pytest.raises(ValueError, match='SEQUENCES = %SEQUENCES: .* itself'):
    parse('tiny_analyze', text='SEQUENCES = %SEQUENCES')


def test_other_packages_parameters_are_not_checked(parse, monkeypatch):
  """A package may have a class or function of a name that we use."""
  own = types.ModuleType('my_lib')

  def train(model_dir, total_steps):
    del model_dir, total_steps

  train.__module__ = 'my_lib'
  own.train = train
  monkeypatch.setitem(sys.modules, 'my_lib', own)
  text = (
    'from __gin__ import dynamic_registration\nimport my_lib\n'
    "my_lib.train.model_dir = 5\nmy_lib.train.total_steps = 'all'\n"
  )
  assert parse('tiny_baseline', text=text) == '/run'


@pytest.mark.parametrize(
  'flags, message',
  [
    (['EVAL_PERIOD=90'], r'\(EVAL_PERIOD\) = 90 must be a multiple of .* = 80'),
    (['KEEP_PERIOD=79'], r'\(KEEP_PERIOD\) = 79 must be at least .* = 80'),
    (
      ['CHECKPOINT_PERIOD=None'],
      'multiples.period .* = 480 .* at least .* = None',
    ),
    (['STEPS=[7]'], r'\(STEPS\) = \[7\]: .* end with .* = 960'),
    (['STEPS=[90, 160, 960]'], r'= \[90, .* at least .* = 80 apart'),
    (
      ['STEPS=[960]', 'KEEP_PERIOD=None', 'CHECKPOINT_PERIOD=None'],
      r'= \[960\]: .* = None',
    ),
    (['STEPS=[90, 950, 960]', 'EVAL_PERIOD=0'], None),
    (['CHECKPOINT_PERIOD=None', 'KEEP_PERIOD=None'], None),
  ],
)
def test_periods_must_suit_t5x(parse, flags, message):
  text = 'utils.SaveCheckpointConfig.checkpoint_steps = %STEPS'
  text = text if flags[0].startswith('STEPS') else ''
  if message is None:
    parse('tiny_teacher', *flags, text=text)
    return
  with pytest.raises(ValueError, match=message):
    parse('tiny_teacher', *flags, text=text)


@pytest.mark.parametrize(
  'rate, more, is_valid',
  [
    ('0.1', '', False),
    ('@optax.linear_schedule()', '', False),
    ('@optax.warmup_cosine_decay_schedule()', '', True),
    (
      '%LR',
      'LR = @optax.warmup_cosine_decay_schedule()\n'
      'trainer.SaltTrainer.learning_rate_fn = %LR\n',
      True,
    ),
  ],
)
def test_optimizers_follow_the_trainers_learning_rate(
  parse, rate, more, is_valid
):
  text = (
    'from __gin__ import dynamic_registration\nimport optax\n'
    f'from salt_t5x import trainer\n{more}'
    'OPTIMIZER = @optax.adamw()\n'
    f'optax.adamw.learning_rate = {rate}\n'
  )
  context = (
    contextlib.nullcontext()
    if is_valid
    else pytest.raises(
      ValueError, match='optax.adamw.learning_rate = .*PEAK_LEARNING_RATE'
    )
  )
  with context:
    parse('tiny_baseline', text=text)


def test_partitions_need_not_divide_models_that_are_not_used(parse):
  text = 'size_tiny_smaller_teacher/network.TransformerConfig.num_heads = 3'
  flag = 'partitioning.PjitPartitioner.num_partitions=2'
  assert parse('tiny_salt', flag, text=text) == '/run'


@pytest.mark.parametrize('recipe', ['tiny_salt', 'tiny_sft'])
def test_microbatches_must_divide_the_batch(parse, recipe):
  flags = ['NUM_MICROBATCHES=8', 'BATCH_SIZE=4']
  message = r'\(NUM_MICROBATCHES\) = 8 does not divide .*\(BATCH_SIZE\) = 4'
  with pytest.raises(ValueError, match=message):
    parse(recipe, *flags)


def test_partitions_must_divide_the_model(parse):
  flag = 'partitioning.PjitPartitioner.num_partitions=3'
  with pytest.raises(ValueError, match='num_partitions = 3 does not divide'):
    parse('tiny_salt', flag)


def test_model_dir_must_be_a_folder(parse, tmp_path, monkeypatch):
  (tmp_path / 'file').touch()
  with pytest.raises(ValueError, match=r'MODEL_DIR\) = .*file is a file'):
    parse('tiny_salt', f"MODEL_DIR='{tmp_path}/file/run'")
  # Orbax finds a save's parts by a pattern, and TensorStore makes \\ a slash.
  for name in ('a[1]', 'a*', 'a?', 'a\\\\b'):
    with pytest.raises(ValueError, match=r'MODEL_DIR\) = .*cannot save in it'):
      parse('tiny_salt', f"MODEL_DIR='{tmp_path}/{name}'")
  monkeypatch.setattr(os, 'access', lambda *_: False)
  with pytest.raises(ValueError, match='cannot be written to'):
    parse('tiny_salt')


@pytest.mark.parametrize(
  'path, expected',
  [
    ('runs/a', '{cwd}/runs/a'),
    ('~/a', '{home}/a'),
    ('b#c %41|é', '{cwd}/b#c %41|é'),
    ('gs://bucket/a', 'gs://bucket/a'),
    ('/a/50%#1', '/a/50%#1'),
  ],
)
def test_paths_become_absolute(parse, path, expected):
  found = parse('tiny_salt', f"MODEL_DIR='{path}'")
  home = os.path.expanduser('~')
  assert found == expected.format(cwd=os.getcwd(), home=home)
