"""A page of a report in a browser: what is opened, drawn and checked there."""

from axe_playwright_python.sync_playwright import Axe


def read(page):
    """Waits until the page has unpacked its data, and opens every part of it."""
    page.locator("html[data-ready]").wait_for()
    page.eval_on_selector_all("details.part, details.one", "all => all.forEach(each => { each.open = true; })")


def draw_all(page):
    """Charts are drawn when they come near; those of other clips and settings are not shown. Returns how many are."""
    page.evaluate("window.dispatchEvent(new Event('draw-all'))")
    shown = "[...document.querySelectorAll('.plot')].filter(plot => plot.offsetParent)"
    for _ in range(100):
        if page.evaluate(f"{shown}.every(plot => plot.querySelector('.main-svg'))"):
            break
        # The page forbids the polling of `wait_for_function`, which needs `eval`.
        page.wait_for_timeout(100)
    return page.evaluate(f"{shown}.filter(plot => plot.querySelector('.main-svg')).length")


def serious_faults(page):
    """What axe finds serious or critical: rule, place, reason."""
    found = Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]
    return [
        (each["id"], each["nodes"][0]["target"], each["nodes"][0].get("failureSummary", "")[:200])
        for each in found
        if each["impact"] in ("serious", "critical")
    ]
