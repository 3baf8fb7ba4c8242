"""Photograph the first page of a report, down to its result table: `python docs/draw_report.py demo/mug/report.html` (needs Chromium)."""

import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

PICTURE = Path(__file__).resolve().parent / "images" / "report.png"
WIDTH = 1000

if __name__ == "__main__":
    with sync_playwright() as browsers:
        found = shutil.which("chromium") or shutil.which("google-chrome")
        browser = browsers.chromium.launch(executable_path=found, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": WIDTH, "height": WIDTH})
        page.goto(Path(sys.argv[1]).resolve().as_uri())
        bottom = page.evaluate("document.querySelector('table').getBoundingClientRect().bottom + 4")
        page.screenshot(path=str(PICTURE), full_page=True, clip={"x": 0, "y": 0, "width": WIDTH, "height": bottom})
        browser.close()
