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

"""The TPU VM launcher against a stand-in gcloud, whose workers are folders.

What workers are told runs there for real: `remote.sh` starts, follows and ends
processes. Only the training itself is a stand-in.
"""

import hashlib
import json
import os
import pathlib
import re
import shlex
import signal
import stat
import subprocess
import sys

import launch_docs
import pytest

from salt_t5x.launch import gce, tpu_run

STAND_IN = pathlib.Path(__file__).parent / 'gcloud_stand_in.py'
SECRET = 'hunter2 "quoted"\n\'s'
COMMAND = [
  *['python', '-m', 'salt_t5x.train'],
  '--gin_file=my_project/student.gin',
  "--gin.MODEL_DIR='gs://bucket/a folder'",
]
# The calls of a run that nothing happens to.
ACTIONS = [
  *['describe', 'create', 'ssh', 'scp', 'ssh', 'scp', 'ssh'],
  *['ssh', 'ssh', 'delete'],
]
CREATE, MKDIR, COPY, INSTALL, SECRETS, START, FOLLOW, RESULT = range(1, 9)


class Cloud:
  """The stand-in's folder."""

  def __init__(self, folder: pathlib.Path):
    self.folder = folder
    self.vm = folder / 'vm'
    self.plan()
    self.exit_codes()

  def plan(self, **happenings):
    """Has things happen: call_3='fails', every_delete='fails', ..."""
    named = {
      name.removeprefix('call_').replace('_', ' '): happening
      for name, happening in happenings.items()
    }
    (self.folder / 'plan.json').write_text(json.dumps(named))

  def exit_codes(self, *codes):
    text = ''.join(f'{code}\n' for code in codes)
    (self.folder / 'exit_codes').write_text(text + '0\n' * 20)

  def calls(self):
    path = self.folder / 'calls.jsonl'
    if not path.exists():
      return []
    return list(map(json.loads, path.read_text().splitlines()))

  def actions(self):
    return [call['argv'][3] for call in self.calls()]

  def told(self, word):
    """How often remote.sh was told to do something."""
    return sum(
      f'remote.sh {word}' in argument
      for call in self.calls()
      for argument in call['argv']
    )


@pytest.fixture
def cloud(tmp_path, monkeypatch):
  folder = tmp_path / 'cloud'
  folder.mkdir()
  programs = tmp_path / 'programs'
  programs.mkdir()
  gcloud = programs / 'gcloud'
  gcloud.write_text(f'#!/bin/sh\nexec {sys.executable} -S -E {STAND_IN} "$@"\n')
  gcloud.chmod(0o755)
  monkeypatch.setenv('PATH', f'{programs}:{os.environ["PATH"]}')
  monkeypatch.setenv('CLOUD', str(folder))
  monkeypatch.setenv('DATA_TOKEN', SECRET)
  monkeypatch.setattr(tpu_run, '_PAUSE', 0)
  work = tmp_path / 'work'
  (work / 'my_project').mkdir(parents=True)
  (work / 'my_project' / 'student.gin').write_text('x = 1\n')
  (work / 'setup.sh').write_text(
    'echo "export FROM_SETUP=1" >environment.sh\ntouch was_set_up\n'
  )
  (work / 'more.txt').write_text('')
  (work / 'dist').mkdir()
  (work / 'dist' / 'salt_t5x-0.1.0-py3-none-any.whl').write_text('a wheel')
  monkeypatch.chdir(work)
  previous = signal.getsignal(signal.SIGTERM)
  yield Cloud(folder)
  signal.signal(signal.SIGTERM, previous)


def flags(action='run', *more, command=COMMAND):
  return [
    action,
    *['--name=salt-student', '--zone=us-central2-b', '--project=my-project'],
    *['--accelerator_type=v4-16', '--version=tpu-ubuntu2204-base', '--spot'],
    '--wheel=dist/salt_t5x-0.1.0-py3-none-any.whl',
    *['--setup_script=setup.sh', '--requirements=more.txt'],
    *['--copy=my_project', '--env=SALT_T5X_PILE=gs://bucket/the pile'],
    '--secret_env=DATA_TOKEN',
    *more,
    *(['--', *command] if command else []),
  ]


