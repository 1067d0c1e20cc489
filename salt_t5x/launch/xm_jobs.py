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
import dataclasses
import os
import re
import signal
import sys

from absl import logging
from xmanager import xm, xm_local

from salt_t5x.launch import checks, plan

# What asks for the same command again: `salt_t5x.runs.preemption.EXIT_CODE`.
_AGAIN = os.EX_TEMPFAIL
# How XManager's local executor and Vertex AI tell of an exit code.
_EXIT_CODE = r'returned non-zero code: (-?\d+)|non-zero status of (\d+)'
# What `xm_local.Vertex` of XManager 0.8.5 can ask for.
_VERTEX_TPUS = (xm.ResourceType.TPU_V2, xm.ResourceType.TPU_V3)


class JobError(RuntimeError):
  """A job failed, and the experiment with it."""


@dataclasses.dataclass(frozen=True)
class Image:
  """A container image for Vertex AI.

  Attributes:
    base: the image that it begins with: Python 3.11 or newer, and t5x if it is
      to run on that.
    tag: where it is pushed to, HOST/PATH:TAG.
    context: the folder that it is built from, which holds the next two.
    wheel: of this package.
    requirements: of pip, or None.
  """

  base: str
  tag: str
  context: str
  wheel: str
  requirements: str | None

  def instructions(self) -> list[str]:
    """Docker instructions; the working directory has what the context has."""
    folder = os.path.basename(self.context)
    wheel = os.path.basename(self.wheel)
    install = [f"RUN python -m pip install './{wheel}[t5x,tpu]'"]
    if self.requirements:
      name = os.path.basename(self.requirements)
      install.append(f'RUN python -m pip install --requirement {name}')
    return [
      f'COPY --chown=1000:root {folder}/ /{folder}',
      f'WORKDIR /{folder}',
      *install,
    ]


class Vertex:
  """Jobs on Vertex AI: all that can run at the same time do."""

  title = 'Vertex AI'
  at_a_time = None

  def __init__(self, image: Image, accelerator: str):
    """Constructor.

    Args:
      image: that all jobs run.
      accelerator: as in 'tpu_v3=8', the cores of a TPU slice.

    Raises:
      checks.FlagError: Vertex AI has no such accelerator.
    """
    self.image = image
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

  def packageable(self) -> xm.Packageable:
    return xm.python_container(
      executor_spec=xm_local.Vertex.Spec(push_image_tag=self.image.tag),
      # As the container's first process, Python itself gets the SIGTERM.
      entrypoint=xm.CommandList(['exec python -m "$@"']),
      path=os.path.abspath(self.image.context),
      base_image=self.image.base,
      docker_instructions=self.image.instructions(),
    )

  def executor(self, job: plan.Job) -> xm_local.Vertex:
    requirements = self._requirements
    if not job.needs_accelerator:
      requirements = xm.JobRequirements(cpu=8 * xm.vCPU, ram=30 * xm.GiB)
    return xm_local.Vertex(requirements=requirements)

  def stop(self, unit: xm.ExperimentUnit) -> None:
    unit.stop()

  def clean_up(self, name: str) -> str:
    """How to end what may still run, as a text."""
    return (
      'See what runs with\n  gcloud ai custom-jobs list --region=us-central1 '
      f"--filter='displayName~_{name}$'\nand end it with\n"
      '  gcloud ai custom-jobs cancel JOB --region=us-central1'
    )


class Local:
  """Jobs on this machine, with this Python, one after the other."""

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
    # XManager's own `stop` knows only of jobs elsewhere, and its `terminate`
    # only of the shell that it has run the job; both are in one session.
    for handle in unit._local_execution_handles:
      with contextlib.suppress(ProcessLookupError):
        os.killpg(handle.process.pid, signal.SIGTERM)

  def clean_up(self, name: str) -> str:
    """How to end what may still run, as a text."""
    return f'See what runs with\n  ps -ef | grep salt_t5x  (unit {name})'


