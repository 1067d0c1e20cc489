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

"""Two-stage training (Algorithm 1) as a t5x trainer.

Each stage has its own compiled step. The distillation step takes the teacher's
parameters as a third argument; the plain step is t5x's own. `train` splits its
steps at n_KD, so the stage may change inside any call. From n_KD on the run
holds no teacher and costs as much as the baseline; a run that resumes there
never loads one.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
import concurrent.futures
import dataclasses
import functools
import itertools
import math
import os
import time
import types
from typing import Any

from absl import logging
import jax

from salt_t5x import models, schedules
from salt_t5x import teacher as teacher_lib
from salt_t5x.checkpoints import find, run_record
from salt_t5x.data import vocabularies
from salt_t5x.kernels import chunked_losses
from salt_t5x.runs import (
  resilient_trainer,
  settings,
  step_batches,
  train_data,
)
from t5x import partitioning, utils
from t5x import train_state as train_state_lib
from t5x import trainer as t5x_trainer

Array = jax.Array
Batch = Mapping[str, Array]
PyTree = Any


class SaltTrainer(resilient_trainer.ResilientTrainer):
  """Trains by eq. (4) while the schedule's ω is positive, then by eq. (1)."""

  def __init__(
    self,
    model: models.SaltDecoderOnlyModel,
    train_state: train_state_lib.TrainState,
    partitioner: partitioning.BasePartitioner,
    eval_names: Sequence[str],
    summary_dir: str | None,
    train_state_axes: PyTree,
    rng: Array,
    learning_rate_fn: Callable[[Array], Array],
    num_microbatches: int | None,
    total_steps: int,
    schedule: schedules.Schedule | None = None,
    teacher: teacher_lib.Teacher | None = None,
    teacher_temperature: float = 0.25,
    top_k: int | None = None,
    max_skipped_batches: int = 0,
    allow_changes: bool = False,
    train_dataset_cfg: utils.DatasetConfig | None = None,
    weight_metrics_computer: Any = None,
  ):
    """Checks everything that can be checked without loading the teacher.

    Args:
      model: the student.
      train_state: the student's state.
      partitioner: shards student, teacher and data.
      eval_names: names of the evaluation data sets.
      summary_dir: the model directory, or None to write nothing.
      train_state_axes: partition specs of the state.
      rng: key for dropout.
      learning_rate_fn: maps a step to its learning rate.
      num_microbatches: microbatches that each batch is cut into, or None.
      total_steps: steps of the run; the schedule must end within them.
      schedule: ω over the steps (`salt_t5x.schedules`), or None for BASELINE.
      teacher: the small model; ignored if no distillation step is left.
      teacher_temperature: ρ > 0, the exponent on the teacher's probabilities.
      top_k: restricts distillation to the teacher's k most likely tokens.
      max_skipped_batches: how many batches the run may skip because of losses
        that are not finite; it skips all batches since t5x's loop began, at
        most STATS_PERIOD at a time. 0 stops the run at the first such loss.
      allow_changes: whether a resumed run may change how it distils.
      train_dataset_cfg: the training data, recorded in the model directory
        (`train_data.record`); None to record nothing.
      weight_metrics_computer: t5x's, for metrics of weights and updates.

    Raises:
      ValueError: a parameter is out of range, does not fit the run, or differs
        from the run that is resumed, or the model directory or the teacher has
        another vocabulary. The message names the gin parameter, its value and
        the remedy.
    """
    first_step = int(train_state.step)
    self._kd_steps = schedules.kd_steps_of(schedule, total_steps)
    self._schedule = schedule
    self._teacher = teacher
    self._teacher_temperature = teacher_temperature
    self._top_k = top_k
    self._teacher_params = None
    self._teacher_axes = None
    self._compiled_distillation_step = None
    self._plain_step = None  # A future; see `_compile`.
    self._teacher_checkpoint = None
    self._data_is_checked = False

    settings.check_normalizer(model, num_microbatches)
    if self._kd_steps > 0:
      settings.check_distillation(model, teacher_temperature, top_k)
    record = None
    if summary_dir and run_record.begun(summary_dir):
      record = run_record.read(summary_dir)
    if summary_dir and record is None:
      settings.check_first_step(first_step, self._kd_steps)
    if summary_dir:
      settings.check_selection(summary_dir, schedule)
    if first_step < self._kd_steps:
      if teacher is None:
        raise ValueError(
          'trainer.SaltTrainer.teacher = None, but the schedule distils '
          f'until step {self._kd_steps} (ω > 0): include a '
          'salt_t5x/gin/teachers/... file and set TEACHER_PATH, or set ω '
          '(DISTILLATION_WEIGHT) to 0.'
        )
      self._teacher_checkpoint = self._find_teacher(record, model)
    mine = dataclasses.replace(
      self._describe(model),
      optimization=settings.optimization(
        model, learning_rate_fn, total_steps, record
      ),
    )
    # Batches that were skipped at the checkpoint's step are skipped again,
    # unless a saved iterator reads them again.
    again = step_batches.depends_on_step(summary_dir)
    skipped = run_record.until(record, first_step if again else first_step - 1)
    if record:
      run_record.compare(summary_dir, record, mine, allow_changes)
      if self._teacher_checkpoint is None:
        # Past n_KD only the record still names the teacher.
        mine = dataclasses.replace(
          record,
          kd_steps=mine.kd_steps,
          network=mine.network,
          optimization=mine.optimization,
        )
    mine = dataclasses.replace(mine, skipped_batches=skipped)
    # Written last, so that a start that is refused leaves no files behind.
    if summary_dir and jax.process_index() == 0:
      if record != mine:
        run_record.write(summary_dir, mine)
      if train_dataset_cfg is not None:
        train_data.record(summary_dir, train_dataset_cfg)

    super().__init__(
      model=model,
      train_state=train_state,
      partitioner=partitioner,
      eval_names=eval_names,
      summary_dir=summary_dir,
      train_state_axes=train_state_axes,
      rng=rng,
      learning_rate_fn=learning_rate_fn,
      num_microbatches=num_microbatches,
      weight_metrics_computer=weight_metrics_computer,
      total_steps=total_steps,
      max_skipped_batches=max_skipped_batches,
      record=mine,
    )

  def _find_teacher(self, record: run_record.RunRecord | None, model):
    known = (record.teacher, record.teacher_identity) if record else (None,)
    checkpoint = self._teacher.find_for_run(*known)
    self._teacher.check_record(model.output_vocabulary)
    return checkpoint

  def _describe(self, model) -> run_record.RunRecord:
    """Returns the record for the model directory."""
    record = run_record.RunRecord(
      vocabulary=vocabularies.fingerprint(model.output_vocabulary),
      vocab_size=model.output_vocabulary.vocab_size,
      network=models.describe(model),
      kd_steps=None if self._kd_steps == math.inf else self._kd_steps,
    )
    if self._teacher_checkpoint is None:
      return record
    return dataclasses.replace(
      record,
      teacher=os.fspath(self._teacher_checkpoint),
      teacher_identity=find.identity(self._teacher_checkpoint),
      schedule=self._schedule.description,
      teacher_temperature=float(self._teacher_temperature),
      top_k=self._top_k,
    )

  def _distils(self, step: int) -> bool:
    return step < self._kd_steps

  # --- The two steps ---------------------------------------------------------

  @functools.cached_property
  def _partitioned_distillation_step(self):
    """(train_state, batch, teacher_params) -> (train_state, metrics)."""

    def train_step(train_state, batch, teacher_params):
      # t5x's loss_fn(params, batch, rng) has no room for a step or a teacher,
      # so the training step gets a view of the model that has both.
      view = types.SimpleNamespace(
        loss_fn=functools.partial(
          self._model.distillation_loss_fn,
          teacher_model=self._teacher.model,
          teacher_params=teacher_params,
          distillation_weight=self._schedule.weight(train_state.step),
          teacher_temperature=self._teacher_temperature,
          top_k=self._top_k,
        )
      )
      return t5x_trainer.train_with_lr(
        train_state,
        batch,
        learning_rate=self._learning_rate_fn(train_state.step),
        dropout_rng=self._get_step_rng(train_state.step),
        model=view,
        num_microbatches=self._num_microbatches,
        weight_metrics_computer=self._weight_metrics_computer,
        data_partition_spec=self._partitioner.data_partition_spec,
      )

    return self._partitioner.partition(
      train_step,
      in_axis_resources=(
        self._train_state_axes,
        self._partitioner.data_partition_spec,
        self._teacher_axes,
      ),
      out_axis_resources=(self._train_state_axes, None),
      donate_argnums=(0,),
    )

  def compile_train(self, batch: Batch) -> None:
    """Compiles the steps that this run still needs (t5x calls this first).

    The plain step compiles in the background while the first stage trains.

    Args:
      batch: a sample batch; only shapes and dtypes matter.

    Raises:
      ValueError: see `Pretrained.load`.
    """
    if not self._distils(int(self.train_state.step)):
      super().compile_train(batch)
      return
    self._load_teacher(batch)
    self._compiled_distillation_step = self._partitioner.compile(
      self._partitioned_distillation_step,
      self.train_state,
      batch,
      self._teacher_params,
    )
    if self._kd_steps < self._total_steps:
      # Traced here, where JAX's context managers are in force.
      lowered = self._partitioned_train_step.lower(self.train_state, batch)
      compiler = concurrent.futures.ThreadPoolExecutor(1)
      self._plain_step = compiler.submit(_compile, lowered)
      compiler.shutdown(wait=False)

  def _load_teacher(self, batch: Batch):
    if self._teacher_params is None:
      self._teacher_params, self._teacher_axes = self._teacher.load(
        self._teacher_checkpoint, batch, self._partitioner
      )

  def _finish_stage(self, step: int):
    """Frees the teacher's memory when distillation is over."""
    if self._teacher_params is None or self._distils(step):
      return
    for array in jax.tree.leaves(self._teacher_params):
      array.delete()
    self._teacher_params = None
    self._compiled_distillation_step = None
    del self._partitioned_distillation_step
    logging.info('Step %d: distillation ends, teacher freed.', step)
    self.train_metrics_manager.write_scalar(
      'salt/distillation_weight', 0.0, step
    )

  # --- The loop --------------------------------------------------------------

  def train(
    self,
    batch_iter: Iterator[Batch],
    num_steps: int,
    start_step: int | None = None,
  ) -> Any:
    """Trains for `num_steps`, across the stage boundary if it lies within.

    Args:
      batch_iter: yields batches.
      num_steps: steps to train. t5x asks for 0 where a checkpoint's step is
        also the end of its inner loop.
      start_step: the step to begin with; None for the train state's.

    Returns:
      A future with the metrics summary of the last stage.

    Raises:
      ValueError: see `Pretrained.load`, `teacher.check_cross_entropy` and
        `train_data.check_loss_tokens`.
    """
    if num_steps == 0:
      nothing = concurrent.futures.Future()
      nothing.set_result({})
      return nothing
    step = int(self.train_state.step) if start_step is None else start_step
    end = step + num_steps
    batch_iter = self._checked(batch_iter, step)
    if self._plain_step is not None and self._plain_step.done():
      self._plain_step.result()  # Surface background compile errors now.
    if self._distils(step):
      stage_end = min(end, self._kd_steps)
      summary = self._train_stage(
        self._distillation_step, batch_iter, stage_end - step, step
      )
      step = stage_end
    if step < end:
      self._take_plain_step(step)
      plain_step = self._compiled_train_step or self._partitioned_train_step
      summary = self._train_stage(plain_step, batch_iter, end - step, step)
    return summary

  def _take_plain_step(self, step: int):
    """Waits for the step that compiles in the background, if there is one."""
    if self._plain_step is not None:
      self._compiled_train_step, seconds = self._plain_step.result()
      self._plain_step = None
      self.train_metrics_manager.write_scalar(
        'timing/compilation_seconds', seconds, step
      )

  def _distillation_step(self, train_state, batch):
    step = (
      self._compiled_distillation_step or self._partitioned_distillation_step
    )
    return step(train_state, batch, self._teacher_params)

  def _checked(self, batch_iter, step: int) -> Iterator[Batch]:
    """Checks the data, their position and the teacher before the first step."""
    if self._data_is_checked:
      return batch_iter
    self._data_is_checked = True
    is_sought = step_batches.seek(self._model_dir, batch_iter, step)
    if not is_sought and step == 0 and hasattr(batch_iter, 'reset'):
      # t5x has read one batch ahead when it saves checkpoint_0, so the data
      # iterator saved there has lost it. A run at step 0, resumed or not,
      # therefore reads from the beginning.
      batch_iter.reset()
    first = self._next(batch_iter)
    train_data.check_loss_tokens(
      first, 'MIXTURE_OR_TASK_NAME', 'name another task'
    )
    if self._distils(step):
      self._load_teacher(first)
      self._check_teacher(first)
    return itertools.chain([first], batch_iter)

  @functools.cached_property
  def _partitioned_teacher_loss(self):
    """(teacher_params, batch) -> `losses.LossSums` of next-token prediction."""

    def teacher_loss(teacher_params, batch):
      return chunked_losses.next_token_loss(
        *models.hidden_and_embedding(
          self._teacher.model, teacher_params, batch
        ),
        targets=batch['decoder_target_tokens'],
        weights=batch.get('decoder_loss_weights'),
        chunk=self._model.loss_chunk,
      )

    return self._partitioner.partition(
      teacher_loss,
      in_axis_resources=(
        self._teacher_axes,
        self._partitioner.data_partition_spec,
      ),
      out_axis_resources=None,
    )

  def _check_teacher(self, batch: Batch):
    sums = self._partitioned_teacher_loss(self._teacher_params, batch)
    cross_entropy = float(sums.cross_entropy) / float(sums.weight)
    vocab_size = self._model.output_vocabulary.vocab_size
    teacher_lib.check_cross_entropy(
      cross_entropy,
      vocab_size,
      self._teacher.minimum_gain,
      self._teacher_checkpoint,
    )
    logging.info(
      'Teacher: %.3f nats on the first batch (log V = %.3f).',
      cross_entropy,
      math.log(vocab_size),
    )


def _compile(lowered) -> tuple[Any, float]:
  """Returns the compiled step and the seconds that it took."""
  start = time.monotonic()
  return lowered.compile(), time.monotonic() - start
