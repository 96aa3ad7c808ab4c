"""The whole report: files, determinism, refusals, and nothing heavy imported."""

import base64
import csv
import datetime
import gzip
import hashlib
import io
import json
import re
import subprocess
import sys

import pytest
from plotly.offline import get_plotlyjs_version

from crossfold.platform.core.errors import UserError
from crossfold.platform.core.recipe import Recipe
from crossfold.platform.workspace.logged_runs import public_address
from crossfold.platform.workspace.workspace import Workspace
from crossfold.reports.build import build_report, take_table
from crossfold.reports.page.data import unpacked
from crossfold.reports.page.drilldown import DIGITS
from crossfold.reports.page.render import PLOTLY
from crossfold.reports.tables.claims import all_claims
from crossfold.reports.tables.published import table_ids
from tests.support import lab

NOW = datetime.datetime(2025, 1, 2, 3, 4, tzinfo=datetime.UTC)
EVIL = "<script>alert(1)</script>"


def without_plotly(page: str) -> str:
    """The page without the packed library, whose text is not Crossfold's."""
    start = page.index('<script type="text/plain" id="plotly">')
    return page[:start] + page[page.index("</script>", start) :]


@pytest.fixture(scope="module")
def report(finished, tmp_path_factory):
    return build_report(finished, out=tmp_path_factory.mktemp("report"), now=NOW)


@pytest.fixture(scope="module")
def page(report):
    return report.paths[0].read_text(encoding="utf-8")


def test_every_table_in_every_format(report):
    names = [path.name for path in report.paths]
    tables = (*table_ids(), "claims")
    assert len(tables) == 23
    assert names == ["report.html"] + [f"{table}.{ext}" for table in tables for ext in ("md", "tex", "csv")]
    assert all(path.is_file() for path in report.paths)
    said = (
        "of the papers' tables have entries measured on puppets, which is not the papers' data; report.html shows them"
    )
    assert report.summary.splitlines()[0].endswith(said)
    assert "claims" not in report.summary and "nothing run for" not in report.summary


def test_the_terminal_says_what_of_the_named_tables_is_measured(finished, tmp_path):
    asked = build_report(finished, tables=table_ids(), formats=("csv",), out=tmp_path, figures=False).summary
    assert "entries measured on puppets" in asked
    assert "dca-t1 12 of 16" in asked
    idle = "grjca-t3, grjca-s1, rjcma-t1, rjcma-t3, rjcma-t4 and rjcma-s1"
    assert f"nothing run for {idle}: `crossfold run TABLE`" in asked
    assert f"{len(all_claims())} claims of the papers: 1 supported" in asked


def test_the_page_says_above_each_measured_table_what_spread_and_interval_are(page, report):
    legend = next(table.legend for table in report.page.tables if table.id == "dca-t1")
    assert "95% interval over videos and seeds" in legend
    section = page[page.index('<section id="dca-t1"') :]
    assert legend in section[: section.index("<table")]
    assert "Kendall" in section[section.index("</table>") : section.index("</section>")]


def test_the_same_workspace_gives_the_same_bytes_but_for_the_date(finished, report, tmp_path):
    later = build_report(finished, out=tmp_path, now=NOW + datetime.timedelta(days=1))
    for before, after in zip(report.paths, later.paths, strict=True):
        old, new = before.read_text().splitlines(), after.read_text().splitlines()
        differing = [(a, b) for a, b in zip(old, new, strict=True) if a != b]
        # Nothing but the date, which stands once on the page, below each table, and in each line of a CSV with numbers.
        assert all(a.replace("2025-01-02", "2025-01-03") == b for a, b in differing), before.name
        assert differing
        assert len(differing) == 1 or before.suffix == ".csv" or before.name == "claims.tex"


def test_a_report_may_be_narrow_and_goes_into_the_workspace(workspace):
    store = lab.make_store(workspace.root)
    for cell, noise in lab.cells_of(store, lab.VARIANTS[6:8], folds=(0,), seeds=(0,)):
        lab.finish(workspace, store, cell, noise)
    report = build_report(workspace, tables=["dca-t1"], formats=["md"])
    names = [path.relative_to(workspace.root).as_posix() for path in report.paths]
    assert names == ["reports/dca-t1.md", "reports/claims.md"]


