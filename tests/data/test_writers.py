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

"""Whatever writes a cache, `shuffle` gives it one order, and a random one.

Random: like a permutation that is drawn uniformly. Each statistic is within
four standard errors of its mean over such permutations. The rank correlation
has the mean 0 and the standard error 1/√(n - 1); those of the others are from
400 permutations by NumPy.
"""

import re
import subprocess
import sys

import numpy as np
import pytest
from scipy import stats
import seqio
import tensorflow as tf
import writers_task

from salt_t5x import shuffle
from salt_t5x.data import cache_writer, order
from salt_t5x.data import shuffle as shuffle_lib
import tiny_runs

ONE_PROCESS = '--runner=DirectRunner'
TWO_PROCESSES = (
  f'{ONE_PROCESS},--direct_running_mode=multi_processing,--direct_num_workers=2'
)
EPOCHS = 3
WINDOW = 64
ERRORS = 4
TAIL = stats.norm.sf(ERRORS)

all_shards = pytest.mark.parametrize(
  'shards', [2, pytest.param(40, marks=pytest.mark.slow)], scope='module'
)


@pytest.fixture(scope='module')
def corpus(tmp_path_factory):
  folder = tmp_path_factory.mktemp('corpus')
  writers_task.write(folder)
  return folder


@pytest.fixture(scope='module')
def eight_files():
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(shuffle_lib, 'EXAMPLES_OF_A_FILE', 300)
    yield


