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

"""Loss and gradient at a vocabulary of 262,144: chunked against dense.

Prints a table and writes one JSON: XLA's temporary memory, its outputs (the
float32 gradient of the embedding alone is 1 GiB), and the time of one call
beside dense's in the same round. Where EasyDeL can be imported, its chunked
distillation loss takes part with the same chunks (written for 0.3.0, which
wants an environment of its own, with torch and pillow, and this repository on
PYTHONPATH).

    python benchmarks/loss.py --output=loss.json
"""

import functools
import importlib.util
import statistics
import types

from absl import app, flags
import jax
import measure

from salt_t5x import losses
from salt_t5x.kernels import chunked_losses

_ROUNDS = flags.DEFINE_integer('rounds', 3, 'Rounds; the median counts.')
_CHUNK = flags.DEFINE_integer('chunk', 128, 'Positions in a chunk.')
_DTYPES = flags.DEFINE_list(
  'dtypes', ['bfloat16', 'float32'], 'Of the hidden states.'
)
_OUTPUT = flags.DEFINE_string('output', None, 'JSON file to write.')

_BATCH, _LENGTH, _WIDTH, _ROWS = 2, 1280, 1024, 262_144
_DISTILLATION = dict(distillation_weight=0.667, teacher_temperature=0.25)


def _arguments(dtype: str, has_teacher: bool):
  """Hidden states in `dtype`; the student's embedding as it trains, float32."""
  keys = jax.random.split(jax.random.key(0), 5)
  hidden = lambda key: (
    jax.random.normal(key, (_BATCH, _LENGTH, _WIDTH)) / _WIDTH**0.5
  ).astype(dtype)
  found = {
    'student_hidden': hidden(keys[0]),
    'student_embedding': jax.random.normal(keys[1], (_ROWS, _WIDTH)),
    'targets': jax.random.randint(keys[2], (_BATCH, _LENGTH), 0, _ROWS),
  }
  if has_teacher:
    found['teacher_hidden'] = hidden(keys[3])
    embedding = jax.random.normal(keys[4], (_ROWS, _WIDTH))
    found['teacher_embedding'] = embedding.astype(dtype)
  return found


def _easydel_loss(
  student_hidden,
  student_embedding,
  targets,
  teacher_hidden,
  teacher_embedding,
  *,
  distillation_weight,
  teacher_temperature,
  chunk,
):
  """The same work: it tempers the student's distribution, too."""
  from easydel.trainers.distillation_trainer import _fn

  head = student_embedding.astype(student_hidden.dtype)
  loss, _ = _fn.chunked_distillation_loss(
    student_hidden,
    teacher_hidden,
    lambda x: x @ head.T,
    lambda x: x @ teacher_embedding.T,
    labels=targets,
    use_hard_labels=True,
    temperature=1 / teacher_temperature,
    alpha=distillation_weight,
    chunk_size=chunk,
  )
  return types.SimpleNamespace(loss=loss)


# {name: module}; EasyDeL only distils.
_LOSSES = {'dense': losses, 'chunked': chunked_losses}
if importlib.util.find_spec('easydel'):
  _LOSSES['easydel'] = types.SimpleNamespace(distillation_loss=_easydel_loss)


def _program(module, has_teacher: bool, arguments):
  name = 'distillation_loss' if has_teacher else 'next_token_loss'
  options = _DISTILLATION if has_teacher else {}
  if module is not losses:
    options = options | {'chunk': _CHUNK.value}
  loss = functools.partial(getattr(module, name), **options)

  def run(student_hidden, student_embedding, others):
    return jax.value_and_grad(
      lambda h, e: loss(student_hidden=h, student_embedding=e, **others).loss,
      (0, 1),
    )(student_hidden, student_embedding)

  others = dict(arguments)
  first = others.pop('student_hidden'), others.pop('student_embedding')
  program = jax.jit(run).lower(*first, others).compile()
  return program, lambda: program(*first, others)


def _measure(dtype: str, has_teacher: bool) -> dict[str, float]:
  arguments = _arguments(dtype, has_teacher)
  programs = {
    name: _program(module, has_teacher, arguments)
    for name, module in _LOSSES.items()
    if has_teacher or name != 'easydel'
  }
  seconds = measure.seconds_in_turn(
    {name: call for name, (_, call) in programs.items()}, _ROUNDS.value
  )
  row = {}
  for name, (program, _) in programs.items():
    memory = program.memory_analysis()
    row[f'{name}_temporary_bytes'] = memory.temp_size_in_bytes
    row[f'{name}_output_bytes'] = memory.output_size_in_bytes
    row[f'{name}_seconds'] = statistics.median(seconds[name])
  for name in set(seconds) - {'chunked'}:
    row[f'ratio_to_{name}'] = measure.ratio(seconds['chunked'], seconds[name])
  return row


def main(argv):
  del argv
  rows = {
    f'{"KD" if has_teacher else "next token"}, {dtype}': _measure(
      dtype, has_teacher
    )
    for dtype in _DTYPES.value
    for has_teacher in (False, True)
  }
  print(
    '| loss, dtype | of | temporaries, GiB | outputs, GiB | s '
    '| in chunks / this |\n|---|---|---|---|---|---|'
  )
  for name, row in rows.items():
    for of in _LOSSES:
      if f'{of}_seconds' in row:
        gib = [
          f'{row[f"{of}_{kind}_bytes"] / 2**30:.2f}'
          for kind in ('temporary', 'output')
        ]
        print(
          f'| {name} | {of} | {gib[0]} | {gib[1]} | {row[f"{of}_seconds"]:.1f} '
          f'| {row.get(f"ratio_to_{of}", 1):.2f} |'
        )
  measure.write(
    _OUTPUT.value,
    {
      'shape': [_BATCH, _LENGTH, _WIDTH, _ROWS],
      'chunk': _CHUNK.value,
      'rounds': _ROUNDS.value,
      'losses': rows,
    },
  )


if __name__ == '__main__':
  app.run(main)
