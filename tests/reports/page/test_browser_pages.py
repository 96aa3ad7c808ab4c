"""The report by keyboard alone, and the pages of several workspaces, in a real browser without a network."""

import datetime
from dataclasses import replace

import pytest

from crossfold.platform.workspace.workspace import Workspace
from crossfold.reports.build import build_report
from crossfold.reports.compare import join_reports, report_difference
from tests.support import lab
from tests.support.report_page import serious_faults

pytestmark = pytest.mark.browser

NOW = datetime.datetime(2025, 1, 2, 3, 4, tzinfo=datetime.UTC)
FOCUS = """() => { const e = document.activeElement;
    return e.matches('label *') ? e.closest('label').innerText.trim() : (e.innerText || e.value || '').trim(); }"""


def tab_to(page, words, most=400):
    """Presses Tab until what has the focus begins with these words, and checks that the focus is seen."""
    for _ in range(most):
        page.keyboard.press("Tab")
        if page.evaluate(FOCUS).startswith(words):
            style = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
            assert style != "none", f"nothing shows that {words!r} has the focus"
            return
    pytest.fail(f"Tab never reaches {words!r}")


@pytest.fixture(scope="module")
def page(open_page, finished, tmp_path_factory):
    path = build_report(finished, formats=["html"], out=tmp_path_factory.mktemp("page"), now=NOW).paths[0]
    page = open_page(path.as_uri(), viewport={"width": 1200, "height": 900})
    page.reload()  # as it opens, with all parts closed
    page.locator("html[data-ready]").wait_for()
    return page


def test_contents_and_tables_by_keyboard(page):
    tab_to(page, "Ranking")
    page.keyboard.press("Enter")
    ranking = page.locator("#part-ranking")
    assert ranking.get_attribute("open") is not None
    # The reader goes on within the part, not behind the contents.
    tab_to(page, "Take out", most=40)
    assert page.evaluate("document.querySelector('#part-ranking').contains(document.activeElement)")
    head = page.locator("#leaderboard th[aria-sort]").nth(2)
    tab_to(page, head.inner_text())
    assert head.get_attribute("aria-sort") == "descending"
    page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "ascending"
    page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "descending"


def test_a_table_is_taken_out_by_keyboard(page):
    page.evaluate("document.activeElement.blur()")
    button = page.locator("#leaderboard .take").first
    button.focus()
    page.keyboard.press("Enter")
    dialog = page.locator("#take-out")
    assert dialog.is_visible()
    inside = "document.querySelector('#take-out').contains(document.activeElement)"
    assert page.evaluate(inside)
    page.get_by_label("Format").focus()
    page.keyboard.press("c")  # a menu takes the first letter of an entry
    assert dialog.get_by_label("Format").input_value() == "csv"
    before = dialog.locator("textarea").input_value().splitlines()[0]
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    assert dialog.locator("textarea").input_value().splitlines()[0] != before
    tab_to(page, "Save", most=40)
    with page.expect_download() as saved:
        page.keyboard.press("Enter")
    assert saved.value.suggested_filename == "leaderboard.csv"
    page.keyboard.press("Escape")
    assert not dialog.is_visible()
    assert button.evaluate("each => each === document.activeElement")


def test_systems_are_compared_by_keyboard(page):
    page.locator("#contents a", has_text="Compare").focus()
    page.keyboard.press("Enter")
    box = page.locator("[data-compare]")
    box.locator(".compared svg").first.wait_for()
    third = box.locator("fieldset label").nth(2).inner_text().strip()
    tab_to(page, third, most=40)
    page.keyboard.press("Space")
    assert box.locator("fieldset input:checked").count() == 3
    assert f" minus {third}, all targets:" in box.locator(".compared").inner_text() or third in box.inner_text("thead")
    page.keyboard.press("Space")
    assert box.locator("fieldset input:checked").count() == 2


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """The pages of a difference and of a joint leaderboard, by name."""
    root = tmp_path_factory.mktemp("several")
    chosen = (lab.VARIANTS[0], lab.VARIANTS[2], lab.VARIANTS[9])
    better = (chosen[0], replace(chosen[1], noise=0.2), lab.VARIANTS[5])
    spaces = {}
    for name, variants in (("before", chosen), ("after", better)):
        spaces[name] = Workspace(root / name)
        store = lab.make_store(spaces[name].root)
        for cell, noise in lab.cells_of(store, variants):
            lab.finish(spaces[name], store, cell, noise)
    return {
        "difference": report_difference(spaces["before"], spaces["after"], root / "out", NOW).paths[0],
        "joined": join_reports(spaces, root / "out", NOW).paths[0],
    }


@pytest.mark.parametrize("name", ["difference", "joined"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_of_several_workspaces(open_page, pages, name, scheme, tmp_path):
    page = open_page(pages[name].as_uri(), script=False, color_scheme=scheme, viewport={"width": 1200, "height": 900})
    assert serious_faults(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") == 1200
    # A number has an address, which Tab and Enter reach.
    link = page.locator("td a").nth(1)
    link.focus()
    page.keyboard.press("Enter")
    assert page.url.endswith(link.get_attribute("href"))
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    sheets = page.pdf(path=tmp_path / "print.pdf", format="A4", prefer_css_page_size=True).count(b"/Type /Page\n")
    assert 1 <= sheets <= 2
