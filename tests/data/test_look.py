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


"""What `salt_t5x.look` prints is what the model gets, and nothing else."""

import functools
import io
import itertools
import os
import pathlib
import re
import signal
import subprocess
import sys

import numpy as np
import pytest
import sentencepiece
import seqio
import tensorflow as tf

from salt_t5x import command, look
from salt_t5x.data import examples as examples_lib
from salt_t5x.data import render, ul2

T = 96
EXTRA_IDS = 20
TEXT = """def cut(stream, length):
    # The last tokens are dropped, as "Größe" may be.
    return stream[: len(stream) // length * length]

The cat sat on the mat, and the dog lay beside it all day long.
A long line follows: it has to be wrapped to the width of a terminal, and what \
was wrapped must not look like a line of its own.
"""
NO_LIMIT = 10_000


@pytest.fixture(scope='module')
def vocabulary(tmp_path_factory):
  """Pieces for ASCII alone; all other characters are spelt in bytes."""
  model = io.BytesIO()
  sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter(TEXT.replace('ö', '').replace('ß', '').split('\n')),
    model_writer=model,
    vocab_size=360,
    hard_vocab_limit=False,
    pad_id=0,
    eos_id=1,
    unk_id=2,
    bos_id=-1,
    byte_fallback=True,
    normalization_rule_name='identity',
    remove_extra_whitespaces=False,
    add_dummy_prefix=False,
    minloglevel=2,
  )
  path = tmp_path_factory.mktemp('vocabulary') / 'model'
  path.write_bytes(model.getvalue())
  return seqio.SentencePieceVocabulary(str(path), extra_ids=EXTRA_IDS)


@pytest.fixture(scope='module')
def sequences(vocabulary):
  """[N, T] tokens of different cuts of the text; some hold an EOS."""
  tokens = [*vocabulary.encode(TEXT), vocabulary.eos_id] * 2
  assert vocabulary.tokenizer.is_byte(vocabulary.encode('ö')[0])
  return np.array([tokens[i : i + T] for i in range(0, 40, 5)], np.int32)


def source(make):
  return seqio.FunctionDataSource(
    lambda split, shuffle_files, seed=None: make(), splits=['train']
  )


@pytest.fixture(scope='module', autouse=True)
def tasks(vocabulary, sequences):
  """Registers the tasks of this file; other tests keep theirs."""
  feature = seqio.Feature(vocabulary, add_eos=False)
  add = seqio.TaskRegistry.add

  def numbered():
    return tf.data.Dataset.from_tensor_slices(
      {
        'targets': sequences,
        'id': np.arange(len(sequences), dtype=np.int64) + 7000,
        'domain': ['prose'] * len(sequences),
        'epoch': np.zeros(len(sequences), np.int64),
      }
    )

  def documents():
    return tf.data.Dataset.from_tensor_slices(
      {
        'text': ['short\x1b[2J\n\tone\r', 'a' * 1000 + 'b' * 1000],
        'domain': ['web\x07', 'books'],
        'id': ['x/1', 'x/2'],
      }
    )

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(seqio.TaskRegistry, '_REGISTRY', {})
    for name in ul2.DENOISERS:
      rates = [float(name == other) for other in ul2.DENOISERS]
      add(
        name,
        source(numbered),
        preprocessors=[functools.partial(ul2.ul2, rates=rates)],
        output_features={'inputs': feature, 'targets': feature},
      )
    add('targets_only', source(numbered), output_features={'targets': feature})
    add(
      'cached',
      source(numbered),
      preprocessors=[seqio.CacheDatasetPlaceholder(required=True)],
      output_features={'targets': feature},
    )
    add(
      'documents',
      source(documents),
      output_features={
        'text': seqio.Feature(
          seqio.PassThroughVocabulary(0), dtype=tf.string, rank=0
        )
      },
    )
    yield


def printed(name, length=T, **options):
  options = dict(max_tokens=NO_LIMIT) | options
  return list(examples_lib.show(command.find_task(name, []), length, **options))


def examples(lines):
  """The lines of each example, without the legend."""
  rule = '-' * 80
  parts = itertools.groupby(lines, key=lambda line: line == rule)
  return [list(part) for is_rule, part in parts if not is_rule]


def text_of(lines, sign):
  """The text in the margin of that sign, its wrapped lines joined."""
  start, wrapped = f'  {sign} | ', f'  {sign}   '
  text = ''.join(
    '\n' + line[6:] if line.startswith(start) else line[6:]
    for line in lines
    if line.startswith((start, wrapped))
  )
  return text[1:]


def plain(vocabulary, tokens):
  """The text of tokens; SentencePiece's own, but for EOS."""
  runs = itertools.groupby(tokens.tolist(), lambda t: t == vocabulary.eos_id)
  return ''.join(
    '</s>' if is_eos else vocabulary.tokenizer.decode(list(run))
    for is_eos, run in runs
  )


