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

"""Fast versions of what `losses` and `network` define, for sharded arrays.

`chunked_losses` computes the losses and their gradients without a [B, T, V]
array: it scans chunks of positions, `loss_passes` makes three passes over V for
a chunk, and `loss_tiles` has their formulas. `attention` keeps its normaliser
instead of its scores, `token_statistics` finds each token's loss and rank, and
`sharding` maps logical axes to mesh axes.
"""
