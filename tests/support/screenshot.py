"""Takes a picture of the top of a report: `python tests/support/screenshot.py REPORT.html OUT.png`."""

import argparse
import shutil
from pathlib import Path

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def find_browser() -> str | None:
    """The first installed browser, by its path."""
    return next((path for name in BROWSERS if (path := shutil.which(name))), None)


def take(report: Path, out: Path, *, width: int, height: int, scheme: str, full: bool) -> None:
    """Writes a PNG of the page as it opens, in one of the colour schemes light and dark."""
    from playwright.sync_api import sync_playwright

    found = find_browser()
    if found is None:
        raise FileNotFoundError(f"none of {', '.join(BROWSERS)} is installed")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        # The page forbids code from strings, which is what waits below.
        context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": height}, bypass_csp=True)
        page = context.new_page()
        page.goto(report.resolve().as_uri())
        # Charts are drawn when they come near; those of another setting or clip never do.
        page.evaluate("window.dispatchEvent(new Event('draw-all'))")
        page.wait_for_function(
            "[...document.querySelectorAll('.plot')].every(p => !p.checkVisibility() || p.querySelector('.main-svg'))",
            timeout=15_000,
        )
        out.parent.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=out, full_page=full)
        browser.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("report", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--width", type=int, default=1280)
    parser.add_argument("--height", type=int, default=800)
    parser.add_argument("--scheme", choices=("light", "dark"), default="light")
    parser.add_argument("--full", action="store_true", help="the whole page instead of its top")
    given = parser.parse_args()
    take(given.report, given.out, width=given.width, height=given.height, scheme=given.scheme, full=given.full)
