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

"""Scoring with a 256,000-token vocabulary against the bare forward pass.

Prints a table and writes one JSON: tokens per second, the ratio of the rates in
one round, and XLA's temporary memory relative to a float32 [B, T, V] array.

The bare forward pass is the least cost of a teacher's logits: the same model in
the same chunks (without chunks, the logits alone are that array) writes every
logit to memory and reads one a position. It takes no maximum and no sum: on a
CPU, XLA fuses them into the product, which is then slower.

    python benchmarks/scoring.py --output=scoring.json
"""

import functools
import statistics

from absl import app, flags
import jax
import jax.numpy as jnp
import measure
import seqio

from salt_t5x import files, losses, models, network
from salt_t5x.kernels import token_statistics
from salt_t5x.selection import scoring

_ROUNDS = flags.DEFINE_integer('rounds', 9, 'Rounds; the median counts.')
_BATCH = flags.DEFINE_integer('batch', 1, 'B, sequences in a batch.')
_CHUNK = flags.DEFINE_integer('chunk', 128, 'Tokens in a chunk.')
_OUTPUT = flags.DEFINE_string('output', None, 'JSON file to write.')

_LENGTH = 1280
_VOCAB_SIZE = 256_000
_TOP_K = 10

_TEACHERS = {
  '4 layers, D = 512': dict(
    num_layers=4, emb_dim=512, mlp_dim=2048, num_heads=4, head_dim=128
  ),
  # gin/sizes/
  "the paper's 0.5B": dict(
    num_layers=32, emb_dim=768, mlp_dim=3072, num_heads=6, head_dim=128
  ),
  "the paper's 1.5B": dict(
    num_layers=44, emb_dim=1024, mlp_dim=8192, num_heads=4, head_dim=256
  ),
}


def _model(size: dict[str, int]) -> models.SaltDecoderOnlyModel:
  config = network.TransformerConfig(
    vocab_size=_VOCAB_SIZE,
    num_kv_heads=size['num_heads'],
    dtype='float32',
    **size,
  )
  return models.SaltDecoderOnlyModel(
    module=network.Transformer(config),
    vocabulary=seqio.PassThroughVocabulary(_VOCAB_SIZE),
    optimizer_def=None,
  )


def _bare(model, params, batch):
  hidden, embedding = models.hidden_and_embedding(model, params, batch)

  def at_position(hidden_and_targets):
    hidden, targets = hidden_and_targets
    logits = losses.logits(hidden[None], embedding)[0]
    logits = jax.lax.optimization_barrier(logits)
    return jnp.take_along_axis(logits, targets[:, None], axis=-1)

  by_position = (hidden, batch['decoder_target_tokens'])
  by_position = jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), by_position)
  positions = _CHUNK.value // _BATCH.value
  return jax.lax.map(at_position, by_position, batch_size=positions)


def _score(model, params, batch):
  targets = batch['decoder_target_tokens']
  per_token = token_statistics.token_statistics(
    *models.hidden_and_embedding(model, params, batch),
    targets,
    vocab_size=_VOCAB_SIZE,
    top_k=_TOP_K,
    chunk=_CHUNK.value,
  )
  return scoring.scores(*per_token, jnp.ones(targets.shape))


def _measure(model) -> dict[str, float]:
  """Runs both programs in turn, several times over."""
  shape = (_BATCH.value, _LENGTH)
  targets = jax.random.randint(jax.random.key(0), shape, 3, _VOCAB_SIZE)
  batch = {
    'decoder_input_tokens': jnp.pad(targets[:, :-1], ((0, 0), (1, 0))),
    'decoder_target_tokens': targets,
  }
  params = jax.jit(model.module.init)(jax.random.key(1), *batch.values())[
    'params'
  ]
  programs = {
    name: jax.jit(functools.partial(run, model)).lower(params, batch).compile()
    for name, run in [('bare', _bare), ('score', _score)]
  }
  seconds = measure.seconds_in_turn(
    {
      name: functools.partial(program, params, batch)
      for name, program in programs.items()
    },
    _ROUNDS.value,
  )
  temporary = {
    name: program.memory_analysis().temp_size_in_bytes
    for name, program in programs.items()
  }
  tokens = targets.size
  return {
    'parameters': sum(x.size for x in jax.tree.leaves(params)),
    'bare_tokens_per_second': tokens / statistics.median(seconds['bare']),
    'score_tokens_per_second': tokens / statistics.median(seconds['score']),
    'rate_ratio': measure.ratio(seconds['bare'], seconds['score']),
    'bare_temporary_bytes': temporary['bare'],
    'score_temporary_bytes': temporary['score'],
    'all_logits_bytes': 4 * tokens * _VOCAB_SIZE,
  }


def main(argv):
  del argv
  rows = {name: _measure(_model(size)) for name, size in _TEACHERS.items()}
  header = (
    'teacher',
    'bare, tokens/s',
    'scoring, tokens/s',
    'ratio',
    'temporary memory',
    'of [B, T, V]',
  )
  table = [
    (
      name,
      f'{row["bare_tokens_per_second"]:.0f}',
      f'{row["score_tokens_per_second"]:.0f}',
      f'{row["rate_ratio"]:.1%}',
      f'{row["score_temporary_bytes"] / 1e6:.0f} MB',
      f'{row["score_temporary_bytes"] / row["all_logits_bytes"]:.0%}',
    )
    for name, row in rows.items()
  ]
  print(files.markdown_table(header, table))
  measure.write(
    _OUTPUT.value,
    {
      'batch': _BATCH.value,
      'length': _LENGTH,
      'vocab_size': _VOCAB_SIZE,
      'top_k': _TOP_K,
      'chunk': _CHUNK.value,
      'teachers': rows,
    },
  )


if __name__ == '__main__':
  app.run(main)
