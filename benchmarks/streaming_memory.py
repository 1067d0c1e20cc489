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

"""Memory while one large shard is streamed.

Writes a shard of random words, streams it with `pile_shards.read` and through
`pile_shards.JsonlDataSource`, each in a process of its own, and prints resident
memory against the text read. If memory is flat, it does not depend on the size
of the shard.

    python benchmarks/streaming_memory.py --output=streaming_memory.json
"""

from concurrent import futures
import multiprocessing
import os
import platform
import resource
import tempfile

from absl import app, flags
import numpy as np
import tensorflow as tf
import tqdm

from salt_t5x import files
from salt_t5x.data import pile_shards

_MEGABYTES = flags.DEFINE_integer(
  'megabytes', 1000, 'Text in the shard, in 10^6 bytes.', lower_bound=200
)
_OUTPUT = flags.DEFINE_string('output', None, 'JSON file to write.')

_WARM_UP = 100  # MB until all buffers have their size


def _documents(megabytes: int):
  """(text, domain) pairs; lengths are log-normal, 6 kB on average."""
  rng = np.random.default_rng(0)
  letters = rng.integers(ord('a'), ord('z') + 1, (50_000, 10), np.uint8)
  words = [
    bytes(row[:length]).decode()
    for row, length in zip(letters, rng.integers(1, 11, 50_000), strict=True)
  ]
  size = 0
  with tqdm.tqdm(total=megabytes, desc='writing', unit='MB') as bar:
    while size < megabytes * 1e6:
      length = int(rng.lognormal(6, 1.2)) + 1
      # A power makes some words common, as they are in text.
      order = (rng.random(length) ** 3 * len(words)).astype(int)
      text = ' '.join([words[i] for i in order])
      size += len(text)
      bar.update(int(size / 1e6) - bar.n)
      yield text, 'random words'


def _read(path):
  for text, _, _ in pile_shards.read(path):
    yield text


def _source(path):
  source = pile_shards.JsonlDataSource({'train': path})
  for element in source.get_dataset('train', shuffle=False):
    yield element['text'].numpy()


_WAYS = {'jsonl.read': _read, 'JsonlDataSource': _source}


def _resident() -> float:
  """This process's resident memory, in MB."""
  with open('/proc/self/statm') as statm:
    return int(statm.read().split()[1]) * resource.getpagesize() / 1e6


def _stream(way: str, path: str, megabytes: int) -> dict[int, float]:
  """MB of text read, in steps of 100, to the peak since the step before."""
  peaks, peak, size, last = {}, 0.0, 0, 0
  with tqdm.tqdm(total=megabytes, desc=way, unit='MB') as bar:
    for text in _WAYS[way](path):
      size += len(text)
      if size - last >= 1e6:
        last = size
        bar.update(int(size / 1e6) - bar.n)
        peak = max(peak, _resident())
        step = int(size / 1e6) // 100 * 100
        if 0 < step < megabytes and step not in peaks:
          peaks[step], peak = peak, 0.0
    bar.update(megabytes - bar.n)
  peaks[megabytes] = max(peak, _resident())
  return peaks


def main(argv):
  del argv
  # A process that has not read before has no freed memory to hide growth in.
  spawn = multiprocessing.get_context('spawn')
  peaks = {}
  with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, '00.jsonl.zst')
    pile_shards.write(path, _documents(_MEGABYTES.value))
    compressed = os.path.getsize(path) / 1e6
    for way in _WAYS:
      with futures.ProcessPoolExecutor(1, spawn) as process:
        streamed = process.submit(_stream, way, path, _MEGABYTES.value)
        peaks[way] = streamed.result()
  growth = {
    way: round(
      max(p for step, p in of_way.items() if step > _WARM_UP)
      - of_way[_WARM_UP],
      1,
    )
    for way, of_way in peaks.items()
  }
  rows = [
    [step, *(f'{peaks[way][step]:.0f}' for way in _WAYS)]
    for step in peaks['jsonl.read']
  ]
  rows.append(['growth', *(f'{growth[way]:+.1f}' for way in _WAYS)])
  header = ['MB read', *(f'{way}, MB' for way in _WAYS)]
  print(files.markdown_table(header, rows))
  if _OUTPUT.value:
    result = {
      'megabytes_of_text': _MEGABYTES.value,
      'megabytes_compressed': round(compressed, 1),
      'peak_resident_megabytes': peaks,
      f'growth_after_{_WARM_UP}_megabytes': growth,
      'cpu_cores': os.cpu_count(),
      'python': platform.python_version(),
      'tensorflow': tf.__version__,
    }
    files.write_json(_OUTPUT.value, result)


if __name__ == '__main__':
  app.run(main)
