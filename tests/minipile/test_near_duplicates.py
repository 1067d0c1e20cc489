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

"""Tests of salt_t5x.minipile.near_duplicates, most against brute force."""

import random
import re

import pytest

from salt_t5x.minipile import near_duplicates
from salt_t5x.minipile.corpus import Document


def documents(prefix, texts):
  return [
    Document(f'{prefix}{i}', 'notes', text) for i, text in enumerate(texts)
  ]


def pairs_of(held_out, training):
  return near_duplicates.find(
    documents('held', held_out), documents('train', training)
  )


def numbered(start, end):
  """The words from start to end, all distinct."""
  return ' '.join(f'w{i}' for i in range(start, end))


def brute_force(held_out, training):
  """The definition, word by word."""

  def shingles(text):
    words = re.findall(r'[^\W_]+', text.lower())
    if len(words) < 8:
      return words, set()
    return words, {tuple(words[i : i + 8]) for i in range(len(words) - 7)}

  pairs = []
  for document in training:
    words, own = shingles(document.text)
    for other in held_out:
      other_words, theirs = shingles(other.text)
      shared = len(own & theirs)
      if own and theirs:
        match = shared / len(theirs) >= 0.5 or shared / len(own) >= 0.5
      else:
        match = not own and not theirs and words == other_words
      if match:
        pairs.append((document.id, other.id))
  return pairs


@pytest.mark.parametrize('seed', range(5))
def test_random_documents_against_brute_force(seed):
  rng = random.Random(seed)
  # Few words, and documents pasted from common passages: shingles repeat
  # within documents and are shared by many.
  passages = [
    ' '.join(rng.choices(['a', 'B', 'c-d', 'É', '1.5', 'x_y'], k=k))
    for k in (1, 2, 6, 9, 14, 20, 30, 30)
  ]

  def text():
    return '\n'.join(rng.choices(passages, k=rng.randint(0, 4)))

  held_out = documents('held', [text() for _ in range(30)])
  training = documents('train', [text() for _ in range(200)])
  pairs = near_duplicates.find(held_out, training)
  assert pairs == brute_force(held_out, training)
  assert 100 < len(pairs) < 5000
  assert len({training for training, _ in pairs}) < 200


def test_half_of_the_held_out_shingles_is_enough_and_less_is_not():
  # 27 words are 20 shingles; 17 words of them are 10.
  held_out = [numbered(0, 27)]
  half = f'{numbered(0, 17)} {numbered(1000, 2000)}'
  less = f'{numbered(0, 16)} {numbered(1000, 2000)}'
  assert pairs_of(held_out, [half, less]) == [('train0', 'held0')]


def test_half_of_the_training_shingles_in_one_held_out_document_is_enough():
  long = numbered(0, 1000)
  half = f'{numbered(100, 117)} {numbered(5000, 5003)}'  # 10 of 13
  less = f'{numbered(100, 117)} {numbered(5000, 5020)}'  # 10 of 30
  assert pairs_of([long], [half, less]) == [('train0', 'held0')]
  # Spread over several held-out documents it is not.
  parts = [numbered(0, 500), numbered(500, 1000), numbered(1000, 1500)]
  assert pairs_of(parts, [numbered(0, 1500)]) == [
    ('train0', f'held{i}') for i in range(3)
  ]
  thirds = [f'{part} {numbered(9000, 12000)}' for part in parts]
  assert pairs_of(thirds, [numbered(0, 1500)]) == []


def test_repeated_shingles_count_once():
  held_out = [f'{numbered(0, 8)} ' * 50 + numbered(100, 200)]
  # Eight shingles, over and over, of more than a hundred.
  training = [f'{numbered(0, 8)} ' * 50 + numbered(300, 450)]
  assert pairs_of(held_out, training) == []


def test_case_punctuation_and_layout_do_not_matter_and_order_does():
  words = numbered(0, 30).split()
  held_out = [' '.join(words)]
  loud = ',\n'.join(words).upper()
  backwards = ' '.join(reversed(words))
  assert pairs_of(held_out, [loud, backwards]) == [('train0', 'held0')]


def test_short_documents_compare_by_their_words():
  held_out = ['One, two!', numbered(0, 8), 'one two three']
  training = ['one  TWO', 'two one', numbered(0, 7), numbered(0, 8), 'one']
  assert pairs_of(held_out, training) == [
    ('train0', 'held0'),
    ('train3', 'held1'),
  ]


@pytest.mark.parametrize('held_out', [[], ['few words']])
def test_nothing_to_compare_with(held_out):
  assert pairs_of(held_out, [numbered(0, 50), 'other']) == []
  assert pairs_of(held_out, []) == []
