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

"""What commands share: flags, tasks, hosts and gin files.

A command has a function that parses its flags and one that runs:

    def parse_flags(argv: Sequence[str]) -> argparse.Namespace:
      parser = command.parser('salt_t5x.difficulty', 'Easy and hard documents.')
      parser.add_argument('--results', required=True, help='a folder')
      parser.add_argument('--tasks', type=command.words, help='names: a,b')
      parser.add_argument('--top', type=command.at_least(1), default=10)
      return parser.parse_args(argv[1:])

    def main(args: argparse.Namespace) -> None: ...

    if __name__ == '__main__':
      command.run(main, parse_flags)

A command that gin files configure calls `command.start` instead.
"""

import argparse
from collections.abc import Callable, Sequence
import difflib
import functools
import importlib
import math
import os
import sys
import tokenize
from typing import Any

from absl import app, flags
from absl.flags import argparse_flags
import gin
import jax
import seqio
import tensorflow as tf

from salt_t5x.configuration import flags as gin_flags
from t5x import gin_utils

ParseFlags = Callable[[Sequence[str]], argparse.Namespace]


class _Parser(argparse_flags.ArgumentParser):
  """Names the nearest flag when one is unknown."""

  def error(self, message):
    if message.startswith('unrecognized arguments: -'):
      unknown = message.split()[2].partition('=')[0]
      known = [x for action in self._actions for x in action.option_strings]
      if near := difflib.get_close_matches(unknown, known, n=1):
        message += f'. Did you mean {near[0]}?'
    super().error(message)


def parser(module: str, description: str) -> argparse.ArgumentParser:
  """Returns a parser for a command's flags; it reads absl's flags as well.

  Args:
    module: the command is `python -m` and this.
    description: a sentence for --help.
  """
  # A command's own flags win: modules of tasks may define absl flags.
  return _Parser(
    prog=f'python -m {module}',
    description=description,
    allow_abbrev=False,
    conflict_handler='resolve',
  )


def words(text: str) -> list[str]:
  """Splits the value of a flag at its commas."""
  return [word.strip() for word in text.split(',')] if text else []


def boolean(text: str) -> bool:
  """Parses the value of a flag as absl does."""
  return flags.BooleanParser().parse(text)


def path(text: str) -> str:
  """Parses a flag's path: shells leave the `~` of --flag=~/folder as it is."""
  return os.path.expanduser(text)


def at_least(minimum: int) -> Callable[[str], int]:
  """Returns a flag's type: integers with a lower bound."""

  def integer(text: str) -> int:
    value = int(text)
    if value < minimum:
      raise argparse.ArgumentTypeError(f'{value} must be at least {minimum}.')
    return value

  return integer


def positive(maximum: float = math.inf) -> Callable[[str], float]:
  """Returns a flag's type: numbers above 0, with an upper bound."""

  def number(text: str) -> float:
    if not 0 < float(text) <= maximum:
      raise argparse.ArgumentTypeError(
        f'{text} must be above 0, and {maximum} at most.'
      )
    return float(text)

  return number


def add_task_flags(to: argparse.ArgumentParser) -> None:
  """Adds --task and --module_import, the arguments of `find_task`."""
  to.add_argument('--task', required=True, help='a registered task or mixture')
  to.add_argument(
    '--module_import',
    action='append',
    default=[],
    help='a module that registers tasks; may be given several times',
  )


def add_gin_flags(to: argparse.ArgumentParser) -> None:
  """Adds the flags with which `parse_gin` finds a configuration."""
  add = to.add_argument
  add('--gin_file', action='append', default=[], help='later files win')
  add(
    '--gin_bindings',
    action='append',
    default=[],
    help='NAME=VALUE, read after the files; --gin.NAME=VALUE is the same, but '
    'must have an effect on this command',
  )
  add(
    '--gin_search_paths',
    type=words,
    default=['.'],
    help='folders of gin files, separated by commas',
  )


def check_bindings(argv: Sequence[str]) -> None:
  """Exits with a hint if gin cannot read the bindings of the flags."""
  try:
    gin_flags.check(argv)
  except ValueError as e:
    sys.exit(str(e))


