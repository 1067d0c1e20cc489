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

"""The theory's quantities from checkpoints: `python -m salt_t5x.analyze`.

The gin files are a student's, a teacher's, an oracle's, the data's and
`runs/analyze.gin`. An oracle, a larger language model, stands for the data's
distribution (App. C). Results are tables like the paper's 6 to 9, bias and
variance over ω (App. D) and the bounds, with figures. Completions are kept: a
job that was stopped goes on, and another student is judged by the same ones.
"""

from collections.abc import Iterator, Mapping, Sequence
import dataclasses
import hashlib
import json
import os
from typing import Any

from etils import epath
import gin
import jax
import numpy as np
import tqdm

from salt_t5x import command as command_lib
from salt_t5x import files, models
from salt_t5x.checkpoints import find, run_record
from salt_t5x.checkpoints import restore as restore_lib
from salt_t5x.evaluation import held_out
from salt_t5x.inference import batches as batches_lib
from salt_t5x.inference import sampler as sampler_lib
from salt_t5x.theory import completions, deviations
from salt_t5x.theory import report as theory_report
from t5x import models as t5x_models
from t5x import partitioning

PyTree = Any


@dataclasses.dataclass(frozen=True)
class Model:
  """A language model and where its parameters are.

  Attributes:
    model: a t5x decoder-only model.
    path: its model directory, or a `checkpoint_<step>` directory.
    step: the checkpoint to take from a model directory; None for the newest.
    dtype: of the parameters; None keeps them as they were saved.
  """

  model: t5x_models.DecoderOnlyModel
  path: str | None
  step: int | None = None
  dtype: str | None = None


@dataclasses.dataclass(frozen=True)
class _Loaded:
  model: t5x_models.DecoderOnlyModel
  checkpoint: epath.Path
  params: PyTree
  axes: PyTree


def _find(role: str, which: Model) -> epath.Path:
  name = f'{role}/analyze.Model.path ({role.upper()}_PATH)'
  if not which.path:
    raise ValueError(f'{name} = {which.path!r}: name a model directory.')
  return find.same_on_all_hosts(
    find.checkpoint(
      which.path,
      which.step,
      parameter=name,
      step_parameter=f'{role}/analyze.Model.step ({role.upper()}_STEP)',
    )
  )


def _check_vocabularies(which: Mapping[str, Model]) -> None:
  vocabulary = which['student'].model.output_vocabulary
  for role, x in which.items():
    if difference := run_record.other_vocabulary(x.path, vocabulary):
      raise ValueError(
        f'{role}/analyze.Model.path ({role.upper()}_PATH) = {x.path!r}: '
        f'{difference}. Student, teacher and oracle must share one.'
      )


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
    split: of it.
    task_feature_lengths: {'targets': T}.
    batch_size: completions that are drawn and judged together.
    distillation_weight: ω of the tables.
    teacher_temperature: ρ.
    sequences: how many x, from the first whole one of the split.
    num_completions: n_com, of each prefix of each x.
    completions_dir: where completions are kept, for other students of the same
      oracle, too; None for a folder in `output_dir`.
    prefixes: the t of ξ_t; those above T are left out.
    lengths: sequence lengths T' <= T of the tables' rows, T among them; None
      for T, T/2, T/4 and T/8. A shorter sequence is the beginning of a longer
      one.
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
  _check_numbers(
    length, lengths, prefixes, sequences, num_completions, distillation_weight,
    teacher_temperature, training_sequences, delta,
  )  # fmt: skip
  files.make_folder(
    output_dir, f'analyze.analyze.output_dir (OUTPUT_DIR) = {output_dir!r}'
  )
  which = {'student': student, 'teacher': teacher, 'oracle': oracle}
  found = {role: _find(role, x) for role, x in which.items()}
  _check_vocabularies(which)
  x = _sequences(held_out_task, split, sequences, length)
  batches = batches_lib.WholeBatches(partitioner, batch_size)
  features = jax.eval_shape(
    models.features_of, jax.ShapeDtypeStruct((batch_size, length), np.int32)
  )
  loaded = {
    role: _load(role, y, found[role], features, partitioner)
    for role, y in which.items()
  }
  run = _Programs(loaded, partitioner, batches, teacher_temperature, batch_size)
  of_oracle = loaded['oracle']
  drawer = sampler_lib.Drawer(
    of_oracle.model,
    of_oracle.params,
    of_oracle.axes,
    partitioner,
    batch_size,
    seed,
  )
  parts = {}
  for s, drawn in _completions(
    drawer,
    x,
    prefixes,
    num_completions,
    seed,
    completions_dir or os.path.join(output_dir, 'completions'),
    found['oracle'],
    oracle.dtype,
  ):
    parts[s] = run.losses(drawn, lengths)
  tokens = run.divergences(x)
  results = theory_report.Results(
    distillation_weight=distillation_weight,
    teacher_temperature=teacher_temperature,
    num_completions=num_completions,
    sequences=sequences,
    lengths=lengths,
    prefixes=prefixes,
    models={role: os.fspath(path) for role, path in found.items()},
    held_out=f'{held_out_task} ({split})',
    parts={
      s: {
        t: tuple(y.reshape(sequences, num_completions) for y in of_length)
        for t, of_length in of_prefix.items()
      }
      for s, of_prefix in parts.items()
    },
    losses=run.losses(x, [length])[length],
    tokens=tokens,
    log_class=_log_class(loaded['student'].params),
    training_sequences=training_sequences,
    delta=delta,
  )
  return theory_report.write(
    results, output_dir, write=jax.process_index() == 0
  )


