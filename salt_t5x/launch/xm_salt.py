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

The teacher is trained; its checkpoint scores the data; the first stage's data
are selected; one student for each point of the sweep is trained. Each waits for
what it needs, so this script runs as long as they do. --dry_run prints the
jobs. See docs/launch.md.
"""

import asyncio
from collections.abc import Iterator, Sequence
import contextlib
import dataclasses
import os
import shlex
import shutil
import signal
import sys
import tempfile

from absl import app, flags

from salt_t5x.launch import checks, plan, xm_jobs

_TITLE = flags.DEFINE_string('title', 'salt', "The experiment's name.")
_EXECUTOR = flags.DEFINE_enum(
  'executor', None, ['vertex', 'local'], 'Vertex AI, or this machine.'
)
_OUTPUT = flags.DEFINE_string(
  'output', None, 'A folder; each job gets one in it.'
)
flags.DEFINE_list(
  'teacher', [], "Gin files of the teacher's recipe, to train one."
)
flags.DEFINE_string(
  'teacher_path', None, 'The model directory of a teacher that is there.'
)
flags.DEFINE_list(
  'scores', [], 'Gin files of the recipe that scores, for SALT_DS.'
)
flags.DEFINE_list('student', [], "Gin files of the student's recipe.")
flags.DEFINE_multi_string(
  'gin_file', [], 'For all recipes, after them, e.g. the data.'
)
flags.DEFINE_multi_string(
  'gin', [], 'Gin bindings for all recipes, e.g. --gin=TRAIN_STEPS=3000.'
)
flags.DEFINE_list('distillation_weight', [], 'Values of omega to sweep over.')
flags.DEFINE_list('teacher_temperature', [], 'Values of rho to sweep over.')
flags.DEFINE_list('kd_steps', [], 'Values of n_KD to sweep over.')
flags.DEFINE_integer('batch_size', None, 'B of training.')
flags.DEFINE_list(
  'only',
  [],
  'Jobs, or teacher, scores, selection or student, that are to run; the '
  'results of the others are there.',
)
_ENV = flags.DEFINE_multi_string(
  'env', [], 'Environment variables of the jobs, NAME=VALUE.'
)
_SECRET_ENV = flags.DEFINE_multi_string(
  'secret_env',
  [],
  'Names of environment variables that are set here, for the jobs, too. No '
  'command line and no log shows their values.',
)
_MAX_RESTARTS = flags.DEFINE_integer(
  'max_restarts', 10, 'Of each job, after exit code 75.'
)
_DRY_RUN = flags.DEFINE_boolean('dry_run', False, 'Print jobs, and run none.')

# Of Vertex AI only.
_ACCELERATOR = flags.DEFINE_string(
  'accelerator', None, 'A TPU slice and its cores, e.g. tpu_v3=8.'
)
_BASE_IMAGE = flags.DEFINE_string(
  'base_image', None, 'A container image with Python 3.11, and with t5x.'
)
_IMAGE = flags.DEFINE_string(
  'image', None, 'HOST/PATH:TAG that the image is pushed to.'
)
_WHEEL = flags.DEFINE_string(
  'wheel',
  None,
  'Of this package; python -m pip wheel --no-deps --wheel-dir=dist . makes it.',
)
_REQUIREMENTS = flags.DEFINE_string(
  'requirements', None, 'Of pip, installed in the image.'
)
_COPY = flags.DEFINE_multi_string(
  'copy', [], "Files and folders for the jobs' working directory."
)
_VERTEX_NEEDS = (_ACCELERATOR, _BASE_IMAGE, _IMAGE, _WHEEL)


def _jobs() -> list[plan.Job]:
  if not _OUTPUT.value:
    raise checks.FlagError('--output is missing: name a folder for results.')
  if _EXECUTOR.value == 'vertex' and '://' not in _OUTPUT.value:
    raise checks.FlagError(
      f'--output={_OUTPUT.value!r} would be in the containers, and gone with '
      'them: name a folder in a bucket (gs://...).'
    )
  # Each of an experiment's fields is a flag.
  names = [field.name for field in dataclasses.fields(plan.Experiment)]
  values = {name: flags.FLAGS[name].value for name in names}
  return plan.make(plan.Experiment(**values))


@contextlib.contextmanager
def _where() -> Iterator[xm_jobs.Vertex | xm_jobs.Local]:
  """Where to run; of Vertex AI, with the folder that its image is made from."""
  if _EXECUTOR.value is None:
    raise checks.FlagError('--executor is missing: say vertex or local.')
  if _EXECUTOR.value == 'local':
    for flag in (*_VERTEX_NEEDS, _REQUIREMENTS, _COPY):
      if flag.value:
        raise checks.FlagError(
          f'--{flag.name} is for --executor=vertex: here the jobs run in this '
          'environment and this directory. Remove it.'
        )
    yield xm_jobs.Local()
    return
  for flag in _VERTEX_NEEDS:
    if not flag.value:
      raise checks.FlagError(f'--executor=vertex needs --{flag.name}.')
  paths = [checks.wheel(_WHEEL.value)]
  if _REQUIREMENTS.value:
    paths += checks.files('requirements', [_REQUIREMENTS.value])
  paths = checks.files('copy', [*paths, *_COPY.value])
  with tempfile.TemporaryDirectory() as temporary:
    context = os.path.join(temporary, 'salt_t5x_image')
    os.mkdir(context)
    for path in paths:
      target = os.path.join(context, os.path.basename(path))
      if os.path.isdir(path):
        shutil.copytree(path, target)
      else:
        shutil.copy(path, target)
    image = xm_jobs.Image(
      base=_BASE_IMAGE.value,
      tag=_IMAGE.value,
      context=context,
      wheel=_WHEEL.value,
      requirements=_REQUIREMENTS.value,
    )
    yield xm_jobs.Vertex(image, _ACCELERATOR.value)


def _show(
  jobs: Sequence[plan.Job], where: xm_jobs.Vertex | xm_jobs.Local
) -> None:
  """Prints what would happen."""
  print(f'# Experiment {_TITLE.value!r}: {len(jobs)} jobs on {where.title}.')
  if isinstance(where, xm_jobs.Vertex):
    files = ', '.join(sorted(os.listdir(where.image.context)))
    print(f'# The image {where.image.tag}, with {files}:')
    print(f'FROM {where.image.base}')
    print('\n'.join(where.image.instructions()))
  if _ENV.value:
    print(f'# The environment of all jobs: {shlex.join(_ENV.value)}')
  if _SECRET_ENV.value:
    print(f'# Secrets in it: {", ".join(_SECRET_ENV.value)}')
  for job in jobs:
    after = f', after {", ".join(job.needs)}' if job.needs else ''
    print(f'# {job.name}{after}: {where.executor(job).requirements!r}')
    print(shlex.join(['python', '-m', *job.args]))
  print(
    '# A job that ends with exit code 75 is started again, at most '
    f'{_MAX_RESTARTS.value} times.\n'
    '# If a job fails, those that run are stopped and no other is started.'
  )


def main(argv: Sequence[str]) -> None:
  """Launches the experiment that the flags describe, or prints it."""
  if len(argv) > 1:
    raise app.UsageError(f'Not understood: {argv[1:]}')
  # As Ctrl-C does, it stops the jobs, too.
  # Where it runs in the background, SIGINT is ignored, and asyncio with it.
  signal.signal(signal.SIGINT, signal.default_int_handler)
  signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
  done = []
  try:
    checks.name('title', _TITLE.value)
    checks.max_restarts(_MAX_RESTARTS.value)
    jobs = _jobs()
    environment = checks.environment(_ENV.value)
    words = [*sys.argv, *(word for job in jobs for word in job.args)]
    secrets = checks.secrets(_SECRET_ENV.value, environment, words)
    with _where() as where:
      where.packageable()
      if _DRY_RUN.value:
        _show(jobs, where)
        return
      # Local jobs have this process's environment, secrets included.
      if isinstance(where, xm_jobs.Vertex):
        environment |= secrets
      asyncio.run(
        xm_jobs.run(
          _TITLE.value, jobs, where, environment, _MAX_RESTARTS.value, done
        )
      )
  except checks.FlagError as e:
    raise app.UsageError(str(e)) from e
  except (xm_jobs.JobError, KeyboardInterrupt) as e:
    what = f'Error: {e}' if isinstance(e, xm_jobs.JobError) else 'Interrupted.'
    left = ','.join(job.name for job in jobs if job.name not in done)
    sys.exit(
      f'\n{what}\nAll jobs were stopped, unless the log says otherwise. To go '
      f'on from their checkpoints, start the same command with\n  --only={left}'
    )
  print(f'All jobs have finished; their results are in {_OUTPUT.value}.')


if __name__ == '__main__':
  app.run(main)
