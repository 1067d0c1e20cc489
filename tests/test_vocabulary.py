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

"""Tests of salt_t5x.vocabulary, on text made on the spot."""

import functools
import os
import random
import re
import subprocess
import sys

import hypothesis
from hypothesis import strategies as st
import pytest
import sentencepiece
import seqio
import tensorflow as tf

from salt_t5x import vocabulary
from salt_t5x.data import vocabularies

VOCAB_SIZE = 420
EXTRA_IDS = 20


@functools.cache
def documents():
  """200 documents with the look of code; each says its own number."""
  rng = random.Random(0)
  words = [
    ''.join(rng.choices('abcdefgh', k=rng.randint(2, 6))) for _ in 'x' * 99
  ]
  return [
    f'# {number}\r\n'
    + '\n'.join(
      ' ' * rng.choice([0, 4, 8])
      + '\t' * rng.choice([0, 0, 2])
      + ' '.join(rng.choices(words, k=6))
      + rng.choice([':', ';\n', '', ' é'])
      for _ in range(rng.randint(5, 15))
    )
    for number in range(200)
  ]


def source(examples, splits=('train',)):
  """Examples as a seqio source; each is a dict of strings or numbers."""

  def dataset(split, shuffle_files, seed=None):
    columns = {k: [example[k] for example in examples] for k in examples[0]}
    return tf.data.Dataset.from_tensor_slices(columns)

  return seqio.FunctionDataSource(dataset, splits=splits)


@pytest.fixture(scope='module')
def model():
  return vocabularies.train(documents(), VOCAB_SIZE, EXTRA_IDS)


@pytest.fixture(scope='module')
def path(model, tmp_path_factory):
  path = tmp_path_factory.mktemp('vocabulary') / 'my.model'
  path.write_bytes(model)
  return str(path)


@pytest.fixture(scope='module')
def trained(path):
  """The model as seqio reads it."""
  return seqio.SentencePieceVocabulary(path, extra_ids=EXTRA_IDS)


def feature(path):
  return seqio.Feature(seqio.SentencePieceVocabulary(path, extra_ids=1))


@pytest.fixture(autouse=True)
def registry(monkeypatch):
  """Empty registries; other tests keep their tasks."""
  monkeypatch.setattr(seqio.TaskRegistry, '_REGISTRY', {})
  monkeypatch.setattr(seqio.MixtureRegistry, '_REGISTRY', {})


def add_task(name, examples, preprocessors=(), features=None, **options):
  seqio.TaskRegistry.add(
    name,
    source=source(examples, **options),
    preprocessors=preprocessors,
    output_features=features or {},
  )
  return seqio.get_mixture_or_task(name)


def texts(provider, **options):
  options = {'split': 'train', 'megabytes': 1, **options}
  return list(vocabularies.sample(provider, **options))


# --- Training -----------------------------------------------------------------


# All of Unicode but the surrogates, which are no text, and U+2581, which
# SentencePiece reads as a space.
@hypothesis.given(
  st.text(
    st.one_of(
      st.sampled_from('\0\t\n\r \x1b\x85\u2028é中😀'),
      st.characters(codec='utf-8', exclude_characters='\u2581'),
    )
  )
)
@hypothesis.settings(max_examples=200)
def test_decoding_gives_the_exact_text(trained, text):
  tokens = trained.encode(text)
  assert trained.unk_id not in tokens
  assert trained.decode(tokens) == text
  encoded = trained.encode_tf(tf.constant(text.encode()))
  assert encoded.numpy().tolist() == tokens


def test_ids_are_those_of_t5_and_sentinels_come_last(model, trained):
  processor = sentencepiece.SentencePieceProcessor(model_proto=model)
  assert processor.vocab_size() == VOCAB_SIZE - EXTRA_IDS
  ids = trained.pad_id, trained.eos_id, trained.unk_id, trained.bos_id
  assert ids == (0, 1, 2, -1)
  assert trained.vocab_size == VOCAB_SIZE
  for number in range(EXTRA_IDS):
    piece = trained.tokenizer.id_to_piece(VOCAB_SIZE - 1 - number)
    assert piece == f'▁<extra_id_{number}>'


