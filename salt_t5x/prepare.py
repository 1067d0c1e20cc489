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

"""Builds the small real-text data set that `salt_t5x.tasks.minipile` reads.

    python -m salt_t5x.prepare --data_dir=data/minipile

writes, under the data directory,

    vocabulary.model                    SentencePiece, trained on a sample
    train.tfrecord-0000?-of-00004       sequences of T tokens: features
    validation.tfrecord-00000-of-00001    targets (int64, [T]), id (int64, []),
                                          domain (bytes, [])
    info.json                           arguments, sources, licences, counts

A document belongs to train or to validation by a hash of its id. Within a split
and domain the documents follow each other in a hashed order, each closed by an
EOS, and are cut into sequences; what is left at the end, less than a sequence,
is dropped. The sequences of all domains are then shuffled once into the
global order: the shards, read one after the other in the order of their names,
give it. Nothing depends on the number of hosts or on a random generator: the
same arguments, packages and Python version give the same bytes.
"""

from collections.abc import Iterator, Sequence
import hashlib
import io
import itertools
import json
import os
import tempfile

from absl import app, flags
import numpy as np
import sentencepiece
import tensorflow as tf
import tqdm

from salt_t5x import corpus

_DATA_DIR = flags.DEFINE_string(
  'data_dir', None, 'Where to build; one directory holds one build.'
)
_CACHE_DIR = flags.DEFINE_string(
  'cache_dir',
  None,
  'Where downloaded wheels are kept. Default: "wheels" beside --data_dir.',
)
_SEQUENCE_LENGTH = flags.DEFINE_integer(
  'sequence_length', 128, 'Tokens in a sequence.', lower_bound=2
)
_VOCAB_SIZE = flags.DEFINE_integer(
  'vocab_size', 2048, 'Pieces in the vocabulary.', lower_bound=300
)
_MEGABYTES = flags.DEFINE_float(
  'megabytes',
  24,
  'Text to use, in 10^6 bytes. Each domain gets an equal share at most.',
  lower_bound=0,
)

SHARDS = {'train': 4, 'validation': 1}
EOS_ID = 1

_VALIDATION_SHARE = 0.03
# Enough for thousands of pieces, and it trains in about ten seconds.
_VOCABULARY_BYTES = 3_500_000
# The trained pieces depend on this number; on a smaller machine it costs time
# only, so it is not taken from the machine.
_NUM_THREADS = 2
_ENCODE_BATCH = 64  # documents


def split_of(document: corpus.Document) -> str:
  """'train' or 'validation'; depends on the document's id alone."""
  is_validation = corpus.uniform('split', document.id) < _VALIDATION_SHARE
  return 'validation' if is_validation else 'train'


def train_vocabulary(
  documents: Sequence[corpus.Document], vocab_size: int
) -> bytes:
  """Trains a SentencePiece unigram model with T5's special ids.

  Decoding gives back the exact text, spaces and line breaks included, which
  code needs: nothing is normalised, and what no piece covers is spelt in bytes.

  Args:
    documents: a hashed sample of them is trained on.
    vocab_size: including pad (0), EOS (1), unk (2) and the 256 bytes.

  Returns:
    The serialised model. The same bytes for the same arguments.

  Raises:
    RuntimeError: from SentencePiece, if there is too little text for that many
      pieces.
  """
  model = io.BytesIO()
  sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=_sample_lines(documents),
    # Not model_prefix: the model would record the path of the build.
    model_writer=model,
    model_type='unigram',
    vocab_size=vocab_size,
    pad_id=0,
    eos_id=EOS_ID,
    unk_id=2,
    bos_id=-1,
    byte_fallback=True,
    normalization_rule_name='identity',
    remove_extra_whitespaces=False,
    allow_whitespace_only_pieces=True,
    add_dummy_prefix=False,
    # Longer lines would be skipped.
    max_sentence_length=1 << 20,
    num_threads=_NUM_THREADS,
    minloglevel=1,
  )
  return model.getvalue()


def _sample_lines(documents: Sequence[corpus.Document]) -> Iterator[str]:
  size = 0
  for document in sorted(
    documents, key=lambda document: corpus.uniform('vocabulary', document.id)
  ):
    size += len(document.text.encode())
    if size > _VOCABULARY_BYTES:
      break
    yield from filter(None, document.text.split('\n'))


