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

"""Errors for the parts of t5x that the embedded engine does not have."""

from collections.abc import Callable
import functools
import inspect

_REMEDY = (
  'is not part of the embedded engine of salt_t5x. Install the real t5x '
  '(docs/engines.md) to use it, or remove it.'
)


def missing(module: str) -> Callable[[str], object]:
  """Returns a module-level `__getattr__` that names t5x."""

  def getattr_(name: str):
    if name.startswith('__'):
      raise AttributeError(name)
    raise ImportError(f't5x: {module}.{name} {_REMEDY}')

  return getattr_


class ModuleFinder:
  """The last finder: raises an error for modules that only t5x has."""

  @staticmethod
  def find_spec(name: str, path=None, target=None) -> None:
    """Raises ImportError for a module of t5x that no finder found."""
    del path, target
    if name.startswith('t5x.'):
      raise ImportError(f't5x: {name} {_REMEDY}', name=name)


def refuse(what: str):
  """Raises an error for an option or a value that only t5x supports."""
  raise ValueError(f't5x: {what} {_REMEDY}')


def subset_of_t5x(target):
  """Decorates a function or class that has fewer options than t5x's own."""
  name = f'{target.__module__.rpartition(".")[2]}.{target.__name__}'
  fn = target.__init__ if inspect.isclass(target) else target
  known = inspect.signature(fn).parameters

  @functools.wraps(fn)
  def wrapper(*args, **kwargs):
    for key in kwargs:
      if key not in known:
        refuse(f'the option {name}.{key}')
    return fn(*args, **kwargs)

  # gin checks parameters against the signature; this wrapper accepts any, so
  # that the error above is raised instead.
  del wrapper.__wrapped__
  if fn is target:
    return wrapper
  target.__init__ = wrapper
  return target
