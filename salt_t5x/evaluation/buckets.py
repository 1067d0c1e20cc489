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

"""Results on documents that are easy, medium and hard for the teacher (App. M).

Documents of a task are split into tertiles by the teacher's scores, and the
scores of each checkpoint are averaged over each tertile (Tables 5, 24 to 26).
"""

from collections.abc import Mapping, Sequence
import dataclasses
import json
import math
import os
import re
from typing import Any

from matplotlib import figure
import numpy as np
import tensorflow as tf

from salt_t5x import files
from salt_t5x.evaluation import bar_charts
from salt_t5x.standard_errors import standard_error, with_error

BUCKETS = ('easy', 'medium', 'hard')
ALL = 'all'
# Two models are on a par within this number of standard errors.
_ON_A_PAR = 2


@dataclasses.dataclass(frozen=True)
class Mean:
  """The mean of documents' scores.

  Attributes:
    mean: NaN without documents.
    standard_error: its standard error; NaN for fewer than two documents.
    count: the number of documents.
  """

  mean: float
  standard_error: float
  count: int


# {model: {bucket or 'all': the mean of its documents}}
Means = Mapping[str, Mapping[str, Mean]]


@dataclasses.dataclass(frozen=True)
class Task:
  """Results of models in a task.

  Attributes:
    name: the task's name.
    means: mean scores, 0 to 1.
    differences: mean paired differences of a model's scores from those of the
      baseline of the same stage; only for models that have such a baseline.
    without_confidence: the number of documents for which the teacher's
      confidence is NaN.
    missing: models that have no results.
  """

  name: str
  means: Means
  differences: Means
  without_confidence: int
  missing: Sequence[str]


# --- Tertiles and means -------------------------------------------------------


def buckets(scores: np.ndarray, confidences: np.ndarray) -> np.ndarray:
  """Splits documents into tertiles by how hard they are for the teacher.

  Documents rank by score, ties by confidence (NaN is the hardest), further ties
  by position. The document of rank r (from 0) of N is in tertile ⌊3r / N⌋: if N
  is not a multiple of 3, the easier buckets have one document more.

  Args:
    scores: [N] float, the teacher's scores.
    confidences: [N] float, log-likelihoods of the teacher's outputs, nats.

  Returns:
    [N] int, indices into BUCKETS.
  """
  # Stable, and NaN comes last.
  ranks = np.argsort(np.lexsort((-confidences, -scores)))
  return len(BUCKETS) * ranks // max(len(scores), 1)


def per_bucket(
  buckets: np.ndarray, scores_of_models: Mapping[str, np.ndarray]
) -> dict[str, dict[str, Mean]]:
  """Averages scores over buckets.

  Args:
    buckets: [N] int, see `buckets`.
    scores_of_models: {model: [N] scores of the same documents}.

  Returns:
    {model: {bucket: mean}}; the last bucket, 'all', holds all documents.
  """
  rows = {name: buckets == i for i, name in enumerate(BUCKETS)}
  rows[ALL] = np.ones_like(buckets, bool)

  def mean(scores):
    return Mean(
      float(np.mean(scores)) if len(scores) else math.nan,
      standard_error(scores),
      len(scores),
    )

  return {
    model: {name: mean(scores[which]) for name, which in rows.items()}
    for model, scores in scores_of_models.items()
  }


def _stage(model: str) -> str:
  """The '@36K' of 'SALT @36K'; '' for the end of training."""
  return re.search(r'( ?@[^@]*)?$', model)[0]


def measure(
  name: str,
  scores: Mapping[str, np.ndarray],
  teacher: str,
  confidences: np.ndarray,
  baseline: str | None = None,
  missing: Sequence[str] = (),
) -> Task:
  """Averages scores, and differences from the baseline, over buckets.

  Args:
    name: the task's name.
    scores: {model: [N] scores of the same documents, 0 to 1}.
    teacher: the model whose scores define the buckets.
    confidences: [N] float, log-likelihoods of the teacher's outputs, nats.
    baseline: the model, without its stage, that others are compared with. The
      teacher is not compared, because its scores define the buckets.
    missing: models without results.

  Returns:
    The means.
  """
  found = buckets(scores[teacher], confidences)
  differences = {}
  for model in scores:
    of_stage = f'{baseline}{_stage(model)}' if baseline else None
    if of_stage in scores and model not in (of_stage, teacher):
      differences[model] = scores[model] - scores[of_stage]
  return Task(
    name,
    per_bucket(found, scores),
    per_bucket(found, differences),
    int(np.isnan(confidences).sum()),
    missing,
  )


