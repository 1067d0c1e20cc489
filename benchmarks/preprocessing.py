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

"""Throughput of UL2's denoisers beside a plain causal task's, in one run.

Prints a table and writes one JSON: tokens read per second of CPU time, and the
ratio to the causal task of the same round. The input is a data set of
1,280-token sequences in memory, so that what is measured is the denoising and
the conversion to a model's features, not the disk.

    python benchmarks/preprocessing.py --output=preprocessing.json
"""

import json
import statistics
import time

from absl import app, flags
import numpy as np
import seqio
import tensorflow as tf
import tqdm

from salt_t5x import feature_converters, preprocessors

_SEQUENCES = flags.DEFINE_integer('sequences', 4000, 'Sequences in a round.')
_ROUNDS = flags.DEFINE_integer('rounds', 5, 'Rounds; the median counts.')
_OUTPUT = flags.DEFINE_string('output', None, 'JSON file to write.')

_LENGTH = 1280
_EXTRA_IDS = 100


class _Vocabulary(seqio.PassThroughVocabulary):
  extra_ids = _EXTRA_IDS


def _plain(data):
  """What a causal task's examples look like to the converter."""
  return data.map(
    lambda x: {**x, 'inputs': x['targets'][:0]},
    num_parallel_calls=tf.data.AUTOTUNE,
  )


def _ul2(rates):
  features = {'targets': seqio.Feature(_Vocabulary(32_000))}

  def preprocess(data):
    return preprocessors.ul2(data, features, {'targets': _LENGTH}, rates=rates)

  return preprocess


def _seconds(preprocess, tokens: np.ndarray) -> float:
  """CPU seconds to read all sequences once."""
  data = tf.data.Dataset.from_tensor_slices(
    {'targets': tokens, 'id': np.arange(len(tokens))}
  )
  converter = feature_converters.FixedWidthFeatureConverter(pack=False)
  lengths = {'inputs': _LENGTH, 'targets': _LENGTH}
  data = converter(preprocess(data), lengths).batch(64)
  start = time.process_time()
  for _ in data:
    pass
  return time.process_time() - start


def main(argv):
  del argv
  rng = np.random.default_rng(0)
  tokens = rng.integers(3, 32_000, (_SEQUENCES.value, _LENGTH), np.int32)
  one = lambda name: [float(name == d) for d in preprocessors.DENOISERS]
  cases = {'plain causal task': _plain}
  cases |= {f'ul2: {d}': _ul2(one(d)) for d in preprocessors.DENOISERS}
  cases['ul2: mixture 6:2:1:1'] = _ul2(preprocessors.RATES)
  seconds = {name: [] for name in cases}
  # In turn, so that a change of the machine's speed meets all of them.
  for i in tqdm.trange(_ROUNDS.value + 1):
    for name, preprocess in cases.items():
      taken = _seconds(preprocess, tokens)
      if i:  # The first round warms up.
        seconds[name].append(taken)
  plain = seconds['plain causal task']
  rows = {
    name: {
      'tokens_per_cpu_second': tokens.size / statistics.median(taken),
      'ratio_to_plain': statistics.median(
        p / t for p, t in zip(plain, taken, strict=True)
      ),
    }
    for name, taken in seconds.items()
  }
  print('| task | tokens per CPU second | of the plain task |\n|---|---|---|')
  for name, row in rows.items():
    print(
      f'| {name} | {row["tokens_per_cpu_second"] / 1e6:.2f}M '
      f'| {row["ratio_to_plain"]:.0%} |'
    )
  if _OUTPUT.value:
    with open(_OUTPUT.value, 'w', encoding='utf-8') as f:
      json.dump(rows, f, indent=2)
      f.write('\n')


if __name__ == '__main__':
  app.run(main)
