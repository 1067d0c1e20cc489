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

_INTERRUPTED = 128 + signal.SIGINT

_PATTERNS = {
  'name': checks.NAME,
  'zone': (r'[a-z]+-[a-z]+\d+-[a-z]', 'us-central2-b'),
  'project': ('([-a-z0-9.]+:)?[a-z][-a-z0-9]{4,28}[a-z0-9]', 'my-project'),
  'accelerator_type': (r'v\d+\w*-\d+', 'v4-16'),
  'wheel': checks.WHEEL,
}


def _parser() -> argparse.ArgumentParser:
  vm = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
  add = vm.add_argument
  add('--name', required=True, help="the VM's name")
  add('--zone', required=True, help='its zone, e.g. us-central2-b')
  add('--project', help="default: gcloud's own")
  add('--dry_run', action='store_true', help='print commands; run nothing')

  run = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
  add = run.add_argument
  add('--accelerator_type', required=True, help='e.g. v5litepod-16')
  add('--version', required=True, help='software, e.g. v2-alpha-tpuv5-lite')
  add('--spot', action='store_true', help='create a VM that may be preempted')
  add('--wheel', required=True, help="this package's; see docs/launch.md")
  add(
    '--setup_script',
    help='bash script that runs on every worker before the installation, in '
    "the command's working directory; e.g. it installs Python 3.11 and t5x, "
    'and writes environment.sh',
  )
  add('--requirements', help='a requirements file that pip installs everywhere')
  add('--python', default='python3', help="the workers' Python, 3.11 or newer")
  for flag, value, text in (
    ('copy', 'PATH', "a file or folder for the command's working directory"),
    ('env', 'NAME=VALUE', 'an environment variable of the command'),
    (
      'secret_env',
      'NAME',
      'an environment variable of this process that is passed to the command; '
      'no command line and no log shows its value',
    ),
  ):
    add(f'--{flag}', action='append', default=[], metavar=value, help=text)
  add('--max_restarts', type=int, default=10, help='on this VM or a new one')
  add('--keep', action='store_true', help='never delete the VM')

  parser = argparse.ArgumentParser(
    prog='python -m salt_t5x.launch.gce',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  actions = parser.add_subparsers(dest='action', required=True)
  for action in ('run', 'attach'):
    actions.add_parser(action, parents=[vm, run], allow_abbrev=False)
  delete = actions.add_parser('delete', parents=[vm], allow_abbrev=False)
  delete.set_defaults(keep=False)
  return parser


def _parse(argv: Sequence[str]) -> argparse.Namespace:
  """Parses and checks flags; adds the values that `TpuRun` describes."""
  parser = _parser()
  end = argv.index('--') if '--' in argv else len(argv)
  args = parser.parse_args(argv[:end])
  args.command = argv[end + 1 :]
  try:
    checks.matches(vars(args), _PATTERNS)
    if args.action != 'delete':
      _check_run(args, argv)
  except checks.FlagError as e:
    parser.error(str(e))
  return args


def _check_run(args: argparse.Namespace, argv: Sequence[str]) -> None:
  if args.max_restarts < 0:
    raise checks.FlagError(f'--max_restarts={args.max_restarts}: set >= 0.')
  if not args.command:
    raise checks.FlagError(
      'The command is missing: put it after the flags, e.g. `-- python -m '
      'salt_t5x.train --gin_file=...`.'
    )
  for word in args.command:
    match = re.fullmatch(
      r'--(?:gin\.|gin_bindings=)(MODEL_DIR|SCORES_DIR)\s*=\s*(.*)', word
    )
    if match and '://' not in match[2] and not args.keep:
      raise checks.FlagError(
        f'{word}: this folder is on the VM and is deleted with it. Name a '
        'folder in a bucket (gs://...), or give --keep.'
      )
  args.environment = checks.environment(args.env)
  args.secrets = checks.secrets(args.secret_env, args.environment, argv)
  args.files = checks.files(
    remote=[tpu_run.REMOTE],
    wheel=[args.wheel],
    setup_script=[args.setup_script],
    requirements=[args.requirements],
    copy=args.copy,
  )


def main(argv: Sequence[str]) -> int:
  """Runs the command on a VM, follows it, or deletes the VM.

  Args:
    argv: the command line without the program's name.

  Returns:
    The exit code: 0 if the run finished, 130 if this launcher was interrupted.
  """
  args = _parse(argv)
  signal.signal(signal.SIGTERM, signal.default_int_handler)
  names = {field.name for field in dataclasses.fields(tpu_vm.TpuVm)}
  vm = tpu_vm.TpuVm(**{k: v for k, v in vars(args).items() if k in names})
  run = tpu_run.TpuRun(vm, args, owns_vm=args.action == 'delete')
  code = 0
  try:
    try:
      if args.action != 'delete':
        run.run() if args.action == 'run' else run.attach()
    except (tpu_vm.RunError, OSError) as e:
      print(f'Error: {e}', file=sys.stderr)
      code = 1
    if run.owns_vm and args.keep:
      tpu_vm.say(f'The VM is kept (--keep). To delete it:\n{vm.delete_command}')
    elif run.owns_vm:
      vm.delete()
  except tpu_vm.GcloudError as e:
    print(
      f'Error: {e}\nThe VM may still exist and cost money. To delete it:\n'
      f'  {vm.delete_command}',
      file=sys.stderr,
    )
    return 1
  except KeyboardInterrupt:
    attach = ['python', '-m', 'salt_t5x.launch.gce', 'attach', *argv[1:]]
    print(
      f'\nInterrupted. The TPU VM {vm.name} in {vm.zone}, if it was created, '
      'still exists and costs money, and a run that was started on it '
      'continues.\n'
      f'To follow it again:\n  {shlex.join(attach)}\n'
      f'To end it and delete the VM:\n  {vm.delete_command}',
      file=sys.stderr,
    )
    return _INTERRUPTED
  if args.dry_run and args.action != 'delete':
    tpu_vm.say(
      'After exit code 75 the run restarts; if the VM is gone, on a new VM; at '
      f'most {args.max_restarts} times.\n'
      f'If a step fails, the VM is {"kept" if args.keep else "deleted"}.'
    )
  return code


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
