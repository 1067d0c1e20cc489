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

"""What an XLA:TPU program costs, read off the text of its optimised HLO.

`compiled.cost_analysis()` counts the body of a loop once, and its seconds mean
nothing for programs with loops. Here every instruction counts as often as it
runs.
"""

import collections
import dataclasses
import functools
import math
import re

_COMPUTATION = re.compile(r'^(ENTRY )?%?([\w.-]+) \(.*\{$')
_INSTRUCTION = re.compile(r'^\s+(?:ROOT )?%([\w.-]+) = (.*)$')
_OPCODE = re.compile(r' ([a-z][\w-]*)\(')
_ARRAY = re.compile(r'\b([a-z]\w*)\[([\d,]*)\]')
_CALLED = re.compile(r'\b(?:calls|body|to_apply)=%([\w.-]+)')
_BRANCHES = re.compile(r'branch_computations=\{([^}]*)\}')
_COLLECTIVES = (
  'all-gather',
  'all-reduce',
  'all-to-all',
  'collective-permute',
  'reduce-scatter',
)
# Bytes of an element where the name's digits, a number of bits, do not tell.
_BYTES = {'pred': 1}


@dataclasses.dataclass(frozen=True)
class Costs:
  """What one chip does in one call of a program.

  Attributes:
    matrix_flops: of matrix products; a multiplication and an addition are two.
    cycles: the compiler's estimates, memory traffic included. It gives none
      for communication, nor for gathers, scatters and copies.
    communicated_bytes: {kind of collective: bytes of the larger side}.
  """

  matrix_flops: float
  cycles: float
  communicated_bytes: dict[str, float]


@dataclasses.dataclass(frozen=True)
class _Instruction:
  name: str
  shape: str
  opcode: str
  text: str


def read(text: str) -> Costs:
  """Adds up a program's costs.

  Args:
    text: `compiled.as_text()` of a program compiled for a TPU.

  Raises:
    ValueError: the text has no entry computation, or a loop's number of passes
      cannot be told.
  """
  computations, entry = _parse(text)
  flops, cycles = 0.0, 0.0
  # By channel: one collective may be written as several instructions.
  moved = {}
  for name, (times, is_fused) in _runs(computations, entry).items():
    shapes = {i.name: i.shape for i in computations[name]}
    for instruction in computations[name]:
      found = re.search(r'"estimated_cycles":"(\d+)"', instruction.text)
      if found and not is_fused:
        cycles += times * int(found[1])
      if instruction.opcode in ('convolution', 'dot'):
        flops += times * _flops(instruction, shapes)
      kind = instruction.opcode.removesuffix('-start')
      if kind in _COLLECTIVES:
        channel = re.search(r'channel_id=(\d+)', instruction.text)
        key = (kind, channel[1] if channel else instruction.name)
        operands = [
          shapes.get(o, '')
          for o in re.findall(r'%([\w.-]+)', _arguments(instruction))
        ]
        size = sum(map(_bytes, operands))
        if kind == instruction.opcode:
          size = max(size, _bytes(instruction.shape))
        else:  # A start gives its operands back, and then what it makes.
          size = max(size, _bytes(instruction.shape) - size)
        moved[key] = max(moved.get(key, 0), times * size)
  communicated = collections.Counter()
  for (kind, _), size in moved.items():
    communicated[kind] += size
  return Costs(flops, cycles, dict(communicated))


def _parse(text: str) -> tuple[dict[str, list[_Instruction]], str]:
  computations, entry, current = {}, None, None
  for line in text.splitlines():
    if header := _COMPUTATION.match(line):
      current = computations.setdefault(header[2], [])
      entry = header[2] if header[1] else entry
    elif line.startswith('}'):
      current = None
    elif current is not None and (found := _INSTRUCTION.match(line)):
      rest = found[2]
      opcode = _OPCODE.search(' ' + rest)
      if opcode:
        current.append(
          _Instruction(found[1], rest[: opcode.start()], opcode[1], rest)
        )
  if entry is None:
    raise ValueError('No ENTRY computation: is this the text of an HLO module?')
  return computations, entry


