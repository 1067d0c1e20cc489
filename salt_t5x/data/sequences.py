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


"""Cuts documents into sequences of T tokens, which are then cached.

Documents of one domain are joined, an EOS after each, and cut: a sequence has
one domain, a stable id, and no padding.
"""

import collections
from collections.abc import Iterator, Mapping
import itertools

from absl import logging
import numpy as np
import seqio
import tensorflow as tf

from salt_t5x.data import hashing, vocabularies

_PARAMETER = "The vocabulary of the task's feature 'targets'"


def tokenize(
  dataset: tf.data.Dataset, output_features: Mapping[str, seqio.Feature]
) -> tf.data.Dataset:
  """Adds 'targets' (int32 [N], without an EOS) from 'text' (string []).

  Raises:
    VocabularyError: the vocabulary cannot be read.
  """
  vocabulary = output_features['targets'].vocabulary
  vocabularies.fingerprint(vocabulary, _PARAMETER)
  encode = vocabulary.encode_tf
  return dataset.map(
    lambda example: {**example, 'targets': encode(example['text'])},
    num_parallel_calls=tf.data.AUTOTUNE,
  )


def sequence_id(document: int, start: int, tokens: np.ndarray) -> int:
  """Hashes a sequence to a stable id, at least 0 and below 2^63.

  The id depends on the tokens, too: a record of a sequence (a score, say) never
  matches one of another vocabulary or length.

  Args:
    document: id of the document in which the sequence begins.
    start: the place of its first token there.
    tokens: int32 [T].
  """
  place = f'{document}:{start}:'.encode()
  return hashing.digest(place, tokens.astype('<i4').tobytes()) >> 1


def cut(
  dataset: tf.data.Dataset,
  output_features: Mapping[str, seqio.Feature],
  length: int,
) -> tf.data.Dataset:
  """Joins the documents of each domain and cuts them into sequences.

  What remains of the domains, fewer than T tokens each, is joined at the end
  into sequences without a domain (b''). Fewer than T tokens are dropped, under
  Beam in each shard; their number is logged, as a warning if it is over 1%.

  Args:
    dataset: of {'targets': int32 [N], 'id': int64 [], 'domain': string []}.
    output_features: 'targets' has the vocabulary.
    length: T; not seqio's `sequence_length`, since the cache holds it.

  Returns:
    A dataset of the same features, 'targets' int32 [T], and
    `vocabularies.FINGERPRINT` int64 [], with which readers of the cache compare
    their vocabulary.

  Raises:
    VocabularyError: the vocabulary's special ids cannot be used.
  """
  vocabulary = output_features['targets'].vocabulary
  vocabularies.check_special_ids(vocabulary, _PARAMETER)
  fingerprint = vocabularies.fingerprint_number(vocabulary, _PARAMETER)
  eos = vocabulary.eos_id

  def generate() -> Iterator[dict]:
    # {domain: what is left of it, as (document, start, tokens)}
    joined, sizes = collections.defaultdict(list), collections.Counter()

    def add(domain, number, start, tokens):
      pieces = joined[domain]
      pieces.append((number, start, tokens))
      sizes[domain] += len(tokens)
      found = []
      while sizes[domain] >= length:
        # The last piece is the only one that may hold more than is missing.
        number, start, tokens = pieces.pop()
        used = len(tokens) - (sizes[domain] - length)
        first = pieces[0] if pieces else (number, start)
        sequence = np.concatenate([t for *_, t in pieces] + [tokens[:used]])
        found.append((sequence, sequence_id(first[0], first[1], sequence)))
        sizes[domain] -= length
        if sizes[domain]:
          pieces[:] = [(number, start + used, tokens[used:])]
        else:
          pieces.clear()
      if found:
        targets, ids = zip(*found, strict=True)
        yield {'targets': targets, 'id': ids, 'domain': [domain] * len(found)}

    total = 0
    for document in dataset.as_numpy_iterator():
      tokens = np.append(document['targets'], np.int32(eos))
      total += len(tokens)
      yield from add(document['domain'], document['id'], 0, tokens)
    rest = list(itertools.chain.from_iterable(joined.values()))
    domains = len(joined)
    joined.clear()
    sizes.clear()
    for piece in rest:
      yield from add(b'', *piece)
    dropped = sizes.total()
    logging.log(
      logging.WARNING if dropped > 0.01 * total else logging.INFO,
      'Sequences of %d tokens: %d of %d tokens in %d domains are dropped, as '
      'they are fewer than a sequence.',
      *(length, dropped, total, domains),
    )

  # One element for all sequences that a document completes: elements cost more
  # than their content.
  sequences = tf.data.Dataset.from_generator(
    generate,
    output_signature={
      'targets': tf.TensorSpec([None, length], tf.int32),
      'id': tf.TensorSpec([None], tf.int64),
      'domain': tf.TensorSpec([None], tf.string),
    },
  ).unbatch()
  return sequences.map(
    lambda example: {
      **example,
      vocabularies.FINGERPRINT: tf.constant(fingerprint, tf.int64),
    }
  )
