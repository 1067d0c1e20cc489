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
import hashlib
import json
import os

import gin
import jax

from salt_t5x import command as command_lib
from salt_t5x import files
from salt_t5x.checkpoints import find
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
    prefixes: the t of ξ_t; those above T are left out.
    lengths: lengths T' <= T of beginnings of sequences, the tables' rows, T
      among them; None for T, T/2, T/4 and T/8.
    training_sequences: N of the bounds, at least 16; None for no bounds.
    delta: of the bounds, in (0, 1).
    seed: of the completions.

  Returns:
    The tables, as Markdown.

  Raises:
    ValueError: a model, the data or a number does not fit.
  """
  length = command_lib.check_lengths(task_feature_lengths)['targets']
  lengths = sorted(lengths or {max(length // 2**i, 1) for i in range(4)})
  prefixes = sorted(t for t in prefixes if t <= length)
  options = measurement.Options(
    length=length,
    distillation_weight=distillation_weight,
    teacher_temperature=teacher_temperature,
    sequences=sequences,
    num_completions=num_completions,
    prefixes=prefixes,
    lengths=lengths,
    training_sequences=training_sequences,
    delta=delta,
  )
  parameter = f'analyze.analyze.output_dir (OUTPUT_DIR) = {output_dir!r}'
  files.make_folder(output_dir, parameter)
  roles = {'student': student, 'teacher': teacher, 'oracle': oracle}
  roles = {role: model.named(role) for role, model in roles.items()}
  found = {role: x.find() for role, x in roles.items()}
  for model in roles.values():
    model.check_vocabulary(student.model.output_vocabulary)
  parameter = f'analyze.analyze.sequences (SEQUENCES) = {sequences}'
  x = ordered_cache.read_prefixes(
    held_out_task, split, length, sequences, parameter
  )
  x = x[:sequences]
  batches = batches_lib.GlobalBatches(partitioner, batch_size)
  shapes = batches_lib.feature_shapes(batch_size, length)
  params, axes = {}, {}
  for role, model in roles.items():
    params[role], axes[role] = model.load(found[role], shapes, partitioner)
  measured = measurement.Measurement(
    {role: model.model for role, model in roles.items()},
    params,
    axes,
    batches,
    teacher_temperature,
  )
  sampler = sampler_lib.Sampler(
    oracle.model, params['oracle'], axes['oracle'], batches, seed
  )
  # Everything that the samples and their files depend on.
  identity = [
    find.identity(found['oracle']),
    os.fspath(found['oracle']),
    oracle.dtype,
    hashlib.sha256(x.tobytes()).hexdigest(),
    num_completions,
    seed,
    batch_size,
  ]
  digest = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]
  folder = completions_dir or os.path.join(output_dir, 'completions')
  folder = os.path.join(folder, digest)
  parts = {}
  for s, tokens in measurement.complete(
    sampler, batches, x, prefixes, num_completions, folder
  ):
    parts[s] = {
      t: tuple(y.reshape(sequences, num_completions) for y in losses)
      for t, losses in measured.losses(tokens, lengths).items()
    }
  results = theory_report.Results(
    options=options,
    models={role: os.fspath(path) for role, path in found.items()},
    held_out=f'{held_out_task} ({split})',
    parts=parts,
    losses=measured.losses(x, [length])[length],
    tokens=measured.divergences(x),
    log_class=theory_report.log_class(params['student']),
  )
  return theory_report.write(results, output_dir, jax.process_index() == 0)


def main() -> None:
  """Runs `analyze` as gin configured it and prints its tables."""
  tables = gin.get_configurable(analyze)()
  if jax.process_index() == 0:
    print(tables)


if __name__ == '__main__':
  from salt_t5x import analyze as module

  command_lib.start(module.main)