def commands_shown(text):
  return [
    shlex.split(line) for line in text.splitlines() if line.startswith('gcloud')
  ]


def without_temporary(argv):
  return [re.sub(r'^/.*/secrets$', 'SECRETS', word) for word in argv]


def test_a_run_and_its_dry_run(cloud, capfd):
  assert gce.main(flags()) == 0
  shown, _ = capfd.readouterr()
  assert cloud.actions() == ACTIONS
  assert not cloud.vm.exists()
  recorded = [
    without_temporary(['gcloud', *call['argv']]) for call in cloud.calls()
  ]
  assert [*map(without_temporary, commands_shown(shown))] == recorded
  # The log was shown.
  assert "--gin.MODEL_DIR='gs://bucket/a folder'" in shown
  count = len(recorded)

  assert gce.main(flags('run', '--dry_run')) == 0
  shown, _ = capfd.readouterr()
  assert [*map(without_temporary, commands_shown(shown))] == recorded
  assert len(cloud.calls()) == count
  assert 'at most 10 times.\n# If a step fails, the VM is deleted.' in shown


def documented(argv):
  """A command as the docs have it: without where, and with names for paths."""
  words = [
    word
    for word in argv
    if not word.startswith(('--zone=', '--project=')) and word != '--quiet'
  ]
  return [
    word if word.startswith('--') or ':' in word else os.path.basename(word)
    for word in words
  ]


def follow_docs(example, *more):
  """Runs an example of the docs, with flags of the launcher added."""
  words = shlex.split(example)
  assert words[:3] == ['python', '-m', 'salt_t5x.launch.gce']
  words = words[3:]
  index = words.index('--') if '--' in words else len(words)
  return gce.main([*words[:index], *more, *words[index:]])


@pytest.fixture
def docs_files(cloud):
  pathlib.Path('requirements.txt').touch()


@pytest.mark.parametrize('example', launch_docs.examples('python -m salt_t5x'))
def test_examples_of_the_docs(cloud, docs_files, capfd, example):
  assert follow_docs(example, '--dry_run') == 0
  assert commands_shown(capfd.readouterr().out)
  assert not cloud.calls()


def test_the_documented_sequence(cloud, docs_files, capfd):
  example = launch_docs.examples('python -m salt_t5x.launch.gce run')[0]
  assert follow_docs(example) == 0
  recorded = [documented(['gcloud', *c['argv']]) for c in cloud.calls()]
  expected = [shlex.split(line) for line in launch_docs.sequence()]
  assert len(recorded) == len(expected)
  for command, words in zip(recorded, expected, strict=True):
    if words[-1].endswith(' ...'):
      # The command line of the run is the example's own.
      start = words[-1].removesuffix('...')
      assert command[-1].startswith(start)
      assert (
        shlex.split(command[-1])[4:]
        == shlex.split(example)[shlex.split(example).index('--') + 2 :]
      )
      command, words = command[:-1], words[:-1]
    assert command == words


def test_work_of_each_worker(cloud, capfd):
  assert gce.main(flags('run', '--keep')) == 0
  capfd.readouterr()
  for worker in ('0', '1'):
    home = cloud.vm / worker
    run = home / 'salt_t5x_run'
    assert stat.S_IMODE(run.stat().st_mode) == 0o700
    started = (home / 'started').read_text()
    assert started.startswith(f'{run}/venv/bin/python -m salt_t5x.train ')
    assert started.endswith("--gin.MODEL_DIR='gs://bucket/a folder'\n")
    environment = (home / 'environment').read_text()
    assert f'DATA_TOKEN={SECRET}\n' in environment
    assert 'SALT_T5X_PILE=gs://bucket/the pile\n' in environment
    assert 'FROM_SETUP=1\n' in environment
    assert f'PWD={run}/files\n' in environment
    assert (run / 'files' / 'my_project' / 'student.gin').exists()
    assert (run / 'files' / 'was_set_up').exists()
    assert (run / 'exit_code').read_text() == '0\n'
    assert not (run / 'secrets').exists()


