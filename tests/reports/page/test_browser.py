"""The page in a real browser, from a file, without a network."""

import datetime
import threading
from pathlib import Path

import pytest

from crossfold.platform.core.recipe import Recipe
from crossfold.reports.build import build_report, take_table
from crossfold.reports.serve import ReportServer
from tests.support import lab
from tests.support.report_page import draw_all, read, serious_faults

pytestmark = pytest.mark.browser

NOW = datetime.datetime(2025, 1, 2, 3, 4, tzinfo=datetime.UTC)


@pytest.fixture(scope="module")
def url(finished, tmp_path_factory):
    path: Path = build_report(finished, formats=["html"], out=tmp_path_factory.mktemp("page"), now=NOW).paths[0]
    return path.as_uri()


@pytest.fixture(scope="module")
def page(open_page, url):
    """The page as it opens on a wide, light screen; each test clicks something else on it."""
    return open_page(url, color_scheme="light", viewport={"width": 1200, "height": 900})


def column(page, table, index):
    return page.eval_on_selector_all(
        f"#{table} table:first-of-type tbody tr", f"rows => rows.map(row => row.cells[{index}].innerText)"
    )[:10]


def test_figures_are_drawn_when_they_come_near(page):
    drawn = "document.querySelectorAll('.plot .main-svg').length"
    plots = page.locator(".plot").count()
    assert plots > 20
    page.locator("#figures").scroll_into_view_if_needed()
    before = page.evaluate(drawn)
    # Of three clips one is shown.
    hidden = page.locator("#clips figure[hidden] .plot").count()
    assert hidden > 0
    assert draw_all(page) == plots - hidden
    assert page.evaluate(drawn) > before
    assert page.evaluate("document.querySelectorAll('#clips figure:not([hidden])').length") == 1


def test_tables_sort_by_press_and_by_key(page):
    head = page.locator("#leaderboard th[aria-sort]").nth(2)
    assert head.get_attribute("aria-sort") == "descending"
    means = [float(text.split()[0]) for text in column(page, "leaderboard", 2)]
    assert means == sorted(means, reverse=True)
    head.locator("button").focus()
    page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "ascending"
    means = [float(text.split()[0]) for text in column(page, "leaderboard", 2)]
    assert means == sorted(means)


def test_what_is_missing_sorts_last_either_way(page):
    button = page.locator("#dca-t1 th[aria-sort] button").nth(2)
    for _ in range(2):
        button.click()
        assert column(page, "dca-t1", 2)[6:8] == ["not run", "not run"]


def test_the_theme_follows_the_system_and_the_switch(page):
    background = "getComputedStyle(document.body).backgroundColor"
    draw_all(page)
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


def test_a_cell_shows_its_configuration_environment_and_command(page):
    block = page.locator("details.cells").nth(3)
    block.locator("summary").first.click()
    assert block.locator("circle.dot").count() == block.locator("path.line").count() == 6
    dot = block.locator("circle.dot").nth(2)
    dot.focus()
    page.keyboard.press("Enter")
    words = block.locator(".cell").inner_text()
    assert "crossfold rerun" in words
    assert "crossfold why" in words
    assert "embedded corpus" in block.inner_text()
    assert block.locator("tr.chosen").count() == block.locator("path.line.chosen").count() == 1
    assert block.locator("tr.chosen code").first.inner_text() in words
    block.get_by_text("Recipe", exact=True).click()
    assert '"epochs": 30' in block.locator("pre").nth(1).inner_text()
    block.get_by_text("Environment", exact=True).click()
    assert "2.13.0" in block.locator("pre").nth(2).inner_text()
    block.get_by_role("link", name="Clips").click()
    assert page.evaluate("location.hash") == "#clips"


