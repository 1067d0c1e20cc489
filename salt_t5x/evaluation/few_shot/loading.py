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

"""Makes lm-eval's task objects, from local files or from a hub."""

from collections.abc import Mapping, Sequence
import dataclasses
import hashlib
import os
import pathlib
from typing import Any

from absl import logging
import jinja2
import jinja2.meta
from lm_eval import tasks as lm_eval_tasks
from lm_eval.api import task as lm_eval_task
import tqdm

from salt_t5x.data import bad_lines, equal_files
from salt_t5x.evaluation.few_shot import sandbox, suite

_HERE = pathlib.Path(__file__).parent
# LAMBADA's answers begin with a space of their own: a demonstration must not
# have another. The hub has no other split of it for demonstrations; lm-eval
# then leaves out the document itself.
_OVERRIDES = {'lambada': {'target_delimiter': '', 'fewshot_split': 'test'}}


@dataclasses.dataclass(frozen=True)
class Task:
  """A benchmark that is ready to run.

  Attributes:
    benchmark: the benchmark.
    task: lm-eval's task object.
    source: the local folder, or the hub's data set.
  """

  benchmark: suite.Benchmark
  task: lm_eval_task.ConfigurableTask
  source: str

  @property
  def from_evaluated(self) -> bool:
    """Whether demonstrations come from the other evaluated documents."""
    config = self.task.config
    evaluated = config.test_split or config.validation_split
    return (config.fewshot_split or config.training_split) == evaluated

  @property
  def data(self) -> dict[str, str]:
    """{split: digest of its local file, or of a hub's evaluated documents}."""
    files = (self.task.config.dataset_kwargs or {}).get('data_files')
    digests = {}
    if files is None:
      digest = hashlib.sha256(self.source.encode())
      for document in self.task.eval_docs:
        digest.update(repr(sorted(document.items())).encode())
      return {'hub': digest.hexdigest()[:16]}
    for split, path in files.items():
      content = pathlib.Path(path).read_bytes()
      digests[split] = hashlib.sha256(content).hexdigest()[:16]
    return digests


