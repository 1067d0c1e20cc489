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

"""Sequences sampled from a teacher, cached and read by tasks over them."""

import importlib
import sys

import jax
import jax.numpy as jnp
import numbered_task
import numpy as np
import pytest
import seqio

from salt_t5x import models, sample
from salt_t5x import teacher as teacher_lib
from salt_t5x.data import cache_writer, vocabularies
from salt_t5x.inference import language_model
from salt_t5x.inference import sampler as sampler_lib
from t5x import partitioning
import tiny

T, ROWS, EXTRA_IDS = 16, 420, 100
PROMPTS = 'prompts'


@pytest.fixture(scope='module')
def teacher(tmp_path_factory):
  folder = tmp_path_factory.mktemp('teacher')
  texts = [f'{i} small models teach {i * i} large ones\n' for i in range(200)]
  path = folder / 'vocabulary.model'
  (folder / 'model').mkdir()
  path.write_bytes(vocabularies.train(texts, ROWS, EXTRA_IDS))
  model = tiny.make_model(
    vocab=seqio.SentencePieceVocabulary(str(path), extra_ids=EXTRA_IDS),
    vocab_size=ROWS,
  )
  trainer = tiny.make_trainer(model, summary_dir=str(folder / 'model'))
  tiny.save_checkpoint(str(folder / 'model'), trainer)
  return teacher_lib.Teacher(model=model, path=str(folder / 'model'))


def run(output_dir, teacher, **options):
  options = (
    dict(
      partitioner=partitioning.PjitPartitioner(num_partitions=1),
      task_feature_lengths={'targets': T},
      batch_size=8,
      examples=20,
      held_out_examples=6,
    )
    | options
  )
  return sample.sample(teacher=teacher, output_dir=str(output_dir), **options)


def read(folder, monkeypatch):
  """{split: [n, T]}, in the order in which they were drawn."""
  monkeypatch.setenv('SALT_T5X_SAMPLES', str(folder))
  monkeypatch.setattr(seqio.TaskRegistry, '_REGISTRY', {})
  monkeypatch.setattr(seqio.MixtureRegistry, '_REGISTRY', {})
  before = list(seqio.get_global_cache_dirs())
  monkeypatch.delitem(sys.modules, 'salt_t5x.tasks.samples', raising=False)
  try:
    importlib.import_module('salt_t5x.tasks.samples')
    found = {}
    for split in ('train', 'validation'):
      dataset = seqio.get_mixture_or_task('samples_causal').get_dataset(
        {'inputs': T, 'targets': T}, split, shuffle=False
      )
      examples = sorted(dataset.as_numpy_iterator(), key=lambda x: x['id'])
      found[split] = np.stack([x['targets'] for x in examples])
    return found
  finally:
    seqio.set_global_cache_dirs(before)


@pytest.fixture(scope='module')
def drawn(teacher, tmp_path_factory):
  folder = tmp_path_factory.mktemp('samples')
  return folder, run(folder, teacher)


def test_tasks_read_the_samples(drawn, monkeypatch):
  folder, text = drawn
  assert '20 and 6 sequences of 16 tokens' in text
  found = read(folder, monkeypatch)
  assert found['train'].shape == (20, T) and found['validation'].shape == (6, T)
  everything = np.concatenate(list(found.values()))
  assert everything.min() > 0 and everything.max() < ROWS
  assert len(np.unique(everything, axis=0)) == 26


def test_samples_have_the_entropy_of_the_teacher(drawn, teacher, monkeypatch):
  """Eq. (14): the mean of -log P_ζ(x̃) is the teacher's entropy."""
  folder, _ = drawn
  tokens = read(folder, monkeypatch)['train']
  partitioner = partitioning.PjitPartitioner(num_partitions=1)
  params, _ = teacher.load(
    teacher.find(), models.features_of(tokens), partitioner
  )
  logits = tiny.jitted(teacher.model.module)(
    params, np.pad(tokens[:, :-1], [(0, 0), (1, 0)]), tokens
  ).astype(np.float64)
  logits[..., 0] = -np.inf  # Padding is never drawn.
  log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
  nats = -np.take_along_axis(log_p, tokens[..., None], -1)
  entropy = -np.sum(
    np.exp(log_p) * np.where(np.isfinite(log_p), log_p, 0), axis=-1
  )
  error = np.std(np.mean(nats[..., 0] - entropy, 1)) / np.sqrt(len(tokens))
  assert abs(np.mean(nats) - np.mean(entropy)) < 4.5 * error


