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

"""Plants faults in a copy of the code, one at a time, and runs its tests.

    python benchmarks/planted_faults.py --output=benchmarks/results

Each fault of `planted_faults.toml` replaces one piece of text in one file. A
fault is found if a test of the listed files fails; the tally names the test. A
fault that no test finds is an error, and so is a piece of text that is not in
the file exactly once.
"""

import argparse
import concurrent.futures
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib

import tqdm

ROOT = pathlib.Path(__file__).resolve().parents[1]
FAULTS = pathlib.Path(__file__).with_suffix('.toml')


def plant(fault: dict, folder: pathlib.Path) -> None:
  """Copies the package as a wheel would lay it out, with one fault in it."""
  ignore = shutil.ignore_patterns('__pycache__')
  shutil.copytree(ROOT / 'salt_t5x', folder / 'salt_t5x', ignore=ignore)
  for name in ('gin', 'tasks'):
    shutil.copytree(ROOT / name, folder / 'salt_t5x' / name, ignore=ignore)
    (folder / name).symlink_to(folder / 'salt_t5x' / name)
  for name in ('tests', 'docs', 'benchmarks'):
    shutil.copytree(ROOT / name, folder / name, ignore=ignore)
  for name in ('pyproject.toml', 'setup.py', 'README.md', 'Makefile'):
    shutil.copy(ROOT / name, folder / name)
  path = folder / fault['file']
  text = path.read_text('utf-8')
  if text.count(fault['old']) != 1:
    raise ValueError(
      f'{fault["name"]}: {fault["file"]} holds {text.count(fault["old"])} '
      f'times, not once: {fault["old"]!r}'
    )
  path.write_text(text.replace(fault['old'], fault['new']), 'utf-8')


def first_failure(fault: dict) -> tuple[str | None, float]:
  """Returns the test that finds a fault, or None, and the seconds it took."""
  with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    plant(fault, folder)
    start = time.monotonic()
    done = subprocess.run(
      [
        *(sys.executable, '-m', 'pytest', '-x', '-q', '--tb=no', '-rfE'),
        *('-n0', '-p', 'no:cacheprovider'),
        *('--hypothesis-profile=first_failure', *fault['tests']),
      ],
      cwd=folder,
      env=os.environ | {'PYTHONPATH': name},
      capture_output=True,
      text=True,
      check=False,
    )
    seconds = time.monotonic() - start
  if done.returncode == 0:
    return None, seconds
  found = re.search(r'^(?:FAILED|ERROR) (\S+)', done.stdout, re.MULTILINE)
  if done.returncode != 1 or not found:
    raise RuntimeError(f'{fault["name"]}: {done.stdout[-2000:]}{done.stderr}')
  return found[1], seconds


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--output', help='folder for planted_faults.md')
  parser.add_argument('--only', help='a regular expression on faults, by name')
  parser.add_argument('--workers', type=int, default=2)
  args = parser.parse_args()
  faults = tomllib.loads(FAULTS.read_text('utf-8'))['fault']
  if args.only:
    faults = [x for x in faults if re.search(args.only, x['name'])]
  results = []
  with concurrent.futures.ThreadPoolExecutor(args.workers) as pool:
    found = pool.map(first_failure, faults)
    for fault, result in zip(
      faults, tqdm.tqdm(found, total=len(faults)), strict=True
    ):
      tqdm.tqdm.write(f'{fault["name"]}: {result[0]}, {result[1]:.0f} s')
      results.append(result)
  lines = ['| fault | file | found by |', '|---|---|---|']
  for fault, (test, _) in zip(faults, results, strict=True):
    found = f'`{test}`' if test else '**nothing**'
    lines.append(f'| {fault["name"]} | `{fault["file"]}` | {found} |')
  count = sum(test is not None for test, _ in results)
  text = '\n'.join([*lines, '', f'{count} of {len(faults)} faults are found.'])
  print(text)
  if args.output:
    path = pathlib.Path(args.output) / 'planted_faults.md'
    path.write_text(f'# Planted faults\n\n{text}\n', 'utf-8')
  if count < len(faults):
    sys.exit(1)


if __name__ == '__main__':
  main()
