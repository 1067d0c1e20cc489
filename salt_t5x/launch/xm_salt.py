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

"""An XManager experiment: a teacher, its scores, and students, for a sweep.

    xmanager launch salt_t5x/launch/xm_salt.py -- --executor=vertex \
      --output=gs://bucket/experiment \
      --teacher=salt_t5x/gin/recipes/teacher_1p5b.gin \
      --scores=salt_t5x/gin/recipes/scores_1p5b.gin \
      --student=salt_t5x/gin/recipes/2p8b_from_1p5b_salt_ds.gin \
      --gin_file=salt_t5x/gin/data/pile.gin --kd_steps=36000 --batch_size=2048

The experiment trains the teacher, scores the data with its checkpoint, selects
the data of the first stage, and trains one student for each point of the sweep.
The script runs until all jobs have finished. --dry_run prints the jobs. See
docs/launch.md.
"""

import asyncio
from collections.abc import Sequence
import os
import shlex
import shutil
import signal
import sys
import tempfile

from absl import app, flags

from salt_t5x.launch import checks, plan, xm_jobs


class _Values(flags.ArgumentParser):
  """Parses values of an axis of the sweep."""

  def __init__(self, macro: str):
    self._macro = macro

  def parse(self, argument: str | list[float]) -> list[float]:
    is_default = isinstance(argument, list)
    return argument if is_default else plan.parse_values(self._macro, argument)


_STRINGS = {
  'output': "The folder of the jobs' output folders.",
  'teacher_path': 'The model directory of a trained teacher.',
  # The rest is for Vertex AI only.
  'accelerator': 'TPU type and number of cores, e.g. tpu_v3=8.',
  'base_image': 'A container image with Python 3.11 and t5x.',
  'image': 'HOST/PATH:TAG that the image is pushed to.',
  'wheel': "This package's wheel; see docs/launch.md.",
  'requirements': 'A requirements file that pip installs in the image.',
}
_LISTS = {
  'teacher': "Gin files of the teacher's recipe, to train one.",
  'scores': 'Gin files of the scoring recipe, for SALT_DS.',
  'student': "Gin files of the student's recipe.",
  'only': 'Names of the jobs to run, or teacher, scores, selection or student; '
  'the results of all other jobs must exist.',
}
_REPEATED = {
  'gin_file': 'Gin files read after every recipe, e.g. the data.',
  'gin': 'Gin bindings for all recipes, e.g. --gin=TRAIN_STEPS=3000.',
  'env': 'Environment variables of the jobs, NAME=VALUE.',
  'secret_env': 'Names of environment variables of this process that are '
  'passed to the jobs. No command line and no log shows their values.',
  'copy': "Files and folders for the jobs' working directory on Vertex AI.",
}
_VERTEX_NEEDS = ('accelerator', 'base_image', 'image', 'wheel')

for _name, _help in _STRINGS.items():
  flags.DEFINE_string(_name, None, _help)
for _name, _help in _LISTS.items():
  flags.DEFINE_list(_name, None, _help)
for _name, _help in _REPEATED.items():
  flags.DEFINE_multi_string(_name, [], _help)
for _macro, (_name, *_, _range) in plan.AXES.items():
  _help = f'Values of {_name} in {_range}, separated by commas.'
  flags.DEFINE(_Values(_macro), _macro.lower(), [], _help)
flags.DEFINE_string('title', 'salt', "The experiment's name.")
flags.DEFINE_enum(
  'executor', None, ['vertex', 'local'], 'Vertex AI, or this machine.'
)
flags.DEFINE_integer('batch_size', None, 'B, of training.', lower_bound=1)
flags.DEFINE_integer('max_restarts', 10, 'After exit code 75.', lower_bound=0)
flags.DEFINE_boolean('dry_run', False, 'Print the jobs; run nothing.')
for _name in ('executor', 'output', 'student'):
  flags.register_validator(_name, bool, 'it is required; see --help.')

FLAGS = flags.FLAGS


