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

"""Runs an experiment's jobs with XManager, on Vertex AI or on this machine."""

import asyncio
from collections.abc import Mapping, Sequence
import contextlib
import os
import re
import signal
import sys

from absl import logging
from xmanager import xm, xm_local

from salt_t5x.launch import checks, plan

# The exit code of an interrupted job, `salt_t5x.runs.preemption.EXIT_CODE`.
_AGAIN = os.EX_TEMPFAIL
# Exit codes in the errors of XManager's local executor and of Vertex AI.
_EXIT_CODE = r'returned non-zero code: (-?\d+)|non-zero status of (\d+)'
# The TPUs that `xm_local.Vertex` of XManager 0.8.5 supports.
_VERTEX_TPUS = (xm.ResourceType.TPU_V2, xm.ResourceType.TPU_V3)


class JobError(RuntimeError):
  """A job failed, and the experiment with it."""


class Vertex:
  """Vertex AI: jobs run as soon as the jobs they need have finished."""

  title = 'Vertex AI'
  at_a_time = None

  def __init__(
    self,
    accelerator: str,
    base_image: str,
    image: str,
    context: str,
    wheel: str,
    requirements: str | None = None,
  ):
    """Constructor.

    Args:
      accelerator: the TPU slice of a job and its number of cores, e.g.
        'tpu_v3=8'.
      base_image: a container image with Python 3.11 or newer, and with t5x if
        jobs use the real one.
      image: HOST/PATH:TAG that the jobs' image is pushed to.
      context: the folder that the image is built from.
      wheel: this package's wheel, in the folder `context`.
      requirements: pip's requirements file in the folder `context`, or None.

    Raises:
      checks.FlagError: Vertex AI does not offer the accelerator.
    """
    self.base_image = base_image
    self.image = image
    self.context = context
    self._wheel = os.path.basename(wheel)
    self._requirements_file = os.path.basename(requirements or '')
    kind, _, amount = accelerator.partition('=')
    try:
      requirements = xm.JobRequirements({kind: amount})
    except (KeyError, ValueError) as e:
      raise checks.FlagError(
        f"--accelerator={accelerator!r} must look like 'tpu_v3=8': {e}"
      ) from e
    if requirements.accelerator not in _VERTEX_TPUS:
      raise checks.FlagError(
        f"--accelerator={accelerator!r}: XManager's Vertex executor takes "
        'tpu_v2 and tpu_v3. For other TPUs use salt_t5x.launch.gce.'
      )
    self._requirements = requirements

  def docker_instructions(self) -> list[str]:
    """Returns instructions that install the package where jobs run."""
    folder = os.path.basename(self.context)
    install = [f"RUN python -m pip install './{self._wheel}[t5x,tpu]'"]
    if name := self._requirements_file:
      install.append(f'RUN python -m pip install --requirement {name}')
    return [
      f'COPY --chown=1000:root {folder}/ /{folder}',
      f'WORKDIR /{folder}',
      *install,
    ]

  def packageable(self) -> xm.Packageable:
    return xm.python_container(
      executor_spec=xm_local.Vertex.Spec(push_image_tag=self.image),
      # Without `exec`, the shell and not Python would get the SIGTERM.
      entrypoint=xm.CommandList(['exec python -m "$@"']),
      path=os.path.abspath(self.context),
      base_image=self.base_image,
      docker_instructions=self.docker_instructions(),
    )

  def executor(self, job: plan.Job) -> xm_local.Vertex:
    requirements = self._requirements
    if not job.needs_accelerator:
      requirements = xm.JobRequirements(cpu=8 * xm.vCPU, ram=30 * xm.GiB)
    return xm_local.Vertex(requirements=requirements)

  def stop(self, unit: xm.ExperimentUnit) -> None:
    unit.stop()

  def cleanup_hint(self, name: str) -> str:
    """Returns the commands that end a job which could not be stopped."""
    return (
      'List the running jobs with\n  gcloud ai custom-jobs list '
      f"--region=us-central1 --filter='displayName~_{name}$'\nand cancel the "
      'job with\n  gcloud ai custom-jobs cancel JOB --region=us-central1'
    )


