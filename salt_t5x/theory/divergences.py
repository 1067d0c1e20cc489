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

"""Bias and variance of distillation, token by token (§3.3, App. D).

Pure functions of logits. The data's own next-token distribution D is not known;
an oracle, a larger language model, stands for it.
"""

import jax
import jax.numpy as jnp

Array = jax.Array


def total_variation(
  teacher_logits: Array, oracle_logits: Array, teacher_temperature: float
) -> Array:
  """D_TV(P_ζ^ρ(·|x_<t), D(·|x_<t)): half the sum of absolute differences.

  Args:
    teacher_logits: [..., V] float.
    oracle_logits: [..., V] float, of the same tokens.
    teacher_temperature: ρ > 0, an exponent on the teacher's probabilities.

  Returns:
    [...] float in [0, 1]. ω Σ_t of its expectation is DIV(ζ, ω).
  """
  teacher = jax.nn.softmax(teacher_temperature * teacher_logits, axis=-1)
  return 0.5 * jnp.sum(
    jnp.abs(teacher - jax.nn.softmax(oracle_logits, axis=-1)), axis=-1
  )


def log_likelihood_variance(
  student_logits: Array, oracle_logits: Array
) -> Array:
  """Var[log P_θ(x_t|x_<t) | x_<t] where x_t comes from the oracle.

  The variance of eq. (69) without its factor; with it,

    E[ξ_T² | x_<T] = (1 - ω)² / T² · this at t = T.

  Eq. (69) is printed with (1 - ω), but ξ_T of eq. (68) is (1 - ω) times a
  deviation, and its square has the square.

  Args:
    student_logits: [..., V] float.
    oracle_logits: [..., V] float, of the same tokens.

  Returns:
    [...] float, nats².
  """
  log_p = jax.nn.log_softmax(student_logits, axis=-1)
  d = jax.nn.softmax(oracle_logits, axis=-1)
  mean = jnp.sum(d * log_p, axis=-1, keepdims=True)
  return jnp.sum(d * jnp.square(log_p - mean), axis=-1)


def excess_loss(student_logits: Array, oracle_logits: Array) -> Array:
  """E[log D(x_t|x_<t) - log P_θ(x_t|x_<t) | x_<t], x_t from the oracle.

  The excess over the least expected loss of any predictor, if the oracle is D.

  Args:
    student_logits: [..., V] float.
    oracle_logits: [..., V] float, of the same tokens.

  Returns:
    [...] float, nats; at least 0.
  """
  d = jax.nn.softmax(oracle_logits, axis=-1)
  log_p = jax.nn.log_softmax(student_logits, axis=-1)
  return jnp.sum(jax.scipy.special.xlogy(d, d) - d * log_p, axis=-1)


def excess_error(student_logits: Array, oracle_logits: Array) -> Array:
  """The student's probability of a wrong best guess less the oracle's.

  Args:
    student_logits: [..., V] float.
    oracle_logits: [..., V] float, of the same tokens.

  Returns:
    [...] float in [0, 1], under the oracle's own distribution.
  """
  d = jax.nn.softmax(oracle_logits, axis=-1)
  guess = jnp.argmax(student_logits, axis=-1, keepdims=True)
  guess_p = jnp.take_along_axis(d, guess, axis=-1)[..., 0]
  return jnp.max(d, axis=-1) - guess_p


def last_variance(
  log_likelihood_variance: Array, distillation_weight: float, length: int
) -> Array:
  """E[ξ_T² | x_<T] of eq. (69), corrected, nats².

  Args:
    log_likelihood_variance: from `log_likelihood_variance`, at t = T, nats².
    distillation_weight: ω.
    length: T.
  """
  return (
    jnp.square((1 - distillation_weight) / length) * log_likelihood_variance
  )