def _where(context: str) -> xm_jobs.Vertex | xm_jobs.Local:
  """Returns the executor; for Vertex AI, fills the image's build folder."""
  if FLAGS.executor == 'local':
    for name in (*_VERTEX_NEEDS, 'requirements', 'copy'):
      if value := FLAGS[name].value:
        raise checks.FlagError(
          f'--{name}={value!r} is for --executor=vertex: local jobs run in '
          'this environment and this directory. Remove the flag.'
        )
    return xm_jobs.Local()
  for name in _VERTEX_NEEDS:
    if not FLAGS[name].value:
      raise checks.FlagError(f'--executor=vertex needs --{name}.')
  if '://' not in FLAGS.output:
    raise checks.FlagError(
      f'--output={FLAGS.output!r} is lost with the containers: name a folder '
      'in a bucket (gs://...).'
    )
  checks.matches({'wheel': FLAGS.wheel}, {'wheel': checks.WHEEL})
  os.mkdir(context)
  for path in checks.files(
    wheel=[FLAGS.wheel], requirements=[FLAGS.requirements], copy=FLAGS.copy
  ):
    copy = shutil.copytree if os.path.isdir(path) else shutil.copy
    copy(path, os.path.join(context, os.path.basename(path)))
  return xm_jobs.Vertex(FLAGS, context)


def _show(
  jobs: Sequence[plan.Job], where: xm_jobs.Vertex | xm_jobs.Local
) -> None:
  """Prints what would happen."""
  print(f'# Experiment {FLAGS.title!r}: {len(jobs)} jobs, {FLAGS.executor}.')
  if isinstance(where, xm_jobs.Vertex):
    names = ', '.join(sorted(os.listdir(where.context)))
    print(f'# The image {FLAGS.image}, with {names}:')
    print(f'FROM {FLAGS.base_image}')
    print('\n'.join(where.docker_instructions()))
  if FLAGS.env:
    print(f'# The environment of all jobs: {shlex.join(FLAGS.env)}')
  if FLAGS.secret_env:
    print(f'# Secrets in it: {", ".join(FLAGS.secret_env)}')
  for job in jobs:
    after = f', after {", ".join(job.needs)}' if job.needs else ''
    print(f'# {job.name}{after}: {where.executor(job).requirements!r}')
    print(shlex.join(['python', '-m', *job.args]))
  print(
    '# A job that ends with exit code 75 is started again, at most '
    f'{FLAGS.max_restarts} times.\n'
    '# If a job fails, those that run are stopped and no other is started.'
  )


def main(argv: Sequence[str]) -> None:
  """Launches the experiment that the flags describe, or prints it."""
  if len(argv) > 1:
    raise app.UsageError(f'Unknown arguments {argv[1:]}: remove them.')
  # SIGTERM stops the jobs as Ctrl-C does. In the background SIGINT may be
  # ignored, and asyncio would then leave it so.
  signal.signal(signal.SIGINT, signal.default_int_handler)
  signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
  done = []
  try:
    checks.matches({'title': FLAGS.title}, {'title': checks.NAME})
    jobs = plan.make(FLAGS)
    environment = checks.environment(FLAGS.env)
    words = [*sys.argv, *(word for job in jobs for word in job.args)]
    secrets = checks.secrets(FLAGS.secret_env, environment, words)
    with tempfile.TemporaryDirectory() as temporary:
      where = _where(os.path.join(temporary, 'salt_t5x_image'))
      if isinstance(where, xm_jobs.Vertex):
        # Local jobs have this process's environment, secrets included.
        environment |= secrets
      where.packageable()
      if FLAGS.dry_run:
        _show(jobs, where)
        return
      asyncio.run(
        xm_jobs.run(
          FLAGS.title, jobs, where, environment, FLAGS.max_restarts, done
        )
      )
  except checks.FlagError as e:
    raise app.UsageError(str(e)) from e
  except (xm_jobs.JobError, KeyboardInterrupt) as e:
    what = f'Error: {e}' if isinstance(e, xm_jobs.JobError) else 'Interrupted.'
    left = ','.join(job.name for job in jobs if job.name not in done)
    sys.exit(
      f'\n{what}\nAll jobs were stopped, unless the log reports an error. To '
      f'resume from their checkpoints, add to the same command\n  --only={left}'
    )
  print(f'All jobs have finished; their results are in {FLAGS.output}.')


if __name__ == '__main__':
  app.run(main)
