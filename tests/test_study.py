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

"""The flags of `salt_t5x.study`."""

import pytest

from salt_t5x import study
import tiny_runs


def test_all_names_every_study():
  files = tiny_runs.ROOT.glob('gin/studies/*.gin')
  assert sorted(study._ALL) == sorted(path.stem for path in files)


@pytest.mark.parametrize('seeds', ['', 'a', '-1', '../0', '0,0', '1,01', '1.5'])
def test_rejects_wrong_seeds(capsys, seeds):
  with pytest.raises(SystemExit):
    study.parse_flags(['study', f'--seeds={seeds}'])
  assert f'--seeds: {seeds!r}: give different' in capsys.readouterr().err


@pytest.mark.parametrize(
  'flag, message',
  [
    ('--study=none', 'none.gin'),
    ('--setting=none', 'settings/none.gin'),
    ('--gin=KD_STEPS=many', 'KD_STEPS=many'),
    ('--gin=KD_STEPS=None', 'KD_STEPS=None'),
    ('--gin=KD_STEPS = 1e3', '--gin=KD_STEPS=1000.0'),
    ("--gin=KD_STEPS='300'", "--gin=KD_STEPS='300'"),
    ('--study=main,main', 'two studies have one name'),
  ],
)
def test_rejects_wrong_flags_before_anything_runs(
  tmp_path, monkeypatch, flag, message
):
  monkeypatch.setattr(
    study.prepare, 'build', lambda *a, **k: pytest.fail('too late')
  )
  args = study.parse_flags(['study', f'--work_dir={tmp_path}', flag])
  with pytest.raises(SystemExit, match=message):
    study.main(args)
