"""`crossfold report`: a workspace becomes tables, figures and one page. Never trains, needs no GPU."""

import datetime
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from crossfold.platform.core.errors import UserError, did_you_mean
from crossfold.platform.core.files import path_inside, write_bytes
from crossfold.platform.workspace.workspace import Workspace
from crossfold.reports.all_tables import build_tables, tables_for
from crossfold.reports.doses.section import dose_section, dose_summary, dose_texts, dosed_sweeps
from crossfold.reports.page.compose import Page, make_page
from crossfold.reports.page.render import render
from crossfold.reports.results.load import launched_sweeps, load_results
from crossfold.reports.results.model import Results
from crossfold.reports.tables.claims import Verdict, judge
from crossfold.reports.tables.claims_formats import claims_csv, claims_latex, claims_markdown
from crossfold.reports.tables.entries import Table
from crossfold.reports.tables.formats import FORMS, one_table, to_csv, to_latex, to_markdown
from crossfold.reports.tables.published import LEADERBOARD, check_tables, table_ids
from crossfold.reports.tables.summary import summary

FORMATS = ("html", "md", "tex", "csv")

DOSE = "dose"
"""Name of the files with gains against a dose; as a name of `crossfold report`, all launched sweeps with doses."""
CLAIMS = "claims"
"""Name of the files with the verdicts on the papers' claims."""
_CLAIM_WRITERS: Mapping[str, Callable[[Sequence[Verdict]], str]] = {
    "md": claims_markdown,
    "tex": claims_latex,
    "csv": claims_csv,
}
_WRITERS: Mapping[str, Callable[[Table], str]] = {"md": to_markdown, "tex": to_latex, "csv": to_csv}


@dataclass(frozen=True)
class Report:
    """What was written."""

    paths: tuple[Path, ...]
    """The page first, where one was asked for; then each table in each format."""
    summary: str
    """A few lines for a terminal."""
    leaderboards: tuple[Table, ...] = ()
    """One for each setting, where they were asked for."""
    page: Page | None = None
    """The content of the HTML page, where one was asked for."""


def build_report(
    workspace: Workspace,
    *,
    tables: Sequence[str] = (),
    formats: Sequence[str] = FORMATS,
    out: Path | None = None,
    now: datetime.datetime | None = None,
    figures: bool = True,
    live: bool = False,
    media: Path | None = None,
) -> Report:
    """Writes `report.html` and one file per table and format into `out`, by default the workspace's `reports`.

    tables: ids such as `dca-t1`, and names of launched sweeps, whose cells alone are then reported. Without an id, all
    tables are written, or the leaderboard alone where every corpus is somebody's own or has a dose. The same workspace
    gives the same bytes, but for the date `now`.
    figures: whether the page has charts, with the library that draws them. live: whether it polls its server.
    media: folder of a corpus whose faces and sound the page shall show, people included; those of an embedded corpus
    are shown without it. Raises `UserError` for an unknown table or format, and where nothing has run yet.
    """
    names, launched = choose(workspace, tables)
    for name in formats:
        if name not in FORMATS:
            raise UserError(
                f"unknown format {name!r}{did_you_mean(name, FORMATS)}", "give some of " + ", ".join(FORMATS)
            )
    results = _finished(workspace, launched)
    moment = now or datetime.datetime.now(datetime.UTC)
    built = build_tables(results, check_tables(names) if names else tables_for(results), moment)
    verdicts = judge(results, built)
    # Nothing is written before everything is computed.
    doses = dose_section(workspace, results, figures=figures and "html" in formats)
    out = out or workspace.paths.reports
    out.mkdir(parents=True, exist_ok=True)
    texts: dict[str, str] = {}
    page = None
    if "html" in formats:
        page = make_page(workspace, results, built, verdicts, moment, figures=figures, media=media, doses=doses)
        texts["report.html"] = render(page, results, workspace, live=live)
    written = [name for name in FORMATS if name in formats and name in _WRITERS]
    texts |= {f"{table.id}.{name}": _WRITERS[name](table) for table in built for name in written}
    texts |= {f"{CLAIMS}.{name}": _CLAIM_WRITERS[name](verdicts) for name in written if verdicts}
    if doses is not None:
        texts |= dose_texts(doses, written)
    for name, text in texts.items():
        write_bytes(path_inside(out, name), text.encode())
    # Of doses only their own lines, where the report is about them.
    lines = [dose_summary(doses)] if doses is not None else []
    if doses is None or DOSE not in tables:
        lines.append(summary(built, verdicts, results.failures, asked=bool(names)))
    boards = tuple(table for table in built if table.id.startswith(LEADERBOARD))
    return Report(tuple(out / name for name in texts), "\n".join(part for part in lines if part), boards, page)


def choose(workspace: Workspace, names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Which of the names are tables, and which are sweeps that were launched in the workspace.

    A name of both is the table. Raises `UserError` with the nearest right name for one of neither.
    """
    known, launched = table_ids(), launched_sweeps(workspace)
    if DOSE in names and DOSE not in launched:
        # The papers' tables have nothing to say of a dose.
        return choose(workspace, [LEADERBOARD, *(n for n in names if n != DOSE), *dosed_sweeps(workspace)])
    for name in names:
        if name not in known and name not in launched:
            is_cell = any(cell.startswith(name) for cell in workspace.finished())
            raise UserError(
                f"{name!r} is {'a cell, ' if is_cell else ''}no table, and no sweep that was launched in {workspace}"
                f"{'' if is_cell else did_you_mean(name, [*known, *launched])}",
                (f"`crossfold why {name}` shows a cell; " if is_cell else "")
                + "`crossfold list tables` and `crossfold status` show all",
            )
    return [name for name in names if name in known], [name for name in names if name not in known]


def take_table(workspace: Workspace, name: str, form: str, columns: Sequence[str] = ()) -> str:
    """One table as text, for a paper or a terminal: `crossfold report --table`.

    form: one of `FORMS`. columns: the heads to keep, in order; all where none is given. Raises `UserError` for an
    unknown table, form or column, and where nothing has run yet.
    """
    wanted = check_tables([name])
    if form not in FORMS:
        raise UserError(f"unknown format {form!r}{did_you_mean(form, FORMS)}", "give one of " + ", ".join(FORMS))
    built = build_tables(_finished(workspace), wanted)
    return "\n".join(one_table(table, form, columns) for table in built)


def _finished(workspace: Workspace, launched: Sequence[str] = ()) -> Results:
    """All results, or those of some launched sweeps."""
    results = load_results(workspace)
    if launched:
        results = results.of_sweeps(launched)
    if results.cells.empty:
        raise UserError(
            f"nothing to report: workspace {workspace} has no finished cell",
            "run `crossfold demo`, or `crossfold run SWEEP` with --workspace, first",
        )
    return results
