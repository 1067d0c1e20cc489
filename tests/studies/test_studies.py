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

"""Studies: from gin files to jobs, tables and pictures."""

import ast
import dataclasses
import re

from clu import metric_writers
import matplotlib
import numpy as np
import pytest

from salt_t5x.checkpoints import find
from salt_t5x.evaluation import buckets
from salt_t5x.studies import costs, definition, evaluations, plans, report
from salt_t5x.studies import jobs as jobs_lib
import tiny_runs

GIN = tiny_runs.ROOT / 'gin'
STUDIES = sorted(p.stem for p in GIN.glob('studies/*.gin'))


def setting(*bindings, file=None):
  return definition.Setting(bindings, file)


def jobs_of(variants, *bindings, seed='0'):
  """({label: job}, all jobs by name)."""
  made = jobs_lib.JobsOfSeed('/w', seed, setting(*bindings))
  found = {v.label: made.of(v) for v in definition.expand(variants)}
  return found, {job.name: job for job in made.all}


# --- The package's studies ---------------------------------------------------


@pytest.mark.parametrize('name', STUDIES)
def test_every_study_makes_jobs(name):
  [(found, of_name)] = definition.read([name])
  assert found == name and of_name.title and 'Table' in of_name.about
  labels, jobs = jobs_of(of_name.variants)
  assert len(labels) >= 3
  folders = [job.folder for job in jobs.values()]
  assert len(set(folders)) == len(folders)
  for job in jobs.values():
    assert all(need in jobs.values() for need in job.needs)
    [file] = [f for f in job.command if f.startswith('--gin_file=')] or [None]
    if file:
      assert (GIN / file.split('/gin/')[1]).is_file()


@pytest.mark.parametrize('file', [None, 'gpu'])
def test_what_all_studies_report_is_measured_and_kept(file):
  planned, made = plans.make(
    dict(definition.read(STUDIES)), ['0', '1'], setting(file=file), '/w'
  )
  assert [plan.name for plan in planned] == STUDIES
  assert len({job.folder for job in made}) == len(made) > 70
  [main] = [plan for plan in planned if plan.name == 'main']
  for label in 'RKD', 'BASELINE', 'SLM':
    assert [job.alone for job in main.timing[label]] == [True, True]
  assert not any(job.alone for job in main.trained['SALT'])


def test_main_is_what_make_salt_runs():
  [(_, main)] = definition.read(['main'])
  labels, jobs = jobs_of(main.variants)
  assert list(labels) == [
    'SLM', 'BASELINE', 'RKD', 'SALT', 'SALT_DS', 'BASELINE_EZ'
  ]  # fmt: skip
  assert labels['SLM'] in labels['SALT'].needs
  assert {name.split(' ')[0] for name in jobs} == {
    'teacher', 'baseline', 'rkd', 'salt', 'salt_ds', 'scores', 'selection',
    'baseline_ez,on=selection_kind=easy_share=0.4',
    'selection,kind=easy,share=0.4',
  }  # fmt: skip


def test_studies_share_what_is_the_same_run():
  """n_KD = 30% is what SALT does anyway."""
  made = jobs_lib.JobsOfSeed('/w', '0', setting())
  found = {}
  for _, of_name in definition.read(['main', 'n_kd', 'transitions']):
    for variant in definition.expand(of_name.variants):
      found.setdefault(variant.label, set()).add(made.of(variant))
  assert all(len(jobs) == 1 for jobs in found.values())
  assert found['SALT'] == found['SALT, n_KD = 30%']
  assert found['SALT'] != found['SALT, n_KD = 20%']


# --- From variants to jobs ---------------------------------------------------


