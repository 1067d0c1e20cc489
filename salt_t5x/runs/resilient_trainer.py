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

"""A t5x trainer that stops in time: for SIGTERM, NaN and unreadable data.

`docs/faults.md` describes what a user sees.
"""

from collections.abc import Callable, Iterator, Mapping
import dataclasses
import time
from typing import Any

from absl import logging
from clu import metrics as clu_metrics
import jax
import jax.numpy as jnp
import tensorflow as tf
import tqdm

from salt_t5x.checkpoints import run_record
from salt_t5x.runs import model_dir as model_dir_lib
from salt_t5x.runs import nonfinite, preemption, step_batches
from t5x import trainer as t5x_trainer

Batch = Mapping[str, jax.Array]
PyTree = Any


class ResilientTrainer(t5x_trainer.Trainer):
  """Checks for non-finite losses; saves a checkpoint on preemption."""

  def __init__(
    self,
    *,
    total_steps: int,
    max_skipped_batches: int,
    summary_dir: str | None,
    record: run_record.RunRecord,
    **options: Any,
  ):
    """Constructor.

    Args:
      total_steps: the number of steps of the run.
      max_skipped_batches: how many batches may be skipped because of a loss
        that is not finite; 0 stops the run at the first one.
      summary_dir: the model directory, or None to write nothing.
      record: the run's, which counts the batches that are skipped.
      **options: the other arguments of t5x's trainer.

    Raises:
      ValueError: `max_skipped_batches` is not a count.
    """
    if type(max_skipped_batches) is not int or max_skipped_batches < 0:
      raise ValueError(
        f'trainer.SaltTrainer.max_skipped_batches = {max_skipped_batches!r} '
        '(MAX_SKIPPED_BATCHES) must be 0, which stops the run at the first '
        'loss that is not finite, or a positive number of batches.'
      )
    self._total_steps = total_steps
    self._max_skipped_batches = max_skipped_batches
    self._record = record
    self._model_dir = summary_dir
    self._created = time.monotonic()
    super().__init__(summary_dir=summary_dir, **options)
    self._progress = None
    self._stop = preemption.Stop()

  def _train_stage(
    self,
    step_fn: Callable[[PyTree, Batch], tuple[PyTree, Mapping]],
    batch_iter: Iterator[Batch],
    num_steps: int,
    start: int,
  ):
    """Trains with one step function, and publishes a finite state for t5x.

    t5x saves `train_state` when this returns or raises `Preempted`; any other
    exception ends the run without a checkpoint.

    Raises:
      preemption.Preempted: SIGTERM arrived; the state is that of the last step.
      nonfinite.NonFiniteError: no more batches may be skipped.
    """
    if self._progress is None:
      # A progress bar, on the terminal of the first process only.
      self._progress = tqdm.tqdm(
        total=self._total_steps,
        initial=start,
        unit='step',
        disable=None if jax.process_index() == 0 else True,
      )
    end = start + num_steps
    rewind = None
    if self._max_skipped_batches:
      rewind = nonfinite.host_copy(self.train_state)
    while True:
      train_state, metrics, step = self.train_state, None, start
      losses = nonfinite.LossCheck()
      problem, stopping = None, False
      self.train_metrics_manager.start_duration_timer(block_on=train_state)
      while step < end and not problem and not stopping:
        logging.log_every_n_seconds(logging.INFO, 'Training: step %d', 10, step)
        with jax.profiler.StepTraceAnnotation('train', step_num=step):
          batch = self._next(batch_iter)
          train_state, update = step_fn(train_state, batch)
        step += 1
        self._progress.update()
        metrics = (
          t5x_trainer.merge_metrics(metrics, update) if metrics else update
        )
        problem = losses.problem_after(step, update)
        if not problem:
          stopping = self._stop.requested(step) and step < self._total_steps
      problem = problem or losses.problem_at_end(step, train_state)
      if not problem:
        break
      # A requested stop follows the first good step after this.
      self._skip_batches(problem, start, step - start)
      for array in jax.tree.leaves(train_state):
        array.delete()  # The devices may not have room for two states.
      self.train_state = rewind()

    self.train_state = train_state
    uptime = jnp.asarray([time.monotonic() - self._created])
    metrics['timing/uptime'] = clu_metrics.LastValue.from_model_output(uptime)
    summary = self.train_metrics_manager.write_metrics_summary(
      metrics, step, step - start
    )
    summary.result()
    self._finish_stage(step)
    # A checkpoint of this step must not be ahead of the metrics on disk.
    self.train_metrics_manager.summary_writer.flush()
    if stopping:
      message = (
        f'SIGTERM: stopped after step {step}. If the run saves checkpoints '
        '(CHECKPOINT_PERIOD), it saves one of this step now; start the same '
        'command again to resume.'
      )
      # Python prints no message of an exception that sets the exit code.
      logging.warning('%s', message)
      raise preemption.Preempted(message)
    return summary

  def _finish_stage(self, step: int):
    """Hook for subclasses: `train_state` is final, its metrics are written."""

  def _skip_batches(self, problem: str, start: int, count: int):
    """Counts batches as skipped, or raises `NonFiniteError`."""
    entries = [*(self._record.skipped_batches or []), [start, count]]
    skipped = sum(count for _, count in entries)
    if skipped > self._max_skipped_batches:
      raise nonfinite.NonFiniteError(
        f'{problem}. The last checkpoint in MODEL_DIR = {self._model_dir!r} is '
        'from before that. Check the batches and the learning rate '
        '(PEAK_LEARNING_RATE, WARMUP_STEPS) there; to skip such batches, set '
        f'MAX_SKIPPED_BATCHES = {self._max_skipped_batches} to at least '
        f'{skipped} (STATS_PERIOD are skipped at a time).'
      )
    self._record = dataclasses.replace(self._record, skipped_batches=entries)
    if self._model_dir and jax.process_index() == 0:
      run_record.write(self._model_dir, self._record)
    logging.error(
      '%s. Going back to step %d and skipping %d batches; %d in all.',
      problem,
      start,
      count,
      skipped,
    )
    self.train_metrics_manager.write_scalar(
      'salt/skipped_batches', skipped, start
    )
    self._progress.update(-count)

  def eval(self, batch_iters):
    """Evaluates as t5x does, and puts the metrics on disk."""
    summaries = super().eval(batch_iters)
    for manager in self.eval_metrics_managers.values():
      manager.summary_writer.flush()
    return summaries

  def _next(self, batch_iter: Iterator[Batch]) -> Batch:
    """Draws a batch, and names the parameter where there is none."""
    try:
      return next(batch_iter)
    except StopIteration:
      raise ValueError(
        'MIXTURE_OR_TASK_NAME: the data ended before TRAIN_STEPS = '
        f'{self._total_steps}. Train for fewer steps, or repeat the data.'
      ) from None
    except tf.errors.OpError as e:
      raise OSError(
        'MIXTURE_OR_TASK_NAME: the data cannot be read: a file is missing, '
        'shortened or damaged, or its storage does not respond '
        f'({e.message}). Restore it and start the same command again: the run '
        'resumes from its last checkpoint with the same examples.'
      ) from e

  def close(self):
    """Closes the progress bar and the metrics; unlocks the model directory."""
    if self._progress is not None:
      self._progress.close()
    self._stop.close()
    super().close()
    step_batches.forget(self._model_dir)
    model_dir_lib.release(self._model_dir)
