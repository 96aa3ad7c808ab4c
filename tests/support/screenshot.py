"""Takes a picture of the top of a report: `python tests/support/screenshot.py REPORT.html OUT.png`."""

import argparse
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from playwright.sync_api import Page

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def find_browser() -> str | None:
    """The first installed browser, by its path."""
    return next((path for name in BROWSERS if (path := shutil.which(name))), None)


@contextmanager
def open_page(address: str, *, width: int, height: int, scheme: Literal["light", "dark"] = "light") -> "Iterator[Page]":
    """The page at an address in a browser without a window, which is closed at the end."""
    from playwright.sync_api import sync_playwright

    found = find_browser()
    if found is None:
        raise FileNotFoundError(f"none of {', '.join(BROWSERS)} is installed")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        # A report forbids code from strings, which is what waits in `take`.
        context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": height}, bypass_csp=True)
        page = context.new_page()
        page.goto(address)
        yield page
        browser.close()


def take(
    report: Path, out: Path, *, width: int, height: int, scheme: Literal["light", "dark"] = "light", full: bool = False
) -> None:
    """Writes a PNG of the page as it opens, in one of the colour schemes light and dark."""
    with open_page(report.resolve().as_uri(), width=width, height=height, scheme=scheme) as page:
        # Charts are drawn when they come near; those of another setting or clip never do.
        page.evaluate("window.dispatchEvent(new Event('draw-all'))")
        page.wait_for_function(
            "[...document.querySelectorAll('.plot')].every(p => !p.checkVisibility() || p.querySelector('.main-svg'))",
            timeout=60_000,
        )
        out.parent.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=out, full_page=full)


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