def _check_numbers(
  length,
  lengths,
  prefixes,
  sequences,
  num_completions,
  omega,
  rho,
  training_sequences,
  delta,
) -> None:
  problems = {
    f'distillation_weight (DISTILLATION_WEIGHT) = {omega}: in [0, 1]': (
      0 <= omega <= 1
    ),
    f'teacher_temperature (TEACHER_TEMPERATURE) = {rho}: above 0': rho > 0,
    f'sequences (SEQUENCES) = {sequences}: at least 2': sequences >= 2,
    f'num_completions (NUM_COMPLETIONS) = {num_completions}: at least 2': (
      num_completions >= 2
    ),
    f'prefixes (PREFIXES): at least one from 1 to T = {length}': (
      len(prefixes) > 0 and prefixes[0] >= 1
    ),
    f'lengths = {lengths}: from 1 to T = {length}, T among them': (
      lengths[0] >= 1 and lengths[-1] == length
    ),
    f'training_sequences (TRAINING_SEQUENCES) = {training_sequences}: at least '
    '16, or None': training_sequences is None or training_sequences >= 16,
    f'delta = {delta}: between 0 and 1': 0 < delta < 1,
  }
  for problem, is_fine in problems.items():
    if not is_fine:
      raise ValueError(f'analyze.analyze.{problem}.')


def _sequences(task: str, split: str, count: int, length: int) -> np.ndarray:
  """[count, T] int32, the first whole sequences of the split."""
  whole = [
    tokens[:length]
    for _, tokens in held_out.read(task, split, None)
    if len(tokens) >= length
  ]
  if len(whole) < count:
    raise ValueError(
      f'analyze.analyze.sequences (SEQUENCES) = {count}: the {split} split of '
      f'{task} has {len(whole)} sequences of at least {length} tokens.'
    )
  return np.stack(whole[:count]).astype(np.int32)


def _load(
  role: str,
  which: Model,
  checkpoint: epath.Path,
  features: Mapping[str, jax.ShapeDtypeStruct],
  partitioner: partitioning.BasePartitioner,
) -> _Loaded:
  shapes, axes = models.shapes_and_axes(which.model, features, partitioner)
  params = restore_lib.parameters(
    checkpoint,
    shapes,
    axes,
    partitioner.mesh,
    dtype=which.dtype,
    parameter=f'{role}/analyze.Model.model ({role.upper()}_MODEL)',
  )
  return _Loaded(which.model, checkpoint, params, axes)


def _log_class(params: PyTree) -> float:
  """log |Θ| of the models that 32 bits a parameter can tell apart."""
  return 32 * np.log(2) * sum(x.size for x in jax.tree.leaves(params))


