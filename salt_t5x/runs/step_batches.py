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

"""A run's batches as a function of the step, so no checkpoint holds them.

The batch of step s begins at position (s + skipped)·B of the order, where
`skipped` batches were skipped up to step s (`RunRecord.skipped_batches`).
Neither the number of processes nor TensorFlow's version matters.
"""

from collections.abc import Callable, Mapping

from clu.data import dataset_iterator
import numpy as np
import tensorflow as tf

from salt_t5x.checkpoints import find, run_record

# {model directory: the iterator of the run that this process trains there}.
_iterators = {}


class StepIterator(dataset_iterator.DatasetIterator):
  """Batches from a step on. `save` and `restore` have nothing to do."""

  def __init__(self, read: Callable[[int], tf.data.Dataset], model_dir: str):
    """Constructor.

    Args:
      read: maps the number of a batch to the host's shares from there on.
      model_dir: the directory of the run, which resumes from its newest
        checkpoint.
    """
    self._read = read
    self._model_dir = model_dir
    _iterators[model_dir] = self
    self.seek(max(find.finished(model_dir), default=0))

  def seek(self, step: int) -> None:
    """Begins at the batch of a step."""
    record = None
    if run_record.begun(self._model_dir):
      record = run_record.read(self._model_dir)
    skipped = run_record.skipped(record, step)
    self._dataset = self._read(step + skipped)
    self._iterator = None

  def __next__(self) -> Mapping[str, np.ndarray]:
    if self._iterator is None:
      self._iterator = self._dataset.as_numpy_iterator()
    return next(self._iterator)

  def reset(self) -> None:
    """Begins again at the batch that was sought."""
    self._iterator = None

  @property
  def element_spec(self) -> Mapping[str, dataset_iterator.ArraySpec]:
    """Shapes and dtypes of a batch."""
    return {
      name: dataset_iterator.ArraySpec(x.dtype.as_numpy_dtype, tuple(x.shape))
      for name, x in self._dataset.element_spec.items()
    }

  def save(self, filename) -> None:
    """Does nothing."""

  def restore(self, filename) -> None:
    """Does nothing."""


def forget(model_dir: str | None) -> None:
  """Ends the run in a directory."""
  _iterators.pop(model_dir, None)


def depends_on_step(model_dir: str | None) -> bool:
  """Whether the step alone determines the batches of the run there."""
  return model_dir in _iterators


def seek(model_dir: str | None, batch_iter, step: int) -> bool:
  """Begins at the batch of a step, if the run's batches depend on the step.

  t5x may have read ahead, or may have restored another checkpoint than the
  newest.

  Args:
    model_dir: the directory of the run.
    batch_iter: the run's batches, perhaps in wrappers that pass `reset` on.
    step: the step.

  Returns:
    Whether they depend on the step.
  """
  if (iterator := _iterators.get(model_dir)) is None:
    return False
  iterator.seek(step)
  batch_iter.reset()
  return True