def test_line_breaks_and_tabs_have_pieces(model):
  processor = sentencepiece.SentencePieceProcessor(model_proto=model)
  pieces = [
    processor.id_to_piece(i)
    for i in range(processor.vocab_size())
    if not processor.is_byte(i)
  ]
  assert '\n' in pieces
  assert any(p.endswith('\n') and p.strip() for p in pieces)
  assert processor.encode('\t\t\t', out_type=str) == ['\t\t\t']
  # No piece goes on after a space: words do not depend on what is before.
  assert not [p for p in pieces if '▁' in p.lstrip('▁')]


def test_the_same_text_gives_the_same_bytes(model):
  again = vocabularies.train(iter(documents()), VOCAB_SIZE, EXTRA_IDS)
  assert again == model
  assert vocabularies.train(documents()[:150], VOCAB_SIZE, EXTRA_IDS) != model


@pytest.mark.parametrize('separator', [' ', '\n', 'x'])
def test_long_documents_are_not_left_out(separator):
  whole = separator.join(documents())
  whole = whole.replace(' ', '') if separator == 'x' else whole
  assert ''.join(vocabularies._SENTENCE.findall(whole)) == whole
  model = vocabularies.train([whole] * 2, VOCAB_SIZE, EXTRA_IDS)
  processor = sentencepiece.SentencePieceProcessor(model_proto=model)
  assert vocabularies.measure(processor, [whole])[0] > 1.5


@pytest.mark.parametrize('error', [OSError('damaged'), KeyboardInterrupt()])
def test_an_error_of_the_data_is_passed_on(error):
  def damaged():
    yield from documents()
    raise error

  with pytest.raises(type(error)) as raised:
    vocabularies.train(damaged(), VOCAB_SIZE, EXTRA_IDS)
  assert raised.value is error


@pytest.mark.parametrize(
  'sizes, message',
  [
    ((300, -1), '--extra_ids=-1'),
    ((360, 100), '--vocab_size=360 with .*at least 368'),
    ((2**32, 0), '--vocab_size=4294967296 .*below'),
  ],
)
def test_checks_sizes_before_reading_text(sizes, message):
  unread = iter(documents())
  with pytest.raises(ValueError, match=message):
    vocabularies.train(unread, *sizes)
  assert len(list(unread)) == 200


@pytest.mark.parametrize(
  'vocab_size, remedy',
  [(50_000, r'gives (\d+) rows at most'), (270, r'to at least (\d+)')],
)
def test_errors_of_size_name_one_that_fits(vocab_size, remedy):
  with pytest.raises(ValueError, match=f'--vocab_size={vocab_size}, ') as e:
    vocabularies.train(documents(), vocab_size, 1)
  fitting = int(re.search(remedy, str(e.value))[1])
  model = vocabularies.train(documents(), fitting, 1)
  processor = sentencepiece.SentencePieceProcessor(model_proto=model)
  assert processor.vocab_size() == fitting - 1


@pytest.mark.parametrize('nothing', [[], ['ab' * 9]])
def test_rejects_too_little_text(nothing):
  with pytest.raises(ValueError, match='too little to train on'):
    vocabularies.train(nothing, VOCAB_SIZE, EXTRA_IDS)


# --- Sampling -----------------------------------------------------------------


def test_sampling_stops_at_the_megabytes():
  task = add_task('mine', [{'text': text} for text in documents()])
  assert texts(task) == documents()
  found = texts(task, megabytes=0.01)
  assert found == documents()[: len(found)]
  sizes = [len(text.encode()) for text in found]
  assert sum(sizes[:-1]) < 10_000 <= sum(sizes)


def test_a_share_of_the_documents_reaches_further():
  task = add_task('mine', [{'text': text} for text in documents()])
  found = texts(task, share=0.3)
  assert 30 < len(found) < 90
  assert set(found) < set(documents())
  assert set(found) < set(texts(task, share=0.6))
  # The choice hangs on the document, not on its place.
  backwards = add_task('back', [{'text': text} for text in documents()[::-1]])
  assert texts(backwards, share=0.3) == found[::-1]
  few = texts(task, share=0.3, megabytes=0.01)
  assert few == found[: len(few)]
  assert documents().index(few[-1]) > 2 * len(few)


@seqio.map_over_dataset
def shout(example):
  return {'targets': tf.strings.upper(example['text'])}