# --- The report ---------------------------------------------------------------


def _cell(mean: Mean, difference: Mean | None) -> str:
  if not mean.count:
    return '–'
  text = with_error(mean.mean, mean.standard_error, 1, scale=100)
  # A single document has no standard error, and so no mark.
  if not difference or not (
    abs(difference.mean) > _ON_A_PAR * difference.standard_error
  ):
    return text
  return f'**{text}**' if difference.mean > 0 else f'*{text}*'


def markdown(
  tasks: Sequence[Task], teacher: str, baseline: str | None = None
) -> str:
  """Formats tables like Table 24, one for each task, in percent."""
  sections = [
    '# Easy, medium and hard documents',
    f'Tertiles by the score of {teacher}, ties by its confidence in its own '
    'output. Percent ± standard error over documents.',
  ]
  if baseline:
    sections.append(
      f'**Better** and *worse* than {baseline} of the same stage by more than '
      f'{_ON_A_PAR} standard errors of the difference, document by document; '
      'unmarked ones are on a par. By chance some 5% of equals are marked.'
    )
  for task in tasks:
    counts = next(iter(task.means.values()))
    header = [f'{name.capitalize()} ({x.count})' for name, x in counts.items()]
    rows = []
    for model, means in task.means.items():
      differences = task.differences.get(model, dict.fromkeys(means))
      cells = map(_cell, means.values(), differences.values())
      rows.append([model, *cells])
    table = files.markdown_table(['model', *header], rows, '-rrrr')
    sections += [f'## {task.name}', table]
    if task.without_confidence:
      sections.append(
        f'The confidence of {teacher} is not a number in '
        f'{task.without_confidence} of {counts[ALL].count} documents; of equal '
        'scores they are the hardest.'
      )
    if task.missing:
      sections.append(f'No results: {", ".join(task.missing)}.')
  return '\n\n'.join(sections) + '\n'


