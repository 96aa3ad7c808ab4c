"""The page in a real browser, from a file, without a network."""

import datetime
import os
import shutil
from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright

from crossfold.reports.build import build_report

pytestmark = pytest.mark.browser

NOW = datetime.datetime(2025, 1, 2, 3, 4, tzinfo=datetime.UTC)
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="module")
def browser():
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        # A check that never runs in CI is no check.
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"none of {', '.join(BROWSERS)} is installed")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def url(finished, tmp_path_factory):
    path: Path = build_report(finished, formats=["html"], out=tmp_path_factory.mktemp("page"), now=NOW).paths[0]
    return path.as_uri()


@pytest.fixture(scope="module")
def open_page(browser):
    """Opens a page and, at the end, checks that it asked for nothing and complained about nothing."""
    opened = []

    def open_page(url, **context):
        page = browser.new_context(**context).new_page()
        requests, complaints = [], []
        page.on("request", lambda request: requests.append(request.url))
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: (complaints.append(dialog.message), dialog.dismiss()))
        page.goto(url)
        page.wait_for_function("document.querySelectorAll('.plot .main-svg').length > 0")
        opened.append((url, page, requests, complaints))
        return page

    yield open_page
    for url, page, requests, complaints in opened:
        page.context.close()
        assert [request for request in requests if request.split("#")[0] != url] == []
        assert complaints == []


@pytest.fixture(scope="module")
def page(open_page, url):
    """The page as it opens on a wide, light screen; each test presses something else on it."""
    return open_page(url, color_scheme="light", viewport={"width": 1200, "height": 900})


def column(page, table, index):
    return page.eval_on_selector_all(
        f"#{table} table:first-of-type tbody tr", f"rows => rows.map(row => row.cells[{index}].innerText)"
    )[:10]


def test_figures_are_drawn(page):
    plots = page.locator(".plot").count()
    assert plots == page.locator("script[data-plot]").count() == 16
    assert page.locator(".plot .main-svg").count() >= plots


def test_tables_sort_by_press_and_by_key(page):
    head = page.locator("#leaderboard th[aria-sort]").nth(1)
    assert head.get_attribute("aria-sort") == "descending"
    means = [float(text.split()[0]) for text in column(page, "leaderboard", 1)]
    assert means == sorted(means, reverse=True)
    head.locator("button").focus()
    page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "ascending"
    means = [float(text.split()[0]) for text in column(page, "leaderboard", 1)]
    assert means == sorted(means)


def test_what_is_missing_sorts_last_either_way(page):
    button = page.locator("#dca-t1 th[aria-sort] button").nth(2)
    for _ in range(2):
        button.click()
        assert column(page, "dca-t1", 2)[6:8] == ["not run", "not run"]


def test_the_theme_follows_the_system_and_the_switch(page):
    background = "getComputedStyle(document.body).backgroundColor"
    white, black = "rgb(255, 255, 255)", "rgb(21, 24, 27)"
    assert page.evaluate(background) == white
    page.emulate_media(color_scheme="dark")
    assert page.evaluate(background) == black
    page.emulate_media(color_scheme="light")
    page.click("#theme")
    assert page.evaluate(background) == black
    assert page.inner_text("#theme") == "Light"
    tick = "getComputedStyle(document.querySelector('#plot-curve-valence-1 .xtick text')).fill"
    assert page.evaluate(tick) == "rgb(164, 171, 180)"
    page.click("#theme")
    assert page.evaluate(background) == white


def test_a_number_opens_its_cells(page):
    link = page.locator("#dca-t1 td.measured a").first
    block = page.locator(link.get_attribute("href"))
    assert block.get_attribute("open") is None
    link.click()
    assert block.get_attribute("open") is not None
    assert block.locator("tbody tr").count() == 6
    assert "crossfold rerun" in block.inner_text()


def test_a_panel_shows_its_family_before_all_others(page):
    strokes = page.eval_on_selector_all(
        "#plot-curve-valence-2 .scatterlayer .js-line", "lines => lines.map(line => getComputedStyle(line).stroke)"
    )
    muted = page.evaluate("getComputedStyle(document.documentElement).getPropertyValue('--muted-line').trim()")
    assert muted == "#cfd3d8"
    assert strokes.count("rgb(207, 211, 216)") == 7
    assert strokes.count("rgb(59, 130, 196)") == 3


def test_the_first_key_skips_to_the_results(page):
    page.reload()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    assert page.evaluate("document.activeElement.getBoundingClientRect().top") >= 0
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert page.evaluate("document.querySelector('main').contains(document.activeElement)")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"


def test_a_phone_scrolls_tables_and_not_the_page(open_page, url):
    page = open_page(url, viewport={"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    overlaps = page.evaluate(
        """() => [...document.querySelectorAll('.plot')].flatMap(plot => {
            const boxes = [...plot.querySelectorAll('.annotation-text, .xtick text, .ytick text')]
                .map(text => text.getBoundingClientRect()).filter(box => box.width);
            return boxes.flatMap((a, i) => boxes.slice(i + 1).filter(b =>
                a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom));
        }).length"""
    )
    assert overlaps == 0


def test_hostile_names_do_nothing(open_page, lab, workspace):
    evil = "<script>alert(1)</script><img src=x onerror=alert(2)>"
    store = lab.make_store(workspace.root, first_clip="<script>alert(1)</script>")
    variants = (*lab.VARIANTS[:2], lab.Fake(evil, {}, 0.3))
    for cell, noise in lab.cells_of(store, variants, folds=(0,), seeds=(0, 1)):
        lab.finish(workspace, store, cell, noise)
    page = open_page(build_report(workspace, formats=["html"], now=NOW).paths[0].as_uri())
    assert "<script>alert(1)</script>" in page.inner_text("#leaderboard")
    assert "<script>alert(1)</script>" in page.inner_text("#figures")