class Local:
  """This machine and this Python: jobs run one after the other."""

  title = 'this machine'
  at_a_time = 1

  def packageable(self) -> xm.Packageable:
    return xm.binary(
      executor_spec=xm_local.Local.Spec(), path=sys.executable, args=['-m']
    )

  def executor(self, job: plan.Job) -> xm_local.Local:
    del job
    return xm_local.Local()

  def stop(self, unit: xm.ExperimentUnit) -> None:
    # XManager's `stop` handles remote jobs only, and its `terminate` reaches
    # only the job's shell; the shell and the job share one session.
    for handle in unit._local_execution_handles:
      with contextlib.suppress(ProcessLookupError):
        os.killpg(handle.process.pid, signal.SIGTERM)

  def cleanup_hint(self, name: str) -> str:
    """Returns the command that lists a job which could not be stopped."""
    return f'List its processes with\n  ps -ef | grep salt_t5x  (unit {name})'


def exit_code(error: BaseException) -> int | None:
  """Reads a job's exit code from XManager's error; None if it has none."""
  match = re.search(_EXIT_CODE, str(error))
  return int(match[1] or match[2]) if match else None


async def _run_all(
  experiment: xm.Experiment,
  jobs: Sequence[plan.Job],
  where: Vertex | Local,
  env_vars: Mapping[str, str],
  max_restarts: int,
  done: list[str],
) -> None:
  """Runs the jobs of one XManager experiment; see `run`."""
  [executable] = experiment.package([where.packageable()])
  slots = asyncio.Semaphore(where.at_a_time or sys.maxsize)
  running: dict[str, xm.ExperimentUnit] = {}
  tasks: dict[str, asyncio.Task] = {}

  async def run_once(job: plan.Job) -> xm.ExperimentUnitError | None:
    unit = await experiment.add(
      xm.Job(
        executable=executable,
        executor=where.executor(job),
        name=job.name,
        args=list(job.args),
        env_vars=dict(env_vars),
      )
    )
    running[job.name] = unit
    error = None
    try:
      await unit.wait_until_complete()
    except xm.ExperimentUnitError as e:
      error = e
    del running[
      job.name
    ]  # After a cancellation the job is still to be stopped.
    return error

  async def run_job(job: plan.Job) -> None:
    for need in job.needs:
      await tasks[need]
    async with slots:
      restarts = 0
      while error := await run_once(job):
        if exit_code(error) != _AGAIN:
          raise JobError(f'The job {job.name} failed: {error}') from error
        if restarts == max_restarts:
          raise JobError(
            f'The job {job.name} was interrupted more than --max_restarts='
            f'{max_restarts} times.'
          ) from error
        restarts += 1
        logging.warning(
          '%s was interrupted. Restart %d of %d.',
          job.name,
          restarts,
          max_restarts,
        )
    done.append(job.name)

  try:
    async with asyncio.TaskGroup() as group:
      for job in jobs:
        tasks[job.name] = group.create_task(run_job(job))
  except* JobError as group_error:
    raise group_error.exceptions[0] from None
  finally:
    for name, unit in running.items():
      logging.warning('Stopping %s.', name)
      try:
        where.stop(unit)
      except Exception as e:  # The other jobs must be stopped, too.
        logging.error(
          'The job %s could not be stopped: %s\nIt may still run and cost '
          'money. %s',
          name,
          e,
          where.cleanup_hint(unit.experiment_unit_name),
        )


async def run(
  title: str,
  jobs: Sequence[plan.Job],
  where: Vertex | Local,
  env_vars: Mapping[str, str],
  max_restarts: int,
  done: list[str],
) -> None:
  """Runs an experiment's jobs, each after the jobs it needs.

  Args:
    title: the experiment's name.
    jobs: in an order in which they can run.
    where: the executor.
    env_vars: environment variables of all jobs; secrets as `checks.Secret`,
      which libraries do not print.
    max_restarts: how often each job may be restarted.
    done: receives the names of the jobs that have finished.

  Raises:
    JobError: a job failed. All others were stopped, unless the log reports
      an error.
  """
  try:
    async with xm_local.create_experiment(title) as experiment:
      await _run_all(experiment, jobs, where, env_vars, max_restarts, done)
  except RuntimeError:
    # On exit, an experiment raises the errors of its local jobs again, even of
    # those that were restarted and then finished.
    if len(done) < len(jobs):
      raise
