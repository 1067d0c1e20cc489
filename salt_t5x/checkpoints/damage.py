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

"""Describes the damage to a checkpoint whose files are missing or cut off."""

from collections.abc import Iterator, Mapping
import json
import os
import re
from typing import Any

from etils import epath
import orbax.checkpoint as ocp
import tensorflow as tf
import tensorstore

from salt_t5x.checkpoints import find

_DAMAGE = (
  tf.errors.NotFoundError,
  tf.errors.DataLossError,
  tf.errors.OutOfRangeError,
  FileNotFoundError,
)
# TensorStore raises ValueErrors that begin with a status. These say that the
# storage does not respond.
_OUT_OF_REACH = re.compile(
  r'(UNAVAILABLE|DEADLINE_EXCEEDED|PERMISSION_DENIED|UNAUTHENTICATED|'
  r'RESOURCE_EXHAUSTED|ABORTED|CANCELLED|UNKNOWN|INTERNAL)\b'
)


def describe(checkpoint: epath.Path) -> str | None:
  """Checks that everything a checkpoint's indices name exists.

  Reads indices and file sizes but no parameters, so it takes little time. It
  finds files that are missing or too short, as a crash of the machine or an
  interrupted copy leaves them.

  Args:
    checkpoint: a `checkpoint_<step>` directory.

  Returns:
    A description of the damage; None if there is none.

  Raises:
    Exception: the file system's error if the storage does not respond or
      permission is denied.
  """
  parts = {'state': _state_damage, 'dataset': _data_iterator_damage}
  for name, find_damage in parts.items():
    try:
      if damage := find_damage(checkpoint):
        return damage
    except Exception as e:
      if not _is_damage(e):
        raise
      return f'its {name!r} cannot be read ({e})'
  return None


def _is_damage(error: Exception) -> bool:
  """Whether an error means damaged files, not storage out of reach."""
  if isinstance(error, tf.errors.OpError):
    # The code of a shortened index is UNKNOWN.
    return isinstance(error, _DAMAGE) or 'sstable' in str(error)
  if isinstance(error, OSError):
    return isinstance(error, _DAMAGE)
  return isinstance(
    error, ValueError | KeyError | TypeError | RuntimeError
  ) and not _OUT_OF_REACH.match(str(error))


def _state_damage(checkpoint: epath.Path) -> str | None:
  state = checkpoint / 'state'
  if not state.is_dir():
    return "it has no 'state'"
  # Older t5x wrote a folder for each array instead of one store.
  store = re.compile(r'manifest\.ocdbt|d|ocdbt\.process_.*')
  is_store = any(store.fullmatch(x.name) for x in find.list_folder(state))
  ends = _value_ends(state) if is_store else {}
  for file, end in ends.items():
    if not (state / file).exists():
      return f'state/{file} is missing'
    if (length := (state / file).stat().length) < end:
      return f'state/{file} has {length} of the {end} bytes that are indexed'
  # These raise an error where the names or dtypes of arrays are damaged.
  ocp.PyTreeCheckpointHandler(use_ocdbt=True).metadata(state)
  for file in find.list_folder(state / 'array_metadatas'):
    json.loads(file.read_text())
  return None


def _data_iterator_damage(checkpoint: epath.Path) -> str | None:
  dataset = checkpoint / 'dataset'
  if not dataset.is_dir():
    metadata = checkpoint / '_CHECKPOINT_METADATA'
    items = json.loads(metadata.read_text()) if metadata.exists() else {}
    expected = 'dataset' in (items.get('item_handlers') or {})
    return "it has no 'dataset'" if expected else None
  shares = _data_iterators(checkpoint)
  expected = {(i, count) for _, count in shares.values() for i in range(count)}
  if missing := sorted(expected.difference(shares.values())):
    share, count = missing[0]
    return f'the data iterator of share {share} of {count} is missing'
  for prefix in sorted(shares):
    dtypes = tf.train.load_checkpoint(prefix).get_variable_to_dtype_map()
    tf.raw_ops.RestoreV2(
      prefix=prefix,
      tensor_names=list(dtypes),
      shape_and_slices=[''] * len(dtypes),
      dtypes=list(dtypes.values()),
    )
  return None


def _data_iterators(checkpoint: epath.Path) -> dict[str, tuple[int, int]]:
  """{prefix of a saved data iterator's files: (share, number of shares)}.

  Each share of the input has an index file and a data file; each of several
  processes has a folder.
  """
  dataset = checkpoint / 'dataset'
  found = {}
  paths = find.list_folder(dataset)
  inner = [path for folder in paths for path in find.list_folder(folder)]
  for path in [*paths, *inner]:
    match = re.fullmatch(
      r'(.*?(?:-(\d+)-of-(\d+))?)(?:\.index|\.data-\d+-of-\d+)',
      os.fspath(path),
    )
    if match:
      found[match[1]] = int(match[2] or 0), int(match[3] or 0)
  return found


def has_data_iterator(checkpoint: epath.Path) -> bool:
  """Whether a data iterator was saved; if not, Orbax leaves a folder for it."""
  return bool(_data_iterators(checkpoint))


def data_shares(checkpoint: epath.Path) -> int | None:
  """The number of shares the data were read in; None if none were saved."""
  counts = [count for _, count in _data_iterators(checkpoint).values()]
  return max(counts, default=0) or None


def _value_ends(state: epath.Path) -> dict[str, int]:
  """{file of a store: bytes that its values and tree nodes take up}."""
  path = f'{os.fspath(state)}/'
  # In a URL some characters of paths would mean something.
  spec = path if '://' in path else {'driver': 'file', 'path': path}
  store = tensorstore.KvStore.open(spec).result()
  manifest = tensorstore.ocdbt.dump(store).result()
  ends = {'manifest.ocdbt': 0, '_METADATA': 1}
  for location in _locations(store, manifest['versions'][-1]['root']):
    _, base, file, offset, length = location.split(':')
    end = int(offset) + int(length)
    ends[base + file] = max(end, ends.get(base + file, 0))
  return ends


def _locations(store, node: Mapping[str, Any]) -> Iterator[str]:
  """The locations of a B-tree's nodes and of all values outside them."""
  location = node.get('location')
  if location is None:  # An empty tree.
    return
  yield location
  for entry in tensorstore.ocdbt.dump(store, location).result()['entries']:
    if 'indirect_value' in entry:
      yield entry['indirect_value']
    elif 'inline_value' not in entry:
      yield from _locations(store, entry)
