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
shows its log and deletes the VM. The command survives a lost connection. It is
restarted after exit code 75, and on a new VM if its VM is preempted. Any other
exit code, and any failed step, ends the run.

    ... attach ... (the same flags)    follows a run after `run` was interrupted
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

# {flag: (help, options of argparse)}
_VM_FLAGS = {
  'name': ("The VM's name.", {'required': True}),
  'zone': (f'Its zone, e.g. {_ZONE}.', {'required': True}),
  'project': ("Default: gcloud's own.", {}),
  'dry_run': ('Print the commands; run nothing.', {'action': 'store_true'}),
}
_REPEATED = {'action': 'append', 'default': []}
_RUN_FLAGS = {
  'accelerator_type': ('E.g. v5litepod-16.', {'required': True}),
  'version': (
    "The VM's software version, e.g. v2-alpha-tpuv5-lite.",
    {'required': True},
  ),
  'spot': ('Create a VM that may be preempted.', {'action': 'store_true'}),
  'wheel': (
    "This package's wheel, as built by pip wheel --no-deps --wheel-dir=dist .",
    {'required': True},
  ),
  'setup_script': (
    "A bash script that runs on every worker, in the command's working "
    'directory, before the installation; e.g. it installs Python 3.11 and t5x, '
    'and writes environment.sh.',
    {},
  ),
  'requirements': ('A requirements file that pip installs everywhere.', {}),
  'python': ("The workers' Python, 3.11 or newer.", {'default': 'python3'}),
  'copy': (
    "A file or folder for the command's working directory.",
    {'metavar': 'PATH', **_REPEATED},
  ),
  'env': (
    'An environment variable of the command.',
    {'metavar': 'NAME=VALUE', **_REPEATED},
  ),
  'secret_env': (
    'An environment variable of this process that is passed to the command. No '
    'command line and no log shows its value.',
    {'metavar': 'NAME', **_REPEATED},
  ),
  'max_restarts': (
    'How often the command restarts, on this VM or a new one.',
    {'type': int, 'default': 10},
  ),
  'keep': ('Never delete the VM.', {'action': 'store_true'}),
}


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog='python -m salt_t5x.launch.gce',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  actions = parser.add_subparsers(dest='action', required=True)
  for action in ('run', 'attach', 'delete'):
    flags = _VM_FLAGS if action == 'delete' else _VM_FLAGS | _RUN_FLAGS
    subparser = actions.add_parser(action, allow_abbrev=False)
    for flag, (text, options) in flags.items():
      subparser.add_argument(f'--{flag}', help=text, **options)
  return parser


def _parse(
  argv: Sequence[str],
) -> tuple[argparse.Namespace, tpu_vm.TpuVm, tpu_run.Program | None]:
  """Parses and checks flags.

  Returns:
    (flags, the VM, the program or None)
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
      if args.max_restarts < 0:
        raise checks.FlagError(
          f'--max_restarts={args.max_restarts} must be at least 0.'
        )
      program = _program(args, command, argv)
  except checks.FlagError as e:
    parser.error(str(e))
  return args, vm, program


def _program(
  args: argparse.Namespace, command: Sequence[str], argv: Sequence[str]
) -> tpu_run.Program:
  """Checks the program's flags."""
  if not command:
    raise checks.FlagError(
      'The command is missing: put it after the flags, e.g. `-- python -m '
      'salt_t5x.train --gin_file=...`.'
    )
  for word in command:
    match = re.fullmatch(
      r'--(?:gin\.|gin_bindings=)(MODEL_DIR|SCORES_DIR)\s*=\s*(.*)', word
    )
    if match and '://' not in match[2] and not args.keep:
      raise checks.FlagError(
        f'{word}: this folder is on the VM and is deleted with it. Name a '
        'folder in a bucket (gs://...), or give --keep.'
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
  """Runs the command on a VM, follows it, or deletes the VM.

  Args:
    argv: the command line without the program's name.

  Returns:
    The exit code: 0 if the run finished, 130 if this launcher was interrupted.
  """
  args, vm, program = _parse(argv)
  signal.signal(signal.SIGTERM, signal.default_int_handler)
  shell = Shell(args.dry_run)
  if args.action == 'delete':
    return _delete(vm, shell)
  run = tpu_run.TpuRun(vm, program, args.max_restarts, shell)
  delete = shlex.join(vm.delete())
  code = 0
  try:
    try:
      _run(args, run)
    except (CommandError, tpu_run.RunError, OSError) as e:
      print(f'Error: {e}', file=sys.stderr)
      code = 1
    if run.owns_vm and args.keep:
      shell.say(f'The VM is kept (--keep). To delete it:\n{delete}')
    elif run.owns_vm:
      code = _delete(vm, shell) or code
  except KeyboardInterrupt:
    attach = ['python', '-m', 'salt_t5x.launch.gce', 'attach', *argv[1:]]
    print(
      f'\nInterrupted. The TPU VM {vm.name} in {vm.zone}, if it was created, '
      'still exists and costs money, and a run that was started on it '
      'continues.\n'
      f'To follow it again:\n  {shlex.join(attach)}\n'
      f'To end it and delete the VM:\n  {delete}',
      file=sys.stderr,
    )
    return _INTERRUPTED
  if args.dry_run:
    shell.say(
      'After exit code 75 the run restarts; if the VM is gone, on a new VM; at '
      f'most {args.max_restarts} times.\n'
      f'If a step fails, the VM is {"kept" if args.keep else "deleted"}.'
    )
  return code


def _run(args: argparse.Namespace, run: tpu_run.TpuRun) -> None:
  """Starts a run or follows one, to its end."""
  if args.action == 'run':
    if state := run.state(pretend=''):
      raise tpu_run.RunError(
        f'--name={args.name}: a VM of this name exists already ({state}). It '
        'was not changed: choose another name, follow its run with `attach`, '
        'or delete it with `delete`.'
      )
    return run.run()
  state = run.state()
  if not state:
    raise tpu_run.RunError(
      f'--name={args.name}: {args.zone} has no such VM. To restart the run '
      'from its last checkpoint, use `run` instead of `attach`.'
    )
  if state == tpu_run.READY:
    run.take_over()
    return run.run(is_running=True)
  if state in tpu_run.GONE:
    tpu_run.delete(run.vm, run.shell)
    return run.run()
  raise tpu_run.RunError(
    f'--name={args.name}: the VM is {state}. Repeat `attach` when it is '
    f'{tpu_run.READY}.'
  )


def _delete(vm: tpu_vm.TpuVm, shell: Shell) -> int:
  try:
    tpu_run.delete(vm, shell)
  except CommandError as e:
    print(
      f'Error: {e}\nThe VM may still exist and cost money. To delete it:\n'
      f'  {shlex.join(vm.delete())}',
      file=sys.stderr,
    )
    return 1
  return 0


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
