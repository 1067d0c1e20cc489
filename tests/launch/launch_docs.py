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

"""Reads docs/launch.md: its example commands, and the sequence it documents."""

import pathlib
import re
import textwrap

_TEXT = (pathlib.Path(__file__).parents[2] / 'docs' / 'launch.md').read_text()
# Commands that are not the launchers'.
_OTHERS = ('python -m pip ', 'pip install ', 'for I in ')


def examples(program: str) -> list[str]:
  """Returns the example commands of one launcher, as single lines."""
  blocks = re.findall(r'(?:^(?: {4,}.*|)\n)+', _TEXT, re.M)
  # A shell joins lines that end with a backslash.
  commands = [
    textwrap.dedent(block).strip().replace('\\\n', '')
    for block in blocks
    if block.strip()
  ]
  programs = ('python -m salt_t5x.launch.gce', 'xmanager launch')
  for command in commands:
    assert command.startswith((*programs, *_OTHERS)), command
  found = [command for command in commands if command.startswith(program)]
  assert found
  return found


def sequence() -> list[str]:
  """Returns the documented gcloud commands of the first example."""
  (block,) = re.findall(r'^```sequence\n(.*?)^```$', _TEXT, re.M | re.S)
  return block.splitlines()
