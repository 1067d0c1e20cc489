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

"""Tests of salt_t5x.prepare: no network; the text is made on the spot."""

import collections
import json
import os
import pathlib
import random
import re

from absl.testing import flagsaver
import numpy as np
import pytest
import sentencepiece
import tensorflow as tf

from salt_t5x import corpus, prepare

LENGTH = 16
DOMAINS = ('notes', 'letters')
ARGUMENTS = {'sequence_length': LENGTH, 'vocab_size': 400, 'megabytes': 1}


@pytest.fixture(scope='module')
def sources(tmp_path_factory):
  """Two domains of 120 documents; each says its own number many times."""
  rng = random.Random(0)
  letters = 'abcdefghijklmnop'
  words = [
    ''.join(rng.choices(letters, k=rng.randint(2, 7))) for _ in range(300)
  ]
  result = []
  for domain in DOMAINS:
    folder = tmp_path_factory.mktemp(domain)
    for number in range(120):
      lines = [
        '  ' * rng.randint(0, 2)
        + ' '.join(rng.choices(words, k=6))
        + f' <{domain}{number}>'
        for _ in range(rng.randint(5, 15))
      ]
      (folder / f'{number:03d}.txt').write_text('\n'.join(lines))
    result.append(
      corpus.Source(
        domain=domain,
        name=f'my-{domain}',
        version='1',
        licence='none',
        members=r'.*\.txt',
        parse=corpus.parse_file,
        folder=str(folder),
      )
    )
  return result


@pytest.fixture(scope='module')
def built(sources, tmp_path_factory):
  """(directory, info) of one build."""
  data_dir = str(tmp_path_factory.mktemp('built') / 'data')
  return data_dir, prepare.build(data_dir, '', **ARGUMENTS, sources=sources)


def read(data_dir, split):
  """[(id, domain, tokens)] of all shards in the order of their names."""
  shards = tf.io.gfile.glob(os.path.join(data_dir, f'{split}.tfrecord-*'))
  result = []
  for record in tf.data.TFRecordDataset(sorted(shards)).as_numpy_iterator():
    feature = tf.train.Example.FromString(record).features.feature
    [number] = feature['id'].int64_list.value
    [domain] = feature['domain'].bytes_list.value
    tokens = list(feature['targets'].int64_list.value)
    result.append((number, domain.decode(), tokens))
  return result


def read_files(folder):
  return {
    name: (folder / name).read_bytes() for name in sorted(os.listdir(folder))
  }


def vocabulary(data_dir):
  return sentencepiece.SentencePieceProcessor(
    model_file=os.path.join(data_dir, 'vocabulary.model')
  )


def test_two_builds_are_the_same_bytes(built, sources, tmp_path):
  data_dir, info = built
  again = prepare.build(
    str(tmp_path / 'elsewhere'), '', **ARGUMENTS, sources=sources
  )
  files = read_files(tmp_path / 'elsewhere')
  assert sorted(files) == [
    'info.json',
    *(f'train.tfrecord-0000{i}-of-00004' for i in range(4)),
    'validation.tfrecord-00000-of-00001',
    'vocabulary.model',
  ]
  assert files == read_files(pathlib.Path(data_dir))
  assert again == info == json.loads(files['info.json'])


def test_vocabulary_has_t5_ids_and_keeps_every_character(built):
  processor = vocabulary(built[0])
  assert processor.vocab_size() == 400
  assert (processor.pad_id(), processor.eos_id(), processor.unk_id()) == (
    0,
    1,
    2,
  )
  assert processor.bos_id() == -1
  text = '  def f(x):\n\n\treturn  x  # é 中 ½\r\n '
  tokens = processor.encode(text)
  assert processor.unk_id() not in tokens
  assert processor.decode(tokens) == text


def test_no_document_is_in_both_splits(built):
  data_dir, _ = built
  processor = vocabulary(data_dir)
  seen = {}
  for split in ('train', 'validation'):
    texts = [processor.decode(tokens) for *_, tokens in read(data_dir, split)]
    seen[split] = set(re.findall(r'<[a-z]+\d+>', '\n'.join(texts)))
  assert len(seen['validation']) > 2
  assert len(seen['train']) > 200
  assert not seen['train'] & seen['validation']


