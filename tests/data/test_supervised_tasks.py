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


"""Tasks of inputs and targets: their order, their tokens, their bad lines."""

import json

from absl import logging
import numpy as np
import pytest
import seqio
import tensorflow as tf

from salt_t5x.data import bad_lines, feature_converters, supervised_tasks
from salt_t5x.evaluation import text_metrics
from salt_t5x.runs import train_data
from t5x import utils

COUNT = 11  # a prime: no number of hosts divides it
VOCABULARY = seqio.ByteVocabulary()
LENGTHS = {'inputs': 32, 'targets': 12}


def write(path, examples):
  lines = [
    x if isinstance(x, bytes) else json.dumps(x).encode() for x in examples
  ]
  path.write_bytes(b'\n'.join(lines) + b'\n')
  return str(path)


def examples(count=COUNT):
  return [{'n': i, 'question': f'double {i}', 'answer': 2 * i}
          for i in range(count)]  # fmt: skip


@pytest.fixture
def register(tmp_path):
  """Registers a task of {split: examples}, for one test."""
  names = []

  def call(splits, **options):
    name = f'supervised_{len(names)}'
    files = {
      split: x if callable(x) else write(tmp_path / f'{name}_{split}.jsonl', x)
      for split, x in splits.items()
    }
    options = (
      dict(
        inputs='{question}',
        targets='{answer}',
        vocabulary=VOCABULARY,
        metric_fns=[text_metrics.accuracy],
      )
      | options
    )
    names.append(name)
    return supervised_tasks.register(name, files, **options)

  yield call
  for name in names:
    seqio.TaskRegistry.remove(name)


def numbers(task, split='train', epochs=1, host=0, hosts=1):
  dataset = task.get_dataset(
    LENGTHS,
    split=split,
    num_epochs=epochs,
    shard_info=seqio.ShardInfo(host, hosts),
  )
  return [
    int(x['inputs_pretokenized'].split()[1])
    for x in dataset.as_numpy_iterator()
  ]


def test_each_epoch_has_an_order_of_its_own(register):
  task = register({'train': examples(), 'validation': examples})
  found = numbers(task, epochs=3)
  epochs = [found[i : i + COUNT] for i in range(0, 3 * COUNT, COUNT)]
  for epoch in epochs:
    assert sorted(epoch) == list(range(COUNT))
  assert len({tuple(epoch) for epoch in epochs}) == 3
  assert list(range(COUNT)) not in epochs
  # It depends on the seed.
  assert numbers(register({'train': examples()}), epochs=3) == found
  assert numbers(register({'train': examples()}, seed=1), epochs=3) != found
  # What is evaluated keeps its order.
  assert numbers(task, 'validation') == list(range(COUNT))
  assert task.num_input_examples('train') == COUNT


@pytest.mark.parametrize('hosts', [2, 3])
def test_hosts_share_one_order(hosts, register):
  task = register({'train': examples()})
  shares = [numbers(task, epochs=hosts, host=i, hosts=hosts)
            for i in range(hosts)]  # fmt: skip
  together = [n for turn in zip(*shares, strict=True) for n in turn]
  assert together == numbers(task, epochs=hosts)


def batches(task, pack=False):
  """Training batches, checked as a run's are."""
  cfg = utils.DatasetConfig(
    mixture_or_task_name=task.name,
    task_feature_lengths=LENGTHS,
    split='train',
    batch_size=2,
    shuffle=False,
    seed=0,
    pack=pack,
  )
  converter = feature_converters.FixedWidthFeatureConverter
  return train_data.get_dataset(cfg, 0, 1, converter, save_dataset=True)


def test_iterators_are_resumed_within_an_epoch(register, tmp_path):
  """Packed ones; test_fine_tune.py has the others."""
  task = register({'train': examples()})
  iterator = iter(batches(task, pack=True))
  for _ in range(8):
    next(iterator)
  path = tf.train.Checkpoint(x=iterator).write(str(tmp_path / 'iterator'))
  expected = [next(iterator) for _ in range(8)]
  resumed = iter(batches(task, pack=True))
  tf.train.Checkpoint(x=resumed).read(path)
  for batch in expected:
    found = next(resumed)
    for name, value in batch.items():
      np.testing.assert_array_equal(found[name], value, err_msg=name)


