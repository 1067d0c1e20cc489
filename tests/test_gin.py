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

"""The gin files build the paper's runs and are found wherever installed."""

import functools
import importlib.metadata
import importlib.util
import re
import shutil

import flax
import gin
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import seqio

from salt_t5x import analyze, engine, sample, score
from salt_t5x import trainer as trainer_lib
from salt_t5x.data import feature_converters, ul2
from salt_t5x.runs import train_data
from salt_t5x.selection import first_stage
from t5x import train as t5x_train
from t5x import utils
import tiny_runs

GIN = tiny_runs.ROOT / 'gin'
_PAPER = sorted(
  p.stem for p in GIN.glob('recipes/*.gin') if not p.stem.startswith('tiny')
)
SCORES = [name for name in _PAPER if name.startswith('scores')]
# Fine-tuning's is in test_sft_tasks.
RECIPES = [x for x in _PAPER if x not in SCORES and '_sft_' not in x]
# design.md §5, at V = 256,000.
PARAMETERS = {
  '0p5b': 498_647_808,
  '1p5b': 1_554_080_768,
  '2p8b': 2_818_761_728,
  '8p6b': 8_598_589_440,
}


# --- The files ---------------------------------------------------------------


def test_folders_are_packages_and_gin_is_none():
  """`gin/__init__.py` would shadow gin-config from the repository root."""
  folders = {p.parent for p in GIN.rglob('*.gin')}
  assert folders and GIN not in folders
  assert not (GIN / '__init__.py').exists()
  for folder in folders:
    assert (folder / '__init__.py').exists(), folder


# --- The paper's recipes -----------------------------------------------------


class Recipe:
  """A recipe as it was built: what gin gives to `train` and to the trainer."""

  def __init__(self, name, *bindings):
    file = f'salt_t5x/gin/recipes/{name}.gin'
    bindings = [
      'from __gin__ import dynamic_registration',
      'import seqio',
      'VOCABULARY = @seqio.PassThroughVocabulary()',
      'seqio.PassThroughVocabulary.size = 256000',
      'MIXTURE_OR_TASK_NAME = "any"',
      'MODEL_DIR = "/no/such/place"',
      'SELECTION_PATH = "/nor/here"',
      *bindings,
    ]
    with tiny_runs.configured([file], bindings):
      self.train = gin.get_bindings(t5x_train.train)
      self.trainer = gin.get_bindings(trainer_lib.SaltTrainer)
      self.data = gin.get_bindings(train_data.get_dataset)
      self.keep_period = (
        gin.config.query_parameter('%KEEP_PERIOD')
        if (name.startswith('teacher'))
        else None
      )

  def parameters(self, model):
    """Counts a model's parameters in an abstract train state."""
    batch = self.train['train_dataset_cfg'].batch_size
    length = self.train['train_dataset_cfg'].task_feature_lengths['targets']
    initializer = utils.TrainStateInitializer(
      optimizer_def=model.optimizer_def,
      init_fn=model.get_initial_variables,
      input_shapes={'decoder_input_tokens': (batch, length)},
      input_types={'decoder_input_tokens': jnp.int32},
      partitioner=self.train['partitioner'],
    )
    state = initializer.global_train_state_shape
    axes = initializer.train_state_axes
    count = lambda tree: sum(
      int(np.prod(x.shape)) for x in jax.tree.leaves(tree)
    )
    # Adafactor's state is small: factored but for the norms' scales.
    assert count(state.param_states) < count(state.params) / 50
    flatten = flax.traverse_util.flatten_dict
    specs = flatten(flax.core.unfreeze(axes.params))
    assert specs[('embedding',)] == jax.sharding.PartitionSpec('model', None)
    return count(state.params)


@functools.cache
def recipe(name):
  return Recipe(name)


def test_all_recipes_are_here():
  assert len(RECIPES) >= 11


@pytest.mark.parametrize('name', RECIPES)
def test_recipe_builds_with_the_exact_sizes(name):
  built = recipe(name)
  sizes = [s for s in name.split('_') if s in PARAMETERS]
  student = built.train['model']
  assert built.parameters(student) == PARAMETERS[sizes[0]]
  teacher = built.trainer['teacher']
  if len(sizes) == 1:
    assert teacher is None and built.trainer['schedule'] is None
  else:
    assert built.parameters(teacher.model) == PARAMETERS[sizes[1]]
    assert teacher.model is not student