def exit_code(error: BaseException) -> int | None:
  """Reads a job's exit code from XManager's error; None if it has none."""
  match = re.search(_EXIT_CODE, str(error))
  return int(match[1] or match[2]) if match else None


@dataclasses.dataclass
class _Runner:
  """Runs jobs in one experiment; see `run`."""

  experiment: xm.Experiment
  where: Vertex | Local
  env_vars: Mapping[str, str]
  max_restarts: int
  done: list[str]

  def __post_init__(self):
    self._running: dict[str, xm.ExperimentUnit] = {}
    self._slots = asyncio.Semaphore(self.where.at_a_time or sys.maxsize)
    self._tasks: dict[str, asyncio.Task] = {}

  async def run(self, jobs: Sequence[plan.Job]) -> None:
    """Runs the jobs, each after those it needs.

    Raises:
      JobError: one failed; the others were stopped.
    """
    [executable] = self.experiment.package([self.where.packageable()])
    try:
      async with asyncio.TaskGroup() as group:
        for job in jobs:
          self._tasks[job.name] = group.create_task(
            self._run_job(job, executable)
          )
    except* JobError as group_error:
      raise group_error.exceptions[0] from None
    finally:
      self._stop_all()

  async def _run_job(self, job: plan.Job, executable: xm.Executable) -> None:
    for need in job.needs:
      await self._tasks[need]
    async with self._slots:
      for restart in range(self.max_restarts + 1):
        unit = await self.experiment.add(
          xm.Job(
            executable=executable,
            executor=self.where.executor(job),
            name=job.name,
            args=list(job.args),
            env_vars=dict(self.env_vars),
          )
        )
        self._running[job.name] = unit
        try:
          await unit.wait_until_complete()
        except xm.ExperimentUnitError as e:
          del self._running[job.name]
          self._raise_or_restart(job, restart, e)
        else:
          del self._running[job.name]
          self.done.append(job.name)
          return

  def _raise_or_restart(
    self, job: plan.Job, restart: int, error: xm.ExperimentUnitError
  ) -> None:
    if exit_code(error) != _AGAIN:
      raise JobError(f'The job {job.name} failed: {error}') from error
    if restart == self.max_restarts:
      raise JobError(
        f'The job {job.name} was stopped, and --max_restarts='
        f'{self.max_restarts} is used up.'
      ) from error
    logging.warning(
      '%s was stopped and goes on. Restart %d of %d.',
      job.name,
      restart + 1,
      self.max_restarts,
    )

  def _stop_all(self) -> None:
    for name, unit in self._running.items():
      logging.warning('Stopping %s.', name)
      try:
        self.where.stop(unit)
      except Exception as e:  # Whatever it is, the others are to be stopped.
        logging.error(
          'The job %s could not be stopped: %s\nIt may still run, and cost '
          'money. %s',
          name,
          e,
          self.where.clean_up(unit.experiment_unit_name),
        )


async def run(
  title: str,
  jobs: Sequence[plan.Job],
  where: Vertex | Local,
  env_vars: Mapping[str, str],
  max_restarts: int,
  done: list[str],
) -> None:
  """Runs an experiment's jobs, each after those it needs, to their end.

  Args:
    title: of the experiment.
    jobs: in an order in which they can run.
    where: to run them.
    env_vars: for all jobs; secrets as `checks.Secret`, which libraries do not
      print.
    max_restarts: how often a job may be started again.
    done: gets the names of the jobs that have finished.

  Raises:
    JobError: a job failed. No other runs any more, unless the log says so.
  """
  try:
    async with xm_local.create_experiment(title) as experiment:
      await _Runner(experiment, where, env_vars, max_restarts, done).run(jobs)
  except RuntimeError:
    # When it is left, an experiment raises the errors of local jobs once more,
    # of those that were started again, too.
    if len(done) < len(jobs):
      raise
