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

"""Estimates the theory's quantities: `python -m salt_t5x.analyze`.

The gin files are a student's, a teacher's, an oracle's, the data's and
`runs/analyze.gin`. An oracle, a larger language model, stands for the data's
distribution (App. C). Results are tables like the paper's 6 to 9, bias and
variance over ω (App. D) and the bounds, with figures. Completions are kept for
reruns and for other students.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import os

import jax

from salt_t5x import command as command_lib
from salt_t5x import files
from salt_t5x.checkpoints import find
from salt_t5x.data import lengths as lengths_lib
from salt_t5x.data import ordered_cache
from salt_t5x.inference import batches as batches_lib
from salt_t5x.inference import pretrained
from salt_t5x.inference import sampler as sampler_lib
from salt_t5x.theory import measurement
from salt_t5x.theory import report as theory_report
from t5x import partitioning


@dataclasses.dataclass(frozen=True)
class Model(pretrained.Pretrained):
  """Student, teacher or oracle. Bound in gin as `ROLE/analyze.Model`."""

  def named(self, role: str) -> 'Model':
    """Returns the same model, with the role in its error messages."""
    names = {
      x: f'{role}/analyze.Model.{x} ({role.upper()}_{x.upper()})'
      for x in ('path', 'step', 'model')
    }
    return dataclasses.replace(self, parameters=pretrained.Parameters(**names))


def analyze(
  student: Model,
  teacher: Model,
  oracle: Model,
  partitioner: partitioning.BasePartitioner,
  output_dir: str,
  held_out_task: str,
  split: str,
  task_feature_lengths: Mapping[str, int],
  batch_size: int,
  distillation_weight: float,
  teacher_temperature: float,
  sequences: int,
  num_completions: int = 64,
  completions_dir: str | None = None,
  prefixes: Sequence[int] = (1, 5, 10, 30, 100, 300, 640),
  lengths: Sequence[int] | None = None,
  training_sequences: int | None = None,
  delta: float = 0.05,
  seed: int = 0,
) -> str:
  """Estimates and writes theory.md, theory.json and theory.png.

  Args:
    student: θ.
    teacher: ζ.
    oracle: stands for the data's distribution D.
    partitioner: shards parameters and batches.
    output_dir: where results go.
    held_out_task: a task over a cache of sequences, none of which any of the
      models was trained on.
    split: its split.
    task_feature_lengths: {'targets': T}.
    batch_size: completions that are sampled and scored together.
    distillation_weight: ω of the tables.
    teacher_temperature: ρ.
    sequences: number of texts x, from the first whole one of the split.
    num_completions: n_com, of each prefix of each x.
    completions_dir: where completions are kept, for other students of the same
      oracle, too; None for a folder in `output_dir`.
    prefixes: the t of ξ_t, from 1 to T.
    lengths: lengths T' <= T of beginnings of sequences, the tables' rows, T
      among them; None for T, T/2, T/4 and T/8.
    training_sequences: N of the bounds, at least 16; None for no bounds.
    delta: of the bounds, in (0, 1).
    seed: of the completions.

  Returns:
    The tables, as Markdown.

  Raises:
    ValueError: a model, the data or a number does not fit, or two roles have
      the same checkpoint.
  """
  length = lengths_lib.sequence_length(task_feature_lengths)
  lengths = sorted(lengths or {max(length // 2**i, 1) for i in range(4)})
  prefixes = sorted(prefixes)
  for name, value, is_allowed, allowed in (
    ('distillation_weight (DISTILLATION_WEIGHT)', distillation_weight,
     0 <= distillation_weight <= 1, 'in [0, 1]'),
    ('teacher_temperature (TEACHER_TEMPERATURE)', teacher_temperature,
     teacher_temperature > 0, 'above 0'),
    ('sequences (SEQUENCES)', sequences, sequences >= 2, 'at least 2'),
    ('num_completions (NUM_COMPLETIONS)', num_completions,
     num_completions >= 2, 'at least 2'),
    ('prefixes (PREFIXES)', prefixes,
     prefixes and prefixes[0] >= 1 and prefixes[-1] <= length,
     f'at least one, all from 1 to T = {length}'),
    ('lengths', lengths, lengths[0] >= 1 and lengths[-1] == length,
     f'from 1 to T = {length}, T among them'),
    ('training_sequences (TRAINING_SEQUENCES)', training_sequences,
     training_sequences is None or training_sequences >= 16,
     'at least 16, or None'),
    ('delta', delta, 0 < delta < 1, 'between 0 and 1'),
  ):  # fmt: skip
    if not is_allowed:
      raise ValueError(f'analyze.analyze.{name} = {value!r}: {allowed}.')
  parameter = f'analyze.analyze.output_dir (OUTPUT_DIR) = {output_dir!r}'
  files.make_folder(output_dir, parameter)
  roles = {'student': student, 'teacher': teacher, 'oracle': oracle}
  roles = {role: model.named(role) for role, model in roles.items()}
  found = {role: x.find() for role, x in roles.items()}
  better = "It stands for the data's distribution: name a better model."
  for role, other, remedy in (
    ('oracle', 'student', better),
    ('oracle', 'teacher', better),
    ('teacher', 'student', 'Name the model that taught it, or could have.'),
  ):
    if find.are_copies(found[other], found[role]):
      model = roles[role]
      raise ValueError(
        f'{model.parameters.path} = {model.path!r} is the same checkpoint as '
        f'the {other}, {found[other]}. {remedy}'
      )
  for model in roles.values():
    model.check_record(student.model.output_vocabulary)
  parameter = f'analyze.analyze.sequences (SEQUENCES) = {sequences}'
  x = ordered_cache.read_prefixes(
    held_out_task, split, length, sequences, parameter
  )[:sequences]
  batches = batches_lib.GlobalBatches(partitioner, batch_size)
  shapes = batches_lib.feature_shapes(batch_size, length)
  params, axes = {}, {}
  for role, model in roles.items():
    params[role], axes[role] = model.load(found[role], shapes, partitioner)
  models = {role: model.model for role, model in roles.items()}
  measured = measurement.Measurement(
    models, params, axes, batches, teacher_temperature
  )
  sampler = sampler_lib.Sampler(
    oracle.model, params['oracle'], axes['oracle'], batches, seed
  )
  completions = measurement.complete(
    sampler,
    batches,
    x,
    prefixes,
    num_completions,
    completions_dir or os.path.join(output_dir, 'completions'),
    [find.identity(found['oracle']), str(found['oracle']), oracle.dtype, seed],
  )
  by_text = lambda losses: losses.reshape(sequences, num_completions)
  results = theory_report.Results(
    models={role: os.fspath(path) for role, path in found.items()},
    held_out=f'{held_out_task} ({split})',
    distillation_weight=distillation_weight,
    teacher_temperature=teacher_temperature,
    prefixes=prefixes,
    training_sequences=training_sequences,
    delta=delta,
    parts={
      s: jax.tree.map(by_text, measured.losses(tokens, lengths))
      for s, tokens in completions
    },
    losses=measured.losses(x, [length])[length],
    tokens=measured.divergences(x),
    log_class=theory_report.log_class(params['student']),
  )
  return theory_report.write(results, output_dir, jax.process_index() == 0)


if __name__ == '__main__':
  from salt_t5x import analyze as module

  command_lib.start(module.analyze)
