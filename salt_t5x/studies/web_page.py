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

"""Turns Markdown texts and their pictures into one self-contained page."""

import base64
from collections.abc import Sequence
import html
import mimetypes
import os
import re
import string

import markdown

_PAGE = string.Template(
  """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>$title</title>
<style>
  body { font: 15px/1.5 system-ui, sans-serif; color: #1c1c1c; margin: 0 auto;
    max-width: 75rem; padding: 1rem 1.5rem 4rem; }
  h1 { font-size: 1.7rem; }
  h2 { margin-top: 3rem; border-bottom: 1px solid #ccc; }
  h2 + p { background: #f3f6fb; border-left: 4px solid #4a72b8;
    padding: 0.6rem 1rem; }
  nav { columns: 20rem; } nav a { display: block; }
  table { border-collapse: collapse; margin: 1rem 0; }
  .table, pre { overflow-x: auto; }
  th, td { padding: 0.2rem 0.7rem; border-bottom: 1px solid #ddd;
    text-align: left; font-variant-numeric: tabular-nums; }
  th { background: #f3f3f3; }
  tr:hover td { background: #f8f8f2; }
  img { max-width: 100%; }
  code { background: #f3f3f3; padding: 0 0.2rem; }
  @page { size: A4 landscape; margin: 12mm; }
  @media print {
    body { font-size: 10px; max-width: none; padding: 0; }
    nav { display: none; }
    .table { overflow: visible; } pre { white-space: pre-wrap; }
    section + section { break-before: page; }
    table, img { break-inside: avoid; }
  }
</style>
</head>
<body>
<h1>$title</h1>
<nav>$links</nav>
$body
</body>
</html>
"""
)


def _inline(match: re.Match, folder: str) -> str:
  """Returns a picture's file as a data URL."""
  path = os.path.join(folder, html.unescape(match[2]))
  kind = mimetypes.guess_type(path)[0]
  with open(path, 'rb') as f:
    content = base64.b64encode(f.read()).decode()
  return f'{match[1]}"data:{kind};base64,{content}"'


def page(title: str, sections: Sequence[tuple[str, str]]) -> str:
  """Returns the page.

  Args:
    title: the title and top heading.
    sections: (Markdown that begins with a '## ' heading, the folder of its
      pictures). HTML in the Markdown is shown as text.

  Returns:
    HTML that refers to nothing outside itself.
  """
  links, bodies = [], []
  for i, (text, folder) in enumerate(sections):
    heading = html.escape(text.splitlines()[0].removeprefix('## '))
    links.append(f'<a href="#section-{i}">{heading}</a>')
    converter = markdown.Markdown(extensions=['tables', 'sane_lists'])
    # Texts quote documents, whose HTML must not run.
    converter.preprocessors.deregister('html_block')
    for name in 'html', 'entity':
      converter.inlinePatterns.deregister(name)
    # `salt_t5x.select` escapes these characters.
    converter.ESCAPED_CHARS += ['<', '&', '$', '~', '|']
    body = converter.convert(text)
    body = re.sub(
      r'(<img [^>]*?src=)"([^"]+)"', lambda m, f=folder: _inline(m, f), body
    )
    body = body.replace('<table>', '<div class="table"><table>')
    body = body.replace('</table>', '</table></div>')
    bodies.append(f'<section id="section-{i}">\n{body}\n</section>')
  return _PAGE.substitute(
    title=html.escape(title), links='\n'.join(links), body='\n'.join(bodies)
  )
