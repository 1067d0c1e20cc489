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

"""Training metrics from loss sums.

Names that t5x has keep t5x's meaning (`loss` includes z-loss, and the loss
normaliser divides both). `log_perplexity` is the paper's: the token average of
eq. (1), without z-loss, so that BASELINE, RKD and SALT compare.
"""

from clu import metrics as clu_metrics
import jax
import jax.numpy as jnp

from salt_t5x import losses
from t5x import metrics as t5x_metrics

MetricsMap = dict[str, clu_metrics.Metric]


def _per_token(total, sums: losses.LossSums) -> clu_metrics.Average:
  return clu_metrics.Average(total=total, count=sums.weight)


def from_sums(
  sums: losses.LossSums,
  loss: jax.Array,
  loss_normalizing_factor: float | None,
  num_sequences: int,
  length: int,
) -> MetricsMap:
  """Builds the metrics of a plain training or evaluation step.

  Args:
    sums: the weighted sums over the batch's tokens.
    loss: [] the loss that was minimised, after the loss normaliser.
    loss_normalizing_factor: what it was divided by, if anything.
    num_sequences: rows of the batch, B.
    length: T.

  Returns:
    Mergeable metrics by TensorBoard name.
  """
  sequences = jnp.asarray(num_sequences)
  tokens = jnp.asarray(num_sequences * length)
  devices = jax.device_count()
  rate = t5x_metrics.TimeRate.from_model_output
  return {
    'accuracy': _per_token(sums.correct, sums),
    'log_perplexity': _per_token(sums.cross_entropy, sums),
    'loss': t5x_metrics.AveragePerStep(total=loss),
    'loss_per_nonpadding_target_token': _per_token(loss, sums),
    'z_loss': t5x_metrics.AveragePerStep(
      total=sums.z_loss / (loss_normalizing_factor or 1)
    ),
    'non_padding_fraction/loss_weights': clu_metrics.Average(
      total=sums.weight, count=tokens
    ),
    'timing/seconds': t5x_metrics.Time(),
    'timing/steps_per_second': t5x_metrics.StepsPerTime.from_model_output(),
    'timing/seqs': t5x_metrics.Sum(sequences),
    'timing/seqs_per_second': rate(numerator=sequences),
    'timing/seqs_per_second_per_core': rate(numerator=sequences / devices),
    'timing/target_tokens_per_second': rate(numerator=tokens),
    'timing/target_tokens_per_second_per_core': rate(
      numerator=tokens / devices
    ),
  }


def distillation_from_sums(
  sums: losses.LossSums, distillation_weight: jax.Array
) -> MetricsMap:
  """Builds the `salt/` metrics of a distillation step.

  Args:
    sums: the weighted sums, with `distillation`.
    distillation_weight: [] ω of this step.

  Returns:
    Mergeable metrics by TensorBoard name; all are token averages, the
    entropies and cross-entropies in nats.
  """
  d = sums.distillation
  return {
    'salt/distillation_weight': _per_token(
      distillation_weight * sums.weight, sums
    ),
    'salt/cross_entropy': _per_token(sums.cross_entropy, sums),
    'salt/distillation_cross_entropy': _per_token(d.cross_entropy, sums),
    'salt/teacher_cross_entropy': _per_token(d.teacher_cross_entropy, sums),
    'salt/teacher_entropy': _per_token(d.teacher_entropy, sums),
    'salt/agreement': _per_token(d.agreement, sums),
  }
