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

"""Checkpoints in t5x's Orbax layout.

`<model_dir>/checkpoint_<step>/` holds `state` (parameters under `target`, step
and optimizer under `state`) and `dataset` (the data iterator), so that either
engine resumes what the other wrote.
"""

import dataclasses
import os
from typing import Any

from clu.data import dataset_iterator
from etils import epath
import gin
import jax
import orbax.checkpoint as ocp

from t5x import _subset, partitioning, utils
from t5x import train_state as train_state_lib

__getattr__ = _subset.missing(__name__)

# t5x names the file by the host's input shard; here there is one host.
_DATASET_FILE = 'train_ds-000-of-001'


def find_restore_path(
  model_dir: str, restore: utils.RestoreCheckpointConfig | None
) -> str | None:
  """Returns the path of the run's newest checkpoint, or else `restore`'s."""
  places = [utils.RestoreCheckpointConfig(path=model_dir)]
  if restore is not None and restore.path:
    places.append(restore)
  for place in places:
    if place.mode == 'specific':
      return place.path
    if place.mode != 'latest' or not isinstance(place.path, str):
      _subset.refuse(f'restoring {place}')
    directory = epath.Path(place.path)
    if not directory.is_dir():
      raise ValueError(
        f'utils.RestoreCheckpointConfig.path = {place.path!r} is no directory: '
        'name the model directory of a finished run.'
      )
    names = ocp.path.step.standard_name_format(step_prefix='checkpoint')
    if found := {m.step: m.path for m in names.find_all(directory)}:
      return os.fspath(found[max(found)])
  return None


class _DatasetHandler(ocp.CheckpointHandler):
  """Saves a data iterator as one file of a checkpoint."""

  def save(self, directory: epath.Path, args: '_DatasetArgs'):
    if args.item is not None:
      args.item.save(os.fspath(directory / _DATASET_FILE))

  def restore(self, directory: epath.Path, args: '_DatasetArgs'):
    args.item.restore(os.fspath(directory / _DATASET_FILE))
    return args.item


@ocp.args.register_with_handler(
  _DatasetHandler, for_save=True, for_restore=True
)
@dataclasses.dataclass
class _DatasetArgs(ocp.args.CheckpointArgs):
  item: dataset_iterator.DatasetIterator | None = None


# `train` calls the class, so gin must bind it, and not only the copy that
# dynamic registration makes.
@gin.configurable
@_subset.subset_of_t5x
class OrbaxCheckpointManagerInterface:
  """Saves and restores train states, and the data iterator with them."""

  def __init__(
    self,
    directory: str,
    train_state: train_state_lib.TrainState,
    partitioner: partitioning.BasePartitioner,
    dataset_iterator: dataset_iterator.DatasetIterator | None = None,
    keep: int | None = None,
    period: int | None = 1,
    force_keep_period: int | None = None,
  ):
    """Constructor.

    Args:
      directory: the run's model directory.
      train_state: the shapes of a train state.
      partitioner: shards the restored arrays.
      dataset_iterator: the data iterator to save and restore, or None.
      keep: number of newest checkpoints to keep; None for all.
      period: steps between checkpoints.
      force_keep_period: checkpoints at its multiples are always kept.
    """
    self._train_state = train_state
    self._partitioner = partitioner
    self._dataset_iterator = dataset_iterator
    self._manager = ocp.CheckpointManager(
      directory=os.path.abspath(directory),
      options=ocp.CheckpointManagerOptions(
        max_to_keep=keep,
        save_interval_steps=period or 1,
        keep_period=force_keep_period,
        cleanup_tmp_directories=True,
        step_prefix='checkpoint',
      ),
      item_handlers={
        'state': ocp.PyTreeCheckpointHandler(use_ocdbt=True),
        'dataset': _DatasetHandler(),
      },
    )
    self.all_steps = self._manager.all_steps
    self.wait_until_finished = self._manager.wait_until_finished
    self.close = self._manager.close

  def save(self, train_state: train_state_lib.TrainState) -> bool:
    """Saves a checkpoint of the state's step, in the background."""
    return self._manager.save(
      int(train_state.step),
      args=ocp.args.Composite(
        state=ocp.args.PyTreeSave(train_state.state_dict()),
        dataset=_DatasetArgs(self._dataset_iterator),
      ),
      force=True,
    )

  def restore(self, path: str) -> train_state_lib.TrainState:
    """Restores the state (and the data iterator) of `.../checkpoint_<step>`."""
    directory, name = os.path.split(os.path.abspath(path))
    shapes = self._train_state.state_dict()
    specs = self._partitioner.get_mesh_axes(self._train_state).state_dict()
    restore_args = jax.tree.map(
      lambda shape, sharding: ocp.ArrayRestoreArgs(
        sharding=sharding, global_shape=shape.shape, strict=True
      ),
      shapes,
      self._partitioner.shardings(specs),
    )
    args: dict[str, Any] = {
      'state': ocp.args.PyTreeRestore(item=shapes, restore_args=restore_args)
    }
    if self._dataset_iterator is not None:
      args['dataset'] = _DatasetArgs(self._dataset_iterator)
    restored = self._manager.restore(
      int(name.removeprefix('checkpoint_')),
      args=ocp.args.Composite(**args),
      directory=epath.Path(directory),
    )
    return self._train_state.restore_state(restored['state'])
