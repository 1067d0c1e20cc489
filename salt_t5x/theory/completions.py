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
is known for every ω. Models and parameters are given by role: 'student',
'teacher' and 'oracle'. All functions are pure.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from salt_t5x import losses
from salt_t5x import models as models_lib
from salt_t5x.inference import sampler
from salt_t5x.theory import divergences
from t5x import models as t5x_models

Array = jax.Array
PyTree = Any
Models = Mapping[str, t5x_models.DecoderOnlyModel]


def _map_tokens(
  function: Callable[..., PyTree],
  roles: Sequence[str],
  models: Models,
  params: Mapping[str, PyTree],
  tokens: Array,
  chunk: int,
) -> PyTree:
  """Maps (token, [V] logits of each role) -> a tree of scalars over [B, T]."""
  hidden, embeddings = [], []
  # Without a prefix, which some models would read in both directions.
  features = models_lib.features_of(tokens)
  for role in roles:
    x, embedding = models_lib.hidden_and_embedding(
      models[role], params[role], features
    )
    hidden.append(x)
    # Cast once, not in every chunk.
    embeddings.append(None if embedding is None else embedding.astype(x.dtype))

  @jax.vmap
  def at_tokens(token, hidden):
    return function(
      token,
      *(
        losses.logits(x[None, None], embedding)[0, 0]
        for x, embedding in zip(hidden, embeddings, strict=True)
      ),
    )

  batch, length = tokens.shape
  time_major = lambda tree: jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), tree)
  found = jax.lax.map(
    lambda x: at_tokens(*x),
    time_major((tokens, hidden)),
    batch_size=min(max(chunk // batch, 1), length),
  )
  return time_major(found)


def token_losses(
  models: Models,
  params: Mapping[str, PyTree],
  tokens: Array,
  *,
  teacher_temperature: float,
  chunk: int,
) -> tuple[Array, Array]:
  """The parts of ℓ^ω: ℓ^ω = (1 - ω) · the first + ω · the second, eq. (4).

  Args:
    models: by role; the oracle is not used.
    params: their parameters.
    tokens: [B, T] int, without padding.
    teacher_temperature: ρ.
    chunk: tokens whose logits exist at once.

  Returns:
    ([B, T] of eq. (1), [B, T] of eq. (3)), nats, float32. A sequence's loss is
    the mean over its tokens.
  """

  def parts(token, student, teacher):
    sums = losses.distillation_loss(
      student[None, None],
      None,
      teacher[None, None],
      None,
      token[None, None],
      distillation_weight=0.0,
      teacher_temperature=teacher_temperature,
      vocab_size=models['student'].output_vocabulary.vocab_size,
    )
    return sums.cross_entropy, sums.distillation.cross_entropy

  roles = 'student', 'teacher'
  return _map_tokens(parts, roles, models, params, tokens, chunk)


def token_divergences(
  models: Models,
  params: Mapping[str, PyTree],
  tokens: Array,
  *,
  teacher_temperature: float,
  chunk: int,
) -> dict[str, Array]:
  """Computes losses and the quantities of `divergences` for real text.

  Args:
    models: by role; the oracle stands for D.
    params: their parameters.
    tokens: [B, T] int, without padding.
    teacher_temperature: ρ.
    chunk: tokens whose logits exist at once.

  Returns:
    {'total_variation', 'log_likelihood_variance', 'excess_loss',
    'excess_error', 'largest_loss' (over the vocabulary at that position, nats),
    'student_loss', 'teacher_loss', 'oracle_loss' (of the text's token, nats):
    [B, T] float32}.
  """
  vocab_size = models['student'].output_vocabulary.vocab_size
  roles = 'student', 'teacher', 'oracle'

  def measures(token, *logits):
    student, teacher, oracle = (x[:vocab_size] for x in logits)
    # The distribution that completions are drawn from.
    oracle = sampler.only_tokens(oracle, vocab_size)
    loss = optax.softmax_cross_entropy_with_integer_labels
    return {
      **{
        f'{role}_loss': loss(x, token)
        for role, x in zip(roles, (student, teacher, oracle), strict=True)
      },
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

  return _map_tokens(measures, roles, models, params, tokens, chunk)
