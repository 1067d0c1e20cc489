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

"""The models that an evaluation compares."""

from collections.abc import Mapping
import dataclasses
import hashlib
import re
from typing import Any

from absl import logging
from etils import epath
import flax
import jax

from salt_t5x import models
from salt_t5x import teacher as teacher_lib
from salt_t5x.checkpoints import find as find_lib
from salt_t5x.checkpoints import restore
from salt_t5x.data import vocabularies
from salt_t5x.inference import pretrained
from t5x import models as t5x_models
from t5x import partitioning

PyTree = Any
Features = Mapping[str, jax.ShapeDtypeStruct]

# The name of the teacher's column, as in the paper.
SLM = 'SLM'
_PARAMETER = 'evaluate.evaluate.checkpoints (CHECKPOINTS)'


@dataclasses.dataclass(frozen=True)
class Candidate:
  """A model whose checkpoint was found and checked.

  Attributes:
    source: the model.
    checkpoint: its checkpoint; None for a model as initialised.
    options: what its results depend on.
  """

  source: pretrained.Pretrained
  checkpoint: epath.Path | None
  options: Mapping[str, Any]

  def load(
    self, features: Features, partitioner: partitioning.BasePartitioner
  ) -> tuple[PyTree, PyTree]:
    """Restores or initialises the parameters; see `Pretrained.load`."""
    if self.checkpoint:
      return self.source.load(self.checkpoint, features, partitioner)
    _, axes = self.source.shapes_and_axes(features, partitioner)

    def initialise(rng):
      variables = self.source.model.get_initial_variables(
        rng,
        {name: x.shape for name, x in features.items()},
        {name: x.dtype for name, x in features.items()},
      )
      return flax.core.unfreeze(variables['params'])

    initialise = partitioner.partition(initialise, None, axes)
    return initialise(jax.random.PRNGKey(0)), axes


def find(
  model: t5x_models.DecoderOnlyModel,
  checkpoints: Mapping[str, str | None],
  dtype: str | None,
  teacher: teacher_lib.Teacher | None,
  features: Features,
  partitioner: partitioning.BasePartitioner,
) -> dict[str, Candidate]:
  """Finds and checks all checkpoints before anything compiles.

  Args:
    model: the model of all checkpoints.
    checkpoints: {name in the tables: model directory or checkpoint}; None
      stands for the model as initialised.
    dtype: dtype of the parameters, or None for that of the checkpoint.
    teacher: joins the others as `SLM`, if not None.
    features: the shapes of a [B, T] batch.
    partitioner: shards parameters and batches.

  Returns:
    {name in the tables: candidate}, the teacher first.

  Raises:
    ValueError: a name or a path cannot be used, or a checkpoint is missing or
      of another model or vocabulary.
  """
  sources = {SLM: teacher} if teacher else {}
  is_valid = isinstance(checkpoints, Mapping) and all(
    isinstance(name, str)
    # Names are those of folders, between the files of the results.
    and re.fullmatch(r'(?!(results|difficulty)\.)[^./|\n][^/|\n]*', name)
    and name not in sources
    and isinstance(path, str | None)
    for name, path in checkpoints.items()
  )
  if not is_valid or not (checkpoints or sources):
    raise ValueError(
      f"{_PARAMETER} = {checkpoints!r}: write {{'a name': 'a path'}}. A name "
      f'is also that of a folder next to results.json, has no | of tables, and '
      f'{SLM!r} is kept for the teacher.'
    )
  for name, path in checkpoints.items():
    parameters = pretrained.Parameters(
      path=f'{_PARAMETER}[{name!r}]', model=f'The model of {name!r}'
    )
    sources[name] = pretrained.Pretrained(
      model, path, dtype=dtype, parameters=parameters
    )
  found = {}
  for name, source in sources.items():
    checkpoint = None if name != SLM and source.path is None else source.find()
    vocabularies.check_special_ids(model.output_vocabulary, 'VOCABULARY')
    if checkpoint:
      source.check_record(model.output_vocabulary)
    shapes, _ = source.shapes_and_axes(features, partitioner)
    if checkpoint:
      restore.check_architecture(checkpoint, shapes, source.parameters.model)
    text = f'{models.describe(source.model)} {shapes}'
    options = {
      # Not its path: a model may be trained again there, or be moved.
      'checkpoint': checkpoint.name if checkpoint else 'as initialised',
      'identity': find_lib.identity(checkpoint) if checkpoint else None,
      'model': hashlib.sha256(text.encode()).hexdigest()[:16],
      'vocabulary': vocabularies.fingerprint(source.model.output_vocabulary),
      'dtype': source.dtype,
      'length': features['decoder_target_tokens'].shape[1],
    }
    for other, candidate in found.items():
      theirs = candidate.checkpoint
      if checkpoint and theirs and find_lib.are_copies(checkpoint, theirs):
        logging.warning(
          '%s: %r and %r are the same checkpoint, %s.',
          *(_PARAMETER, other, name, checkpoint),
        )
    found[name] = Candidate(source, checkpoint, options)
  return found
