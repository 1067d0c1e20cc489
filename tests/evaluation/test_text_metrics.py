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


"""Measures of generated texts, against rouge-score and by hand."""

import decimal

import numpy as np
import pytest

from salt_t5x.evaluation import text_metrics


def test_rouge_by_hand():
  pytest.importorskip('rouge_score')
  targets = ['the cat sat', 'red kites circle\nowls wait in barns']
  predictions = ['the cat ran off', 'owls wait in trees\nred kites circle']
  found = text_metrics.rouge(targets, predictions)
  # First pair: 2 of 3 and 2 of 4 words, 1 of 2 and 1 of 3 pairs of words, and
  # the words are in order. Second pair: 6 of 7 and 6 of 7 words; of 6 pairs
  # each, 4; sentences may stand in another order, and in them 3 and 3 words are
  # the same.
  f = lambda precision, recall: 2 * precision * recall / (precision + recall)
  expected = {
    'rouge1': [f(2 / 4, 2 / 3), 6 / 7],
    'rouge2': [f(1 / 3, 1 / 2), 4 / 6],
    'rougeLsum': [f(2 / 4, 2 / 3), 6 / 7],
  }
  assert found == pytest.approx(
    {name: 100 * np.mean(values) for name, values in expected.items()}
  )


def test_rouge_is_rouge_scores():
  rouge_scorer = pytest.importorskip('rouge_score.rouge_scorer')
  rng = np.random.default_rng(0)
  words = 'a an owl hunts hunting mice, at dusk. Dawn\n\nfinds it asleep'
  words = words.split(' ')
  texts = [' '.join(rng.choice(words, 14)) for _ in range(20)]
  targets, predictions = texts[:10], [*texts[10:19], '']
  found = text_metrics.rouge(targets, predictions)
  for name, value in found.items():
    scorer = rouge_scorer.RougeScorer([name], use_stemmer=False)
    scores = [
      scorer.score(target=a, prediction=b)[name].fmeasure
      for a, b in zip(targets, predictions, strict=True)
    ]
    assert value == pytest.approx(100 * sum(scores) / 10)
    assert 0 < value < 100
  assert list(found) == ['rouge1', 'rouge2', 'rougeLsum']


@pytest.mark.parametrize(
  'text, other',
  [
    ('今天天气很好，我们去公园。', '他昨天买了三本新书。'),
    ('سافر الوزير إلى القاهرة أمس', 'فاز الفريق بالمباراة'),
    ('प्रधानमंत्री ने नई योजना की घोषणा की', 'किताब मेज पर रखी है'),
    ('นายกรัฐมนตรีเดินทางไปเชียงใหม่', 'ฝนตกหนัก'),
    ('Президент выступил с речью', 'Кошка спит дома'),
    ('오늘 서울에 비가 왔다', '고양이 한 마리'),
    ('総理大臣は東京で会見した', 'ねこがいる'),
    ('The CEO said 你好世界 twice', 'Nobody was there'),
    ('公司 Apple 发布了新的手机产品', '他昨天买了三本新书'),
  ],
)
def test_rouge_of_all_scripts(text, other):
  pytest.importorskip('rouge_score')
  same = text_metrics.rouge([text], [text])
  assert same == {'rouge1': 100, 'rouge2': 100, 'rougeLsum': 100}
  different = text_metrics.rouge([text], [other])
  assert different['rouge1'] < 40 and different['rouge2'] < 10
  # Also among targets in English.
  english = 'a cat sat'
  assert text_metrics.rouge([english] * 3 + [text], [english] * 3 + [text]) == (
    same
  )


def test_rouge_tells_words_apart_that_differ_in_their_vowel_signs():
  pytest.importorskip('rouge_score')
  found = text_metrics.rouge(['की बात'], ['कि बीत'])
  assert found['rouge1'] == 0


def test_rouge_of_english_is_rouge_scores_whatever_letters_it_quotes():
  rouge_scorer = pytest.importorskip('rouge_score.rouge_scorer')
  target, prediction = 'The café in Zürich, 北京 β', 'A cafe in Zurich, 北京 γ'
  scorer = rouge_scorer.RougeScorer(['rouge1', 'rouge2', 'rougeLsum'])
  expected = scorer.score(target, prediction)
  assert text_metrics.rouge([target], [prediction]) == pytest.approx(
    {name: 100 * score.fmeasure for name, score in expected.items()}
  )


def test_accuracy():
  targets = ['neutral', 'entailment', 'neutral', 'contradiction']
  predictions = [' neutral\n', 'entail', 'Neutral', 'contradiction']
  assert text_metrics.accuracy(targets, predictions) == {'accuracy': 50}


@pytest.mark.parametrize(
  'text, number',
  [
    ('3 boxes of 4 make 12.\n#### 12', '12'),
    ('#### 1,234,567', '1234567'),
    ('#### $1,050.50.', '1050.5'),
    ('#### -7', '-7'),
    ('#### -$7', '-7'),
    ('#### 18\nThen 4 more', '18'),
    ('3 times 4 is 12, so she has 12.', '12'),
    ('It costs $5.00.', '5'),
    ('between 3-4', '4'),
    ('he owes -.5', '-0.5'),
    ('1, 2, 3,', '3'),
    ('about 50%', '50'),
    ('#### −3', '-3'),  # U+2212
    ('5 − 8 = –3', '-3'),
    ('#### −$3', '-3'),
    ('#### -€3', '-3'),
    ('between 3–4', '4'),
    (r'\boxed{$9{,}500}', '9500'),
    (r'\boxed{\$9\,500}', '9500'),
    ('9\u202f500\u202f000 people', '9500000'),
    ('1/2', '0.5'),
    ('#### -3/4 of a cup', '-0.75'),
    (r'\frac{1}{2}', '0.5'),
    (r'-\dfrac{3}{4}', '-0.75'),
    (r'\frac12', '0.5'),
    ('#### 1 1/2', '1.5'),
    ('-2½', '-2.5'),
    ('½', '0.5'),
    (r'$3\frac{1}{4}$', '3.25'),
    ('on 12/31/2020', '2020'),
    ('#### 7/0', '7'),
    ('1e3', '1000'),
    ('about 1.5e-3.', '0.0015'),
    (r'1.5 \times 10^{3}', '1500'),
    ('2×10^3', '2000'),
    ('2 * 10^-2', '0.02'),
    ('1e999999999', '999999999'),  # Without a number of so many digits.
    ('#### 50%', '50'),
    (r'50\%', '50'),
    ('#### 12.', '12'),
    ('#### **1,234.50**', '1234.5'),
    ('#### ３５', '35'),
    ('#### none', None),
    ('no idea', None),
    ('', None),
  ],
)
def test_final_number(text, number):
  expected = None if number is None else decimal.Decimal(number)
  assert text_metrics.final_number(text) == expected


def test_gsm8k_accuracy():
  targets = ['2 + 2 = 4\n#### 4', '#### 1,000', '#### 7', '#### 9']
  predictions = ['#### 4.0', 'It is $1000.', '#### 8\n7', '']
  found = text_metrics.gsm8k_accuracy(targets, predictions)
  assert found == {'accuracy': 50}
  with pytest.raises(ValueError, match="'ten' of GSM8K has no number"):
    text_metrics.gsm8k_accuracy(['ten'], ['10'])


@pytest.mark.parametrize('name', ['rouge', 'accuracy', 'gsm8k_accuracy'])
def test_every_target_has_a_prediction(name):
  if name == 'rouge':
    pytest.importorskip('rouge_score')
  with pytest.raises(ValueError, match='shorter'):
    getattr(text_metrics, name)(['1', '2'], ['1'])