def test_tokens_and_loss_weights(register):
  long = {'question': 'a question that has no end', 'answer': 'an answer too'}
  data = [{'question': 'one', 'answer': 'two\nlines'}, long]
  task = register({'test': data})
  found = list(task.get_dataset(LENGTHS, split='test').as_numpy_iterator())
  encode = VOCABULARY.encode
  # T is 32, and 12 are the targets': inputs get 20, whatever the targets are.
  assert found[0]['inputs'].tolist() == encode('one')
  assert found[0]['targets'].tolist() == [*encode('two\nlines'), 1]
  assert found[1]['inputs'].tolist() == encode('a question that has ')
  assert found[1]['targets'].tolist() == [*encode('an answer t'), 1]
  assert [x['inputs_cut'] for x in found] == [0, 6]

  converter = feature_converters.FixedWidthFeatureConverter(pack=False)
  converted = converter(task.get_dataset(LENGTHS, split='test'), LENGTHS)
  for example, features in zip(
    found, converted.as_numpy_iterator(), strict=True
  ):
    tokens = [*example['inputs'], *example['targets']]
    padding = [0] * (32 - len(tokens))
    assert features['decoder_target_tokens'].tolist() == tokens + padding
    assert features['decoder_loss_weights'].tolist() == (
      [0] * len(example['inputs']) + [1] * len(example['targets']) + padding
    )


def test_inputs_get_the_length_that_targets_leave(register):
  data = [{'question': 'q' * 30, 'answer': 'a' * n} for n in (3, 40)]
  task = register({'test': data})
  for lengths in ({'targets': 32}, {'inputs': 32, 'targets': 32}):
    found = list(task.get_dataset(lengths, split='test').as_numpy_iterator())
    sizes = [(len(x['inputs']), len(x['targets'])) for x in found]
    assert sizes == [(28, 4), (0, 32)]
  # And whole, where there is no length.
  [example] = task.get_dataset(None, split='test').take(1).as_numpy_iterator()
  assert len(example['inputs']) == 30


def test_functions_make_texts(register):
  task = register(
    {'test': lambda: iter(examples(3))},
    inputs=lambda x: x['question'].upper(),
    targets=lambda x: ['no', 'one', 'two'][x['n']],
  )
  found = task.get_dataset(LENGTHS, split='test').as_numpy_iterator()
  texts = [(x['inputs_pretokenized'], x['targets_pretokenized']) for x in found]
  assert texts == [
    (b'DOUBLE 0', b'no'),
    (b'DOUBLE 1', b'one'),
    (b'DOUBLE 2', b'two'),
  ]


def test_bad_lines_are_left_out_and_counted(register, monkeypatch):
  logged = []
  monkeypatch.setattr(logging, 'warning', lambda *args: logged.append(args))
  good = examples(7001)
  task = register(
    {
      'test': [
        *good[:7000],
        b'{"question": "cut',
        b'',
        b'\xff',
        b'[1]',
        {'question': 'no answer'},
        {'question': 'null', 'answer': None},
        {'question': ' ', 'answer': '1'},
        {'question': '\ud800', 'answer': '1'},
        good[7000],
        b'  ',
        b'',
      ]
    }
  )
  assert numbers(task, 'test') == list(range(7001))
  [(message, name, report)] = logged
  assert (message, name[-5:]) == ('%s: %s.', 'jsonl')
  assert (report.documents, report.lines) == (7001, 7011)
  assert report.counts == {
    bad_lines.BAD_JSON: 2,
    bad_lines.EMPTY: 1,
    bad_lines.NOT_UTF8: 2,
    'no such field': 2,
  }
  assert report.first['no such field'].endswith(
    ":7005: 'answer' is not one of ['question']"
  )


def test_a_function_that_fails_is_a_bad_example(register):
  task = register(
    {'test': examples(101)}, targets=lambda x: '!' if x['n'] < 100 else None
  )
  assert numbers(task, 'test') == list(range(100))


@pytest.mark.parametrize('bad', [1, 9])
def test_small_data_may_lose_no_example(register, bad):
  data = [*examples(10 - bad), *[{'question': 'no answer'}] * bad]
  with pytest.raises(bad_lines.DamagedShardError) as error:
    batches(register({'train': data}))
  assert f'{10 - bad} documents in 10 lines' in str(error.value)
  assert f'{bad} no such field, the first at ' in str(error.value)
  # Likewise where a function gives them.
  task = register({'train': lambda: iter(data)})
  with pytest.raises(bad_lines.DamagedShardError, match='^train split:'):
    batches(task)


@pytest.mark.parametrize(
  'value', [float('nan'), float('inf'), ['4'], {'text': '4'}, True]
)
@pytest.mark.parametrize('targets', ['{answer}', '{answer!r}', '{answer!s:>9}'])
def test_values_that_are_no_texts_are_bad_examples(register, value, targets):
  """pandas writes NaN for gaps; other data sets hold lists of answers."""
  data = [*examples(2), {'question': 'a', 'answer': value}]
  with pytest.raises(bad_lines.DamagedShardError) as error:
    batches(register({'train': data}, targets=targets))
  assert '1 no text or number, the first at ' in str(error.value)
  assert f':3: answer = {value!r}' in str(error.value)