def test_a_grid_is_a_run_for_each_combination():
  labels, _ = jobs_of(
    {
      'BASELINE': {'recipe': 'baseline'},
      'RKD': {
        'recipe': 'rkd',
        'DISTILLATION_WEIGHT': [0.5, 1.0],
        'TEACHER_TEMPERATURE': [0.25, 2.0],
        'TRAIN_STEPS': '40%',
      },
    }
  )
  assert list(labels)[1:3] == [
    'RKD, ω = 0.5, ρ = 0.25',
    'RKD, ω = 0.5, ρ = 2.0',
  ]
  command = labels['RKD, ω = 1.0, ρ = 0.25'].command
  for flag in (
    '--gin.DISTILLATION_WEIGHT = 1.0',
    '--gin.TEACHER_TEMPERATURE = 0.25',
    '--gin.TRAIN_STEPS = 320',
  ):
    assert flag in command


def test_percentages_are_of_the_students_steps():
  variants = {
    'BASELINE': {'recipe': 'baseline'},
    'SALT': {
      'recipe': 'salt', 'KD_STEPS': '20%', 'teacher': {'TRAIN_STEPS': '300%'}
    },
  }  # fmt: skip
  labels, _ = jobs_of(variants, 'TRAIN_STEPS=50')
  [teacher] = labels['SALT'].needs
  assert '--gin.KD_STEPS = 10' in labels['SALT'].command
  assert '--gin.TRAIN_STEPS = 150' in teacher.command
  # What comes later wins.
  assert teacher.command.index('--gin.TRAIN_STEPS=50') < teacher.command.index(
    '--gin.TRAIN_STEPS = 150'
  )
  assert f"--gin.TEACHER_PATH='{teacher.folder}'" in labels['SALT'].command


def test_a_setting_is_for_all_runs():
  gpu = setting(file='gpu')
  made = jobs_lib.JobsOfSeed('/w', '0', gpu)
  [(_, main)] = definition.read(['main'])
  for variant in definition.expand(main.variants):
    made.of(variant)
  for job in made.all:
    if job.command[0] != 'salt_t5x.select':
      assert job.command[2] == '--gin_file=salt_t5x/gin/settings/gpu.gin'
  assert gpu.number('KD_STEPS') > setting().number('KD_STEPS') == 240
  assert gpu.number('TRAIN_STEPS', 'teacher') > gpu.number('TRAIN_STEPS')
  assert setting('FIRST_STAGE=7').number('KD_STEPS') == 7
  assert gpu.step('50%') == gpu.number('TRAIN_STEPS') / 2
  # Scores reach as far as a first stage needs.
  for x in gpu, setting():
    needed = (x.number('SCORING_STEP') + x.number('KD_STEPS')) * x.number(
      'BATCH_SIZE'
    )
    assert x.number('SCORED_EXAMPLES', 'scores') > needed
    assert x.number('SCORING_STEP') % x.number('CHECKPOINT_PERIOD') == 0


def test_another_teacher_is_another_run():
  variants = {
    'BASELINE': {'recipe': 'baseline'},
    'a': {'recipe': 'salt'},
    'b': {
      'recipe': 'salt',
      'models': {'TEACHER_SIZE': '@size_x/C()'},
    },
    'c': {'recipe': 'salt', 'teacher': {'TRAIN_STEPS': '300%'}},
  }
  labels, _ = jobs_of(variants)
  teachers = {labels[x].needs[0].folder for x in 'abc'}
  assert len(teachers) == 3 and len({labels[x].folder for x in 'abc'}) == 3
  # The student's run has the teacher's network, too.
  flag = '--gin.TEACHER_SIZE = @size_x/C()'
  assert flag in labels['b'].command and flag in labels['b'].needs[0].command


@pytest.mark.parametrize(
  'bindings, expected',
  [([], 240), (['KD_STEPS=200', 'TRAIN_STEPS = 9'], 200)],
)
def test_the_selection_is_for_the_first_stage(bindings, expected):
  _, jobs = jobs_of(
    {'BASELINE': {'recipe': 'baseline'}, 'DS': {'recipe': 'salt_ds'}}, *bindings
  )
  assert jobs['selection [0]'].command[-2:] == [
    f'--kd_steps={expected}',
    '--batch_size=4',
  ]


