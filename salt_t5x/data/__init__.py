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

"""Data: from shards of raw text to batches.

`pile_shards` reads documents (`bad_lines` counts those that it cannot read),
`sequences` cuts them into T tokens, `shuffle` (or `beam_shuffle`) writes a
`raw_cache` again in a random order, `cache_writer` does both in one, `order`
finds any position of it, and `ordered_cache` reads it. `ul2` corrupts the
sequences, and `feature_converters` makes batches of them. `text_tasks`,
`ordered_tasks` and `supervised_tasks` register all of it as seqio tasks.
`vocabularies` trains and checks vocabularies, `lengths` compares
TASK_FEATURE_LENGTHS with the data, `examples` and `render` show what a run
reads, and `hashing` draws from ids.
"""
