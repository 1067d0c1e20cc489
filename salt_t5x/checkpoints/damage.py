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

"""What is wrong with a checkpoint whose files are missing or cut."""

from collections.abc import Iterable, Iterator, Mapping
import json
import os
import re
from typing import Any

from etils import epath
import orbax.checkpoint as ocp
import tensorflow as tf
import tensorstore

from salt_t5x.checkpoints import find


def describe(checkpoint: epath.Path) -> str | None:
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
  ends = _value_ends(state) if find.is_ocdbt(state) else {}
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
