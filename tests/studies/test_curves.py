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

"""Scalars out of TensorBoard files."""

import os

from clu import metric_writers
import pytest

from salt_t5x.studies import curves


def test_read_scalars(tmp_path):
  writer = metric_writers.create_default_writer(
    str(tmp_path), asynchronous=False
  )
  for step in (2, 1, 3):
    writer.write_scalars(step, {'a': step / 2, 'salt/b': -step})
  writer.close()
  assert curves.read_scalars(str(tmp_path)) == {
    'a': [(1, 0.5), (2, 1.0), (3, 1.5)],
    'salt/b': [(1, -1.0), (2, -2.0), (3, -3.0)],
  }


def test_read_scalars_keeps_the_later_run(tmp_path):
  for value in (1.0, 2.0):
    writer = metric_writers.create_default_writer(
      str(tmp_path), asynchronous=False
    )
    writer.write_scalars(7, {'loss': value})
    writer.close()
    for name in os.listdir(tmp_path):  # Two files within one second.
      if 'kept' not in name:
        os.rename(
          tmp_path / name, tmp_path / f'events.out.tfevents.{value}.kept'
        )
  assert curves.read_scalars(str(tmp_path)) == {'loss': [(7, 2.0)]}


def test_reads_files_up_to_where_they_break_off(tmp_path):
  assert curves.read_scalars(str(tmp_path / 'none')) == {}
  writer = metric_writers.SummaryWriter(str(tmp_path))
  for step in (1, 2):
    writer.write_scalars(step, {'a': step})
    writer.flush()
  writer.close()
  [path] = tmp_path.iterdir()
  path.write_bytes(path.read_bytes()[:-5])
  assert curves.read_scalars(str(tmp_path)) == {'a': [(1, 1.0)]}


@pytest.mark.parametrize(
  'values, expected',
  [
    ([5, 3, 2], 2),
    ([5, 3, 4, 2], 3.5),  # Passing once is not enough.
    ([5, 4, 2], 2.5),
    ([5, 4], None),
    ([3], 1),
  ],
)
def test_first_step_below(values, expected):
  assert curves.first_step_below(list(enumerate(values, 1)), 3) == expected