def test_wrong_names_answer_with_the_nearest(finished, tmp_path):
    with pytest.raises(UserError, match="did you mean 'grjca-t2'"):
        build_report(finished, tables=["grjca-t22"], out=tmp_path)
    with pytest.raises(UserError, match="did you mean 'html'"):
        build_report(finished, formats=["htm"], out=tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_empty_workspace_says_what_to_run(tmp_path):
    with pytest.raises(UserError, match="crossfold run SWEEP"):
        build_report(Workspace(tmp_path / "nowhere"))
    assert not (tmp_path / "nowhere").exists()


def test_a_workspace_without_its_store_still_reports(workspace):
    store = lab.make_store(workspace.root)
    for cell, noise in lab.cells_of(store, lab.VARIANTS[:2], folds=(0,), seeds=(0,)):
        lab.finish(workspace, store, cell, noise)
    store.path.rename(workspace.root / "elsewhere")
    page = build_report(workspace, formats=["html"], now=NOW).paths[0].read_text()
    assert "is not in this workspace, so no clip is shown" in page
    assert "plot-curve-valence-1" in page
    assert 'id="clips"' not in page


def test_the_page_needs_nothing_else(page):
    text = without_plotly(page)
    assert not re.findall(r"(?:src|href)=[\"'](?!#|data:)", text)
    assert "http://" not in text
    assert "https://" not in text
    assert "@import" not in text
    assert "url(" not in text
    assert len(page) < 1_500_000
    library = gzip.decompress(PLOTLY.read_bytes()).decode()
    assert page.count(base64.b64encode(PLOTLY.read_bytes()).decode()) == 1
    # The charts are made by the Python library, and drawn by the script of the same version.
    version = re.search(r"plotly.js \(cartesian - minified\) v(\d+)", library).group(1)
    assert version == get_plotlyjs_version().split(".")[0]


def test_the_first_page_and_every_part_with_results_is_labelled_once_as_embedded(page):
    label = '<span class="badge">embedded corpus: puppets - not the papers&#39; data</span>'
    top, *parts = page.split('<details class="part"')
    assert top.count(label) == 1
    assert [part.count(label) for part in parts] == [1, 1, 1, 1, 1, 1, 0]
    assert "<h2>Runs</h2>" in parts[-1]
    # What leaves the page says it too.
    figures = unpacked(page)["figures"]
    assert len(figures) == page.count("<figure")
    assert {figure["label"] for figure in figures.values()} == {"embedded corpus: puppets - not the papers' data"}
    assert all("recipe: demo" in figure["note"] for figure in figures.values())


def test_figures_and_tables_say_what_they_show(page):
    text = without_plotly(page)
    plots = re.findall(r'<div class="plot" id="([^"]+)" role="img" aria-label="([^"]+)"', text)
    assert len({name for name, _ in plots}) == len(plots)
    assert {name for name, _ in plots} == set(unpacked(page)["plots"])
    # Scores, or ranks with their ranges.
    assert [words for _, words in plots if not re.search(r"\d\.\d{3}|\d \(\d+ to \d+\)", words)] == []
    assert text.count("<figcaption>") == text.count("<figure")
    assert text.count("<caption") == text.count("<table")
    assert text.index('class="skip" href="#main"') < text.index("<header ") < text.index('id="main"')


def test_the_first_screen_says_what_was_measured_and_what_came_of_it(page):
    top = page[page.index("<header ") : page.index("<table")]
    assert "10 systems, 2 folds, 3 seeds; 120 of 120 training runs finished" in top
    assert "On puppets, 4 of 8 fusion systems beat both unimodal systems on the mean of valence and arousal CCC" in top


def test_numbers_lead_to_cells_and_commands(page, finished):
    anchors = set(re.findall(r'href="#(cells-\d+)"', page))
    assert anchors
    assert anchors <= set(re.findall(r'id="(cells-\d+)"', page))
    drill = unpacked(page)["drill"]
    rows = {row[6]: row for group in drill["groups"].values() for row in group["rows"]}
    assert set(rows) == finished.finished()
    record = finished.read(next(iter(rows)))
    row = rows[record.cell_id]
    assert row[:2] == [record.cell.fold, record.cell.seed]
    assert row[2] == round(record.result["metrics"][record.cell.targets[0]]["ccc"], 4)
    assert row[5] == record.result["selection"]["epochs"]
    high, low = (DIGITS.index(digit) for digit in row[11][-2:])
    assert high * 62 + low - 1000 == round(record.curve[f"ccc_{record.cell.targets[0]}"].iloc[-1] * 1000)
    assert all(drill["labels"][group["setting"]].startswith("embedded corpus") for group in drill["groups"].values())
    assert drill["environments"] == [{"crossfold": "0.1.0", "torch": "2.13.0"}]
    assert next(iter(drill["recipes"].values()))["epochs"] == 30


def test_a_cell_knows_its_tracked_run(workspace):
    store = lab.make_store(workspace.root)
    (cell, noise), *_ = lab.cells_of(store, lab.VARIANTS[:1], folds=(0,), seeds=(0,))
    lab.finish(workspace, store, cell, noise)
    lines = [json.dumps({"cell": cell.cell_id, "run": run, "store": "x"}) for run in ("first", "last")]
    (workspace.root / "mlflow-runs.jsonl").write_text(
        "\n".join([*lines, '{"cell": "ab', '{"cell": "other", "run": "r"}'])
    )
    page = build_report(workspace, formats=["html"], now=NOW, figures=False).paths[0].read_text()
    drill = unpacked(page)["drill"]
    assert [row[13] for group in drill["groups"].values() for row in group["rows"]] == ["last"]
    assert (drill["run_pages"], drill["pages"]) == ({}, [""])


def test_a_tracked_run_is_a_link_where_its_server_is_known(workspace, monkeypatch):
    store = lab.make_store(workspace.root)
    cells = [cell for cell, _ in lab.cells_of(store, lab.VARIANTS[:1], folds=(0,), seeds=(0, 1, 2))][:3]
    for cell in cells:
        lab.finish(workspace, store, cell, 0.4)
    mine = "https://me:secret@host:5000/mlflow/"
    known = [{"server": "http://other"}, {"store": hashlib.sha256(mine.encode()).hexdigest()[:12]}, {"store": "x"}]
    lines = [json.dumps({"cell": cell.cell_id, "run": "r", **each}) for cell, each in zip(cells, known, strict=True)]
    (workspace.root / "mlflow-runs.jsonl").write_text("\n".join(lines))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mine)
    page = build_report(workspace, formats=["html"], now=NOW, figures=False).paths[0].read_text()
    drill = unpacked(page)["drill"]
    pages = [drill["pages"][drill["run_pages"].get(cell.cell_id, 0)] for cell in cells]
    assert pages == ["http://other/#/runs/", "https://host:5000/mlflow/#/runs/", ""]
    assert "secret" not in page