def plot(tasks: Sequence[Task]) -> bytes:
  """Draws each task's buckets as groups of bars, as PNG."""
  columns = min(len(tasks), 3)
  rows = -(-len(tasks) // columns)
  canvas = figure.Figure(
    figsize=(1 + 4.5 * columns, 1 + 3 * rows), layout='constrained'
  )
  axes = canvas.subplots(rows, columns, squeeze=False).ravel()
  models = dict.fromkeys(x for task in tasks for x in task.means)
  missing = dict.fromkeys(BUCKETS, Mean(math.nan, math.nan, 0))
  for axis, task in zip(axes, tasks, strict=False):
    cells = {x: task.means.get(x, missing) for x in models}
    scores = {
      model: [(means[x].mean, means[x].standard_error) for x in BUCKETS]
      for model, means in cells.items()
    }
    bar_charts.draw(axis, BUCKETS, scores)
    # Also where nobody scores.
    top = max(axis.get_ylim()[1], 1)
    axis.set(title=task.name, ylim=(0, top))
    axis.grid(alpha=0.3, axis='y')
  for axis in axes[len(tasks) :]:
    axis.set_axis_off()
  canvas.legend(
    *axes[0].get_legend_handles_labels(),
    loc='outside lower center',
    ncols=min(len(models), 6),
  )
  return files.encode_figure(canvas)


# --- Files --------------------------------------------------------------------


def _data(path: str) -> Any:
  """What identifies the data of a result; None if it does not say."""
  if not tf.io.gfile.exists(path):
    return None
  try:
    return files.read_json_object(path).get('options', {}).get('data')
  except (AttributeError, ValueError) as e:
    raise ValueError(
      f'{path} is damaged ({e}). Delete it, and evaluate again.'
    ) from e


def _read(path: str) -> dict[int, tuple[float, float]]:
  """{document: (score, confidence)}.

  Raises:
    ValueError: a line is not of the form that evaluations write.
  """
  found = {}
  with tf.io.gfile.GFile(path, 'rb') as lines:
    for number, line in enumerate(lines, 1):
      try:
        document = json.loads(line)
        names = ('doc_id', 'score', 'confidence')
        doc_id, score, confidence = (document[name] for name in names)
        confidence = math.nan if confidence is None else confidence
        if type(doc_id) is not int or doc_id in found:
          raise ValueError
        if not {type(score), type(confidence)} <= {int, float}:
          raise TypeError
        found[doc_id] = float(score), float(confidence)
        if not math.isfinite(score):
          raise ValueError
      except (KeyError, OverflowError, TypeError, ValueError) as e:
        raise ValueError(
          f'{path}, line {number}: expected a doc_id of its own, a finite '
          f'score and a confidence, got {line.strip()[:200]!r}. Delete the '
          "checkpoint's results of this task, and evaluate it again."
        ) from e
  if not found:
    raise ValueError(f'{path} holds no documents.')
  return found


def _place(model: str) -> tuple:
  """Orders rows: early stages before later ones, the end of training last."""
  stage = _stage(model)
  number = re.search(r'\d+(\.\d+)?', stage)
  return not stage, float(number[0]) if number else math.inf, stage, model


def read(
  results: str,
  teacher: str,
  baseline: str | None = None,
  tasks: Sequence[str] | None = None,
) -> list[Task]:
  """Reads an evaluation and measures its tasks.

  Args:
    results: the folder of an evaluation.
    teacher: the checkpoint whose results define the buckets.
    baseline: see `measure`.
    tasks: their names; None for all that the teacher has.

  Returns:
    The tasks; their rows are the teacher and the others by stage and name.

  Raises:
    ValueError: there is no such checkpoint or task, a file is damaged, or its
      documents differ from the teacher's.
  """
  available = {}
  if not tf.io.gfile.isdir(results):
    raise ValueError(f'--results={results}: {files.why_missing(results)}.')
  _, folders, _ = next(tf.io.gfile.walk(results))
  # Remote file systems list folders with a slash at the end.
  for model in (x.rstrip('/') for x in folders):
    names = tf.io.gfile.listdir(os.path.join(results, model))
    found = [x.removesuffix('.jsonl') for x in names if x.endswith('.jsonl')]
    if found:
      available[model] = sorted(found)
  for flag, name, known in [
    ('teacher', teacher, available),
    ('baseline', baseline, {x.removesuffix(_stage(x)) for x in available}),
    *(('tasks', name, available.get(teacher)) for name in tasks or ()),
  ]:
    if name is not None and name not in known:
      raise ValueError(
        f'--{flag}={name}: {results} has no such results, only of '
        f'{sorted(known)}.'
      )
  models = [teacher, *sorted(available.keys() - {teacher}, key=_place)]

  def read_task(name):
    found = {
      model: _read(os.path.join(results, model, f'{name}.jsonl'))
      for model in models
      if name in available[model]
    }
    of_teacher = found[teacher]
    data = {x: _data(os.path.join(results, x, f'{name}.json')) for x in found}
    if other := [x for x in found if data[x] != data[teacher]]:
      raise ValueError(
        f'{results}: {other[0]} was evaluated on other data of {name} than '
        f'{teacher} ({data[other[0]]} and {data[teacher]}). Delete the folder '
        'of the older one, and evaluate it again.'
      )
    documents = sorted(of_teacher)
    for model, of_model in found.items():
      if differing := sorted(of_model.keys() ^ of_teacher.keys()):
        raise ValueError(
          f'{results}: {teacher} or {model} lacks document {differing[0]} of '
          f'{name}; {len(differing)} differ. Evaluate both on the same '
          'documents (EXAMPLES).'
        )
    return measure(
      name,
      {x: np.array([y[i][0] for i in documents]) for x, y in found.items()},
      teacher,
      np.array([of_teacher[i][1] for i in documents]),
      baseline,
      [x for x in models if x not in found],
    )

  return [read_task(x) for x in tasks or available[teacher]]
