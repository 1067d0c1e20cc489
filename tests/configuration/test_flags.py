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

"""Bindings that gin cannot read are named, with a remedy, in every command."""

import sys

import pytest

from salt_t5x import command
from salt_t5x.configuration import flags


@pytest.mark.parametrize(
  'flag, remedy',
  [
    ('MODEL_DIR=/x', """write --gin.MODEL_DIR="'/x'"."""),
    ('MODEL_DIR=~/runs/a', """write --gin.MODEL_DIR="'~/runs/a'"."""),
    ('MODEL_DIR=gs://b/c', """write --gin.MODEL_DIR="'gs://b/c'"."""),
    ('EVAL_SPLIT=test', """write --gin.EVAL_SPLIT="'test'"."""),
    ('SAVE_DATASET=true', 'Write --gin.SAVE_DATASET=True.'),
    ('TEACHER_STEP=none', 'Write --gin.TEACHER_STEP=None.'),
    ('TRAIN_STEPS=', 'Write --gin.TRAIN_STEPS=VALUE'),
    ('TRAIN_STEPS', 'Write --gin.TRAIN_STEPS=VALUE'),
    ("TASK_FEATURE_LENGTHS={'targets': 128", 'Close its brackets and quotes'),
    ("MODEL_DIR='/x", 'Close its brackets and quotes'),
    ('PREFIXES=(1, 2))', 'Close its brackets and quotes'),
    ('SUITE=[lambada]', 'put text inside it in quotes'),
    ('MODEL DIR=3', 'this is no name'),
    ('3x=3', 'this is no name'),
  ],
)
def test_names_what_gin_cannot_read(flag, remedy):
  with pytest.raises(ValueError) as e:
    flags.check([f'--gin.{flag}'])
  assert str(e.value).startswith(f'--gin.{flag.partition("=")[0]}')
  assert remedy in str(e.value)


@pytest.mark.parametrize(
  'text, remedy',
  [
    ('MODEL_DIR=/x', """write --gin_bindings=MODEL_DIR="'/x'"."""),
    ('TRAIN_STEPS', 'Write --gin_bindings=TRAIN_STEPS=VALUE'),
    ('MODEL DIR=3', 'gin cannot read this'),
  ],
)
def test_names_bindings_that_gin_cannot_read(text, remedy):
  for argv in [f'--gin_bindings={text}'], ['--gin_bindings', text]:
    with pytest.raises(ValueError, match='^--gin_bindings=MODEL|TRAIN') as e:
      flags.check(argv)
    assert remedy in str(e.value)


@pytest.mark.parametrize(
  'text',
  ["include 'x.gin'", 'import optax', 'A = 1\nB = %A', 'a.B:\n  c = 1\n'],
)
def test_bindings_may_hold_what_files_may(text):
  flags.check([f'--gin_bindings={text}'])
  flags.check(['--gin_bindings', text])
  with pytest.raises(ValueError):
    flags.check([f'--gin.{text}'])


@pytest.mark.parametrize(
  'flag',
  [
    "MODEL_DIR='/x=y#z'",
    'PEAK_LEARNING_RATE=1e-3',
    'KD_STEPS=%FIRST_STAGE',
    'trainer.SaltTrainer.schedule=@schedules.linear_decay()',
    'size_1p5b/network.TransformerConfig.num_layers = 3',
    "SUPERVISED_SPLIT={'a': 'test', 'b': %EVAL_SPLIT}",
  ],
)
def test_accepts_what_gin_reads(flag):
  flags.check([f'--gin.{flag}', '--gin_file=a=b', '--task=/x'])
  name = flag.partition('=')[0].strip()
  assert [x for x, _ in flags.bindings([f'--gin.{flag}'])] == [name]


def test_commands_exit_with_the_remedy(monkeypatch):
  monkeypatch.setattr(sys, 'argv', ['score', '--gin.SCORES_DIR=/x'])
  with pytest.raises(SystemExit, match='SCORES_DIR=/x: gin cannot read') as e:
    command.run(lambda args: None, lambda argv: None)
  assert '\n' not in str(e.value)


def test_files_that_gin_cannot_read_are_named(monkeypatch, tmp_path):
  def parse(text):
    path = tmp_path / 'mine.gin'
    path.write_text(text)
    args = command.parse_gin_command('x', 'x', ['', f'--gin_file={path}'])
    with pytest.raises(SystemExit) as e:
      command.parse_gin(args)
    assert str(path) in str(e.value)
    return str(e.value)

  assert 'No module named' in parse(
    'from __gin__ import dynamic_registration\nimport no_such_module\n'
  )
  assert 'line 2' in parse('A = 3\nB = /x\n')
  assert 'no_such.gin' in parse("include 'no_such.gin'\n")
