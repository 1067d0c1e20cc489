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


"""The paper's fine-tuning tasks (§5.3, Tables 4 and 15).

`sft_gsm8k`, `sft_xsum`, `sft_cnn_dailymail`, `sft_anli_r1`, `sft_anli_r2` and
`sft_anli_r3`. Two environment variables, read when this module is imported,
name local paths or any that tf.io.gfile knows. Files are read when they are
used.

  SALT_T5X_SFT         a folder of `<task>/<split>.jsonl` files, the task's name
                       without `sft_`, with the fields of the hub's data sets:
                       question, answer; document, summary; article, highlights;
                       premise, hypothesis, label (0, 1 or 2). Without it,
                       TensorFlow Datasets fetches the data (XSum's files must
                       be put into its folder by hand first);
  SALT_T5X_VOCABULARY  the SentencePiece model of the checkpoint, by default
                       `vocabulary.model` in that folder.

The paper gives no prompts. Here an instruction begins the inputs and long text
ends them, because inputs that do not fit are truncated at the end. Targets are
the data sets' own; GSM8K's include its calculations.

`supervised_tasks.register` makes such a task of any JSONL file.
"""

from collections.abc import Iterator, Mapping
import functools
import os
from typing import Any

import seqio

from salt_t5x import files
from salt_t5x.data import supervised_tasks, text_tasks
from salt_t5x.evaluation import text_metrics

DATA_DIR = os.environ.get('SALT_T5X_SFT')
if DATA_DIR is not None:
  DATA_DIR = files.absolute(DATA_DIR)

ANLI_LABELS = ('entailment', 'neutral', 'contradiction')

_Example = Mapping[str, Any]


def vocabulary() -> seqio.SentencePieceVocabulary:
  """Returns the vocabulary of the tasks; in gin, `@sft.vocabulary()`."""
  return seqio.SentencePieceVocabulary(
    files.absolute(
      os.environ.get(
        'SALT_T5X_VOCABULARY', os.path.join(DATA_DIR or '', 'vocabulary.model')
      )
    ),
    extra_ids=text_tasks.EXTRA_IDS,
  )


def anli_label(example: _Example) -> str:
  """Returns the name of an example's label.

  Raises:
    ValueError: the label is not 0, 1 or 2.
  """
  label = example['label']
  if type(label) is not int or label not in (0, 1, 2):
    raise ValueError(f'label = {label!r} is not 0, 1 or 2, an integer')
  return ANLI_LABELS[label]


def _tfds_examples(name: str, split: str) -> Iterator[_Example]:
  """Examples of TensorFlow Datasets, with the hub's fields."""
  dataset = seqio.LazyTfdsLoader(name).load(split, shuffle_files=False)
  for example in dataset.as_numpy_iterator():
    example = {
      field: value.decode() if isinstance(value, bytes) else int(value)
      for field, value in example.items()
    }
    if 'context' in example:
      example['premise'] = example.pop('context')
    yield example


def _register(
  name: str, tfds_name: str, splits: tuple[str, ...], **options
) -> None:
  supervised_tasks.register(
    f'sft_{name}',
    {
      split: os.path.join(DATA_DIR, name, f'{split}.jsonl')
      if DATA_DIR
      else functools.partial(_tfds_examples, tfds_name, split)
      for split in splits
    },
    vocabulary=vocabulary(),
    **options,
  )


_SPLITS = ('train', 'validation', 'test')

_register(
  'gsm8k',
  'gsm8k:1.0.0',
  ('train', 'test'),
  inputs='Solve the problem.\n{question}',
  targets='{answer}',
  metric_fns=[text_metrics.gsm8k_accuracy],
)
_register(
  'xsum',
  'xsum:1.1.0',
  _SPLITS,
  inputs='Summarize in one sentence.\n{document}',
  targets='{summary}',
  metric_fns=[text_metrics.rouge],
)
_register(
  'cnn_dailymail',
  'cnn_dailymail:3.4.0',
  _SPLITS,
  inputs='Summarize.\n{article}',
  targets='{highlights}',
  metric_fns=[text_metrics.rouge],
)
for _round in ('r1', 'r2', 'r3'):
  _register(
    f'anli_{_round}',
    f'anli/{_round}:0.1.0',
    _SPLITS,
    inputs='Hypothesis: {hypothesis}\nPremise: {premise}',
    targets=anli_label,
    metric_fns=[text_metrics.accuracy],
  )
