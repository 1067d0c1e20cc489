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


"""The paper's fine-tuning tasks, on made-up examples in each one's form."""

import contextlib
import dataclasses
import importlib
import json
import sys

import gin
import numpy as np
import pytest
import seqio
import tensorflow_datasets as tfds

from salt_t5x import fine_tune
from salt_t5x.data import vocabularies
from salt_t5x.evaluation import text_metrics
from t5x import train as t5x_train
import tiny_runs

MODULE = 'salt_t5x.tasks.sft'
EXAMPLES = {
  'gsm8k': {
    'question': 'Ida has 3 crates of 14 pears. How many pears?',
    'answer': '3 crates hold 3*14=<<3*14=42>>42 pears.\n#### 42',
  },
  'xsum': {'document': 'A barn owl was seen.', 'summary': 'An owl is back.'},
  'cnn_dailymail': {
    'article': 'The mill burnt. Nobody was hurt.',
    'highlights': 'A mill burnt .\nAll are well .',
  },
  'anli_r1': {'premise': 'It rains.', 'hypothesis': 'It is dry.', 'label': 2},
  'anli_r2': {'premise': 'It rains.', 'hypothesis': 'It is wet.', 'label': 0},
  'anli_r3': {'premise': 'It rains.', 'hypothesis': 'It is cold.', 'label': 1},
}
TEXTS = {
  'gsm8k': (
    'Solve the problem.\nIda has 3 crates of 14 pears. How many pears?',
    '3 crates hold 3*14=<<3*14=42>>42 pears.\n#### 42',
  ),
  'xsum': ('Summarize in one sentence.\nA barn owl was seen.',
           'An owl is back.'),
  'cnn_dailymail': (
    'Summarize.\nThe mill burnt. Nobody was hurt.',
    'A mill burnt .\nAll are well .',
  ),
  'anli_r1': ('Hypothesis: It is dry.\nPremise: It rains.', 'contradiction'),
  'anli_r2': ('Hypothesis: It is wet.\nPremise: It rains.', 'entailment'),
  'anli_r3': ('Hypothesis: It is cold.\nPremise: It rains.', 'neutral'),
}  # fmt: skip


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """Files of all tasks, and a vocabulary."""
  folder = tmp_path_factory.mktemp('sft')
  for name, example in EXAMPLES.items():
    (folder / name).mkdir()
    for i, split in enumerate(('train', 'validation', 'test')):
      # Splits of equal content are refused.
      line = json.dumps(example) + '\n' * (i + 1)
      (folder / name / f'{split}.jsonl').write_text(line)
  texts = [text for pair in TEXTS.values() for text in pair]
  model = vocabularies.train(texts * 9, 420, 100)
  (folder / 'vocabulary.model').write_bytes(model)
  return folder


@contextlib.contextmanager
def imported(folder):
  """The module, imported with its data in a folder, or with TFDS's (None)."""
  tasks = importlib.import_module('salt_t5x.tasks')
  registry = seqio.TaskRegistry

  def take_out():
    """Of Python and of seqio; returns (the module, its tasks)."""
    # The next test that needs the tasks imports the module again.
    module = sys.modules.pop(MODULE, None)
    vars(tasks).pop('sft', None)
    names = [name for name in registry.names() if name.startswith('sft_')]
    taken = {name: registry.get(name) for name in names}
    for name in names:
      registry.remove(name)
    return module, taken

  with pytest.MonkeyPatch.context() as patch:
    patch.delenv('SALT_T5X_VOCABULARY', raising=False)
    patch.delenv('SALT_T5X_SFT', raising=False)
    if folder:
      patch.setenv('SALT_T5X_SFT', str(folder))
    module, taken = take_out()
    # gin may know the vocabulary of the module that other tests imported; they
    # must find it again.
    for name in ('_REGISTRY', '_INVERSE_REGISTRY'):
      patch.setattr(gin.config, name, getattr(gin.config, name).copy())
    gin.enter_interactive_mode()
    yield importlib.import_module(MODULE)
    gin.exit_interactive_mode()
    take_out()
    for name, task in taken.items():
      registry.add_provider(name, task)
    if module:
      sys.modules[MODULE] = tasks.sft = module


@pytest.fixture(scope='module')
def sft(folder):
  with imported(folder) as module:
    yield module


