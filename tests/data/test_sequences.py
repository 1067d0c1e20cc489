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


"""Documents become sequences: nothing is lost but the ends, ids are stable."""

import numpy as np
import pytest
import seqio
import tensorflow as tf

from salt_t5x.data import sequences

VOCABULARY = seqio.ByteVocabulary()
FEATURES = {'targets': seqio.Feature(VOCABULARY, add_eos=False)}


def documents(*entries):
  texts, domains, ids = zip(*entries, strict=True)
  return tf.data.Dataset.from_tensor_slices(
    {
      'text': list(texts),
      'domain': list(domains),
      'id': np.array(ids, np.int64),
    }
  )


def cut(data, length):
  data = sequences.tokenize(data, FEATURES)
  return list(sequences.cut(data, FEATURES, length).as_numpy_iterator())


def random_documents(count=80, seed=0):
  rng = np.random.default_rng(seed)
  return [
    (
      ''.join(rng.choice(list('abc d'), rng.integers(0, 60))),
      f'domain {rng.integers(3)}',
      i,
    )
    for i in range(count)
  ]


@pytest.mark.parametrize('length', [1, 7, 64, 200])
def test_sequences_are_the_documents_with_eos_between(length):
  entries = random_documents()
  found = cut(documents(*entries), length)
  assert found
  for domain in {d for _, d, _ in entries}:
    stream = []
    for text, of_domain, _ in entries:
      if of_domain == domain:
        stream += [*VOCABULARY.encode(text), VOCABULARY.eos_id]
    rows = [e['targets'] for e in found if e['domain'].decode() == domain]
    assert len(rows) == len(stream) // length
    np.testing.assert_array_equal(
      np.concatenate(rows), stream[: len(rows) * length]
    )


def test_ids_are_unique_and_follow_place_and_content():
  # Equal texts, and a text whose own sequences are equal.
  entries = [('a' * 40, 'x', 1), ('a' * 40, 'x', 2), ('b' * 40, 'x', 3)]
  found = cut(documents(*entries), 8)
  ids = [int(e['id']) for e in found]
  assert len(set(ids)) == len(ids)
  assert all(0 <= i < 2**63 for i in ids)
  # They hang on the documents, not on what stood before them.
  assert [int(e['id']) for e in cut(documents(*entries[:1]), 8)] == ids[:5]
  other = [('a' * 40, 'x', 7), *entries[1:]]
  assert not set(ids[:5]) & {int(e['id']) for e in cut(documents(*other), 8)}


def test_id_names_the_document_and_the_place_of_the_first_token():
  tokens = np.arange(4, dtype=np.int32)
  number = sequences.sequence_id(5, 3, tokens)
  found = cut(documents(('abcdef', 'x', 5), ('ghij', 'x', 6)), 4)
  second = found[1]  # 'ef', EOS, 'g'
  assert second['targets'][2] == VOCABULARY.eos_id
  assert second['id'] == sequences.sequence_id(5, 4, second['targets'])
  others = {
    sequences.sequence_id(6, 3, tokens),
    sequences.sequence_id(5, 2, tokens),
    sequences.sequence_id(5, 3, tokens + 1),
    # No concatenation of numbers is taken for another.
    sequences.sequence_id(53, 0, tokens),
  }
  assert len(others | {number}) == 5


def test_remainders_are_joined_and_the_share_that_is_dropped_is_logged(caplog):
  with caplog.at_level('INFO', logger='absl'):
    found = cut(documents(('abcdef', 'x', 1), ('gh', 'y', 2)), 4)
  # 'ef' and EOS of x, then 'g' of y.
  assert [x['domain'] for x in found] == [b'x', b'']
  encode = VOCABULARY.encode
  assert found[1]['targets'].tolist() == [*encode('ef'), 1, *encode('g')]
  assert found[1]['id'] == sequences.sequence_id(1, 4, found[1]['targets'])
  assert 'Sequences of 4 tokens: 2 of 10 tokens in 2 domains' in caplog.text
  assert {record.levelname for record in caplog.records} == {'WARNING'}
  caplog.clear()
  with caplog.at_level('INFO', logger='absl'):
    cut(documents(('a' * 400, 'x', 1)), 4)
  assert '1 of 401 tokens in 1 domains are dropped' in caplog.text
  assert {record.levelname for record in caplog.records} == {'INFO'}


def test_many_domains_lose_less_than_one_sequence():
  """A domain for each document, as with URLs."""
  entries = [(text, f'http://{i}', i) for text, _, i in random_documents()]
  found = cut(documents(*entries), 64)
  total = sum(len(text) + 1 for text, *_ in entries)
  assert len(found) == total // 64
  assert len({int(x['id']) for x in found}) == len(found)
  stream = [t for text, *_ in entries for t in [*VOCABULARY.encode(text), 1]]
  rows = np.concatenate([x['targets'] for x in found])
  np.testing.assert_array_equal(rows, stream[: len(rows)])
