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

"""Appendix F's benchmarks: their domains, metrics and shots.

`PAPER` is all of them, in the order of Table 12; `SEARCH` is the 14 that App. G
searches hyperparameters with. A task's name is also that of its folder of local
data (`loading`).
"""

from collections.abc import Sequence
import dataclasses

DOMAINS = (
  'World Knowledge',
  'Reading Comprehension',
  'Commonsense Reasoning',
  'LAMBADA',
  'SuperGLUE',
  'NLG',
  'MBPP',
)


@dataclasses.dataclass(frozen=True)
class Benchmark:
  """One task.

  Attributes:
    name: the name in `SUITE` and of the folder of local data.
    title: the paper's name for it.
    domain: the paper's domain.
    metric: the paper's name for the measure: EM, F1, Acc or Rg2.
    task: lm-eval's name of the task, or a YAML file of this package.
    measure: lm-eval's name of the metric.
    folder: the folder of lm-eval's tasks that holds the task; None for tasks of
      this package.
    shots: demonstrations in a prompt.
    max_tokens: the most tokens of a generated answer, at most half of the
      model's length; None for tasks that generate nothing. The paper gives no
      numbers.
  """

  name: str
  title: str
  domain: str
  metric: str
  task: str
  measure: str
  folder: str | None = None
  shots: int = 1
  max_tokens: int | None = None

  @property
  def runs_programs(self) -> bool:
    """Whether evaluation executes what the model writes."""
    return self.name == 'mbpp'


def _domain(domain: str, *rows: tuple) -> tuple[Benchmark, ...]:
  return tuple(
    Benchmark(name, title, domain, metric, task, measure, folder, **options)
    for name, title, metric, task, measure, folder, options in rows
  )


_ANSWER = {'max_tokens': 32}
_SUMMARY = {'max_tokens': 128}

# Where lm-eval divides log-likelihoods by the answers' lengths as well, that
# accuracy is taken: it is the one whose values are like the paper's.
PAPER = (
  *_domain(
    DOMAINS[0],
    ('nq_open', 'NaturalQuestions-Open', 'EM', 'nq_open', 'exact_match',
     'nq_open', _ANSWER),
    ('triviaqa', 'TriviaQA', 'EM', 'triviaqa', 'exact_match', 'triviaqa',
     _ANSWER),
    ('tydiqa_nocontext', 'TyDiQA-NoContext', 'F1', 'salt_tydiqa_nocontext',
     'f1', None, _ANSWER),
    ('webqs', 'WebQuestions', 'EM', 'salt_webqs', 'exact_match', None,
     _ANSWER),
  ),
  *_domain(
    DOMAINS[1],
    ('race_middle', 'RACE-M', 'Acc', 'salt_race_middle', 'acc', None, {}),
    ('race_high', 'RACE-H', 'Acc', 'salt_race_high', 'acc', None, {}),
    ('squadv2', 'SQuADv2', 'EM', 'salt_squadv2', 'exact_match', None,
     _ANSWER),
    ('tydiqa_goldp', 'TyDiQA-GoldP', 'F1', 'tydiqa_goldp_en', 'f1', 'tydiqa',
     _ANSWER),
  ),
  *_domain(
    DOMAINS[2],
    ('arc_easy', 'ARC-E', 'Acc', 'arc_easy', 'acc_norm', 'arc', {}),
    ('arc_challenge', 'ARC-C', 'Acc', 'arc_challenge', 'acc_norm', 'arc', {}),
    ('hellaswag', 'HellaSwag', 'Acc', 'hellaswag', 'acc_norm', 'hellaswag', {}),
    ('openbookqa', 'OpenBookQA', 'Acc', 'openbookqa', 'acc_norm', 'openbookqa',
     {}),
    ('piqa', 'PiQA', 'Acc', 'piqa', 'acc_norm', 'piqa', {}),
    ('storycloze', 'StoryCloze', 'Acc', 'storycloze_2016', 'acc', 'storycloze',
     {}),
    ('winogrande', 'WinoGrande', 'Acc', 'winogrande', 'acc', 'winogrande', {}),
  ),
  *_domain(
    DOMAINS[3],
    ('lambada', 'LAMBADA', 'Acc', 'lambada_openai', 'acc', 'lambada', {}),
  ),
  *_domain(
    DOMAINS[4],
    ('boolq', 'BoolQ', 'Acc', 'boolq', 'acc', 'super_glue/boolq', {}),
    ('cb', 'CB', 'Acc', 'cb', 'acc', 'super_glue/cb', {}),
    ('copa', 'COPA', 'Acc', 'copa', 'acc', 'super_glue/copa', {}),
    ('multirc', 'MultiRC', 'F1', 'salt_multirc', 'f1', None, {}),
    ('rte', 'RTE', 'Acc', 'sglue_rte', 'acc', 'super_glue/rte', {}),
    ('record', 'ReCoRD', 'Acc', 'salt_record', 'acc', None, {}),
    ('wic', 'WiC', 'Acc', 'wic', 'acc', 'super_glue/wic', {}),
    ('wsc', 'WSC', 'Acc', 'wsc', 'acc', 'super_glue/wsc', {}),
  ),
  *_domain(
    DOMAINS[5],
    ('xlsum', 'GEM-XLSum', 'Rg2', 'salt_xlsum', 'rouge2', None, _SUMMARY),
    ('xsum', 'GEM-XSum', 'Rg2', 'salt_xsum', 'rouge2', None, _SUMMARY),
    ('wikilingua', 'WikiLingua', 'Rg2', 'salt_wikilingua', 'rouge2', None,
     _SUMMARY),
  ),
  *_domain(
    DOMAINS[6],
    ('mbpp', 'MBPP', 'Acc', 'salt_mbpp', 'pass_at_1', None,
     {'shots': 3, 'max_tokens': 256}),
  ),
)  # fmt: skip

# Appendix G.
SEARCH = tuple(
  benchmark
  for benchmark in PAPER
  if benchmark.name
  in (
    'nq_open',
    'triviaqa',
    'webqs',
    'squadv2',
    'lambada',
    'boolq',
    'cb',
    'copa',
    'rte',
    'wic',
    'wsc',
    'multirc',
    'record',
    'hellaswag',
  )
)


def find(names: str | Sequence[str]) -> tuple[Benchmark, ...]:
  """Looks up a suite.

  Args:
    names: 'paper', 'search', or names of benchmarks.

  Returns:
    Its benchmarks, in the paper's order.

  Raises:
    ValueError: there is no such suite or benchmark.
  """
  if names == 'paper':
    return PAPER
  if names == 'search':
    return SEARCH
  known = [benchmark.name for benchmark in PAPER]
  names = list(names) if isinstance(names, list | tuple) else [names]
  if unknown := [name for name in names if name not in known]:
    raise ValueError(
      f'evaluate.evaluate.suite (SUITE): there is no {unknown[0]!r}; choose '
      f"'paper', 'search' or a list of {known}."
    )
  return tuple(x for x in PAPER if x.name in names)
