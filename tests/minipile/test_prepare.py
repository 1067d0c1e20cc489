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

"""Building mini-Pile without a network, from text that is made here."""

import collections
import copy
import dataclasses
import itertools
import json
import os
import pathlib
import random
import re

import pytest
import sentencepiece
import tensorflow as tf

from salt_t5x.data import hashing, pile_shards
from salt_t5x.minipile import corpus, prepare

LENGTH = 16
DOMAINS = ('notes', 'letters')
ARGUMENTS = {
  'sequence_length': LENGTH,
  'vocab_size': 400,
  'megabytes': 1,
  'weights': {'notes': 1, 'letters': 1},
}


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


def load(sources):
  return corpus.load(sources, '', 1e12, ARGUMENTS['weights']).documents


def read(data_dir, split):
  """[(id, domain, tokens)] in the global order."""
  folder = os.path.join(data_dir, 'cache', 'minipile_sequences')
  shards = sorted(tf.io.gfile.glob(f'{folder}/{split}.tfrecord-*'))
  files = [
    list(tf.data.TFRecordDataset(shard).as_numpy_iterator()) for shard in shards
  ]
  result = []
  for record in filter(None, sum(itertools.zip_longest(*files), ())):
    feature = tf.train.Example.FromString(record).features.feature
    [number] = feature['id'].int64_list.value
    [domain] = feature['domain'].bytes_list.value
    tokens = list(feature['targets'].int64_list.value)
    result.append((number, domain.decode(), tokens))
  return result


def texts(data_dir, split):
  """The texts of the raw shards, in the order they were dealt."""
  shards = sorted(tf.io.gfile.glob(f'{data_dir}/raw/{split}-*.jsonl.zst'))
  found = [[text.decode() for text, *_ in pile_shards.read(s)] for s in shards]
  return [t for t in sum(itertools.zip_longest(*found), ()) if t is not None]


