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
though there may be newer ones by then. A run that is resumed with something
else than it began with is stopped, unless that is what its user wants.
"""

from collections.abc import Mapping
import dataclasses
import hashlib
import os
import re
from typing import Any

from absl import logging
from etils import epath
from google.protobuf import message
import seqio
import tensorflow as tf

from salt_t5x import files
from salt_t5x.checkpoints import find

_FILE = 'salt_t5x.json'


@dataclasses.dataclass(frozen=True)
class RunRecord:
  """What is written.

  Attributes:
    vocabulary: fingerprint of the vocabulary (`fingerprint`).
    vocab_size: tokens in it, extra ids included, padding rows not.
    kd_steps: n_KD the run began with; None for distillation without end.
    teacher: the checkpoint directory the run distils from, or None.
    teacher_identity: `checkpoints.identity` of it, which it keeps when moved.
    schedule: `schedules.Schedule.description`; None where nothing is distilled,
      and in records of earlier versions, as what follows.
    teacher_temperature: ρ.
    top_k: k of eq. (12).
  """

  vocabulary: str
  vocab_size: int
  kd_steps: int | None = 0
  teacher: str | None = None
  teacher_identity: str | None = None
  schedule: str | None = None
  teacher_temperature: float | None = None
  top_k: int | None = None

  def __post_init__(self):
    files.check_types(self)
    for name in ('vocab_size', 'kd_steps', 'top_k'):
      if (getattr(self, name) or 0) < 0:
        raise ValueError(f'{name} = {getattr(self, name)} counts something')


def fingerprint(vocabulary: seqio.Vocabulary) -> str:
  """Returns a string that tells vocabularies apart.

  A SentencePiece vocabulary is known by its model's bytes and its extra ids,
  not by the file's name. Any other is known by its class and size alone, so
  two of them may differ unnoticed.

  Raises:
    ValueError: the file of a SentencePiece vocabulary cannot be read.
  """
  if isinstance(vocabulary, seqio.SentencePieceVocabulary):
    digest = hashlib.sha256(_model_bytes(vocabulary)).hexdigest()
    return f'sentencepiece:{digest}:{vocabulary.extra_ids}'
  return f'{type(vocabulary).__name__}:{vocabulary.vocab_size}'


def _model_bytes(vocabulary: seqio.SentencePieceVocabulary) -> bytes:
  try:
    return vocabulary.sp_model
  # A missing file, an empty one, or another kind of file.
  except (tf.errors.OpError, RuntimeError, message.DecodeError) as e:
    raise ValueError(
      'VOCABULARY (sentencepiece_model_file = '
      f'{vocabulary.sentencepiece_model_file!r}) is no SentencePiece model '
      f'({e}). Name the file that `python -m salt_t5x.vocabulary` or '
      'SentencePiece wrote.'
    ) from e


def read(model_dir: str) -> RunRecord | None:
  """Reads a model directory's record; None if it has none.

  Raises:
    ValueError: the file is there, but is no such record.
  """
  path = os.path.join(model_dir, _FILE)
  if not tf.io.gfile.exists(path):
    return None
  try:
    return files.read_record(path, RunRecord)
  except ValueError as e:
    raise ValueError(
      f'{path} is damaged ({e}). Restore it, or delete it if the directory '
      'starts a new run.'
    ) from e


def changes(before: RunRecord, now: RunRecord) -> dict[str, tuple[Any, Any]]:
  """How a resumed run would train otherwise than it began.

  Args:
    before: the run's record.
    now: what it is configured to be; without a teacher if none is needed.

  Returns:
    {gin parameter: (before, now)}.
  """
  found = {}
  if before.kd_steps != now.kd_steps:
    found['n_KD (KD_STEPS)'] = before.kd_steps, now.kd_steps
  if before.teacher is None or now.teacher is None:
    return found
  if before.teacher_identity is None:  # A record of an earlier version.
    if before.teacher != now.teacher:
      found['teacher.Teacher.path'] = before.teacher, now.teacher
    return found
  if before.teacher_identity != now.teacher_identity:
    found['teacher.Teacher.path'] = (
      f'{before.teacher} ({before.teacher_identity})',
      f'{now.teacher} ({now.teacher_identity})',
    )
  for name in ('schedule', 'teacher_temperature', 'top_k'):
    if getattr(before, name) != getattr(now, name):
      found[f'trainer.SaltTrainer.{name}'] = (
        getattr(before, name),
        getattr(now, name),
      )
  return found


def refuse_changes(
  model_dir: str, changes: Mapping[str, tuple[Any, Any]], allowed: bool
) -> None:
  """Stops a resumed run that is configured in another way than it began.

  Args:
    model_dir: of the run.
    changes: {gin parameter: (what the run began with, what it has now)}.
    allowed: warn, and go on.

  Raises:
    ValueError: there are changes, and they are not allowed.
  """
  if not changes:
    return
  listed = '\n  '.join(
    f'{name} = {now!r}, and was {before!r}'
    for name, (before, now) in changes.items()
  )
  what = (
    f'MODEL_DIR = {model_dir!r} holds a run that began with another '
    f'configuration:\n  {listed}'
  )
  if not allowed:
    raise ValueError(
      f'{what}\nResume it with what it began with, or choose another '
      'MODEL_DIR. To go on with what is new, set ALLOW_CHANGES_ON_RESUME = '
      'True.'
    )
  logging.warning('%s\nIt goes on with what is new.', what)


def compare(
  model_dir: str, before: RunRecord, now: RunRecord, allow_changes: bool
) -> None:
  """Compares a resumed run with its record; see `changes`.

  Raises:
    ValueError: its vocabulary is another, or something else that may not
      change.
  """
  if before.vocabulary != now.vocabulary:
    raise ValueError(
      f'MODEL_DIR = {model_dir!r} holds a run with another vocabulary '
      f'({before.vocabulary}) than VOCABULARY ({now.vocabulary}): choose '
      'another MODEL_DIR, or the vocabulary the run began with.'
    )
  refuse_changes(model_dir, changes(before, now), allow_changes)


def begun(model_dir: str) -> bool:
  """Whether a directory holds a run that would be resumed."""
  return bool(tf.io.gfile.isdir(model_dir) and find.finished(model_dir))


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
  files.write_json(os.path.join(model_dir, _FILE), dataclasses.asdict(record))
