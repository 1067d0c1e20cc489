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
import hashlib
import os
from typing import Any

from etils import epath
import flax
import jax
import seqio

from salt_t5x import teacher as teacher_lib
from salt_t5x.checkpoints import restore, run_record
from salt_t5x.inference import pretrained
from t5x import models as t5x_models
from t5x import partitioning

PyTree = Any

# The name of the teacher's column, as in the paper.
SLM = 'SLM'
_PARAMETER = 'evaluate.evaluate.checkpoints (CHECKPOINTS)'


def named(
  model: t5x_models.DecoderOnlyModel,
  checkpoints: Mapping[str, str | None],
  dtype: str | None,
  teacher: teacher_lib.Teacher | None,
) -> dict[str, pretrained.Pretrained]:
  """Names the models that an evaluation compares.

  Args:
    model: the model of all checkpoints.
    checkpoints: {name in the tables: model directory or checkpoint}; None
      stands for the model as initialised.
    dtype: dtype of the parameters, or None for that of the checkpoint.
    teacher: joins the others as `SLM`, if not None.

  Returns:
    {name in the tables: model}, the teacher first.

  Raises:
    ValueError: a name or a path cannot be used.
  """
  if not isinstance(checkpoints, Mapping):
    raise ValueError(
      f"{_PARAMETER} = {checkpoints!r}: write {{'a name': 'a path'}}."
    )
  if not checkpoints and teacher is None:
    raise ValueError(
      f"{_PARAMETER} is empty: name checkpoints to evaluate, e.g. {{'SALT': "
      "'gs://bucket/student'}."
    )
  found = {}
  if teacher is not None:
    if SLM in checkpoints:
      raise ValueError(
        f"{_PARAMETER} names {SLM!r}, the teacher's column: choose another "
        'name, or leave out runs/evaluate_with_teacher.gin.'
      )
    found[SLM] = teacher
  for name, path in checkpoints.items():
    is_name = isinstance(name, str) and name
    if not is_name or '/' in name or name.startswith('.'):
      raise ValueError(
        f'{_PARAMETER}: {name!r} cannot be the name of a folder; choose '
        'another.'
      )
    parameter = f'{_PARAMETER}[{name!r}]'
    if not isinstance(path, str | None):
      raise ValueError(f"{parameter} = {path!r}: write {{'a name': 'a path'}}.")
    found[name] = pretrained.Pretrained(
      model,
      path,
      dtype=dtype,
      parameters=pretrained.Parameters(
        path=parameter, model=f'The model of {name!r}'
      ),
    )
  return found


def find(
  candidates: Mapping[str, pretrained.Pretrained],
  vocabulary: seqio.Vocabulary,
  features: Mapping[str, jax.ShapeDtypeStruct],
  partitioner: partitioning.BasePartitioner,
) -> tuple[dict[str, epath.Path | None], dict[int, tuple[PyTree, PyTree]]]:
  """Finds and checks all checkpoints before anything compiles.

  Args:
    candidates: {name in the tables: model}; see `named`.
    vocabulary: the vocabulary of the evaluation, and so of all checkpoints.
    features: the shapes of a batch.
    partitioner: shards parameters and batches.

  Returns:
    {name: checkpoint, or None for a model as initialised}, and {id of the
    model: (shapes, axes) of its parameters}.

  Raises:
    ValueError: a checkpoint is missing or of another model or vocabulary.
  """
  found = {
    name: None if name != SLM and x.path is None else x.find()
    for name, x in candidates.items()
  }
  for name, x in candidates.items():
    if found[name]:
      x.check_vocabulary(vocabulary)
  shapes = {
    id(x.model): x.shapes_and_axes(features, partitioner)
    for x in candidates.values()
  }
  for name, x in candidates.items():
    if found[name]:
      restore.check_architecture(
        found[name], shapes[id(x.model)][0], x.parameters.model
      )
  return found, shapes


def options(
  candidate: pretrained.Pretrained,
  checkpoint: epath.Path | None,
  shapes: PyTree,
  length: int,
) -> dict[str, Any]:
  """Returns the options of a candidate on which its results depend."""
  model = hashlib.sha256(str(shapes).encode())
  vocabulary = candidate.model.output_vocabulary
  return {
    'checkpoint': os.fspath(checkpoint or 'as initialised'),
    'model': model.hexdigest()[:16],
    'vocabulary': run_record.fingerprint(vocabulary),
    'dtype': candidate.dtype,
    'length': length,
  }


def initialise(
  model: t5x_models.DecoderOnlyModel,
  features: Mapping[str, jax.ShapeDtypeStruct],
  axes: PyTree,
  partitioner: partitioning.BasePartitioner,
) -> PyTree:
  """Initialises parameters on the mesh."""

  def initialise(rng):
    shapes = {name: x.shape for name, x in features.items()}
    types = {name: x.dtype for name, x in features.items()}
    variables = model.get_initial_variables(rng, shapes, types)
    return flax.core.unfreeze(variables['params'])

  initialise = partitioner.partition(
    initialise, in_axis_resources=None, out_axis_resources=axes
  )
  return initialise(jax.random.PRNGKey(0))
