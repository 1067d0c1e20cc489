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

"""Trains, measures, identifies and checks vocabularies; samples their text."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
import functools
import hashlib
import io
import operator
import re
from typing import Any

from absl import logging
from google.protobuf import message
import sentencepiece
import seqio
import tensorflow as tf
import tqdm

from salt_t5x.data import bad_lines, hashing

# The feature of cached examples that holds `fingerprint_number`.
FINGERPRINT = 'vocabulary_fingerprint'
# Candidates for the text if no feature is named.
_TEXT_FEATURES = ('text', 'targets', 'targets_pretokenized')
# SentencePiece learns no piece with a tab. As bytes, the tabs of indented code
# would cost it 10% more tokens.
_TABS = ['\t' * count for count in range(1, 9)]
# Pad, EOS and unk, the 256 bytes, the tabs, and at least one piece.
_MIN_PIECES = 3 + 256 + len(_TABS) + 1
# Texts are cut into these, before a space where possible: SentencePiece skips
# sentences of over 4192 bytes, and needs N² operations for N repeated
# characters.
_SENTENCE = re.compile(r'.{1,1000}(?= |\Z)|.{1,1000}', re.DOTALL)
# The trained pieces depend on this number, so it is not the machine's.
_NUM_THREADS = 16
# With these, SentencePiece gives T5's special ids.
_FLAGS = '--pad_id=0 --eos_id=1 --unk_id=2 --bos_id=-1'


class VocabularyError(ValueError):
  """A vocabulary cannot be read or used."""


def fingerprint(
  vocabulary: seqio.Vocabulary, parameter: str = 'VOCABULARY'
) -> str:
  """Returns a string that identifies a vocabulary.

  For SentencePiece it depends on the model's bytes and the extra ids, not on
  the file's name; for others on the class and size alone.

  Args:
    vocabulary: any.
    parameter: names it in messages.

  Raises:
    VocabularyError: the file of a SentencePiece vocabulary cannot be read, or
      has two equal pieces.
  """
  if not isinstance(vocabulary, seqio.SentencePieceVocabulary):
    return f'{type(vocabulary).__name__}:{vocabulary.vocab_size}'
  try:
    digest = hashlib.sha256(vocabulary.sp_model).hexdigest()
  # The file is missing, empty, or of another kind.
  except (tf.errors.OpError, RuntimeError, message.DecodeError) as e:
    file = (
      f'(sentencepiece_model_file = {vocabulary.sentencepiece_model_file!r}'
    )
    if 'already defined' in str(e):
      raise VocabularyError(
        f'{parameter} {file}, extra_ids = {vocabulary.extra_ids}) has two ids '
        f'of one piece ({e}). If the model holds sentinels itself, set '
        'extra_ids = 0; if not, train another.'
      ) from e
    raise VocabularyError(
      f'{parameter} {file}) is not a SentencePiece model ({e}). Name the file '
      'that `python -m salt_t5x.vocabulary` or SentencePiece wrote.'
    ) from e
  return f'sentencepiece:{digest}:{vocabulary.extra_ids}'


def check_cached(task: seqio.Task, features: Mapping[str, Any]) -> None:
  """Compares the vocabulary that a cache was made with with its task's.

  Args:
    task: the cached task.
    features: {name: feature} of an example of its cache.

  Raises:
    ValueError: they differ.
  """
  if FINGERPRINT not in features:
    _warn_of_unknown(task.name, task.cache_dir)
    return
  cached = list(features[FINGERPRINT].int64_list.value)
  vocabulary = task.output_features['targets'].vocabulary
  mine = fingerprint_number(
    vocabulary, f'The vocabulary of the task {task.name}'
  )
  if cached != [mine]:
    raise ValueError(
      f'The task {task.name} has the vocabulary {vocabulary} (fingerprint '
      f'{mine}), but its cache, {task.cache_dir}, was made with another '
      f'(fingerprint {cached}). Register the task with the vocabulary it was '
      'cached with, or cache it again in another folder.'
    )


@functools.cache
def _warn_of_unknown(name: str, cache_dir: str) -> None:
  """Logs, once, that the cache of the task `name` has no fingerprint."""
  logging.warning(
    'The cache %s does not say which vocabulary it was made with: a task of '
    'your own or an earlier salt_t5x wrote it. Make sure that it is that of '
    'the task %s, or cache the task again in another folder.',
    cache_dir,
    name,
  )


def fingerprint_number(vocabulary: seqio.Vocabulary, parameter: str) -> int:
  """Returns 63 bits of `fingerprint`, an int64 of at least 0."""
  return hashing.digest(fingerprint(vocabulary, parameter).encode()) >> 1


def check_special_ids(vocabulary: seqio.Vocabulary, parameter: str) -> None:
  """Checks that id 0 can be padding, and that EOS is a token of its own.

  Everything here, seqio and t5x take id 0 for padding, which bears no loss,
  whatever piece a vocabulary has there.

  Args:
    vocabulary: any; nothing is known of the text of a pass-through one.
    parameter: names it in messages.

  Raises:
    VocabularyError: they are not; or see `fingerprint`.
  """
  fingerprint(vocabulary, parameter)  # Names a file that cannot be read.
  eos, wrong = vocabulary.eos_id, []
  is_passed_through = isinstance(vocabulary, seqio.PassThroughVocabulary)
  if isinstance(vocabulary, seqio.SentencePieceVocabulary):
    model = vocabulary.tokenizer
    if not model.is_control(0):
      wrong.append(
        f'its id 0 is {model.id_to_piece(0)!r}, which text can give, but id 0 '
        'is padding, without loss'
      )
  elif vocabulary.pad_id != 0:
    wrong.append(f'it pads with id {vocabulary.pad_id}, not 0')
  if eos == 0:
    wrong.append('its EOS has id 0, which is padding')
  elif (eos is None and not is_passed_through) or (eos or 0) < 0:
    wrong.append('it has no EOS')
  elif eos is not None and eos == vocabulary.unk_id:
    wrong.append(f'its EOS is also its unknown token, id {eos}')
  if wrong:
    raise VocabularyError(
      f'{parameter} = {vocabulary}: {"; ".join(wrong)}. Train a vocabulary '
      f'with `python -m salt_t5x.vocabulary`, or with spm_train {_FLAGS}, and '
      'cache the tasks again with it.'
    )


def check_size(vocab_size: int, extra_ids: int) -> None:
  """Checks that a vocabulary can have these sizes; see `train`.

  Raises:
    ValueError: it cannot.
  """
  least, limit = _MIN_PIECES + extra_ids, 2**31 + extra_ids
  if extra_ids < 0 or not least <= vocab_size < limit:
    raise ValueError(
      f'--vocab_size={vocab_size} with --extra_ids={extra_ids}: must be at '
      f'least {least}, for special ids, 256 bytes, tabs, a piece and the extra '
      f'ids (at least 0), and below {limit}, for SentencePiece.'
    )


def train(texts: Iterable[str], vocab_size: int, extra_ids: int) -> bytes:
  """Trains a SentencePiece unigram model with T5's special ids.

  Text is not normalised, and characters without a piece are spelt in bytes.

  Args:
    texts: read once. SentencePiece keeps a copy.
    vocab_size: rows of a model's embedding: pad (0), EOS (1), unk (2), the 256
      bytes, all other pieces, and the extra ids.
    extra_ids: number of ids that seqio will append; the model file has none.

  Returns:
    The serialised model, of vocab_size - extra_ids pieces. The same arguments
    give the same bytes.

  Raises:
    ValueError: vocab_size or extra_ids is not possible, or the text does not
      give that many pieces, or needs more.
  """
  check_size(vocab_size, extra_ids)
  model = io.BytesIO()
  size, errors = 0, []

  def sentences():
    # Line breaks stay inside the sentences. Pieces such as ':\n' and '\n\n'
    # save code 8% of its tokens and prose 4%, at 16K pieces, against lines as
    # sentences and a byte for each line break.
    nonlocal size
    try:
      for text in texts:
        size += len(text.encode())
        yield from _SENTENCE.findall(text)
    except BaseException as error:
      errors.append(error)
      raise

  try:
    sentencepiece.SentencePieceTrainer.train(
      sentence_iterator=sentences(),
      # Not model_prefix: the model would record the path.
      model_writer=model,
      model_type='unigram',
      vocab_size=vocab_size - extra_ids,
      pad_id=0,
      eos_id=1,
      unk_id=2,
      bos_id=-1,
      byte_fallback=True,
      user_defined_symbols=_TABS,
      normalization_rule_name='identity',
      remove_extra_whitespaces=False,
      allow_whitespace_only_pieces=True,
      add_dummy_prefix=False,
      num_threads=_NUM_THREADS,
      minloglevel=1,
    )
  except RuntimeError as error:
    if errors:  # SentencePiece replaces an error raised by `texts`.
      raise errors[0] from None
    raise ValueError(
      f'--vocab_size={vocab_size}, trained on {size:,} bytes of text: '
      + _explain(str(error), extra_ids)
    ) from error
  return model.getvalue()


def _explain(error: str, extra_ids: int) -> str:
  more = 'more text (--megabytes, --sample_share, if the task has it).'
  if too_high := re.search(r'to a value <= (\d+)', error):
    return (
      f'it gives {int(too_high[1]) + extra_ids} rows at most, with the '
      f'{extra_ids} extra ids. Lower --vocab_size to that, or give {more}'
    )
  if too_low := re.search(r'required_chars\. \d+ vs (\d+)', error):
    return (
      'each of its common characters needs a row. Raise --vocab_size to at '
      f'least {int(too_low[1]) + extra_ids}.'
    )
  return f'too little to train on. Give {more} SentencePiece says: {error}'


def sample(
  provider: seqio.Task | seqio.Mixture,
  split: str,
  megabytes: float,
  share: float = 1.0,
  feature: str | None = None,
) -> Iterator[str]:
  """Samples untokenised documents, in the order of the split.

  It holds one document at a time. The same task, data and arguments give the
  same sample.

  Args:
    provider: a task, or a mixture, whose rates mix its tasks' documents.
    split: of the task.
    megabytes: size of the sample, in 10^6 bytes of UTF-8.
    share: of the documents, chosen by a hash of the text; the others are read
      and skipped. Below 1, the sample reaches further into a large corpus.
    feature: the string that holds the text; None for 'text', 'targets' or
      'targets_pretokenized'.

  Yields:
    Documents; bytes that are not UTF-8 become U+FFFD, and are counted in a
    warning.

  Raises:
    DamagedShardError: a file of text cannot be read.
    ValueError: the task has no such split, or no such string before
      tokenisation.
  """
  if split not in provider.splits:
    raise ValueError(
      f'--split={split}: there are {", ".join(provider.splits)}.'
    )
  tasks = [t for t in seqio.get_subtasks(provider) if split in t.splits]
  dataset, *others = [_text_of(task, split, feature) for task in tasks]
  if others:
    dataset = tf.data.Dataset.sample_from_datasets(
      [dataset, *others],
      [provider.get_rate(task) for task in tasks],
      seed=0,
      rerandomize_each_iteration=False,
    )
  size, limit = 0, megabytes * 1e6
  count = damaged = 0
  with (
    bad_lines.unwrapped(),
    tqdm.tqdm(
      total=limit, desc=f'sampling {provider.name}', unit='B', unit_scale=True
    ) as progress,
  ):
    for document in dataset.as_numpy_iterator():
      text = document.decode(errors='replace')
      if hashing.uniform('vocabulary sample', text) < share:
        count += 1
        damaged += text.encode() != document
        yield text
        size += len(document)
        progress.update(len(document))
        if size >= limit:
          break
  if damaged:
    logging.warning(
      '%s, %s split: %d of %d documents are not UTF-8; their bad bytes became '
      'U+FFFD.',
      *(provider.name, split, damaged, count),
    )


def _text_of(
  task: seqio.Task, split: str, feature: str | None
) -> tf.data.Dataset:
  """A task's documents, string [], after as many preprocessors as keep them.

  The task's tokenizer need not have its vocabulary yet.
  """
  names = (feature,) if feature else _TEXT_FEATURES
  steps = [
    step
    for step in task.preprocessors
    if not isinstance(step, seqio.CacheDatasetPlaceholder)
  ]
  strings = set()
  for count in range(len(steps), -1, -1):
    dataset = task.source.get_dataset(split=split, shuffle=False)
    try:
      with seqio.map_seed_manager(0):
        dataset = task._preprocess_dataset(dataset, steps[:count])
    except (tf.errors.NotFoundError, VocabularyError):
      continue  # A tokenizer's vocabulary.
    found = {
      name
      for name, spec in dataset.element_spec.items()
      if spec.dtype == tf.string and spec.shape.is_compatible_with([])
    }
    for name in names:
      if name in found:
        return dataset.map(operator.itemgetter(name))
    strings |= found
  raise ValueError(
    f'--task={task.name}: no text in {", ".join(names)}. Its features that are '
    f'strings: {", ".join(sorted(strings)) or "none"}. Name one in --feature, '
    'or give the task that the tokens were made from.'
  )


def measure(
  processor: sentencepiece.SentencePieceProcessor, texts: Sequence[str]
) -> tuple[float, float]:
  """Returns (bytes per token, share of tokens that are single bytes)."""
  tokens = processor.encode(list(texts))
  is_byte = [processor.is_byte(t) for text in tokens for t in text]
  size = sum(len(text.encode()) for text in texts)
  count = max(len(is_byte), 1)
  return size / count, sum(is_byte) / count
