#!/usr/bin/env python3
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

"""A stand-in for gcloud: TPU VMs that are folders on this machine.

Reads and writes the folder that CLOUD names:

  calls.jsonl   every call: its arguments, and mode and hash of what it copied
  plan.json     {call's number: what happens}: 'fails', 'exists' (somebody made
                the VM just now), 'preempted' or 'vanished' (the VM, before the
                call), 'drops' (the connection); 'every delete' for a number
  vm/state      READY and so on; no vm/ if there is no VM
  vm/<i>/       the home directory of worker i; commands really run there
  exit_codes    of the first run, the second, ... on all workers; then 0
  wait          while it exists, runs go on
"""

import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import sys

CLOUD = pathlib.Path(os.environ['CLOUD'])
VM = CLOUD / 'vm'
WORKERS = 2

# What a VM's `python3`, and the one of its virtual environments, is.
PYTHON = f"""#!/bin/bash
if [[ $1 == -c ]]; then exec {sys.executable} "$@"; fi
if [[ "$1 $2" == "-m venv" ]]; then
  mkdir -p "$3/bin"
  cp "$0" "$3/bin/python"
  exit
fi
echo "$0 $*"
if [[ $2 == salt_t5x.* ]]; then
  echo "$0" "$@" >>~/started
  env >~/environment
  while [[ -e {CLOUD}/wait ]]; do sleep 0.1; done
  echo >>{CLOUD}/starts
  run=$((($(wc -l <{CLOUD}/starts) - 1) / {WORKERS} + 1))
  exit "$(sed -n "${{run}}p" {CLOUD}/exit_codes)"
fi
"""


def main() -> int:
  argv = sys.argv[1:]
  stdin = hashlib.sha256(sys.stdin.buffer.read()).hexdigest()
  call = {'argv': argv, 'stdin': stdin}
  action, name = argv[3], argv[4]
  options = [a for a in argv[4:] if a.startswith('--')]
  words = [a for a in argv[4:] if not a.startswith('--')]
  if action == 'scp':
    call['copied'] = {
      os.path.basename(path): [
        oct(os.stat(path).st_mode & 0o777),
        hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest(),
      ]
      for path in words[:-1]
      if os.path.isfile(path)
    }
  calls = CLOUD / 'calls.jsonl'
  number = len(calls.read_text().splitlines()) if calls.exists() else 0
  with calls.open('a') as f:
    f.write(json.dumps(call) + '\n')
  plan = json.loads((CLOUD / 'plan.json').read_text())
  happening = plan.get(str(number)) or plan.get(f'every {action}')
  if happening == 'fails':
    return error('INTERNAL: this call was to fail')
  if happening == 'exists':
    return error('ALREADY_EXISTS: somebody was quicker')
  if happening == 'preempted':
    (VM / 'state').write_text('PREEMPTED')
  if happening == 'vanished':
    shutil.rmtree(VM)
  if happening == 'drops':
    print('client_loop: send disconnect: Broken pipe', file=sys.stderr)
    return 255
  if action == 'create':
    if VM.exists():
      return error('ALREADY_EXISTS')
    for i in range(WORKERS):
      (VM / str(i) / 'bin').mkdir(parents=True)
      python = VM / str(i) / 'bin/python3'
      python.write_text(PYTHON)
      python.chmod(0o755)
    (VM / 'state').write_text('READY')
    return 0
  if not VM.exists():
    return error(f'NOT_FOUND: Resource {name} was not found')
  if action == 'describe':
    print((VM / 'state').read_text())
  elif action == 'delete':
    shutil.rmtree(VM)
  elif (VM / 'state').read_text() != 'READY':
    print('ssh: connect to host 10.0.0.1 port 22: timed out', file=sys.stderr)
    return 255
  elif action == 'scp':
    copy(words[:-1], words[-1].split(':', 1)[1])
  elif action == 'ssh':
    return ssh(dict(o[2:].split('=', 1) for o in options if '=' in o))
  return 0


def error(text: str) -> int:
  print(f'ERROR: (gcloud.compute.tpus.tpu-vm) {text}', file=sys.stderr)
  return 1


def copy(paths: list[str], target: str) -> None:
  for i in range(WORKERS):
    for path in paths:
      to = VM / str(i) / target
      if target.endswith('/'):
        assert to.is_dir(), f'{to} is missing'
        to /= os.path.basename(path)
      if os.path.isdir(path):
        shutil.copytree(path, to)
      else:
        shutil.copy(path, to)


def ssh(options: dict[str, str]) -> int:
  worker = options['worker']
  codes = []
  for i in range(WORKERS) if worker == 'all' else [int(worker)]:
    home = VM / str(i)
    environment = {'HOME': str(home), 'PATH': f'{home}/bin:/usr/bin:/bin'}
    process = subprocess.run(
      ['bash', '-c', options['command']],
      cwd=home,
      env=environment,
      stdin=subprocess.DEVNULL,
      check=False,
    )
    codes.append(process.returncode)
  return max(codes)


if __name__ == '__main__':
  sys.exit(main())