@pytest.mark.parametrize('name', ['inputs', 'targets'])
def test_format_strings_without_a_field_are_refused(register, name):
  with pytest.raises(ValueError, match=f"{name} = 'answer' has no field"):
    register({'test': examples()}, **{name: 'answer'})
  task = register({'test': examples()}, **{name: lambda _: 'the same'})
  assert task.source.num_input_examples('test') == COUNT


@pytest.mark.parametrize('value', [None, 3])
def test_functions_that_return_no_text_are_named(register, value):
  task = register({'train': examples()}, targets=lambda _: value)
  message = f'the function of targets returned {value}'
  with pytest.raises(bad_lines.DamagedShardError, match=message):
    batches(task)


def test_a_byte_order_mark_costs_no_example(register):
  lines = [json.dumps(x).encode() for x in examples(3)]
  task = register({'test': [b'\xef\xbb\xbf' + lines[0], *lines[1:]]})
  assert numbers(task, 'test') == [0, 1, 2]


def test_files_that_cannot_be_used(register, tmp_path):
  task = register({'train': examples()}, inputs='{prompt}')
  with pytest.raises(bad_lines.DamagedShardError) as error:
    batches(task)
  assert "'prompt' is not one of ['answer', 'n', 'question']" in str(
    error.value
  )
  assert '0 documents in 11 lines' in str(error.value)
  with pytest.raises(bad_lines.DamagedShardError, match='holds no document'):
    batches(register({'train': [b'{}']}))
  task = register({'train': examples()})
  (tmp_path / 'supervised_2_train.jsonl').unlink()
  with pytest.raises(tf.errors.NotFoundError, match='supervised_2_train.jsonl'):
    batches(task)


@pytest.mark.parametrize('indent', [None, 2])
def test_arrays_in_place_of_lines_are_named(tmp_path, indent):
  path = tmp_path / 'a.jsonl'
  path.write_text(json.dumps(examples(), indent=indent))
  files = {'train': str(path)}
  source = supervised_tasks.ExampleSource(files, '{question}', '{answer}')
  with pytest.raises(bad_lines.DamagedShardError, match=r'array .* one a line'):
    source.get_dataset('train')


@pytest.mark.parametrize(
  'name, message',
  [
    ('a.jsonl', "a.jsonl is in two splits, train .* and test \\('.*a.jsonl'"),
    ('b.jsonl', r'a.jsonl \(train split\) and .*b.jsonl \(test split\) have'),
  ],
)
def test_splits_with_the_same_examples_are_refused(tmp_path, name, message):
  for file in 'a.jsonl', 'b.jsonl':
    write(tmp_path / file, examples())
  files = {'train': f'{tmp_path}/a.jsonl', 'test': f'{tmp_path}/{name}'}
  source = supervised_tasks.ExampleSource(files, '{question}', '{answer}')
  with pytest.raises(ValueError, match=f'{message}.* would be trained on'):
    source.get_dataset('test')


@pytest.mark.parametrize('name', ['a.jsonl', 'b.jsonl'])
def test_splits_that_are_only_evaluated_may_be_equal(tmp_path, caplog, name):
  """Many give the test split as the validation split."""
  for file in 'a.jsonl', 'b.jsonl':
    write(tmp_path / file, examples())
  files = {'validation': f'{tmp_path}/a.jsonl', 'test': f'{tmp_path}/{name}'}
  source = supervised_tasks.ExampleSource(files, '{question}', '{answer}')
  assert source.num_input_examples('test') == COUNT
  assert 'validation' in caplog.text and 'not independent' in caplog.text


def test_splits_that_are_not_there_may_be_left_unread(tmp_path):
  path = write(tmp_path / 'a.jsonl', examples())
  files = {'train': path, 'test': f'{tmp_path}/missing'}
  source = supervised_tasks.ExampleSource(files, '{question}', '{answer}')
  assert source.num_input_examples('train') == COUNT


def test_text_that_tf_data_cannot_hold(register, monkeypatch):
  monkeypatch.setattr(supervised_tasks, '_MAX_BYTES', 100)
  with pytest.raises(ValueError, match='has 106 bytes of inputs and targets'):
    batches(register({'train': examples()}))


def test_it_is_not_shuffled_twice(register):
  task = register({'train': examples()})
  with pytest.raises(ValueError, match='shuffle = False'):
    task.get_dataset(LENGTHS, shuffle=True)
