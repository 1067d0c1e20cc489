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

"""A small record in every model directory, of what a checkpoint does not hold.

The vocabulary's fingerprint tells a student whether a teacher speaks its
language; the teacher's checkpoint lets a resumed run go on with the same one,
though there may be newer ones by then.
"""

import dataclasses
import hashlib
import json
import os
import re

from absl import logging
from etils import epath
import seqio
import tensorflow as tf

from salt_t5x import whole_files

_FILE = 'salt_t5x.json'


@dataclasses.dataclass(frozen=True)
class RunRecord:
  """What is written.

  Attributes:
    vocabulary: fingerprint of the vocabulary (`fingerprint`).
    vocab_size: tokens in it, extra ids included, padding rows not.
    kd_steps: n_KD the run began with; None for distillation without end.
    teacher: the checkpoint directory the run distils from, or None.
  """

  vocabulary: str
  vocab_size: int
  kd_steps: int | None = 0
  teacher: str | None = None


def fingerprint(vocabulary: seqio.Vocabulary) -> str:
  """Returns a string that tells vocabularies apart.

  A SentencePiece vocabulary is known by its model's bytes and its extra ids,
  not by the file's name. Any other is known by its class and size alone, so
  two of them may differ unnoticed.
  """
  if isinstance(vocabulary, seqio.SentencePieceVocabulary):
    digest = hashlib.sha256(vocabulary.sp_model).hexdigest()
    return f'sentencepiece:{digest}:{vocabulary.extra_ids}'
  return f'{type(vocabulary).__name__}:{vocabulary.vocab_size}'


def read(model_dir: str) -> RunRecord | None:
  """Reads a model directory's record; None if it has none.

  Raises:
    ValueError: the file is there, but is no such record.
  """
  path = os.path.join(model_dir, _FILE)
  if not tf.io.gfile.exists(path):
    return None
  with tf.io.gfile.GFile(path) as f:
    text = f.read()
  try:
    return RunRecord(**json.loads(text))
  except (TypeError, ValueError) as e:
    raise ValueError(
      f'{path} is damaged ({e}). Restore it, or delete it if the directory '
      'starts a new run.'
    ) from e


def other_vocabulary(path: str, vocabulary: seqio.Vocabulary) -> str | None:
  """Compares a checkpoint's recorded vocabulary with another.

  Args:
    path: a model directory, or a `checkpoint_<step>` directory in it.
    vocabulary: the other.

  Returns:
    How they differ; None if they do not, or if nothing is recorded (trained
    without salt_t5x), which is logged.
  """
  directory = epath.Path(path)
  if re.fullmatch(r'checkpoint_\d+', directory.name):
    directory = directory.parent
  record = read(os.fspath(directory))
  if record is None:
    logging.warning(
      'The model at %s has no vocabulary record. Make sure that it was trained '
      'with this vocabulary.',
      directory,
    )
    return None
  mine = fingerprint(vocabulary)
  if record.vocabulary == mine:
    return None
  return (
    f'it was trained with another vocabulary ({record.vocab_size} tokens, '
    f'{record.vocabulary}) than VOCABULARY ({vocabulary.vocab_size} tokens, '
    f'{mine})'
  )


def write(model_dir: str, record: RunRecord):
  """Writes the record, all of it or nothing."""
  whole_files.write_json(
    os.path.join(model_dir, _FILE), dataclasses.asdict(record)
  )
