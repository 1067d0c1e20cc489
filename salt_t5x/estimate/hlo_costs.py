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
import math
import re

import numpy as np

_COMPUTATION = re.compile(r'^(ENTRY )?%?([\w.-]+) \(.*\{$')
_INSTRUCTION = re.compile(
  r'^\s+(?:ROOT )?%([\w.-]+) = (.*?) ([a-z][\w-]*)\(([^)]*)'
)
_NAME = re.compile(r'%([\w.-]+)')
_ARRAY = re.compile(r'\b([a-z]\w*)\[([\d,]*)\]')
_CALLED = re.compile(r'\b(?:calls|body|to_apply)=%([\w.-]+)')
_BRANCHES = re.compile(r'branch_computations=\{([^}]*)\}')
_COLLECTIVE = re.compile(
  '(all-(?:gather|reduce|to-all)|collective-permute|reduce-scatter)(-start)?'
)


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
  operands: list[str]
  text: str

  def find(self, pattern: str) -> re.Match | None:
    return re.search(pattern, self.text)


def read(text: str) -> Costs:
  """Adds up a program's costs.

  Args:
    text: `compiled.as_text()` of a program compiled for a TPU.

  Raises:
    ValueError: the text has no entry computation, or a loop's number of passes
      is unknown.
  """
  computations, entry = _parse(text)
  totals = collections.Counter()
  # {(kind, channel): {instruction: bytes}}: one collective may be written as
  # several instructions.
  moved = collections.defaultdict(collections.Counter)

  def visit(name: str, times: int, is_fused: bool) -> None:
    shapes = {i.name: i.shape for i in computations[name]}
    for i in computations[name]:
      if not is_fused and (found := i.find(r'"estimated_cycles":"(\d+)"')):
        totals['cycles'] += times * int(found[1])
      if i.opcode in ('convolution', 'dot'):
        totals['flops'] += times * _flops(i, shapes)
      if found := _COLLECTIVE.fullmatch(i.opcode):
        kind, is_start = found.groups()
        channel = i.find(r'channel_id=(\d+)')
        size = sum(_bytes(shapes.get(x, '')) for x in i.operands)
        # A start gives its operands back, and then its result.
        result = _bytes(i.shape) - (size if is_start else 0)
        key = kind, channel[1] if channel else i.name
        moved[key][i.name] += times * max(size, result)
      called = _CALLED.findall(i.text)
      if branches := _BRANCHES.search(i.text):
        called += _NAME.findall(branches[1])
      passes = 1
      if i.opcode == 'while':
        condition = i.find(r'condition=%([\w.-]+)')[1]
        passes = _passes(computations[condition])
      for callee in filter(computations.__contains__, called):
        visit(callee, times * passes, is_fused or i.opcode == 'fusion')

  visit(entry, 1, False)
  communicated = collections.Counter()
  for (kind, _), sizes in moved.items():
    communicated[kind] += max(sizes.values())
  return Costs(
    float(totals['flops']), float(totals['cycles']), dict(communicated)
  )


def _parse(text: str) -> tuple[dict[str, list[_Instruction]], str]:
  computations, entry, current = {}, None, None
  for line in text.splitlines():
    if header := _COMPUTATION.match(line):
      current = computations.setdefault(header[2], [])
      entry = header[2] if header[1] else entry
    elif line.startswith('}'):
      current = None
    elif current is not None and (found := _INSTRUCTION.match(line)):
      name, shape, opcode, operands = found.groups()
      operands = _NAME.findall(operands)
      current.append(_Instruction(name, shape, opcode, operands, line))
  if entry is None:
    raise ValueError('No ENTRY computation: is this the text of an HLO module?')
  return computations, entry


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


def _numbers(text: str) -> list[int]:
  return [int(n) for n in text.split(',') if n]


def _bytes(shape: str) -> float:
  total = 0.0
  for kind, dims in _ARRAY.findall(shape):
    # Names of types end with their bits, e.g. f32 and f8e4m3; pred has a byte.
    bits = re.search(r'\d+', kind)
    size = int(bits[0]) / 8 if bits else 1 if kind == 'pred' else 4
    total += size * math.prod(_numbers(dims))
  return total


def _flops(instruction: _Instruction, shapes: dict[str, str]) -> float:
  """FLOPs of a matrix product, which XLA:TPU writes as a convolution."""
  left, right, output = (
    _numbers(_ARRAY.search(shape)[2])
    for shape in (*map(shapes.get, instruction.operands[:2]), instruction.shape)
  )
  if instruction.opcode == 'dot':
    axes = instruction.find(r'lhs_contracting_dims=\{([\d,]*)\}')[1]
    return 2.0 * math.prod(output) * math.prod(left[a] for a in _numbers(axes))
  labels = instruction.find(r'dim_labels=(\w+)_(\w+)->(\w+)').groups()
  left, right, output = (
    dict(zip(names, dims, strict=True))
    for names, dims in zip(labels, (left, right, output), strict=True)
  )
  window = instruction.find(r'window=\{([^}]*)\}')
  window = dict(x.split('=') for x in (window[1].split() if window else []))
  flops = 2.0 * output['b'] * output['f'] * right['i']
  for axis in filter(str.isdigit, output):
    values = {k: v.split('x')[int(axis)] for k, v in window.items()}
    number = lambda key, values=values: int(values.get(key, 1))
    low = int(values.get('pad', '0_0').split('_')[0])
    place = np.add.outer(
      np.arange(output[axis]) * number('stride'),
      np.arange(right[axis]) * number('rhs_dilate') - low,
    )
    # Products with padding do not count.
    dilation = number('lhs_dilate')
    is_inside = (place >= 0) & (place <= (left[axis] - 1) * dilation)
    flops *= int(np.sum(is_inside & (place % dilation == 0)))
  return flops