def load(
  benchmarks: Sequence[suite.Benchmark],
  *,
  data_dir: str | None,
  use_hub: bool,
  run_programs: bool,
  length: int,
) -> tuple[list[Task], dict[str, str]]:
  """Loads the tasks of a suite that are available.

  Args:
    benchmarks: the suite.
    data_dir: a folder, on every host, of `<benchmark>/<split>.jsonl` files,
      whose lines have the fields of the data sets that the tasks name; it goes
      before the hub.
      'test' is evaluated, or else 'validation'; demonstrations come from
      'train' or 'prompt', or else from the evaluated file.
    use_hub: whether to ask the hub for tasks without local files.
    run_programs: whether programs that a model writes may be run.
    length: T of the model; an answer is at most half of it.

  Returns:
    (tasks in the suite's order, {benchmark: why it is missing}).

  Raises:
    ValueError: the folder does not exist, or a file of it cannot be read as
      its task's; or programs cannot be run safely here.
  """
  if data_dir and not os.path.isdir(data_dir):
    raise ValueError(
      f'evaluate.evaluate.data_dir (BENCHMARK_DATA) = {data_dir!r}: there is '
      'no such folder on this host; make it with `python -m '
      'salt_t5x.minipile.benchmark_data`, or set None to read all tasks from '
      'the hub.'
    )
  theirs = pathlib.Path(lm_eval_tasks.__file__).parent
  folders = {theirs / x.folder if x.folder else _HERE for x in benchmarks}
  # Not lm-eval's 14,000 tasks, which take seconds to list.
  manager = lm_eval_tasks.TaskManager(
    include_path=sorted(folders), include_defaults=False
  )
  found, missing = [], {}
  for benchmark in tqdm.tqdm(benchmarks, 'Tasks', leave=False, disable=None):
    name, folder = benchmark.name, os.path.join(data_dir or '', benchmark.name)
    is_local = bool(data_dir) and os.path.isdir(folder)
    if benchmark.runs_programs and not run_programs:
      missing[name] = (
        'it runs the programs that a model writes: set RUN_PROGRAMS = True'
      )
      continue
    if not is_local and not use_hub:
      missing[name] = 'no local files, and USE_HUB = False'
      continue
    if benchmark.runs_programs:
      sandbox.check()
    try:
      options = {'task': benchmark.task, **_OVERRIDES.get(name, {})}
      if is_local:
        options |= _local(folder)
        _check_first(manager.task_index[benchmark.task].cfg or {}, options)
      # Members of a group are tasks with overrides.
      group = {'group': 'salt_t5x', 'task': [options]}
      task = manager.load([group])['tasks'][benchmark.task]
      _check_documents(task)
    except Exception as e:  # pylint: disable=broad-exception-caught
      if is_local:
        raise ValueError(
          f'{folder} cannot be read as {benchmark.title}: {_reason(e)} Mend '
          'its files, or remove the folder.'
        ) from e
      # A hub can fail in any way; the rest of the suite still runs.
      reason = str(e).strip().split('\n')[0]
      missing[name] = f'{type(e).__name__}: {reason}'
      if isinstance(e, ConnectionError):
        logging.warning('The hub cannot be reached: %s', reason)
        use_hub = False
      continue
    task.set_config('num_fewshot', benchmark.shots)
    if task.OUTPUT_TYPE == 'generate_until':
      limit = min(benchmark.max_tokens, length // 2)
      task.set_config('generation_kwargs', {'max_gen_toks': limit}, update=True)
    source = folder if is_local else f'{task.config.dataset_path} (hub)'
    found.append(Task(benchmark, task, source))
  return found, missing


def _reason(error: BaseException) -> str:
  """An error and its causes, which tell more about a file."""
  if isinstance(error, StopIteration):
    return 'a file holds no document.'
  text = f'{type(error).__name__}: {error}'.strip().removesuffix('.') + '.'
  return text + (f' {_reason(error.__cause__)}' if error.__cause__ else '')


def _check_documents(task: lm_eval_task.ConfigurableTask) -> None:
  """Checks for documents that lm-eval would accept silently.

  A field that is missing is 'None' in a prompt, a program without tests passes,
  and an answer that is not among the choices is always wrong; -1 and '' stand
  for one that is kept secret.

  Raises:
    ValueError: there is such a document among those to evaluate.
  """
  config, choices = task.config, task.config.doc_to_choice
  columns = set(task.eval_docs.column_names)
  right = _fields(config.doc_to_target, columns)
  used = right | _fields(config.doc_to_text, columns)
  used |= _fields(choices, columns)
  documents = task.eval_docs.select_columns(sorted(used))
  for number, document in enumerate(documents):
    for name, value in document.items():
      values = value if isinstance(value, list) else [value]
      is_secret = name in right and value in ('', -1)
      if not values or None in values or is_secret:
        raise ValueError(
          f'document {number} (from 0) has {name!r} = {value!r}.'
        )
    _check_choice(number, document, config.doc_to_target, choices)


def _check_first(config: Mapping[str, Any], options: Mapping[str, Any]) -> None:
  """Checks the document that lm-eval takes its answer from at once."""
  path = options['dataset_kwargs']['data_files'][options['test_split']]
  with open(path, 'rb') as file:
    try:
      document = bad_lines.parse_object(next(filter(bytes.strip, file), b'{}'))
    except (ValueError, bad_lines.BadLineError):
      return  # lm-eval says so.
  right, choices = (config.get(f'doc_to_{x}') for x in ('target', 'choice'))
  _check_choice(0, document, right, choices)


def _check_choice(
  number: int, document: Mapping[str, Any], right: Any, choices: Any
) -> None:
  """Raises ValueError if a document's answer is none of its choices."""
  # Where choices depend on the document, so does their number.
  if not isinstance(right, str) or not isinstance(choices, list):
    return
  value = document.get(right)
  if right in document and value not in range(len(choices)):
    allowed = ', '.join(f'{i} ({x!r})' for i, x in enumerate(choices))
    raise ValueError(
      f'document {number} (from 0) has {right!r} = {value!r}, which is none of '
      f'{allowed}.'
    )


def _fields(template: Any, columns: set[str]) -> set[str]:
  """The fields of a document that a template, or a field's name, names."""
  if not isinstance(template, str):
    return set()
  # Nothing is rendered here.
  parsed = jinja2.Environment().parse(template)  # noqa: S701
  return columns & {template, *jinja2.meta.find_undeclared_variables(parsed)}


def _local(folder: str) -> dict[str, Any]:
  """Options that read a benchmark's local files."""
  paths = {
    split: os.path.abspath(os.path.join(folder, f'{split}.jsonl'))
    for split in ('test', 'validation', 'prompt', 'train')
  }
  paths = {split: x for split, x in paths.items() if os.path.exists(x)}
  evaluated = [x for x in paths if x in ('test', 'validation')]
  if not evaluated:
    raise ValueError('there is neither test.jsonl nor validation.jsonl.')
  others = [x for x in paths if x in ('prompt', 'train')]
  # A demonstration could be the document at hand.
  read = evaluated[0], (others or evaluated)[0]
  equal_files.check({x: [paths[x]] for x in read}, paths, learned=read[1])
  return {
    'dataset_path': 'json',
    'dataset_name': None,
    'dataset_kwargs': {'data_files': paths},
    # lm-eval leaves the document at hand out of its demonstrations only where
    # both come from the "test" split.
    'training_split': None,
    'validation_split': None,
    'test_split': read[0],
    'fewshot_split': read[1],
  }