def test_secrets_are_not_shown_or_kept(cloud, capfd, tmp_path):
  assert gce.main(flags('run', '--keep')) == 0
  text = SECRET.splitlines()[0]
  assert text in (cloud.vm / '0' / 'environment').read_text()
  assert text not in ''.join(capfd.readouterr())
  assert text not in json.dumps(cloud.calls())
  assert 'hunter2' not in json.dumps(cloud.calls())
  (copied,) = [
    call['copied']['secrets']
    for call in cloud.calls()
    if 'secrets' in call.get('copied', {})
  ]
  content = f'DATA_TOKEN={shlex.quote(SECRET)}\n'
  assert copied == ['0o600', hashlib.sha256(content.encode()).hexdigest()]
  # Neither here nor there is the file left.
  for path in tmp_path.rglob('*'):
    if path.is_file() and path.name != 'environment':
      assert 'hunter2' not in path.read_text(), path
  nothing = hashlib.sha256(b'').hexdigest()
  assert {call['stdin'] for call in cloud.calls()} == {nothing}


@pytest.mark.parametrize('step', [CREATE, COPY, INSTALL, SECRETS, START])
def test_failed_step_deletes_the_vm(cloud, capfd, step):
  cloud.plan(**{f'call_{step}': 'fails'})
  assert gce.main(flags()) == 1
  assert not cloud.vm.exists()
  # Of the first creation there is nothing to ask.
  asked = [] if step == CREATE else ['describe']
  assert cloud.actions() == [*ACTIONS[: step + 1], *asked, 'delete']
  _, error = capfd.readouterr()
  assert f'tpu-vm {ACTIONS[step]}' in error
  assert 'INTERNAL: this call was to fail' in error


def test_waits_for_a_new_vm(cloud):
  cloud.plan(**{f'call_{MKDIR}': 'drops'})
  assert gce.main(flags('run', '--max_restarts=0')) == 0
  assert cloud.actions() == [
    *ACTIONS[: MKDIR + 1],
    'describe',
    *ACTIONS[MKDIR:],
  ]


def test_gives_up_on_an_unreachable_vm(cloud, monkeypatch):
  monkeypatch.setattr(tpu_run, '_CONNECTIONS', 2)
  cloud.plan(every_ssh='drops')
  assert gce.main(flags()) == 1
  assert cloud.actions().count('ssh') == 2
  assert not cloud.vm.exists()


@pytest.mark.parametrize('step', [CREATE, INSTALL])
def test_reports_vms_that_cannot_be_deleted(cloud, capfd, step):
  cloud.plan(**{f'call_{step}': 'fails', 'every_delete': 'fails'})
  assert gce.main(flags()) == 1
  _, error = capfd.readouterr()
  assert error.endswith(
    'cost money. To delete it:\n  gcloud compute tpus tpu-vm delete '
    'salt-student --zone=us-central2-b --project=my-project --quiet\n'
  )


def test_keep(cloud, capfd):
  cloud.plan(**{f'call_{INSTALL}': 'fails'})
  assert gce.main(flags('run', '--keep')) == 1
  assert 'delete' not in cloud.actions()
  shown, _ = capfd.readouterr()
  assert 'To delete it:\n# gcloud compute tpus tpu-vm delete' in shown


def test_keeps_an_existing_vm(cloud, capfd):
  assert gce.main(flags('run', '--keep')) == 0
  before = len(cloud.calls())
  assert gce.main(flags()) == 1
  assert cloud.actions()[before:] == ['describe']
  assert 'a VM of this name exists already (READY)' in capfd.readouterr().err
  assert cloud.vm.exists()


def test_keeps_a_vm_created_by_others(cloud, capfd):
  cloud.plan(call_1='exists')
  assert gce.main(flags()) == 1
  assert 'delete' not in cloud.actions()
  assert 'ALREADY_EXISTS' in capfd.readouterr().err