def test_a_variants_first_stage_has_a_selection_of_its_own():
  _, jobs = jobs_of(
    {
      'BASELINE': {'recipe': 'baseline'},
      'DS': {'recipe': 'salt_ds', 'KD_STEPS': ['20%', '30%']},
    }
  )
  selections = [j for name, j in jobs.items() if name.startswith('selection')]
  assert {j.command[-2] for j in selections} == {
    '--kd_steps=160', '--kd_steps=240'
  }  # fmt: skip


def test_what_is_made_in_another_way_is_another_job():
  """Scores and selections by another teacher, or for other batches."""
  variants = {
    'BASELINE': {'recipe': 'baseline'},
    'a': {'recipe': 'salt_ds'},
    'b': {'recipe': 'salt_ds', 'BATCH_SIZE': 8},
    'c': {'recipe': 'salt_ds', 'teacher': {'TRAIN_STEPS': '300%'}},
  }
  labels, _ = jobs_of(variants)
  selections = [labels[x].needs[1] for x in 'abc']
  assert len({job.folder for job in selections}) == 3
  assert '--batch_size=8' in selections[1].command
  scores = [job.needs[0] for job in selections]
  assert scores[0] is scores[1] and scores[0] is not scores[2]
  assert scores[2].needs[0] is labels['c'].needs[0]


def test_two_jobs_of_one_name_are_refused():
  made = jobs_lib.JobsOfSeed('/w', '0', setting())
  [(_, main)] = definition.read(['main'])
  trained = {v.label: made.of(v) for v in definition.expand(main.variants)}
  made.evaluation('x', trained, [300])
  with pytest.raises(definition.StudyError, match='jobs are called x'):
    made.evaluation('x', trained, [1000])


def test_scoring_gets_no_parameters_of_training():
  _, jobs = jobs_of(
    {'BASELINE': {'recipe': 'baseline'}, 'DS': {'recipe': 'salt_ds'}},
    'trainer.SaltTrainer.top_k=5',
    'TOP_K = 5',
  )
  command = jobs['scores [0]'].command
  assert command[-2:] == ['--gin.RANDOM_SEED=0', '--gin.TOP_K = 5']
  assert '--gin.trainer.SaltTrainer.top_k=5' in jobs['salt_ds [0]'].command


@pytest.mark.parametrize(
  'variants, message',
  [
    ({'BASELINE': {'recipe': 'nothing'}}, "recipe = 'nothing' is none of"),
    ({'BASELINE': {}}, 'recipe = None'),
    ({'SALT': {'recipe': 'salt'}}, "reference = 'BASELINE' is none of"),
    (
      {'BASELINE': {'recipe': 'salt', 'teacher': 'x'}},
      "teacher = 'x' is no dict",
    ),
    (
      {'BASELINE': {'recipe': 'rkd', 'A': [1, 1]}},
      'are not all different',
    ),
  ],
)
def test_studies_that_cannot_be(variants, message):
  with pytest.raises(definition.StudyError, match=re.escape(message)):
    definition.Study(title='t', about='a', variants=variants)


def test_buckets_need_a_teacher():
  with pytest.raises(definition.StudyError, match="no variant is 'SLM'"):
    definition.Study(
      title='t',
      about='a',
      variants={'BASELINE': {'recipe': 'baseline'}},
      buckets_at=('100%',),
    )


@pytest.mark.parametrize(
  'options, message',
  [
    ({'in_the_paper': {'SALT_DS': 'worse'}}, "['SALT_DS'] are none of"),
    ({'passes_in_the_paper': {'RKD': 0.7}}, "['RKD'] are none of"),
  ],
)
def test_options_are_of_variants(options, message):
  with pytest.raises(definition.StudyError, match=re.escape(message)):
    definition.Study(
      title='t',
      about='a',
      variants={'BASELINE': {'recipe': 'baseline'}},
      **options,
    )


