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

"""A study's folder, from what finished runs left."""

import dataclasses
import json
import pathlib

from clu import metric_writers
import pytest
import test_studies

from salt_t5x import files
from salt_t5x.studies import definition, jobs, processes, web_page
from salt_t5x.studies import results as results_lib

STUDY = dataclasses.replace(
  test_studies.STUDY,
  variants=test_studies.STUDY.variants
  | {
    'SALT_DS': {'recipe': 'salt_ds'},
    'shorter': {'recipe': 'salt', 'TRAIN_STEPS': '70%'},
  },
  report_at=('KD_STEPS', '100%'),
  costs=True,
  in_the_paper={'SALT': 'better'},
  passes_in_the_paper={'SALT': 0.7},
)
# The last log-perplexity of each; SALT_DS never passes BASELINE.
ENDS = {
  'SLM': 4.5, 'BASELINE': 4.0, 'RKD': 4.1, 'SALT': 3.8, 'SALT_DS': 4.2,
  'shorter': 3.9,
}  # fmt: skip


def write(folder, collection, values):
  """values: {step: {tag: value}}."""
  path = pathlib.Path(folder) / collection
  writer = metric_writers.SummaryWriter(str(path))
  for step, scalars in values.items():
    writer.write_scalars(step, scalars)
  writer.close()


@pytest.fixture
def finished(tmp_path):
  """(the plan of two seeds, whose jobs have left what they leave, output)."""
  setting = definition.Setting()
  [plan], made = jobs.plan(
    {'mine': STUDY}, ['0', '1'], setting, str(tmp_path / 'work')
  )
  of_job = {
    job.folder: (label, seed)
    for label, of_seeds in plan.trained.items()
    for seed, job in enumerate(of_seeds)
  }
  for folder, (label, seed) in of_job.items():
    last = {'SLM': 960, 'shorter': 560}.get(label, 800)
    write(
      folder,
      'training_eval/minipile_causal',
      {
        step: {
          'accuracy': step / last * 0.2,
          # Down to its end in a straight line.
          'log_perplexity': ENDS[label] + seed / 10 + (1 - step / last),
        }
        for step in range(80, last + 1, 80)
      },
    )
  for label, seconds in (('RKD', 0.3), ('BASELINE', 0.2), ('SLM', 0.1)):
    for job in plan.timed[label]:
      rates = {'timing/steps_per_second': 1 / seconds}
      write(job.folder, 'train', dict.fromkeys(range(5, 61, 5), rates))
  for job in made:
    if job.folder.split('/')[-1] == 'selection':
      folder = pathlib.Path(job.folder)
      folder.mkdir(parents=True)
      (folder / 'selection.json').touch()
      (folder / 'selection.md').write_text(
        f'# Selection\n\nFiction: 7, {job.folder}\n'
      )
      (folder / 'selection.png').write_bytes(b'\x89PNG')
  return plan, str(tmp_path / 'out')


def test_a_folder_and_a_page(finished, tmp_path):
  plan, output = finished
  text = results_lib.write(plan, output, students=4)
  folder = pathlib.Path(output) / 'mine'
  assert {p.name for p in folder.iterdir()} == {
    'curves.svg', 'results.json', 'results.md', 'selection.png'
  }  # fmt: skip
  assert (folder / 'results.md').read_text() == text
  found = json.loads((folder / 'results.json').read_text())['held_out']
  # SALT is at BASELINE's end, 4.0, after 80% of the steps.
  assert found['passes']['SALT'] == pytest.approx([0.8, 0.8])
  assert found['passes']['SALT_DS'] == [None, None]
  assert 'shorter' not in found['passes'] and 'SLM' not in found['passes']
  costs = found['costs']
  assert costs['ratio'] == pytest.approx([1.5, 1.5])
  assert costs['teacher_step'] == pytest.approx([0.5, 0.5])
  # 640 steps, 240 of which take half as long again.
  saved = 1 - (640 + 120) / 800
  assert costs['savings']['SALT']['alone'] == pytest.approx([saved] * 2)
  teacher = 960 * 0.5 / 800
  assert costs['savings']['SALT']['shared'] == pytest.approx(
    [saved - teacher / 4] * 2
  )
  assert set(costs['savings']) == {'SALT', 'SALT_DS', 'RKD'}
  assert '| SALT_DS | not reached |' in text
  assert '| SALT | 5 ± 0% | -55 ± 0% | -10 ± 0% |' in text
  assert '| SALT | 0.200 ± 0.000 below | 80 ± 0% | better | 70% |' in text
  assert '| shorter | 560 |' in text and '| SLM | 960 |' in text
  assert '### What SALT_DS selected, with the first seed' in text
  assert 'Fiction: 7, …/selection' in text
  page = web_page.page('x', [(text, str(folder))])
  assert page.count('data:image/') == 2


def test_shortens_the_paths_of_the_theory(finished, monkeypatch, tmp_path):
  plan, output = finished
  folder = tmp_path / 'a "wörk"' / 'numbers'
  folder.mkdir(parents=True)
  (folder / 'theory.png').touch()
  model = str(folder.parent / 'teacher/checkpoint_1')
  files.write_json(str(folder / 'theory.json'), {'models': {'teacher': model}})
  job = processes.Job('numbers', str(folder), [], {})
  plan = dataclasses.replace(plan, measured={'theory': [job]})
  monkeypatch.setattr(results_lib.theory_report, 'markdown_over_seeds', str)
  text = results_lib.write(plan, output, students=4)
  expected = [{'models': {'teacher': '…/teacher/checkpoint_1'}}]
  assert str(expected) in text
  found = files.read_json(f'{output}/mine/results.json')
  assert found['theory'] == expected
  (folder / 'theory.json').write_text('{')
  with pytest.raises(ValueError, match='numbers/theory.json is damaged: .*Del'):
    results_lib.write(plan, output, students=4)


def test_the_configuration_is_on_the_page():
  info = {'domains': {}}
  setting = definition.Setting(['BATCH_SIZE=8'])
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(results_lib.prepare, 'table', lambda _: 'a | b\nc')
    text = results_lib.configuration(setting, info, ['0', '1'], 7)
  for part in (
    'TEACHER_STEPS = 960', 'DISTILLATION_WEIGHT = 0.667', 'KD_STEPS = 240',
    'TEACHER_TEMPERATURE = 1.0', '`BATCH_SIZE=8`', 'BATCH_SIZE = 8',
    '7 jobs', 'at most 320 held-out sequences', '### Data\n\na | b\nc\n',
  ):  # fmt: skip
    assert part in text
