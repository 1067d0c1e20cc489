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

"""What commands that run from gin files share: flags, hosts, configuration."""

from collections.abc import Callable, Mapping, Sequence
import difflib
import importlib
import sys
from typing import Any

from absl import app, flags
import jax
import seqio
import tensorflow as tf

from t5x import gin_utils


def _define_flags() -> None:
  """Those of t5x's train binary that a command needs."""
  flags.DEFINE_multi_string('gin_file', None, 'gin files, later ones win.')
  flags.DEFINE_multi_string('gin_bindings', [], 'gin bindings.')
  flags.DEFINE_list(
    'gin_search_paths', ['.'], 'where gin files are looked for.'
  )
  flags.DEFINE_list(
    'seqio_additional_cache_dirs', [], 'where cached tasks are looked for.'
  )
  flags.DEFINE_boolean(
    'multiprocess_gpu', False, 'several processes, with the next three flags.'
  )
  flags.DEFINE_string('coordinator_address', None, 'IP:PORT of process 0.')
  flags.DEFINE_integer('process_count', None, 'number of processes.')
  flags.DEFINE_integer('process_index', None, 'index of this process.')


def check_lengths(lengths: Any) -> Mapping[str, int]:
  """Returns TASK_FEATURE_LENGTHS if it is {'targets': T, ...}.

  Raises:
    ValueError: it is something else.
  """
  is_possible = (
    isinstance(lengths, Mapping)
    and 'targets' in lengths
    and all(type(x) is int and x >= 1 for x in lengths.values())
  )
  if not is_possible:
    raise ValueError(
      f'TASK_FEATURE_LENGTHS = {lengths!r}: set it to {{"targets": T}}, the '
      'tokens of a sequence, at least 1.'
    )
  return lengths


def find_task(name: str, modules: Sequence[str]) -> seqio.Task | seqio.Mixture:
  """Finds a registered task or mixture, or exits with a hint.

  Args:
    name: the task's or mixture's, the value of --task.
    modules: modules that register tasks, imported first (--module_import).
  """
  for module in modules:
    try:
      importlib.import_module(module)
    except (ModuleNotFoundError, TypeError, ValueError) as error:
      is_name = all(map(str.isidentifier, module.split('.')))
      named = getattr(error, 'name', None)
      if is_name and not (named and f'{module}.'.startswith(f'{named}.')):
        raise  # The module is there; what it imports is not.
      sys.exit(
        f'--module_import={module}: {error}. Give the name as in an import '
        'statement; its folder must be the working directory or on PYTHONPATH.'
      )
  names = {*seqio.TaskRegistry.names(), *seqio.MixtureRegistry.names()}
  if name in names:
    return seqio.get_mixture_or_task(name)
  near = difflib.get_close_matches(name, names, n=5, cutoff=0.4)
  sys.exit(
    f'--task={name}: not among the {len(names)} tasks and mixtures that are '
    f'registered. Near names: {", ".join(near) or "none"}. The module that '
    'defines a task registers it: name that in --module_import.'
  )


def parse_gin(*more_files: str) -> None:
  """Parses the gin files and bindings of the flags, and then more files.

  Raises:
    app.UsageError: there is no such file.
  """
  try:
    gin_utils.parse_gin_flags(
      flags.FLAGS.gin_search_paths,
      [*flags.FLAGS.gin_file, *more_files],
      flags.FLAGS.gin_bindings,
    )
  except OSError as e:
    raise app.UsageError(f'--gin_file: {e}') from e


def start(run: Callable[[], None]) -> None:
  """Starts a command: flags and gin files are read, then `run` is called.

  Args:
    run: of the package's module, not of the copy that is `__main__`: gin files
      name the package's.
  """

  def main(argv: Sequence[str]) -> None:
    if len(argv) > 1:
      raise app.UsageError(f'Not understood: {argv[1:]}')
    if not flags.FLAGS.gin_file:
      raise app.UsageError(
        'Name the gin files that configure the command with --gin_file.'
      )
    tf.config.experimental.set_visible_devices([], 'GPU')  # they are JAX's
    if flags.FLAGS.multiprocess_gpu:
      jax.distributed.initialize(
        flags.FLAGS.coordinator_address,
        flags.FLAGS.process_count,
        flags.FLAGS.process_index,
      )
    seqio.add_global_cache_dirs(flags.FLAGS.seqio_additional_cache_dirs)
    parse_gin()
    run()

  before = set(flags.FLAGS)
  _define_flags()
  for name in set(flags.FLAGS) - before:
    # So that --help lists them.
    flags.FLAGS.register_key_flag_for_module(sys.argv[0], flags.FLAGS[name])
  jax.config.parse_flags_with_absl()
  gin_utils.run(main)