@pytest.mark.parametrize(
  'bindings, message',
  [
    # Longer runs are fine.
    (['STUDENT_STEPS=3000'], None),
    (['KD_STEPS=200'], 'KD_STEPS is step 200, which is not evaluated'),
    (['KD_STEPS=320'], 'step 320, of which no checkpoint is kept'),
    (['TEACHER_STEPS=400'], 'SCORING_STEP = 480 is beyond the'),
    (['STUDENTS_STEPS=9'], 'no recipe has a macro STUDENTS_STEPS,'),
    (['RANDOM_SEED=3'], 'Give --seeds instead'),
    (['SEQUENCES=3', 'TOP_K=5', 'trainer.SaltTrainer.top_k=3'], None),
  ],
)
def test_what_cannot_be_reported_is_told_at_once(bindings, message):
  main = dict(definition.read(['main']))
  plan = lambda: plans.make(main, ['0'], setting(*bindings), '/w')
  if message is None:
    plan()
  else:
    with pytest.raises(definition.StudyError, match=re.escape(message)):
      plan()


def test_misspelt_macros_of_variants_are_refused():
  for more in {'N_KD': ['10%', '20%']}, {'teacher': {'STEPS': 3}}:
    with pytest.raises(definition.StudyError, match='no recipe has a macro'):
      jobs_of(
        {
          'BASELINE': {'recipe': 'baseline'},
          'SALT': {'recipe': 'salt', **more},
        }
      )


def test_only_a_jobs_own_gin_files_count(tmp_path):
  """Titles of studies, or recipes of other models, change no run."""
  included, mine = tmp_path / 'included.gin', tmp_path / 'mine.gin'
  mine.write_text(f"include '{included}'\n")
  variants = {'BASELINE': {'recipe': 'baseline'}}

  def options(text):
    included.write_text(text)
    made = jobs_lib.JobsOfSeed('/w', '0', setting(file=str(mine)))
    [variant] = definition.expand(variants)
    return made.of(variant).options

  assert options('BATCH_SIZE = 8') != options('BATCH_SIZE = 16')
  assert setting(file=str(mine)).number('BATCH_SIZE') == 16
  mine.write_text('')


def test_a_run_goes_on_from_its_last_evaluation(tmp_path):
  directory = tmp_path / 'training_eval/minipile_ul2'
  writer = metric_writers.SummaryWriter(str(directory))
  for step in 10, 20, 40:
    writer.write_scalars(step, {'log_perplexity': 1.0})
  writer.close()
  for step in 10, 20, 30, 40:
    (tmp_path / f'checkpoint_{step}').mkdir()
    (tmp_path / f'checkpoint_{step}' / '_CHECKPOINT_METADATA').touch()
  assert sorted(find.finished(str(tmp_path))) == [10, 20, 30, 40]
  mine = setting('EVAL_PERIOD=10', "EVAL_MIXTURE_OR_TASK_NAME='minipile_ul2'")
  jobs_lib.drop_unevaluated_checkpoints(str(tmp_path), mine, 'salt')
  assert sorted(find.finished(str(tmp_path))) == [10, 20]


def test_what_is_not_there_is_named(tmp_path):
  with pytest.raises(definition.StudyError, match='--setting=tinny'):
    definition.Setting(setting='tinny')
  with pytest.raises(definition.StudyError, match='no_such'):
    list(definition.read(['no_such']))
  mine = tmp_path / 'mine.gin'
  mine.write_text('studies.Study.title = "x"')
  with pytest.raises(definition.StudyError, match='mine.gin'):
    list(definition.read([str(mine)]))
  mine.write_text('studies.Study.title = (')
  with pytest.raises(definition.StudyError, match='mine.gin'):
    list(definition.read([str(mine)]))
  with pytest.raises(definition.StudyError, match='KD_STEPS=x'):
    setting('KD_STEPS=x').number('KD_STEPS')


# --- Tables ------------------------------------------------------------------


def curves(accuracy, log_perplexity, steps=(100, 200, 300)):
  return {
    'accuracy': list(zip(steps, accuracy, strict=True)),
    'log_perplexity': list(zip(steps, log_perplexity, strict=True)),
  }