def test_a_leaderboard_is_searched_filtered_and_narrowed(page):
    tools = page.locator("[data-tools=leaderboard]")
    rows = page.locator("#leaderboard table").first.locator("tbody tr:not([hidden])")
    assert rows.count() == 10
    tools.get_by_label("Search").fill("DCA")
    assert {text.split("\t")[0] for text in rows.all_inner_texts()} == {"CA + DCA", "JCA + DCA", "RJCA + DCA"}
    assert tools.locator("[data-shown]").inner_text() == "3 of 10 systems"
    assert page.locator("#leaderboard table").nth(1).locator("tbody tr:not([hidden])").count() == 3
    tools.get_by_label("Search").fill("")
    tools.get_by_label("Systems").select_option("unimodal")
    assert rows.count() == 2
    tools.get_by_label("Systems").select_option("")
    heads = page.locator("#leaderboard table").first.locator("thead tr:last-child th")
    shown = heads.evaluate_all("heads => heads.filter(head => !head.hidden).map(head => head.innerText)")
    assert "Group" in shown
    tools.locator(".columns summary").click()
    tools.get_by_label("Group", exact=True).uncheck()
    after = heads.evaluate_all("heads => heads.filter(head => !head.hidden).map(head => head.innerText)")
    assert after == [head for head in shown if head != "Group"]
    widths = page.evaluate(
        """() => { const [groups, heads] = document.querySelector('#leaderboard table').tHead.rows;
        const wide = [...groups.cells].filter(cell => !cell.hidden).reduce((sum, cell) => sum + cell.colSpan, 0);
        return [wide, [...heads.cells].filter(cell => !cell.hidden).length]; }"""
    )
    assert widths[0] == widths[1]
    page.keyboard.press("Escape")
    assert tools.locator(".columns").get_attribute("open") is None


def test_rows_that_ran_other_folds_wait_behind_a_switch(open_page, workspace):
    store = lab.make_store(workspace.root)
    some = lab.cells_of(store, lab.VARIANTS[:3], folds=(0,), seeds=(0, 1))
    other = lab.cells_of(store, lab.VARIANTS[3:4], folds=(0,), seeds=(0,))
    for cell, noise in [*some, *other]:
        lab.finish(workspace, store, cell, noise)
    page = open_page(build_report(workspace, formats=["html"], now=NOW).paths[0].as_uri())
    rows = page.locator("#leaderboard table").first.locator("tbody tr:not([hidden])")
    assert rows.count() == 3
    page.get_by_label("Show rows that are unfinished or ran other folds or seeds (1)").check()
    assert rows.count() == 4


def test_settings_and_clips_are_switched(open_page, workspace):
    store = lab.make_store(workspace.root)
    for selection in ("reported", "held_out"):
        recipe = Recipe(name="demo", epochs=30, selection=selection)
        for cell, noise in lab.cells_of(store, lab.VARIANTS[5:7], folds=(0,), seeds=(0, 1), recipe=recipe):
            lab.finish(workspace, store, cell, noise, stressed=True)
    page = open_page(build_report(workspace, formats=["html"], now=NOW).paths[0].as_uri())
    assert page.locator("#leaderboard").is_visible()
    assert not page.locator("#leaderboard-2").is_visible()
    page.get_by_label("Setting", exact=True).select_option("2")
    assert page.locator("#leaderboard-2").is_visible()
    assert not page.locator("#leaderboard").is_visible()
    page.get_by_label("Setting", exact=True).select_option("1")
    second = page.get_by_label("Clip", exact=True).locator("option").nth(1)
    page.get_by_label("Clip", exact=True).select_option(second.get_attribute("value"))
    shown = page.locator("#clips figure:not([hidden])")
    assert shown.count() == 1
    assert second.inner_text() in shown.inner_text()
    shown.scroll_into_view_if_needed()
    shown.locator(".main-svg").first.wait_for()
    assert "Gates of CA + DCA" in shown.inner_text()
    page.goto(page.url.split("#")[0] + "#leaderboard-2")
    page.reload()
    page.locator("html[data-ready]").wait_for()
    assert page.locator("#leaderboard-2").is_visible()
    assert page.locator("#leaderboard-2 table").first.locator("tbody tr").first.is_visible()
    assert not page.locator("#clips").is_visible()


