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

"""Trains a SentencePiece vocabulary on a sample of a seqio task's text.

    python -m salt_t5x.vocabulary --task=NAME --module_import=my.tasks \
      --output=PATH.model --vocab_size=256000 --extra_ids=100

writes the model file and prints how well it fits, and the gin lines that bind
it. The vocabulary of the paper, 256K tokens, is not public: results at V = 256K
need one of your own, and this is how to get it. Teacher and student must share
it, and the task must name the same file: token-level distillation compares
distributions over the same tokens.

The extra ids, at the end of the vocabulary, are the sentinels of UL2's span
corruption: sequences of 1280 tokens need 58 of them, and 100 are enough up to
2211 tokens (2147 with the 3 mode tokens).

Decoding gives back the exact text: spaces, tabs, line breaks and control
characters. One character cannot be kept: SentencePiece writes a space as U+2581
(a low block, '\u2581') and reads that as a space. And to seqio, a text that
spells ' <extra_id_0>' is a sentinel.
"""

import argparse
from collections.abc import Iterable, Iterator, Sequence
import io
import os
import re

from absl import app, flags
import sentencepiece
import seqio
import tensorflow as tf
import tqdm

from salt_t5x import command, files
from salt_t5x.data import hashing

# Where text is looked for if no feature is named.
_TEXT_FEATURES = ('text', 'targets', 'targets_pretokenized')
# SentencePiece learns no piece with a tab. As bytes, the tabs of indented code
# would cost it 10% more tokens.
_TABS = ['\t' * count for count in range(1, 9)]
# Pad, EOS and unk, the 256 bytes, the tabs, and a piece; there must be one.
_MIN_PIECES = 3 + 256 + len(_TABS) + 1
# What SentencePiece gets at once, cut before a space where there is one. It
# skips what is longer than 4192 bytes, and N characters that come twice take it
# N² operations.
_SENTENCE = re.compile(r'.{1,1000}(?= |\Z)|.{1,1000}', re.DOTALL)
# The trained pieces depend on this number, so it is not the machine's.
_NUM_THREADS = 16
# One document in so many, beginning with the first, measures the vocabulary.
_HELD_BACK = 50


def check_size(vocab_size: int, extra_ids: int) -> None:
  """Raises ValueError for what no vocabulary can have; see `train`."""
  if extra_ids < 0:
    raise ValueError(f'--extra_ids={extra_ids}: must be at least 0.')
  pieces = vocab_size - extra_ids
  if pieces < _MIN_PIECES:
    raise ValueError(
      f'--vocab_size={vocab_size} leaves {pieces} pieces beside '
      f'--extra_ids={extra_ids}: must be at least {_MIN_PIECES + extra_ids}, '
      'for special ids, 256 bytes, tabs, a piece and the extra ids.'
    )
  if pieces >= 2**31:
    raise ValueError(
      f'--vocab_size={vocab_size} is more than SentencePiece can count: must '
      f'be below {2**31 + extra_ids}.'
    )


def train(texts: Iterable[str], vocab_size: int, extra_ids: int) -> bytes:
  """Trains a SentencePiece unigram model with T5's special ids.

  Nothing is normalised, and what no piece covers is spelt in bytes.

  Args:
    texts: is read once. SentencePiece keeps a copy.
    vocab_size: rows that a model needs: pad (0), EOS (1), unk (2), the 256
      bytes, all other pieces, and the extra ids.
    extra_ids: how many seqio is to append. The model file has none of them.

  Returns:
    The serialised model, of vocab_size - extra_ids pieces. The same bytes for
    the same arguments.

  Raises:
    ValueError: vocab_size or extra_ids is too small, or the text does not give
      that many pieces.
  """
  check_size(vocab_size, extra_ids)
  model = io.BytesIO()
  size = 0
  interruptions = []

  def sentences():
    # Line breaks stay inside the sentences. Pieces such as ':\n' and '\n\n'
    # save code 8% of its tokens and prose 4%, at 16K pieces, against lines as
    # sentences and a byte for each line break.
    nonlocal size
    try:
      for text in texts:
        size += len(text.encode())
        yield from _SENTENCE.findall(text)
    except (Exception, KeyboardInterrupt) as error:
      interruptions.append(error)
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
    # SentencePiece makes its own error of one that is raised by `texts`.
    for interruption in interruptions:
      raise interruption from None
    raise ValueError(_explain(error, vocab_size, extra_ids, size)) from error
  return model.getvalue()


def _explain(
  error: RuntimeError, vocab_size: int, extra_ids: int, size: int
) -> str:
  """What to do about an error of SentencePiece's, for `size` bytes of text."""
  message = f'--vocab_size={vocab_size}, trained on {size:,} bytes of text: '
  if too_high := re.search(r'to a value <= (\d+)', str(error)):
    return message + (
      f'they give {int(too_high[1]) + extra_ids} rows at most, with the '
      f'{extra_ids} extra ids. Lower --vocab_size to that, or give more text '
      '(--megabytes, if the task has it).'
    )
  if too_low := re.search(r'required_chars\. \d+ vs (\d+)', str(error)):
    return message + (
      'each of its common characters needs a row. Raise --vocab_size to at '
      f'least {int(too_low[1]) + extra_ids}.'
    )
  return message + (
    'too little to train on. Give more text (--megabytes, --sample_share, if '
    f'the task has it). SentencePiece says: {error}'
  )


