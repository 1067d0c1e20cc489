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
import functools
import hashlib
import json
import os
from typing import Any

import jax
import numpy as np

from salt_t5x.inference import batches as batches_lib
from salt_t5x.inference import sampler as sampler_lib
from salt_t5x.theory import completions, deviations

PyTree = Any


class Measurement:
  """Losses and divergences of texts; each program is compiled once."""

  def __init__(
    self,
    models: completions.Models,
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
    self._losses, self._divergences = (
      batches.program(functools.partial(function, models, **options), axes)
      for function in (completions.token_losses, completions.token_divergences)
    )

  def losses(
    self, tokens: np.ndarray, lengths: Sequence[int]
  ) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """Measures the losses of the beginnings of sequences.

    Args:
      tokens: [n, T] int32.
      lengths: the numbers of tokens T' <= T in a beginning.

    Returns:
      {T': ([n] of eq. (1), [n] of eq. (3)), nats per token, float64}.
    """

    def means(params, tokens):
      parts = self._losses(params, tokens)
      mean = lambda t: lambda x: np.mean(x[:, :t], axis=1, dtype=np.float64)
      return {t: jax.tree.map(mean(t), parts) for t in lengths}

    return self._run(means, tokens)

  def divergences(self, tokens: np.ndarray) -> dict[str, np.ndarray]:
    """Measures [n, T] each of what `completions.token_divergences` returns."""
    return self._run(self._divergences, tokens)

  def _run(self, program: batches_lib.Program, tokens: np.ndarray) -> PyTree:
    found = [program(self._params, *x) for x in self._batches.split(tokens)]
    return jax.tree.map(lambda *parts: np.concatenate(parts), *found)


def complete(
  sampler: sampler_lib.Sampler,
  batches: batches_lib.GlobalBatches,
  sequences: np.ndarray,
  prefixes: Sequence[int],
  num_completions: int,
  folder: str,
  source: Sequence[str | int | None],
) -> Iterator[tuple[int, np.ndarray]]:
  """Samples the completions that ξ_t needs at each t.

  Args:
    sampler: of the oracle.
    batches: completions that are sampled together.
    sequences: [n, T] int32, the texts x.
    prefixes: the t's.
    num_completions: n_com.
    folder: keeps the samples, in a folder named for all that determines them.
    source: what identifies the sampler's parameters, and its seed.

  Yields:
    (s, [n · n_com, T] int32 completions of x_1 ... x_s).
  """
  tokens = np.repeat(sequences, num_completions, axis=0)
  text, number = np.divmod(np.arange(len(tokens)), num_completions)
  texts = hashlib.sha256(sequences.tobytes()).hexdigest()
  *parameters, seed = source
  identity = [*parameters, texts, num_completions, seed, batches.batch_size]
  digest = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]
  folder = os.path.join(folder, digest)
  given = deviations.prefix_lengths(prefixes)
  if (length := sequences.shape[1]) in given:
    given.remove(length)
    yield length, tokens  # The whole text needs no completion.
  with batches_lib.progress_bar(
    len(given) * batches.count(len(tokens)), 'batch', 'Completions'
  ) as progress:
    for s in given:
      lengths = np.full_like(text, s)
      sampled = sampler.sample(
        tokens,
        lengths,
        np.stack([text, lengths, number], axis=1),
        os.path.join(folder, f'prefix_{s:05d}'),
        progress,
      )
      yield s, sampled
