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

"""The parts of a scoring job."""

import json

from etils import epath
import numbered_task
import pytest
import seqio

from salt_t5x.checkpoints import run_record
from salt_t5x.selection import score_job


def read(tmp_path, record):
  if record is not None:
    text = record if isinstance(record, str) else json.dumps(record)
    (tmp_path / 'data.json').write_text(text)
  return score_job.sequences_read(
    epath.Path(tmp_path / 'checkpoint_30'), 'notes', '1f'
  )


def data_of(fingerprints):
  return {'data_fingerprints': fingerprints, 'BATCH_SIZE': 8}


@pytest.mark.parametrize(
  'record, expected',
  [
    (data_of({'notes_ul2': '1f'}), 240),
    # At most, of a mixture.
    (data_of({'notes_ul2': '1f', 'other': None}), 240),
    (data_of({'notes_ul2': '2e'}), 0),
    # Read in seqio's order, or from raw text that may be the same.
    (data_of({'notes': '3a'}), None),
    (data_of({'notes_raw': None}), None),
    (data_of({'notes_ul2': '2e'}) | {'changed': True}, None),
    (None, None),
    ('{', None),
    ({}, None),
    (data_of(None), None),
  ],
)
def test_counts_what_the_teacher_read(tmp_path, record, expected):
  assert read(tmp_path, record) == expected


def test_another_order_of_the_cache_is_not_other_data(tmp_path, monkeypatch):
  monkeypatch.setattr(seqio.TaskRegistry, '_REGISTRY', {})
  numbered_task.sequences_task('notes')
  assert read(tmp_path, data_of({'notes_ul2': '2e'})) is None
  assert read(tmp_path, data_of({'others_ul2': '2e'})) == 0


def test_counts_batches_that_were_skipped(tmp_path):
  skipped = [[3, 2], [30, 1], [31, 4]]
  record = run_record.RunRecord('v', 3, skipped_batches=skipped)
  run_record.write(str(tmp_path), record)
  assert read(tmp_path, data_of({'notes_ul2': '1f'})) == 33 * 8


@pytest.mark.parametrize('name', ['selection.json', 'initial_checkpoint.json'])
def test_does_not_count_for_runs_that_read_in_another_order(tmp_path, name):
  (tmp_path / name).touch()
  assert read(tmp_path, data_of({'notes_ul2': '1f'})) is None
