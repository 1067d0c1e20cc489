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


def source(make, splits=('train',)):
  return seqio.FunctionDataSource(
    lambda split, shuffle_files, seed=None: make(), splits=splits
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
      }
    )

  def pairs():
    return tf.data.Dataset.from_tensor_slices(
      {'inputs': ['The cat', 'the mat'], 'targets': ['sat on', 'the day']}
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
    patch.setattr(seqio.MixtureRegistry, '_REGISTRY', {})
    for name in ul2.DENOISERS:
      rates = [float(name == other) for other in ul2.DENOISERS]
      add(
        name,
        source(numbered),
        preprocessors=[functools.partial(ul2.ul2, rates=rates)],
        output_features={'inputs': feature, 'targets': feature},
      )
    seqio.MixtureRegistry.add('both', ['causal', 'prefix'], default_rate=1)
    add('targets_only', source(numbered), output_features={'targets': feature})
    add(
      'pairs',
      source(pairs, ['train', 'validation']),
      preprocessors=[
        seqio.preprocessors.tokenize,
        seqio.preprocessors.append_eos,
      ],
      output_features={
        name: seqio.Feature(vocabulary) for name in ('inputs', 'targets')
      },
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
    for name, required in (('cachable', False), ('needs_cache', True)):
      add(
        name,
        source(numbered),
        preprocessors=[seqio.CacheDatasetPlaceholder(required)],
        output_features={'targets': feature},
      )
    yield


def printed(name, length=T, **options):
  options = dict(max_tokens=NO_LIMIT) | options
  return list(examples_lib.show(command.find_task(name, []), length, **options))


def examples(lines):
  """The lines of each example; neither the legend nor the table."""
  rule = '-' * 80
  parts = itertools.groupby(lines, key=lambda line: line == rule)
  return [list(part) for is_rule, part in parts if not is_rule][1:-1]


def text_of(lines, sign):
  """The text in the margin of that sign, its wrapped lines joined."""
  start, wrapped = f'  {sign} | ', f'  {sign}   '
  text = ''.join(
    '\n' + line[6:] if line.startswith(start) else line[6:]
    for line in lines
    if line.startswith((start, wrapped))
  )
  return text[1:]


def rebuilt(bits):
  """Puts characters together again that a cut or a sentinel has parted."""
  raw = re.sub(
    rb'\\x([89a-f][0-9a-f])',
    lambda m: bytes([int(m[1], 16)]),
    ''.join(bits).encode(),
  )
  return raw.decode()


def original(vocabulary, tokens):
  """The text of tokens; SentencePiece's own, but for EOS."""
  runs = itertools.groupby(tokens.tolist(), lambda t: t == vocabulary.eos_id)
  return ''.join(
    '</s>' if is_eos else vocabulary.tokenizer.decode(list(run))
    for is_eos, run in runs
  )


@pytest.mark.parametrize('name', ['causal', 'prefix', 'targets_only'])
def test_the_text_in_order(name, vocabulary, sequences):
  found = examples(printed(name, examples=NO_LIMIT))
  assert len(found) == len(sequences)
  for lines, tokens in zip(found, sequences, strict=True):
    both = [text_of(lines, '='), text_of(lines, '#')]
    assert bool(both[0]) == (name == 'prefix')
    assert rebuilt(both) == original(vocabulary, tokens)
    assert not any('original' in line for line in lines)
    assert max(map(len, lines)) <= 80


def test_numbers_are_of_this_example():
  found = examples(printed('prefix', examples=3, skip=2))
  cuts = set()
  for i, lines in enumerate(found):
    assert re.match(
      f'example {2 + i}, denoiser prefix, domain prose, .*id {7002 + i}',
      lines[0],
    )
    numbers = list(map(int, re.findall(r' (\d+)', lines[1])))
    inputs, targets, loss, padding, width = numbers
    assert (inputs + targets, loss, padding, width) == (T, targets, 0, T)
    assert f'attended in both directions, no loss: {inputs} tokens' in lines
    assert f'causal, with loss: {targets} tokens' in lines
    cuts.add(inputs)
  assert len(cuts) > 1


@pytest.mark.parametrize('name', ['short_spans', 'long_spans'])
def test_spans_and_their_brackets(name, vocabulary, sequences):
  corruption = getattr(ul2, name.upper())
  length = corruption.tokens_read(T)
  corrupted, count = corruption.counts(length)
  for lines, tokens in zip(
    examples(printed(name, examples=NO_LIMIT)), sequences, strict=True
  ):
    mark = r'<extra_id_(\d+)>'
    kept = re.split(mark, text_of(lines, '='))
    spans = re.split(mark, text_of(lines, '#'))
    # Counting up, as seqio's vocabulary names its ids from the end.
    assert kept[1::2] == spans[1::2] == [str(i) for i in range(count)]
    assert spans[0] == '' and kept[-1] == ''
    expected = original(vocabulary, tokens[:length])
    assert (
      rebuilt(itertools.chain(*zip(kept[::2], spans[2::2], strict=False)))
      == expected
    )
    restored = text_of(lines, ' ')
    # The text holds square brackets of its own, or not.
    pair = '«»' if set('[]') & set(expected) else '[]'
    assert (
      re.findall(f'[{pair[0]}](.*?)[{pair[1]}]', restored, re.S)
      == (spans[2::2])
    )
    assert rebuilt(c for c in restored if c not in pair) == expected
    assert (
      f'original: {length} tokens, {corrupted} of them in {count} corrupted '
      f'spans, in {pair} here' in lines
    )


def test_restore():
  sentinels = range(90, 100)
  assert render.restore([5, 99, 6, 98], [99, 7, 8, 98, 9], sentinels) == [
    ([5], False),
    ([7, 8], True),
    ([6], False),
    ([9], True),
  ]
  # The targets were cut: what is not known stays.
  assert render.restore([5, 99, 6, 98], [99, 7], sentinels) == [
    ([5], False),
    ([7], True),
    ([6, 98], False),
  ]
  # A sentinel of no span, as a mode token is one.
  assert render.restore([90, 5, 99], [99, 7], sentinels) == [
    ([90, 5], False),
    ([7], True),
  ]
  for inputs, targets in (
    ([5, 98, 99], [99, 7, 98, 8]),
    ([5, 99, 6, 99], [99, 7]),
    ([5, 99], [7, 99]),
    ([5], [99, 7]),
    ([5, 99, 6, 97], [99, 7, 98, 8, 97, 9]),
  ):
    assert render.restore(inputs, targets, sentinels) is None


def row(tokens, loss, attention, **more):
  names = ('target_tokens', 'loss_weights', 'causal_attention')
  values = dict(zip(names, (tokens, loss, attention), strict=True)) | more
  return {f'decoder_{k}': np.array(v, np.int32) for k, v in values.items()}


def converted(inputs, targets, width):
  data = tf.data.Dataset.from_tensors(
    {
      'inputs': tf.constant(inputs, tf.int32),
      'targets': tf.constant(targets, tf.int32),
    }
  )
  return next(examples_lib.convert(data, width).as_numpy_iterator())


def test_signs_and_strip_position_by_position():
  # The id 0 in the targets is padding to the converter: it bears no loss.
  marks = render.signs(converted([5, 6, 7], [8, 0, 9, 9], 10))
  assert marks == '===#.##   '
  assert render.strip(marks) == '|===#.##   |'
  # Cut short in the inputs; and the whole width used.
  assert render.signs(converted([5] * 9, [6], 8)) == '=' * 8
  assert render.signs(converted([5] * 7, [6], 8)) == '=======#'
  assert render.signs(converted([], [6, 6], 3)) == '## '
  # Loss on an input that the model sees, and on padding.
  assert render.signs(row([5, 6, 7, 0], [0, 1, 1, 0], [1] * 3 + [0])) == '=!# '
  assert render.signs(row([5, 6, 0, 0], [0, 1, 1, 0], [1] * 2 + [0] * 2)) == (
    '=#! '
  )


@pytest.mark.parametrize(
  'inputs, targets, expected',
  [
    # A mode token and the EOS of either side are not of the original.
    (
      [259, 100, 268],
      [268, 101, 102],
      ['original: 3 tokens, 2 of them in 1 corrupted spans, in [] here']
      + ['    | a[bc]'],
    ),
    (
      [100, 268, 1],
      [268, 101, 1],
      ['original: 3 tokens, 1 of them in 1 corrupted spans, in [] here']
      + ['    | a[b]</s>'],
    ),
    (
      [100, 268],
      [268, 101, 268],
      ['original: CANNOT BE RESTORED, inputs and targets differ in sentinels'],
    ),
    ([100, 268], [101, 102], []),
  ],
)
def test_original(inputs, targets, expected):
  vocabulary = seqio.ByteVocabulary(extra_ids=10)
  lines = list(render.row_lines(converted(inputs, targets, 8), vocabulary, 9))
  assert [line for line in lines if line.startswith('orig')] == expected[:1]
  assert lines[len(lines) - len(expected) :] == expected


def test_strip_of_many_positions():
  marks = render.signs(converted([5] * 200, [6] * 120, 400))
  assert render.strip(marks, 40) == f'|{"=" * 20}{"#" * 12}{" " * 8}|'
  assert len(render.strip(marks)) == 80
  # The most frequent wins, but no fault is hidden.
  assert render.strip('==#' * 4, 4) == '|====|'
  assert render.strip('=' * 399 + '!', 40) == f'|{"=" * 39}!|'


def test_packed_examples_are_told_apart():
  (lines,) = examples(printed('pairs', pack=True))
  (a, b) = (
    i for i, line in enumerate(lines) if line.startswith('packed example')
  )
  assert lines[0] == 'row 0'
  assert text_of(lines[a:b], '=') == 'The cat</s>'
  assert text_of(lines[a:b], '#') == 'sat on</s>'
  assert text_of(lines[b:], '=') == 'the mat</s>'
  assert text_of(lines[b:], '#') == 'the day</s>'
  numbers = list(map(int, re.findall(r' (\d+)', lines[1])))
  assert sum(numbers[:2]) + numbers[3] == T == numbers[4]
  tokens = sum(int(re.search(r': (\d+)', lines[i])[1]) for i in (a, b))
  assert tokens == numbers[0] + numbers[1]
  # Where one example follows the other, both are whole.
  marks = render.signs(
    row(
      [5, 6, 7, 8, 9, 0],
      [0, 0, 1, 0, 1, 0],
      [1, 1, 1, 1, 1, 0],
      segment_ids=[1, 1, 1, 2, 2, 0],
    )
  )
  assert marks == '==#=# '


def test_what_does_not_fit_is_counted():
  lines = examples(printed('targets_only', length=T - 9))[0]
  assert 'CUT OFF: 9 tokens' in lines
  assert not any('CUT' in line for line in printed('targets_only'))


def test_long_regions_are_shortened(vocabulary, sequences):
  for lines, tokens in zip(
    examples(printed('causal', max_tokens=11)), sequences, strict=False
  ):
    at = lines.index(f'  #   ... {T - 11} tokens left out ...')
    head, tail = text_of(lines[:at], '#'), text_of(lines[at + 1 :], '#')
    assert head == original(vocabulary, tokens[:6])
    assert tail == original(vocabulary, tokens[-5:])


def test_table_counts_the_denoisers():
  lines = printed('both', examples=1, statistics=NO_LIMIT)
  # A mixture keeps the features that its tasks share.
  assert re.match(r'example 0, denoiser (causal|prefix), .*id 70', lines[7])
  assert len(examples(lines)) == 1
  cells = {line.split()[0]: line.split()[1:] for line in lines[-3:]}
  total = int(cells['all'][0])
  assert total > 4
  assert int(cells['causal'][0]) + int(cells['prefix'][0]) == total
  assert cells['causal'][2:] == ['0.0', f'{T:.1f}', '100.0%', '0.0%']
  inputs, targets = map(float, cells['prefix'][2:4])
  assert inputs > 0 and inputs + targets == pytest.approx(T, abs=0.11)


def test_documents_without_tokens():
  lines = printed('documents', length=None, max_tokens=20)
  assert lines[1] == 'example 0, domain web\\x07, id x/1'
  assert lines[2:5] == [
    'text: 15 characters',
    '    | short\\x1b[2J',
    '    | \\tone\\r',
  ]
  assert '      ... 1,900 characters left out ...' in lines
  assert text_of(lines[6:], ' ').count('a') >= 50
  assert len(lines) < 20


HOSTILE = 'x\x1b[2J\r\x07\x9b1A\u202e\u2028\x00\x7fé\ty'
ESCAPED = 'x\\x1b[2J\\r\\x07\\x9b1A\\u202e\\u2028\\x00\\x7fé\\ty'


def test_no_control_character_gets_through(vocabulary):
  for chosen in (vocabulary, seqio.ByteVocabulary()):
    shown = render.show(chosen.encode(HOSTILE), chosen, '')
    assert ''.join(text for text, _ in shown) == ESCAPED
  assert render.escape(HOSTILE) == ESCAPED
  assert examples_lib.fields({'a': b'a\xff'}, ()) == {'a': 'a\\xff'}


def test_tokens_that_are_no_text(vocabulary):
  byte = seqio.ByteVocabulary(extra_ids=5)
  euro = [b + 3 for b in '€'.encode()]
  show = lambda ids, v: [text for text, _ in render.show(ids, v, '')]
  assert show(euro, byte) == ['', '', '€']
  # A sentinel or the end parts the character; later ones are whole.
  assert show([*euro[:2], 263, euro[2], 1, *euro, 0xF0 + 3], byte) == (
    ['', '\\xe2\\x82', '<extra_id_0>', '\\xac', '</s>'] + ['', '', '€', '\\xf0']
  )
  assert show([0, 2, 264, -1], byte) == [
    '<pad>',
    '<unk>',
    '<no such id: 264>',
    '<no such id: -1>',
  ]
  assert show([7, 30], seqio.PassThroughVocabulary(32)) == ['7 ', '30 ']
  size = vocabulary.vocab_size
  assert show([size - 1, size - EXTRA_IDS, size], vocabulary) == [
    '<extra_id_0>',
    f'<extra_id_{EXTRA_IDS - 1}>',
    f'<no such id: {size}>',
  ]


def test_colour_changes_nothing_but_colour():
  plain = printed('short_spans')
  coloured = printed('short_spans', paint=render.colour)
  assert coloured != plain
  assert [re.sub('\x1b\\[[0-9;]*m', '', line) for line in coloured] == plain
  assert any('\x1b[1;35m<extra_id_0>\x1b[0m' in line for line in coloured)


@pytest.mark.parametrize(
  'name, options, message',
  [
    ('pairs', {'split': 'test'}, '--split=test: .*train, validation'),
    ('causal', {'length': None}, '--sequence_length'),
    ('causal', {'skip': 100}, 'no example after the first 100'),
    ('documents', {'pack': True}, 'no tokens to pack'),
    ('needs_cache', {}, 'requires caching.*seqio_cache_tasks'),
    ('cachable', {'use_cached': True}, 'cache directories.*seqio_cache_tasks'),
  ],
)
def test_rejects_options_that_the_task_does_not_allow(name, options, message):
  with pytest.raises(examples_lib.OptionError, match=message):
    printed(name, **options)


@pytest.mark.parametrize(
  'flag',
  [
    '--sequence_length=0',
    '--sequence_length=long',
    '--examples=-1',
    '--examples=0',
    '--skip=-1',
    '--max_tokens=0',
    '--statistics=-1',
  ],
)
def test_rejects_flags_that_make_no_sense(capsys, flag):
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
  assert '\x1b' not in result.stdout
  lines = result.stdout.split('\n')
  assert '|###     |' in lines
  assert '  # | h\\x1b</s>' in lines