def test_rerun_samples_only_missing_batches(drawn, teacher, monkeypatch):
  folder, text = drawn
  draw = sampler_lib.Sampler.sample_batch
  runs = []
  monkeypatch.setattr(
    sampler_lib.Sampler,
    'sample_batch',
    lambda self, *x: runs.append(1) or draw(self, *x),
  )
  before = read(folder, monkeypatch)
  next(folder.glob('drawn/train_*8.bin')).unlink()
  # One for the missing batch, one for the check of the teacher.
  assert run(folder, teacher) == text and len(runs) == 2
  after = read(folder, monkeypatch)
  for split, rows in before.items():
    np.testing.assert_array_equal(after[split], rows)


def test_rejects_untrained_teachers(teacher, tmp_path, monkeypatch):
  load = teacher_lib.Teacher.load

  def zeros(*arguments):
    params, axes = load(*arguments)
    return jax.tree.map(jnp.zeros_like, params), axes

  monkeypatch.setattr(teacher_lib.Teacher, 'load', zeros)
  with pytest.raises(ValueError, match='A model that knows nothing'):
    run(tmp_path, teacher)


def test_rejects_models_without_finite_outputs(teacher, tmp_path, monkeypatch):
  load = teacher_lib.Teacher.load

  def nans(*arguments):
    params, axes = load(*arguments)
    return jax.tree.map(lambda x: x * jnp.nan, params), axes

  monkeypatch.setattr(teacher_lib.Teacher, 'load', nans)
  # The check of the first batch would find this one, but not later ones.
  monkeypatch.setattr(teacher_lib, 'check_cross_entropy', lambda *_: None)
  with pytest.raises(language_model.NonFiniteOutputError, match='8 of 8'):
    run(tmp_path, teacher)
  assert not list(tmp_path.rglob('*.bin'))


def test_continues_prompts(teacher, tmp_path, monkeypatch):
  cache = tmp_path / 'cache'
  cache_writer.write(numbered_task.sequences_task(PROMPTS), str(cache))
  before = list(seqio.get_global_cache_dirs())
  seqio.set_global_cache_dirs([*before, str(cache)])
  options = dict(prompt_task=f'{PROMPTS}_ul2', prompt_length=5)
  try:
    run(tmp_path / 'x', teacher, **options)
    # The same prompts in another order.
    cache_writer.write(
      seqio.TaskRegistry.get(PROMPTS),
      str(cache),
      seed=1,
    )
    with pytest.raises(ValueError, match='prompt_data was'):
      run(tmp_path / 'x', teacher, **options)
  finally:
    seqio.set_global_cache_dirs(before)
  found = read(tmp_path / 'x', monkeypatch)
  for split, count in (('train', 20), ('validation', 5)):
    order = numbered_task.ordered(numbered_task.COUNT if count > 5 else 5)
    expected = [numbered_task.tokens(n)[:5] for n in order[:count]]
    np.testing.assert_array_equal(found[split][:count, :5], expected)
  # There are 5 of them: the sixth continues the first, in another way.
  validation = found['validation']
  assert validation[5, :5].tolist() == validation[0, :5].tolist()
  assert validation[5].tolist() != validation[0].tolist()


@pytest.mark.parametrize(
  'options, message',
  [
    ({'seed': 1}, r'\(OUTPUT_DIR\) = .* another configuration: seed was 0'),
    ({'examples': 0}, r'train split \(EXAMPLES.* = 0: set it'),
    ({'prompt_length': 3}, r'\(PROMPT_LENGTH\) = 3 and .* set both'),
    ({'prompt_task': 'x'}, r"\(PROMPT_TASK\) = 'x': set both"),
    ({'prompt_task': 'x', 'prompt_length': T}, 'with a length below T = 16'),
  ],
)
def test_rejects_options(drawn, teacher, options, message):
  with pytest.raises(ValueError, match=message):
    run(drawn[0], teacher, **options)


def test_rejects_other_vocabularies(tmp_path, teacher):
  other = teacher_lib.Teacher(model=tiny.make_model(), path=teacher.path)
  with pytest.raises(ValueError, match='SentencePiece is needed'):
    run(tmp_path, other)


def test_rejects_a_teacher_of_another_network(tmp_path, teacher):
  model = tiny.make_model(
    vocab=teacher.model.output_vocabulary,
    vocab_size=ROWS,
    mlp_activations=('relu', 'linear'),
  )
  other = teacher_lib.Teacher(model=model, path=teacher.path)
  with pytest.raises(ValueError, match=r"mlp_activations = \['gelu', 'linear'"):
    run(tmp_path, other)