def test_text_is_read_after_all_steps_before_the_tokenizer(path, tmp_path):
  examples = [{'text': 'one two'}, {'text': 'three'}]
  steps = [
    shout,
    functools.partial(seqio.preprocessors.tokenize, copy_pretokenized=False),
    seqio.CacheDatasetPlaceholder(),
    seqio.preprocessors.append_eos,
  ]
  task = add_task('trained', examples, steps, {'targets': feature(path)})
  assert texts(task) == ['ONE TWO', 'THREE']
  # And so it is before there is a vocabulary.
  missing = str(tmp_path / 'missing.model')
  task = add_task('untrained', examples, steps, {'targets': feature(missing)})
  assert texts(task) == ['ONE TWO', 'THREE']


def test_steps_that_draw_at_random_draw_the_same():
  @seqio.map_over_dataset(num_seeds=1)
  def prefix(example, seed):
    draw = tf.random.stateless_uniform([], seed, 0, 10**6, tf.int32)
    return {'text': tf.strings.as_string(draw) + example['text']}

  task = add_task('random', [{'text': 'a'}, {'text': 'b'}], [prefix])
  assert texts(task) == texts(task) != ['a', 'b']


def test_other_missing_features_are_errors(path):
  @seqio.map_over_dataset
  def broken(example):
    return {'targets': example['no_such_feature']}

  task = add_task('broken', [{'text': 'a'}], [broken])
  with pytest.raises(KeyError, match='no_such_feature'):
    texts(task)


def test_a_mixture_mixes_by_its_rates_and_reads_all():
  add_task('a', [{'text': f'a{i}'} for i in range(300)])
  add_task('b', [{'text': f'b{i}'} for i in range(300)])
  add_task('c', [{'text': 'c'}], splits=('test',))
  seqio.MixtureRegistry.add('both', [('a', 3), ('b', 1), ('c', 1)])
  mixture = seqio.get_mixture_or_task('both')
  found = texts(mixture)
  assert sorted(found) == sorted(f'{k}{i}' for k in 'ab' for i in range(300))
  assert 0.65 < sum(text[0] == 'a' for text in found[:200]) / 200 < 0.85
  assert texts(mixture) == found


@pytest.mark.parametrize(
  'options, expected',
  [
    ({}, ['a\ufffdb']),
    ({'feature': 'title'}, ['T']),
    ({'split': 'test'}, ['a\ufffdb']),
    ({'feature': 'nonesuch'}, 'no text in nonesuch'),
    ({'split': 'val'}, '--split=val: there are train, test'),
  ],
)
def test_chooses_features_and_splits(options, expected):
  example = {'targets': 5, 'targets_pretokenized': b'a\xffb', 'title': 'T'}
  task = add_task('cached', [example], splits=('train', 'test'))
  if isinstance(expected, list):
    assert texts(task, **options) == expected
  else:
    with pytest.raises(ValueError, match=expected):
      texts(task, **options)


def test_a_task_without_text_lists_its_strings():
  task = add_task('tokens', [{'targets': 5, 'title': 'T', 'domain': 'D'}])
  with pytest.raises(
    ValueError, match=r'--task=tokens: .*domain, title\. .*--f'
  ):
    texts(task)


def test_measure(model):
  processor = sentencepiece.SentencePieceProcessor(model_proto=model)
  # '中' is three bytes and three tokens, a run of tabs one token.
  assert vocabularies.measure(processor, ['中', '\t\t\t']) == (1.5, 0.75)
  assert vocabularies.measure(processor, []) == (0, 0)


# --- The command --------------------------------------------------------------

TASKS = """
import seqio
from test_vocabulary import documents, source
examples = [{'text': text, 'id': i} for i, text in enumerate(documents())]
seqio.TaskRegistry.add(
  'my_documents', source=source(examples), output_features={}
)
"""


def flags(output, **options):
  options = {'vocab_size': VOCAB_SIZE, 'extra_ids': EXTRA_IDS, **options}
  return [
    'vocabulary',
    '--task=my_documents',
    '--module_import=my_tasks',
    f'--output={output}',
    *(f'--{name}={value}' for name, value in options.items()),
  ]


