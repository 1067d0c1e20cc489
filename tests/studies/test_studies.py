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
from salt_t5x.studies import (
  costs,
  definition,
  evaluations,
  gin_files,
  report,
)
from salt_t5x.studies import jobs as jobs_lib
import tiny_runs

GIN = tiny_runs.ROOT / 'gin'
STUDIES = sorted(p.stem for p in GIN.glob('studies/*.gin'))


def setting(*bindings, file=None):
  return definition.Setting(bindings, file)


def study(variants, **options):
  variants = {'BASELINE': {'recipe': 'baseline'}, **variants}
  return definition.Study(title='t', about='a', variants=variants, **options)


def jobs_of(variants, *bindings, seed='0'):
  """({label: job}, all jobs by name) of BASELINE and other variants."""
  made = jobs_lib.JobsOfSeed('/w', seed, setting(*bindings))
  found = {v.label: made.train(v) for v in study(variants).expand()}
  return found, {job.name: job for job in made.all}


# --- The package's studies ---------------------------------------------------


@pytest.mark.parametrize('file', [None, 'gpu'])
def test_every_study_makes_jobs(file):
  studies = definition.read(STUDIES)
  planned, made = jobs_lib.plan(studies, ['0', '1'], setting(file=file), '/w')
  assert [plan.name for plan in planned] == STUDIES
  assert len({job.folder for job in made}) == len(made) > 70
  for i, job in enumerate(made):
    assert set(job.needs) <= set(made[:i])
    for flag in job.command:
      if flag.startswith('--gin_file='):
        assert (GIN / flag.split('/gin/')[1]).is_file()
  for plan in planned:
    assert plan.study.title and 'Table' in plan.study.about
    assert len(plan.trained) >= 3
  [main] = [plan for plan in planned if plan.name == 'main']
  for label in 'RKD', 'BASELINE', 'SLM':
    assert [job.alone for job in main.timed[label]] == [True, True]
  assert not any(job.alone for job in main.trained['SALT'])


def test_make_salt_runs_the_main_study():
  labels, jobs = jobs_of(definition.read(['main'])['main'].variants)
  assert set(labels) == {
    'SLM', 'BASELINE', 'RKD', 'SALT', 'SALT_DS', 'BASELINE_EZ'
  }  # fmt: skip
  assert labels['SLM'] in labels['SALT'].needs
  assert {name.split(' ')[0] for name in jobs} == {
    'teacher', 'baseline', 'rkd', 'salt', 'salt_ds', 'scores', 'selection',
    'baseline_ez,on=selection_kind=easy_share=0.4',
    'selection,kind=easy,share=0.4',
  }  # fmt: skip


def test_studies_share_equal_runs():
  """n_KD = 30% is what SALT does anyway."""
  made = jobs_lib.JobsOfSeed('/w', '0', setting())
  found = {}
  for x in definition.read(['main', 'n_kd', 'transitions']).values():
    for variant in x.expand():
      found.setdefault(variant.label, set()).add(made.train(variant))
  assert all(len(jobs) == 1 for jobs in found.values())
  assert found['SALT'] == found['SALT, n_KD = 30%']
  assert found['SALT'] != found['SALT, n_KD = 20%']


# --- From variants to jobs ---------------------------------------------------


