"""The report as one HTML file that needs nothing else: no network and no other file."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from crossfold.platform.workspace.workspace import Workspace
from crossfold.reports.figures.attention import DIVERGING_MAP, SEQUENTIAL_MAP
from crossfold.reports.figures.clip_media import COLUMNS
from crossfold.reports.page.compose import Block, Page
from crossfold.reports.page.drilldown import drill_data, group_anchors, group_keys
from crossfold.reports.results.comparable import comparable_variants
from crossfold.reports.results.model import Results
from crossfold.reports.results.systems import system_kind
from crossfold.reports.stats.formatting import DASH
from crossfold.reports.tables.claims import METHOD, Verdict, claims_grid, comparisons_grid, count_words
from crossfold.reports.tables.claims_formats import TITLE, labels, origins
from crossfold.reports.tables.entries import Table
from crossfold.reports.tables.formats import numeric
from crossfold.reports.tables.grid import Grid, GridCell, further_grids, label_cell, main_grid
from crossfold.reports.tables.notes import caption
from crossfold.reports.tables.published import MEAN

TEMPLATES = Path(__file__).parent / "templates"
KINDS = {"unimodal": "one modality", "fusion": "fusion without a gate", "gated": "fusion with a gate"}


def packed(spec: Mapping[str, Any]) -> dict[str, Any]:
    """A chart in the form of the page: a row of a map starts with the number of empty cells that are left out."""
    data = []
    for trace in spec["data"]:
        if trace.get("meta") in (DIVERGING_MAP, SEQUENTIAL_MAP):
            rows = []
            for row in trace["z"]:
                full = [at for at, value in enumerate(row) if value is not None] or [0]
                rows.append([full[0], *row[full[0] : full[-1] + 1]])  # only windows on the diagonal have numbers
            trace = {**trace, "z": rows}
        data.append(trace)
    return {**spec, "data": data}


class _Row(NamedTuple):
    """The properties by which rows of a leaderboard are filtered."""

    kind: str
    """A key of `KINDS`."""
    rest: bool
    """Not complete, or with other folds and seeds than most: not shown at first."""


class _CellGroup(NamedTuple):
    """The cells behind one variant and target."""

    anchor: str
    label: str
    cells: str


def render(page: Page, results: Results, workspace: Workspace | None = None, *, live: bool = False) -> str:
    """The page as text. live: it polls its server, and reloads when the content has changed."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        # Names come from users and data, so everything is escaped that is not `Markup`.
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,  # a wrong name in the template is an error, not an empty string
        trim_blocks=True,
        lstrip_blocks=True,
    )
    anchors = group_anchors(results)
    boards = {block.number: block.leaderboard for block in page.blocks if block.leaderboard}
    shown = {setting.key: setting for setting in (*(b.setting for b in page.blocks), *(t.setting for t in page.tables))}
    return environment.get_template("report.html.j2").render(
        page=page,
        boards={number: (main_grid(table), further_grids(table)) for number, table in boards.items()},
        rows={number: _rows(table, results) for number, table in boards.items()},
        overview=_overview(page.blocks),
        kinds=KINDS,
        columns=COLUMNS,
        sections=[(table, main_grid(table), further_grids(table)) for table in page.tables if not _folded(table, page)],
        folded=[(table, main_grid(table)) for table in page.tables if _folded(table, page)],
        claims=_claims(page.verdicts),
        groups={block.number: _groups(results, block, anchors) for block in page.blocks},
        drill=drill_data(results, list(shown.values()), workspace),
        failures=results.failures,
        caption=caption,
        anchor_of=lambda table, link: _anchor(anchors, table, *link),
        numeric=numeric,
        sort_key=_sort_key,
        css=Markup((TEMPLATES / "report.css").read_text(encoding="utf-8")),
        js=Markup((TEMPLATES / "report.js").read_text(encoding="utf-8")),
        plotly=Markup(get_plotlyjs()) if page.figures else "",
        script_json=script_json,
        packed=packed,
        live=live,
    )


def _anchor(anchors: Mapping[tuple[str, str, str], str], table: Table, variant: str, target: str, setting: str) -> str:
    """The block of cells that a number links to; a mean over targets links to the first of them."""
    targets = [target] if target != MEAN else [entry.target for entry in table.entries if entry.variant == variant]
    return next(
        (anchors[key] for each in targets if (key := (setting or table.setting.key, variant, each)) in anchors), ""
    )


def _folded(table: Table, page: Page) -> bool:
    """Whether a table is listed at the end, closed, because nothing of it has run."""
    return table.idle and len(page.tables) + sum(block.leaderboard is not None for block in page.blocks) > 1


def _rows(table: Table, results: Results) -> list[_Row]:
    """The properties of each line of a leaderboard, in order."""
    comparable = comparable_variants(results, table.setting)
    return [
        _Row(system_kind(line.system), not any(entry.variant in comparable for entry in line.entries))
        for line in table.lines
    ]


def _overview(blocks: Sequence[Block]) -> Grid | None:
    """Systems x settings, by the first column of each leaderboard; None where there are not several."""
    boards = [(block, block.leaderboard) for block in blocks if block.leaderboard]
    if len(boards) < 2:
        return None
    columns = [{line.label: line.entries[0] for line in table.lines} for _, table in boards]
    best = [max((e.mean for e in column.values() if e.mean is not None), default=None) for column in columns]
    rows = []
    for label in dict.fromkeys(label for column in columns for label in column):
        cells = [label_cell(label)]
        for column, most in zip(columns, best, strict=True):
            entry = column.get(label)
            if entry is None or entry.mean is None:
                cells.append(GridCell(entry.text if entry else DASH, kind="missing"))
            else:
                cells.append(GridCell(entry.text, sort=entry.mean, kind="measured", strong=entry.mean == most))
        rows.append(tuple(cells))
    return Grid((), ("System", *(block.name for block, _ in boards)), tuple(rows))


def _claims(verdicts: Sequence[Verdict]) -> Mapping[str, Any] | None:
    if not verdicts:
        return None
    return {
        "title": TITLE,
        "labels": labels(verdicts),
        "count": count_words(verdicts),
        "grid": claims_grid(verdicts),
        "comparisons": comparisons_grid(verdicts),
        "method": METHOD,
        "origins": origins(verdicts, dated=False),
    }


def script_json(value: Any) -> Markup:
    """JSON for a script element: nothing in it can end the element or begin a comment."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    for character in "<>&":  # JSON reads the escapes as the characters; HTML does not
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def _groups(results: Results, block: Block, anchors: Mapping[tuple[str, str, str], str]) -> Sequence[_CellGroup]:
    groups = []
    for variant, target in group_keys(results, block.setting):
        key = (block.setting.key, variant, target)
        total = len(results.groups[key])
        done = int((results.groups[key]["status"] == "done").sum())
        count = f"{done}/{total} cells" if done < total else f"{done} cell{'s' if done != 1 else ''}"
        groups.append(_CellGroup(anchors[key], f"{results.variants[variant]}, {target}", count))
    return groups


def _sort_key(cell: GridCell) -> Markup:
    """The attribute by which a column is sorted, with six digits; an empty one sorts last."""
    # Without it the text sorts: repeating thousands of words would make a page large.
    if isinstance(cell.sort, str) and cell.sort.lower() == cell.text.lower() and not cell.marks:
        return Markup()
    value = "" if cell.sort is None else f"{cell.sort:.6g}" if isinstance(cell.sort, float) else cell.sort
    return Markup(' data-sort="{}"').format(value)
