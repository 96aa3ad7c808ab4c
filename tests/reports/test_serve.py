"""The page over HTTP: built again when cells finish, and only then; single figures as files."""

import datetime
import shutil
import threading
import urllib.error
import urllib.request
from dataclasses import replace

import pytest

from crossfold.platform.core.errors import UserError
from crossfold.reports.build import build_report
from crossfold.reports.page import image_export as export
from crossfold.reports.page.image_export import COLUMNS, check_export, export_figures, standalone
from crossfold.reports.serve import ReportServer, fingerprint
from tests.support import lab

NOW = datetime.datetime(2025, 1, 2, 3, 4, tzinfo=datetime.UTC)


def get(url, **headers):
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=20) as answer:
        return answer.read().decode()


@pytest.fixture
def server(workspace):
    server = ReportServer(workspace, 0, ["leaderboard"], figures=False)
    thread = threading.Thread(target=server.run)
    thread.start()
    yield server
    server.close()
    thread.join(timeout=20)
    assert not thread.is_alive()


def test_a_finished_cell_makes_a_new_page_and_nothing_else_does(server, workspace):
    assert server.url.startswith("http://127.0.0.1:")
    server.update()
    assert "nothing to report" in get(server.url)
    store = lab.make_store(workspace.root)
    cells = lab.cells_of(store, lab.VARIANTS[:2], folds=(0,), seeds=(0,))
    for cell, noise in cells[:3]:
        lab.finish(workspace, store, cell, noise)
    server.update()
    first = server.version
    assert "All systems on puppets" in get(server.url)
    assert "connect-src" in get(server.url)
    assert get(server.url + "version") == first
    (workspace.paths.cells / ".half-written").mkdir()
    (workspace.root / "mlflow.db").write_text("x")
    assert not server.update()
    lab.finish(workspace, store, *cells[3])
    server.update()
    assert server.version != first


def test_a_page_of_another_site_cannot_read_it(server):
    with pytest.raises(urllib.error.HTTPError, match="403"):
        get(server.url, Host="evil.example:80")
    with pytest.raises(urllib.error.HTTPError, match="404"):
        get(server.url + "cells")


def test_a_broken_workspace_keeps_the_last_page(workspace):
    store = lab.make_store(workspace.root)
    (cell, noise), *_ = lab.cells_of(store, lab.VARIANTS[:1], folds=(0,), seeds=(0,))
    lab.finish(workspace, store, cell, noise)
    server = ReportServer(workspace, 0, ["leaderboard"], figures=False)
    assert "being built" in server.page
    assert server.update()
    version = server.version
    (workspace.paths.cells / cell.cell_id / "result.json").write_text("{")
    (workspace.paths.cells / ("0" * 16)).mkdir()
    assert not server.update()
    assert server.version == version
    server.close()
    server.run()


def test_a_taken_port_says_so(server, workspace):
    with pytest.raises(UserError, match="choose another with --port"):
        ReportServer(workspace, int(server.url.rsplit(":", 1)[1].strip("/")), figures=False)


def test_the_fingerprint_knows_rescored_cells(workspace):
    before = fingerprint(workspace)
    (workspace.paths.rescored / "abc").mkdir(parents=True)
    between = fingerprint(workspace)
    (workspace.paths.rescored / "abc" / "x.json").write_text("{}")
    assert len({before, between, fingerprint(workspace)}) == 3


def test_what_is_missing_for_single_figures_is_said_before_any_work(monkeypatch, tmp_path):
    with pytest.raises(UserError, match="did you mean 'svg'"):
        check_export(["svgg"])
    monkeypatch.setenv("BROWSER_PATH", str(tmp_path / "none"))
    with pytest.raises(UserError, match="BROWSER_PATH"):
        check_export(["svg"])
    monkeypatch.setattr(export.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"crossfold\[figures\]"):
        check_export(["svg"])


@pytest.fixture(scope="module")
def page(finished, tmp_path_factory):
    report = build_report(finished, tables=["leaderboard"], formats=["html"], out=tmp_path_factory.mktemp("o"), now=NOW)
    return report.page


def test_a_single_figure_says_what_the_page_says_around_it(page):
    block = page.blocks[0]
    for figure in block.drawn:
        title = standalone(figure, figure.panels[0], block.setting.label, "today").layout.title.text
        assert block.setting.label in title
        assert block.setting.store in title
        assert "Made today" in title.replace('</span><br><span style="font-size:10px">', " ")


def test_a_figure_for_a_column_of_a_paper_has_its_width_and_its_label(page):
    block = page.blocks[0]
    for figure in block.drawn:
        made = standalone(figure, figure.panels[0], block.setting.label, "today", COLUMNS["one"])
        assert made.layout.width == 336
        assert block.setting.label in made.layout.title.text
        assert "Made today" not in made.layout.title.text
        assert f"<b>{figure.title}" not in made.layout.title.text
    with pytest.raises(UserError, match="unknown width 'on'"):
        check_export(["svg"], "on")


@pytest.mark.browser
def test_figures_become_files(page, tmp_path):
    if export.find_browser() is None:
        pytest.skip("no Chrome or Chromium is installed")
    block = page.blocks[0]
    small = replace(page, blocks=[replace(block, standing=block.standing[:1], figures=(), clips=())])
    files = export_figures(small, tmp_path / "figures", ["svg", "png", "pdf"], "today")
    assert [path.name for path in files] == ["ranks-1.svg", "ranks-1.png", "ranks-1.pdf"]
    assert "Which systems are distinguishable" in files[0].read_text()
    assert files[1].read_bytes().startswith(b"\x89PNG")
    assert files[2].read_bytes().startswith(b"%PDF")


def test_shutil_is_what_finds_a_browser(monkeypatch):
    monkeypatch.delenv("BROWSER_PATH", raising=False)
    monkeypatch.setattr(shutil, "which", lambda name: "/x/chrome" if name == "google-chrome" else None)
    assert export.find_browser() == "/x/chrome"
