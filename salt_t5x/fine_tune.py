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


"""Supervised fine-tuning as a t5x trainer (§5.3)."""

import os
import re
from typing import Any

from etils import epath
import flax
import jax

from salt_t5x import files, models, trainer
from salt_t5x.checkpoints import find
from salt_t5x.inference import pretrained
from t5x import partitioning
from t5x import train_state as train_state_lib

PyTree = Any

_NAMES = pretrained.Parameters(
  path='fine_tune.FineTuneTrainer.initial_checkpoint (INITIAL_CHECKPOINT)',
  model='MODEL',
  remedy='set it to the model directory of a pre-training run',
)


class FineTuneTrainer(trainer.SaltTrainer):
  """Trains by eq. (1), starting from the parameters of another run.

  The step and the optimizer state start afresh. A run that has a checkpoint of
  its own resumes from it and does not read the other run, which may be gone;
  `initial_checkpoint.json` tells it from another one at the same path.
  """

  def __init__(
    self,
    *,
    model: models.SaltDecoderOnlyModel,
    train_state: train_state_lib.TrainState,
    partitioner: partitioning.BasePartitioner,
    summary_dir: str | None,
    train_state_axes: PyTree,
    initial_checkpoint: str,
    **options: Any,
  ):
    """Replaces the parameters of a new run by those of the pre-training run.

    Args:
      model: a model with the architecture of the pre-training run.
      train_state: the state of a new run, or of the run's own checkpoint.
      partitioner: shards model and data.
      summary_dir: the model directory, or None to write nothing.
      train_state_axes: partition specs of the state.
      initial_checkpoint: a model directory of salt_t5x or t5x, whose newest
        checkpoint is taken, or one `checkpoint_<step>` directory.
      **options: the other arguments of `trainer.SaltTrainer`.

    Raises:
      ValueError: there is no such checkpoint, or it has another architecture or
        vocabulary; see also `trainer.SaltTrainer`.
    """
    initial = pretrained.Pretrained(
      model, initial_checkpoint, parameters=_NAMES
    )
    initial.check_path()
    if summary_dir:
      _check_apart(initial_checkpoint, summary_dir)
    if summary_dir and find.finished(summary_dir):
      _check_resumed(initial_checkpoint, summary_dir)
    else:
      train_state = _begin(
        initial, train_state, train_state_axes, partitioner, summary_dir
      )
    super().__init__(
      model=model,
      train_state=train_state,
      partitioner=partitioner,
      summary_dir=summary_dir,
      train_state_axes=train_state_axes,
      **options,
    )


def _check_apart(path: str, model_dir: str) -> None:
  path, model_dir = (
    x.rstrip('/') if '://' in x else os.path.abspath(x)
    for x in (path, model_dir)
  )
  if model_dir in (path, os.path.dirname(path)):
    raise ValueError(
      f'MODEL_DIR = {model_dir!r} holds the run that {_NAMES.path} names, and '
      'fine-tuning would continue it: choose another MODEL_DIR.'
    )


def _record_path(model_dir: str) -> str:
  return os.path.join(model_dir, 'initial_checkpoint.json')


def _check_resumed(path: str, model_dir: str) -> None:
  """Refuses to resume a run that began with another checkpoint."""
  record, name = _record_path(model_dir), os.path.basename(path.rstrip('/'))
  if not (epath.Path(path).is_dir() and epath.Path(record).exists()):
    return
  remedy = (
    'Resume the run with the checkpoint it began with, or choose another '
    'MODEL_DIR.'
  )
  step = files.read_count(record, remedy, 'step')
  if named := re.fullmatch(r'checkpoint_(\d+)', name):
    step = int(named[1])
  identity = find.identity_in(path, step)
  if identity is None:
    return  # Pre-training keeps only its newest checkpoints.
  files.claim(
    record,
    {'identity': identity},
    what=f'{_NAMES.path} = {path!r}: MODEL_DIR = {model_dir!r}',
    remedy=remedy,
    write=False,
  )


def _begin(
  initial: pretrained.Pretrained,
  train_state: train_state_lib.TrainState,
  train_state_axes: PyTree,
  partitioner: partitioning.BasePartitioner,
  model_dir: str | None,
) -> train_state_lib.TrainState:
  """Replaces the parameters of a new state; their dtypes stay."""
  if train_state.step:
    raise ValueError(
      f'utils.RestoreCheckpointConfig.path began this run at step '
      f'{int(train_state.step)}. Leave it empty: fine-tuning begins at step 0, '
      f'from {_NAMES.path} = {initial.path!r}.'
    )
  checkpoint = initial.find()
  initial.check_record(initial.model.output_vocabulary)
  state = train_state.state_dict()
  params = initial.restore(
    checkpoint,
    jax.eval_shape(lambda x: x, state['target']),
    flax.core.unfreeze(train_state_axes.params),
    partitioner.mesh,
  )
  params = jax.tree.map(
    lambda x, like: x.astype(like.dtype), params, state['target']
  )
  if model_dir and jax.process_index() == 0:
    record = {
      'checkpoint': os.fspath(checkpoint),
      'identity': find.identity(checkpoint),
      'step': find.step_of(checkpoint),
    }
    files.write_json(_record_path(model_dir), record)
  return train_state.restore_state({**state, 'target': params})
