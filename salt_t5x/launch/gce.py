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

"""Runs a command on a TPU VM of its own: `python -m salt_t5x.launch.gce`.

    ... run --name=NAME --zone=ZONE --accelerator_type=TYPE --version=VERSION \
      --wheel=dist/salt_t5x-0.1.0-py3-none-any.whl \
      -- python -m salt_t5x.train --gin_file=...

creates the VM, installs this package, starts the command on every worker,
shows its log and deletes the VM. The command runs on when the connection
breaks. It is started again when it ends with exit code 75, and on a new VM when
its VM is gone. Any other exit code is the end, and so is a step that fails.

    ... attach ... (the same flags)    takes up a run that `run` was stopped at
    ... delete --name=NAME --zone=ZONE

With --dry_run, commands are printed and not run. gcloud must be logged in.
"""

import argparse
from collections.abc import Sequence
import dataclasses
import re
import shlex
import signal
import sys

from salt_t5x.launch import checks, tpu_run, tpu_vm
from salt_t5x.launch.shell import CommandError, Shell

_ZONE = 'us-central2-b'
_INTERRUPTED = 128 + signal.SIGINT


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog='python -m salt_t5x.launch.gce',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  where = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
  where.add_argument('--name', required=True, help="The VM's name.")
  where.add_argument('--zone', required=True, help=f'Its zone, e.g. {_ZONE}.')
  where.add_argument('--project', help="Default: gcloud's own.")
  where.add_argument(
    '--dry_run', action='store_true', help='Print commands, and run none.'
  )
  how = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
  how.add_argument(
    '--accelerator_type', required=True, help='E.g. v5litepod-16.'
  )
  how.add_argument(
    '--version', required=True, help='Of the VM, e.g. v2-alpha-tpuv5-lite.'
  )
  how.add_argument(
    '--spot', action='store_true', help='A VM that may be preempted.'
  )
  how.add_argument(
    '--wheel',
    required=True,
    help='Of this package; pip wheel --no-deps --wheel-dir=dist . makes it.',
  )
  how.add_argument(
    '--setup_script',
    help='Run by bash on every worker before the installation, in the working '
    'directory of the command; e.g. brings Python 3.11 and t5x, and writes '
    'environment.sh.',
  )
  how.add_argument('--requirements', help='Of pip, installed on every worker.')
  how.add_argument(
    '--python', default='python3', help='Python there, 3.11 or newer.'
  )
  how.add_argument(
    '--copy',
    action='append',
    default=[],
    metavar='PATH',
    help="A file or folder for the command's working directory.",
  )
  how.add_argument(
    '--env',
    action='append',
    default=[],
    metavar='NAME=VALUE',
    help='An environment variable of the command.',
  )
  how.add_argument(
    '--secret_env',
    action='append',
    default=[],
    metavar='NAME',
    help='An environment variable that is set here, for the command, too. No '
    'command line and no log shows its value.',
  )
  how.add_argument(
    '--max_restarts', type=int, default=10, help='After exit code 75 and so on.'
  )
  how.add_argument(
    '--keep', action='store_true', help='Delete no VM, whatever happens.'
  )
  actions = parser.add_subparsers(dest='action', required=True)
  for action in ('run', 'attach'):
    actions.add_parser(action, parents=[where, how], allow_abbrev=False)
  actions.add_parser('delete', parents=[where], allow_abbrev=False)
  return parser


def _parse(
  argv: Sequence[str],
) -> tuple[argparse.Namespace, tpu_vm.TpuVm, tpu_run.Program | None]:
  """Parses and checks flags.

  Returns:
    (flags, the VM, what to run on it if anything is)
  """
  parser = _parser()
  argv, command = list(argv), []
  if '--' in argv:
    index = argv.index('--')
    argv, command = argv[:index], argv[index + 1 :]
  args = parser.parse_args(argv)
  try:
    checks.name('name', args.name)
    checks.matches('zone', args.zone, r'[a-z]+-[a-z]+\d+-[a-z]', _ZONE)
    if args.project is not None:
      pattern = '([-a-z0-9.]+:)?[a-z][-a-z0-9]{4,28}[a-z0-9]'
      checks.matches('project', args.project, pattern, 'my-project')
    names = {field.name for field in dataclasses.fields(tpu_vm.TpuVm)}
    vm = tpu_vm.TpuVm(**{k: v for k, v in vars(args).items() if k in names})
    program = None
    if args.action != 'delete':
      checks.matches(
        'accelerator_type', args.accelerator_type, r'v\d+\w*-\d+', 'v4-16'
      )
      checks.max_restarts(args.max_restarts)
      program = _program(args, command, argv)
  except checks.FlagError as e:
    parser.error(str(e))
  return args, vm, program


