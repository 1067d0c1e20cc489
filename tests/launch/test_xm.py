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

"""XManager experiments: the plan as data, real jobs on this machine, and real
objects for Vertex AI with a stand-in for its service."""

import asyncio
import json
import os
import pathlib
import re
import shlex
import subprocess
import sys
import time
import types

import launch_docs
import pytest

from salt_t5x.launch import checks, plan, tpu_run
from salt_t5x.runs import preemption

pytest.importorskip('xmanager', reason="needs the extra 'launch'")

from absl import flags
from xmanager import xm

from salt_t5x.launch import xm_jobs

RECIPES = 'salt_t5x/gin/recipes'
SECRET = 'hunter2'


@pytest.fixture(autouse=True)
def parsed_flags():
  """XManager reads absl's flags, which `xmanager launch` parses."""
  if not flags.FLAGS.is_parsed():
    flags.FLAGS(['tests'])


@pytest.fixture(scope='module')
def home(tmp_path_factory):
  """XManager keeps a database in the home directory, and opens it once."""
  folder = tmp_path_factory.mktemp('home')
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv('HOME', str(folder))
    yield folder


def experiment(**changes):
  """The launcher's flags."""
  return types.SimpleNamespace(
    **{
      'output': 'gs://bucket/x',
      'teacher': [f'{RECIPES}/teacher_1p5b.gin'],
      'teacher_path': None,
      'scores': [f'{RECIPES}/scores_1p5b.gin'],
      'student': [f'{RECIPES}/2p8b_from_1p5b_salt_ds.gin'],
      'gin_file': ['salt_t5x/gin/data/pile.gin'],
      'gin': [],
      'distillation_weight': [],
      'teacher_temperature': [],
      'kd_steps': [36000],
      'batch_size': 2048,
      'only': [],
    }
    | changes
  )


def bindings(job):
  """{macro: value} of a job."""
  flag = '--gin_bindings='
  found = [a.removeprefix(flag) for a in job.args if a.startswith(flag)]
  return dict(binding.split('=', 1) for binding in found)


def test_exit_codes_are_those_of_training():
  assert xm_jobs._AGAIN == preemption.EXIT_CODE
  assert str(preemption.EXIT_CODE) in tpu_run._AGAIN


# --- The plan -----------------------------------------------------------------


def test_plan_of_salt_ds():
  jobs = plan.make(experiment(gin=['TRAIN_STEPS=9']))
  assert [(job.name, job.needs) for job in jobs] == [
    ('teacher', ()),
    ('scores', ('teacher',)),
    ('selection_36000', ('teacher', 'scores')),
    ('student_nkd_36000', ('teacher', 'scores', 'selection_36000')),
  ]
  teacher, scores, selection, student = jobs
  data = '--gin_file=salt_t5x/gin/data/pile.gin'
  assert teacher.args == (
    'salt_t5x.train',
    f'--gin_file={RECIPES}/teacher_1p5b.gin',
    data,
    '--gin_bindings=TRAIN_STEPS=9',
    "--gin_bindings=MODEL_DIR='gs://bucket/x/teacher'",
    '--gin_bindings=BATCH_SIZE=2048',
  )
  assert scores.args[0] == 'salt_t5x.score'
  assert bindings(scores) == {
    'TRAIN_STEPS': '9',
    'SCORES_DIR': "'gs://bucket/x/scores'",
    'TEACHER_PATH': "'gs://bucket/x/teacher'",
  }
  assert selection.args == (
    'salt_t5x.select',
    '--scores=gs://bucket/x/scores',
    '--output=gs://bucket/x/selection_36000.json',
    '--kd_steps=36000',
    '--batch_size=2048',
  )
  assert bindings(student) == {
    'TRAIN_STEPS': '9',
    'MODEL_DIR': "'gs://bucket/x/student_nkd_36000'",
    'TEACHER_PATH': "'gs://bucket/x/teacher'",
    'SELECTION_PATH': "'gs://bucket/x/selection_36000.json'",
    'KD_STEPS': '36000',
    'BATCH_SIZE': '2048',
  }


