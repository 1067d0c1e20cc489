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

"""t5x checkpoints, read without t5x's checkpoint manager.

That one removes temporary directories, among them the save in progress of a run
that is still training. Here directories are only read.
"""

from collections.abc import Iterable, Iterator, Mapping
import hashlib
import json
import os
import re
from typing import Any

from etils import epath
from flax import traverse_util
import jax
from jax.experimental import multihost_utils
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import tensorflow as tf
import tensorstore

PyTree = Any


def multiples(period: int | None, total_steps: int) -> list[int]:
  """The steps of a run at which it saves whatever t5x's periods.

  t5x counts those from the step that a process begins with, so a run that was
  preempted saves at other steps from then on.

  Args:
    period: steps from one to the next; None for none.
    total_steps: of the run.
  """
  return list(range(period, total_steps + 1, period)) if period else []


def finished(model_dir: str) -> dict[int, epath.Path]:
  """Lists {step: directory}, leaving out what is still being written."""
  names = ocp.path.step.standard_name_format(step_prefix='checkpoint')
  found = names.find_all(epath.Path(model_dir))
  return {m.step: epath.Path(m.path) for m in found}


def find(
  path: str,
  step: int | None = None,
  *,
  parameter: str,
  step_parameter: str = 'step',
  remedy: str = 'name the model directory of a training run',
) -> epath.Path:
  """Finds a finished checkpoint; reads the directory and changes nothing.

  A checkpoint that is still being written is not seen.

  Args:
    path: a model directory, or one `checkpoint_<step>` directory.
    step: the step to take from a model directory; None for the newest.
    parameter: the gin parameter of the path, for messages.
    step_parameter: the gin parameter of the step, for messages.
    remedy: what to do, for messages.

  Returns:
    The `checkpoint_<step>` directory.

  Raises:
    ValueError: there is no such checkpoint; the message says what is there.
  """
  # Orbax wants local paths absolute; URLs are.
  directory = epath.Path(path if '://' in path else os.path.abspath(path))
  if not directory.is_dir():
    raise ValueError(
      f'{parameter} = {path!r}: there is no such directory; {remedy}.'
    )
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
  return checkpoint


def unfinished(model_dir: str) -> list[epath.Path]:
  """Lists the directories of saves that did not come to their end."""
  directory = epath.Path(model_dir)
  done = finished(model_dir).values()
  return sorted(
    path
    for path in directory.glob('checkpoint_*')
    if path.is_dir() and path not in done
  )


def damage(checkpoint: epath.Path) -> str | None:
  """Looks whether all that a checkpoint's index names is there.

  Sizes are compared and indices are read; of the parameters' values nothing is,
  so this takes no time to speak of. It finds files that are missing or too
  short, as a crash of the machine or a copy that broke off leaves them.

  Args:
    checkpoint: a `checkpoint_<step>` directory.

  Returns:
    What is wrong; None if nothing was found.

  Raises:
    Exception: it could not be looked at (the storage does not answer, no
      permission); whatever the file system raises.
  """
  for look in (_damage_to_state, _damage_to_data_iterators):
    try:
      if found := look(checkpoint):
        return found
    except Exception as e:
      if not _tells_of_damage(e):
        raise
      return f'what it holds cannot be read ({e})'
  return None


def _tells_of_damage(error: Exception) -> bool:
  """Whether files are missing or cut, and not merely out of reach."""
  if isinstance(error, tf.errors.OpError):
    kinds = tf.errors
    return (
      isinstance(
        error, kinds.NotFoundError | kinds.DataLossError | kinds.OutOfRangeError
      )
      # An index that is cut off; its code is UNKNOWN.
      or 'sstable' in str(error)
    )
  if isinstance(error, OSError):
    return isinstance(error, FileNotFoundError)
  # TensorStore's errors are ValueErrors that begin with a status.
  out_of_reach = (
    r'(UNAVAILABLE|DEADLINE_EXCEEDED|PERMISSION_DENIED|UNAUTHENTICATED|'
    r'RESOURCE_EXHAUSTED|ABORTED|CANCELLED|UNKNOWN|INTERNAL)\b'
  )
  return isinstance(
    error, ValueError | KeyError | TypeError | RuntimeError
  ) and not re.match(out_of_reach, str(error))