def pictures_of(page, maps, than=()):
    """The image of each heat map, which plotly makes a while after the axes; other ones than those before."""
    find = "plots => plots.map(plot => plot.querySelector('.hm image')?.getAttribute('href') ?? '')"
    for _ in range(100):
        found = maps.evaluate_all(find)
        if all(each.startswith("data:image/png") and each not in than for each in found):
            break
        page.wait_for_timeout(100)
    return found


def test_attention_maps_are_drawn_in_light_and_dark_and_on_a_phone(open_page, workspace):
    store = lab.make_store(workspace.root)
    for cell, noise in lab.cells_of(store, (lab.VARIANTS[5], lab.VARIANTS[8]), folds=(0,), seeds=(0,)):
        lab.finish(workspace, store, cell, noise, stressed=True)
    page = open_page(build_report(workspace, formats=["html"], now=NOW).paths[0].as_uri(), color_scheme="light")
    draw_all(page)
    maps = page.locator("#clips figure:not([hidden]) .plot[aria-label^='Map of']")
    assert maps.count() == 4
    light = pictures_of(page, maps)
    # A band of 50 columns of which at most 21 have a colour: the rest is the page's.
    drawn = "plots => plots[0].calcdata[0][0].z.map(row => [row.length, row.filter(value => value != null).length])"
    assert [max(row) for row in zip(*maps.evaluate_all(drawn), strict=True)] == [50, 21]
    first, before = (page.locator("#clips figure:not([hidden]) .panel").nth(at).bounding_box() for at in (7, 6))
    assert first["x"] <= before["x"]
    assert first["y"] >= before["y"] + before["height"]
    page.click("#theme")
    assert not set(light) & set(pictures_of(page, maps, than=light))
    page.set_viewport_size({"width": 390, "height": 844})
    draw_all(page)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    texts = """plots => plots.map(plot => [...plot.querySelectorAll('text')].map(each => each.getBoundingClientRect())
        .filter(box => box.width).map(box => [box.left, box.right, box.top, box.bottom]))"""
    for boxes in maps.evaluate_all(texts):
        assert len(boxes) > 8
        for index, (left, right, top, bottom) in enumerate(boxes):
            for l2, r2, t2, b2 in boxes[index + 1 :]:
                assert not (left < r2 and l2 < right and top < b2 and t2 < bottom)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_fault(open_page, url, scheme):
    page = open_page(url, color_scheme=scheme, viewport={"width": 1200, "height": 900})
    # Everything that a click opens, and one cell of each block.
    page.eval_on_selector_all("details:not(.columns)", "all => all.forEach(each => { each.open = true; })")
    page.wait_for_timeout(200)
    page.eval_on_selector_all(
        "details.cells", "all => all.forEach(each => each.querySelector('td button').dispatchEvent(new Event('click')))"
    )
    assert page.locator("details.cells .cell").count() == page.locator("details.cells").count() > 10
    draw_all(page)
    assert serious_faults(page) == []


def test_a_served_page_loads_again_as_the_reader_left_it(browser, workspace):
    store = lab.make_store(workspace.root)
    cells = lab.cells_of(store, lab.VARIANTS[:3], folds=(0,), seeds=(0, 1))
    for cell, noise in cells[:-1]:
        lab.finish(workspace, store, cell, noise)
    server = ReportServer(workspace, 0, figures=False)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        page = browser.new_context(viewport={"width": 1000, "height": 600}).new_page()
        page.goto(server.url)
        read(page)
        page.locator("[data-tools=leaderboard]").get_by_label("Search").fill("only")
        page.locator("details.cells > summary").first.click()
        page.wait_for_timeout(300)
        where = page.evaluate("window.scrollY")
        assert where > 0
        with page.expect_navigation(timeout=20_000):
            lab.finish(workspace, store, *cells[-1])
        page.wait_for_load_state()
        assert page.locator("[data-tools=leaderboard]").get_by_label("Search").input_value() == "only"
        assert page.locator("details.cells").first.get_attribute("open") is not None
        # A complete row has fewer lines above it, and the browser keeps in view what was.
        assert abs(page.evaluate("window.scrollY") - where) < 100
        page.context.close()
    finally:
        server.close()
        thread.join(timeout=20)


