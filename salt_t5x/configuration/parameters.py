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

"""What the parameters of gin files may be."""

from collections.abc import Callable, Mapping
import dataclasses
import math
from typing import Any


@dataclasses.dataclass(frozen=True)
class Kind:
  """What a parameter may be.

  Attributes:
    is_valid: whether a value is allowed.
    remedy: completes 'set it to'.
    is_path: whether it is a path, which becomes absolute.
  """

  is_valid: Callable[[Any], bool]
  remedy: str
  is_path: bool = False

  def or_none(self) -> 'Kind':
    """Returns a kind that allows None as well."""
    return Kind(
      lambda x: x is None or self.is_valid(x),
      f'{self.remedy}, or None',
      self.is_path,
    )


def _integer(minimum: int) -> Kind:
  return Kind(
    lambda x: type(x) is int and x >= minimum,
    f'a whole number of at least {minimum}',
  )


def _number(
  minimum: float, maximum: float = math.inf, is_open: bool = False
) -> Kind:
  def is_valid(x):
    is_number = type(x) in (int, float) and math.isfinite(x)
    return is_number and (
      minimum < x < maximum if is_open else minimum <= x <= maximum
    )

  if minimum == -math.inf:
    return Kind(is_valid, 'a finite number')
  if maximum < math.inf:
    range_ = f'{"between" if is_open else "from"} {minimum} '
    range_ += f'{"and" if is_open else "to"} {maximum}'
  else:
    range_ = f'{"above" if is_open else "of at least"} {minimum}'
  return Kind(is_valid, f'a number {range_}')


def _choice(*names: str) -> Kind:
  return Kind(lambda x: x in names, f'one of {", ".join(map(repr, names))}')


def _list(element: Kind, what: str) -> Kind:
  return Kind(
    lambda x: isinstance(x, list | tuple) and all(map(element.is_valid, x)),
    what,
  )


def _reference(example: str) -> Kind:
  """What a reference computes; no literal is one."""
  return Kind(lambda x: False, example)


def _is_name(x: Any) -> bool:
  return isinstance(x, str) and bool(x)


def _is_names(x: Any) -> bool:
  return isinstance(x, Mapping) and all(map(_is_name, (*x, *x.values())))


def _is_lengths(x: Any) -> bool:
  return (
    isinstance(x, Mapping)
    and 'targets' in x
    and all(type(length) is int and length >= 1 for length in x.values())
  )


_BOOLEAN = Kind(lambda x: type(x) is bool, 'True or False')
_NAME = Kind(_is_name, "a name, 'in quotes'")
_NAMES = Kind(
  lambda x: _is_name(x) or _list(_NAME, '').is_valid(x),
  "a name, 'in quotes', or a list of names",
)
_SPLITS = Kind(
  lambda x: _is_name(x) or _is_names(x),
  "the name of a split, 'in quotes', or {task: split}",
)
_CHECKPOINTS = Kind(
  lambda x: (
    isinstance(x, Mapping)
    # None is the model as initialised.
    and _is_names({k: v for k, v in x.items() if v is not None})
  ),
  "{'a name': 'a path'}",
)
_PATH = Kind(_is_name, "a path, 'in quotes'", is_path=True)
_PATHS = Kind(
  _NAMES.is_valid, "a path, 'in quotes', or a list of paths", is_path=True
)
_DTYPE = _choice('float32', 'bfloat16', 'float16')
_SHARE = _number(0, 1)
_NORMALIZER = Kind(
  lambda x: _is_name(x) or _number(0, is_open=True).is_valid(x),
  "a number above 0, the name of one of t5x's factors",
)
_COUNTS = _list(_integer(1), 'a list of whole numbers of at least 1')
_SCHEDULE = _reference('a schedule, e.g. @optax.linear_schedule()')
_BY_TRAINER = Kind(
  lambda x: x is None, 'None: the trainer sets it (PEAK_LEARNING_RATE)'
)
_MODEL = _reference(
  'a model: include a file of salt_t5x/gin/students or .../teachers first'
)
LENGTHS = Kind(
  _is_lengths, "{'targets': T}, the tokens of a sequence, at least 1"
)