def test_plan_of_salt_with_a_trained_teacher():
  jobs = plan.make(
    experiment(
      teacher=[], teacher_path='gs://t', scores=[], kd_steps=[], batch_size=None
    )
  )
  (student,) = jobs
  assert (student.name, student.needs) == ('student', ())
  assert bindings(student) == {
    'TEACHER_PATH': "'gs://t'",
    'MODEL_DIR': "'gs://bucket/x/student'",
  }


def test_the_home_folder_is_the_same_for_all_jobs(monkeypatch):
  """gin's paths know it; those of flags come from no shell."""
  monkeypatch.setenv('HOME', '/home/me')
  jobs = plan.make(experiment(output='~/x', kd_steps=[100]))
  words = [word for job in jobs for word in job.args]
  assert '--output=/home/me/x/selection_100.json' in words
  assert not [word for word in words if '~' in word]


def test_plan_of_a_sweep():
  jobs = plan.make(
    experiment(
      distillation_weight=[0.5, 0.667],
      teacher_temperature=[0.25, 1.0],
      kd_steps=[100, 200],
    )
  )
  students = [job for job in jobs if job.stage == 'student']
  points = {
    (
      bindings(job)['DISTILLATION_WEIGHT'],
      bindings(job)['TEACHER_TEMPERATURE'],
      bindings(job)['KD_STEPS'],
    )
    for job in students
  }
  assert points == {
    (w, t, k)
    for w in ('0.5', '0.667')
    for t in ('0.25', '1.0')
    for k in ('100', '200')
  }
  directories = {bindings(job)['MODEL_DIR'] for job in students}
  assert len(directories) == len(students) == 8
  # Each n_KD has one selection.
  assert [job.name for job in jobs if job.stage == 'selection'] == [
    'selection_100',
    'selection_200',
  ]
  for job in students:
    kd_steps = bindings(job)['KD_STEPS']
    assert job.needs == ('teacher', 'scores', f'selection_{kd_steps}')
    assert bindings(job)['SELECTION_PATH'].endswith(
      f"selection_{kd_steps}.json'"
    )


@pytest.mark.parametrize(
  'only, needs',
  [
    (['student'], {'student_nkd_36000': ()}),
    (
      ['teacher', 'student_nkd_36000'],
      {'teacher': (), 'student_nkd_36000': ('teacher',)},
    ),
    (['scores', 'selection'], {'scores': (), 'selection_36000': ('scores',)}),
  ],
)
def test_plan_of_a_part(only, needs):
  jobs = plan.make(experiment(only=only))
  assert {job.name: job.needs for job in jobs} == needs
  whole = {job.name: job.args for job in plan.make(experiment())}
  assert all(job.args == whole[job.name] for job in jobs)


@pytest.mark.parametrize(
  'changes, message',
  [
    ({'teacher': []}, 'Give either --teacher'),
    ({'teacher_path': 'gs://t'}, 'Give either --teacher'),
    ({'kd_steps': []}, '--scores needs --kd_steps and --batch_size'),
    ({'batch_size': None}, '--scores needs --kd_steps and --batch_size'),
    (
      {'gin': ["MODEL_DIR='x'"]},
      'binds MODEL_DIR for each job. Remove it and use --out',
    ),
    (
      {'gin': ['KD_STEPS = 5']},
      'KD_STEPS for each job. Remove it and use --kd_steps',
    ),
    (
      {'scores': [], 'kd_steps': [], 'gin': ['KD_STEPS=5']},
      'use --kd_steps',
    ),
    ({'only': ['teachers']}, "--only=teachers: ['teachers'] are not among"),
  ],
)
def test_rejects_invalid_plans(changes, message):
  with pytest.raises(checks.FlagError) as e:
    plan.make(experiment(**changes))
  assert message in str(e.value)


