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

"""Files that we write, fuzzed: what is written is read, damage is named.

Whatever bytes a file holds, reading it gives what it says or an error with the
file's name; where there are checksums, what was written or an error.
"""

from collections.abc import Callable
import dataclasses
import json
import math
import os
from typing import Any

from fuzzing import HOSTILE, JSON, damaged, fuzz, lines, read_or_named
from hypothesis import example, given, settings
from hypothesis import strategies as st
import numpy as np
import pytest

from salt_t5x import files
from salt_t5x.checkpoints import run_record
from salt_t5x.evaluation import buckets
from salt_t5x.evaluation import results as results_lib
from salt_t5x.minipile import builds
from salt_t5x.selection import record as selection_record
from salt_t5x.selection import score_shards, scoring
from salt_t5x.studies import processes

MANIFEST = score_shards.Manifest(
  task='notes',
  split='train',
  data='1f',
  teacher='/models/small/checkpoint_30',
  teacher_identity='2e',
  step=30,
  sequences_read=240,
  dtype=None,
  top_k=10,
  examples=10,
  shard_size=4,
  examples_by_file=[6, 5],
)
RECORD = run_record.RunRecord(
  vocabulary='sentencepiece:1f:100',
  vocab_size=300,
  kd_steps=5,
  teacher='/models/small/checkpoint_30',
  teacher_identity='2e',
  schedule='step(0.667, 5)',
  teacher_temperature=0.25,
)
SELECTION = selection_record.Selection(
  kind='zero',
  threshold_score=0.5,
  threshold_id=7,
  selected=3,
  pool=9,
  first_position=1,
  ties=2,
  ties_selected=1,
  kd_steps=3,
  batch_size=1,
  top_k=10,
  teacher='/models/small/checkpoint_30',
  teacher_identity='2e',
  step=30,
  task='notes',
  split='train',
  data='1f',
  scores='/scores',
  selected_by_file=[1, 2],
)
OPTIONS = {'checkpoint': '/a', 'length': 8}
RESULT = {'all': {'accuracy': 0.5, 'tokens': 7}}
BUILD = {'package': {'name': 'p'}, 'tasks': {}}
ARGUMENTS = {'sequence_length': 128, 'megabytes': 30.0}
JOB = {'options': ['RANDOM_SEED=0'], 'gin_files': 'a1b2'}


def read_result(folder):
  store = results_lib.Store(folder)
  return store.has('A', 'm', OPTIONS) and store.read('A', 'm')


def read_options(folder):
  return processes.Job('teacher', folder, [], JOB).is_done()


@dataclasses.dataclass(frozen=True)
class Format:
  """A file of ours.

  Attributes:
    file: in a folder.
    content: as it is written.
    read: from the folder.
    value: that is read.
  """

  file: str
  content: Any
  read: Callable[[str], Any]
  value: Any


FORMATS = {
  'manifest': Format(
    'scores.json',
    dataclasses.asdict(MANIFEST),
    score_shards.read_manifest,
    MANIFEST,
  ),
  'selection': Format(
    'selection.json',
    dataclasses.asdict(SELECTION),
    lambda folder: selection_record.read(
      os.path.join(folder, 'selection.json')
    ),
    SELECTION,
  ),
  'evaluation': Format(
    'A/m.json', {'options': OPTIONS, 'result': RESULT}, read_result, RESULT
  ),
  'run': Format(
    'salt_t5x.json', dataclasses.asdict(RECORD), run_record.read, RECORD
  ),
  'mini-Pile': Format(
    'info.json',
    {'arguments': ARGUMENTS},
    lambda folder: builds.build(folder, 'dir', {'arguments': ARGUMENTS}, None),
    {'arguments': ARGUMENTS},
  ),
  'benchmarks': Format(
    'info.json',
    BUILD,
    lambda folder: builds.build(folder, 'dir', BUILD, None),
    BUILD,
  ),
  'job': Format('options.json', JOB, read_options, False),
}


@pytest.fixture(scope='module', params=FORMATS)
def kind(request, tmp_path_factory):
  """(format, its folder, the file's path)."""
  found = FORMATS[request.param]
  folder = tmp_path_factory.mktemp('format')
  path = folder / found.file
  path.parent.mkdir(parents=True, exist_ok=True)
  return found, str(folder), path


def read_json(kind, content: bytes) -> Any:
  found, folder, path = kind
  path.write_bytes(content)
  # What is of another build is told by the folder.
  return read_or_named(lambda: found.read(folder), os.path.dirname(path))


def test_written_records_are_read(kind):
  found, _, _ = kind
  assert read_json(kind, json.dumps(found.content).encode()) == found.value


@given(st.data())
@fuzz
def test_damaged_bytes_of_json(kind, data):
  found, _, _ = kind
  result = read_json(kind, damaged(data, json.dumps(found.content).encode()))
  assert result is None or type(result) is type(found.value)


@given(st.binary(max_size=100))
@pytest.mark.parametrize('content', HOSTILE)
@settings(max_examples=1)
def test_hostile_bytes(kind, content, more):
  assert read_json(kind, content) is None
  assert read_json(kind, content + more) is None


@given(JSON)
@fuzz
def test_json_of_something_else(kind, content):
  assert read_json(kind, json.dumps(content).encode()) is None


@given(st.data())
@fuzz
def test_values_of_another_type(kind, data):
  found, _, _ = kind
  name = data.draw(st.sampled_from(sorted(found.content)))
  content = found.content | {name: data.draw(JSON)}
  result = read_json(kind, json.dumps(content).encode())
  if dataclasses.is_dataclass(result):
    # Whatever is read has the types that are declared.
    files.check_types(result)