SEED = {
  'SLM': curves([0.2, 0.3], [3.8, 3.6], (200, 400)),
  'BASELINE': curves([0.1, 0.2, 0.25], [5.0, 4.5, 4.0]),
  'RKD': curves([0.2, 0.2, 0.2], [4.6, 4.5, 4.4]),
  'SALT': curves([0.2, 0.25, 0.35], [4.6, 3.9, 3.7]),
}
OTHER = SEED | {
  'BASELINE': curves([0.1, 0.2, 0.25], [5.0, 4.5, 4.1]),
  'SALT': curves([0.3, 0.25, 0.25], [4.4, 4.2, 3.8]),
}
STUDY = definition.Study(
  title='A title',
  about='About.',
  variants={
    'SLM': {'recipe': 'teacher'},
    'BASELINE': {'recipe': 'baseline'},
    'RKD': {'recipe': 'rkd'},
    'SALT': {'recipe': 'salt'},
  },
)


def of(*seeds):
  return {label: [seed[label] for seed in seeds] for label in SEED}


def test_summary_is_table_1():
  results = report.summarize(STUDY, of(SEED), [100, 300])
  rows = {(r['variant'], r['step']): r for r in results['rows']}
  assert rows['SALT', 100]['accuracy'] == [20.0]
  assert rows['BASELINE', 300]['log_perplexity'] == [4.0]
  assert ('SLM', 400) in rows and ('SLM', 100) not in rows
  assert results['passes']['RKD'] == [None]
  # From 4.6 to 3.9: a straight line is at 4.0 after six sevenths.
  assert results['passes']['SALT'] == pytest.approx([(100 + 600 / 7) / 300])
  text = report.markdown(results, STUDY)
  assert '| SALT | 300 | 35.00 | 3.700 | 0.300 |' in text
  assert (
    '- SALT ends 0.300 below BASELINE and matches its final log-perplexity '
    'after 62% of the steps.'
  ) in text
  assert (
    '- RKD ends 0.400 above BASELINE and does not reach its final '
    'log-perplexity.'
  ) in text
  assert 'One seed' in text


def test_errors_are_of_means_and_differences_of_pairs():
  results = report.summarize(STUDY, of(SEED, OTHER), [300])
  best_of = dataclasses.replace(STUDY, best_of=True)
  text = report.markdown(results, best_of)
  # Means 3.7 and 3.8, both 0.3 below BASELINE's.
  assert '| SALT | 300 | 30.00 ± 5.00 | 3.750 ± 0.050 | 0.300 ± 0.000 |' in text
  assert 'over 2 seeds' in text
  assert 'SALT has the lowest final log-perplexity, by more than two' in text
  near = OTHER | {'RKD': curves([0, 0, 0], [4.6, 4.5, 3.0])}
  results = report.summarize(STUDY, of(SEED, near), [300])
  text = report.markdown(results, best_of)
  assert (
    'RKD has the lowest final log-perplexity; within two standard errors of '
    'it: BASELINE, SALT.'
  ) in text


def test_verdicts_say_what_helped_and_how_sure():
  one = report.verdict(report.summarize(STUDY, of(SEED), [300]))
  assert (
    'SALT helped: after 300 steps it ends 0.300 nats below BASELINE in '
    'held-out log-perplexity, with +10.00 percentage points of next-token '
    'accuracy, and matches the final log-perplexity of BASELINE after 62% of '
    'the steps. '
    'Higher: RKD (0.400 nats above, -5.00 points).'
  ) in one
  assert 'one seed' in one
  near = OTHER | {'SALT': curves([0.2, 0.3, 0.3], [4.6, 4.5, 4.2])}
  two = report.verdict(report.summarize(STUDY, of(SEED, near), [300]))
  assert 'Nothing ends better than BASELINE.' in two
  assert 'Higher: RKD (0.350 ± 0.050 nats above, -5.00 ± 0.00 points).' in two
  assert 'No clear difference: SALT (0.100 ± 0.200 nats below' in two
  assert 'over 2 seeds' in two