def _damage_to_state(checkpoint: epath.Path) -> str | None:
  state = checkpoint / 'state'
  if not state.is_dir():
    return "it has no 'state'"
  ends = _value_ends(state) if _is_ocdbt(state) else {}
  for file, end in ends.items():
    if not (state / file).exists():
      return f'state/{file} is missing'
    if (length := (state / file).stat().length) < end:
      return f'state/{file} has {length} bytes, of which {end} are indexed'
  # Not damaged, it names every array and its dtype.
  ocp.PyTreeCheckpointHandler(use_ocdbt=True).metadata(state)
  for file in (state / 'array_metadatas').glob('*'):
    json.loads(file.read_text())
  return None


def _damage_to_data_iterators(checkpoint: epath.Path) -> str | None:
  dataset = checkpoint / 'dataset'
  items = {}
  if (checkpoint / '_CHECKPOINT_METADATA').exists():
    text = (checkpoint / '_CHECKPOINT_METADATA').read_text()
    items = json.loads(text).get('item_handlers') or {}
  if not dataset.is_dir():
    return "it has no 'dataset'" if 'dataset' in items else None
  iterators = _data_iterators(checkpoint)
  found = _shares(iterators)
  for _, count in found:
    for share in range(count):
      if (share, count) not in found:
        return f'the data iterator of share {share} of {count} is missing'
  for prefix in sorted(iterators):
    name = prefix.removeprefix(f'{os.fspath(dataset)}/')
    try:
      dtypes = tf.train.load_checkpoint(prefix).get_variable_to_dtype_map()
      tf.raw_ops.RestoreV2(
        prefix=prefix,
        tensor_names=list(dtypes),
        shape_and_slices=[''] * len(dtypes),
        dtypes=list(dtypes.values()),
      )
    except Exception as e:
      if not _tells_of_damage(e):
        raise
      return f'dataset/{name} cannot be read ({e})'
  return None


def _data_iterators(checkpoint: epath.Path) -> set[str]:
  """The prefixes of the files of saved data iterators.

  One for each share of the input, in a folder for each of several processes. Of
  its two files, one names the other.
  """
  return {
    re.sub(r'\.index$|\.data-\d+-of-\d+$', '', os.fspath(path))
    for pattern in ('*.index', '*.data-*', '*/*.index', '*/*.data-*')
    for path in (checkpoint / 'dataset').glob(pattern)
  }


def _shares(iterators: Iterable[str]) -> set[tuple[int, int]]:
  """The (share, number of shares) in the names of data iterators."""
  shares = [re.search(r'-(\d+)-of-(\d+)$', prefix) for prefix in iterators]
  return {(int(m[1]), int(m[2])) for m in shares if m}


def data_shares(checkpoint: epath.Path) -> int | None:
  """Among how many processes the data were shared; None if none were saved."""
  return max((n for _, n in _shares(_data_iterators(checkpoint))), default=None)


def _is_ocdbt(state: epath.Path) -> bool:
  """Whether all arrays lie in one store; older t5x wrote a folder for each."""
  names = ('manifest.ocdbt', 'd', 'ocdbt.process_*')
  return any(any(state.glob(name)) for name in names)


def _value_ends(state: epath.Path) -> dict[str, int]:
  """{file: bytes that values and tree nodes take up in it} of a store."""
  path = os.fspath(state)
  url = path if '://' in path else f'file://{path}'
  store = tensorstore.KvStore.open(f'{url}/').result()
  manifest = tensorstore.ocdbt.dump(store).result()
  ends = {'manifest.ocdbt': 0, '_METADATA': 1}
  for location in _locations(store, manifest['versions'][-1]['root']):
    _, base, file, offset, length = location.split(':')
    end = int(offset) + int(length)
    ends[base + file] = max(end, ends.get(base + file, 0))
  return ends


def _locations(store, node: Mapping[str, Any]) -> Iterator[str]:
  """The places of a B-tree's nodes and of all values that lie outside it."""
  location = node.get('location')
  if location is None:  # An empty tree.
    return
  yield location
  for entry in tensorstore.ocdbt.dump(store, location).result()['entries']:
    if 'indirect_value' in entry:
      yield entry['indirect_value']
    elif 'inline_value' not in entry:
      yield from _locations(store, entry)


def identity(checkpoint: epath.Path) -> str:
  """Tells one save from another, and finds a copy of it to be the same.

  The store's manifest holds the time of the save and random names. Without one
  (older t5x), saves of one model and step are not told apart.
  """
  state = checkpoint / 'state'
  file = 'manifest.ocdbt' if _is_ocdbt(state) else '_METADATA'
  content = (state / file).read_bytes() if (state / file).exists() else b''
  return hashlib.sha256(content).hexdigest()[:16]