@pytest.mark.parametrize('name', RECIPES)
def test_recipe_trains_as_appendix_e_says(name):
  built = recipe(name)
  steps = {'teacher_1p5b_498k': 498_000, '1p5b_from_0p5b': 40_000}
  steps = steps.get(name, 208_000)
  batch = 1024 if name == '1p5b_from_0p5b' else 2048
  assert built.train['total_steps'] == built.trainer['total_steps'] == steps
  for data in ('train_dataset_cfg', 'train_eval_dataset_cfg'):
    assert built.train[data].batch_size == batch
    assert built.train[data].task_feature_lengths == {'targets': 1280}
    # What exact resumes rest on.
    assert built.train[data].seed is not None
    assert built.train[data].shuffle is False
  assert built.train['random_seed'] is not None
  assert built.train['checkpoint_cfg'].save.save_dataset is False
  rate = built.trainer['learning_rate_fn']
  assert rate(0) == 0
  np.testing.assert_allclose(rate(2_000), 5e-4, rtol=1e-6)
  np.testing.assert_allclose(rate(4_000), 1e-3, rtol=1e-6)
  # Half-way down the cosine is half-way between the two rates.
  np.testing.assert_allclose(rate((4_000 + steps) // 2), 5.5e-4, rtol=1e-4)
  np.testing.assert_allclose(rate(steps), 1e-4, rtol=1e-6)
  config = built.train['model'].module.config
  assert (config.dtype, config.scan_layers) == ('bfloat16', True)


@pytest.mark.parametrize(
  'name, kd_steps, weights',
  [
    ('2p8b_from_1p5b', 36_000, {0: 0.667, 35_999: 0.667, 36_000: 0}),
    ('8p6b_from_2p8b', 36_000, {0: 0.667, 35_999: 0.667, 36_000: 0}),
    ('2p8b_from_1p5b_salt_ds', 36_000, {35_999: 0.667, 36_000: 0}),
    ('8p6b_from_2p8b_salt_ds', 36_000, {35_999: 0.667, 36_000: 0}),
    ('8p6b_from_1p5b', 14_000, {0: 0.667, 13_999: 0.667, 14_000: 0}),
    ('8p6b_from_0p5b', 7_000, {0: 0.667, 6_999: 0.667, 7_000: 0}),
    ('1p5b_from_0p5b', None, {0: 0.667, 39_999: 0.667, 10**6: 0.667}),
    (
      '2p8b_from_1p5b_linear_decay',
      36_000,
      {0: 0.667, 32_000: 0.667, 34_000: 0.3335, 35_000: 0.16675, 36_000: 0},
    ),
    (
      '2p8b_from_1p5b_linear_ratio_decay',
      36_000,
      # The ratio is about 2 at 32K, half of that at 34K: 1.0015 / 2.0015.
      {0: 0.667, 32_000: 0.667, 34_000: 0.500374, 36_000: 0, 10**5: 0},
    ),
  ],
)
def test_recipe_distils_as_the_paper_says(name, kd_steps, weights):
  trainer = recipe(name).trainer
  assert trainer['schedule'].kd_steps == kd_steps
  for step, weight in weights.items():
    found = trainer['schedule'].weight(step)
    np.testing.assert_allclose(found, weight, rtol=2e-5, err_msg=str(step))
  assert trainer['teacher_temperature'] == 0.25
  assert trainer['top_k'] is None


@pytest.mark.parametrize('name', RECIPES)
def test_recipe_selects_its_first_stage_as_the_paper_says(name):
  built = recipe(name)
  if name.endswith('_salt_ds'):
    expected = first_stage.FirstStage(
      '/nor/here',
      36_000,
      208_000,
      '/no/such/place',
      '/teacher',
      ('zero', 'drop', 'mean', 'median'),
    )
    built = Recipe(name, 'TEACHER_PATH = "/teacher"')
  elif name.endswith('_ez'):
    expected = first_stage.FirstStage(
      '/nor/here',
      36_000,
      208_000,
      '/no/such/place',
      kinds=('easy',),
      needs_share=True,
    )
  else:
    expected = None
  assert built.data.get('selection') == expected


@pytest.mark.parametrize('name', SCORES)
def test_scores_are_made_as_section_5_says(name):
  bindings = [
    'from __gin__ import dynamic_registration',
    'import seqio',
    'VOCABULARY = @seqio.PassThroughVocabulary()',
    'seqio.PassThroughVocabulary.size = 256000',
    'MIXTURE_OR_TASK_NAME = "any"',
    'SCORES_DIR = "/no/such/place"',
    'TEACHER_PATH = "/teacher"',
  ]
  file = f'salt_t5x/gin/recipes/{name}.gin'
  with tiny_runs.configured([file], bindings):
    found = gin.get_bindings(score.score)
    size = name.removeprefix('scores_')
    config = found['teacher'].model.module.config
    assert config == gin.get_configurable(f'size_{size}/TransformerConfig')()
  assert (found['top_k'], found['teacher'].step) == (10, 26_000)
  data = found['dataset_cfg']
  assert (data.split, data.task_feature_lengths) == ('train', {'targets': 1280})
  assert found['examples'] is None


@pytest.mark.parametrize('module', ['analyze', 'sample'])
def test_the_theorys_commands_are_complete(module):
  """What docs/theory.md says to type."""
  text = (tiny_runs.ROOT / 'docs/theory.md').read_text()
  [command] = re.findall(rf'python -m salt_t5x.{module} (.*?)\n\n', text, re.S)
  files = re.findall(r'--gin_file=(\S+)', command)
  bindings = re.findall(r'--gin\.(\w+=\S+)', command)
  bindings = [b.replace('"', '') for b in bindings]
  with tiny_runs.configured(files, bindings):
    if module == 'sample':
      found = gin.get_bindings(sample.sample)
      assert found['teacher'].path == 'gs://bucket/teacher'
      assert found['examples'] == 1_000_000
      return
    found = gin.get_bindings(analyze.analyze)
    for role, size in (
      ('student', '2p8b'), ('teacher', '1p5b'), ('oracle', '8p6b')
    ):  # fmt: skip
      config = gin.get_configurable(f'size_{size}/TransformerConfig')()
      assert found[role].model.module.config == config
    assert found['student'].path == 'gs://bucket/baseline'
    # As in the student's first stage.
    assert (found['distillation_weight'], found['teacher_temperature']) == (
      0.667, 0.25
    )  # fmt: skip


def test_the_tiny_theory_is_complete():
  bindings = [f'{x}_PATH = "/p"' for x in ('STUDENT', 'TEACHER', 'ORACLE')]
  file = 'salt_t5x/gin/recipes/tiny_analyze.gin'
  with tiny_runs.configured([file], [*bindings, 'OUTPUT_DIR = "/o"']):
    of_roles = gin.get_bindings(analyze.analyze)
    layers = [
      of_roles[role].model.module.config.num_layers
      for role in ('teacher', 'student', 'oracle')
    ]
  assert layers == [3, 4, 6]
  assert of_roles['task_feature_lengths'] == {'targets': 128}


def test_the_pile_completes_a_recipe():
  """Names, lengths and views fit; student and teacher see the prefix alike."""
  files = ['recipes/2p8b_from_1p5b.gin', 'data/pile.gin']
  bindings = ['MODEL_DIR = "/no/such/place"', 'TEACHER_PATH = "/neither"']
  with tiny_runs.configured([f'salt_t5x/gin/{f}' for f in files], bindings):
    train = gin.get_bindings(t5x_train.train)
    teacher = gin.get_bindings(trainer_lib.SaltTrainer)['teacher'].model
  student = train['model']
  for model in (student, teacher):
    assert model._inputs_bidirectional_attention
    # gin hands out a subclass of its own.
    assert issubclass(
      model.FEATURE_CONVERTER_CLS, feature_converters.FixedWidthFeatureConverter
    )
    assert model.output_vocabulary.extra_ids == 100
  names = []
  for data in (train['train_dataset_cfg'], train['train_eval_dataset_cfg']):
    assert data.task_feature_lengths == {'targets': 1280}
    names.append(data.mixture_or_task_name)
    for task in seqio.get_subtasks(seqio.get_mixture_or_task(names[-1])):
      assert data.split in task.splits
      vocabulary = task.output_features['targets'].vocabulary
      assert vocabulary == student.output_vocabulary
      needed = ul2.extra_ids_needed(1280)
      assert vocabulary.extra_ids >= needed
  assert names == ['pile_ul2', 'pile_progress']


def test_every_distilling_recipe_is_tested_above():
  tested = test_recipe_distils_as_the_paper_says.pytestmark[0].args[1]
  assert {t[0] for t in tested} == {r for r in RECIPES if '_from_' in r}


@pytest.mark.parametrize('name', [r for r in RECIPES if r[:7] == 'teacher'])
def test_teacher_recipe_keeps_its_early_checkpoint(name):
  built = recipe(name)
  assert built.keep_period == 26_000
  # A checkpoint is written there in any case.
  assert 26000 in built.train['checkpoint_cfg'].save.checkpoint_steps


@pytest.mark.parametrize('period, kept', [(3, {0, 3, 5}), (None, {5})])
def test_keep_period_reaches_the_checkpoint_manager(
  chain, tmp_path, period, kept
):
  tiny_runs.train(
    tmp_path,
    [
      'salt_t5x/gin/teachers/tiny.gin',
      'salt_t5x/gin/runs/pretrain_teacher.gin',
      tiny_runs.CHAIN,
    ],
    f'KEEP_PERIOD = {period}',
    # Not what the checkpoints to keep are multiples of, as after a preemption.
    'CHECKPOINT_PERIOD = 2',
    'EVAL_PERIOD = 2',
    'CHECKPOINTS_TO_KEEP = 1',
    'TRAIN_STEPS = 5',
  )
  found = {int(p.name.split('_')[1]) for p in tmp_path.glob('checkpoint_*')}
  assert found == kept


# --- Found from a wheel, a checkout, and beside folders of the same names ----


@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
  """A wheel, installed into a folder of its own."""
  source = tmp_path_factory.mktemp('source')
  # Of a copy: building leaves build/ and *.egg-info behind.
  for name in ('salt_t5x', 'gin', 'tasks'):
    shutil.copytree(
      tiny_runs.ROOT / name,
      source / name,
      ignore=shutil.ignore_patterns('__pycache__'),
    )
  for name in ('setup.py', 'pyproject.toml', 'README.md', 'LICENSE'):
    shutil.copy(tiny_runs.ROOT / name, source)
  # A mark, by which the tests know whose file was read.
  with (source / 'gin/runs/salt.gin').open('a') as f:
    f.write('FROM_THE_WHEEL = %gin.REQUIRED\n')
  built, site = source / 'wheel', source / 'site'
  here = all(map(importlib.util.find_spec, ('setuptools', 'wheel')))
  pip = ['-m', 'pip', '--disable-pip-version-check']
  for command in (
    ['wheel', '--no-deps', '-w', built, source]
    + ['--no-build-isolation'] * here,
    ['install', '--no-deps', '--no-index', '--target', site]
    + ['--find-links', built, 'salt_t5x'],
  ):
    done = tiny_runs.python([*pip, *map(str, command)], tiny_runs.environment())
    assert done.returncode == 0, done.stdout + done.stderr
  return site


@pytest.fixture
def decoys(tmp_path):
  """A working directory with folders of the same names as gin/'s."""
  for folder in ('runs', 'gin/runs', 'gin/recipes', 'recipes', 'students'):
    (tmp_path / folder).mkdir(parents=True)
  for file in ('runs/salt.gin', 'gin/runs/salt.gin', 'runs/baseline.gin'):
    (tmp_path / file).write_text('raise SystemExit("the wrong file")\n')
  return tmp_path


@pytest.fixture(scope='module')
def installed():
  """Skips where the package is only found because it lies here."""
  try:
    importlib.metadata.distribution('salt_t5x')
  except importlib.metadata.PackageNotFoundError:
    pytest.skip('salt_t5x is not installed')


BINARIES = ['salt_t5x.train'] + ['t5x.train'] * tiny_runs.REAL_T5X


def missing_parameter(binary, cwd, *site):
  """Starts a binary on runs/salt.gin; returns the parameter it asks for.

  gin asks once all files are parsed, and both of them end the run.
  """
  done = tiny_runs.python(
    [
      *('-m', binary),
      '--gin_file=salt_t5x/gin/runs/salt.gin',
      '--gin.MODEL=None',
      '--gin.TEACHER_MODEL=None',
      '--gin.MIXTURE_OR_TASK_NAME="none"',
      '--gin.FROM_THE_WHEEL=1' if not site else '--gin.MODEL_DIR="none"',
    ],
    tiny_runs.environment('', [*site, *tiny_runs.real_t5x_path()]),
    cwd=cwd,
  )
  assert done.returncode != 0
  if binary == 'salt_t5x.train':
    assert f'running on the {engine.current()} engine' in done.stdout
  error = done.stderr.strip().splitlines()[-1]
  found = re.fullmatch(r'ValueError: (\w+): required, but not set\..*', error)
  assert found, done.stderr[-3000:]
  return found[1]


@pytest.mark.parametrize('binary', BINARIES)
def test_run_file_is_found_in_a_wheel(binary, wheel, decoys):
  assert missing_parameter(binary, decoys, wheel) == 'FROM_THE_WHEEL'


@pytest.mark.parametrize('binary', BINARIES)
def test_run_file_is_found_by_an_editable_install(binary, installed, decoys):
  assert missing_parameter(binary, decoys) == 'MODEL_DIR'


@pytest.mark.parametrize('binary', BINARIES)
def test_run_file_is_found_from_the_repository(binary, installed):
  assert missing_parameter(binary, tiny_runs.ROOT) == 'MODEL_DIR'
