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

import io
import re

import chromium
import matplotlib.pyplot as plt
import numpy as np
import pytest
import test_studies

from salt_t5x.studies import report, web_page


@pytest.fixture
def page(tmp_path):
  (tmp_path / 'a.svg').write_text('<svg xmlns="http://www.w3.org/2000/svg"/>')
  text = (
    '## One & two\n\n| a | b |\n|---|---|\n| 1 | <script>x()</script> |\n\n'
    '![Curves](a.svg)\n\n`code` `a < b & c` \\<b>\n\n    R&D <x>\n'
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
  assert '<code>a &lt; b &amp; c</code> &lt;b&gt;' in page
  assert '<pre><code>R&amp;D &lt;x&gt;' in page and '&amp;amp;' not in page


def test_a_missing_picture_is_an_error(tmp_path):
  with pytest.raises(FileNotFoundError, match='no.png'):
    web_page.page('x', [('![p](no.png)', str(tmp_path))])


def test_it_opens_in_a_browser_without_a_network(tmp_path):
  """As a reader opens it: from disk, on a screen and on paper."""
  picture = report.plot(
    test_studies.STUDY, test_studies.of(test_studies.SEED), [100, 300]
  )
  (tmp_path / 'curves.svg').write_bytes(picture)
  results = report.summarize(
    test_studies.STUDY, test_studies.of(test_studies.SEED), [100, 300]
  )
  table = report.markdown(results, test_studies.STUDY)
  text = f'## Results\n\n{table}\n![C](curves.svg)'
  path = tmp_path / 'report.html'
  path.write_text(web_page.page('A page', [(text, str(tmp_path))] * 2))
  path = path.rename(tmp_path / 'moved.html')
  (tmp_path / 'curves.svg').unlink()
  complaints, requests = [], []
  with chromium.browser() as browser:
    if browser is None:
      pytest.skip('there is no Chromium; see chromium.py')
    context = browser.new_context(
      offline=True, viewport={'width': 1000, 'height': 700}
    )
    page = context.new_page()
    page.on('console', lambda message: complaints.append(message.text))
    page.on('pageerror', lambda error: complaints.append(str(error)))
    page.on('request', lambda request: requests.append(request.url))
    page.goto(path.as_uri())
    assert page.title() == 'A page'
    assert page.evaluate(
      '[...document.images].map(i => i.complete && i.naturalWidth > 300)'
    ) == [True, True]
    assert page.locator('table').count() == 4
    # Nothing sticks out of the window.
    assert page.evaluate(
      'document.documentElement.scrollWidth <= window.innerWidth'
    )
    page.click('nav a >> nth=1')
    assert page.evaluate('window.scrollY') > 100
    screen = page.screenshot(path=str(tmp_path / 'screen.png'), full_page=True)
    paper = page.pdf(format='A4')
    context.close()
  assert complaints == []
  assert [x for x in requests if not x.startswith('data:')] == [path.as_uri()]
  image = plt.imread(io.BytesIO(screen))
  # It has text and coloured curves, on white.
  gray = np.ptp(image[..., :3], axis=-1) < 0.05
  assert 0.5 < np.mean(image[..., :3].min(-1) > 0.95) < 0.995
  assert np.mean(~gray) > 0.0005
  assert paper.startswith(b'%PDF') and len(paper) > 10_000