# --- On this machine ----------------------------------------------------------

PROGRAM = """
import os, sys, time
name = [a for a in sys.argv if 'DIR' in a or '--output' in a][0]
name = name.strip("'").rsplit('/', 1)[1].removesuffix('.json')
folder = os.environ['FOLDER']
def log(event):
  with open(f'{folder}/log', 'a') as f: f.write(f'{event} {name}\\\\n')
log('begin')
print('token', os.environ.get('TOKEN'))
path = f'{folder}/codes_of_{name}'
codes = open(path).read().split() if os.path.exists(path) else []
with open(path, 'w') as f: f.write(' '.join(codes[1:]))
log('end')
sys.exit(int(codes[0]) if codes else 0)
"""


@pytest.fixture
def stand_in(tmp_path, home, monkeypatch):
  """A stand-in for this package: its programs only log."""
  # Here jobs run in the working directory, which Python looks in first.
  monkeypatch.chdir(tmp_path)
  package = tmp_path / 'salt_t5x'
  package.mkdir()
  (package / '__init__.py').touch()
  for name in ('train', 'score', 'select'):
    (package / f'{name}.py').write_text(PROGRAM.replace('\\\\n', '\\n'))
  return tmp_path


def run_here(stand_in, jobs, max_restarts=1, **env_vars):
  """Runs jobs; returns what happened and the jobs that have finished."""
  done = []
  env_vars |= {'FOLDER': str(stand_in)}
  try:
    asyncio.run(
      xm_jobs.run('salt', jobs, xm_jobs.Local(), env_vars, max_restarts, done)
    )
  finally:
    log = (stand_in / 'log').read_text().splitlines()
  return log, done


def whole(*names):
  return [f'{event} {name}' for name in names for event in ('begin', 'end')]


def test_jobs_run_in_order(stand_in, capfd):
  jobs = plan.make(
    experiment(distillation_weight=[0.5, 1.0], output=str(stand_in / 'x'))
  )
  log, done = run_here(stand_in, jobs, TOKEN=checks.Secret(SECRET))
  students = ['student_omega_0.5_nkd_36000', 'student_omega_1.0_nkd_36000']
  assert log == whole('teacher', 'scores', 'selection_36000', *students)
  assert done == ['teacher', 'scores', 'selection_36000', *students]
  # The jobs have the secret: they print it.
  assert f'token {SECRET}' in capfd.readouterr().out


def test_restarts_interrupted_jobs(stand_in):
  (stand_in / 'codes_of_teacher').write_text('75 75 0')
  jobs = plan.make(experiment(scores=[]))
  log, done = run_here(stand_in, jobs, max_restarts=2)
  assert log == whole(*['teacher'] * 3, 'student_nkd_36000')
  assert done == ['teacher', 'student_nkd_36000']


@pytest.mark.parametrize(
  'codes, message, runs',
  [
    ('1', 'The job scores failed: Process .* returned non-zero code: 1', 1),
    ('75 75 0', 'The job scores was interrupted more than --max_restarts=1', 2),
  ],
)
def test_failed_job_ends_the_experiment(stand_in, codes, message, runs):
  (stand_in / 'codes_of_scores').write_text(codes)
  with pytest.raises(xm_jobs.JobError, match=message):
    run_here(stand_in, plan.make(experiment()))
  log = (stand_in / 'log').read_text().splitlines()
  assert log == whole('teacher', *['scores'] * runs)


