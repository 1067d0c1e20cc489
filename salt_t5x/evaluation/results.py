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


"""Result files of an evaluation, and the page that compares checkpoints."""

from collections.abc import Mapping, Sequence
import json
import os
from typing import Any

import tensorflow as tf

from salt_t5x import files
from salt_t5x.evaluation import held_out
from salt_t5x.evaluation.few_shot import results as few_shot_results
from salt_t5x.evaluation.few_shot import suite
from salt_t5x.standard_errors import with_error

HELD_OUT = 'held_out'
# The key of a result that is only the reason why a model has no scores.
NOT_FINITE = 'not_finite'


class Store:
  """`<checkpoint>/<measurement>.json`, and `.jsonl` of its documents."""

  def __init__(self, output_dir: str):
    self._output_dir = output_dir

  def path(self, *names: str) -> str:
    """Returns a path below the output directory."""
    return os.path.join(self._output_dir, *names)

  def has(
    self, checkpoint: str, measurement: str, options: Mapping[str, Any]
  ) -> bool:
    """Whether the store has a result.

    Raises:
      ValueError: the result is damaged or was made with other options.
    """
    path = self.path(checkpoint, f'{measurement}.json')
    files.claim(
      path,
      {'options': options},
      what=path,
      remedy='Choose another evaluate.evaluate.output_dir (OUTPUT_DIR), or '
      'delete the file.',
      write=False,
    )
    return tf.io.gfile.exists(path)

  def write(
    self,
    checkpoint: str,
    measurement: str,
    options: Mapping[str, Any],
    result: Mapping[str, Any],
    documents: Sequence[Mapping[str, Any]],
  ) -> None:
    """Writes the documents, and then the result that marks completion."""
    path = self.path(checkpoint, f'{measurement}.jsonl')
    if documents:
      lines = ''.join(json.dumps(x) + '\n' for x in documents)
      files.write_whole(path, lines.encode())
    elif tf.io.gfile.exists(path):
      tf.io.gfile.remove(path)  # Of an earlier result, which was deleted.
    files.write_json(
      self.path(checkpoint, f'{measurement}.json'),
      {'options': options, 'result': result},
    )

  def read(self, checkpoint: str, measurement: str) -> dict[str, Any]:
    """Reads a result; NaN and infinities are None.

    Raises:
      ValueError: it is missing or damaged.
    """
    path = self.path(checkpoint, f'{measurement}.json')
    try:
      return files.read_json_object(path)['result']
    except (KeyError, ValueError) as e:
      raise ValueError(
        f'{path} is not a result of an evaluation ({e!r}). Delete it, and '
        'evaluate again.'
      ) from e


def report(
  store: Store,
  checkpoints: Sequence[str],
  measurements: Sequence[str],
  missing: Mapping[str, str],
  supervised_tasks: Sequence[str],
  write: bool,
) -> str:
  """Formats the tables.

  Args:
    store: holds every measurement of every checkpoint.
    checkpoints: names of checkpoints, in the order of columns.
    measurements: names of measurements.
    missing: {few-shot benchmark: why it was not run}.
    supervised_tasks: measurements that are fine-tuning tasks.
    write: whether to write results.md, results.json and results.png.

  Returns:
    The text of results.md.
  """
  found = {
    checkpoint: {name: store.read(checkpoint, name) for name in measurements}
    for checkpoint in checkpoints
  }
  without = {
    checkpoint: problems
    for checkpoint, results in found.items()
    if (
      problems := {
        name: result[NOT_FINITE]
        for name, result in results.items()
        # A domain of held-out text may have this name; its value is a dict.
        if isinstance(result.get(NOT_FINITE), str)
      }
    )
  }
  found = {x: results for x, results in found.items() if x not in without}
  sections = ['# Results']
  sections += [
    f'{checkpoint} has no scores, since its outputs are not finite: '
    f'{"; ".join(f"{name}: {why}" for name, why in problems.items())}.'
    for checkpoint, problems in without.items()
  ]
  if not found:
    measurements, missing = [], {}
  if HELD_OUT in measurements:
    table = held_out.markdown({x: y[HELD_OUT] for x, y in found.items()})
    sections += ['## Held-out text', table]
  if supervised_tasks and found:
    table = _supervised_table(found, supervised_tasks)
    sections += ['## Supervised tasks', table]
  others = {HELD_OUT, *supervised_tasks}
  few_shot = [name for name in measurements if name not in others]
  png = None
  if few_shot or missing:
    benchmarks = suite.find([*few_shot, *missing])
    sections += [
      '## Few-shot, domains',
      few_shot_results.domains_table(found, benchmarks),
      '## Few-shot, tasks',
      few_shot_results.tasks_table(found, benchmarks),
    ]
    if few_shot:
      png = few_shot_results.plot(found, benchmarks)
      sections += ['![Few-shot results](results.png)']
    if missing:
      sections += [few_shot_results.missing_list(missing)]
  text = '\n\n'.join(x.strip() for x in sections) + '\n'
  if write:
    content = {'results': found, 'missing': missing, NOT_FINITE: without}
    files.write_json(store.path('results.json'), content)
    files.write_whole(store.path('results.md'), text.encode())
    if png:
      files.write_whole(store.path('results.png'), png)
  return text


def _supervised_table(
  found: Mapping[str, Mapping[str, Any]], tasks: Sequence[str]
) -> str:
  """A row for each metric of each task (Table 4)."""
  rows = []
  for task in tasks:
    results = [of_model[task] for of_model in found.values()]
    for metric in results[0]['metrics']:
      cells = [
        with_error(x['metrics'][metric], x['errors'].get(metric), 2)
        for x in results
      ]
      rows.append([task, metric, results[0]['examples'], *cells])
  return files.markdown_table(['task', 'metric', 'examples', *found], rows)
