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

"""Token losses and divergences of texts under student, teacher and oracle.

`token_losses` gives the loss of each token by its parts, so that ℓ^ω of eq. (4)
is known for every ω. All functions are pure.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from salt_t5x import losses, models
from salt_t5x.inference import sampling
from salt_t5x.theory import divergences
from t5x import models as t5x_models

Array = jax.Array
PyTree = Any


def _map_positions(function, chunk: int, arrays: Sequence[Array]):
  """Maps [B, ...] functions over [B, T, ...] arrays, `chunk` tokens a step."""
  swap = lambda x: jnp.swapaxes(x, 0, 1)
  batch, length = arrays[0].shape[:2]
  positions = min(max(chunk // batch, 1), length)
  found = jax.lax.map(
    lambda x: function(*x), [*map(swap, arrays)], batch_size=positions
  )
  return jax.tree.map(swap, found)


def _hidden_and_embedding(model, params, tokens):
  # Without a prefix, which some models would read in both directions.
  hidden, embedding = models.hidden_and_embedding(
    model, params, models.features_of(tokens)
  )
  if embedding is not None:
    embedding = embedding.astype(hidden.dtype)  # Once, not in every chunk.
  return hidden, embedding


def token_losses(
  student: tuple[t5x_models.DecoderOnlyModel, PyTree],
  teacher: tuple[t5x_models.DecoderOnlyModel, PyTree],
  tokens: Array,
  *,
  teacher_temperature: float,
  chunk: int,
) -> tuple[Array, Array]:
  """The parts of ℓ^ω: ℓ^ω = (1 - ω) · the first + ω · the second, eq. (4).

  Args:
    student: θ, (model, parameters).
    teacher: ζ.
    tokens: [B, T] int, without padding.
    teacher_temperature: ρ.
    chunk: tokens whose logits exist at once.

  Returns:
    ([B, T] of eq. (1), [B, T] of eq. (3)), nats, float32. A sequence's loss is
    the mean over its tokens.
  """
  vocab_size = student[0].output_vocabulary.vocab_size
  ours, our_embedding = _hidden_and_embedding(*student, tokens)
  theirs, their_embedding = _hidden_and_embedding(*teacher, tokens)

  @jax.vmap
  def token_parts(ours, theirs, target):
    sums = losses.distillation_loss(
      ours[None, None],
      our_embedding,
      theirs[None, None],
      their_embedding,
      target[None, None],
      distillation_weight=0.0,
      teacher_temperature=teacher_temperature,
      vocab_size=vocab_size,
    )
    return sums.cross_entropy, sums.distillation.cross_entropy

  return _map_positions(token_parts, chunk, (ours, theirs, tokens))


def token_divergences(
  student: tuple[t5x_models.DecoderOnlyModel, PyTree],
  teacher: tuple[t5x_models.DecoderOnlyModel, PyTree],
  oracle: tuple[t5x_models.DecoderOnlyModel, PyTree],
  tokens: Array,
  *,
  teacher_temperature: float,
  chunk: int,
) -> dict[str, Array]:
  """Computes losses and the quantities of `divergences` for real text.

  Args:
    student: θ, (model, parameters).
    teacher: ζ.
    oracle: stands for D.
    tokens: [B, T] int, without padding.
    teacher_temperature: ρ.
    chunk: tokens whose logits exist at once.

  Returns:
    {'total_variation', 'log_likelihood_variance', 'excess_loss',
    'excess_error', 'largest_loss' (over the vocabulary at that position, nats),
    'student_loss', 'teacher_loss', 'oracle_loss' (of the text's token, nats):
    [B, T] float32}.
  """
  vocab_size = student[0].output_vocabulary.vocab_size
  hidden, embeddings = zip(
    *(_hidden_and_embedding(*x, tokens) for x in (student, teacher, oracle)),
    strict=True,
  )

  def at_position(targets, *hidden):
    student, teacher, oracle = (
      losses.logits(x[None], e)[0, :, :vocab_size]
      for x, e in zip(hidden, embeddings, strict=True)
    )
    # The distribution that completions are drawn from.
    oracle = sampling.only_tokens(oracle, vocab_size)
    by_role = {'student': student, 'teacher': teacher, 'oracle': oracle}
    return {
      f'{role}_loss': optax.softmax_cross_entropy_with_integer_labels(
        logits, targets
      )
      for role, logits in by_role.items()
    } | {
      'excess_loss': divergences.excess_loss(student, oracle),
      'excess_error': divergences.excess_error(student, oracle),
      'total_variation': divergences.total_variation(
        teacher, oracle, teacher_temperature
      ),
      'log_likelihood_variance': divergences.log_likelihood_variance(
        student, oracle
      ),
      'largest_loss': -jnp.min(jax.nn.log_softmax(student), axis=-1),
    }

  return _map_positions(at_position, chunk, (tokens, *hidden))