@pytest.mark.parametrize('name', ['causal', 'prefix', 'targets_only'])
def test_shows_all_text_in_order(name, vocabulary, sequences):
  _, *found = examples(printed(name, examples=NO_LIMIT))
  assert len(found) == len(sequences)
  for lines, tokens in zip(found, sequences, strict=True):
    both = [text_of(lines, '='), text_of(lines, '#')]
    assert bool(both[0]) == (name == 'prefix')
    if '\ufffd' not in ''.join(both):  # A cut may part a character.
      assert ''.join(both) == plain(vocabulary, tokens)
    assert not any('original' in line for line in lines)
    assert max(map(len, lines)) <= 80


def test_counts_the_tokens_of_each_example():
  _, *found = examples(printed('prefix', examples=3, skip=2))
  cuts = set()
  for i, lines in enumerate(found, 2):
    assert re.match(
      f'example {i}, denoiser prefix, domain prose, .*id {7000 + i}', lines[0]
    )
    numbers = list(map(int, re.findall(r' (\d+)', lines[1])))
    inputs, targets, loss, padding, width = numbers
    assert (inputs + targets, loss, padding, width) == (T, targets, 0, T)
    assert f'attended in both directions, no loss: {inputs} tokens' in lines
    assert f'causal, with loss: {targets} tokens' in lines
    cuts.add(inputs)
  assert len(cuts) > 1


@pytest.mark.parametrize('name', ['short_spans', 'long_spans'])
def test_restores_the_text_of_corrupted_spans(name, vocabulary, sequences):
  corruption = getattr(ul2, name.upper())
  length = corruption.tokens_read(T)
  _, count = corruption.counts(length)
  _, *found = examples(printed(name, examples=NO_LIMIT))
  for lines, tokens in zip(found, sequences, strict=True):
    mark = r'<extra_id_(\d+)>'
    kept = re.split(mark, text_of(lines, '='))
    spans = re.split(mark, text_of(lines, '#'))
    # Counting up, as seqio's vocabulary names its ids from the end.
    assert kept[1::2] == spans[1::2] == [str(i) for i in range(count)]
    restored = text_of(lines, ' ')
    assert re.findall('\u27e6(.*?)\u27e7', restored, re.DOTALL) == spans[2::2]
    if '\ufffd' not in restored:
      expected = plain(vocabulary, tokens[:length])
      assert re.sub('[\u27e6\u27e7]', '', restored) == expected


BYTES = seqio.ByteVocabulary(extra_ids=10)  # Sentinels count down from 268.


@pytest.mark.parametrize(
  'inputs, targets, expected',
  [
    (
      [100, 268, 101, 267],
      [268, 102, 267, 103],
      'a\u27e6c\u27e7b\u27e6d\u27e7',
    ),
    # The targets were cut: a sentinel without a span remains.
    ([100, 268, 101, 267], [268, 102], 'a\u27e6c\u27e7b<extra_id_1>'),
    # So does a mode token.
    ([259, 100, 268], [268, 101], '<extra_id_9>a\u27e6b\u27e7'),
    ([100, 268], [101, 102], None),
    ([], [268, 101], None),
  ],
)
def test_original(inputs, targets, expected):
  assert render.original(inputs, targets, BYTES) == expected


@pytest.mark.parametrize(
  'inputs, targets',
  [
    ([100, 267, 268], [268, 101, 267, 102]),
    ([100, 268, 101, 268], [268, 102]),
    ([100, 268], [268, 101, 268]),
    ([100, 268, 101, 266], [268, 102, 267, 103, 266, 104]),
  ],
)
def test_original_rejects_sentinels_that_differ(inputs, targets):
  with pytest.raises(ValueError, match='differ in sentinels'):
    render.original(inputs, targets, BYTES)
  row = converted(inputs, targets, 12)
  *_, last = render.row_lines(row, BYTES, 9)
  assert last.startswith('original: CANNOT BE RESTORED')


def row(tokens, loss, attention):
  names = ('target_tokens', 'loss_weights', 'causal_attention')
  values = zip(names, (tokens, loss, attention), strict=True)
  return {f'decoder_{name}': np.array(v, np.int32) for name, v in values}


def converted(inputs, targets, width):
  example = {'inputs': inputs, 'targets': targets}
  return examples_lib.convert(
    {name: np.array(ids, np.int32) for name, ids in example.items()}, width
  )


@pytest.mark.parametrize(
  'features, expected',
  [
    # The id 0 in the targets is padding to the converter: it bears no loss.
    (converted([5, 6, 7], [8, 0, 9, 9], 10), '===#.##   '),
    # Cut short in the inputs; and the whole width used.
    (converted([5] * 9, [6], 8), '=' * 8),
    (converted([5] * 7, [6], 8), '=======#'),
    (converted([], [6, 6], 3), '## '),
    # Loss on an input that the model sees, and on padding.
    (row([5, 6, 7, 0], [0, 1, 1, 0], [1, 1, 1, 0]), '=!# '),
    (row([5, 6, 0, 0], [0, 1, 1, 0], [1, 1, 0, 0]), '=#! '),
  ],
)
def test_signs_position_by_position(features, expected):
  assert render.signs(features) == expected


