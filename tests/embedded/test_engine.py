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

"""The choice of the engine, and its errors.

Each test starts other processes, since a process keeps its engine.
"""

import importlib.util
import re

import gin
import jax
import pytest

from t5x import decoding
from t5x import train as t5x_train
from t5x import trainer as t5x_trainer
import tiny
import tiny_runs

REPORT = 'from salt_t5x import engine; import t5x; print(engine.current())'


def seam(tmp_path, *folders, choice='', script=REPORT):
  """Imports salt_t5x in a process that finds only these folders.

  Returns:
    (exit status, last line of the output, or of the error).
  """
  done = tiny_runs.python(
    ['-c', script], tiny_runs.environment(choice, folders), cwd=tmp_path
  )
  text = done.stderr if done.returncode else done.stdout
  return done.returncode, text.strip().splitlines()[-1]


@pytest.fixture(scope='module')
def nothing_installed(tmp_path_factory):
  """Skips where t5x is installed into the very environment."""
  find = 'import importlib.util; print(importlib.util.find_spec("t5x"))'
  if seam(tmp_path_factory.mktemp('empty'), script=find) != (0, 'None'):
    pytest.skip('t5x is installed in this environment')


def make_t5x(folder, init='', trainer=''):
  """Makes a folder that looks like an installed t5x."""
  (folder / 't5x').mkdir(parents=True)
  (folder / 't5x/__init__.py').write_text(init)
  (folder / 't5x/trainer.py').write_text(trainer)
  return folder


def test_finds_the_embedded_engine_without_t5x(tmp_path, nothing_installed):
  assert seam(tmp_path) == (0, 'embedded')


def test_prefers_an_installed_t5x(tmp_path):
  site = make_t5x(tmp_path / 'site')
  assert seam(tmp_path, site) == (0, 't5x')
  assert seam(tmp_path, site, choice='t5x') == (0, 't5x')


def test_ignores_folders_named_t5x(tmp_path, nothing_installed):
  """In the working directory or on the path, even with a trainer.py."""
  for place in (tmp_path, tmp_path / 'site'):
    (place / 't5x').mkdir(parents=True)
    (place / 't5x/trainer.py').write_text('raise RuntimeError')
  assert seam(tmp_path, tmp_path / 'site') == (0, 'embedded')
  status, error = seam(tmp_path, tmp_path / 'site', choice='t5x')
  assert status and re.match('ImportError: .*no t5x is installed', error)


@pytest.mark.parametrize(
  'where, text, missing',
  [
    ('init', 'import airio', 'airio'),
    ('trainer', 'from jax import no_such_name', 'no_such_name'),
    ('trainer', 'import jax; jax.no_such_name', 'no_such_name'),
  ],
)
def test_rejects_a_broken_t5x(tmp_path, where, text, missing):
  """The error names the missing piece and the remedies."""
  site = make_t5x(tmp_path / 'site', **{where: text})
  status, error = seam(tmp_path, site)
  assert status and error.startswith('ImportError: A real t5x is installed at')
  assert str(site / 't5x') in error
  assert missing in error
  assert 'SALT_T5X_ENGINE=embedded' in error and 'docs/engines.md' in error


def test_embedded_engine_can_be_forced(tmp_path):
  site = make_t5x(tmp_path / 'site', init='import airio')
  script = 'from salt_t5x import engine; import t5x; print(t5x.__file__)'
  status, file = seam(tmp_path, site, choice='embedded', script=script)
  assert status == 0 and file.endswith('salt_t5x/embedded/t5x/__init__.py')


def test_rejects_unknown_engines(tmp_path):
  status, error = seam(tmp_path, choice='T5X')
  assert status and error.startswith("ValueError: SALT_T5X_ENGINE='T5X'")
  assert "'t5x'" in error and "'embedded'" in error


def test_rejects_a_missing_t5x(tmp_path, nothing_installed):
  status, error = seam(tmp_path, choice='t5x')
  assert status and error.startswith('ImportError: SALT_T5X_ENGINE=t5x')
  assert 'docs/engines.md' in error


