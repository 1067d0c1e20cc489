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

"""A run's directory, before the run looks for its last checkpoint in it.

One process at a time writes to it, and what a crash left half-written does not
stop the run from going on with the checkpoint before.
"""

import datetime
import errno
import fcntl
import os
import socket

from absl import logging
from etils import epath
import jax
from jax.experimental import multihost_utils
import numpy as np
import tensorflow as tf

from salt_t5x.checkpoints import damage as damage_lib
from salt_t5x.checkpoints import find

_LOCK = 'in_use'
# {path: open file}; a lock ends with its file, and so with the process.
_locked = {}


class _RefusedError(ValueError):
  """With a message that says all."""


def prepare(model_dir: str) -> None:
  """Takes the directory for this run, and sets damaged checkpoints aside.

  Process 0 does so; with several, all wait for it.

  Args:
    model_dir: of a run; made if it is not there.

  Raises:
    ValueError: another process trains there, no checkpoint in it is whole, or
      it cannot be read or written.
  """
  error = None
  if jax.process_index() == 0:
    try:
      _prepare(model_dir)
    except _RefusedError as e:
      error = e
    except Exception as e:  # The other processes must hear of any.
      error = ValueError(f'MODEL_DIR = {model_dir!r} cannot be used: {e}')
      error.__cause__ = e
  if jax.process_count() > 1:
    failed = multihost_utils.broadcast_one_to_all(np.int32(error is not None))
    if failed and error is None:
      error = ValueError('Process 0 could not take MODEL_DIR; see its message.')
  if error is not None:
    raise error


def _prepare(model_dir: str) -> None:
  tf.io.gfile.makedirs(model_dir)
  _lock(model_dir)
  for path in find.unfinished(model_dir):
    logging.warning(
      '%s was never finished (its process ended while it was saving): it is '
      'skipped.',
      path,
    )
  damaged = {}
  for step, path in sorted(find.finished(model_dir).items())[::-1]:
    damage = damage_lib.describe(path)
    if damage is None:
      break
    damaged[step] = path, damage
  else:
    if max(damaged, default=0) > 0:
      listed = '\n  '.join(f'{path}: {why}' for path, why in damaged.values())
      raise _RefusedError(
        f'MODEL_DIR = {model_dir!r}: none of its checkpoints is whole.\n  '
        f'{listed}\nRestore one of them, or begin again in another MODEL_DIR.'
      )
  for step, (path, damage) in damaged.items():
    aside = _free_name(epath.Path(model_dir) / f'damaged_checkpoint_{step}')
    path.rename(aside)
    logging.error(
      '%s is damaged: %s. It is skipped, and was renamed to %s.',
      path,
      damage,
      aside.name,
    )


def _free_name(path: epath.Path) -> epath.Path:
  names = [path, *(path.with_name(f'{path.name}.{i}') for i in range(1, 1000))]
  return next(p for p in names if not p.exists())


def _lock(model_dir: str) -> None:
  """Locks a local directory until `release` or the end of the process.

  Raises:
    ValueError: another process has it.
  """
  if '://' in model_dir:
    return  # Object stores have no locks.
  path = os.path.join(os.path.realpath(model_dir), _LOCK)
  if path in _locked:
    return
  # The lock lasts as long as the file is open.
  file = open(path, 'a+', encoding='utf-8')  # noqa: SIM115
  try:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except OSError as e:
    if e.errno not in (errno.EAGAIN, errno.EACCES):
      # A file system without locks.
      logging.warning('%s cannot be locked (%s).', model_dir, e)
      file.close()
      return
    file.seek(0)
    owner = file.read().strip()
    file.close()
    raise _RefusedError(
      f'MODEL_DIR = {model_dir!r} is in use by another process '
      f'({owner or "unknown"}), which would overwrite its checkpoints: stop '
      'that one first, or choose another MODEL_DIR.'
    ) from e
  file.truncate(0)
  now = datetime.datetime.now().isoformat(timespec='seconds')
  file.write(f'process {os.getpid()} on {socket.gethostname()} since {now}\n')
  file.flush()
  _locked[path] = file


def release(model_dir: str | None) -> None:
  """Lets others have a directory that `prepare` took."""
  if model_dir is not None and '://' not in model_dir:
    file = _locked.pop(os.path.join(os.path.realpath(model_dir), _LOCK), None)
    if file is not None:
      file.close()
