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
  return vocabulary.train(documents(), VOCAB_SIZE, EXTRA_IDS)


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
  return list(vocabulary.sample(provider, **options))


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
@hypothesis.settings(deadline=None, max_examples=200)
def test_decoding_gives_the_exact_text(trained, text):
  tokens = trained.encode(text)
  assert trained.unk_id not in tokens
  assert trained.decode(tokens) == text
  encoded = trained.encode_tf(tf.constant(text.encode()))
  assert encoded.numpy().tolist() == tokens


def test_what_is_not_exact(trained):
  assert trained.decode(trained.encode('a\u2581b')) == 'a b'
  sentinel = VOCAB_SIZE - 1
  assert sentinel in trained.encode('a <extra_id_0>')


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
  again = vocabulary.train(iter(documents()), VOCAB_SIZE, EXTRA_IDS)
  assert again == model
  assert vocabulary.train(documents()[:150], VOCAB_SIZE, EXTRA_IDS) != model


@pytest.mark.parametrize('separator', [' ', '\n', 'x'])
def test_long_documents_are_not_left_out(separator):
  whole = separator.join(documents())
  whole = whole.replace(' ', '') if separator == 'x' else whole
  assert ''.join(vocabulary._SENTENCE.findall(whole)) == whole
  model = vocabulary.train([whole] * 2, VOCAB_SIZE, EXTRA_IDS)
  processor = sentencepiece.SentencePieceProcessor(model_proto=model)
  assert vocabulary.measure(processor, [whole])[0] > 1.5


def test_sentences_are_cut_between_words():
  sentences = vocabulary._SENTENCE.findall(' '.join(['word'] * 1000))
  assert len(sentences) == 5
  assert {w for s in sentences for w in s.split(' ')} == {'word', ''}


@pytest.mark.parametrize(
  ('vocab_size', 'extra_ids', 'message'),
  [
    (300, -1, r'--extra_ids=-1'),
    (360, 100, r'--vocab_size=360 leaves 260 .*at least 368'),
  ],
)
def test_sizes_are_checked_before_text_is_read(vocab_size, extra_ids, message):
  unread = iter(documents())
  with pytest.raises(ValueError, match=message):
    vocabulary.train(unread, vocab_size, extra_ids)
  assert len(list(unread)) == 200


def test_too_many_pieces_for_the_text_says_how_many_there_are():
  with pytest.raises(ValueError, match='--vocab_size=50000.*--megabytes') as e:
    vocabulary.train(documents(), 50_000, EXTRA_IDS)
  most = int(re.search(r'(\d+) rows at most', str(e.value))[1])
  model = vocabulary.train(documents(), most, EXTRA_IDS)
  processor = sentencepiece.SentencePieceProcessor(model_proto=model)
  assert processor.vocab_size() == most - EXTRA_IDS


def test_too_few_pieces_for_the_characters_says_how_many_are_needed():
  with pytest.raises(ValueError, match='--vocab_size=270') as e:
    vocabulary.train(documents(), 270, 1)
  least = int(re.search(r'at least (\d+)', str(e.value))[1])
  assert vocabulary.train(documents(), least, 1)


@pytest.mark.parametrize('nothing', [[], [''], ['\n'], ['ab' * 9]])
def test_no_text_to_speak_of(nothing):
  with pytest.raises(ValueError, match='too little to train on'):
    vocabulary.train(nothing, VOCAB_SIZE, EXTRA_IDS)


@pytest.mark.parametrize('error', [OSError('damaged'), KeyboardInterrupt()])
def test_an_error_of_the_data_is_passed_on(error):
  def damaged():
    yield from documents()
    raise error

  with pytest.raises(type(error)) as raised:
    vocabulary.train(damaged(), VOCAB_SIZE, EXTRA_IDS)
  assert raised.value is error


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


def test_pretokenized_text_and_a_named_feature():
  examples = [{'targets': 5, 'targets_pretokenized': 'plain', 'title': 'T'}]
  task = add_task('cached', examples)
  assert texts(task) == ['plain']
  assert texts(task, feature='title') == ['T']


def test_a_task_without_text_says_which_strings_it_has():
  task = add_task('tokens', [{'targets': 5, 'title': 'T', 'domain': 'D'}])
  with pytest.raises(
    ValueError, match=r'--task=tokens: .*domain, title\. .*--f'
  ):
    texts(task)
  with pytest.raises(ValueError, match='no text in nonesuch'):
    texts(task, feature='nonesuch')


def test_what_is_missing_otherwise_is_still_an_error(path):
  @seqio.map_over_dataset
  def broken(example):
    return {'targets': example['no_such_feature']}

  task = add_task('broken', [{'text': 'a'}], [broken])
  with pytest.raises(KeyError, match='no_such_feature'):
    texts(task)


def test_a_split_that_is_not_there():
  task = add_task('mine', [{'text': 'a'}], splits=('train', 'test'))
  assert texts(task, split='test') == ['a']
  with pytest.raises(ValueError, match='--split=val: there are train, test'):
    texts(task, split='val')


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


def test_bytes_that_are_not_utf8_do_not_stop_it():
  assert texts(add_task('bad', [{'text': b'a\xffb'}])) == ['a\ufffdb']


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
  assert output.read_bytes() == vocabulary.train(rest, VOCAB_SIZE, EXTRA_IDS)
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


@pytest.fixture
def my_tasks(tmp_path, monkeypatch):
  (tmp_path / 'my_tasks.py').write_text(TASKS)
  monkeypatch.syspath_prepend(tmp_path)
  yield
  sys.modules.pop('my_tasks', None)


def run(*arguments, **options):
  vocabulary.main(vocabulary.parse_flags(flags(*arguments, **options)))


def test_a_file_that_is_there_is_not_overwritten(tmp_path, monkeypatch):
  monkeypatch.delattr(vocabulary, 'sample')
  output = tmp_path / 'my.model'
  output.write_bytes(b'precious')
  with pytest.raises(ValueError, match='--output=.*my.model exists'):
    run(output)
  assert output.read_bytes() == b'precious'


def test_an_interruption_leaves_no_file(my_tasks, tmp_path, monkeypatch):
  def interrupted(*_):
    yield from documents()
    raise KeyboardInterrupt

  monkeypatch.setattr(vocabulary, 'sample', interrupted)
  with pytest.raises(KeyboardInterrupt):
    run(tmp_path / 'new' / 'my.model')
  assert os.listdir(tmp_path / 'new') == []


def test_an_unknown_task_lists_near_names(my_tasks, tmp_path):
  with pytest.raises(SystemExit, match='Near names: my_documents'):
    run(tmp_path / 'my.model', task='my_document')


@pytest.mark.parametrize(
  'options', [{'megabytes': 0}, {'sample_share': 0}, {'sample_share': 1.5}]
)
def test_flags_out_of_range(options, tmp_path, capsys):
  with pytest.raises(SystemExit):
    run(tmp_path / 'my.model', **options)
  [(name, value)] = options.items()
  assert f'--{name}={float(value)}' in capsys.readouterr().err


def test_measure(model):
  processor = sentencepiece.SentencePieceProcessor(model_proto=model)
  # '中' is three bytes and three tokens, a run of tabs one token.
  assert vocabulary.measure(processor, ['中', '\t\t\t']) == (1.5, 0.75)
  assert vocabulary.measure(processor, []) == (0, 0)
