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
from typing import Any

from absl import logging
from xmanager import xm, xm_local

from salt_t5x.launch import checks, plan

# The exit code of an interrupted job, `salt_t5x.runs.preemption.EXIT_CODE`.
_AGAIN = os.EX_TEMPFAIL
# In the errors of XManager's local executor and of Vertex AI.
_INTERRUPTED = rf'(returned non-zero code:|non-zero status of) {_AGAIN}\b'
# The TPUs that `xm_local.Vertex` of XManager 0.8.5 supports.
_VERTEX_TPUS = (xm.ResourceType.TPU_V2, xm.ResourceType.TPU_V3)


class JobError(RuntimeError):
  """A job failed, and the experiment with it."""


class Vertex:
  """Vertex AI: jobs run as soon as the jobs they need have finished."""

  at_a_time = sys.maxsize
  # How to end a job that could not be stopped, with the unit's name.
  cleanup_hint = (
    'List the running jobs with\n  gcloud ai custom-jobs list '
    "--region=us-central1 --filter='displayName~_%s$'\nand cancel it with\n"
    '  gcloud ai custom-jobs cancel JOB --region=us-central1'
  )

  def __init__(self, flags: Any, context: str):
    """Constructor.

    Args:
      flags: the flags of `xm_salt`, as attributes.
      context: the folder that the image is built from.

    Raises:
      checks.FlagError: Vertex AI does not offer the accelerator.
    """
    self._flags = flags
    self.context = context
    kind, _, amount = flags.accelerator.partition('=')
    try:
      self._requirements = xm.JobRequirements({kind: amount})
    except (KeyError, ValueError) as e:
      raise checks.FlagError(
        f"--accelerator={flags.accelerator!r} must look like 'tpu_v3=8': {e}"
      ) from e
    if self._requirements.accelerator not in _VERTEX_TPUS:
      raise checks.FlagError(
        f"--accelerator={flags.accelerator!r}: XManager's Vertex executor "
        'takes tpu_v2 and tpu_v3. For other TPUs use salt_t5x.launch.gce.'
      )

  def docker_instructions(self) -> list[str]:
    """Returns instructions that install the package where jobs run."""
    folder = os.path.basename(self.context)
    wheel = os.path.basename(self._flags.wheel)
    install = [f"RUN python -m pip install './{wheel}[t5x,tpu]'"]
    if path := self._flags.requirements:
      name = os.path.basename(path)
      install.append(f'RUN python -m pip install --requirement {name}')
    return [
      f'COPY --chown=1000:root {folder}/ /{folder}',
      f'WORKDIR /{folder}',
      *install,
    ]

  def packageable(self) -> xm.Packageable:
    return xm.python_container(
      executor_spec=xm_local.Vertex.Spec(push_image_tag=self._flags.image),
      # Without `exec`, the shell and not Python would get the SIGTERM.
      entrypoint=xm.CommandList(['exec python -m "$@"']),
      path=os.path.abspath(self.context),
      base_image=self._flags.base_image,
      docker_instructions=self.docker_instructions(),
    )

  def executor(self, job: plan.Job) -> xm_local.Vertex:
    requirements = self._requirements
    if job.stage == 'selection':  # It runs no model.
      requirements = xm.JobRequirements(cpu=8 * xm.vCPU, ram=30 * xm.GiB)
    return xm_local.Vertex(requirements=requirements)

  def stop(self, unit: xm.ExperimentUnit) -> None:
    unit.stop()


class Local:
  """This machine and this Python: jobs run one after the other."""

  at_a_time = 1
  cleanup_hint = 'List its processes with\n  ps -ef | grep salt_t5x  (unit %s)'

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
  slots = asyncio.Semaphore(where.at_a_time)
  running: dict[str, xm.ExperimentUnit] = {}
  tasks: dict[str, asyncio.Task] = {}

  async def run_job(job: plan.Job) -> None:
    for need in job.needs:
      await tasks[need]
    async with slots:
      for restarts_left in reversed(range(max_restarts + 1)):
        running[job.name] = await experiment.add(
          xm.Job(
            executable=executable,
            executor=where.executor(job),
            name=job.name,
            args=list(job.args),
            env_vars=dict(env_vars),
          )
        )
        # After a cancellation the job is still to be stopped.
        try:
          await running[job.name].wait_until_complete()
        except xm.ExperimentUnitError as e:
          del running[job.name]
          if not re.search(_INTERRUPTED, str(e)):
            raise JobError(f'The job {job.name} failed: {e}') from e
          logging.warning(
            '%s was interrupted. Restarts left: %d.', job.name, restarts_left
          )
        else:
          del running[job.name]
          done.append(job.name)
          return
    raise JobError(
      f'The job {job.name} was interrupted more than --max_restarts='
      f'{max_restarts} times.'
    )

  try:
    async with xm_local.create_experiment(title) as experiment:
      [executable] = experiment.package([where.packageable()])
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
              f'money. {where.cleanup_hint}',
              name,
              e,
              unit.experiment_unit_name,
            )
  except RuntimeError:
    # On exit, an experiment raises the errors of its local jobs again, even of
    # those that were restarted and then finished.
    if len(done) < len(jobs):
      raise