def test_lists_of_values_make_a_grid():
  labels, _ = jobs_of(
    {
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
    '--gin_bindings=DISTILLATION_WEIGHT = 1.0',
    '--gin_bindings=TEACHER_TEMPERATURE = 0.25',
    '--gin_bindings=TRAIN_STEPS = 320',
  ):
    assert flag in command


def test_percentages_are_of_the_students_steps():
  labels, _ = jobs_of(
    {
      'SALT': {
        'recipe': 'salt',
        'KD_STEPS': '20%',
        'teacher': {'TRAIN_STEPS': '300%'},
      }
    },
    'TRAIN_STEPS=50',
  )
  [teacher] = labels['SALT'].needs
  assert '--gin_bindings=KD_STEPS = 10' in labels['SALT'].command
  assert '--gin_bindings=TRAIN_STEPS = 150' in teacher.command
  # Later bindings win.
  assert teacher.command.index(
    '--gin_bindings=TRAIN_STEPS=50'
  ) < teacher.command.index('--gin_bindings=TRAIN_STEPS = 150')
  assert f"--gin.TEACHER_PATH='{teacher.folder}'" in labels['SALT'].command


def test_settings_apply_to_all_runs():
  gpu = setting(file='gpu')
  made = jobs_lib.JobsOfSeed('/w', '0', gpu)
  for variant in definition.read(['main'])['main'].expand():
    made.train(variant)
  for job in made.all:
    if job.command[0] != 'salt_t5x.select':
      assert job.command[2] == '--gin_file=salt_t5x/gin/settings/gpu.gin'
  assert gpu.number('KD_STEPS') > setting().number('KD_STEPS') == 240
  assert gpu.number('TRAIN_STEPS', 'teacher') > gpu.number('TRAIN_STEPS')
  assert setting('FIRST_STAGE=7').number('KD_STEPS') == 7
  assert gpu.step('50%') == gpu.number('TRAIN_STEPS') / 2
  # There are scores for all that a first stage may read.
  for x in gpu, setting():
    needed = (x.number('SCORING_STEP') + x.number('KD_STEPS')) * x.number(
      'BATCH_SIZE'
    )
    assert x.number('SCORED_EXAMPLES', 'scores') > needed
    assert x.number('SCORING_STEP') % x.number('CHECKPOINT_PERIOD') == 0


def test_teachers_differ_by_size_and_training():
  variants = {
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
  flag = '--gin_bindings=TEACHER_SIZE = @size_x/C()'
  assert flag in labels['b'].command and flag in labels['b'].needs[0].command


@pytest.mark.parametrize(
  'variant, bindings, expected',
  [
    ({}, [], 240),
    ({}, ['KD_STEPS=200', 'TRAIN_STEPS = 9'], 200),
    ({'KD_STEPS': '20%'}, [], 160),
  ],
)
def test_selections_fill_the_first_stage(variant, bindings, expected):
  labels, _ = jobs_of({'DS': {'recipe': 'salt_ds', **variant}}, *bindings)
  _, selection = labels['DS'].needs
  assert selection.command[-2:] == [f'--kd_steps={expected}', '--batch_size=4']


@pytest.mark.parametrize(
  'recipe, selection, message',
  [
    ('baseline_ez', {}, "'x' selects by 'zero', but baseline_ez by easy:"),
    ('baseline_ez', {'kind': 'easy'}, "'x' repeats a share .*'share': 0.4"),
    ('salt_ds', {'kind': 'easy'}, "'x' selects by 'easy', but salt_ds by zero"),
  ],
)
def test_rejects_selections_by_another_kind(recipe, selection, message):
  with pytest.raises(definition.StudyError, match=message):
    jobs_of({'x': {'recipe': recipe, 'selection': selection}})


def test_selections_differ_by_teacher_and_batch():
  variants = {
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


def test_rejects_two_jobs_of_one_name():
  made = jobs_lib.JobsOfSeed('/w', '0', setting())
  main = definition.read(['main'])['main']
  made.evaluate('x', main, ['50%'])
  with pytest.raises(definition.StudyError, match='jobs are called x'):
    made.evaluate('x', main, ['100%'])


def test_scoring_gets_no_parameters_of_training():
  _, jobs = jobs_of(
    {'DS': {'recipe': 'salt_ds'}}, 'trainer.SaltTrainer.top_k=5', 'TOP_K = 5'
  )
  command = jobs['scores [0]'].command
  assert command[-2:] == [
    '--gin_bindings=RANDOM_SEED=0',
    '--gin_bindings=TOP_K = 5',
  ]
  assert (
    '--gin_bindings=trainer.SaltTrainer.top_k=5' in jobs['salt_ds [0]'].command
  )


@pytest.mark.parametrize(
  'variants, options, message',
  [
    ({'X': {'recipe': 'nothing'}}, {}, "recipe='nothing'"),
    ({'X': {}}, {}, 'recipe=None'),
    ({'X': {'recipe': 'salt', 'teacher': 'x'}}, {}, "teacher='x'"),
    ({'X': {'recipe': 'rkd', 'A': [1, 1]}}, {}, 'must all differ'),
    ({'X @1': {'recipe': 'rkd'}}, {}, 'names of checkpoints'),
    ({}, {'reference': 'X'}, "reference = 'X'"),
    ({}, {'in_the_paper': {'X': 'worse'}}, "needs the variants ['X']"),
    ({}, {'passes_in_the_paper': {'X': 0.7}}, "needs the variants ['X']"),
    ({}, {'buckets_at': ('100%',)}, "needs the variants ['SLM']"),
    ({}, {'theory': True}, "needs the variants ['ORACLE', 'SLM']"),
  ],
)
def test_rejects_studies(variants, options, message):
  with pytest.raises(definition.StudyError, match=re.escape(message)):
    study(variants, **options)


@pytest.mark.parametrize(
  'bindings, message',
  [
    # Longer runs are fine.
    (['STUDENT_STEPS=3000'], None),
    (['KD_STEPS=200'], 'KD_STEPS is step 200, which is not measured'),
    (['KD_STEPS=320'], 'every EVAL_PERIOD = 80, CHECKPOINT_PERIOD = 80, KEEP_'),
    (['TEACHER_STEPS=400'], 'SCORING_STEP = 480 is beyond the'),
    (['STUDENTS_STEPS=9'], 'no recipe has a macro STUDENTS_STEPS,'),
    (['RANDOM_SEED=3'], 'Give --seeds instead'),
    (['SEQUENCES=3', 'TOP_K=5', 'trainer.SaltTrainer.top_k=3'], None),
  ],
)
def test_rejects_settings_without_results(bindings, message):
  plan = lambda: jobs_lib.plan(
    definition.read(['main']), ['0'], setting(*bindings), '/w'
  )
  if message is None:
    plan()
  else:
    with pytest.raises(definition.StudyError, match=re.escape(message)):
      plan()


@pytest.mark.parametrize(
  'options',
  [
    {'N_KD': ['10%', '20%']},
    {'teacher': {'STEPS': 3}},
    # Macros of other recipes.
    {'recipe': 'baseline', 'TEACHER_TEMPERATURE': 1.0},
    {'recipe': 'baseline', 'models': {'TOP_K': 5}},
  ],
)
def test_rejects_macros_that_a_run_lacks(options):
  message = r"variants\['A.*no recipe has a macro"
  studies = {'x': study({'A': {'recipe': 'salt', **options}})}
  with pytest.raises(definition.StudyError, match=message):
    jobs_lib.plan(studies, ['0'], setting('TOP_K=5'), '/w')


def test_none_changes_what_a_recipe_does_not_bind():
  assert setting().changes('salt', {'x.y': None}) == ['x.y = None']
  assert not setting('x.y=None').changes('salt', {'x.y': None})
  with pytest.raises(definition.StudyError, match='No recipe binds KD_STEPS'):
    setting().value('KD_STEPS', 'baseline')


def test_only_a_jobs_own_gin_files_count(tmp_path):
  """Titles of studies, or recipes of other models, change no run."""
  included, mine = tmp_path / 'included.gin', tmp_path / 'mine.gin'
  mine.write_text(f"include '{included}'\n")

  def options(text):
    included.write_text(text)
    gin_files.read.cache_clear()
    made = jobs_lib.JobsOfSeed('/w', '0', setting(file=str(mine)))
    return made.train(study({}).expand()[0]).options

  assert options('BATCH_SIZE = 8') != options('BATCH_SIZE = 16')
  assert setting(file=str(mine)).number('BATCH_SIZE') == 16


def test_runs_resume_from_the_last_evaluation(tmp_path):
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


def test_rejects_unreadable_files(tmp_path):
  with pytest.raises(definition.StudyError, match='--setting=tinny'):
    definition.Setting(file='tinny')
  with pytest.raises(definition.StudyError, match='no_such'):
    definition.read(['no_such'])
  mine = tmp_path / 'mine.gin'
  for text in 'studies.Study.title = "x"', 'studies.Study.title = (':
    mine.write_text(text)
    with pytest.raises(definition.StudyError, match='mine.gin'):
      definition.read([str(mine)])


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
  assert '| SALT | 0.300 below | 62% |' in text
  assert '| RKD | 0.400 above | not reached |' in text
  assert 'One seed' in text


def test_errors_are_of_means_and_differences_of_pairs():
  results = report.summarize(STUDY, of(SEED, OTHER), [300])
  best_of = dataclasses.replace(STUDY, best_of=True)
  text = report.markdown(results, best_of)
  # Means 3.7 and 3.8, both 0.3 below BASELINE's.
  assert '| SALT | 300 | 30.00 ± 5.00 | 3.750 ± 0.050 | 0.300 ± 0.000 |' in text
  assert 'over 2 seeds' in text
  assert 'SALT has the lowest final log-perplexity; within two' in text
  assert 'standard errors of it: none.' in text
  near = OTHER | {'RKD': curves([0, 0, 0], [4.6, 4.5, 3.0])}
  results = report.summarize(STUDY, of(SEED, near), [300])
  text = report.markdown(results, best_of)
  assert (
    'RKD has the lowest final log-perplexity; within two standard errors of '
    'it: BASELINE, SALT.'
  ) in text


def test_verdict_names_effect_and_certainty():
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


def test_shows_the_papers_results_and_seeds_without_a_match():
  claims = dataclasses.replace(
    STUDY,
    in_the_paper={'SALT': 'better', 'RKD': 'worse'},
    passes_in_the_paper={'SALT': 0.7},
  )
  worse = SEED | {'SALT': curves([0, 0, 0], [9.0, 9.0, 9.0])}
  results = report.summarize(claims, of(SEED, worse), [300])
  assert results['passes']['SALT'][1] is None
  text = report.markdown(results, claims)
  assert (
    '| SALT | 2.350 ± 2.650 above | 62% (1 of 2 seeds) | better | 70% |'
  ) in text
  assert '| RKD | 0.400 ± 0.000 above | not reached | worse | – |' in text


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


def test_evaluates_students_at_the_stages():
  made = jobs_lib.JobsOfSeed('/w', '0', setting('trainer.SaltTrainer.top_k=5'))
  main = definition.read(['main'])['main']
  trained = [made.train(v) for v in main.expand()]
  job = made.evaluate('main_held_out', main, ['KD_STEPS', '100%'])
  assert set(job.needs) == set(trained) and job in made.all
  [checkpoints] = [x for x in job.command if 'CHECKPOINTS' in x]
  checkpoints = ast.literal_eval(checkpoints.split('=', 1)[1])
  assert checkpoints['SALT @240'] == '/w/seed_0/salt/checkpoint_240'
  assert len(checkpoints) == 10
  assert not any('SLM' in x for x in checkpoints)
  assert not any('top_k' in x for x in job.command)


def test_analyzes_student_teacher_and_oracle():
  made = jobs_lib.JobsOfSeed('/w', '0', setting())
  theory = definition.read(['theory'])['theory']
  job = made.analyze('numbers', theory)
  assert "--gin.STUDENT_PATH='/w/seed_0/baseline'" in job.command
  assert "--gin.ORACLE_PATH='/w/seed_0/oracle'" in job.command
  assert set(job.needs) == {made.train(v) for v in theory.expand()}


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
    times={'RKD': [1.2, 1.4], 'BASELINE': [1.0, 1.0], 'SLM': [0.5, 0.5]},
    teacher_steps=100,
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
    '| SALT | 24% (1 of 2 seeds) | -26% (1 of 2 seeds) | 14% (1 of 2 seeds) |'
  ) in text
  assert 'A KD step takes 1.30 ± 0.10 plain steps' in text
