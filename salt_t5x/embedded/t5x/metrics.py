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

"""Metrics whose number of steps and seconds only the host knows."""

import operator
from typing import Any

from clu import metrics as clu_metrics
import flax
import jax
import jax.numpy as jnp

from t5x import _subset

__getattr__ = _subset.missing(__name__)


class _Summed(clu_metrics.Metric):
  """A metric whose fields are added when it is merged."""

  def merge(self, other):
    return jax.tree.map(operator.add, self, other)


@flax.struct.dataclass
class Sum(_Summed):
  """The sum of a quantity over steps."""

  total: Any

  def compute(self):
    return jnp.asarray(self.total)


@flax.struct.dataclass
class Step(_Summed):
  """A metric that depends on the number of steps, which the host sets."""

  steps: Any = 1


@flax.struct.dataclass
class AveragePerStep(Step):
  """A sum divided by the number of steps (not of microbatches)."""

  total: Any = None

  def compute(self):
    return self.total / self.steps


@flax.struct.dataclass
class Time(_Summed):
  """The duration of steps in seconds, which the host sets."""

  duration: Any = None

  def compute(self):
    return jnp.asarray(self.duration)


@flax.struct.dataclass
class TimeRate(Time):
  """A sum divided by the seconds."""

  numerator: Any = None

  @classmethod
  def from_model_output(cls, numerator, **_):
    """Returns the metric of one step."""
    return cls(numerator=numerator)

  def compute(self):
    return self.numerator / self.duration


@flax.struct.dataclass
class StepsPerTime(Step, Time):
  """Steps divided by the seconds."""

  @classmethod
  def from_model_output(cls, **_):
    """Returns the metric of one step."""
    return cls()

  def compute(self):
    return jnp.asarray(self.steps) / self.duration


def _replace(metrics, cls, **values):
  return {
    k: m.replace(**values) if isinstance(m, cls) else m
    for k, m in metrics.items()
  }


def set_time_metrics_duration(metrics, duration: float):
  """Sets the seconds of all time metrics in {name: metric}."""
  return _replace(metrics, Time, duration=duration)


def set_step_metrics_num_steps(metrics, num_steps: int):
  """Sets the steps of all step metrics in {name: metric}."""
  return _replace(metrics, Step, steps=num_steps)
