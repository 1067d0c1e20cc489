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

"""The directory of a run: locked, with damaged checkpoints set aside.

Both happen before the run looks for the checkpoint to resume from.
"""

import datetime
import fcntl
import itertools
import os
import socket

from absl import logging
import jax
from jax.experimental import multihost_utils
import numpy as np
import tensorflow as tf

from salt_t5x.checkpoints import damage as damage_lib
from salt_t5x.checkpoints import find

# {path of a lock file: the open file}; the lock ends when the file is closed.
_locked = {}


def prepare(model_dir: str) -> None:
  """Locks a run's directory and renames damaged checkpoints in it.

  Process 0 does the work; the others wait for it.

  Args:
    model_dir: the directory, which is created if missing.

  Raises:
    ValueError: another process trains there, all checkpoints are damaged, or
      the directory cannot be read or written.
  """
  error = None
  if jax.process_index() == 0:
    try:
      tf.io.gfile.makedirs(model_dir)
      if '://' not in model_dir:  # Object stores have no locks.
        _lock(model_dir)
      _rename_damaged_checkpoints(model_dir)
    except Exception as e:  # All processes must stop.
      error = ValueError(f'MODEL_DIR = {model_dir!r} cannot be used: {e}')
      error.__cause__ = e
  failed = multihost_utils.broadcast_one_to_all(np.int32(error is not None))
  if failed:
    raise error or ValueError(
      'Process 0 cannot use MODEL_DIR; see its message.'
    )


def _rename_damaged_checkpoints(model_dir: str) -> None:
  for path in find.unfinished(model_dir):
    logging.warning(
      '%s was never finished (its process ended while saving it); skipping it.',
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
      raise ValueError(
        f'all of its checkpoints are damaged.\n  {listed}\nRestore one of '
        'them, or start again in another MODEL_DIR.'
      )
  for step, (path, damage) in damaged.items():
    name = f'damaged_checkpoint_{step}'
    names = itertools.chain([name], (f'{name}.{i}' for i in itertools.count(1)))
    aside = next(x for x in map(path.with_name, names) if not x.exists())
    path.rename(aside)
    logging.error(
      '%s is damaged: %s. Renamed it to %s.', path, damage, aside.name
    )


def _lock_path(model_dir: str) -> str:
  return os.path.join(os.path.realpath(model_dir), 'in_use')


def _lock(model_dir: str) -> None:
  """Locks a local directory until `release` or the end of the process."""
  path = _lock_path(model_dir)
  if path in _locked:
    return
  file = open(path, 'a+', encoding='utf-8')  # noqa: SIM115
  try:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except BlockingIOError as e:
    with file:
      file.seek(0)
      owner = file.read().strip() or 'unknown'
    raise ValueError(
      f'it is in use by another process ({owner}), which would overwrite its '
      'checkpoints. Stop that process first, or choose another MODEL_DIR.'
    ) from e
  except OSError as e:  # A file system without locks.
    file.close()
    logging.warning('%s cannot be locked (%s).', model_dir, e)
    return
  file.truncate(0)
  now = datetime.datetime.now().isoformat(timespec='seconds')
  file.write(f'process {os.getpid()} on {socket.gethostname()} since {now}\n')
  file.flush()
  _locked[path] = file


def release(model_dir: str | None) -> None:
  """Unlocks a directory that `prepare` locked; None and others are ignored."""
  if model_dir is not None and _lock_path(model_dir) in _locked:
    _locked.pop(_lock_path(model_dir)).close()