def test_a_file_where_another_belongs(kind):
  found, _, _ = kind
  for other in FORMATS.values():
    result = read_json(kind, json.dumps(other.content).encode())
    assert result == (found.value if other is found else None)


@given(JSON, st.floats())
@fuzz
def test_results_survive_json(tmp_path_factory, content, number):
  store = results_lib.Store(str(tmp_path_factory.mktemp('results')))
  store.write('A', 'm', {'x': 1}, {'number': number, 'more': content}, [])
  assert store.has('A', 'm', {'x': 1})
  found = store.read('A', 'm')
  assert found['number'] == (number if math.isfinite(number) else None)


def test_results_that_are_no_number_are_shown(tmp_path):
  store = results_lib.Store(str(tmp_path))
  text = dict.fromkeys(
    ('accuracy', 'accuracy_error', 'log_perplexity', 'log_perplexity_error'),
    math.inf,
  )
  lambada = dict(
    score=math.nan,
    standard_error=math.nan,
    chance=0.0,
    documents=1,
    cut=0,
    requests=1,
    source='files',
    from_evaluated=True,
    log_perplexity=math.inf,
    log_perplexity_error=math.nan,
    measures={'acc': math.nan, 'perplexity': math.inf},
  )
  for name, result in (
    ('held_out', {'all': text | {'tokens': 3}}),
    ('lambada', lambada),
    ('sums', {'metrics': {'f1': math.nan}, 'errors': {}, 'examples': 1}),
  ):
    store.write('A', name, {}, result, [])
  page = results_lib.report(
    store, ['A'], ['held_out', 'lambada', 'sums'], {}, ['sums'], write=True
  )
  assert '| all | 3 | nan / nan |' in page
  assert '| sums | f1 | 1 | nan |' in page
  assert '| LAMBADA † | Acc | 1 | 0.0 | nan |' in page
  assert 'log-perplexity of the right answer, nats' in page and 'A nan' in page
  assert (tmp_path / 'results.png').stat().st_size


# --- Scores -------------------------------------------------------------------


def write_scores(folder, records, names):
  manifest = dataclasses.replace(
    MANIFEST,
    examples=len(records),
    shard_size=len(records),
    examples_by_file=[len(records)],
  )
  score_shards.begin(str(folder), manifest)
  score_shards.write_shard(str(folder), 0, records, names)
  return manifest


@given(
  st.lists(
    st.tuples(
      st.integers(0, 2**63 - 1),
      st.integers(0, 2),
      *[st.floats(width=32) for _ in scoring.KINDS],
    ),
    min_size=1,
  ),
  st.lists(st.text(), min_size=3, max_size=3),
  st.data(),
)
@fuzz
def test_scores_are_as_written_or_an_error(tmp_path_factory, rows, names, data):
  folder = tmp_path_factory.mktemp('scores')
  records = np.array(rows, score_shards.RECORD)
  manifest = write_scores(folder, records, names)
  assert score_shards.read_manifest(str(folder)) == manifest
  read = lambda: list(score_shards.read_shards(str(folder), manifest))
  for path in (None, folder / 'scores-00000.bin', folder / 'scores-00000.json'):
    if path is not None:
      content = path.read_bytes()
      path.write_bytes(damaged(data, content))
    found = read_or_named(read, str(folder / 'scores-00000'))
    if path is None:
      assert found is not None
    else:
      path.write_bytes(content)
    if found is not None:
      [(found, domains)] = found
      assert found.tobytes() == records.tobytes() and domains == names


def test_more_shards_than_there_can_be(tmp_path):
  write_scores(tmp_path, np.zeros(2, score_shards.RECORD), ['a'])
  manifest = dataclasses.replace(
    MANIFEST, examples=2**62, shard_size=1, examples_by_file=[2**62]
  )
  with pytest.raises(ValueError, match='missing, the first is number 1'):
    score_shards.paths(str(tmp_path), manifest)


def test_a_folder_whose_name_is_a_pattern(tmp_path):
  folder = tmp_path / 'a[1]'
  write_scores(folder, np.zeros(2, score_shards.RECORD), ['a'])
  with pytest.raises(ValueError, match='another configuration'):
    score_shards.begin(str(folder), MANIFEST)


# --- Documents of an evaluation -----------------------------------------------

DOCUMENTS = [
  {'doc_id': i, 'score': i / 3, 'confidence': None if i else -1.5}
  for i in range(4)
]


def read_documents(folder, content: bytes):
  path = folder / 'SLM' / 'task.jsonl'
  path.parent.mkdir(exist_ok=True)
  path.write_bytes(content)
  return read_or_named(lambda: buckets.read(str(folder), 'SLM'), str(path))


@given(st.data())
@fuzz
def test_damaged_documents_of_an_evaluation(tmp_path_factory, data):
  folder = tmp_path_factory.mktemp('documents')
  [task] = read_documents(folder, lines(DOCUMENTS))
  assert task.means['SLM']['all'].count == len(DOCUMENTS)
  read_documents(folder, damaged(data, lines(DOCUMENTS)))


@given(st.sampled_from(sorted(DOCUMENTS[0])), JSON)
@fuzz
@example('doc_id', 1e400)
@example('doc_id', True)
@example('doc_id', '7')
@example('score', 10**400)
@example('score', '0.5')
@example('confidence', 'likely')
def test_values_of_documents(tmp_path_factory, name, value):
  folder = tmp_path_factory.mktemp('documents')
  found = read_documents(
    folder, lines([*DOCUMENTS, {**DOCUMENTS[0], 'doc_id': 4, name: value}])
  )
  allowed = {
    'doc_id': type(value) is int and value not in range(4),
    'score': type(value) in (int, float) and abs(value) < math.inf,
    'confidence': value is None or type(value) in (int, float),
  }
  assert found is None or allowed[name]