def tokenize(
  documents: Sequence[corpus.Document],
  processor: sentencepiece.SentencePieceProcessor,
  progress: tqdm.tqdm,
) -> np.ndarray:
  """The tokens of all documents in a hashed order, an EOS after each.

  Args:
    documents: of one split and domain, in any order.
    processor: the vocabulary.
    progress: is advanced by one a document.

  Returns:
    int32, [tokens of all documents + number of documents].
  """
  ordered = sorted(
    documents, key=lambda document: corpus.uniform('order', document.id)
  )
  stream = []
  for start in range(0, len(ordered), _ENCODE_BATCH):
    batch = ordered[start : start + _ENCODE_BATCH]
    texts = [document.text for document in batch]
    for tokens in processor.encode(texts, num_threads=_NUM_THREADS):
      stream.append(np.array([*tokens, EOS_ID], np.int32))
    progress.update(len(batch))
  return np.concatenate(stream) if stream else np.zeros([0], np.int32)


def cut(stream: np.ndarray, sequence_length: int) -> np.ndarray:
  """Cuts [N] tokens into [N // T, T]; the last N % T are dropped."""
  count = len(stream) // sequence_length
  return stream[: count * sequence_length].reshape(count, sequence_length)


def sequence_id(split: str, domain: str, index: int, tokens: np.ndarray) -> int:
  """A stable id, at least 0 and below 2^63.

  It hangs on the content too, so that what was recorded for a sequence of one
  build (a score, say) is never taken for another's.

  Args:
    split: 'train' or 'validation'.
    domain: the sequence's domain.
    index: its position among the sequences of that split and domain.
    tokens: int32, [T].

  Returns:
    63 bits of a hash of all that.
  """
  digest = hashlib.blake2b(f'{split}\0{domain}\0{index}\0'.encode())
  digest.update(tokens.astype('<i4').tobytes())
  return int.from_bytes(digest.digest()[:8], 'big') >> 1


def _write_shards(
  build_dir: str, split: str, sequences: list[tuple[int, str, np.ndarray]]
) -> None:
  """Shuffles (id, domain, [T] tokens) into the global order and writes it."""
  sequences = sorted(
    sequences, key=lambda s: corpus.uniform('global order', str(s[0]))
  )
  shards = SHARDS[split]
  progress = iter(tqdm.tqdm(sequences, desc=f'writing {split}', unit='seq'))
  for shard in range(shards):
    path = os.path.join(
      build_dir, f'{split}.tfrecord-{shard:05d}-of-{shards:05d}'
    )
    # Neighbours in the order share a shard; sizes differ by one at most.
    start = len(sequences) * shard // shards
    end = len(sequences) * (shard + 1) // shards
    with tf.io.TFRecordWriter(path) as writer:
      for number, domain, tokens in itertools.islice(progress, end - start):
        example = tf.train.Example()
        feature = example.features.feature
        feature['targets'].int64_list.value.extend(tokens.tolist())
        feature['id'].int64_list.value.append(number)
        feature['domain'].bytes_list.value.append(domain.encode())
        # The order of a protobuf map is otherwise free to vary.
        writer.write(example.SerializeToString(deterministic=True))