def read_files(folder):
  return {
    str(path.relative_to(folder)): path.read_bytes()
    for path in sorted(pathlib.Path(folder).rglob('*'))
    if path.is_file()
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
  folder = 'cache/minipile_sequences'
  assert sorted(files) == [
    f'{folder}/COMPLETED',
    f'{folder}/info.train.json',
    f'{folder}/info.validation.json',
    f'{folder}/order.train.json',
    f'{folder}/order.validation.json',
    f'{folder}/stats.train.json',
    f'{folder}/stats.validation.json',
    f'{folder}/train.tfrecord-00000-of-00001',
    f'{folder}/validation.tfrecord-00000-of-00001',
    'info.json',
    *(f'raw/train-0000{i}-of-00004.jsonl.zst' for i in range(4)),
    'raw/validation-00000-of-00001.jsonl.zst',
    'vocabulary.model',
  ]
  assert files == read_files(pathlib.Path(data_dir))
  assert again == info == json.loads(files['info.json'])


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


def test_near_duplicates_of_held_out_documents_are_not_trained_on(
  sources, tmp_path
):
  documents = load(sources)
  held_out = next(d for d in documents if prepare.split_of(d) == 'validation')
  number = itertools.count()
  twin = next(
    twin
    for twin in (
      corpus.Document(f'notes/twin/{i}', 'notes', held_out.text + ' the end')
      for i in number
    )
    if prepare.split_of(twin) == 'train'
  )
  splits, left_out = prepare.divide([*documents, twin])
  assert twin not in splits['train'] and held_out in splits['validation']
  assert left_out['notes'] == 1
  # Nothing else is lost, and the order is mixed.
  together = splits['train'] + splits['validation']
  assert sorted(d.id for d in together) == sorted(d.id for d in documents)
  ids = [d.id for d in splits['train']]
  assert ids != sorted(ids)


@pytest.mark.parametrize('split', ['train', 'validation'])
def test_the_raw_shards_hold_the_documents_of_the_split(built, sources, split):
  documents = load(sources)
  splits, _ = prepare.divide(documents)
  assert texts(built[0], split) == [d.text for d in splits[split]]


@pytest.mark.parametrize('split', ['train', 'validation'])
def test_the_cache_holds_the_sequences_of_the_raw_shards(built, split):
  """All of them: their tokens, put together, are the documents'."""
  data_dir, info = built
  processor = vocabulary(data_dir)
  found = [token for *_, tokens in read(data_dir, split) for token in tokens]
  stream = []
  for text in texts(data_dir, split):
    stream += [*processor.encode(text), 1]
  # What the domains have left is joined; each raw shard drops less than a
  # sequence.
  missing = collections.Counter(stream) - collections.Counter(found)
  assert not collections.Counter(found) - collections.Counter(stream)
  shards = len(tf.io.gfile.glob(f'{data_dir}/raw/{split}-*'))
  assert sum(missing.values()) < LENGTH * shards
  counts = info['counts'][split].values()
  assert sum(c['sequences'] for c in counts) == len(found) // LENGTH > 0


def test_global_order_is_mixed_and_ids_are_unique(built):
  data_dir, info = built
  records = read(data_dir, 'train')
  numbers = [number for number, *_ in records]
  everyone = numbers + [number for number, *_ in read(data_dir, 'validation')]
  assert len(set(everyone)) == len(everyone)
  assert all(0 <= number < 2**63 for number in everyone)
  expected = sorted(
    numbers, key=lambda n: hashing.digest(b'order 0 ', str(n).encode())
  )
  assert numbers == expected
  domains = [domain for _, domain, _ in records]
  half = domains[: len(domains) // 2].count('notes') / domains.count('notes')
  assert 0.4 < half < 0.6
  assert collections.Counter(domains) == {
    domain: counts['sequences']
    for domain, counts in info['counts']['train'].items()
  }


def test_info_counts_documents_and_names_sources(built, sources):
  _, info = built
  documents = load(sources)
  for domain in DOMAINS:
    counts = [info['counts'][split][domain] for split in info['counts']]
    assert sum(c['documents'] for c in counts) == 120
    assert sum(c['bytes'] for c in counts) == sum(
      len(d.text.encode()) for d in documents if d.domain == domain
    )
  assert [s['name'] for s in info['sources']] == ['my-notes', 'my-letters']
  assert {'version', 'licence'} <= info['sources'][0].keys()
  assert info['bad_entries'] == {'notes': [], 'letters': []}
  rows = [
    [cell.strip() for cell in line.split('|')[1:-1]]
    for line in prepare.table(info).splitlines()
  ]
  assert [row[0] for row in rows[2:]] == ['notes', 'letters', 'several', 'all']
  assert rows[-1][:3] == ['all', '2', '240']


def test_tables_of_builds_before_sequences_of_several_domains(built):
  _, info = built
  info = copy.deepcopy(info)
  for counts in info['counts'].values():
    del counts['']
  several = prepare.table(info).splitlines()[-2]
  assert not any(float(x) for x in several.split('|')[2:6])


def test_megabytes_are_divided_by_weight(sources, tmp_path):
  arguments = {**ARGUMENTS, 'megabytes': 0.04}
  arguments['weights'] = {'notes': 3, 'letters': 1}
  info = prepare.build(str(tmp_path / 'data'), '', **arguments, sources=sources)
  for domain, expected in {'notes': 30_000, 'letters': 10_000}.items():
    size = sum(counts[domain]['bytes'] for counts in info['counts'].values())
    assert expected - 2000 < size <= expected
    assert info['available_bytes'][domain] > 40_000


def test_a_finished_build_is_found(built, sources, monkeypatch):
  data_dir, info = built
  monkeypatch.delattr(corpus, 'load')
  assert info == prepare.build(data_dir, '', **ARGUMENTS, sources=sources)


@pytest.mark.parametrize(
  'change',
  [{'sequence_length': 32}, {'megabytes': 2}, {'sources': 'another package'}],
)
def test_rejects_a_build_with_other_arguments(built, sources, change):
  data_dir, _ = built
  before = read_files(pathlib.Path(data_dir))
  if 'sources' in change:
    other = dataclasses.replace(
      sources[0], name='other', folder=None, sha256='0' * 64
    )
    change = {'sources': [*sources, other]}
  with pytest.raises(ValueError, match='--data_dir=.* holds .*another'):
    prepare.build(data_dir, '', **({'sources': sources} | ARGUMENTS | change))
  assert read_files(pathlib.Path(data_dir)) == before


@pytest.mark.parametrize(
  'parameter, value, message',
  [
    ('vocab_size', 10, 'must be at least'),
    ('sequence_length', 1, 'set at least 2'),
    ('megabytes', 0, 'set more than 0'),
    ('megabytes', float('nan'), 'set more than 0'),
  ],
)
def test_rejects_invalid_sizes_at_the_start(
  tmp_path, monkeypatch, parameter, value, message
):
  monkeypatch.delattr(corpus, 'load')
  flags = [f'--data_dir={tmp_path / "a"}', f'--{parameter}={value}']
  args = prepare.parse_flags(['prepare', *flags])
  with pytest.raises(SystemExit, match=f'--{parameter}={value}.*{message}'):
    prepare.main(args)
  assert not os.listdir(tmp_path)


def test_too_little_text_is_an_error(sources, tmp_path):
  with pytest.raises(ValueError, match='no example in the train split'):
    prepare.build(
      str(tmp_path / 'data'),
      '',
      **{**ARGUMENTS, 'sequence_length': 100_000},
      sources=sources,
    )
  assert os.listdir(tmp_path) == []


def test_the_command(built, tmp_path, monkeypatch, capsys):
  calls = []

  def build(**arguments):
    calls.append(arguments)
    return built[1]

  monkeypatch.setattr(prepare, 'build', build)
  folder = str(tmp_path / 'data')
  prepare.main(
    prepare.parse_flags(['prepare', f'--data_dir={folder}', '--megabytes=3'])
  )
  assert calls == [
    {
      'data_dir': folder,
      'cache_dir': str(tmp_path / 'wheels'),
      'sequence_length': 128,
      'vocab_size': 2048,
      'megabytes': 3.0,
    }
  ]
  assert 'letters' in capsys.readouterr().out
