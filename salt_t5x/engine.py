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

"""The choice between the real t5x and the embedded engine.

The real t5x is used, unmodified, wherever it is installed. No package registry
holds it, so a small embedded engine (`salt_t5x/embedded/t5x`) replaces it
elsewhere: `activate` appends its folder to `sys.path`, and `import t5x` finds
it. All other modules of this package write `import t5x` and do not depend on
the engine.
"""

import functools
import importlib
import importlib.util
import os
import pathlib
import re
import sys

import gin

_PACKAGE_DIR = pathlib.Path(__file__).resolve().parent
_EMBEDDED_DIR = _PACKAGE_DIR / 'embedded'
_GIN_PREFIX = 'salt_t5x/gin/'

ENGINE_VARIABLE = 'SALT_T5X_ENGINE'
T5X = 't5x'
EMBEDDED = 'embedded'


def _real_t5x_location():
  """Returns the folder of an installed t5x, or None.

  A folder named t5x without `__init__.py` (a namespace package, which has no
  origin) is not t5x.
  """
  spec = importlib.util.find_spec('t5x')
  if spec is None or spec.origin is None:
    # find_spec of a top-level name imports nothing, so that `import t5x` can
    # still find the embedded engine.
    return None
  folder = pathlib.Path(spec.origin).resolve().parent
  if folder.parent == _EMBEDDED_DIR or not (folder / 'trainer.py').exists():
    return None
  return folder


def _import_real_t5x(folder):
  """Imports the real t5x; the error names the missing piece."""
  try:
    importlib.import_module('t5x.trainer')
  except (ImportError, AttributeError) as e:
    # A version that does not fit raises an AttributeError.
    raise ImportError(
      f'A real t5x is installed at {folder}, but it cannot be imported: '
      f'{e.name or "a name"} is missing or broken ({e}). Install what t5x '
      "needs (pip install 'salt_t5x[t5x]', then airio and jestimator at the "
      'commits named in docs/engines.md), or choose the embedded engine with '
      f'{ENGINE_VARIABLE}={EMBEDDED}.',
      name=e.name,
    ) from e


def activate() -> str:
  """Chooses the engine for this process and makes it importable as `t5x`.

  Returns:
    't5x' or 'embedded'.

  Raises:
    ValueError: `SALT_T5X_ENGINE` holds neither of the two names.
    ImportError: the real t5x was asked for and is absent, or it is there but
      cannot be imported. There is no fallback in these cases.
  """
  choice = os.environ.get(ENGINE_VARIABLE, '')
  if choice not in ('', T5X, EMBEDDED):
    raise ValueError(
      f'{ENGINE_VARIABLE}={choice!r}: the engine is {T5X!r} or '
      f'{EMBEDDED!r}; leave the variable unset to take t5x where it is '
      'installed.'
    )
  if sys.modules.get('t5x') is not None and current() != choice != '':
    raise ImportError(
      f'{ENGINE_VARIABLE}={choice}, but this process has already imported '
      f'the {current()} engine; two engines never share a process.'
    )
  folder = None if choice == EMBEDDED else _real_t5x_location()
  if folder is not None:
    _import_real_t5x(folder)
    return T5X
  if choice == T5X:
    raise ImportError(
      f'{ENGINE_VARIABLE}={T5X}, but no t5x is installed. Install it as '
      'docs/engines.md says, or unset the variable to use the embedded engine.'
    )
  if str(_EMBEDDED_DIR) not in sys.path:
    # An explicit choice of the embedded engine must win over a real t5x.
    position = 0 if choice == EMBEDDED else len(sys.path)
    sys.path.insert(position, str(_EMBEDDED_DIR))
  return EMBEDDED


def current() -> str:
  """Returns the engine of this process, 't5x' or 'embedded'."""
  import t5x  # pylint: disable=g-import-not-at-top

  folder = pathlib.Path(t5x.__file__).resolve().parent
  return EMBEDDED if folder.parent == _EMBEDDED_DIR else T5X


def _gin_dir() -> pathlib.Path:
  """Returns the gin folder of the package or, in a checkout, next to it."""
  installed = _PACKAGE_DIR / 'gin'
  return installed if installed.is_dir() else _PACKAGE_DIR.parent / 'gin'


def _gin_file(path: str) -> pathlib.Path:
  return _gin_dir() / path.removeprefix(_GIN_PREFIX)


def _is_packaged(path: str) -> bool:
  return path.startswith(_GIN_PREFIX) and _gin_file(path).is_file()


def packaged_name(path: str) -> str | None:
  """Returns the name of a gin file in the package's folder, or None."""
  folder = _gin_dir().resolve()
  file = _gin_file(path) if _is_packaged(path) else pathlib.Path(path)
  file = file.resolve()
  return str(file.relative_to(folder)) if file.is_relative_to(folder) else None


def read_gin(path: str) -> str:
  """Returns the text of 'salt_t5x/gin/...' or of a file on disk."""
  file = _gin_file(path) if _is_packaged(path) else pathlib.Path(path)
  return file.read_text(encoding='utf-8')


@functools.cache
def gin_macros() -> frozenset[str]:
  """Returns the names of all macros in the package's gin files."""
  texts = [x.read_text(encoding='utf-8') for x in _gin_dir().rglob('*.gin')]
  found = re.findall(r'%([A-Z]\w*)|^([A-Z]\w*) *=', '\n'.join(texts), re.M)
  return frozenset(used or bound for used, bound in found)


def register_gin_reader():
  """Lets gin open 'salt_t5x/gin/...' whatever the working directory.

  gin's own reader finds such files in a wheel install through the package's
  import spec. In an editable install the folder lies next to the package, where
  only this reader looks.
  """
  gin.config.register_file_reader(
    lambda path: _gin_file(path).open(encoding='utf-8'), _is_packaged
  )
