"""A headless Chromium to look at pages with.

The environment variable CHROMIUM names one. Otherwise it is one on PATH
(Debian: `apt-get install chromium`), or playwright's own (`playwright install
chromium`).
"""

import contextlib
import os
import shutil

from playwright import sync_api

_NAMES = ('chromium', 'chromium-browser', 'google-chrome', 'chrome')


def find(playwright: sync_api.Playwright) -> str | None:
  """Returns the path of a browser, or None."""
  names = (os.environ.get('CHROMIUM'), *_NAMES)
  found = filter(None, map(shutil.which, filter(None, names)))
  own = playwright.chromium.executable_path
  return next(found, own if os.path.exists(own) else None)


@contextlib.contextmanager
def browser():
  """Yields a browser without a network, or None if there is no Chromium."""
  with sync_api.sync_playwright() as playwright:
    path = find(playwright)
    if path is None:
      yield None
      return
    running = playwright.chromium.launch(
      executable_path=path, args=['--no-sandbox']
    )
    try:
      yield running
    finally:
      running.close()