def test_the_paper_is_beside_it():
  claims = dataclasses.replace(
    STUDY,
    in_the_paper={'SALT': 'better', 'RKD': 'better'},
    passes_in_the_paper={'SALT': 0.7, 'RKD': 0.9},
  )
  lower = OTHER | {'RKD': curves([0.2, 0.2, 0.2], [4.6, 4.5, 4.3])}
  results = report.summarize(claims, of(SEED, lower), [300])
  text = report.markdown(results, claims)
  [salt] = [x for x in text.splitlines() if x.startswith('- SALT')]
  [rkd] = [x for x in text.splitlines() if x.startswith('- RKD')]
  assert 'In the paper, too, it ends better.' in salt
  assert 'after 70% of the steps.' in salt
  assert 'In the paper it ends better; here it does not.' in rkd
  assert 'after 90% of the steps; here it takes longer.' in rkd
  unsure = SEED | {'SALT': curves([0, 0, 0], [9.0, 9.0, 9.0])}
  results = report.summarize(claims, of(SEED, unsure), [300])
  text = report.markdown(results, claims)
  assert 'it ends better; here no difference shows.' in text
  # That one seed is early does not make up for one that never is.
  assert 'after 70% of the steps; here it takes longer.' in text


def test_some_seeds_do_not_pass():
  worse = SEED | {'SALT': curves([0, 0, 0], [9.0, 9.0, 9.0])}
  results = report.summarize(STUDY, of(SEED, worse), [300])
  assert results['passes']['SALT'][1] is None
  text = report.markdown(results, STUDY)
  assert '62% of the steps with 1 of 2 seeds' in text


def test_buckets_are_means_over_seeds():
  def task(shift):
    scores = {
      'SLM': np.array([0.9, 0.5, 0.1]),
      'BASELINE @5': np.array([0.5, 0.4, 0.3]),
      'SALT @5': np.array([0.6, 0.4, 0.2 + shift]),
    }
    return buckets.measure('held_out', scores, 'SLM', np.zeros(3), 'BASELINE')

  found = evaluations.buckets([task(0.0), task(0.02)], 'BASELINE')
  assert found['count'] == {'easy': 1, 'medium': 1, 'hard': 1, 'all': 3}
  assert found['gain']['SALT @5']['hard'] == pytest.approx([-10, -8])
  text = evaluations.buckets_markdown(found)
  assert '| model | easy (1) | medium (1) | hard (1) | all (3) |' in text
  assert '| SALT @5 | 60.00 ± 0.00 (+10.00 ± 0.00) | 40.00 ± 0.00 (+0' in text
  assert '21.00 ± 1.00 (-9.00 ± 1.00)' in text


def test_benchmarks_are_averaged_over_seeds():
  def of_seed(shift):
    result = {'score': 0.25 + shift, 'documents': 7, 'chance': 0.25}
    return {
      'results': {
        model: {
          'held_out': {},
          'copa': {**result, 'measures': ['acc']},
          'lambada': {
            'score': 0.0,
            'documents': 9,
            'chance': 0.0,
            'measures': ['acc', 'perplexity'],
            'log_perplexity': 18 + 10 * shift,
          },
        }
        for model in ('SLM', 'SALT @1000')
      },
      'missing': {'drop': 'no data'},
    }

  found = evaluations.few_shot([of_seed(0.0), of_seed(0.02)])
  assert found['scores']['SLM']['copa'] == pytest.approx([25, 27])
  assert found['scores']['SLM']['Average'] == pytest.approx([12.5, 13.5])
  text = evaluations.few_shot_markdown(found)
  assert '| copa | 7 | 25.0 | 26.0 ± 1.0 | 26.0 ± 1.0 |' in text
  assert '| Average |  |  | 13.00 ± 0.50 | 13.00 ± 0.50 |' in text
  assert '| lambada, nats | 9 |  | 18.10 ± 0.10 | 18.10 ± 0.10 |' in text
  assert 'Not run: drop.' in text