def test_rejects_a_second_engine_in_a_process(tmp_path):
  site = make_t5x(tmp_path / 'site')
  status, error = seam(
    tmp_path, site, choice='embedded', script=f'import t5x; {REPORT}'
  )
  assert status and 'already imported the t5x engine' in error
  embedded = importlib.util.find_spec('salt_t5x').submodule_search_locations[0]
  script = f'import sys; sys.path.insert(0, {embedded + "/embedded"!r});'
  status, error = seam(
    tmp_path, site, choice='t5x', script=f'{script} import t5x; {REPORT}'
  )
  assert status and 'already imported the embedded engine' in error
  # Without a choice, the engine that was imported first stays.
  assert seam(tmp_path, site, script=f'import t5x; {REPORT}') == (0, 't5x')


# --- Features of t5x that the embedded engine lacks --------------------------

WITHOUT_TEACHER = (
  'trainer.SaltTrainer.schedule = None',
  'trainer.SaltTrainer.teacher = None',
)


def _build(binding):
  """Builds what `train` is called with."""
  with tiny_runs.configured([tiny_runs.RECIPE], ['MODEL_DIR = "/no"', binding]):
    gin.get_bindings(t5x_train.train)


def _train(binding):
  tiny_runs.train(
    '/no/such/place', [tiny_runs.RECIPE], *WITHOUT_TEACHER, binding
  )


def _loss(normalizer):
  model = tiny.make_model(loss_normalizing_factor=normalizer)
  batch = tiny.batch_of(tiny.rows()[:2])
  jax.eval_shape(lambda: model.loss_fn({}, batch, None))


def _statement(text):
  exec(text, {})


# What is asked for: (how, what the error must name).
REFUSED = {
  'utils.DatasetConfig.use_custom_packing_ops = False': (
    _build,
    'utils.DatasetConfig.use_custom_packing_ops',
  ),
  'train.actions = {}': (_train, 'train.train.actions'),
  'weight_metrics_computer': (
    lambda _: t5x_trainer.Trainer(*[None] * 9, weight_metrics_computer=1),
    'weight_metrics_computer',
  ),
  'NUM_REAL_TARGET_TOKENS': (
    _loss,
    "loss_normalizing_factor = 'NUM_REAL_TARGET_TOKENS'",
  ),
  'num_decodes': (
    lambda _: decoding.temperature_sample(None, None, None, 1, num_decodes=2),
    'the option decoding.temperature_sample.num_decodes',
  ),
  'from t5x import interactive_model': (_statement, 't5x.interactive_model'),
  'from t5x import utils; utils.get_infer_fn': (
    _statement,
    't5x.utils.get_infer_fn',
  ),
  'from t5x import decoding; decoding.beam_search': (
    _statement,
    't5x.decoding.beam_search',
  ),
  'import t5x.examples': (_statement, 't5x.examples'),
  'import t5x.trainer; t5x.trainer.WeightMetricsComputer': (
    _statement,
    't5x.trainer.WeightMetricsComputer',
  ),
  'from t5x import adafactor; adafactor.Adafactor(factored=False)': (
    _statement,
    'adafactor.Adafactor.factored',
  ),
  'from t5x import checkpoints as c; '
  'c.OrbaxCheckpointManagerInterface(use_gda=True)': (
    _statement,
    'checkpoints.OrbaxCheckpointManagerInterface.use_gda',
  ),
  'from t5x import partitioning; partitioning.PjitPartitioner(backend=1)': (
    _statement,
    'partitioning.PjitPartitioner.backend',
  ),
}


def refusals():
  """Asks the embedded engine for each: {what is asked for: the error}."""
  answers = {}
  for asked, (ask, _) in REFUSED.items():
    try:
      ask(asked)
      answers[asked] = 'nothing'
    except Exception as e:  # pylint: disable=broad-exception-caught
      answers[asked] = f'{type(e).__name__}: {e}'
  return answers


def test_embedded_engine_names_t5x(chain):
  del chain
  answers = tiny_runs.call('test_engine.refusals', engine_name='embedded')
  for asked, (_, name) in REFUSED.items():
    answer = answers[asked]
    assert re.match('(Value|Import)Error: .*t5x: ', answer, re.DOTALL), asked
    assert name in answer
    assert 'Install the real t5x' in answer