_TRAINER = {
  'total_steps': _integer(0),
  'num_microbatches': _integer(1).or_none(),
  'learning_rate_fn': _SCHEDULE,
  'allow_changes': _BOOLEAN,
  'max_skipped_batches': _integer(0),
}
_DECAY = {
  'distillation_weight': _SHARE,
  'decay_start': _integer(0),
  'decay_end': _integer(1),
}
_OF_CLASS = {
  'train': {
    'model': _MODEL,
    'model_dir': _PATH,
    'total_steps': _integer(0),
    'eval_steps': _integer(1),
    'eval_period': _integer(0),
    'stats_period': _integer(1).or_none(),
    'random_seed': _integer(0).or_none(),
  },
  'DatasetConfig': {
    'mixture_or_task_name': _NAME,
    'task_feature_lengths': LENGTHS,
    'batch_size': _integer(1),
    'split': _NAME,
    'shuffle': _BOOLEAN,
    'seed': _integer(0).or_none(),
    'use_cached': _BOOLEAN,
    'pack': _BOOLEAN,
  },
  'saves_iterator': {'save_dataset': _BOOLEAN.or_none()},
  'get_dataset': {
    'save_dataset': _BOOLEAN,
    'model_dir': _PATH.or_none(),
    'allow_changes': _BOOLEAN,
  },
  'get_datasets': {'eval_period': _integer(0)},
  'check_model': {
    'model_dir': _PATH.or_none(),
    'eval_period': _integer(0),
  },
  'SaveCheckpointConfig': {
    'period': _integer(1).or_none(),
    'checkpoint_steps': _list(_integer(0), 'a list of steps').or_none(),
    'keep': _integer(1).or_none(),
    'save_dataset': _BOOLEAN,
  },
  'RestoreCheckpointConfig': {'path': _PATHS},
  'OrbaxCheckpointManagerInterface': {
    'force_keep_period': _integer(1).or_none()
  },
  'multiples': {'period': _integer(1).or_none(), 'total_steps': _integer(0)},
  'PjitPartitioner': {
    'num_partitions': _integer(1).or_none(),
    'model_parallel_submesh': _COUNTS.or_none(),
  },
  'SaltTrainer': _TRAINER
  | {
    'schedule': _reference('a schedule, e.g. @schedules.step()').or_none(),
    'teacher': _reference('@teacher.Teacher()').or_none(),
    'teacher_temperature': _number(0, is_open=True),
    'top_k': _integer(1).or_none(),
  },
  'FineTuneTrainer': _TRAINER | {'initial_checkpoint': _PATH},
  'warmup_cosine_decay_schedule': {
    'init_value': _number(0),
    'peak_value': _number(0, is_open=True),
    'end_value': _number(0),
    'warmup_steps': _integer(0),
    'decay_steps': _integer(1),
    'exponent': _number(0, is_open=True),
  },
  'step': {'distillation_weight': _SHARE, 'kd_steps': _integer(0)},
  'linear_decay': _DECAY,
  'linear_ratio_decay': _DECAY,
  'constant': {'distillation_weight': _SHARE},
  'Adafactor': {
    'learning_rate': _BY_TRAINER,
    'decay_rate': _number(0, 1, is_open=True).or_none(),
    'step_offset': _integer(0),
    'clipping_threshold': _number(0, is_open=True).or_none(),
    'weight_decay_rate': _number(0).or_none(),
    'min_dim_size_to_factor': _integer(1),
    'epsilon1': _number(0, is_open=True),
    'epsilon2': _number(0, is_open=True),
  },
  'SaltDecoderOnlyModel': {
    'module': _reference('a network, e.g. @network.Transformer()'),
    'vocabulary': _reference(
      'a vocabulary, e.g. @seqio.SentencePieceVocabulary()'
    ),
    'optimizer_def': _reference('an optimizer, e.g. @adafactor.Adafactor()'),
    'z_loss': _number(0),
    'loss_normalizing_factor': _NORMALIZER.or_none(),
    'inputs_bidirectional_attention': _BOOLEAN,
    'loss_chunk': _integer(1),
  },
  'SentencePieceVocabulary': {
    'sentencepiece_model_file': _PATH,
    'extra_ids': _integer(0).or_none(),
  },
  'PassThroughVocabulary': {'size': _integer(1)},
  'TransformerConfig': dict.fromkeys(
    (
      *('vocab_size', 'emb_dim', 'num_heads', 'num_kv_heads'),
      *('head_dim', 'mlp_dim', 'num_layers'),
    ),
    _integer(1),
  )
  | {
    'mlp_activations': _list(_NAME, "a list of names, 'in quotes'"),
    'dtype': _DTYPE,
    'remat_policy': _choice('attention', 'full', 'minimal', 'none'),
    'scan_layers': _BOOLEAN,
    'max_wavelength': _number(0, is_open=True),
  },
  'Teacher': {
    'model': _MODEL,
    'path': _PATH.or_none(),
    'step': _integer(0).or_none(),
    'dtype': _choice('float32', 'bfloat16').or_none(),
    'minimum_gain': _number(-math.inf),
  },
  'Model': {
    'model': _MODEL,
    'path': _PATH,
    'step': _integer(0).or_none(),
    'dtype': _DTYPE.or_none(),
  },
  'FirstStage': {
    'path': _PATH,
    'kd_steps': _integer(0),
    'total_steps': _integer(0),
    'model_dir': _PATH,
    'teacher_path': _PATH.or_none(),
    'kinds': _list(_NAME, 'a list of kinds of scores'),
    'needs_share': _BOOLEAN,
  },
  'score': {
    'output_dir': _PATH,
    'top_k': _integer(1),
    'examples': _integer(1).or_none(),
    'batches_per_shard': _integer(1),
  },
  'sample': {
    'output_dir': _PATH,
    'task_feature_lengths': LENGTHS,
    'batch_size': _integer(1),
    'examples': _integer(1),
    'held_out_examples': _integer(1),
    'prompt_task': _NAME.or_none(),
    'prompt_length': _integer(0),
    'seed': _integer(0),
  },
  'analyze': {
    'output_dir': _PATH,
    'completions_dir': _PATH.or_none(),
    'held_out_task': _NAME,
    'split': _NAME,
    'task_feature_lengths': LENGTHS,
    'batch_size': _integer(1),
    'distillation_weight': _SHARE,
    'teacher_temperature': _number(0, is_open=True),
    'sequences': _integer(2),
    'num_completions': _integer(2),
    'prefixes': _COUNTS,
    'lengths': _COUNTS.or_none(),
    'training_sequences': _integer(16).or_none(),
    'delta': _number(0, 1, is_open=True),
    'seed': _integer(0),
  },
  'evaluate': {
    'model': _MODEL,
    'checkpoints': _CHECKPOINTS,
    'output_dir': _PATH,
    'data_dir': _PATH.or_none(),
    'task_feature_lengths': LENGTHS,
    'batch_size': _integer(1),
    'dtype': _DTYPE.or_none(),
    'suite': _NAMES,
    'use_hub': _BOOLEAN,
    'examples': _integer(1).or_none(),
    'run_programs': _BOOLEAN,
    'held_out_examples': _integer(1).or_none(),
    'supervised_tasks': _NAMES,
    'supervised_split': _SPLITS,
  },
}
# {the last two components of a parameter's name: its kind}.
PARAMETERS = {
  f'{name}.{parameter}': kind
  for name, kinds in _OF_CLASS.items()
  for parameter, kind in kinds.items()
}
