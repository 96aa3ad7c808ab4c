"""A browser without a network, for the pages of reports."""

import os

import pytest
from playwright.sync_api import sync_playwright

from tests.support.report_page import read
from tests.support.screenshot import BROWSERS, find_browser


@pytest.fixture(scope="module")
def browser():
    found = find_browser()
    if found is None:
        # A check that never runs in CI is no check.
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"none of {', '.join(BROWSERS)} is installed")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def open_page(browser):
    """Opens a page and, at the end, checks that it asked for nothing and complained about nothing."""
    opened = []

    def open_page(url, *, script=True, **context):
        page = browser.new_context(**context).new_page()
        requests, complaints = [], []
        page.on("request", lambda request: requests.append(request.url))
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: (complaints.append(dialog.message), dialog.dismiss()))
        page.goto(url)
        if script:
            read(page)
        opened.append((url, page, requests, complaints))
        return page

    yield open_page
    for url, page, requests, complaints in opened:
        page.context.close()
        assert [request for request in requests if request.split("#")[0] != url] == []
        assert complaints == []