def test_texts(sft):
  for name, expected in TEXTS.items():
    task = seqio.TaskRegistry.get(f'sft_{name}')
    for split in task.splits:
      [example] = task.source.get_dataset(split).as_numpy_iterator()
      assert (example['inputs'].decode(), example['targets'].decode()) == (
        expected
      )
    [example] = task.get_dataset(None, split='test').as_numpy_iterator()
    tokens = example['targets'].tolist()
    assert tokens[-1] == 1
    # Newlines come back: ROUGE-Lsum needs them.
    assert sft.vocabulary().decode(tokens[:-1]) == expected[1]
  assert set(seqio.TaskRegistry.get('sft_gsm8k').splits) == {'train', 'test'}
  assert set(seqio.TaskRegistry.get('sft_xsum').splits) == {
    'train',
    'validation',
    'test',
  }


def test_metrics_are_the_papers(sft):
  del sft
  found = {
    name: seqio.TaskRegistry.get(f'sft_{name}').predict_metric_fns
    for name in EXAMPLES
  }
  assert found == {
    'gsm8k': [text_metrics.gsm8k_accuracy],
    'xsum': [text_metrics.rouge],
    'cnn_dailymail': [text_metrics.rouge],
    'anli_r1': [text_metrics.accuracy],
    'anli_r2': [text_metrics.accuracy],
    'anli_r3': [text_metrics.accuracy],
  }


@pytest.mark.parametrize('label', [-1, 3, '2', True, 1.0])
def test_labels_that_are_none(label, sft):
  with pytest.raises(ValueError, match='is not 0, 1 or 2'):
    sft.anli_label({'label': label})


@pytest.mark.parametrize(
  'recipe, student', [('2p8b_sft_gsm8k', '2p8b'), ('tiny_sft', 'tiny')]
)
def test_recipes(recipe, student, sft):
  bindings = ['MODEL_DIR = "/no"', 'INITIAL_CHECKPOINT = "/neither"']
  with tiny_runs.configured([f'salt_t5x/gin/recipes/{recipe}.gin'], bindings):
    train = gin.get_bindings(t5x_train.train)
    options = gin.get_bindings(fine_tune.FineTuneTrainer)
  vocabulary_only = [
    'from __gin__ import dynamic_registration',
    'import seqio',
    'VOCABULARY = @seqio.PassThroughVocabulary()',
    'seqio.PassThroughVocabulary.size = 2048',
  ]
  file = f'salt_t5x/gin/students/{student}.gin'
  with tiny_runs.configured([file], vocabulary_only):
    pretrained = gin.config.query_parameter('%MODEL').configurable.wrapper()
  config = train['model'].module.config
  rows = {'vocab_size': config.vocab_size}
  assert config == dataclasses.replace(pretrained.module.config, **rows)
  assert train['model'].output_vocabulary == sft.vocabulary()
  assert issubclass(train['trainer_cls'], fine_tune.FineTuneTrainer)
  assert options['initial_checkpoint'] == '/neither'
  assert options['total_steps'] == train['total_steps']
  if student != 'tiny':
    assert options['total_steps'] == 10_000
    np.testing.assert_allclose(options['learning_rate_fn'](200), 1e-4)
  for data in (train['train_dataset_cfg'], train['train_eval_dataset_cfg']):
    lengths = data.task_feature_lengths
    assert 0 < lengths['targets'] < lengths['inputs']
    task = seqio.TaskRegistry.get(data.mixture_or_task_name)
    assert data.split in task.splits


def test_without_a_folder_tfds_has_the_examples():
  """TFDS makes examples up, from its data sets' own features."""
  with imported(None), tfds.testing.mock_data(num_examples=4):
    for name in EXAMPLES:
      source = seqio.TaskRegistry.get(f'sft_{name}').source
      found = list(source.get_dataset('test').as_numpy_iterator())
      assert len(found) == 4
      if name.startswith('anli'):
        labels = {x['targets'].decode() for x in found}
        assert labels <= {'entailment', 'neutral', 'contradiction'}
        lines = found[0]['inputs'].decode().splitlines()
        assert [x.split(':')[0] for x in lines] == ['Hypothesis', 'Premise']
      assert all(x['inputs'].strip() for x in found)
