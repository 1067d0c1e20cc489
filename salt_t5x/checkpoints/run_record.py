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

"""A small record in every model directory of what a checkpoint does not hold.

The vocabulary's fingerprint shows whether a teacher has the student's tokens;
the teacher's checkpoint lets a resumed run keep its teacher where newer
checkpoints exist. A run that is resumed with another configuration is refused
unless its user allows it.
"""

from collections.abc import Mapping
import dataclasses
import os
import re
from typing import Any

from absl import logging
from etils import epath
import tensorflow as tf

from salt_t5x import files
from salt_t5x.checkpoints import find

_FILE = 'salt_t5x.json'
# The part of `models.describe` that is the model's, not the module's.
BIDIRECTIONAL = 'inputs_bidirectional_attention'


@dataclasses.dataclass(frozen=True)
class RunRecord:
  """How a run began.

  Attributes:
    vocabulary: its fingerprint (`data.vocabularies.fingerprint`).
    vocab_size: number of tokens with extra ids, without padding rows.
    kd_steps: n_KD; None for distillation without end.
    teacher: the teacher's checkpoint directory; None, as for the fields below,
      where nothing is distilled.
    teacher_identity: its `find.identity`, which stays the same when it moves.
    schedule: `schedules.Schedule.description`.
    teacher_temperature: ρ.
    top_k: k of eq. (12).
    network: `models.describe` of the model; None if it is not recorded.
    optimization: {gin parameter: value} of what the rest of the run depends on;
      None if it is not recorded.
    skipped_batches: [step, number of batches that were skipped there], in
      order; None if there were none.
  """

  vocabulary: str
  vocab_size: int
  kd_steps: int | None = 0
  teacher: str | None = None
  teacher_identity: str | None = None
  schedule: str | None = None
  teacher_temperature: float | None = None
  top_k: int | None = None
  network: dict | None = None
  optimization: dict | None = None
  skipped_batches: list | None = None

  def __post_init__(self):
    files.check_types(self)
    for entry in self.skipped_batches or ():
      if list(map(type, entry)) != [int, int] or min(entry) < 0:
        raise ValueError(f'skipped_batches = {self.skipped_batches!r}')
    for name in ('vocab_size', 'kd_steps', 'top_k'):
      if (getattr(self, name) or 0) < 0:
        raise ValueError(f'{name} = {getattr(self, name)} is not a count')


def until(record: RunRecord | None, step: int) -> list | None:
  """Returns the entries of `skipped_batches` up to a step, inclusive."""
  found = (record and record.skipped_batches) or []
  return [[at, count] for at, count in found if at <= step] or None


def skipped(record: RunRecord | None, step: int) -> int:
  """Counts the batches that were skipped up to a step, inclusive."""
  return sum(count for _, count in until(record, step) or ())


