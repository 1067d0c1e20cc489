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


"""Registers the seqio tasks of a text corpus in the Pile's form.

`register('corpus', ...)` makes

  corpus_documents    'text', 'domain' and 'id' as the shards hold them;
  corpus_sequences    T tokens each: what `seqio_cache_tasks` caches and
                      `salt_t5x.shuffle` shuffles;
  corpus_ul2          the paper's objective, drawn for each sequence (App. E);
  corpus_causal, corpus_prefix, corpus_short_spans, corpus_long_spans
                      one denoiser each, for inspection and evaluation;
  corpus_train_subset the causal view of the training data's beginning;
  corpus_held_out     a mixture of corpus_causal, by which models are compared,
                      and corpus_ul2, for evaluation;
  corpus_progress     a mixture of these two and corpus_train_subset, to follow
                      training (Fig. 3 and 8).

All but the first two read the cache of `corpus_sequences` in one global order.
"""

from collections.abc import Mapping, Sequence
import functools

import seqio
import tensorflow as tf

from salt_t5x.data import (
  ordered_cache,
  ordered_tasks,
  pile_shards,
  sequences,
  ul2,
)

EXTRA_IDS = 100  # as T5's; sentinels for up to 2,211 tokens

Filepatterns = Mapping[str, str | Sequence[str]]


def documents_task(name: str, split_to_filepattern: Filepatterns) -> seqio.Task:
  """Makes `{name}_documents`."""
  text = seqio.Feature(
    seqio.PassThroughVocabulary(0), add_eos=False, dtype=tf.string, rank=0
  )
  return seqio.Task(
    f'{name}_documents',
    source=pile_shards.JsonlDataSource(split_to_filepattern),
    preprocessors=[],
    output_features={'text': text},
  )


def sequences_task(
  name: str,
  split_to_filepattern: Filepatterns,
  vocabulary: seqio.Vocabulary,
  sequence_length: int,
) -> seqio.Task:
  """Makes `{name}_sequences`."""
  return seqio.Task(
    f'{name}_sequences',
    source=pile_shards.JsonlDataSource(split_to_filepattern),
    preprocessors=[
      sequences.tokenize,
      functools.partial(sequences.cut, length=sequence_length),
      seqio.CacheDatasetPlaceholder(),
    ],
    output_features={
      'targets': seqio.Feature(vocabulary, add_eos=False, dtype=tf.int32)
    },
  )


def register(
  name: str,
  split_to_filepattern: Filepatterns,
  vocabulary: seqio.Vocabulary,
  sequence_length: int,
  mode_tokens: bool = False,
  seed: int = 0,
) -> None:
  """Registers the tasks and mixtures of a corpus; nothing is read yet.

  Args:
    name: the tasks' common prefix.
    split_to_filepattern: globs of `*.jsonl.zst` shards, local or remote.
    vocabulary: with extra ids for UL2's sentinels.
    sequence_length: T.
    mode_tokens: as in `ul2.ul2`.
    seed: of UL2's draws.
  """
  cached = sequences_task(
    name, split_to_filepattern, vocabulary, sequence_length
  )
  documents = documents_task(name, split_to_filepattern)
  seqio.TaskRegistry.add_provider(documents.name, documents)
  seqio.TaskRegistry.add_provider(cached.name, cached)
  targets = cached.output_features['targets']
  lengths = {'targets': sequence_length}
  whole = ordered_cache.CachedSource(cached, lengths)
  views = {
    denoiser: (whole, [float(denoiser == other) for other in ul2.DENOISERS])
    for denoiser in ul2.DENOISERS
  }
  views['ul2'] = whole, ul2.RATES
  subset = ordered_cache.TrainingSubset(cached, lengths)
  views['train_subset'] = subset, views['causal'][1]
  for view, (source, rates) in views.items():
    draw = functools.partial(
      ul2.ul2, rates=rates, mode_tokens=mode_tokens, seed=seed
    )
    seqio.TaskRegistry.add(
      f'{name}_{view}',
      source=source,
      preprocessors=[draw],
      output_features={'inputs': targets, 'targets': targets},
      shuffle_buffer_size=None,
      task_cls=ordered_tasks.OrderedTask,
    )
  held_out = [f'{name}_causal', f'{name}_ul2']
  progress = [*held_out, f'{name}_train_subset']
  for mixture, tasks in {'held_out': held_out, 'progress': progress}.items():
    seqio.MixtureRegistry.add(f'{name}_{mixture}', tasks, default_rate=1)
