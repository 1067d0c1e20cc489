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

"""Finds t5x checkpoints and tells them apart, without writing anything.

t5x's checkpoint manager removes temporary directories, and so the unfinished
save of a run that is still training.
"""

import hashlib
import os
import re

from etils import epath
from jax.experimental import multihost_utils
import numpy as np
import orbax.checkpoint as ocp
import tensorflow as tf

from salt_t5x import files


def multiples(period: int | None, total_steps: int) -> list[int]:
  """Lists steps at which a run saves, whatever t5x's periods.

  t5x counts those from the step that a process begins with, so a run that was
  preempted saves at other steps afterwards. The list ends with `total_steps`,
  where every run saves: past the last step of a list, t5x would save that step
  again and fail.

  Args:
    period: steps between two saves; None for no saves.
    total_steps: the number of steps of the run.
  """
  return [*range(period, total_steps, period), total_steps] if period else []


def finished(model_dir: str) -> dict[int, epath.Path]:
  """Returns {step: directory} of the checkpoints that are complete."""
  names = ocp.path.step.standard_name_format(step_prefix='checkpoint')
  found = names.find_all(epath.Path(model_dir))
  return {m.step: epath.Path(m.path) for m in found}


def list_folder(folder: epath.Path) -> list[epath.Path]:
  """Lists a folder, nothing if there is none.

  Unlike `glob`, to which `[` in the folder's own name would mean something.
  """
  return list(folder.iterdir()) if folder.is_dir() else []


def unfinished(model_dir: str) -> list[epath.Path]:
  """Lists the directories of saves that were interrupted."""
  done = finished(model_dir).values()
  return sorted(
    path
    for path in list_folder(epath.Path(model_dir))
    if path.name.startswith('checkpoint_')
    and path.is_dir()
    and path not in done
  )


def checkpoint(
  path: str,
  step: int | None = None,
  *,
  parameter: str,
  step_parameter: str = 'step',
  remedy: str = 'name the model directory of a training run',
) -> epath.Path:
  """Finds a finished checkpoint.

  Args:
    path: a model directory, or one `checkpoint_<step>` directory.
    step: the step to take from a model directory; None for the newest.
    parameter: the gin parameter of the path, for messages.
    step_parameter: the gin parameter of the step, for messages.
    remedy: an imperative clause for messages.

  Returns:
    The `checkpoint_<step>` directory.

  Raises:
    ValueError: there is no such checkpoint; the message lists those that exist.
      Or it holds the state of another step than its name says.
  """
  # Orbax wants local paths absolute.
  directory = files.absolute(path)
  if not tf.io.gfile.isdir(directory):
    raise ValueError(
      f'{parameter} = {path!r}: {files.why_missing(directory)}; {remedy}.'
    )
  directory = epath.Path(directory)
  named = re.fullmatch(r'checkpoint_(\d+)', directory.name)
  if named:
    if step is not None and step != int(named[1]):
      raise ValueError(
        f'{step_parameter} = {step}, but {parameter} = {path!r} names step '
        f'{named[1]}; leave one of them out.'
      )
    step, directory = int(named[1]), directory.parent
  found = finished(os.fspath(directory))
  if not found:
    raise ValueError(
      f'{parameter} = {path!r} holds no finished checkpoint_<step>; {remedy}.'
    )
  if step is None:
    step = max(found)
  if step not in found:
    raise ValueError(
      f'{step_parameter} = {step}: {directory} has no such checkpoint, only '
      f'the steps {sorted(found)}. Note that t5x keeps the last '
      '`SaveCheckpointConfig.keep` checkpoints only.'
    )
  checkpoint = found[step]
  if not (checkpoint / 'state').is_dir():
    raise ValueError(
      f'{parameter}: {checkpoint} is not an Orbax checkpoint of t5x (it has no '
      "'state'). Convert it with t5x first."
    )
  saved = _saved_step(checkpoint)
  if saved not in (None, step):
    raise ValueError(
      f'{parameter}: {checkpoint} holds the state of step {saved}. Rename it '
      f'to checkpoint_{saved}, or restore the checkpoint of step {step}.'
    )
  return checkpoint


def _saved_step(checkpoint: epath.Path) -> int | None:
  """Reads the step of the saved state; None if it cannot be read."""
  missing = -1  # Partial restores leave the values of what is not there.
  args = ocp.args.PyTreeRestore(
    item={'state': {'step': missing}},
    restore_args={'state': {'step': ocp.RestoreArgs(restore_type=np.ndarray)}},
    partial_restore=True,
  )
  try:
    # A handler of one host: a `Checkpointer` would wait for the others.
    handler = ocp.PyTreeCheckpointHandler(use_ocdbt=True)
    restored = handler.restore(checkpoint / 'state', args=args)
    step = int(restored['state']['step'])
    return None if step == missing else step
  except Exception:
    # `restore` names the damage; a state without a step serves, too.
    return None


def identity(checkpoint: epath.Path) -> str:
  """Returns a digest that a copy shares and any other save does not.

  The store's manifest holds the time of the save and random names. Without one
  (older t5x), saves of one model and step have the same digest.
  """
  manifest = checkpoint / 'state/manifest.ocdbt'
  file = manifest if manifest.exists() else checkpoint / 'state/_METADATA'
  content = file.read_bytes() if file.exists() else b''
  return hashlib.sha256(content).hexdigest()[:16]


def model_dir_of(path: str) -> str:
  """Returns the absolute model directory of a path to it or a checkpoint."""
  path = path.rstrip('/') if '://' in path else os.path.realpath(path)
  folder, name = os.path.split(path)
  return folder if re.fullmatch(r'checkpoint_\d+', name) else path


def identity_in(model_dir: str, step: int) -> str | None:
  """Returns the identity of a checkpoint, or None if it is not there.

  Args:
    model_dir: a model directory, or one of its checkpoints.
    step: the checkpoint's.
  """
  name = f'checkpoint_{step}'
  checkpoint = epath.Path(model_dir_of(model_dir)) / name
  return identity(checkpoint) if checkpoint.is_dir() else None


def are_copies(a: epath.Path, b: epath.Path) -> bool:
  """Whether two checkpoints are one, or copies of one; False if unknown."""
  if a.resolve() == b.resolve():
    return True
  is_told = (a / 'state/manifest.ocdbt').exists()
  return is_told and identity(a) == identity(b)


def step_of(checkpoint: epath.Path) -> int:
  """Returns the step in the name of a `checkpoint_<step>` directory."""
  return int(checkpoint.name.removeprefix('checkpoint_'))


def same_on_all_hosts(checkpoint: epath.Path) -> epath.Path:
  """Returns process 0's checkpoint; hosts may see different newest ones."""
  step = multihost_utils.broadcast_one_to_all(np.int32(step_of(checkpoint)))
  return checkpoint.parent / f'checkpoint_{int(step)}'