def read(model_dir: str) -> RunRecord | None:
  """Reads a model directory's record; None if it has none.

  Raises:
    ValueError: the file exists but is not such a record.
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


def refuse_changes(
  model_dir: str, changes: Mapping[str, tuple[Any, Any]], allowed: bool
) -> None:
  """Refuses to resume a run with another configuration.

  Args:
    model_dir: the run's directory.
    changes: {gin parameter: (value before, value now)}.
    allowed: whether to warn instead.

  Raises:
    ValueError: there are changes, and they are not allowed.
  """
  if not changes:
    return
  listed = '\n  '.join(
    f'{name} = {now!r}, and was {before!r}'
    for name, (before, now) in changes.items()
  )
  found = (
    f'MODEL_DIR = {model_dir!r} holds a run that began with another '
    f'configuration:\n  {listed}\n'
  )
  if not allowed:
    raise ValueError(
      f'{found}Resume it with the values it began with, or choose another '
      'MODEL_DIR. To resume with the new values, set ALLOW_CHANGES_ON_RESUME = '
      'True.'
    )
  logging.warning('%sResuming with the new values.', found)


def compare(
  model_dir: str, before: RunRecord, now: RunRecord, allow_changes: bool
) -> None:
  """Compares a resumed run with its record.

  Args:
    model_dir: the run's directory.
    before: its record.
    now: its present configuration; without a teacher if it needs none.
    allow_changes: whether to warn about differences.

  Raises:
    ValueError: the vocabulary differs, or another value that may not change.
  """
  if before.vocabulary != now.vocabulary:
    raise ValueError(
      f'MODEL_DIR = {model_dir!r} holds a run with another vocabulary '
      f'({before.vocabulary}) than VOCABULARY ({now.vocabulary}): choose '
      'another MODEL_DIR, or the vocabulary the run began with.'
    )
  changes = network_changes(before, now.network)
  if before.optimization is not None:
    # The engines' optimizers have different parameters in part.
    both = before.optimization.keys() & now.optimization
    changes |= files.differences(
      before.optimization,
      {x: y for x, y in now.optimization.items() if x in both},
    )
  parameters = {'kd_steps': 'n_KD (KD_STEPS)'}
  if before.teacher and now.teacher:
    parameters['teacher_identity'] = 'teacher.Teacher.path'
    for name in ('schedule', 'teacher_temperature', 'top_k'):
      parameters[name] = f'trainer.SaltTrainer.{name}'
  shown = lambda record: (
    dataclasses.asdict(record)
    | {'teacher_identity': f'{record.teacher} ({record.teacher_identity})'}
  )
  changes |= {
    parameter: (shown(before)[name], shown(now)[name])
    for name, parameter in parameters.items()
    if getattr(before, name) != getattr(now, name)
  }
  refuse_changes(model_dir, changes, allow_changes)


def begun(model_dir: str) -> bool:
  """Whether a directory holds a run that would be resumed."""
  return bool(find.finished(model_dir))


def network_changes(
  before: RunRecord, network: Mapping[str, Any] | None
) -> dict[str, tuple[Any, Any]]:
  """Compares a recorded network with another.

  Args:
    before: a record.
    network: the other network, as `models.describe` returns it.

  Returns:
    {gin parameter: (recorded value, other value)} where these differ.
  """
  if before.network is None or network is None:
    return {}
  found = files.differences(before.network, network)
  return {
    f'models.SaltDecoderOnlyModel.{x}'
    if x == BIDIRECTIONAL
    else f'network.TransformerConfig.{x}': y
    for x, y in found.items()
  }


def difference(
  path: str, vocabulary: str, vocab_size: int, network: Mapping[str, Any]
) -> str | None:
  """Compares a checkpoint's recorded vocabulary and network with others.

  Args:
    path: a model directory, or a `checkpoint_<step>` directory in it.
    vocabulary: the other vocabulary's fingerprint.
    vocab_size: its number of tokens.
    network: the other network, as `models.describe` returns it.

  Returns:
    The difference in words; None if there is none, or no record (the model was
    trained without salt_t5x), which is logged.
  """
  directory = epath.Path(path)
  if re.fullmatch(r'checkpoint_\d+', directory.name):
    directory = directory.parent
  record = read(os.fspath(directory))
  if record is None:
    logging.warning(
      'The model at %s has no record: make sure that it was trained with this '
      'vocabulary, and that its network computes the same.',
      directory,
    )
    return None
  if record.vocabulary != vocabulary:
    return (
      f'it was trained with another vocabulary ({record.vocab_size} tokens, '
      f'{record.vocabulary}) than VOCABULARY ({vocab_size} tokens, '
      f'{vocabulary}). Set VOCABULARY to the one of that run, or name a model '
      'trained with this one; only the padded number of embedding rows may '
      'differ'
    )
  if changes := network_changes(record, network):
    listed = ', '.join(
      f'{name} = {was!r} (and is now {now!r})'
      for name, (was, now) in changes.items()
    )
    return (
      f'it was trained with {listed}. Include the gin file of its size, and '
      'bind parameters in the scope of the model that they are meant for'
    )
  return None


def write(model_dir: str, record: RunRecord):
  """Writes the record atomically."""
  files.write_json(os.path.join(model_dir, _FILE), dataclasses.asdict(record))