def test_restarts_after_exit_code_75(cloud, capfd):
  cloud.exit_codes(75)
  assert gce.main(flags()) == 0
  assert cloud.told('start') == 2
  assert cloud.told('install') == cloud.actions().count('create') == 1
  starts = [
    argument
    for call in cloud.calls()
    for argument in call['argv']
    if 'remote.sh start' in argument
  ]
  assert len(set(starts)) == 1
  assert not cloud.vm.exists()
  assert 'Restart 1 of 10.' in capfd.readouterr().out


def test_restarts_are_bounded(cloud, capfd):
  cloud.exit_codes(75, 75, 75)
  assert gce.main(flags('run', '--max_restarts=1')) == 1
  assert cloud.told('start') == 2
  assert not cloud.vm.exists()
  assert 'more than --max_restarts=1 times' in capfd.readouterr().err


@pytest.mark.parametrize('code', [1, 143])
def test_other_exit_codes_end_the_run(cloud, capfd, code):
  cloud.exit_codes(code)
  assert gce.main(flags()) == 1
  assert cloud.told('start') == 1
  assert not cloud.vm.exists()
  _, error = capfd.readouterr()
  assert f'ended with exit code {code}, which a restart' in error
  # Every worker shows the end of its log, the first one all of it.
  assert error.count('python -m salt_t5x.train') == 2


def test_workers_without_exit_codes_end_the_run(cloud, capfd, monkeypatch):
  monkeypatch.setattr(tpu_run.TpuRun, '_follow', lambda self: '')
  assert gce.main(flags()) == 1
  assert cloud.told('start') == 1
  assert 'The workers reported no exit codes' in capfd.readouterr().err


@pytest.mark.parametrize(
  'step, happening',
  [
    (COPY, 'vanished'),
    (START, 'preempted'),
    (FOLLOW, 'preempted'),
    (RESULT, 'vanished'),
  ],
)
def test_replaces_a_vm_that_is_gone(cloud, step, happening):
  cloud.exit_codes(75)
  cloud.plan(**{f'call_{step}': happening})
  assert gce.main(flags()) == 0
  assert cloud.actions().count('create') == 2
  # One that is preempted has to be deleted first.
  assert cloud.actions().count('delete') == 1 + (happening == 'preempted')
  assert not cloud.vm.exists()


def test_retries_to_create_the_next_vm(cloud, capfd):
  # The VM is preempted; the next two cannot be created.
  cloud.plan(call_7='vanished', call_10='fails', call_12='fails')
  assert gce.main(flags()) == 0
  assert cloud.actions()[7:15] == [
    *['ssh', 'describe', 'describe'],
    *['create', 'describe', 'create', 'describe', 'create'],
  ]
  assert not cloud.vm.exists()


def test_follows_again_after_a_lost_connection(cloud, capfd):
  cloud.plan(call_7='drops', call_9='drops')
  assert gce.main(flags()) == 0
  assert cloud.told('start') == 1
  assert cloud.told('follow') == 3
  assert 'The connection failed' in capfd.readouterr().out


def test_gives_up_when_connections_keep_failing(cloud, monkeypatch):
  monkeypatch.setattr(tpu_run, '_CONNECTIONS', 2)
  cloud.plan(call_7='drops', call_9='drops')
  assert gce.main(flags()) == 1
  assert not cloud.vm.exists()