def _finished_build(data_dir: str, arguments: dict) -> dict | None:
  """The info of a finished build with these arguments, None if there is none.

  Args:
    data_dir: as for `build`.
    arguments: what info.json records under that name.

  Returns:
    The content of info.json, or None if data_dir is missing or empty.

  Raises:
    ValueError: if something else is in data_dir.
  """
  if not os.path.isdir(data_dir) or not os.listdir(data_dir):
    return None
  path = os.path.join(data_dir, 'info.json')
  if not os.path.exists(path):
    raise ValueError(
      f'{data_dir} holds something that is not a finished build (it has no '
      'info.json). Remove it or choose another data_dir.'
    )
  with open(path, encoding='utf-8') as file:
    info = json.load(file)
  differences = [
    f'{name} is {info["arguments"].get(name)!r} there and {value!r} here'
    for name, value in arguments.items()
    if info['arguments'].get(name) != value
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
  sources: Sequence[corpus.Source] = corpus.SOURCES,
) -> dict:
  """Builds the data set, or finds it built.

  The build appears in data_dir whole, by a rename; one that was cut short
  leaves nothing there.

  Args:
    data_dir: missing, empty, or holding a build with the same arguments.
    cache_dir: the folder for wheels.
    sequence_length: T.
    vocab_size: pieces in the vocabulary.
    megabytes: of text, in 10^6 bytes; each domain gets an equal share at most.
    sources: where the text comes from.

  Returns:
    The content of info.json.

  Raises:
    ValueError: if data_dir holds something else, or if there is too little text
      for a single sequence of a split.
    RuntimeError: if a wheel cannot be had, or there is too little text for that
      many pieces.
  """
  arguments = {
    'sequence_length': sequence_length,
    'vocab_size': vocab_size,
    'megabytes': megabytes,
    # Wheels only: a new Python on the machine is no reason to refuse the
    # data that is there. Its version is recorded among the sources.
    'wheels': [s.wheel for s in sources if s.sha256],
  }
  info = _finished_build(data_dir, arguments)
  if info:
    return info

  domains = list(dict.fromkeys(source.domain for source in sources))
  text = corpus.load(sources, cache_dir, megabytes * 1e6 / len(domains))
  groups = {split: {domain: [] for domain in domains} for split in SHARDS}
  for document in text.documents:
    groups[split_of(document)][document.domain].append(document)

  model = train_vocabulary(
    list(itertools.chain(*groups['train'].values())), vocab_size
  )
  processor = sentencepiece.SentencePieceProcessor(model_proto=model)

  data_dir = os.path.abspath(data_dir)
  parent, name = os.path.split(data_dir)
  os.makedirs(parent, exist_ok=True)
  with tempfile.TemporaryDirectory(prefix=f'.{name}.', dir=parent) as scratch:
    # A folder inside: the scratch folder itself is closed to other users.
    build_dir = os.path.join(scratch, name)
    os.mkdir(build_dir)
    with open(os.path.join(build_dir, 'vocabulary.model'), 'wb') as file:
      file.write(model)
    counts = {}
    for split in SHARDS:
      counts[split] = {}
      sequences = []
      with tqdm.tqdm(
        total=sum(map(len, groups[split].values())),
        desc=f'tokenizing {split}',
        unit='doc',
      ) as progress:
        for domain, documents in groups[split].items():
          stream = tokenize(documents, processor, progress)
          rows = cut(stream, sequence_length)
          sequences += [
            (sequence_id(split, domain, index, row), domain, row)
            for index, row in enumerate(rows)
          ]
          counts[split][domain] = {
            'documents': len(documents),
            'bytes': sum(len(d.text.encode()) for d in documents),
            'tokens': len(stream),
            'sequences': len(rows),
          }
      if not sequences:
        raise ValueError(
          f'There is no sequence of {sequence_length} tokens for {split}: '
          'allow more megabytes or shorter sequences.'
        )
      _write_shards(build_dir, split, sequences)
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
      'counts': counts,
      'duplicates': text.duplicates,
      'bad_entries': text.bad_entries,
    }
    with open(
      os.path.join(build_dir, 'info.json'), 'w', encoding='utf-8'
    ) as file:
      json.dump(info, file, indent=2, ensure_ascii=False)
    os.rename(build_dir, data_dir)
  return info


def table(info: dict) -> str:
  """The counts of a build, one line a domain, for a human."""
  lines = [
    f'{"domain":14}{"documents":>10}{"MB":>8}{"tokens":>11}{"bytes/tok":>11}'
    f'{"train seq":>11}{"valid seq":>11}{"duplicate":>11}{"bad":>6}'
  ]
  rows = {}
  for domain in info['duplicates']:
    train, validation = (info['counts'][split][domain] for split in SHARDS)
    rows[domain] = np.array(
      [
        train['documents'] + validation['documents'],
        train['bytes'] + validation['bytes'],
        train['tokens'] + validation['tokens'],
        train['sequences'],
        validation['sequences'],
        info['duplicates'][domain],
        len(info['bad_entries'][domain]),
      ]
    )
  rows['all'] = sum(rows.values())
  for domain, row in rows.items():
    documents, size, tokens, train, validation, duplicates, bad = row.tolist()
    lines.append(
      f'{domain:14}{documents:10,}{size / 1e6:8.2f}{tokens:11,}'
      f'{size / max(tokens, 1):11.2f}{train:11,}{validation:11,}'
      f'{duplicates:11,}{bad:6,}'
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