def test_strip():
  short = '===#.##   '
  assert render.strip(short) == f'|{short}|'
  marks = '=' * 200 + '#' * 120 + ' ' * 80
  assert render.strip(marks, 40) == f'|{"=" * 20}{"#" * 12}{" " * 8}|'
  assert len(render.strip(marks)) == 80
  # The most frequent wins, but no fault is hidden.
  assert render.strip('==#' * 4, 4) == '|====|'
  assert render.strip('=' * 399 + '!', 40) == f'|{"=" * 39}!|'


def test_counts_the_tokens_that_do_not_fit():
  assert 'CUT OFF: 9 tokens' in printed('targets_only', length=T - 9)
  assert not any('CUT' in line for line in printed('targets_only'))


def test_shows_documents_without_tokens():
  lines = printed('documents', length=None, max_tokens=20)
  assert lines[1] == 'example 0, domain web\\x07, id x/1'
  assert lines[2:5] == [
    'text: 20 characters',
    '    | short\\x1b[2J',
    '    | \\tone\\r',
  ]
  assert '    | ... 1,900 characters left out ...' in lines
  assert text_of(lines[6:], ' ').count('a') >= 50
  assert len(lines) < 20


def test_no_control_character_reaches_the_terminal(vocabulary):
  hostile = 'x\x1b[2J\r\x07\x9b1A\u202e\u2028\x00\x7fé\ty'
  escaped = 'x\\x1b[2J\\r\\x07\\x9b1A\\u202e\\u2028\\x00\\x7fé\\ty'
  for chosen in (vocabulary, seqio.ByteVocabulary()):
    assert render.decode(chosen.encode(hostile), chosen) == escaped
  assert render.escape(hostile) == escaped


def test_names_tokens_that_are_no_text(vocabulary):
  ids = [0, 103, 1, 268, 259]
  assert render.decode(ids, BYTES) == '<pad>d</s><extra_id_0><extra_id_9>'
  size = vocabulary.vocab_size
  last = f'<extra_id_{EXTRA_IDS - 1}>'
  assert render.decode([size - EXTRA_IDS], vocabulary) == last
  assert render.decode([7, 30], seqio.PassThroughVocabulary(32)) == '[7, 30]'


@pytest.mark.parametrize(
  'options, message',
  [
    ({'split': 'test'}, '--split=test: set one of train'),
    ({'length': None}, 'has tokens: .* --sequence_length'),
    ({'skip': 100}, 'no example after the first 100'),
  ],
)
def test_rejects_options_that_the_task_does_not_allow(options, message):
  with pytest.raises(examples_lib.FlagError, match=message):
    printed('causal', **options)


def test_another_length_is_told_without_a_word_on_caches():
  with pytest.raises(examples_lib.FlagError) as e:
    printed('causal', T // 2)
  message = str(e.value)
  assert f'have {T} tokens: set it' in message and '--use_c' not in message


@pytest.mark.parametrize('use_cached', [False, True])
def test_a_missing_cache_is_told_with_the_remedy(use_cached):
  with pytest.raises(examples_lib.FlagError, match='seqio_cache_tasks, and'):
    printed('cached', use_cached=use_cached)


@pytest.mark.parametrize(
  'flag',
  ['--sequence_length=0', '--examples=0', '--skip=-1', '--max_tokens=0'],
)
def test_rejects_flags_out_of_range(capsys, flag):
  with pytest.raises(SystemExit):
    look.parse_flags(['look', '--task=t', flag])
  name, value = flag.split('=')
  message = capsys.readouterr().err.splitlines()[-1]
  assert name in message and value in message


def test_command(tmp_path):
  (tmp_path / 'my_tasks.py').write_text("""
from absl import flags
import seqio
import tensorflow as tf

# A user's flag of the same name is no hindrance.
flags.DEFINE_string('task', '', '')
seqio.TaskRegistry.add(
  'bytes',
  seqio.FunctionDataSource(
    lambda split, shuffle_files, seed=None: tf.data.Dataset.from_tensors(
      {'targets': tf.constant([107, 30, 1], tf.int32)}
    ),
    splits=['train'],
  ),
  output_features={'targets': seqio.Feature(seqio.ByteVocabulary())},
)
""")
  root = pathlib.Path(look.__file__).parent.parent
  command = [sys.executable, '-m', 'salt_t5x.look', '--sequence_length=8']
  result = subprocess.run(
    [*command, '--module_import=my_tasks', '--task=bytes'],
    cwd=tmp_path,
    env={**os.environ, 'PYTHONPATH': str(root)},
    capture_output=True,
    text=True,
    check=False,
  )
  assert result.returncode == 0, result.stderr
  lines = result.stdout.split('\n')
  assert '|###     |' in lines
  assert '  # | h\\x1b</s>' in lines


def test_command_exits_with_the_message(monkeypatch):
  monkeypatch.setattr(signal, 'signal', lambda *_: None)
  with pytest.raises(SystemExit, match='has tokens'):
    look.main(look.parse_flags(['', '--task=causal']))