def test_interruption_stops_a_local_job(stand_in):
  """An interrupted launcher sends SIGTERM and waits for the job to save."""
  (stand_in / 'salt_t5x' / 'train.py').write_text(
    'import os, signal, sys, time\n'
    "folder = os.environ['FOLDER']\n"
    'def stop(*_):\n'
    "  open(f'{folder}/saved', 'w').close()\n"
    '  sys.exit(75)\n'
    'signal.signal(signal.SIGTERM, stop)\n'
    "open(f'{folder}/begun', 'w').close()\n"
    'time.sleep(600)\n'
  )
  env_vars = {'FOLDER': str(stand_in)}

  async def interrupted():
    jobs = plan.make(experiment())
    task = asyncio.create_task(
      xm_jobs.run('salt', jobs, xm_jobs.Local(), env_vars, 1, [])
    )
    while not (stand_in / 'begun').exists():
      await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
      await task

  asyncio.run(interrupted())
  assert (stand_in / 'saved').exists()


# --- On Vertex AI -------------------------------------------------------------


@pytest.fixture
def context(tmp_path):
  folder = tmp_path / 'salt_t5x_image'
  folder.mkdir()
  (folder / 'salt_t5x-0.1.0-py3-none-any.whl').touch()
  (folder / 'more.txt').touch()
  return folder


def vertex(context, accelerator='tpu_v3=8'):
  options = types.SimpleNamespace(
    accelerator=accelerator,
    base_image='registry.example/python:3.11',
    image='registry.example/project/salt:1',
    wheel='dist/salt_t5x-0.1.0-py3-none-any.whl',
    requirements='conf/more.txt',
  )
  return xm_jobs.Vertex(options, str(context))


def test_image(context):
  from xmanager.cloud import build_image

  packageable = vertex(context).packageable()
  spec = packageable.executable_spec
  assert isinstance(spec, xm.PythonContainer)
  tag = packageable.executor_spec.push_image_tag
  assert tag == 'registry.example/project/salt:1'
  file = build_image._create_dockerfile(spec, packageable.args, {})
  lines = pathlib.Path(file).read_text().splitlines()
  assert lines[1] == 'FROM registry.example/python:3.11'
  assert [
    x for x in lines if x.startswith(('COPY', 'WORKDIR', 'RUN python'))
  ] == [
    'COPY --chown=1000:root salt_t5x_image/ /salt_t5x_image',
    'WORKDIR /salt_t5x_image',
    "RUN python -m pip install './salt_t5x-0.1.0-py3-none-any.whl[t5x,tpu]'",
    'RUN python -m pip install --requirement more.txt',
    'COPY --chown=1000:root entrypoint.sh ./entrypoint.sh',
  ]
  entrypoint = pathlib.Path(build_image._create_entrypoint(spec)).read_text()
  assert entrypoint.rstrip().endswith('\nexec python -m "$@"')


@pytest.mark.parametrize(
  'accelerator, message',
  [
    (
      'tpu_v5e=8',
      'takes tpu_v2 and tpu_v3. For other TPUs use salt_t5x.launch',
    ),
    ('tpu_v9=8', "must look like 'tpu_v3=8'"),
    ('tpu_v3', "must look like 'tpu_v3=8'"),
    ('v100=8', 'takes tpu_v2 and tpu_v3'),
  ],
)
def test_rejects_unsupported_accelerators(context, accelerator, message):
  with pytest.raises(checks.FlagError, match='--accelerator') as e:
    vertex(context, accelerator)
  assert message in str(e.value)


class CustomJob:
  """Stands in for Vertex AI's custom jobs."""

  jobs: list['CustomJob'] = []
  errors: dict[str, list[str]] = {}

  def __init__(self, display_name, worker_pool_specs, **_):
    self.display_name = display_name
    (self.pool,) = worker_pool_specs
    self.cancelled = False
    self.resource_name = f'projects/1/customJobs/{len(self.jobs)}'
    self.jobs.append(self)

  @property
  def model_dir(self):
    args = [a for a in self.pool.container_spec.args if 'DIR' in a]
    return args[0].strip("'").rsplit('/', 1)[1] if args else 'selection'

  @classmethod
  def get(cls, name):
    return cls.jobs[int(name.rsplit('/', 1)[1])]

  def submit(self, **_):
    pass

  def _dashboard_uri(self):
    return self.resource_name

  def _block_until_complete(self):
    errors = self.errors.get(self.model_dir)
    if errors:
      raise RuntimeError(
        f'Job failed with:\ncode: 3\nmessage: "{errors.pop(0)}"'
      )

  def cancel(self):
    self.cancelled = True