@pytest.mark.parametrize('interrupt', [signal.SIGINT, signal.SIGTERM])
def test_attaches_after_an_interruption(cloud, capfd, interrupt):
  (cloud.folder / 'wait').touch()
  # A session in the background, as this one may be, ignores SIGINT.
  program = ['env', '--default-signal=INT', sys.executable]
  program += ['-m', 'salt_t5x.launch.gce', *flags()]
  environment = os.environ | {
    'PYTHONPATH': str(pathlib.Path(gce.__file__).parents[2])
  }
  launcher = subprocess.Popen(
    program,
    env=environment,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    start_new_session=True,
  )
  for line in launcher.stdout:
    if 'python -m salt_t5x.train' in line and not line.startswith('gcloud'):
      break  # the log
  # As a terminal does; the run on the VM is in a session of its own.
  os.killpg(launcher.pid, interrupt)
  _, error = launcher.communicate(timeout=120)
  assert launcher.returncode == 130
  pid = int((cloud.vm / '0' / 'salt_t5x_run' / 'pid').read_text())
  os.kill(pid, 0)  # goes on
  assert 'delete' not in cloud.actions()
  lines = [line.strip() for line in error.splitlines()]
  attach = lines[lines.index('To follow it again:') + 1]
  delete = lines[lines.index('To end it and delete the VM:') + 1]
  assert shlex.split(delete)[3:5] == ['tpu-vm', 'delete']
  assert 'hunter2' not in error

  (cloud.folder / 'wait').unlink()
  words = shlex.split(attach)
  assert words[:3] == ['python', '-m', 'salt_t5x.launch.gce']
  before = len(cloud.calls())
  assert gce.main(words[3:]) == 0
  assert cloud.actions()[before:] == ['describe', 'ssh', 'ssh', 'ssh', 'delete']
  assert cloud.told('start') == 1
  assert not cloud.vm.exists()


def test_attach_after_a_preemption(cloud):
  assert gce.main(flags('run', '--keep')) == 0
  (cloud.vm / 'state').write_text('PREEMPTED')
  before = len(cloud.calls())
  assert gce.main(flags('attach')) == 0
  assert cloud.actions()[before:] == ['describe', 'delete', *ACTIONS[1:]]


def test_attach_needs_a_run(cloud, capfd):
  assert gce.main(flags('attach')) == 1
  assert 'the VM is missing' in capfd.readouterr().err
  cloud.plan(**{f'call_{1 + COPY}': 'fails'})
  assert gce.main(flags('run', '--keep')) == 1
  capfd.readouterr()
  assert gce.main(flags('attach')) == 1
  error = capfd.readouterr().err
  assert 'salt-student has no run, and was not changed' in error
  assert cloud.vm.exists()


def test_delete(cloud, capfd):
  assert gce.main(flags('run', '--keep')) == 0
  where = ['--name=salt-student', '--zone=us-central2-b']
  assert gce.main(['delete', *where, '--dry_run']) == 0
  assert cloud.vm.exists()
  assert gce.main(['delete', *where]) == 0
  assert not cloud.vm.exists()
  # Nothing to delete is no error.
  assert gce.main(['delete', *where]) == 0


def test_without_gcloud(cloud, capfd, monkeypatch):
  monkeypatch.setenv('PATH', '/nowhere')
  assert gce.main(flags()) == 1
  assert 'gcloud is not on the PATH' in capfd.readouterr().err


@pytest.mark.parametrize(
  'more, command, message',
  [
    (['--name=Salt'], COMMAND, "--name='Salt' must look like"),
    (['--name=' + 'a' * 64], COMMAND, 'at most 63'),
    (['--name=salt-'], COMMAND, "--name='salt-' must look like"),
    (['--zone=us-central2'], COMMAND, "--zone='us-central2' must look like"),
    (
      ['--project=My_Project'],
      COMMAND,
      "--project='My_Project' must look like",
    ),
    (['--accelerator_type=v4'], COMMAND, "--accelerator_type='v4' must look"),
    (['--max_restarts=-1'], COMMAND, '--max_restarts=-1: set >= 0'),
    (['--wheel=setup.sh'], COMMAND, "--wheel='setup.sh' must look like"),
    (['--copy=.'], COMMAND, "--copy='.' has no name"),
    (['--copy=my_project/../'], COMMAND, 'has no name: name the folder'),
    (
      ['--env=A=1', '--env=A=2'],
      COMMAND,
      "--env='A=2' must look like NAME=VAL",
    ),
    (['--max_restarts=x'], COMMAND, "invalid int value: 'x'"),
    (['--wheel=salt_t5x-9.whl'], COMMAND, "--wheel='salt_t5x-9.whl' does not"),
    (['--setup_script=no.sh'], COMMAND, "--setup_script='no.sh' does not"),
    (['--setup_script='], COMMAND, "--setup_script='' does not exist"),
    (['--copy=nowhere'], COMMAND, "--copy='nowhere' does not exist"),
    (['--copy=my_project/setup.sh'], COMMAND, 'have the same name'),
    (['--env=NAME'], COMMAND, "--env='NAME' must look like NAME=VALUE"),
    (['--secret_env=NOT_SET'], COMMAND, '--secret_env=NOT_SET: no environment'),
    (['--secret_env=hf_abc-123'], COMMAND, 'name, not its value'),
    (['--env=DATA_TOKEN=1'], COMMAND, '--secret_env=DATA_TOKEN: --env sets it'),
    (['--env=A=' + SECRET], COMMAND, 'its value is in the command line'),
    ([], ['x', f'--gin.TOKEN={SECRET}'], 'its value is in the command line'),
    ([], [], 'The command is missing'),
    ([], ['x', '--gin.MODEL_DIR="/tmp/run"'], 'and is deleted with it'),
    ([], ['x', '--gin_bindings=MODEL_DIR = "/tmp"'], 'and is deleted with it'),
    ([], ['x', "--gin.SCORES_DIR = 'scores'"], 'and is deleted with it'),
  ],
)
def test_rejects_invalid_flags(cloud, capfd, more, command, message):
  pathlib.Path('my_project/setup.sh').touch()
  with pytest.raises(SystemExit) as e:
    gce.main(flags('run', *more, command=command))
  assert e.value.code == 2
  _, error = capfd.readouterr()
  assert message in error
  assert 'hf_abc' not in error
  assert 'hunter2' not in error
  assert not cloud.calls()