def sample(
  provider: seqio.Task | seqio.Mixture,
  split: str,
  megabytes: float,
  share: float = 1.0,
  feature: str | None = None,
) -> Iterator[str]:
  """Samples untokenised documents, in the order of the split.

  One document at a time is held. The same task, data and arguments give the
  same sample.

  Args:
    provider: a task, or a mixture: its tasks' documents are mixed by its rates.
    split: of the task.
    megabytes: stop when so much is sampled, in 10^6 bytes of UTF-8.
    share: of the documents, chosen by a hash of the text; the others are read
      and left out. Below 1, the sample reaches further into a large corpus.
    feature: which string holds the text; None for 'text', 'targets' or
      'targets_pretokenized'.

  Yields:
    Documents; of bytes that are not UTF-8, U+FFFD is made.

  Raises:
    ValueError: there is no such split, or no such string before tokenisation.
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
  with tqdm.tqdm(
    total=limit, desc=f'sampling {provider.name}', unit='B', unit_scale=True
  ) as progress:
    for document in dataset.as_numpy_iterator():
      text = document.decode(errors='replace')
      if hashing.uniform('vocabulary sample', text) < share:
        yield text
        size += len(document)
        progress.update(len(document))
        if size >= limit:
          return


def _text_of(
  task: seqio.Task, split: str, feature: str | None
) -> tf.data.Dataset:
  """A task's documents, string []: after as many preprocessors as leave them.

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
    except tf.errors.NotFoundError:
      continue  # A tokenizer's vocabulary file.
    found = [
      name
      for name, spec in dataset.element_spec.items()
      if spec.dtype == tf.string and spec.shape.is_compatible_with([])
    ]
    for name in names:
      if name in found:
        return dataset.map(lambda example, name=name: example[name])
    strings.update(found)
  raise ValueError(
    f'--task={task.name}: no text in {", ".join(names)}. Its features that are '
    f'strings: {", ".join(sorted(strings)) or "none"}. Name one in --feature, '
    'or give the task that the tokens were made from.'
  )


def measure(
  processor: sentencepiece.SentencePieceProcessor, texts: Sequence[str]
) -> tuple[float, float]:
  """Returns (bytes per token, share of tokens that are single bytes)."""
  size = sum(len(text.encode()) for text in texts)
  counts = [0, 0]
  for text in texts:
    for token in processor.encode(text):
      counts[processor.is_byte(token)] += 1
  tokens = max(sum(counts), 1)
  return size / tokens, counts[True] / tokens


def parse_flags(argv: Sequence[str]) -> argparse.Namespace:
  # Apart from absl's own flags, which are global: the tasks' modules may define
  # some of the same names.
  flags.FLAGS(argv[:1])
  parser = argparse.ArgumentParser(
    prog='python -m salt_t5x.vocabulary',
    description="Trains a vocabulary on a sample of a task's text.",
  )
  add = parser.add_argument
  add('--task', required=True, help='a registered task or mixture')
  add(
    '--module_import',
    action='append',
    default=[],
    help='a module that registers tasks; may be given several times',
  )
  add('--output', required=True, help='the model file; must not exist')
  add(
    '--vocab_size',
    type=int,
    required=True,
    help='rows a model needs: pieces and extra ids; the paper has 256000',
  )
  add('--extra_ids', type=int, default=100, help='sentinels, among the rows')
  add('--split', default='train')
  add('--feature', help='holds the text; default: text or targets')
  add('--megabytes', type=float, default=100, help='text to sample, 10^6 bytes')
  add(
    '--sample_share',
    type=float,
    default=1.0,
    help='share of the documents to sample from: 0.01 reads 100 times as far',
  )
  args = parser.parse_args(argv[1:])
  try:
    check_size(args.vocab_size, args.extra_ids)
  except ValueError as error:
    parser.error(str(error))
  if not args.output or args.output.endswith('/'):
    parser.error(f'--output={args.output}: name a file.')
  if not args.megabytes > 0:
    parser.error(f'--megabytes={args.megabytes}: must be above 0.')
  if not 0 < args.sample_share <= 1:
    parser.error(
      f'--sample_share={args.sample_share}: must be above 0, and 1 at most.'
    )
  return args


def main(args: argparse.Namespace) -> None:
  # The accelerator may be another process's, a run's say.
  tf.config.set_visible_devices([], 'GPU')
  path = args.output
  path = path if '://' in path else os.path.abspath(path)
  if tf.io.gfile.exists(path):
    raise ValueError(f'--output={args.output} exists. Choose another name.')
  provider = command.find_task(args.task, args.module_import)
  files.make_folder(os.path.dirname(path), f'--output={args.output}')
  held_back = []

  def training_texts():
    texts = sample(
      provider, args.split, args.megabytes, args.sample_share, args.feature
    )
    for index, text in enumerate(texts):
      if index % _HELD_BACK:
        yield text
      else:
        held_back.append(text)

  model = train(training_texts(), args.vocab_size, args.extra_ids)
  files.write_whole(path, model)
  processor = sentencepiece.SentencePieceProcessor(model_proto=model)
  bytes_per_token, byte_share = measure(processor, held_back)
  print(
    f'{path}: {processor.vocab_size():,} pieces and {args.extra_ids} extra '
    f'ids\n{len(held_back):,} documents held back: {bytes_per_token:.2f} bytes '
    f'per token, {byte_share:.2%} of the tokens are single bytes\n'
    'gin, for teacher, student and task alike:\n\n'
    'VOCABULARY = @seqio.SentencePieceVocabulary()\n'
    f'seqio.SentencePieceVocabulary.sentencepiece_model_file = {path!r}\n'
    f'seqio.SentencePieceVocabulary.extra_ids = {args.extra_ids}\n'
    f'VOCAB_SIZE = {args.vocab_size}'
  )


if __name__ == '__main__':
  app.run(main, flags_parser=parse_flags)
