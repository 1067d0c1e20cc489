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

"""Data that others write, fuzzed: as written, left out and told, or errors."""

from collections.abc import Callable
import json
import pathlib
import re
from typing import Any

from fuzzing import JSON, damaged, fuzz, lines, read_or_named, slow_fuzz
from hypothesis import example, given, settings
from hypothesis import strategies as st
import pytest
import seqio
import tensorflow as tf

from salt_t5x.data import (
  bad_lines,
  cache_writer,
  hashing,
  ordered_cache,
  ordered_tasks,
  pile_shards,
  shuffle,
  supervised_tasks,
)
from salt_t5x.evaluation.few_shot import scores
import tiny

# --- Caches -------------------------------------------------------------------

COUNT = 12


@pytest.fixture(scope='module')
def cache(tmp_path_factory):
  """A registered task and the folder of its cache."""
  folder = tmp_path_factory.mktemp('caches')

  def examples(split, shuffle_files, seed=None):
    del split, shuffle_files, seed
    return tf.data.Dataset.range(COUNT).map(
      lambda i: {
        'targets': tf.fill([tiny.LENGTH], tf.cast(3 + i, tf.int32)),
        'id': i,
        'domain': tf.constant('é'),
      }
    )

  targets = seqio.Feature(tiny.vocabulary(), add_eos=False, dtype=tf.int32)
  cached = seqio.Task(
    'fuzzed_sequences',
    source=seqio.FunctionDataSource(examples, splits=['train']),
    preprocessors=[seqio.CacheDatasetPlaceholder()],
    output_features={'targets': targets},
  )
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(shuffle, 'EXAMPLES_OF_A_FILE', COUNT // 2)
    cache_writer.write(cached, str(folder))
  before = seqio.get_global_cache_dirs()
  seqio.set_global_cache_dirs([*before, str(folder)])
  seqio.TaskRegistry.add(
    'fuzzed',
    source=ordered_cache.CachedSource(cached, {'targets': tiny.LENGTH}),
    preprocessors=[],
    output_features={'targets': targets},
    shuffle_buffer_size=None,
    task_cls=ordered_tasks.OrderedTask,
  )
  yield pathlib.Path(cached.cache_dir)
  seqio.TaskRegistry.remove('fuzzed')
  seqio.set_global_cache_dirs(before)


def read_cache():
  ordered_cache.get_task('fuzzed').source.fingerprint('train')
  return ordered_cache.read_sequences('fuzzed', 'train')


def with_content(path: pathlib.Path, content: bytes, read: Callable[[], Any]):
  """Reads while a file holds something else."""
  before = path.read_bytes()
  path.write_bytes(content)
  try:
    return read_or_named(read, str(path.parent))
  finally:
    path.write_bytes(before)


FILES = (
  'info.train.json',
  'stats.train.json',
  'order.train.json',
  'train.tfrecord-00000-of-00002',
  'train.tfrecord-00001-of-00002',
)


def assert_as_written(found):
  assert [domain for domain, _ in found] == ['é'] * COUNT
  order = sorted(
    range(COUNT),
    key=lambda i: hashing.digest(b'order 0 ', str(i).encode()),
  )
  assert [x.tolist() for _, x in found] == [
    [3 + i] * tiny.LENGTH for i in order
  ]


@given(st.data())
@settings(max_examples=30)
def test_caches_are_as_written_or_an_error(cache, data):
  assert_as_written(read_cache())
  path = cache / data.draw(st.sampled_from(FILES))
  found = with_content(path, damaged(data, path.read_bytes()), read_cache)
  # The description is no part of what is read.
  if found is not None and path.suffix != '.json':
    assert_as_written(found)


@given(JSON)
@slow_fuzz
@example({'examples': COUNT})
@example({'num_shards': 2, 'features': {}})
@example({'num_shards': 2.0, 'examples': 1e400})
@example({'num_shards': 10**30, 'examples': 10**18})
@example({'num_shards': 2, 'features': {'targets': {'dtype': 1, 'shape': 1}}})
def test_descriptions_of_caches(cache, content):
  text = json.dumps(content).encode()
  for name in FILES[:3]:
    found = with_content(cache / name, text, read_cache)
    is_right = name.startswith('stats') and content == {'examples': COUNT}
    assert (found is not None) == is_right


def test_records_that_end_between_two(cache):
  path = cache / FILES[3]
  with pytest.raises(ValueError, match='00000-of-00002 has 0 bytes, but '):
    before = path.read_bytes()
    path.write_bytes(b'')
    try:
      read_cache()
    finally:
      path.write_bytes(before)


def test_records_of_something_else(cache, tmp_path):
  other = str(tmp_path / 'records')
  with tf.io.TFRecordWriter(other) as writer:
    writer.write(b'\xff' * 1000)
  content = pathlib.Path(other).read_bytes()
  assert with_content(cache / FILES[3], content, read_cache) is None


def test_the_search_for_a_damaged_file_has_an_end(cache, monkeypatch):
  monkeypatch.setattr(ordered_cache, '_SEARCH_SECONDS', -1)
  path = cache / FILES[4]
  content = path.read_bytes()[:-1]
  assert with_content(path, content, read_cache) is None


# --- Lines --------------------------------------------------------------------

TEXTS = ['one', 'two\nlines', 'ü', '\0', ' spaced ']


@given(st.data())
@settings(max_examples=200)
def test_shards_of_text_are_as_written_or_reported(tmp_path_factory, data):
  path = tmp_path_factory.mktemp('text') / 'a.jsonl.zst'
  pile_shards.write(str(path), [(text, 'd') for text in TEXTS])
  path.write_bytes(damaged(data, path.read_bytes()))
  report = bad_lines.Report()
  found = read_or_named(
    lambda: list(pile_shards.read(str(path), report=report)), str(path)
  )
  if found is not None and not report.counts:
    assert [text.decode() for text, _, _ in found] == TEXTS


@given(st.binary(max_size=200))
@fuzz
@example(b'{"q": "x", "a": ' + b'[' * 10**5)
@example(b'{"q": 1e999, "a": NaN}')
@example(b'{"q": "\\ud800", "a": "b"}')
def test_lines_of_supervised_tasks(tmp_path_factory, content):
  path = tmp_path_factory.mktemp('lines') / 'train.jsonl'
  good = b'{"q": "x", "a": "y"}\n'
  path.write_bytes(good + content)
  source = supervised_tasks.ExampleSource(
    {'train': str(path)}, '{q.real}' if not content else '{q}', '{a}'
  )
  found = read_or_named(lambda: source.num_input_examples('train'), str(path))
  assert found is None or 1 <= found <= 1 + len(content.splitlines())


# --- Benchmarks ---------------------------------------------------------------


@pytest.fixture(scope='module')
def load(tmp_path_factory):
  """Reads lines as the test split of a benchmark."""
  loading = pytest.importorskip('salt_t5x.evaluation.few_shot.loading')
  suite = pytest.importorskip('salt_t5x.evaluation.few_shot.suite')

  def load(name: str, content: bytes):
    folder = tmp_path_factory.mktemp('benchmarks')
    (folder / name).mkdir()
    (folder / name / 'test.jsonl').write_bytes(content)
    found, _ = loading.load(
      suite.find([name]),
      data_dir=str(folder),
      use_hub=False,
      run_programs=True,
      length=128,
    )
    return list(found[0].task.eval_docs)

  return load


RTE = {'premise': 'It rains.', 'hypothesis': 'It is wet.', 'label': 0}
MBPP = {'text': 'Add.', 'code': 'x = 1', 'test_list': ['assert x']}


def test_documents_of_benchmarks(load):
  other = RTE | {'label': 1}
  assert load('rte', lines([RTE, other])) == [RTE, other]
  assert load('mbpp', lines([MBPP])) == [MBPP]


@pytest.mark.parametrize(
  'content, message',
  [
    (b'', 'holds no document'),
    (lines([RTE]) + b'{"premise":', 'JSON parse error'),
    (lines([RTE]) + b'\xff', 'JSON parse error'),
    (lines([RTE, {'premise': 'x', 'label': 1}]), "1 .* 'hypothesis' = None"),
    (lines([RTE, RTE | {'premise': None}]), "1 .* 'premise' = None"),
    (lines([RTE, RTE | {'label': -1}]), "'label' = -1"),
    (lines([RTE, RTE | {'label': 2}]), "'label' = 2"),
    (lines([RTE, RTE | {'label': 'x'}]), "'label' = 'x'"),
  ],
)
def test_bad_documents_of_benchmarks(load, content, message):
  with pytest.raises(ValueError, match=f'rte cannot be read as RTE.*{message}'):
    load('rte', content)


@pytest.mark.parametrize('tests', [None, [], ['assert x', None]])
def test_programs_without_tests(load, tests):
  with pytest.raises(ValueError, match="mbpp .* document 1 .* 'test_list' = "):
    load('mbpp', lines([MBPP, MBPP | {'test_list': tests}]))


@given(st.data())
@slow_fuzz
def test_damaged_documents_of_benchmarks(load, data):
  content = damaged(data, lines([RTE, RTE | {'label': 1}]))
  read_or_named(lambda: load('rte', content), '/rte cannot be read as RTE')


def test_tasks_in_yaml_run_no_other_code():
  """`!function` runs what it names: our own measures or lm-eval's."""
  folder = pathlib.Path(scores.__file__).parent
  files = sorted(folder.glob('*.yaml'))
  assert len(files) == 11
  for path in files:
    text = path.read_text(encoding='utf-8')
    for tag in re.findall(r'(?<!\w)!\S+\s+\S+', text):
      name = tag.removeprefix('!function ')
      assert name.startswith(
        ('salt_t5x.evaluation.few_shot.scores.', 'lm_eval.tasks.')
      )