@pytest.fixture
def service(home, monkeypatch):
  """Vertex AI: XManager's client is real, and what it calls a stand-in."""
  from google.cloud import aiplatform
  from xmanager.cloud import auth, build_image, docker_lib
  from xmanager.cloud import vertex as client

  monkeypatch.setenv('GOOGLE_CLOUD_BUCKET_NAME', 'bucket')
  monkeypatch.setattr(auth, 'get_project_name', lambda: 'my-project')
  monkeypatch.setattr(auth, 'get_service_account', lambda: 'xmanager@x')
  monkeypatch.setattr(aiplatform, 'init', lambda **_: None)
  monkeypatch.setattr(aiplatform, 'CustomJob', CustomJob)
  monkeypatch.setattr(docker_lib, 'is_docker_installed', lambda: False)
  monkeypatch.setattr(build_image, 'build', lambda *a, **_: a[3])
  monkeypatch.setattr(client, '_default_client', None)
  monkeypatch.setattr(CustomJob, 'jobs', [])
  monkeypatch.setattr(CustomJob, 'errors', {})
  return CustomJob


def test_vertex_jobs(service, context):
  jobs = plan.make(experiment(distillation_weight=[0.5, 1.0]))
  done = []
  env_vars = {'A': 'b', 'TOKEN': checks.Secret(SECRET)}
  service.errors['teacher'] = [
    'The replica workerpool0-0 exited with a non-zero status of 75. '
    'Termination reason: Error.'
  ]
  asyncio.run(xm_jobs.run('salt', jobs, vertex(context), env_vars, 1, done))
  assert [job.model_dir for job in service.jobs[:4]] == [
    *['teacher', 'teacher', 'scores', 'selection']
  ]
  assert len(service.jobs) == 6
  assert sorted(done) == sorted(job.name for job in jobs)
  for job in service.jobs:
    container = job.pool.container_spec
    assert container.image_uri == 'registry.example/project/salt:1'
    assert {e.name: e.value for e in container.env} == {
      'A': 'b',
      'TOKEN': SECRET,
    }
    machine = job.pool.machine_spec
    if job.model_dir == 'selection':
      assert machine.machine_type == 'n1-standard-8'
    else:
      assert machine.machine_type == 'cloud-tpu'
      assert machine.accelerator_type.name == 'TPU_V3'
      assert machine.accelerator_count == 8
  assert list(service.jobs[0].pool.container_spec.args) == list(jobs[0].args)


def test_failed_vertex_job_stops_the_others(service, context, caplog, capfd):
  service.errors['student_omega_0.5_nkd_36000'] = [
    'The replica workerpool0-0 exited with a non-zero status of 1.'
  ]
  hangs = 'student_omega_1.0_nkd_36000'
  wait = service._block_until_complete

  def block(job):
    if job.model_dir != hangs:
      return wait(job)
    while not job.cancelled:
      time.sleep(0.05)
    raise RuntimeError('cancelled')

  jobs = plan.make(experiment(distillation_weight=[0.5, 1.0]))
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(service, '_block_until_complete', block)
    with pytest.raises(xm_jobs.JobError, match='status of 1') as e:
      asyncio.run(
        xm_jobs.run(
          'salt',
          jobs,
          vertex(context),
          {'TOKEN': checks.Secret(SECRET)},
          1,
          done := [],
        )
      )
  assert done == ['teacher', 'scores', 'selection_36000']
  # The other student was stopped.
  assert [j.model_dir for j in service.jobs if j.cancelled] == [hangs]
  assert SECRET not in str(e.value) + caplog.text + ''.join(capfd.readouterr())


