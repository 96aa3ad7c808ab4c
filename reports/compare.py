"""Reports of several workspaces, and a report as a folder: what moved, a joint leaderboard, one page per table."""

import datetime
from collections.abc import Mapping
from pathlib import Path

from crossfold.platform.core.errors import UserError
from crossfold.platform.core.files import path_inside, write_bytes
from crossfold.platform.workspace.workspace import Workspace
from crossfold.reports.build import Report
from crossfold.reports.page.compose import DATE
from crossfold.reports.page.difference import difference
from crossfold.reports.page.joined import joined
from crossfold.reports.page.sheets import Section, Sheet, sheet_html, sheet_markdown
from crossfold.reports.results.load import load_results
from crossfold.reports.results.model import Results
from crossfold.reports.tables.grid import further_grids, main_grid
from crossfold.reports.tables.notes import caption


def report_difference(before: Workspace, after: Workspace, out: Path, now: datetime.datetime | None = None) -> Report:
    """Writes `difference.html` and `difference.md` into `out`: what moved from one workspace to the other.

    Raises `UserError` where one of them has no finished cell, or where they have no setting in common.
    """
    sheet = difference(_results(before), _results(after), (str(before), str(after)), _date(now))
    if not sheet.sections:
        raise UserError(
            f"{before} and {after} share no corpus, recipe, selection and kind of heads",
            "compare workspaces in which the same sweep ran",
        )
    return _written(sheet, "difference", out)


def join_reports(workspaces: Mapping[str, Workspace], out: Path, now: datetime.datetime | None = None) -> Report:
    """Writes `joined.html` and `joined.md` into `out`: the complete systems of several workspaces in one leaderboard.

    workspaces: by the name that a row shows. Raises `UserError` for fewer than two, and where one has no finished cell.
    """
    if len(workspaces) < 2:
        raise UserError("--join needs two or more workspaces", "crossfold report --join A B")
    return _written(joined({name: _results(each) for name, each in workspaces.items()}, _date(now)), "joined", out)


def write_site(report: Report, out: Path) -> list[Path]:
    """Writes a folder for a web server: `index.html` is the page of the report, `NAME.html` one page per table.

    Every number has an address that stays the same, such as `leaderboard.html#rjca--valence-ccc`. Raises `UserError`
    for a report without a page.
    """
    page = report.page
    if page is None:
        raise UserError("a folder for the web begins with the page, and there is none", "leave html in --format")
    boards = [block.leaderboard for block in page.blocks if block.leaderboard]
    tables = [*boards, *page.tables]
    texts = {"index.html": report.paths[0].read_text(encoding="utf-8")}
    for table in tables:
        grids = [(table.title, main_grid(table)), *further_grids(table)]
        sections = [
            Section(
                heading=heading,
                label=table.setting.label,
                above=(caption(table),) if at == 0 else (),
                grid=grid,
                below=(*table.findings, *(f"{mark}: {text}" for mark, text in table.footnotes), *table.notes)
                if at == len(grids) - 1
                else (),
            )
            for at, (heading, grid) in enumerate(grids)
        ]
        links = [("Report", "index.html"), *((each.id, f"{each.id}.html") for each in tables if each is not table)]
        sheet = Sheet(f"{table.id}: {table.title}", page.date, table.heading, sections, links)
        texts[f"{table.id}.html"] = sheet_html(sheet)
    out.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        write_bytes(path_inside(out, name), text.encode())
    return [out / name for name in texts]


def _results(workspace: Workspace) -> Results:
    results = load_results(workspace)
    if results.cells.empty or not results.records:
        raise UserError(f"workspace {workspace} has no finished cell", "name a workspace in which a sweep has run")
    return results


def _date(now: datetime.datetime | None) -> str:
    return (now or datetime.datetime.now(datetime.UTC)).strftime(DATE).strip()


def _written(sheet: Sheet, name: str, out: Path) -> Report:
    out.mkdir(parents=True, exist_ok=True)
    texts = {f"{name}.html": sheet_html(sheet), f"{name}.md": sheet_markdown(sheet)}
    for file, text in texts.items():
        write_bytes(path_inside(out, file), text.encode())
    return Report(tuple(out / file for file in texts), sheet_markdown(sheet))
