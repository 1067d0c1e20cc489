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

Decoding restores the exact text: spaces, tabs, line breaks and control
characters. There are two exceptions. SentencePiece writes a space as U+2581 (a
low block, '\u2581'), and so reads U+2581 as a space. And seqio reads the text
' <extra_id_0>' as a sentinel.
"""

import argparse
from collections.abc import Sequence
import itertools
import os
import sys

import sentencepiece
import tensorflow as tf

from salt_t5x import command, files
from salt_t5x.data import bad_lines, vocabularies

# One document in this many, beginning with the first, measures the vocabulary.
_HELD_BACK = 50


def parse_flags(argv: Sequence[str]) -> argparse.Namespace:
  """Parses the command's flags."""
  parser = command.parser(
    'salt_t5x.vocabulary', "Trains a vocabulary on a sample of a task's text."
  )
  command.add_task_flags(parser)
  add = parser.add_argument
  add('--output', required=True, help='the model file; must not exist')
  add('--vocab_size', type=int, required=True, help='with the extra ids')
  add('--extra_ids', type=command.at_least(0), default=100, help='sentinels')
  add('--split', default='train')
  add('--feature', help='holds the text; default: text or targets')
  add('--megabytes', type=command.positive(), default=100, help='10^6 bytes')
  add(
    '--sample_share',
    type=command.positive(1),
    default=1.0,
    help='share of the documents to sample from: 0.01 reads 100 times as far',
  )
  args = parser.parse_args(argv[1:])
  try:
    vocabularies.check_size(args.vocab_size, args.extra_ids)
  except ValueError as error:
    parser.error(str(error))
  if not os.path.basename(args.output):
    parser.error(f'--output={args.output}: name a file.')
  return args


def main(args: argparse.Namespace) -> None:
  """Trains the vocabulary, writes it, and prints the gin lines that bind it."""
  try:
    print(_train(args))
  except bad_lines.DamagedShardError as e:
    sys.exit(str(e))


def _train(args: argparse.Namespace) -> str:
  path = files.absolute(args.output)
  if tf.io.gfile.exists(path):
    raise ValueError(f'--output={args.output} exists. Choose another name.')
  provider = command.find_task(args.task, args.module_import)
  files.make_folder(os.path.dirname(path), f'--output={args.output}')
  texts = vocabularies.sample(
    provider, args.split, args.megabytes, args.sample_share, args.feature
  )
  held_back = list(itertools.islice(texts, 1))
  first = next(texts, None)
  if first is None:
    raise ValueError(
      f'--task={args.task}: the sample of its {args.split} split has '
      f'{len(held_back)} documents, and 2 are the least, one to train on and '
      'one to measure the vocabulary with. Give it more documents, --split '
      'another split, or --megabytes and --sample_share a larger sample.'
    )

  def training_texts():
    for index, text in enumerate(itertools.chain([first], texts), 1):
      if index % _HELD_BACK:
        yield text
      else:
        held_back.append(text)

  model = vocabularies.train(training_texts(), args.vocab_size, args.extra_ids)
  files.write_whole(path, model)
  processor = sentencepiece.SentencePieceProcessor(model_proto=model)
  bytes_per_token, byte_share = vocabularies.measure(processor, held_back)
  return (
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
  command.run(main, parse_flags)