def test_a_panel_shows_its_family_before_all_others(page):
    draw_all(page)
    strokes = page.eval_on_selector_all(
        "#plot-curve-valence-2 .scatterlayer .js-line", "lines => lines.map(line => getComputedStyle(line).stroke)"
    )
    muted = page.evaluate("getComputedStyle(document.documentElement).getPropertyValue('--muted-line').trim()")
    assert muted == "#cfd3d8"
    assert strokes.count("rgb(207, 211, 216)") == 7
    assert strokes.count("rgb(59, 130, 196)") == 3


def test_the_first_key_skips_to_the_results(page, url):
    page.goto(url)
    page.locator("html[data-ready]").wait_for()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    assert page.evaluate("document.activeElement.getBoundingClientRect().top") >= 0
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert page.evaluate("document.querySelector('main').contains(document.activeElement)")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"


def test_a_phone_scrolls_tables_and_not_the_page(open_page, url):
    page = open_page(url, viewport={"width": 390, "height": 844})
    draw_all(page)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    overlaps = page.evaluate(
        """() => [...document.querySelectorAll('.plot')].flatMap(plot => {
            const boxes = [...plot.querySelectorAll('.annotation-text, .xtick text, .ytick text')]
                .filter(text => !/rotate\\(-/.test(text.getAttribute('transform')))
                .map(text => text.getBoundingClientRect()).filter(box => box.width);
            return boxes.flatMap((a, i) => boxes.slice(i + 1).filter(b =>
                a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom));
        }).length"""
    )
    assert overlaps == 0


def test_the_first_page_is_one_sheet_and_two_screens_of_a_phone(browser, finished, url, tmp_path):
    page = browser.new_context(viewport={"width": 390, "height": 844}).new_page()
    page.goto(url)
    page.locator("html[data-ready]").wait_for()
    end = page.evaluate("document.querySelector('#answer').getBoundingClientRect().bottom")
    assert end <= 2 * 844
    assert page.locator("details.part[open]").count() == 0
    assert page.evaluate("typeof window.Plotly") == "undefined"
    # Variants differ at the end of their names, so a name that is cut would be that of several rows.
    cut = page.locator(".forest tbody th").first.evaluate(
        "head => { head.append(' (iterations 3, residual sum)'); return head.scrollWidth - head.clientWidth; }"
    )
    assert cut <= 0
    page.reload()
    page.locator("html[data-ready]").wait_for()
    sheets = page.pdf(path=tmp_path / "first.pdf", format="A4", prefer_css_page_size=True).count(b"/Type /Page\n")
    assert sheets == 1
    page.eval_on_selector_all("details.part", "all => all.forEach(each => { each.open = true; })")
    draw_all(page)
    whole = page.pdf(path=tmp_path / "whole.pdf", format="A4", prefer_css_page_size=True).count(b"/Type /Page\n")
    assert whole >= 1 + page.locator("details.part").count()
    page.context.close()


def test_tables_and_figures_are_taken_out(page, finished):
    read(page)
    dialog = page.locator("#take-out")
    page.locator("#leaderboard .take").first.click()
    dialog.get_by_label("Format").select_option("latex")
    for box in dialog.locator("fieldset label").all()[1:]:
        if "95% interval" not in box.inner_text():
            box.locator("input").uncheck()
    text = dialog.locator("textarea").input_value()
    # The page writes what the command writes, but for what scales a wide table down.
    command = take_table(finished, "leaderboard", "tex", ["System", "95% interval"])
    rows = [line.replace("95\\% interval", "x") for line in command.splitlines() if line.endswith("\\\\")]
    assert [line.split(" & ")[-1] for line in text.splitlines() if line.endswith("\\\\")][1:] == [
        line.split(" & ")[-1] for line in rows
    ][1:]
    assert "embedded corpus: puppets" in text.lower()
    assert "\\label{tab:leaderboard}" in text
    dialog.get_by_label("Format").select_option("csv")
    with page.expect_download() as saved:
        dialog.get_by_role("button", name="Save").click()
    assert saved.value.suggested_filename == "leaderboard.csv"
    page.keyboard.press("Escape")
    page.locator("[data-take-figure=curve-valence]").click()
    dialog.get_by_label("Width").select_option("two")
    with page.expect_download() as saved:
        dialog.get_by_role("button", name="SVG").click()
    assert saved.value.suggested_filename == "curve-valence-1-two-columns.svg"
    picture = saved.value.path().read_text()
    assert 'width="687"' in picture
    assert "not the papers' data" in picture
    assert "#cfd3d8" in picture or "rgb(207, 211, 216)" in picture
    dialog.get_by_role("button", name="Close").click()


