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

"""Runs student, teacher and oracle on texts and on the oracle's completions."""

from collections.abc import Iterator, Mapping, Sequence
import dataclasses
import os
from typing import Any

import jax
import numpy as np

from salt_t5x.inference import batches as batches_lib
from salt_t5x.inference import sampler as sampler_lib
from salt_t5x.theory import completions, deviations
from t5x import models as t5x_models

PyTree = Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
  """The numbers of `analyze.analyze`, checked.

  Attributes:
    length: T.
    distillation_weight: ω.
    teacher_temperature: ρ.
    sequences: number of texts x.
    num_completions: n_com.
    prefixes: the t's, sorted.
    lengths: the lengths T', sorted.
    training_sequences: N; None for no bounds.
    delta: δ.

  Raises:
    ValueError: a number is out of range.
  """

  length: int
  distillation_weight: float
  teacher_temperature: float
  sequences: int
  num_completions: int
  prefixes: Sequence[int]
  lengths: Sequence[int]
  training_sequences: int | None
  delta: float

  def __post_init__(self):
    checks = [
      ('distillation_weight (DISTILLATION_WEIGHT)', 'in [0, 1]',
       0 <= self.distillation_weight <= 1),
      ('teacher_temperature (TEACHER_TEMPERATURE)', 'above 0',
       self.teacher_temperature > 0),
      ('sequences (SEQUENCES)', 'at least 2', self.sequences >= 2),
      ('num_completions (NUM_COMPLETIONS)', 'at least 2',
       self.num_completions >= 2),
      ('prefixes (PREFIXES)', f'at least one from 1 to T = {self.length}',
       len(self.prefixes) > 0 and self.prefixes[0] >= 1),
      ('lengths', f'from 1 to T = {self.length}, T among them',
       self.lengths[0] >= 1 and self.lengths[-1] == self.length),
      ('training_sequences (TRAINING_SEQUENCES)', 'at least 16, or None',
       self.training_sequences is None or self.training_sequences >= 16),
      ('delta', 'between 0 and 1', 0 < self.delta < 1),
    ]  # fmt: skip
    for name, allowed, is_allowed in checks:
      if not is_allowed:
        value = getattr(self, name.split()[0])
        raise ValueError(f'analyze.analyze.{name} = {value!r}: {allowed}.')


class Measurement:
  """Losses and divergences of texts; each program is compiled once."""

  def __init__(
    self,
    models: Mapping[str, t5x_models.DecoderOnlyModel],
    params: Mapping[str, PyTree],
    axes: Mapping[str, PyTree],
    batches: batches_lib.GlobalBatches,
    teacher_temperature: float,
  ):
    """Constructor; compiles nothing yet.

    Args:
      models: by role: 'student', 'teacher' and 'oracle'.
      params: their parameters, on the partitioner's mesh.
      axes: the partition specs of these.
      batches: texts that are run together.
      teacher_temperature: ρ.
    """
    self._batches, self._params = batches, params
    options = dict(teacher_temperature=teacher_temperature, chunk=batches.chunk)
    pair = lambda role, params: (models[role], params[role])
    self._losses = batches.program(
      lambda params, tokens: completions.token_losses(
        pair('student', params), pair('teacher', params), tokens, **options
      ),
      axes,
    )
    self._divergences = batches.program(
      lambda params, tokens: completions.token_divergences(
        pair('student', params),
        pair('teacher', params),
        pair('oracle', params),
        tokens,
        **options,
      ),
      axes,
    )

  def losses(
    self, tokens: np.ndarray, lengths: Sequence[int]
  ) -> dict[int, tuple[np.ndarray, ...]]:
    """Measures the losses of the beginnings of sequences.

    Args:
      tokens: [n, T] int32.
      lengths: the numbers of tokens T' <= T in a beginning.

    Returns:
      {T': ([n] of eq. (1), [n] of eq. (3)), nats per token, float64}.
    """
    means = [
      [
        [np.mean(x[:, :t], axis=1, dtype=np.float64) for x in parts]
        for t in lengths
      ]
      for parts in self._run(self._losses, tokens)
    ]
    return {
      t: tuple(map(np.concatenate, zip(*parts, strict=True)))
      for t, parts in zip(lengths, zip(*means, strict=True), strict=True)
    }

  def divergences(self, tokens: np.ndarray) -> dict[str, np.ndarray]:
    """Measures [n, T] each of what `completions.token_divergences` returns."""
    found = self._run(self._divergences, tokens)
    return jax.tree.map(lambda *parts: np.concatenate(parts), *found)

  def _run(self, program: batches_lib.Program, tokens: np.ndarray):
    return [
      program(self._params, *batch) for batch in self._batches.split(tokens)
    ]


def complete(
  sampler: sampler_lib.Sampler,
  batches: batches_lib.GlobalBatches,
  sequences: np.ndarray,
  prefixes: Sequence[int],
  num_completions: int,
  folder: str,
) -> Iterator[tuple[int, np.ndarray]]:
  """Samples the completions that ξ_t needs at each t.

  Args:
    sampler: of the oracle.
    batches: completions that are sampled together.
    sequences: [n, T] int32, the texts x.
    prefixes: the t's.
    num_completions: n_com.
    folder: keeps the samples, which belong to these arguments.

  Yields:
    (s, [n · n_com, T] int32 completions of x_1 ... x_s).
  """
  tokens = np.repeat(sequences, num_completions, axis=0)
  rows = np.arange(len(tokens))
  length = sequences.shape[1]
  given = deviations.prefix_lengths(prefixes)
  if length in given:
    given.remove(length)
    yield length, tokens  # The whole text needs no completion.
  with batches_lib.progress_bar(
    len(given) * batches.count(len(rows)), 'batch', 'Completions'
  ) as progress:
    for s in given:
      which = rows // num_completions, np.full_like(rows, s)
      sampled = sampler.sample(
        tokens,
        np.full(len(rows), s),
        np.stack([*which, rows % num_completions], axis=1),
        os.path.join(folder, f'prefix_{s:05d}'),
        progress,
      )
      yield s, sampled