def step_of(checkpoint: epath.Path) -> int:
  """The step in the name of a `checkpoint_<step>` directory."""
  return int(checkpoint.name.removeprefix('checkpoint_'))


def same_on_all_hosts(checkpoint: epath.Path) -> epath.Path:
  """Process 0's, where hosts may have found different newest checkpoints."""
  if jax.process_count() == 1:
    return checkpoint
  step = multihost_utils.broadcast_one_to_all(np.int32(step_of(checkpoint)))
  return checkpoint.parent / f'checkpoint_{int(step)}'


def check_architecture(
  checkpoint: epath.Path, shapes: PyTree, parameter: str
) -> None:
  """Compares a checkpoint's parameters with a model's; reads no values.

  Args:
    checkpoint: a `checkpoint_<step>` directory.
    shapes: the model's parameters, as `jax.ShapeDtypeStruct`s.
    parameter: the gin parameter of the model, for messages.

  Raises:
    ValueError: names or shapes differ, of which the message lists the first
      ones; or the checkpoint is damaged.
  """
  handler = ocp.PyTreeCheckpointHandler(use_ocdbt=True)
  try:
    metadata = handler.metadata(checkpoint / 'state').tree
  except (OSError, ValueError, KeyError, TypeError) as e:
    raise ValueError(
      f'{parameter}: {checkpoint} is damaged: {damage(checkpoint) or e}. '
      'Restore it, or name another checkpoint.'
    ) from e
  flatten = lambda tree: traverse_util.flatten_dict(tree, sep='/')
  found = {k: tuple(v.shape) for k, v in flatten(metadata['target']).items()}
  expected = {k: tuple(v.shape) for k, v in flatten(shapes).items()}
  if differences := _differences(expected, found):
    listed = '\n  '.join(differences[:4])
    raise ValueError(
      f'{parameter} is not the architecture of {checkpoint}; '
      f'{len(differences)} parameters differ:\n  {listed}\nInclude the '
      'gin file of the size (and VOCAB_SIZE) it was trained with.'
    )


def restore(
  checkpoint: epath.Path,
  shapes: PyTree,
  axes: PyTree,
  mesh: jax.sharding.Mesh,
  *,
  dtype: str | None = None,
  parameter: str,
) -> PyTree:
  """Reads the parameters, and only them, onto a mesh.

  Args:
    checkpoint: a `checkpoint_<step>` directory.
    shapes: the model's parameters, as `jax.ShapeDtypeStruct`s.
    axes: their partition specs.
    mesh: the mesh.
    dtype: of the parameters; None keeps them as they were saved.
    parameter: the gin parameter of the model, for messages.

  Returns:
    The parameters.

  Raises:
    ValueError: the checkpoint is of another architecture, or damaged.
  """
  check_architecture(checkpoint, shapes, parameter)
  restore_args = jax.tree.map(
    lambda _, spec: ocp.ArrayRestoreArgs(
      mesh=mesh,
      mesh_axes=spec if spec is not None else jax.sharding.PartitionSpec(),
      dtype=None if dtype is None else jnp.dtype(dtype),
    ),
    shapes,
    axes,
  )
  handler = ocp.PyTreeCheckpointHandler(use_ocdbt=True)
  with ocp.Checkpointer(handler) as checkpointer:
    try:
      return checkpointer.restore(
        checkpoint / 'state',
        args=ocp.args.PyTreeRestore(
          item={'target': shapes},
          restore_args={'target': restore_args},
          partial_restore=True,
        ),
      )['target']
    except Exception as e:
      if (found := damage(checkpoint)) is None:
        raise
      raise ValueError(
        f'{checkpoint} is damaged: {found}. Restore it, or name another one.'
      ) from e


def _differences(expected: Mapping[str, tuple], found: Mapping[str, tuple]):
  """Lists how two {parameter: shape} mappings differ, one line each."""
  lines = []
  for name in sorted({*expected, *found}):
    if name not in found:
      lines.append(f'{name} {expected[name]} is not in the checkpoint')
    elif name not in expected:
      lines.append(f'{name} {found[name]} is not in the model')
    elif expected[name] != found[name]:
      lines.append(
        f'{name} is {found[name]} in the checkpoint, {expected[name]} in the '
        'model'
      )
  return lines
