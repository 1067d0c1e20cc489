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

"""Sequence-level distillation (eq. 14): `python -m salt_t5x.sample`.

Samples sequences from the teacher and writes them as a cache. Next-token
prediction on them estimates eq. (14): the loss is the mean of -log P_θ(x̃) over
x̃ drawn from P_ζ. With prompts, each sequence begins with real text, where the
loss is that of eq. (1), and the teacher writes the rest.

`salt_t5x.tasks.samples` defines tasks over the cache, to train on with
`runs/baseline.gin`. Rerunning a job samples only the missing batches.
"""

from collections.abc import Mapping
import os

import jax
from jax.experimental import multihost_utils
import numpy as np
import seqio

from salt_t5x import command as command_lib
from salt_t5x import files
from salt_t5x import teacher as teacher_lib
from salt_t5x.checkpoints import find
from salt_t5x.data import lengths as lengths_lib
from salt_t5x.data import ordered_cache, vocabularies
from salt_t5x.inference import batches as batches_lib
from salt_t5x.inference import language_model
from salt_t5x.inference import sampler as sampler_lib
from t5x import partitioning


def sample(
  teacher: teacher_lib.Teacher,
  partitioner: partitioning.BasePartitioner,
  output_dir: str,
  task_feature_lengths: Mapping[str, int],
  batch_size: int,
  examples: int,
  held_out_examples: int = 256,
  prompt_task: str | None = None,
  prompt_length: int = 0,
  seed: int = 0,
) -> str:
  """Samples sequences and caches them.

  Args:
    teacher: the model that is sampled from.
    partitioner: shards its parameters and the batch.
    output_dir: receives `cache`, `vocabulary.model` and `info.json`.
    task_feature_lengths: {'targets': T}.
    batch_size: sequences that are sampled together.
    examples: size of the training split; n_KD · B to distil for n_KD steps.
    held_out_examples: size of the validation split.
    prompt_task: a task over a cache of sequences that are continued; None
      samples sequences from their first token on.
    prompt_length: number of tokens that are kept of each.
    seed: of the samples.

  Returns:
    A message that names the next step.

  Raises:
    ValueError: an argument does not fit, or the folder holds other samples.
  """
  length = lengths_lib.sequence_length(task_feature_lengths)
  counts = {'train': examples, 'validation': held_out_examples}
  for name, count in counts.items():
    parameter = f'sample.sample, {name} split (EXAMPLES, HELD_OUT_EXAMPLES)'
    command_lib.check_count(parameter, count)
  prompts = f'sample.sample.prompt_length (PROMPT_LENGTH) = {prompt_length}'
  is_set = bool(prompt_length)
  if not 0 <= prompt_length < length or is_set != bool(prompt_task):
    raise ValueError(
      f'{prompts} and prompt_task (PROMPT_TASK) = {prompt_task!r}: set both, '
      f'with a length below T = {length}, or 0 and None.'
    )
  vocabulary = teacher.model.output_vocabulary
  if not isinstance(vocabulary, seqio.SentencePieceVocabulary):
    raise ValueError(f'VOCABULARY is {vocabulary}: SentencePiece is needed.')
  checkpoint = teacher.find()
  teacher.check_record(vocabulary)
  prompt_data = {}
  if prompt_task:
    source = ordered_cache.get_task(prompt_task, 'PROMPT_TASK').source
    prompt_data = {split: source.fingerprint(split) for split in counts}
  info = {
    'teacher': os.fspath(checkpoint),
    'teacher_identity': find.identity(checkpoint),
    'dtype': teacher.dtype,
    'sequence_length': length,
    'extra_ids': vocabulary.extra_ids,
    'examples': counts,
    'vocabulary': vocabularies.fingerprint(vocabulary),
    'prompt_task': prompt_task,
    'prompt_data': prompt_data,
    'prompt_length': prompt_length,
    'batch_size': batch_size,
    'seed': seed,
  }
  parameter = f'sample.sample.output_dir (OUTPUT_DIR) = {output_dir!r}'
  files.make_folder(output_dir, parameter)
  files.claim(
    os.path.join(output_dir, 'info.json'),
    info,
    what=parameter,
    remedy='Choose another folder.',
    write=jax.process_index() == 0,
  )
  batches = batches_lib.GlobalBatches(partitioner, batch_size)
  shapes = batches_lib.feature_shapes(batch_size, length)
  params, axes = teacher.load(checkpoint, shapes, partitioner)
  sampler = sampler_lib.Sampler(teacher.model, params, axes, batches, seed)

  def ids(number, count):
    return np.stack([np.full(count, number), np.arange(count)], axis=1)

  # The cross-entropy of a teacher's own samples shows whether it is trained.
  drawn = sampler.sample_batch(
    np.zeros((batch_size, length)),
    np.zeros(batch_size),
    ids(len(counts), batch_size),
  )
  likelihoods = language_model.LanguageModel(
    teacher.model, params, axes, partitioner, batch_size, length
  ).log_likelihoods([([], tokens) for tokens in drawn])
  teacher_lib.check_cross_entropy(
    -sum(x.value for x in likelihoods) / drawn.size,
    vocabulary.vocab_size,
    teacher.minimum_gain,
    checkpoint,
  )
  samples = {}
  total = sum(map(batches.count, counts.values()))
  with batches_lib.progress_bar(total, 'batch') as progress:
    for number, (split, count) in enumerate(counts.items()):
      tokens = np.zeros((count, length), np.int32)
      if prompt_task:
        found = ordered_cache.read_prefixes(
          prompt_task, split, prompt_length, 1, prompts, 'PROMPT_TASK'
        )
        tokens[:, :prompt_length] = np.resize(found, (count, prompt_length))
      samples[split] = sampler.sample(
        tokens,
        np.full(count, prompt_length),
        ids(number, count),
        os.path.join(output_dir, 'drawn', split),
        progress,
      )
  if jax.process_index() == 0:
    sampler_lib.write_cache(output_dir, samples, vocabulary)
  multihost_utils.sync_global_devices('sampled')
  return (
    f'{counts["train"]} and {counts["validation"]} sequences of {length} '
    f'tokens, drawn from {checkpoint}, are in {output_dir}.\n'
    f'Next: SALT_T5X_SAMPLES={output_dir}, import salt_t5x.tasks.samples in a '
    "gin file, and train with MIXTURE_OR_TASK_NAME = 'samples_causal'."
  )


if __name__ == '__main__':
  from salt_t5x import sample as module

  command_lib.start(module.sample)
