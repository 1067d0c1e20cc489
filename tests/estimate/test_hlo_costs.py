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

# HLO has one instruction a line.
# ruff: noqa: E501

"""Costs read off HLO texts whose costs are known."""

import pytest

from salt_t5x.estimate import hlo_costs

# A loop of five passes over a product [64, 32] x [32, 16] in a fusion, and an
# all-gather of its result.
LOOP = """
HloModule jit_f, is_scheduled=true

%fused (p0: bf16[64,32], p1: bf16[32,16]) -> f32[64,16] {
  %p0 = bf16[64,32]{1,0} parameter(0)
  %p1 = bf16[32,16]{1,0} parameter(1)
  ROOT %product = f32[64,16]{1,0} convolution(%p0, %p1), dim_labels=bf_io->bf, backend_config={"estimated_cycles":"7"}
}

%body (state: (s32[], f32[64,16])) -> (s32[], f32[64,16]) {
  %state = (s32[]{:T(128)}, f32[64,16]{1,0}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%state), index=0
  %a = bf16[64,32]{1,0} constant({...})
  %b = bf16[32,16]{1,0} constant({...})
  %fusion.1 = f32[64,16]{1,0:T(8,128)} fusion(%a, %b), kind=kOutput, calls=%fused, metadata={op_name="jit(f)/while/body/dot_general"}, backend_config={"estimated_cycles":"100"}
  %all-gather-start.1 = (f32[64,16]{1,0}, f32[128,16]{1,0}) all-gather-start(%fusion.1), channel_id=3, dimensions={0}
  %all-gather-done.1 = f32[128,16]{1,0} all-gather-done(%all-gather-start.1)
  ROOT %tuple.1 = (s32[]{:T(128)}, f32[64,16]{1,0}) tuple(%i, %fusion.1)
}

%condition (state: (s32[], f32[64,16])) -> pred[] {
  %state.1 = (s32[]{:T(128)}, f32[64,16]{1,0}) parameter(0)
  %limit = s32[]{:T(128)} constant(5)
  %i.1 = s32[]{:T(128)} get-tuple-element(%state.1), index=0
  ROOT %lt = pred[]{:T(512)} compare(%i.1, %limit), direction=LT
}

ENTRY %main (x: f32[64,16]) -> f32[64,16] {
  %x = f32[64,16]{1,0} parameter(0)
  %zero = s32[]{:T(128)} constant(0)
  %first = (s32[]{:T(128)}, f32[64,16]{1,0}) tuple(%zero, %x)
  %while.1 = (s32[]{:T(128)}, f32[64,16]{1,0}) while(%first), condition=%condition, body=%body
  %copy.1 = f32[64,16]{1,0} copy(%x), backend_config={"estimated_cycles":"11"}
  ROOT %out = f32[64,16]{1,0} get-tuple-element(%while.1), index=1
}
"""


def test_a_loop_counts_as_often_as_it_runs():
  costs = hlo_costs.read(LOOP)
  assert costs.matrix_flops == 5 * 2 * 64 * 32 * 16
  # What is inside of a fusion is part of the fusion's cycles.
  assert costs.cycles == 5 * 100 + 11
  # The larger side, [128, 16].
  assert set(costs.communicated_bytes) == {'all-gather'}
  assert costs.communicated_bytes['all-gather'] == 5 * 4 * 128 * 16


def product(shape, operands, attributes):
  left, right = operands
  return f"""
ENTRY %main () -> f32[] {{
  %a = {left} constant({{...}})
  %b = {right} constant({{...}})
  ROOT %product = {shape} convolution(%a, %b), {attributes}
}}
"""


@pytest.mark.parametrize(
  'shape, operands, attributes, flops',
  [
    # A batch of 8 products that XLA:TPU writes as a window over the batch.
    (
      'bf16[8,1280,256]{1,2,0}',
      ('bf16[8,1280,1024]{2,1,0}', 'bf16[8,256,1024]{2,1,0}'),
      'window={size=8 stride=7 pad=0_0 lhs_dilate=8}, dim_labels=0bf_0oi->0bf',
      2 * 8 * 1280 * 256 * 1024,
    ),
    # Contraction over the window, too: [8, 64, 16] x [8, 32, 16] over 8 and 16.
    (
      'f32[1,64,32]{2,1,0}',
      ('bf16[8,64,16]{2,1,0}', 'bf16[8,32,16]{2,1,0}'),
      'window={size=8}, dim_labels=0bf_0oi->0bf',
      2 * 8 * 64 * 32 * 16,
    ),
    # A window that is mostly over padding: one valid tap for each output.
    (
      'bf16[8,64,32]{2,1,0}',
      ('bf16[1,64,16]{2,1,0}', 'bf16[8,16,32]{2,1,0}'),
      'window={size=8 pad=7_7 rhs_reversal=1}, dim_labels=0bf_0io->0bf',
      2 * 8 * 64 * 32 * 16,
    ),
  ],
)
def test_products_written_as_convolutions(shape, operands, attributes, flops):
  text = product(shape, operands, attributes)
  assert hlo_costs.read(text).matrix_flops == flops


def test_a_dot():
  text = """
ENTRY %main () -> f32[] {
  %a = bf16[4,64,16] constant({...})
  %b = bf16[4,16,32] constant({...})
  ROOT %dot = f32[4,64,32] dot(%a, %b), lhs_batch_dims={0}, lhs_contracting_dims={2}, rhs_batch_dims={0}, rhs_contracting_dims={1}
}
"""
  assert hlo_costs.read(text).matrix_flops == 2 * 4 * 64 * 32 * 16


def test_a_loop_of_unknown_length_is_an_error():
  with pytest.raises(ValueError, match='constant number of passes'):
    hlo_costs.read(LOOP.replace('constant(5)', 'parameter(1)'))


def test_no_module_is_an_error():
  with pytest.raises(ValueError, match='No ENTRY'):
    hlo_costs.read('nothing')
