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

"""A t5x trainer that survives: preemptions, NaN, and data that cannot be read.

It trains by t5x's loop, which saves what `train` returns or what is published
when `stopping.Preempted` is raised. docs/faults.md says what a user sees.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from absl import logging
import jax
import tensorflow as tf
import tqdm

from salt_t5x.runs import model_dir as model_dir_lib
from salt_t5x.runs import nonfinite, preemption
from t5x import trainer as t5x_trainer

Array = jax.Array
Batch = Mapping[str, Array]


class WatchedTrainer(t5x_trainer.Trainer):
  """Looks at what it trains, and leaves in good order."""

  def __init__(
    self,
    *,
    total_steps: int,
    max_skipped_batches: int,
    summary_dir: str | None,
    **options: Any,
  ):
    """Constructor.

    Args:
      total_steps: the run's length.
      max_skipped_batches: how many batches may be passed over where the loss is
        not finite; 0 stops the run.
      summary_dir: the model directory, or None to write nothing.
      **options: the rest of t5x's.

    Raises:
      ValueError: `max_skipped_batches` is no such number.
    """
    check_skipping(max_skipped_batches)
    self._total_steps = total_steps
    self._max_skipped_batches = max_skipped_batches
    self._skipped_batches = 0
    self._model_dir = summary_dir
    self._progress = None
    super().__init__(summary_dir=summary_dir, **options)
    self._stop = preemption.Stop()

  def _train_watched(self, step_fn, batch_iter, num_steps: int, start: int):
    """Trains within one stage by t5x's loop, which saves what this returns.

    Its result is therefore looked at before: a state that is not finite never
    overwrites a checkpoint.
    """
    copy = None
    if self._max_skipped_batches:
      copy = nonfinite.HostCopy(self.train_state)
    unwatched = self._compiled_train_step
    while True:
      watch = nonfinite.Watch(step_fn, start, self._total_steps, self._stop)
      self._compiled_train_step = watch.step
      try:
        summary = super().train(self._counted(batch_iter), num_steps, start)
        watch.check()
      except nonfinite.Stopped:
        try:
          self._leave(watch, start)
        except nonfinite.NonFiniteError as e:
          # Going on for one more step; the wish to stop remains.
          self._go_back(e, copy, watch, start)
      except nonfinite.NonFiniteError as e:
        self._go_back(e, copy, watch, start)
      else:
        self._flush(summary)
        return summary
      finally:
        self._compiled_train_step = unwatched

  def eval(self, batch_iters):
    """t5x's; what it found is on disk when it returns."""
    summaries = super().eval(batch_iters)
    for manager in self.eval_metrics_managers.values():
      manager.summary_writer.flush()
    return summaries

  def _flush(self, summary):
    """Puts on disk what a checkpoint of this step must not be ahead of."""
    summary.result()
    self.train_metrics_manager.summary_writer.flush()

  def _leave(self, watch: nonfinite.Watch, start: int):
    """Publishes the newest state for t5x to save.

    Raises:
      stopping.Preempted: always, for t5x to act on.
    """
    watch.check()
    self.train_state = watch.state
    step = start + watch.count
    summary = self.train_metrics_manager.write_metrics_summary(
      watch.merged(), step, watch.count
    )
    summary.result()
    self._stopping_after(step)
    self._flush(summary)
    message = (
      f'SIGTERM: stopped after step {step}. If the run saves checkpoints '
      '(CHECKPOINT_PERIOD), one of this step follows; start the same command '
      'again to go on.'
    )
    # Of an exception that sets the exit code Python shows nothing.
    logging.warning('%s', message)
    raise preemption.Preempted(message)

  def _stopping_after(self, step: int):
    """For subclasses that have something to log before."""

  def _go_back(
    self,
    error: nonfinite.NonFiniteError,
    copy: nonfinite.HostCopy | None,
    watch: nonfinite.Watch,
    start: int,
  ):
    """Goes back to the state at `start`, past the batches that were drawn.

    Raises:
      watching.NonFiniteError: that would be too many batches passed over.
    """
    self._skipped_batches += watch.count
    if copy is None or self._skipped_batches > self._max_skipped_batches:
      raise nonfinite.NonFiniteError(
        f'{error}. The last checkpoint in MODEL_DIR = {self._model_dir!r} is '
        'from before that. Look at the batches and the learning rate '
        '(PEAK_LEARNING_RATE, WARMUP_STEPS) there; to pass over such batches, '
        f'set MAX_SKIPPED_BATCHES = {self._max_skipped_batches} to at least '
        f'{self._skipped_batches} (STATS_PERIOD are passed over at a time).'
      ) from error
    logging.error(
      '%s. Going back to step %d and passing over %d batches; %d in all.',
      error,
      start,
      watch.count,
      self._skipped_batches,
    )
    watch.delete_state()  # The devices may not have room for two.
    self.train_state = copy.restore()
    self.train_metrics_manager.write_scalar(
      'salt/skipped_batches', self._skipped_batches, start
    )
    self._progress.update(-watch.count)

  def _counted(self, batch_iter: Iterator[Batch]) -> Iterator[Batch]:
    """Advances a progress bar with the batches; on a terminal only."""
    if self._progress is None:
      self._progress = tqdm.tqdm(
        total=self._total_steps,
        initial=int(self.train_state.step),
        unit='step',
        disable=None if jax.process_index() == 0 else True,
      )
    while True:
      batch = self._next(batch_iter)
      self._progress.update()
      yield batch

  def _next(self, batch_iter: Iterator[Batch]) -> Batch:
    """The next batch.

    Raises:
      ValueError: there is none.
      OSError: it cannot be read.
    """
    try:
      return next(batch_iter)
    except StopIteration:
      raise ValueError(
        'MIXTURE_OR_TASK_NAME: the data ended before TRAIN_STEPS = '
        f'{self._total_steps}.'
      ) from None
    except tf.errors.OpError as e:
      raise OSError(
        'MIXTURE_OR_TASK_NAME: the data cannot be read any further; a file is '
        'gone, shorter than it was, or damaged, or its storage cannot be '
        f'reached ({e.message}). Restore it and start the same command again: '
        'the run goes on from its last checkpoint with the same examples.'
      ) from e

  def close(self):
    """Ends the progress bar, t5x's metric threads, and the directory's lock."""
    if self._progress is not None:
      self._progress.close()
    self._stop.close()
    super().close()
    model_dir_lib.release(self._model_dir)


def check_skipping(max_skipped_batches: int):
  """Checks how many batches may be passed over.

  Raises:
    ValueError: it is no such number.
  """
  if type(max_skipped_batches) is not int or max_skipped_batches < 0:
    raise ValueError(
      f'trainer.SaltTrainer.max_skipped_batches = {max_skipped_batches!r} '
      '(MAX_SKIPPED_BATCHES) counts batches: set it to 0 to stop at the first '
      'loss that is not finite, or to a positive number.'
    )
