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

# {lm-eval's name of a measure: (the paper's name, the most tokens of a
# generated answer)}. The paper does not limit answers.
_MEASURES = {
  'exact_match': ('EM', 32),
  'f1': ('F1', 32),
  'acc': ('Acc', None),
  'acc_norm': ('Acc', None),
  'rouge2': ('Rg2', 128),
  'pass_at_1': ('Acc', 256),
}


@dataclasses.dataclass(frozen=True)
class Benchmark:
  """One task.

  Attributes:
    domain: the paper's domain.
    name: the name in `SUITE` and of the folder of local data.
    title: the paper's name for it.
    measure: lm-eval's name of the metric.
    task: lm-eval's name of the task, or a YAML file of this package.
    folder: the folder of lm-eval's tasks that holds the task; None for tasks of
      this package.
  """

  domain: str
  name: str
  title: str
  measure: str
  task: str
  folder: str | None = None

  @property
  def metric(self) -> str:
    """The paper's name for the measure: EM, F1, Acc or Rg2."""
    return _MEASURES[self.measure][0]

  @property
  def max_tokens(self) -> int | None:
    """The most tokens of a generated answer, at most half the model's T."""
    return _MEASURES[self.measure][1]

  @property
  def runs_programs(self) -> bool:
    """Whether evaluation executes what the model writes."""
    return self.name == 'mbpp'

  @property
  def shots(self) -> int:
    """The number of demonstrations in a prompt."""
    return 3 if self.name == 'mbpp' else 1


# Where lm-eval divides log-likelihoods by the answers' lengths as well, that
# accuracy is taken: it is the one whose values are like the paper's.
_ROWS = {
  'World Knowledge': [
    ('nq_open', 'NaturalQuestions-Open', 'exact_match', 'nq_open', 'nq_open'),
    ('triviaqa', 'TriviaQA', 'exact_match', 'triviaqa', 'triviaqa'),
    ('tydiqa_nocontext', 'TyDiQA-NoContext', 'f1', 'salt_tydiqa_nocontext'),
    ('webqs', 'WebQuestions', 'exact_match', 'salt_webqs'),
  ],
  'Reading Comprehension': [
    ('race_middle', 'RACE-M', 'acc', 'salt_race_middle'),
    ('race_high', 'RACE-H', 'acc', 'salt_race_high'),
    ('squadv2', 'SQuADv2', 'exact_match', 'salt_squadv2'),
    ('tydiqa_goldp', 'TyDiQA-GoldP', 'f1', 'tydiqa_goldp_en', 'tydiqa'),
  ],
  'Commonsense Reasoning': [
    ('arc_easy', 'ARC-E', 'acc_norm', 'arc_easy', 'arc'),
    ('arc_challenge', 'ARC-C', 'acc_norm', 'arc_challenge', 'arc'),
    ('hellaswag', 'HellaSwag', 'acc_norm', 'hellaswag', 'hellaswag'),
    ('openbookqa', 'OpenBookQA', 'acc_norm', 'openbookqa', 'openbookqa'),
    ('piqa', 'PiQA', 'acc_norm', 'piqa', 'piqa'),
    ('storycloze', 'StoryCloze', 'acc', 'storycloze_2016', 'storycloze'),
    ('winogrande', 'WinoGrande', 'acc', 'winogrande', 'winogrande'),
  ],
  'LAMBADA': [('lambada', 'LAMBADA', 'acc', 'lambada_openai', 'lambada')],
  'SuperGLUE': [
    ('boolq', 'BoolQ', 'acc', 'boolq', 'super_glue/boolq'),
    ('cb', 'CB', 'acc', 'cb', 'super_glue/cb'),
    ('copa', 'COPA', 'acc', 'copa', 'super_glue/copa'),
    ('multirc', 'MultiRC', 'f1', 'salt_multirc'),
    ('rte', 'RTE', 'acc', 'sglue_rte', 'super_glue/rte'),
    ('record', 'ReCoRD', 'acc', 'salt_record'),
    ('wic', 'WiC', 'acc', 'wic', 'super_glue/wic'),
    ('wsc', 'WSC', 'acc', 'wsc', 'super_glue/wsc'),
  ],
  'NLG': [
    ('xlsum', 'GEM-XLSum', 'rouge2', 'salt_xlsum'),
    ('xsum', 'GEM-XSum', 'rouge2', 'salt_xsum'),
    ('wikilingua', 'WikiLingua', 'rouge2', 'salt_wikilingua'),
  ],
  'MBPP': [('mbpp', 'MBPP', 'pass_at_1', 'salt_mbpp')],
}
DOMAINS = tuple(_ROWS)
PAPER = tuple(
  Benchmark(domain, *row) for domain, rows in _ROWS.items() for row in rows
)
# Appendix G.
SEARCH = tuple(
  x
  for x in PAPER
  if x.domain in ('LAMBADA', 'SuperGLUE')
  or x.name in ('nq_open', 'triviaqa', 'webqs', 'squadv2', 'hellaswag')
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
