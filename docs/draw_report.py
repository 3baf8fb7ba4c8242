"""Photograph a report: `python docs/draw_report.py demo/mug/report.html` writes docs/images/report.png (needs Chromium)."""

import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

PICTURE = Path(__file__).resolve().parent / "images" / "report.png"
WIDTH, HEIGHT = 1000, 1000

if __name__ == "__main__":
    with sync_playwright() as browsers:
        found = shutil.which("chromium") or shutil.which("google-chrome")
        browser = browsers.chromium.launch(executable_path=found, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        page.goto(Path(sys.argv[1]).resolve().as_uri())
        page.screenshot(path=str(PICTURE))
        browser.close()