def test_reports_vertex_jobs_that_cannot_be_stopped(service, context, caplog):
  service.errors['student_omega_0.5_nkd_36000'] = ['status unknown']

  def block(job):
    if 'omega_0.5' in job.model_dir:
      raise RuntimeError('Job failed with: no exit code')

  def cancel(job):
    raise RuntimeError('PERMISSION_DENIED')

  async def wait(self, job_name):
    job = service.get(job_name)
    if 'omega_1.0' in job.model_dir:
      await asyncio.sleep(600)
    block(job)

  from xmanager.cloud import vertex as client

  jobs = plan.make(experiment(distillation_weight=[0.5, 1.0]))
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(client.Client, 'wait_for_job', wait)
    patch.setattr(service, 'cancel', cancel)
    with pytest.raises(xm_jobs.JobError, match='no exit code'):
      asyncio.run(xm_jobs.run('salt', jobs, vertex(context), {}, 1, []))
  assert 'could not be stopped: PERMISSION_DENIED' in caplog.text
  assert 'gcloud ai custom-jobs cancel JOB --region=us-central1' in caplog.text


# --- The command --------------------------------------------------------------


def launch(folder, *words, **environment):
  """Runs `xmanager launch` on the script, in a folder."""
  program = os.path.join(os.path.dirname(sys.executable), 'xmanager')
  return subprocess.run(
    [program, 'launch', f'{xm_jobs.__file__[:-10]}xm_salt.py', '--', *words],
    cwd=folder,
    capture_output=True,
    text=True,
    env=os.environ | environment,
    check=False,
  )


def test_command_on_this_machine(stand_in, home):
  (stand_in / 'codes_of_student').write_text('3')
  # The script itself needs the real package.
  (stand_in / 'salt_t5x').rename(stand_in / 'stand_in')
  package = stand_in / 'path' / 'salt_t5x'
  package.parent.mkdir()
  (stand_in / 'stand_in').rename(package)
  words = [
    *['--executor=local', f'--output={stand_in}/x', '--student=s.gin'],
    *['--teacher=t.gin', f'--env=PYTHONPATH={package.parent}'],
    *[f'--env=FOLDER={stand_in}', '--secret_env=TOKEN'],
  ]
  failed = launch(stand_in, *words, TOKEN=SECRET, HOME=str(home))
  assert failed.returncode == 1
  assert 'Error: The job student failed' in failed.stderr
  assert failed.stderr.rstrip().endswith('--only=student')
  again = launch(
    stand_in, *words, '--only=student', TOKEN=SECRET, HOME=str(home)
  )
  assert again.returncode == 0, again.stderr
  assert 'All jobs have finished' in again.stdout
  log = (stand_in / 'log').read_text().splitlines()
  assert log == whole('teacher', 'student', 'student')


# The script defines absl flags, which the tests' own process must not have.
DRY_RUNS = """
import contextlib, io, json, sys
from absl import app, flags
from absl.testing import flagsaver
from salt_t5x.launch import xm_salt

results = []
for words in json.load(sys.stdin):
  sys.argv = ['xm_salt.py', *words, '--dry_run']
  error, shown = '', io.StringIO()
  with flagsaver.flagsaver(), contextlib.redirect_stdout(shown):
    try:
      xm_salt.main(flags.FLAGS(sys.argv))
    except (app.UsageError, flags.Error) as e:
      error = str(e)
  results.append([error, shown.getvalue()])
print(json.dumps(results))
"""