def cache_with_beam(corpus, folder, shards, options):
  """Caches and shuffles as docs/data.md says; returns the task's folder."""
  pytest.importorskip('apache_beam', reason='apache-beam is not installed')
  task = writers_task.sequences_task(corpus, shards)
  done = subprocess.run(
    [
      *(sys.executable, '-m', 'seqio.scripts.cache_tasks_main'),
      '--module_import=writers_task',
      f'--tasks={task.name}',
      f'--output_cache_dir={folder}/raw',
      f'--pipeline_options={options}',
      '--min_shards=3',
    ],
    env=tiny_runs.environment(
      pythonpath=[tiny_runs.TESTS, *tiny_runs.real_t5x_path()],
      SALT_T5X_TEST_WRITERS=str(corpus),
    ),
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr[-5000:]
  flags = [f'--task={task.name}', f'--input_cache_dir={folder}/raw']
  flags = ['shuffle', *flags, f'--output_cache_dir={folder}']
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(seqio.TaskRegistry, '_REGISTRY', {task.name: task})
    shuffle.main(shuffle.parse_flags(flags))
  return folder / task.name


@pytest.fixture(scope='module')
def beam(corpus, eight_files, shards, tmp_path_factory):
  folder = tmp_path_factory.mktemp('beam')
  return cache_with_beam(corpus, folder, shards, ONE_PROCESS)


@pytest.fixture(scope='module')
def local(corpus, eight_files, shards, tmp_path_factory):
  folder = tmp_path_factory.mktemp('local')
  task = writers_task.sequences_task(corpus, shards)
  cache_writer.write(task, str(folder))
  return folder / task.name


def read_bytes(folder):
  return {x.name: x.read_bytes() for x in folder.iterdir()}


@all_shards
def test_beam_and_the_local_writer_give_the_same_cache(beam, local):
  assert read_bytes(beam) == read_bytes(local)
  assert (local / 'train.tfrecord-00007-of-00008').exists()


@pytest.mark.slow
@all_shards
def test_two_processes_give_the_same_cache(corpus, local, shards, tmp_path):
  found = cache_with_beam(corpus, tmp_path, shards, TWO_PROCESSES)
  assert read_bytes(found) == read_bytes(local)


def describe(records):
  """Where sequences come from.

  Args:
    records: serialized examples.

  Returns:
    (documents, domains, ranks in the raw text), int [n] each. A sequence
    belongs to the document that its first whole word names.
  """
  documents, domains, places = [], [], []
  for record in records:
    features = tf.train.Example.FromString(record).features.feature
    # ByteVocabulary has three special ids.
    text = bytes(x - 3 for x in features['targets'].int64_list.value if x > 2)
    document, word = map(int, re.search(rb'd(\d\d)w(\d{3}) ', text).groups())
    documents.append(document)
    domains.append(features['domain'].bytes_list.value[0])
    places.append((document, word))
  assert len(set(places)) == len(places) > 2000
  return (
    np.array(documents),
    np.unique(domains, return_inverse=True)[1],
    stats.rankdata([1000 * d + w for d, w in places]),
  )


def rank_correlation(ranks):
  return np.corrcoef(ranks, np.arange(len(ranks)))[0, 1]


def windows(values):
  return values[: len(values) // WINDOW * WINDOW].reshape(-1, WINDOW)


def neighbours_of_one_document(documents, domains):
  return np.mean(documents[1:] == documents[:-1])


def distinct_documents(documents, domains):
  ordered = np.sort(windows(documents))
  return np.mean(np.sum(ordered[:, 1:] != ordered[:, :-1], axis=1) + 1)


def spread_of_domains(documents, domains):
  """The mean over windows of the variance in a domain's share."""
  return sum(np.var(np.mean(windows(domains) == x, 1)) for x in set(domains))


STATISTICS = (
  neighbours_of_one_document,
  distinct_documents,
  spread_of_domains,
)


def deviations(documents, domains, ranks):
  """Returns {statistic: its distance from the mean, in standard errors}."""
  rng = np.random.default_rng(0)
  drawn = [rng.permutation(len(ranks)) for _ in range(400)]
  found = {'ranks': rank_correlation(ranks) * np.sqrt(len(ranks) - 1)}
  for statistic in STATISTICS:
    sample = [statistic(documents[x], domains[x]) for x in drawn]
    found[statistic.__name__] = (
      statistic(documents, domains) - np.mean(sample)
    ) / np.std(sample, ddof=1)
  return found


def mixture_deviates(domains):
  """Whether any window's number of sequences of a domain is too rare.

  All windows, of two lengths, count as tests (Bonferroni); together they err as
  rarely as a normal variable deviates by four standard errors.
  """
  n, rarest, tests = len(domains), [], 0
  for length in (WINDOW, 4 * WINDOW):
    for domain in set(domains):
      member = domains == domain
      total = np.concatenate([[0], np.cumsum(member)])
      counts = total[length:] - total[:-length]
      law = stats.hypergeom(n, member.sum(), length)
      tails = np.minimum(law.cdf(counts), law.sf(counts - 1))
      rarest.append(tails.min())
      tests += len(counts)
  return min(rarest) * tests < TAIL


@pytest.fixture(scope='module')
def epochs(local):
  """What `describe` says about each epoch."""
  found = order.read(str(local), 'train')
  records = [x for _, x in found.stream(epochs=EPOCHS).as_numpy_iterator()]
  return [
    describe(records[i * found.examples : (i + 1) * found.examples])
    for i in range(EPOCHS)
  ]


@all_shards
@pytest.mark.parametrize('epoch', range(EPOCHS))
def test_the_order_is_as_random_as_a_permutation(epochs, epoch):
  found = deviations(*epochs[epoch])
  assert all(abs(x) < ERRORS for x in found.values()), found


@all_shards
@pytest.mark.parametrize('epoch', range(EPOCHS))
def test_any_window_has_the_domains_of_the_corpus(epochs, epoch):
  _, domains, _ = epochs[epoch]
  assert not mixture_deviates(domains)


@all_shards
def test_the_order_in_which_beam_writes_is_not_random(beam):
  """So the statistics tell: the files of the raw cache, read in turn."""
  raw = beam.parent / 'raw' / beam.name
  files = [
    list(tf.data.TFRecordDataset(str(x)).as_numpy_iterator())
    for x in sorted(raw.glob('train.tfrecord-*'))
  ]
  turns = range(max(map(len, files)))
  documents, domains, ranks = describe(
    [x[i] for i in turns for x in files if i < len(x)]
  )
  found = deviations(documents, domains, ranks)
  assert all(abs(x) > ERRORS for x in found.values()), found
  assert mixture_deviates(domains)