def remote(folder, *words, **environment):
  return subprocess.run(
    ['bash', str(folder / 'files' / 'remote.sh'), *words],
    capture_output=True,
    text=True,
    env={'PATH': os.environ['PATH'], **environment},
    check=False,
  )


@pytest.fixture
def worker(tmp_path):
  """A folder as workers have it."""
  (tmp_path / 'files').mkdir()
  path = tmp_path / 'files' / 'remote.sh'
  path.write_text(pathlib.Path(tpu_run.REMOTE).read_text())
  return tmp_path


def test_worker_runs_one_command_at_a_time(worker):
  assert remote(worker, 'start', 'sleep', '600').returncode == 0
  again = remote(worker, 'start', 'true')
  assert again.returncode == 1
  assert 'is still active' in again.stderr
  # One that hangs is ended.
  ended = remote(worker, 'result', '0.1')
  assert ended.stdout == 'exit_code=lost\n'
  assert remote(worker, 'start', 'true').returncode == 0
  assert remote(worker, 'result', '60').stdout == 'exit_code=0\n'


def test_worker_keeps_the_exit_code_of_a_shutdown(worker):
  """SIGTERM reaches all processes; what the command makes of it is kept."""
  program = 'trap "echo saved; exit 75" TERM; echo begun; sleep 600 & wait'
  assert remote(worker, 'start', 'bash', '-c', program).returncode == 0
  follow = subprocess.Popen(
    ['tail', '--follow', '--retry', '--lines=+1', str(worker / 'log')],
    stdout=subprocess.PIPE,
    text=True,
  )
  assert follow.stdout.readline() == 'begun\n'
  os.killpg(int((worker / 'pid').read_text()), signal.SIGTERM)
  ended = remote(worker, 'result', '60')
  assert ended.stdout == 'exit_code=75\n'
  assert 'saved' in ended.stderr
  follow.kill()
  follow.communicate()


def test_worker_keeps_earlier_logs(worker):
  for text in ('first', 'second'):
    remote(worker, 'start', 'echo', text)
    assert remote(worker, 'result', '60').stdout == 'exit_code=0\n'
  assert 'second' in remote(worker, 'follow').stdout
  assert [p.read_text() for p in worker.glob('log.*')] == ['first\n']


def test_worker_rejects_an_old_python(worker):
  (worker / 'python').write_text('#!/bin/sh\nexit 1\n')
  (worker / 'python').chmod(0o755)
  found = remote(worker, 'install', str(worker / 'python'), 'x.whl', '', '')
  assert found.returncode == 1
  assert 'is not Python 3.11 or newer' in found.stderr
  assert not (worker / 'venv').exists()