def _program(
  args: argparse.Namespace, command: Sequence[str], argv: Sequence[str]
) -> tpu_run.Program:
  """Checks what is to run."""
  if not command:
    raise checks.FlagError(
      'There is nothing to run: put the command behind the flags, as in `-- '
      'python -m salt_t5x.train --gin_file=...`.'
    )
  for word in command:
    # What a VM's disk holds is deleted with the VM.
    match = re.fullmatch(
      r'--(?:gin\.|gin_bindings=)(MODEL_DIR|SCORES_DIR)\s*=\s*(.*)', word
    )
    if match and '://' not in match[2] and not args.keep:
      raise checks.FlagError(
        f'{word}: this folder is on the VM, and is deleted with it. Name one '
        'in a bucket (gs://...), or give --keep.'
      )
  environment = checks.environment(args.env)
  paths = [tpu_run.REMOTE, checks.wheel(args.wheel)]
  for flag in ('setup_script', 'requirements'):
    if getattr(args, flag):
      paths += checks.files(flag, [getattr(args, flag)])
  return tpu_run.Program(
    command=command,
    environment=environment,
    secrets=checks.secrets(args.secret_env, environment, [*argv, *command]),
    files=checks.files('copy', [*paths, *args.copy]),
    wheel=args.wheel,
    setup_script=args.setup_script,
    requirements=args.requirements,
    python=args.python,
  )


def main(argv: Sequence[str]) -> int:
  """Does what flags say.

  Returns:
    The exit code: 0 if the run finished, 130 if this launcher was interrupted.
  """
  args, vm, program = _parse(argv)
  signal.signal(signal.SIGTERM, signal.default_int_handler)
  shell = Shell(args.dry_run)
  if args.action == 'delete':
    return _delete(vm, shell)
  run = tpu_run.TpuRun(vm, program, args.max_restarts, shell)
  try:
    code = _run(args, run, vm, shell)
    if run.owns_vm:
      if args.keep:
        shell.say(f'The VM stays (--keep). To delete it:\n{_shown(vm)}')
      else:
        code = _delete(vm, shell) or code
  except KeyboardInterrupt:
    attach = ['python', '-m', 'salt_t5x.launch.gce', 'attach', *argv[1:]]
    print(
      f'\nInterrupted. The TPU VM {vm.name} in {vm.zone}, if it was created, '
      'is still there and costs money, and a run that was started on it goes '
      'on.\n'
      f'To follow it again:\n  {shlex.join(attach)}\n'
      f'To end it and delete the VM:\n  {_shown(vm)}',
      file=sys.stderr,
    )
    return _INTERRUPTED
  if args.dry_run:
    shell.say(
      'If the run ends with exit code 75, it is started again; if the VM is '
      f'gone, on a new VM; at most {args.max_restarts} times.\n'
      f'If a step fails, the VM {"stays" if args.keep else "is deleted"}.'
    )
  return code


def _run(
  args: argparse.Namespace,
  run: tpu_run.TpuRun,
  vm: tpu_vm.TpuVm,
  shell: Shell,
) -> int:
  """Runs to the end, and tells of errors."""
  try:
    if args.action == 'run':
      state = run.state(pretend='')
      if state:
        raise tpu_run.RunError(
          f'--name={args.name}: there is a VM of this name already ({state}). '
          'It is left alone: choose another name, take up the run on it with '
          '`attach`, or delete it with `delete`.'
        )
      run.run()
      return 0
    state = run.state()
    if not state:
      raise tpu_run.RunError(
        f'--name={args.name}: there is no such VM in {args.zone}. To start the '
        'run again, from its last checkpoint, say `run` instead of `attach`.'
      )
    if state == tpu_run.READY:
      run.take_up()
      run.run(is_running=True)
    elif state in tpu_run.GONE:
      tpu_run.delete(vm, shell)
      run.run()
    else:
      raise tpu_run.RunError(
        f'--name={args.name}: the VM is {state}. Say `attach` again when it is '
        f'{tpu_run.READY}.'
      )
  except (CommandError, tpu_run.RunError, OSError) as e:
    print(f'Error: {e}', file=sys.stderr)
    return 1
  return 0


def _delete(vm: tpu_vm.TpuVm, shell: Shell) -> int:
  try:
    tpu_run.delete(vm, shell)
  except CommandError as e:
    print(
      f'Error: {e}\nThe VM may still be there, and cost money. To delete it:\n'
      f'  {_shown(vm)}',
      file=sys.stderr,
    )
    return 1
  return 0


def _shown(vm: tpu_vm.TpuVm) -> str:
  return shlex.join(vm.delete())


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