@pytest.mark.parametrize("uri", ["sqlite:////a/b.db", "javascript:alert(1)", "http://", "http://[", "databricks", ""])
def test_only_a_web_server_has_a_public_address(uri):
    assert public_address(uri) == ""


def test_a_page_without_figures_is_small_and_has_its_tables(finished, tmp_path):
    report = build_report(finished, formats=["html"], out=tmp_path, now=NOW, figures=False)
    page = report.paths[0].read_text(encoding="utf-8")
    assert len(page) < 500_000
    assert 'id="plotly"' not in page
    assert unpacked(page)["plots"] == {}
    assert 'id="leaderboard"' in page
    assert report.page.figures == ()


def test_settings_stand_apart_and_beside_each_other(workspace):
    store = lab.make_store(workspace.root)
    for selection in ("reported", "held_out"):
        recipe = Recipe(name="demo", epochs=30, selection=selection)
        for cell, noise in lab.cells_of(store, lab.VARIANTS[:3], folds=(0,), seeds=(0, 1), recipe=recipe):
            lab.finish(workspace, store, cell, noise)
    report = build_report(workspace, formats=["html"], now=NOW)
    page = without_plotly(report.paths[0].read_text(encoding="utf-8"))
    assert [block.name for block in report.page.blocks] == [
        "puppets, demo, selection reported", "puppets, demo, selection held out"
    ] or [block.name for block in report.page.blocks][::-1] == [
        "puppets, demo, selection reported", "puppets, demo, selection held out"
    ]  # fmt: skip
    assert page.count('<option value="1">') == page.count('<option value="2">') == 1
    assert 'id="overview"' in page
    assert 'id="leaderboard-2"' in page
    assert 'id="figures-2"' in page
    ids = re.findall(r' id="([^"]+)"', page)
    assert len(ids) == len(set(ids))


def test_hostile_names_are_inert(workspace):
    store = lab.make_store(workspace.root, first_clip=EVIL)
    evil = lab.Fake(EVIL, {"note": EVIL}, 0.3)
    for cell, noise in lab.cells_of(store, (*lab.VARIANTS[:3], evil, lab.Fake(EVIL, {"note": 2}, 0.4)), folds=(0,)):
        lab.finish(workspace, store, cell, noise)
    report = build_report(workspace, now=NOW)
    page = report.paths[0].read_text(encoding="utf-8")
    assert EVIL not in without_plotly(page)
    assert "alert(1)" in page
    assert page.count("<script") == page.count("</script>")
    for path in report.paths[1:]:
        if path.suffix in (".md", ".tex"):
            assert "<script" not in path.read_text(encoding="utf-8")


def test_one_table_is_taken_out_with_chosen_columns(finished):
    heads = ("system", "95% interval", "arousal: CCC")
    text = take_table(finished, "leaderboard", "txt", heads)
    caption, _, first, *rows = text.splitlines()
    assert "Embedded corpus: puppets" in caption
    assert first.split("  ")[0] == "System"
    assert first.endswith("Arousal: CCC")
    assert len(rows) == 10
    assert rows[0].split("  ")[0] in {"CA + DCA", "JCA + DCA"}
    lines = list(csv.reader(io.StringIO(take_table(finished, "leaderboard", "csv", heads))))
    assert lines[0] == ["System", "95% interval", "Arousal: CCC"]
    assert lines[1][2] == rows[0].split("  ")[-1].strip()
    tex = take_table(finished, "leaderboard", "tex", heads)
    assert "\\begin{tabular}{lrr}" in tex
    assert "\\label{tab:leaderboard}" in tex
    assert "\\caption{All systems on puppets. Embedded corpus" in tex
    assert take_table(finished, "dca-t1", "md").count("| --- |") == 1
    with pytest.raises(UserError, match="no column 'Arousal: CC', did you mean 'Arousal: CCC'"):
        take_table(finished, "leaderboard", "md", ["Arousal: CC"])
    with pytest.raises(UserError, match="unknown format 'html'"):
        take_table(finished, "leaderboard", "html")


def test_nothing_heavy_is_imported():
    heavy = ("torch", "ray", "mlflow", "optuna")
    code = f"import sys, crossfold.reports.build; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