class _Programs:
  """What student, teacher and oracle say of texts; compiled once each."""

  def __init__(
    self,
    loaded: Mapping[str, _Loaded],
    partitioner: partitioning.BasePartitioner,
    batches: batches_lib.WholeBatches,
    teacher_temperature: float,
    batch_size: int,
  ):
    self._batches, self._batch_size = batches, batch_size
    self._params = {role: x.params for role, x in loaded.items()}
    axes = {role: x.axes for role, x in loaded.items()}
    of = {role: x.model for role, x in loaded.items()}
    options = dict(teacher_temperature=teacher_temperature, chunk=batches.chunk)

    def partition(function):
      return partitioner.partition(
        function,
        in_axis_resources=(axes, batches.spec),
        out_axis_resources=None,
      )

    pair = lambda role, params: (of[role], params[role])
    self._losses = partition(
      lambda params, tokens: completions.token_losses(
        pair('student', params), pair('teacher', params), tokens, **options
      )
    )
    self._divergences = partition(
      lambda params, tokens: completions.token_divergences(
        *(pair(role, params) for role in ('student', 'teacher', 'oracle')),
        tokens,
        **options,
      )
    )

  def _in_batches(self, program, tokens: np.ndarray) -> Iterator[PyTree]:
    for start in range(0, len(tokens), self._batch_size):
      batch = tokens[start : start + self._batch_size]
      found = program(self._params, self._batches.put_some(batch))
      yield jax.tree.map(
        lambda y, count=len(batch): np.asarray(y)[:count], found
      )

  def losses(
    self, tokens: np.ndarray, lengths: Sequence[int]
  ) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """{T': ([n] eq. (1), [n] eq. (3)) of the first T' tokens, a token}."""
    found = {t: [] for t in lengths}
    for parts in self._in_batches(self._losses, tokens):
      for t, of_length in found.items():
        of_length.append(
          [np.mean(x[:, :t], axis=1, dtype=np.float64) for x in parts]
        )
    return {
      t: tuple(map(np.concatenate, zip(*of_length, strict=True)))
      for t, of_length in found.items()
    }

  def divergences(self, tokens: np.ndarray) -> dict[str, np.ndarray]:
    found = list(self._in_batches(self._divergences, tokens))
    return {k: np.concatenate([x[k] for x in found]) for k in found[0]}


def _completions(
  drawer: sampler_lib.Drawer,
  x: np.ndarray,
  prefixes: Sequence[int],
  num_completions: int,
  seed: int,
  completions_dir: str,
  oracle: epath.Path,
  dtype: str | None,
) -> Iterator[tuple[int, np.ndarray]]:
  """Yields (s, [n · n_com, T] int32 completions of x_1 ... x_s)."""
  # Whatever changes a draw, and the files that hold them.
  identity = [
    find.identity(oracle),
    os.fspath(oracle),
    dtype,
    hashlib.sha256(x.tobytes()).hexdigest(),
    num_completions,
    seed,
    drawer.batch_size,
  ]
  digest = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]
  folder = os.path.join(completions_dir, digest)
  tokens = np.repeat(x, num_completions, axis=0)
  rows = np.arange(len(tokens))
  whole = x.shape[1]
  lengths = deviations.prefix_lengths(prefixes)
  if whole in lengths:
    lengths.remove(whole)
    yield whole, tokens  # There is nothing to draw.
  with tqdm.tqdm(
    total=len(lengths) * drawer.batches(len(tokens)),
    desc='Completions',
    unit='batch',
    disable=None if jax.process_index() == 0 else True,
  ) as progress:
    for s in lengths:
      names = [rows // num_completions, np.full_like(rows, s)]
      names = np.stack([*names, rows % num_completions], axis=1)
      yield (
        s,
        drawer.draw(
          tokens,
          np.full(len(tokens), s),
          names,
          os.path.join(folder, f'prefix_{s:05d}'),
          progress,
        ),
      )


def main() -> None:
  tables = gin.get_configurable(analyze)()
  if jax.process_index() == 0:
    print(tables)


if __name__ == '__main__':
  from salt_t5x import analyze as module

  command_lib.start(module.main)
