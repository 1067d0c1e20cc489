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

"""`shuffle` as a Beam pipeline, for caches of any size on any runner.

A worker holds one file of the shuffled cache in memory.
"""

from collections.abc import Iterable, Sequence

import apache_beam as beam

from salt_t5x.data import order, raw_cache, shuffle

# A record with its hash; None stands for a file without records.
_Record = tuple[int, bytes] | None


def _by_file(record: bytes, seed: int, bits: int) -> tuple[int, _Record]:
  key, record = shuffle.normalize(record, seed)
  return key >> shuffle.BITS - bits, (key, record)


def _write(
  group: tuple[int, Iterable[_Record]], paths: Sequence[str]
) -> tuple[int, dict]:
  number, records = group
  return number, shuffle.write_file(paths[number], filter(None, records))


def write_split(
  pipeline: beam.Pipeline, raw: raw_cache.Split, cache_dir: str, seed: int
) -> None:
  """Adds the steps that shuffle a split of a cache.

  Args:
    pipeline: runs them.
    raw: the split.
    cache_dir: the folder of the shuffled task.
    seed: it determines the order.
  """
  bits = shuffle.file_bits(raw.examples, raw.bytes)
  paths = order.shards(cache_dir, raw.split, 1 << bits)

  def describe(written: list[tuple[int, dict]]) -> None:
    files = [x for _, x in sorted(written)]
    raw.check_count(sum(x['examples'] for x in files))
    shuffle.describe(
      cache_dir, raw.split, files, raw.features, seed, raw.raw_files
    )

  def step(name):
    return f'{raw.split}: {name}'

  records = (
    pipeline
    | step('files') >> beam.Create(raw.paths)
    | step('read') >> beam.io.ReadAllFromTFRecord()
    | step('hash') >> beam.Map(_by_file, seed=seed, bits=bits)
  )
  empty = pipeline | step('numbers') >> beam.Create(
    [(i, None) for i in range(len(paths))]
  )
  _ = (
    (records, empty)
    | step('join') >> beam.Flatten()
    | step('group') >> beam.GroupByKey()
    | step('write') >> beam.Map(_write, paths=paths)
    | step('list') >> beam.combiners.ToList()
    | step('describe') >> beam.Map(describe)
  )
