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

"""The page of results: whole, and without anything from outside."""

import re

import pytest

from salt_t5x import web_page


@pytest.fixture
def page(tmp_path):
  (tmp_path / 'a.svg').write_text('<svg xmlns="http://www.w3.org/2000/svg"/>')
  text = (
    '## One & two\n\n| a | b |\n|---|---|\n| 1 | <script>x()</script> |\n\n'
    '![Curves](a.svg)\n\n`code`'
  )
  return web_page.page('A <title>', [(text, str(tmp_path)), ('## Other', '')])


def test_it_has_all_and_refers_to_nothing(page):
  assert '<h1>A &lt;title&gt;</h1>' in page
  assert '<td>1</td>' in page and '<code>code</code>' in page
  assert '<a href="#section-0">One &amp; two</a>' in page
  for link in re.findall(r'(?:src|href)="([^"]*)"', page):
    assert link.startswith(('#section-', 'data:'))
  assert 'data:image/svg+xml;base64,' in page


def test_texts_are_no_html(page):
  assert '<script' not in page and '&lt;script&gt;' in page


def test_a_missing_picture_is_an_error(tmp_path):
  with pytest.raises(FileNotFoundError, match='no.png'):
    web_page.page('x', [('![p](no.png)', str(tmp_path))])