def dry_runs(folder, commands):
  """Returns [(error, output)] of dry runs, all of them in one process."""
  root = str(pathlib.Path(plan.__file__).parents[2])
  python = subprocess.run(
    [sys.executable, '-c', DRY_RUNS],
    cwd=folder,
    input=json.dumps(commands),
    capture_output=True,
    text=True,
    env=os.environ | {'PYTHONPATH': root, 'DATA_TOKEN': SECRET},
    check=False,
  )
  assert not python.returncode, python.stderr
  assert SECRET not in python.stdout + python.stderr
  return json.loads(python.stdout)


def test_examples_of_the_docs(tmp_path):
  (tmp_path / 'dist').mkdir()
  (tmp_path / 'dist' / 'salt_t5x-0.1.0-py3-none-any.whl').touch()
  (tmp_path / 'my_project').mkdir()
  examples = [
    example.replace('$BASE_IMAGE', 'registry.example/python:3.11').replace(
      '$IMAGE', 'registry.example/project/salt:1'
    )
    for example in launch_docs.examples('xmanager launch')
  ]
  words = [shlex.split(example) for example in examples]
  assert all(
    w[:4] == ['xmanager', 'launch', 'salt_t5x/launch/xm_salt.py', '--']
    for w in words
  )
  results = dry_runs(tmp_path, [w[4:] for w in words])
  for example, (error, shown) in zip(examples, results, strict=True):
    assert not error
    assert 'python -m ' in shown
    assert 'exit code 75 is started again, at most 10 times' in shown
    directories = re.findall(r'--gin_bindings=MODEL_DIR=(\S+)', shown)
    assert len(set(directories)) == len(directories) > 0
    assert ('DATA_TOKEN' in shown) == ('DATA_TOKEN' in example)


LOCAL = ['--output=x', '--executor=local']
VERTEX = [
  *['--executor=vertex', '--output=gs://x', '--accelerator=tpu_v3=8'],
  *['--base_image=b', '--image=i', '--wheel=salt_t5x-9.whl'],
]
REFUSED = {
  '--output=None: it is required': ['--executor=local'],
  '--executor=None: it is required': ['--output=x'],
  '--student=[]: it is required': [*LOCAL, '--student='],
  'needs --accelerator': ['--executor=vertex', '--output=gs://x'],
  'name a folder in a bucket': [*VERTEX, '--output=x'],
  "--wheel='w' must look like": [*VERTEX, '--wheel=w'],
  "--wheel='salt_t5x-9.whl' does not exist": VERTEX,
  "--wheel='w' is for --executor=vertex": [*LOCAL, '--wheel=w'],
  "--copy=['w'] is for --executor=vertex": [*LOCAL, '--copy=w'],
  "--title='A' must look like": [*LOCAL, '--title=A'],
  'no environment variable': [*LOCAL, '--secret_env=NO'],
  '--batch_size=0': [*LOCAL, '--batch_size=0'],
  '--max_restarts=-1': [*LOCAL, '--max_restarts=-1'],
  "'0' is not in {1, 2, ...}": [*LOCAL, '--kd_steps=0'],
  "'1.5' is not in {1, 2, ...}": [*LOCAL, '--kd_steps=1.5'],
  '--kd_steps=7,07: 7 is given twice': [*LOCAL, '--kd_steps=7,07'],
  '0.5 is given twice': [*LOCAL, '--distillation_weight=0.5,0.50'],
  **{
    f'{value!r} is not in [0, 1]': [
      *LOCAL,
      f'--distillation_weight=0.5,{value}',
    ]
    for value in ('1.01', '-0.1', 'nan', 'a')
  },
  **{
    f'{value!r} is not in (0, inf)': [
      *LOCAL,
      f'--teacher_temperature={value}',
    ]
    for value in ('0', '-1', 'inf', 'nan')
  },
}


def test_rejects_invalid_flags(tmp_path):
  always = ['--teacher_path=t', '--student=s.gin']
  results = dry_runs(tmp_path, [always + words for words in REFUSED.values()])
  for message, (error, shown) in zip(REFUSED, results, strict=True):
    assert message in error
    assert not shown
