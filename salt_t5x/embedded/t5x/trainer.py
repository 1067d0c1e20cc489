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

"""Training and evaluation steps, and their metrics."""

from collections.abc import Callable, Iterator, Mapping, Sequence
import concurrent.futures
import functools
import time
from typing import Any

from clu import metric_writers
from clu import metrics as clu_metrics
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from t5x import _subset, models, partitioning
from t5x import metrics as metrics_lib
from t5x import train_state as train_state_lib

__getattr__ = _subset.missing(__name__)

Array = jax.Array
Batch = Mapping[str, Array]
MetricsMap = dict[str, clu_metrics.Metric]
PyTree = Any


class PreemptionError(Exception):
  """Training was interrupted; `train` saves a checkpoint and re-raises."""


@jax.jit
def merge_metrics(a: MetricsMap, b: MetricsMap) -> MetricsMap:
  """Merges two dictionaries of metrics with the same names."""
  return {k: a[k].merge(b[k]) for k in a}


class MetricsManager:
  """Writes scalars of one kind ('train', ...) to TensorBoard and the log."""

  def __init__(self, name: str, summary_dir: str | None = None):
    self.summary_writer = metric_writers.create_default_writer(
      summary_dir, collection=name, asynchronous=True
    )
    self.close = self.summary_writer.close
    self._started = time.time()

  def write_scalar(self, key: str, val: Any, step: int):
    self.summary_writer.write_scalars(int(step), {key: val})

  def start_duration_timer(self, block_on: PyTree = ()):
    jax.block_until_ready(block_on)
    self._started = time.time()

  def write_metrics_summary(
    self, metrics: MetricsMap, step: int, num_steps: int
  ) -> concurrent.futures.Future:
    """Writes metrics accumulated over `num_steps`; waits for the device.

    Returns:
      A finished future of {name: clu value}.
    """
    metrics = jax.device_get(metrics)
    seconds = time.time() - self._started
    metrics = metrics_lib.set_time_metrics_duration(metrics, seconds)
    metrics = metrics_lib.set_step_metrics_num_steps(metrics, num_steps)
    summary = {k: m.compute_value() for k, m in metrics.items()}
    metric_writers.write_values(self.summary_writer, int(step), summary)
    future = concurrent.futures.Future()
    future.set_result(summary)
    return future


def _microbatched(grad_fn: Callable, count: int, spec: PartitionSpec):
  """Sums gradients (in float32) and metrics over `count` parts of a batch."""

  def summed(params, batch, rng):
    batch_size = next(iter(batch.values())).shape[0]
    if batch_size % count:
      raise ValueError(
        f'BATCH_SIZE = {batch_size} is not a multiple of num_microbatches = '
        f'{count}.'
      )

    def step(carry, microbatch):
      rng, total = carry
      rng, sub_rng = jax.random.split(rng)
      microbatch = jax.lax.with_sharding_constraint(microbatch, spec)
      grads, metrics = grad_fn(params, microbatch, sub_rng)
      return (rng, jax.tree.map(jnp.add, total, grads)), metrics

    (_, grads), metrics = jax.lax.scan(
      step,
      (rng, jax.tree.map(lambda p: jnp.zeros(p.shape), params)),
      {k: v.reshape(count, -1, *v.shape[1:]) for k, v in batch.items()},
    )
    each = [jax.tree.map(lambda x, i=i: x[i], metrics) for i in range(count)]
    return grads, functools.reduce(merge_metrics, each)

  return summed


def train_with_lr(
  train_state: train_state_lib.TrainState,
  batch: Batch,
  learning_rate: Array,
  dropout_rng: Array,
  model: models.DecoderOnlyModel,
  num_microbatches: int | None,
  weight_metrics_computer: None = None,
  data_partition_spec: PartitionSpec = PartitionSpec('data'),
) -> tuple[train_state_lib.TrainState, MetricsMap]:
  """One training step: (new state, metrics)."""
  del weight_metrics_computer  # The trainer refuses it.
  grad_fn = jax.grad(model.loss_fn, has_aux=True)
  if num_microbatches is not None and num_microbatches > 1:
    grad_fn = _microbatched(grad_fn, num_microbatches, data_partition_spec)
  grads, metrics = grad_fn(train_state.params, batch, dropout_rng)
  rate = jnp.asarray([learning_rate])
  metrics['learning_rate'] = clu_metrics.Average.from_model_output(rate)
  return train_state.apply_gradient(grads, learning_rate), metrics