@pytest.mark.parametrize('split', ['train', 'validation'])
def test_sequences_are_the_documents_with_eos_between(built, sources, split):
  data_dir, info = built
  processor = vocabulary(data_dir)
  documents = corpus.load(sources, '', 1e12).documents
  records = read(data_dir, split)
  for domain in DOMAINS:
    stream = []
    for document in sorted(
      documents, key=lambda document: corpus.uniform('order', document.id)
    ):
      if document.domain == domain and prepare.split_of(document) == split:
        stream += [*processor.encode(document.text), 1]
    count = len(stream) // LENGTH
    expected = [tuple(stream[i * LENGTH :][:LENGTH]) for i in range(count)]
    found = [tuple(tokens) for _, name, tokens in records if name == domain]
    assert count > 0
    assert collections.Counter(found) == collections.Counter(expected)
    assert info['counts'][split][domain]['tokens'] == len(stream)


def test_tokenize_and_cut(built):
  processor = vocabulary(built[0])
  documents = [
    corpus.Document(str(i), 'notes', 'ab ' * (i + 1)) for i in range(200)
  ]
  with prepare.tqdm.tqdm(total=200, disable=True) as progress:
    stream = prepare.tokenize(documents, processor, progress)
  assert stream.dtype == np.int32
  pieces = np.split(stream, np.flatnonzero(stream == 1) + 1)
  assert pieces.pop().size == 0  # the stream ends with an EOS
  texts = [processor.decode(piece[:-1].tolist()) for piece in pieces]
  assert sorted(texts) == sorted(document.text for document in documents)
  assert texts != [document.text for document in documents]  # shuffled
  rows = prepare.cut(stream, 7)
  assert rows.shape == (len(stream) // 7, 7)
  np.testing.assert_array_equal(rows.ravel(), stream[: rows.size])


def test_global_order_is_mixed_and_ids_are_unique(built):
  data_dir, info = built
  records = read(data_dir, 'train')
  numbers = [number for number, *_ in records]
  everyone = numbers + [number for number, *_ in read(data_dir, 'validation')]
  assert len(set(everyone)) == len(everyone)
  assert all(0 <= number < 2**63 for number in everyone)
  assert numbers != sorted(numbers)
  domains = [domain for _, domain, _ in records]
  half = domains[: len(domains) // 2].count('notes') / domains.count('notes')
  assert 0.4 < half < 0.6
  assert collections.Counter(domains) == {
    domain: counts['sequences']
    for domain, counts in info['counts']['train'].items()
  }
  sizes = [
    sum(
      1
      for _ in tf.data.TFRecordDataset(
        os.path.join(data_dir, f'train.tfrecord-0000{i}-of-00004')
      )
    )
    for i in range(4)
  ]
  assert max(sizes) - min(sizes) <= 1


def test_an_id_follows_place_and_content():
  tokens = np.arange(4, dtype=np.int32)
  number = prepare.sequence_id('train', 'notes', 3, tokens)
  assert number == prepare.sequence_id('train', 'notes', 3, tokens.copy())
  others = {
    prepare.sequence_id('validation', 'notes', 3, tokens),
    prepare.sequence_id('train', 'letters', 3, tokens),
    prepare.sequence_id('train', 'notes', 4, tokens),
    prepare.sequence_id('train', 'notes', 3, tokens + 1),
  }
  assert len(others | {number}) == 5


def test_info_counts_documents_and_names_sources(built, sources):
  _, info = built
  documents = corpus.load(sources, '', 1e12).documents
  for domain in DOMAINS:
    counts = [info['counts'][split][domain] for split in prepare.SHARDS]
    assert sum(c['documents'] for c in counts) == 120
    assert sum(c['bytes'] for c in counts) == sum(
      len(d.text.encode()) for d in documents if d.domain == domain
    )
  assert [s['name'] for s in info['sources']] == ['my-notes', 'my-letters']
  assert {'version', 'licence'} <= info['sources'][0].keys()
  assert info['bad_entries'] == {'notes': [], 'letters': []}
  lines = prepare.table(info).splitlines()
  assert [line.split()[0] for line in lines[1:]] == ['notes', 'letters', 'all']
  assert lines[-1].split()[1] == '240'


def test_megabytes_cap_each_domain_at_its_share(sources, tmp_path):
  arguments = {**ARGUMENTS, 'megabytes': 0.04, 'vocab_size': 300}
  info = prepare.build(str(tmp_path / 'data'), '', **arguments, sources=sources)
  for domain in DOMAINS:
    size = sum(counts[domain]['bytes'] for counts in info['counts'].values())
    assert 18_000 < size <= 20_000


def test_a_finished_build_is_found(built, sources, monkeypatch):
  data_dir, info = built
  monkeypatch.delattr(corpus, 'load')
  assert info == prepare.build(data_dir, '', **ARGUMENTS, sources=sources)


@pytest.mark.parametrize(
  ('argument', 'value'),
  [('sequence_length', 32), ('vocab_size', 500), ('megabytes', 2)],
)
def test_other_arguments_are_refused(built, sources, argument, value):
  data_dir, _ = built
  before = read_files(pathlib.Path(data_dir))
  with pytest.raises(ValueError) as error:
    prepare.build(
      data_dir, '', **{**ARGUMENTS, argument: value}, sources=sources
    )
  message = str(error.value)
  there = ARGUMENTS[argument]
  assert f'{argument} is {there} there and {value} here' in message
  assert 'Choose another data_dir' in message
  assert sum(name in message for name in ARGUMENTS) == 1
  assert read_files(pathlib.Path(data_dir)) == before


def test_other_wheels_are_refused(built, sources):
  other = corpus.Source(
    domain='notes',
    name='other',
    version='2',
    licence='none',
    members='.*',
    parse=corpus.parse_file,
    sha256='0' * 64,
  )
  with pytest.raises(ValueError, match=r'wheels is \[\] there and .*other-2'):
    prepare.build(built[0], '', **ARGUMENTS, sources=[*sources, other])


def test_an_interrupted_build_leaves_nothing(sources, tmp_path, monkeypatch):
  data_dir = tmp_path / 'data'
  write_shards = prepare._write_shards

  def interrupted(build_dir, split, sequences):
    write_shards(build_dir, split, sequences)
    if split == 'validation':
      raise KeyboardInterrupt

  with monkeypatch.context() as patch:
    patch.setattr(prepare, '_write_shards', interrupted)
    with pytest.raises(KeyboardInterrupt):
      prepare.build(str(data_dir), '', **ARGUMENTS, sources=sources)
  assert os.listdir(tmp_path) == []
  prepare.build(str(data_dir), '', **ARGUMENTS, sources=sources)
  assert os.listdir(tmp_path) == ['data']


def test_half_a_build_is_not_taken_for_one(built, sources, tmp_path):
  shard = 'validation.tfrecord-00000-of-00001'
  (tmp_path / shard).write_bytes(b'')
  with pytest.raises(ValueError, match='not a finished build'):
    prepare.build(str(tmp_path), '', **ARGUMENTS, sources=sources)
  assert os.listdir(tmp_path) == [shard]


def test_an_empty_directory_is_filled(built, sources, tmp_path):
  info = prepare.build(str(tmp_path), '', **ARGUMENTS, sources=sources)
  assert info == built[1]
  assert 'info.json' in os.listdir(tmp_path)


def test_too_little_text_is_an_error(sources, tmp_path):
  with pytest.raises(ValueError, match='no sequence of 100000 tokens'):
    prepare.build(
      str(tmp_path / 'data'),
      '',
      **{**ARGUMENTS, 'sequence_length': 100_000},
      sources=sources,
    )
  assert os.listdir(tmp_path) == []


def test_the_command_keeps_wheels_beside_the_data(
  built, tmp_path, monkeypatch, capsys
):
  calls = []

  def build(*arguments):
    calls.append(arguments)
    return built[1]

  monkeypatch.setattr(prepare, 'build', build)
  prepare.flags.FLAGS.mark_as_parsed()
  with flagsaver.flagsaver(data_dir=str(tmp_path / 'data'), megabytes=3.0):
    prepare.main(['prepare'])
  assert calls == [
    (str(tmp_path / 'data'), str(tmp_path / 'wheels'), 128, 2048, 3.0)
  ]
  assert 'letters' in capsys.readouterr().out
