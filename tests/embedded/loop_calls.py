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

"""What the loop of `t5x.train` asks of its parts, for seeded random runs.

`loop_calls.json` holds the calls of the real t5x. Make it again with the real
t5x on PYTHONPATH:

  python tests/embedded/loop_calls.py
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import random
import tempfile
import types
from unittest import mock

if __name__ == '__main__':
  import salt_t5x  # noqa: F401  (It chooses the engine.)

from clu.data import dataset_iterator
import jax
import numpy as np
import tensorflow as tf

from salt_t5x import engine
from salt_t5x.checkpoints import find
from t5x import checkpoints, partitioning, train, trainer, utils

FILE = pathlib.Path(__file__).with_suffix('.json')
CASES = 40
NEW, OWN, OTHER = 'new', "own checkpoint's", "other run's checkpoint"
Call = list


@dataclasses.dataclass(frozen=True)
class Case:
  """A run.

  Attributes:
    total_steps: TRAIN_STEPS.
    eval_period: EVAL_PERIOD.
    period: CHECKPOINT_PERIOD.
    keep_period: KEEP_PERIOD.
    stats_period: STATS_PERIOD.
    start: what it starts from.
    first_step: of the checkpoint that it starts from.
    evaluates: whether there are evaluation data.
    stop: the step after which it is preempted.
  """

  total_steps: int
  eval_period: int
  period: int | None
  keep_period: int | None
  stats_period: int | None
  start: str
  first_step: int
  evaluates: bool
  stop: int | None


def cases() -> list[Case]:
  """Draws runs that configuration.values accepts."""
  rng = random.Random(0)
  found = []
  while len(found) < CASES:
    total = rng.randint(1, 24)
    start = rng.choice([NEW, OWN, OWN, OTHER])
    first = 0 if start == NEW else max(0, rng.randint(-3, total + 1))
    period = rng.choice([None, 1, 2, 3, 4, 5, 6, 8, 30])
    multiple = rng.randint(1, 3)
    found.append(
      Case(
        total_steps=total,
        eval_period=rng.choice(
          [0, 2, 3] if period is None else [0, period, period * multiple]
        ),
        period=period,
        keep_period=None
        if period is None
        else rng.choice([None, period + rng.randint(0, 6)]),
        stats_period=rng.choice([None, 1, 2, 3, 5, 40]),
        start=start,
        first_step=first,
        evaluates=rng.random() < 0.7,
        stop=rng.choice([None, None, first + rng.randint(1, 12)]),
      )
    )
  return found


def _data(_=None, *args) -> tf.data.Dataset:
  """Batches that name their position."""
  del args
  data = tf.data.Dataset.range(100)
  return data.map(lambda i: {'position': [tf.cast(i, tf.int32)]})


def _position(batch) -> int:
  return int(np.asarray(batch['position'])[0])


@dataclasses.dataclass
class _State:
  """Stands for a train state."""

  step: int
  is_trained: bool = False

  def state_dict(self):
    return {'target': {}}


class _Parts:
  """Stands for a run's parts, and writes down what is asked of them."""

  def __init__(self, case: Case, folder: str):
    self.calls: list[Call] = []
    self._case = case
    self._model_dir = os.path.join(folder, 'run')
    self._saved_data = os.path.join(folder, 'data')
    self.other = os.path.join(folder, 'other')
    for path in (self._model_dir, self.other):
      os.makedirs(path)
    steps = {case.first_step, case.first_step // 2}
    place = {OWN: self._model_dir, OTHER: self.other}.get(case.start)
    for step in steps if place else ():
      os.makedirs(os.path.join(place, f'checkpoint_{step}'))
    self._steps = set(steps) if case.start == OWN else set()

  def patches(self) -> contextlib.ExitStack:
    """Replaces the parts that `train` constructs itself."""
    parts = self

    def manager(self, *, dataset_iterator, keep, period, **_):
      parts.calls.append(['manager', keep, period])
      self.data = dataset_iterator
      self.all_steps = lambda: sorted(parts._steps)
      self.wait_until_finished = lambda: None
      self.close = lambda: parts.calls.append(['close'])

    def save(self, train_state, *_):
      # As Orbax does.
      assert train_state.step not in parts._steps, 'saved twice'
      parts._steps.add(train_state.step)
      if not train_state.is_trained:
        # t5x may have read one batch ahead; see `SaltTrainer.train`.
        parts.calls.append(['save', train_state.step])
        return
      self.data.save(parts._saved_data)
      again = dataset_iterator.TfDatasetIterator(_data(), checkpoint=True)
      again.restore(parts._saved_data)
      parts.calls.append(['save', train_state.step, _position(next(again))])

    def restore(self, path, **_):
      step = int(path.rpartition('_')[2])
      parts.calls.append(['restore', step])
      before = dataset_iterator.TfDatasetIterator(_data(), checkpoint=True)
      for _ in range(step):
        next(before)
      before.save(parts._saved_data)
      self.data.restore(parts._saved_data)
      return _State(step)

    def initializer(self, **_):
      self.global_train_state_shape = _State(0)
      self.train_state_axes = None
      self.from_scratch = lambda rng: _State(0)

    stack = contextlib.ExitStack()
    for cls, replaced in (
      (
        checkpoints.OrbaxCheckpointManagerInterface,
        dict(
          __init__=manager,
          save=save,
          restore=restore,
          **dict.fromkeys(('all_steps', 'wait_until_finished', 'close')),
        ),
      ),
      (
        utils.TrainStateInitializer,
        dict(__init__=initializer, from_scratch=None),
      ),
    ):
      for name, new in replaced.items():
        stack.enter_context(mock.patch.object(cls, name, new, create=True))
    if engine.current() == engine.T5X:
      stack.enter_context(mock.patch.object(utils, 'log_model_info'))
    return stack

  def trainer(self, train_state, **_):
    """Returns what stands for a trainer."""
    return _Trainer(self.calls, train_state, self._case.stop)

  def train(self) -> int:
    """Runs the engine's loop; returns the last step."""
    case = self._case
    data = types.SimpleNamespace(batch_size=1, seed=0)
    save = utils.SaveCheckpointConfig(
      period=case.period,
      checkpoint_steps=find.multiples(case.keep_period, case.total_steps),
      keep=3,
      save_dataset=True,
    )
    restore = utils.RestoreCheckpointConfig(
      path=self.other if case.start == OTHER else []
    )
    step, _ = train.train(
      model=types.SimpleNamespace(
        FEATURE_CONVERTER_CLS=None,
        optimizer_def=None,
        get_initial_variables=None,
      ),
      train_dataset_cfg=data,
      train_eval_dataset_cfg=data if case.evaluates else None,
      infer_eval_dataset_cfg=None,
      checkpoint_cfg=utils.CheckpointConfig(save=save, restore=restore),
      partitioner=partitioning.PjitPartitioner(num_partitions=1),
      trainer_cls=self.trainer,
      model_dir=self._model_dir,
      total_steps=case.total_steps,
      eval_steps=2,
      eval_period=case.eval_period,
      stats_period=case.stats_period,
      random_seed=0,
      summarize_config_fn=lambda *_: None,
      get_dataset_fn=_data,
      train_eval_get_dataset_fn=lambda *_: {'chain': _data().take(2)},
      verify_matching_vocabs_fn=lambda *_: None,
    )
    return step


class _Trainer:
  """Stands for a trainer; may be preempted, as `resilient_trainer` is."""

  stop_training = False

  def __init__(self, calls, train_state, stop):
    self._calls = calls
    self._stop = stop
    self._is_eval_compiled = False
    self.train_state = train_state
    self.train_metrics_manager = mock.MagicMock()

  def __enter__(self):
    return self

  def __exit__(self, *_):
    self.close()

  def close(self):
    pass

  def compile_train(self, batch):
    self._calls.append(['compile', sorted(batch)])

  def compile_eval(self, batches):
    if not self._is_eval_compiled:  # t5x may ask again; its trainer caches.
      self._calls.append(['compile evaluation', sorted(batches)])
    self._is_eval_compiled = True

  def train(self, batches, num_steps, start_step):
    stop = self._stop
    end = start_step + num_steps
    if stop is not None and start_step < stop <= end:
      end = stop
    assert self.train_state.step == start_step
    assert end > start_step
    read = [_position(next(batches)) for _ in range(start_step, end)]
    self._calls.append(['train', start_step, num_steps, read[0], read[-1]])
    self.train_state = _State(end, True)
    if end == stop:
      raise trainer.PreemptionError
    return mock.MagicMock()

  def eval(self, batches):
    read = {k: [_position(x) for x in v] for k, v in batches.items()}
    self._calls.append(['evaluate', self.train_state.step, read])
    return {name: {} for name in batches}


def calls(case: Case) -> list[Call]:
  """Returns what an engine's loop calls, in order, and how it ends."""
  with tempfile.TemporaryDirectory() as folder:
    parts = _Parts(case, folder)
    with parts.patches():
      try:
        parts.calls.append(['end', parts.train()])
      except (ValueError, trainer.PreemptionError) as e:
        parts.calls.append(['end', type(e).__name__])
  return parts.calls


def main():
  assert engine.current() == engine.T5X, 'the real t5x is not importable'
  rows = [
    json.dumps([dataclasses.asdict(case), calls(case)]) for case in cases()
  ]
  FILE.write_text('[\n' + ',\n'.join(rows) + '\n]\n')


if __name__ == '__main__':
  jax.config.update('jax_platforms', 'cpu')
  main()