def test_two_to_five_systems_are_compared(page):
    read(page)
    box = page.locator("[data-compare]")
    box.locator(".compared svg").first.wait_for()
    systems = box.locator("fieldset input")
    assert box.locator("fieldset input:checked").count() == 2
    for at in (2, 3, 4):
        systems.nth(at).check()
    assert systems.nth(5).is_disabled()
    words = box.locator(".compared").inner_text()
    names = [label.strip() for label in box.locator("fieldset label").all_inner_texts()]
    assert f"{names[0]} minus {names[1]}, all targets:" in words
    # Two folds and three seeds of four systems, each against the first.
    assert box.locator(".compared .pair svg").first.locator("path.mark").count() == 4 * 6
    # Each system has a line or a mark of its own, also next to its gated version of the same colour.
    drawn = box.locator(".compared .key svg").evaluate_all("all => all.map(each => each.innerHTML)")
    assert len(set(drawn)) == len(drawn) == 5
    assert box.locator("table thead th").all_inner_texts()[1:] == names[:5]
    box.get_by_label("Target").select_option("arousal")
    assert f"arousal CCC minus that of {names[0]}" in box.locator(".compared").inner_text()
    assert box.locator("rect.event").count() == 8
    for at in (4, 3, 2, 1):
        systems.nth(at).uncheck()
    assert "Choose two to five systems." in box.inner_text()


def test_the_contents_follow_the_reader_and_heads_explain_themselves(page, url):
    page.goto(url)
    page.locator("html[data-ready]").wait_for()
    here = page.locator("#contents a[aria-current]")
    assert here.inner_text() == "Answer"
    page.get_by_role("navigation").get_by_role("link", name="Clips").click()
    page.wait_for_timeout(100)
    assert page.locator("#part-clips").get_attribute("open") is not None
    assert here.inner_text() in ("Clips", "Runs")
    page.locator(".forest thead [data-help]").nth(4).focus()
    tip = page.get_by_role("tooltip")
    assert "corrected for every pair" in tip.inner_text()
    page.keyboard.press("Escape")
    assert not tip.is_visible()
    read(page)


def test_hostile_names_do_nothing(open_page, workspace):
    evil = '<script>alert(1)</script><img src=x onerror=alert(2)>\u202e$\\frac{1}{2}$"'
    store = lab.make_store(workspace.root, first_clip="<script>alert(1)</script>")
    variants = (*lab.VARIANTS[:2], lab.Fake(evil, {}, 0.3))
    for cell, noise in lab.cells_of(store, variants, folds=(0,), seeds=(0, 1)):
        lab.finish(workspace, store, cell, noise)
    page = open_page(build_report(workspace, formats=["html"], now=NOW).paths[0].as_uri())
    assert "<script>alert(1)</script>" in page.inner_text("#leaderboard")
    assert "<script>alert(1)</script>" in page.inner_text("#figures")
    draw_all(page)
    page.locator("details.cells > summary").last.click()
    page.locator("details.cells").last.locator("td button").first.click()
    assert "<script>alert(1)</script>" in page.locator("details.cells > summary").last.inner_text()
    assert "<script>alert(1)</script>" in page.inner_text("#clips")