class Trainer:
  """Runs training steps and evaluations, and writes their metrics."""

  def __init__(
    self,
    model: models.DecoderOnlyModel,
    train_state: train_state_lib.TrainState,
    partitioner: partitioning.BasePartitioner,
    eval_names: Sequence[str],
    summary_dir: str | None,
    train_state_axes: PyTree,
    rng: Array,
    learning_rate_fn: Callable[[Array], Array],
    num_microbatches: int | None,
    weight_metrics_computer: None = None,
  ):
    """Constructor; see t5x's documentation."""
    if weight_metrics_computer is not None:
      _subset.refuse('weight_metrics_computer')
    self._weight_metrics_computer = None
    self._learning_rate_fn = learning_rate_fn
    self._num_microbatches = num_microbatches
    self._model = model
    self._train_state_axes = train_state_axes
    self._base_rng = rng
    self._partitioner = partitioner
    self._compiled_train_step = None
    self._compiled_eval_steps = {}
    self.train_state = train_state
    self.train_metrics_manager = MetricsManager('train', summary_dir)
    self.eval_metrics_managers = {
      name: MetricsManager(f'training_eval/{name}', summary_dir)
      for name in eval_names
    }

  def __enter__(self):
    return self

  def __exit__(self, *exc_info):
    self.close()

  def close(self):
    """Finishes writing metrics."""
    self.train_metrics_manager.close()
    for manager in self.eval_metrics_managers.values():
      manager.close()

  def _get_step_rng(self, step) -> Array:
    return jax.random.fold_in(self._base_rng, step)

  def train(
    self,
    batch_iter: Iterator[Batch],
    num_steps: int,
    start_step: int | None = None,
  ) -> concurrent.futures.Future:
    """Trains for `num_steps` and writes one summary."""
    step_fn = self._compiled_train_step or self._partitioned_train_step
    start = int(self.train_state.step) if start_step is None else start_step
    self.train_metrics_manager.start_duration_timer(self.train_state)
    train_state, metrics = self.train_state, None
    for step in range(start, start + num_steps):
      with jax.profiler.StepTraceAnnotation('train', step_num=step):
        train_state, update = step_fn(train_state, next(batch_iter))
        metrics = merge_metrics(metrics, update) if metrics else update
    self.train_state = train_state
    return self.train_metrics_manager.write_metrics_summary(
      metrics, start + num_steps, num_steps
    )

  def compile_train(self, batch: Batch) -> None:
    """Compiles the training step for batches of this shape."""
    start = time.time()
    self._compiled_train_step = self._partitioner.compile(
      self._partitioned_train_step, self.train_state, batch
    )
    self.train_metrics_manager.write_scalar(
      'timing/compilation_seconds', time.time() - start, self.train_state.step
    )

  def compile_eval(self, batches: Mapping[str, Batch]) -> None:
    """Compiles the evaluation step once for each shape of batches."""
    by_shape = {}
    for name, batch in batches.items():
      key = tuple(sorted((k, v.shape, str(v.dtype)) for k, v in batch.items()))
      if key not in by_shape:
        by_shape[key] = self._partitioner.compile(
          self._partitioned_eval_step, self.train_state, batch
        )
      self._compiled_eval_steps[name] = by_shape[key]

  def eval(self, batch_iters: Mapping[str, Iterator[Batch]]) -> dict[str, Any]:
    """Evaluates each data set; returns {name: {metric: value}}."""
    summaries = {}
    for name, batches in batch_iters.items():
      step = self._compiled_eval_steps.get(name, self._partitioned_eval_step)
      manager = self.eval_metrics_managers[name]
      manager.start_duration_timer(self.train_state)
      updates = [step(self.train_state, batch) for batch in batches]
      if not updates:
        raise ValueError(
          f'The evaluation data set {name} is empty: check its split.'
        )
      summaries[name] = manager.write_metrics_summary(
        functools.reduce(merge_metrics, updates),
        self.train_state.step,
        len(updates),
      ).result()
    return summaries

  @functools.cached_property
  def _partitioned_train_step(self):
    def train_step(train_state, batch):
      return train_with_lr(
        train_state,
        batch,
        learning_rate=self._learning_rate_fn(train_state.step),
        dropout_rng=self._get_step_rng(train_state.step),
        model=self._model,
        num_microbatches=self._num_microbatches,
        data_partition_spec=self._partitioner.data_partition_spec,
      )

    return self._partitioner.partition(
      train_step,
      in_axis_resources=(
        self._train_state_axes,
        self._partitioner.data_partition_spec,
      ),
      out_axis_resources=(self._train_state_axes, None),
      donate_argnums=(0,),
    )

  @functools.cached_property
  def _partitioned_eval_step(self):
    return self._partitioner.partition(
      lambda state, batch: self._model.loss_fn(state.params, batch, None)[1],
      in_axis_resources=(
        self._train_state_axes,
        self._partitioner.data_partition_spec,
      ),
      out_axis_resources=None,
    )