def parse_gin(args: argparse.Namespace, *more_files: str) -> None:
  """Parses the gin files and bindings of the flags, and then more files."""
  if not args.gin_file:
    sys.exit(
      'Name the gin files that configure the command with --gin_file; those of '
      'the package are in salt_t5x/gin.'
    )
  try:
    gin_utils.parse_gin_flags(
      args.gin_search_paths, [*args.gin_file, *more_files], args.gin_bindings
    )
  except OSError as e:
    sys.exit(f'--gin_file: {e}')
  except (ImportError, SyntaxError, tokenize.TokenError) as e:
    sys.exit(f'--gin_file={",".join(args.gin_file)}: {e}')


def run(
  main: Callable[[argparse.Namespace], None], parse_flags: ParseFlags
) -> None:
  """Runs a command: parses its flags, and leaves the accelerators to JAX."""

  def prepared(args: argparse.Namespace) -> None:
    tf.config.set_visible_devices([], 'GPU')
    # Text from data may hold characters that a terminal cannot show.
    sys.stdout.reconfigure(errors='backslashreplace')
    main(args)

  def parse(argv: Sequence[str]) -> argparse.Namespace:
    check_bindings(argv)
    return parse_flags(gin_utils.rewrite_gin_args(argv))

  app.run(prepared, flags_parser=parse)


def parse_gin_command(
  module: str, description: str, argv: Sequence[str]
) -> argparse.Namespace:
  """Parses the flags of t5x's train binary that a gin command needs."""
  found = parser(module, description)
  add_gin_flags(found)
  add = found.add_argument
  add(
    '--seqio_additional_cache_dirs',
    type=words,
    default=[],
    help='folders of cached tasks, separated by commas',
  )
  add('--tfds_data_dir', help='folder of TFDS data sets')
  add(
    '--multiprocess_gpu',
    type=boolean,
    nargs='?',
    const=True,
    default=False,
    help='run as one of several processes, given by the next three flags',
  )
  add('--coordinator_address', help='IP:PORT of process 0')
  add('--process_count', type=int, help='number of processes')
  add('--process_index', type=int, help='index of this process')
  return found.parse_args(argv[1:])


def start(function: Callable[..., str]) -> None:
  """Calls a function that gin files configure, and prints what it returns.

  Args:
    function: of the imported module, not of the copy of it that is `__main__`:
      gin files name the former.
  """

  def main() -> None:
    text = gin.get_configurable(function)()
    if jax.process_index() == 0:
      print(text)

  module = function.__module__
  run_configured(main, module, sys.modules[module].__doc__.partition(':')[0])


def run_configured(
  main: Callable[[], None], module: str, description: str
) -> None:
  """Parses the flags and gin files of a command, and calls its `main`.

  Args:
    main: the command.
    module: see `parser`.
    description: see `parser`.
  """

  def configured(args: argparse.Namespace) -> None:
    if args.multiprocess_gpu:
      jax.distributed.initialize(
        args.coordinator_address, args.process_count, args.process_index
      )
    if args.tfds_data_dir:
      seqio.set_tfds_data_dir_override(args.tfds_data_dir)
    seqio.add_global_cache_dirs(args.seqio_additional_cache_dirs)
    parse_gin(args)
    main()

  jax.config.parse_flags_with_absl()
  run(configured, functools.partial(parse_gin_command, module, description))


def check_count(parameter: str, value: Any) -> None:
  """Raises ValueError if a parameter is not a number of at least 1."""
  if type(value) is not int or value < 1:
    raise ValueError(
      f'{parameter} = {value!r}: set it to a number of at least 1.'
    )


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
  try:
    return get_task(
      name,
      f'--task={name}',
      'The module that defines a task registers it: name that in '
      '--module_import.',
    )
  except ValueError as e:
    sys.exit(str(e))


def get_task(
  name: str,
  parameter: str,
  remedy: str = 'A gin file must import the module that registers it.',
) -> seqio.Task | seqio.Mixture:
  """Finds a registered task or mixture.

  Args:
    name: of the task or mixture.
    parameter: what names it, and its value, for messages.
    remedy: a sentence that ends the message.

  Raises:
    ValueError: there is none.
  """
  names = {*seqio.TaskRegistry.names(), *seqio.MixtureRegistry.names()}
  # t5x's configurations may hold the task itself.
  if name in names or isinstance(name, seqio.Task | seqio.Mixture):
    return seqio.get_mixture_or_task(name)
  near = difflib.get_close_matches(str(name), names, n=5, cutoff=0.4)
  raise ValueError(
    f'{parameter}: not among the {len(names)} tasks and mixtures that are '
    f'registered. Near names: {", ".join(near) or "none"}. {remedy}'
  )