def test_held_out_text_is_judged_at_the_stages():
  [(_, main)] = definition.read(['main'])
  made = jobs_lib.JobsOfSeed('/w', '0', setting('trainer.SaltTrainer.top_k=5'))
  trained = {v.label: made.of(v) for v in definition.expand(main.variants)}
  job = made.evaluation('main_held_out', trained, [300, 1000])
  assert set(job.needs) == set(trained.values()) and job in made.all
  [checkpoints] = [x for x in job.command if 'CHECKPOINTS' in x]
  checkpoints = ast.literal_eval(checkpoints.split('=', 1)[1])
  assert checkpoints['SALT @300'] == '/w/seed_0/salt/checkpoint_300'
  assert len(checkpoints) == 10
  assert not any('SLM' in x for x in checkpoints)
  assert not any('top_k' in x for x in job.command)


def test_the_theory_has_its_models():
  [(_, theory)] = definition.read(['theory'])
  made = jobs_lib.JobsOfSeed('/w', '0', setting())
  trained = {v.label: made.of(v) for v in definition.expand(theory.variants)}
  job = made.theory('numbers', trained, theory.reference)
  assert "--gin.STUDENT_PATH='/w/seed_0/baseline'" in job.command
  assert "--gin.ORACLE_PATH='/w/seed_0/oracle'" in job.command
  assert set(job.needs) == set(trained.values())
  with pytest.raises(definition.StudyError, match="must be 'SLM' and 'ORACLE'"):
    definition.Study(
      title='t',
      about='a',
      variants={'BASELINE': {'recipe': 'baseline'}},
      theory=True,
    )


def test_plots_are_the_same_twice():
  picture = report.plot(STUDY, of(SEED, OTHER), [100, 300])
  assert picture.startswith(b'<?xml') and len(picture) > 10_000
  assert report.plot(STUDY, of(SEED, OTHER), [100, 300]) == picture


def test_no_two_curves_have_one_colour():
  labels = ['SLM', 'BASELINE', 'RKD', 'SALT', *map(str, range(9))]
  drawn = report.colors(labels)
  assert len({matplotlib.colors.to_hex(x) for x in drawn.values()}) == 13


# --- Costs -------------------------------------------------------------------


@pytest.mark.parametrize(
  'kd_steps, ratio, expected',
  [(36_000, 1.27, 0.25), (36_000, 1.12, 0.28), (14_000, 1.07, 0.29)],
)
def test_savings_are_those_of_table_20(kd_steps, ratio, expected):
  found = costs.saving(146_000, 208_000, kd_steps, ratio)
  assert found == pytest.approx(expected, abs=0.005)


def test_savings_end_inside_the_first_stage_or_pay_for_the_teacher():
  assert costs.saving(50, 100, 80, 1.5) == pytest.approx(0.25)
  assert costs.saving(50, 100, 0, 1.5, teacher_time=70) == pytest.approx(-0.2)


def test_step_time_is_a_median_without_compilation():
  rates = [(5, 0.1), (10, 2.0), (15, 4.0), (20, 4.0)]
  found = costs.step_time({'timing/steps_per_second': rates})
  assert found == 0.25


def test_costs_are_in_the_table():
  found = costs.measure(
    passes={'SALT': [0.7, None], 'RKD': [0.5, 0.5]},
    kd_steps={'SALT': 30},
    kd_times=[1.2, 1.4],
    plain_times=[1.0, 1.0],
    teacher_steps=100,
    teacher_times=[0.5, 0.5],
    total_steps=100,
    students=5,
  )
  assert found['ratio'] == pytest.approx([1.2, 1.4])
  savings = found['savings']['SALT']
  assert savings['alone'] == pytest.approx([1 - (40 + 36) / 100])
  assert savings['with_teacher'] == pytest.approx([0.24 - 0.5])
  assert savings['shared'] == pytest.approx([0.24 - 0.1])
  results = report.summarize(STUDY, of(SEED), [300]) | {'costs': found}
  text = report.markdown(results, STUDY)
  assert (
    '| SALT | 24% with 1 of 2 seeds | -26% with 1 of 2 seeds | 14% with 1 of 2 '
  ) in text
  assert 'A KD step takes 1.30 ± 0.10 plain steps' in text
