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

"""What the rest of a run depends on is described for its record."""

import dataclasses
import json

import optax
import pytest

from salt_t5x.checkpoints import run_record
from salt_t5x.runs import settings
import tiny

STEPS = 208_000
SCHEDULE = optax.warmup_cosine_decay_schedule(0.0, 1e-3, 4000, STEPS, 1e-4)


@pytest.mark.parametrize('factor, is_same', [(1 + 1e-5, True), (1.001, False)])
def test_learning_rates_may_differ_by_rounding(factor, is_same):
  model = tiny.make_model()
  begun = settings.optimization(model, SCHEDULE, STEPS, None)
  record = run_record.RunRecord('a', 3, optimization=begun)
  now = settings.optimization(
    model, lambda i: factor * SCHEDULE(i), STEPS, record
  )
  assert (now == begun) == is_same
  assert (
    len(
      begun.keys()
      & {
        f'learning_rate_fn (PEAK_LEARNING_RATE) at step {STEPS * i // 8}'
        for i in range(9)
      }
    )
    == 9
  )


@dataclasses.dataclass
class HyperParams:
  """Those of t5x's wrapper."""

  learning_rate: float | None = None


class OptaxWrapper:
  """Has the attributes of t5x's."""

  def __init__(self, optax_optimizer):
    self.optax_optimizer = optax_optimizer
    self.hyper_params = HyperParams()


@pytest.mark.parametrize(
  'other',
  [
    optax.adamw(0.1, weight_decay=0.2),
    optax.adamw(0.1, b2=0.9),
    optax.adamw(0.2),
    optax.adamw(SCHEDULE),
    optax.lion(0.1),
    optax.chain(optax.adamw(0.1), optax.clip(1.0)),
    optax.inject_hyperparams(optax.adamw)(0.1),
  ],
)
def test_optax_optimizers_are_told_apart(other):
  def optimization(optimizer):
    found = settings.describe_optimizer(OptaxWrapper(optimizer))
    return json.loads(json.dumps(found))

  begun, now = optimization(optax.adamw(0.1)), optimization(other)
  assert begun == optimization(optax.adamw(0.1)) != now
  # Only parameters that both have are compared.
  record = lambda x: run_record.RunRecord('a', 3, optimization=x)
  run_record.compare('dir', record(begun), record(begun), False)
  with pytest.raises(ValueError, match='OptaxWrapper.optax_optimizer'):
    run_record.compare('dir', record(begun), record(now), False)


def test_the_kind_of_optimizer_is_described():
  kinds = [
    settings.describe_optimizer(x)[
      'models.SaltDecoderOnlyModel.optimizer_def (OPTIMIZER)'
    ]
    for x in (tiny.optimizer(), OptaxWrapper(optax.adamw(0.1)))
  ]
  assert kinds == ['adafactor.Adafactor', 'test_settings.OptaxWrapper']