def _runs(computations, entry) -> dict[str, tuple[float, bool]]:
  """{computation: (how often it runs, whether it is part of a fusion)}."""
  runs = {}

  def visit(name, times, is_fused):
    before, fused = runs.get(name, (0, is_fused))
    runs[name] = (before + times, fused and is_fused)
    for instruction in computations[name]:
      called = _CALLED.findall(instruction.text)
      if branches := _BRANCHES.search(instruction.text):
        called += re.findall(r'%([\w.-]+)', branches[1])
      passes = 1
      if instruction.opcode == 'while':
        condition = re.search(r'condition=%([\w.-]+)', instruction.text)[1]
        passes = _passes(computations[condition])
      inner = is_fused or instruction.opcode == 'fusion'
      for callee in called:
        if callee in computations:
          visit(callee, times * passes, inner)

  visit(entry, 1, False)
  return runs


def _passes(condition: list[_Instruction]) -> int:
  """A loop's passes: JAX counts from 0 to a constant."""
  constants = [
    int(n)
    for i in condition
    for n in re.findall(r's32\[\]\S* constant\((\d+)\)', i.text)
  ]
  if not constants:
    raise ValueError('A loop without a constant number of passes.')
  return max(constants)


def _arguments(instruction: _Instruction) -> str:
  text = instruction.text[instruction.text.index(instruction.opcode + '(') :]
  return text[: text.find(')')]


def _dims(shape: str) -> list[int]:
  return [int(n) for n in _ARRAY.search(shape)[2].split(',') if n]


def _bytes(shape: str) -> float:
  total = 0.0
  for kind, dims in _ARRAY.findall(shape):
    digits = re.search(r'\d+', kind)
    size = _BYTES.get(kind, int(digits[0]) / 8 if digits else 4)
    total += size * math.prod(int(n) for n in dims.split(',') if n)
  return total


def _flops(instruction: _Instruction, shapes: dict[str, str]) -> float:
  """Of a matrix product, which XLA:TPU writes as a convolution."""
  operands = re.findall(r'%([\w.-]+)', _arguments(instruction))
  left, right = (_dims(shapes[o]) for o in operands[:2])
  output = _dims(instruction.shape)
  if instruction.opcode == 'dot':
    contracted = re.search(
      r'lhs_contracting_dims=\{([\d,]*)\}', instruction.text
    )
    axes = [int(n) for n in contracted[1].split(',') if n]
    return 2.0 * math.prod(output) * math.prod(left[a] for a in axes)
  labels = re.search(r'dim_labels=(\w+)_(\w+)->(\w+)', instruction.text)
  of_left, of_right, of_output = labels.groups()
  size = lambda dims, names, name: dims[names.index(name)]
  flops = 2.0 * size(output, of_output, 'b') * size(output, of_output, 'f')
  flops *= size(right, of_right, 'i')
  spatial = [n for n in of_output if n.isdigit()]
  window = re.search(r'window=\{([^}]*)\}', instruction.text)
  window = dict(
    part.split('=') for part in (window[1].split() if window else [])
  )
  value = lambda key, i, default: (
    window[key].split('x')[int(i)] if key in window else default
  )
  for i in spatial:
    low, _ = value('pad', i, '0_0').split('_')
    flops *= _taps(
      size(left, of_left, i),
      size(output, of_output, i),
      size(right, of_right, i),
      stride=int(value('stride', i, 1)),
      low=int(low),
      of_left=int(value('lhs_dilate', i, 1)),
      of_window=int(value('rhs_dilate', i, 1)),
    )
  return flops


@functools.cache
def _taps(
  left: int,
  output: int,
  window: int,
  *,
  stride: int,
  low: int,
  of_left: int,
  of_window: int,
) -> int:
  """Products along one spatial axis that do not fall on padding."""
  count = 0
  for o in range(output):
    for w in range(window):
      place = o * stride + w * of_window - low
      count += 0 <= place < (left - 1) * of_left + 1 and place % of_left == 0
  return count