def test_the_command_trains_and_says_how_to_use_it(tmp_path):
  (tmp_path / 'my_tasks.py').write_text(TASKS)
  here = os.path.dirname(__file__)
  result = subprocess.run(
    [sys.executable, '-m', 'salt_t5x.vocabulary', *flags('new/my.model')[1:]],
    capture_output=True,
    text=True,
    check=False,
    cwd=tmp_path,
    env={
      **os.environ,
      'PYTHONPATH': os.pathsep.join(
        [str(tmp_path), here, os.path.dirname(here), *sys.path]
      ),
    },
  )
  assert result.returncode == 0, result.stderr
  output = tmp_path / 'new' / 'my.model'
  assert os.listdir(output.parent) == ['my.model']
  # Every fiftieth document is held back.
  rest = [text for i, text in enumerate(documents()) if i % 50]
  assert output.read_bytes() == vocabularies.train(rest, VOCAB_SIZE, EXTRA_IDS)
  lines = result.stdout.splitlines()
  assert lines[0] == f'{output}: 400 pieces and 20 extra ids'
  assert re.fullmatch(
    r'4 documents held back: \d\.\d\d bytes per token, \d+\.\d\d% of the '
    'tokens are single bytes',
    lines[1],
  )
  assert lines[-4:] == [
    'VOCABULARY = @seqio.SentencePieceVocabulary()',
    f"seqio.SentencePieceVocabulary.sentencepiece_model_file = '{output}'",
    'seqio.SentencePieceVocabulary.extra_ids = 20',
    'VOCAB_SIZE = 420',
  ]
  assert 'sampling my_documents' in result.stderr


@pytest.mark.parametrize(
  'flag',
  [
    '--vocab_size=many',
    '--vocab_size=-1',
    '--vocab_size=287',
    '--extra_ids=-1',
    '--megabytes=nan',
    '--megabytes=0',
    '--sample_share=nan',
    '--sample_share=1.5',
    '--output=',
    '--output=folder/',
  ],
)
def test_rejects_flags_that_make_no_sense(capsys, flag):
  with pytest.raises(SystemExit):
    vocabulary.parse_flags([*flags('my.model'), flag])
  name, value = flag.split('=')
  message = capsys.readouterr().err.splitlines()[-1]
  assert name in message and value in message


def run(output):
  vocabulary.main(vocabulary.parse_flags(flags(output)))


def test_does_not_overwrite_a_file(tmp_path):
  output = tmp_path / 'my.model'
  output.write_bytes(b'precious')
  with pytest.raises(ValueError, match='--output=.*my.model exists'):
    run(output)
  assert output.read_bytes() == b'precious'


@pytest.mark.parametrize('count', [0, 1])
def test_needs_a_document_to_train_on_and_one_to_measure(
  count, tmp_path, monkeypatch
):
  monkeypatch.setattr(vocabulary.command, 'find_task', lambda *_: None)
  monkeypatch.setattr(
    vocabularies, 'sample', lambda *_: iter(documents()[:count])
  )
  message = f'--task=my_documents: .* train split has {count} documents'
  with pytest.raises(ValueError, match=message):
    run(tmp_path / 'my.model')


def test_an_interruption_leaves_no_file(tmp_path, monkeypatch):
  def interrupted(*_):
    yield from documents()
    raise KeyboardInterrupt

  monkeypatch.setattr(vocabulary.command, 'find_task', lambda *_: None)
  monkeypatch.setattr(vocabularies, 'sample', interrupted)
  with pytest.raises(KeyboardInterrupt):
    run(tmp_path / 'new' / 'my.model')
  assert os.listdir(tmp_path / 'new') == []


def test_documents_that_are_not_utf8_are_counted(caplog):
  texts = [b'good', b'caf\xe9', b'good']
  source = seqio.FunctionDataSource(
    lambda split, shuffle_files, seed=None: tf.data.Dataset.from_tensor_slices(
      {'text': texts}
    ),
    splits=['train'],
  )
  feature = seqio.Feature(seqio.ByteVocabulary())
  task = seqio.Task('latin1', source, {'targets': feature}, [])
  found = list(vocabularies.sample(task, 'train', 1))
  assert found == ['good', 'caf\ufffd', 'good']
  assert 'train split: 1 of 3 documents are not UTF-8' in caplog.text
