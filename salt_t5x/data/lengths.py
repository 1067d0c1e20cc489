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

"""TASK_FEATURE_LENGTHS: compared with the data that they would cut.

seqio trims each feature to its length without a word, and t5x's users set
`inputs` by habit: on sequences that a denoiser splits, that trims inputs away
whose targets stay.
"""

from collections.abc import Iterable, Mapping
import itertools
from typing import Any

from absl import logging
import numpy as np
import seqio

from salt_t5x.configuration import parameters
from salt_t5x.data import feature_converters, ordered_cache, supervised_tasks
from t5x import utils

# The examples of a task that are compared.
_EXAMPLES = 64


def check_form(
  lengths: Any, features: Iterable[str] = ('inputs', 'targets')
) -> Mapping[str, int]:
  """Returns lengths that have the form {'targets': T, ...}.

  Args:
    lengths: any value.
    features: the features that have lengths.

  Raises:
    ValueError: it is something else.
  """
  remedy = parameters.LENGTHS.remedy
  if not parameters.LENGTHS.is_valid(lengths):
    raise ValueError(f'TASK_FEATURE_LENGTHS = {lengths!r}: set it to {remedy}.')
  if unknown := lengths.keys() - {*features}:
    raise ValueError(
      f'TASK_FEATURE_LENGTHS = {dict(lengths)!r}: there is no feature '
      f'{sorted(unknown)[0]!r} here, only {sorted(features)}. Leave it out.'
    )
  return lengths


def sequence_length(lengths: Any) -> int:
  """Returns T of sequences, which inputs and targets share as in training.

  Args:
    lengths: {'targets': T}, or {'inputs': T, 'targets': T}.

  Raises:
    ValueError: it is something else.
  """
  found = {*check_form(lengths).values()}
  if len(found) > 1:
    raise ValueError(
      f'TASK_FEATURE_LENGTHS = {dict(lengths)!r}: inputs and targets share a '
      f"sequence here. Set it to {{'targets': {lengths['targets']}}}."
    )
  return found.pop()


def check(
  cfg: utils.DatasetConfig, feature_converter_cls: Any = None
) -> Mapping[str, int]:
  """Compares a data set's lengths with its examples.

  Lost tokens of a few examples are logged, as a share.

  Args:
    cfg: the data set.
    feature_converter_cls: makes the converter of the examples; None if they
      are read as they are cached.

  Returns:
    The lengths.

  Raises:
    ValueError: the lengths are not those of the task's sequences, cut every
      example, or name other features than the task has.
  """
  provider = seqio.get_mixture_or_task(cfg.mixture_or_task_name)
  lengths = check_form(cfg.task_feature_lengths, provider.output_features)
  for task in seqio.get_subtasks(provider):
    if isinstance(task.source, ordered_cache.CachedSource):
      length = task.source.lengths.get('targets')
      if length and set(lengths.values()) != {length}:
        raise ValueError(
          f'TASK_FEATURE_LENGTHS = {dict(lengths)!r}: {task.name} reads '
          f'sequences of {length} tokens, which inputs and targets share. Set '
          f"it to {{'targets': {length}}}, or cut and cache sequences of "
          'another length.'
        )
    elif feature_converter_cls and cfg.split in task.splits:
      converter = feature_converter_cls(pack=False)
      share = isinstance(
        converter, feature_converters.FixedWidthFeatureConverter
      )
      _check_examples(task, cfg, max(lengths.values()) if share else None)
  return lengths


def _check_examples(
  task: seqio.Task, cfg: utils.DatasetConfig, width: int | None
):
  """Compares the lengths with the first examples of a task.

  Args:
    task: the task.
    cfg: its lengths and split.
    width: the most tokens of inputs and targets together; None if each feature
      has its own.
  """
  lengths = cfg.task_feature_lengths
  # These trim what does not fit themselves.
  fits = supervised_tasks.fit in task.preprocessors
  dataset = task.get_dataset(
    None if fits else lengths,
    cfg.split,
    use_cached=cfg.use_cached,
    shuffle=False,
    seed=0,
    num_epochs=1,
    trim_output_features=False,
    try_in_mem_cache=False,
  )
  sizes = np.array(
    [
      [np.size(x.get(name, ())) for name in ('inputs', 'targets')]
      for x in itertools.islice(dataset.as_numpy_iterator(), _EXAMPLES)
    ]
  ).reshape(-1, 2)
  limits = [lengths.get(name, np.inf) for name in ('inputs', 'targets')]
  kept = np.minimum(sizes, limits)
  if width and fits:
    # Inputs get what targets leave.
    reserved = np.where(limits[1] < width, limits[1], kept[:, 1])
    kept[:, 0] = np.minimum(kept[:, 0], width - reserved)
  elif width:
    kept[:, 1] = np.minimum(kept[:, 1], np.maximum(width - kept[:, 0], 0))
  lost = sizes - kept
  for i, name in enumerate(('inputs', 'targets')):
    if not lost[:, i].any():
      continue
    share = np.mean(lost[:, i] > 0)
    found = (
      f'TASK_FEATURE_LENGTHS = {dict(lengths)!r}: {share:.0%} of the first '
      f'{len(sizes)} examples of {task.name} ({cfg.split}) lose tokens of '
      f'their {name}, {lost[:, i].sum() / sizes[:, i].sum():.1%} in all; the '
      f'longest {name} have {sizes[:, i].max()} tokens.'
    )
    if lost[:, i].all() and not fits:
      raise ValueError(
        f'{found} Set longer lengths (inputs and targets share the largest), '
        'or cut the sequences in a preprocessor of the task.'
      )
    logging.warning('%s', found)
