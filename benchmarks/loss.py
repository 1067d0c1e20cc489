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

"""Loss and gradient at a vocabulary of 262,144: in chunks beside dense.

Prints a table and writes one JSON: XLA's temporary memory, its outputs (the
float32 gradient of the embedding alone is 1 GiB), and the time of one call
beside dense's in the same round.

    python benchmarks/loss.py --output=loss.json
"""

import functools
import statistics

from absl import app, flags
import jax
import measure

from salt_t5x import chunked_losses, losses

_ROUNDS = flags.DEFINE_integer('rounds', 3, 'Rounds; the median counts.')
_CHUNK = flags.DEFINE_integer('chunk', 128, 'Positions in a chunk.')
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


def _program(module, has_teacher: bool, arguments):
  name = 'distillation_loss' if has_teacher else 'next_token_loss'
  options = _DISTILLATION if has_teacher else {}
  if module is chunked_losses:
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
    for name, module in (('dense', losses), ('chunked', chunked_losses))
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
  row['time_ratio'] = measure.ratio(seconds['chunked'], seconds['dense'])
  return row


def main(argv):
  del argv
  rows = {
    f'{"KD" if has_teacher else "next token"}, {dtype}': _measure(
      dtype, has_teacher
    )
    for dtype in ('bfloat16', 'float32')
    for has_teacher in (False, True)
  }
  print(
    '| loss, dtype | dense, GiB | in chunks, GiB | outputs, GiB | dense, s '
    '| in chunks, s | ratio |\n|---|---|---|---|---|---|---|'
  )
  for name, row in rows.items():
    gib = lambda key, row=row: f'{row[key] / 2**30:.2f}'
    print(
      f'| {name} | {gib("dense_temporary_bytes")} '
      f'| {gib("chunked_temporary_bytes")} | {gib("chunked_output_bytes")} '
      f'| {row["dense_seconds"]:.1f} | {row["chunked_seconds"]:.1f} '
      f'| {row["time_ratio"]:.2f} |'
    )
  measure.write(
    _OUTPUT.value,
    {
      'shape': [_BATCH, _LENGTH, _WIDTH, _ROWS],
      'chunk': _CHUNK.value,
      'losses': rows,
    },
  )


if __name__ == '__main__':
  app.run(main)
