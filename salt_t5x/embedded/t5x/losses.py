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

"""Loss normalisers."""

from collections.abc import Mapping

import jax

from t5x import _subset

__getattr__ = _subset.missing(__name__)


def get_loss_normalizing_factor_and_weights(
  loss_normalizing_factor: float | int | None, batch: Mapping[str, jax.Array]
) -> tuple[float | int | None, jax.Array | None]:
  """Returns the constant that divides the loss, and the tokens' weights.

  Args:
    loss_normalizing_factor: a constant or None.
    batch: may hold 'decoder_loss_weights', [B, T].

  Returns:
    (factor or None, weights [B, T] or None).

  Raises:
    ValueError: a special factor of t5x's is asked for.
  """
  if not isinstance(loss_normalizing_factor, (int, float, type(None))):
    _subset.refuse(f'loss_normalizing_factor = {loss_normalizing_factor!r}')
  return loss_normalizing_factor, batch.get('decoder_loss_weights')
