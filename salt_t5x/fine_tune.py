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
from typing import Any

from absl import logging
from etils import epath
import flax
import jax

from salt_t5x import models, trainer
from salt_t5x.checkpoints import find, run_record
from salt_t5x.checkpoints import restore as restore_lib
from t5x import partitioning
from t5x import train_state as train_state_lib

PyTree = Any

_PARAMETER = 'fine_tune.FineTuneTrainer.initial_checkpoint (INITIAL_CHECKPOINT)'
_REMEDY = 'set it to the model directory of a pre-training run'


class FineTuneTrainer(trainer.SaltTrainer):
  """Trains by eq. (1) from another run's parameters.

  Only those are taken: the step and the optimizer's state are a new run's. A
  run that has a checkpoint of its own goes on from that, and the other run is
  no longer looked at.
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
    """Constructor.

    Args:
      model: the model, of the architecture that was pre-trained.
      train_state: a new run's, or that of the run's own checkpoint.
      partitioner: shards model and data.
      summary_dir: the model directory, or None to write nothing.
      train_state_axes: the state's partition specs.
      initial_checkpoint: a model directory of salt_t5x or t5x (its newest
        checkpoint is taken), or one `checkpoint_<step>` directory.
      **options: the rest of `trainer.SaltTrainer`'s.

    Raises:
      ValueError: there is no such checkpoint, or it is of another architecture
        or vocabulary; or see `trainer.SaltTrainer`.
    """
    if not initial_checkpoint:
      raise ValueError(f'{_PARAMETER} = {initial_checkpoint!r}: {_REMEDY}.')
    if summary_dir:
      _check_apart(initial_checkpoint, summary_dir)
    if not (summary_dir and find.finished(summary_dir)):
      checkpoint = _find(initial_checkpoint, int(train_state.step), model)
      train_state = _with_params_of(
        checkpoint, train_state, train_state_axes, partitioner
      )
      logging.info('Fine-tuning begins with the parameters of %s.', checkpoint)
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
      f'MODEL_DIR = {model_dir!r} holds the run that {_PARAMETER} names, which '
      'would be gone on with: choose another MODEL_DIR.'
    )


def _find(
  path: str, step: int, model: models.SaltDecoderOnlyModel
) -> epath.Path:
  """Finds the checkpoint, the same one on all hosts."""
  if step:
    raise ValueError(
      f'utils.RestoreCheckpointConfig.path began this run at step {step}. '
      'Leave it empty: fine-tuning begins at step 0, from '
      f'{_PARAMETER} = {path!r}.'
    )
  checkpoint = find.same_on_all_hosts(
    find.checkpoint(path, parameter=_PARAMETER, remedy=_REMEDY)
  )
  if difference := run_record.other_vocabulary(
    os.fspath(checkpoint), model.output_vocabulary
  ):
    raise ValueError(
      f'{_PARAMETER} = {path!r}: {difference}. Set VOCABULARY, and the '
      "task's, to the one it was trained with."
    )
  return checkpoint


def _with_params_of(
  checkpoint: epath.Path,
  train_state: train_state_lib.TrainState,
  train_state_axes: PyTree,
  partitioner: partitioning.BasePartitioner,
) -> train_state_lib.TrainState:
  """The state with a checkpoint's parameters, in the dtypes that it has."""
  state = train_state.state_dict()
  shapes = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), state['target']
  )
  params = restore_lib.parameters(
    checkpoint,
    shapes,
    flax.core.unfreeze(train_state_axes.params),
    partitioner.mesh,
    parameter='MODEL',
  )
  params = jax.tree.map(lambda x, like: x.astype(like.dtype), params, shapes)
  return train_state.restore_state({**state, 'target': params})
