"""The report as one HTML file that needs nothing else: no network and no other file."""

import base64
import itertools
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from crossfold.platform.workspace.workspace import Workspace
from crossfold.reports.figures.clip_media import COLUMNS
from crossfold.reports.page.compose import Block, Page
from crossfold.reports.page.data import page_data
from crossfold.reports.page.describe import claims_of
from crossfold.reports.page.drilldown import group_anchors, group_keys
from crossfold.reports.page.heads import explained
from crossfold.reports.results.comparable import comparable_variants
from crossfold.reports.results.model import Results
from crossfold.reports.results.systems import MARKS, system_kind
from crossfold.reports.stats.formatting import DASH
from crossfold.reports.tables.entries import Table
from crossfold.reports.tables.formats import numeric
from crossfold.reports.tables.grid import Grid, GridCell, further_grids, label_cell, main_grid
from crossfold.reports.tables.notes import caption
from crossfold.reports.tables.published import MEAN, table_spec

TEMPLATES = Path(__file__).parent / "templates"
PLOTLY = TEMPLATES / "plotly-cartesian.min.js.gz"
"""The published bundle of plotly.js with the charts that figures use: a third of the whole library."""
SCRIPTS = ("report.js", "tables.js", "cells.js", "charts.js", "take_out.js", "compare.js", "end.js")
"""The parts of the page's script, in order."""
KINDS = {"unimodal": "one modality", "fusion": "fusion without a gate", "gated": "fusion with a gate"}


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


class _Helps:
    """What heads of columns mean, each sentence once: written out at every head, they are a twentieth of a page."""

    def __init__(self) -> None:
        self.sentences: list[str] = []

    def number(self, sentence: str) -> int:
        """Where a sentence is in `sentences`, to which it is added when it is new."""
        if sentence not in self.sentences:
            self.sentences.append(sentence)
        return self.sentences.index(sentence)


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
        papers=_papers([table for table in page.tables if not _folded(table, page)]),
        papers_settings=[table.setting for table in page.tables if not _folded(table, page)],
        folded=[(table, main_grid(table)) for table in page.tables if _folded(table, page)],
        claims=claims_of(page.verdicts),
        groups={block.number: _groups(results, block, anchors) for block in page.blocks},
        data=page_data(page, results, list(shown.values()), workspace),
        failures=results.failures,
        caption=caption,
        anchor_of=lambda table, link: _anchor(anchors, table, *link),
        numeric=numeric,
        sort_key=_sort_key,
        css=Markup((TEMPLATES / "report.css").read_text(encoding="utf-8")),
        js=Markup("".join((TEMPLATES / name).read_text(encoding="utf-8") for name in SCRIPTS)),
        plotly=base64.b64encode(PLOTLY.read_bytes()).decode() if page.figures else "",
        explained=explained,
        helps=_Helps(),
        number=partial(next, itertools.count(1)),
        classes=_classes,
        marks=MARKS,
        live=live,
    )


def _papers(tables: Sequence[Table]) -> list[tuple[str, list[tuple[str, Table, Grid, list[tuple[str, Grid]]]]]]:
    """Papers, each with its tables: number, table, its grid and those below it."""
    found: dict[str, list[tuple[str, Table, Grid, list[tuple[str, Grid]]]]] = {}
    for table in tables:
        spec = table_spec(table.id)
        found.setdefault(spec.paper, []).append((spec.number, table, main_grid(table), further_grids(table)))
    return list(found.items())


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


def _groups(results: Results, block: Block, anchors: Mapping[tuple[str, str, str], str]) -> Sequence[_CellGroup]:
    groups = []
    for variant, target in group_keys(results, block.setting):
        key = (block.setting.key, variant, target)
        total = len(results.groups[key])
        done = int((results.groups[key]["status"] == "done").sum())
        count = f"{done}/{total} cells" if done < total else f"{done} cell{'s' if done != 1 else ''}"
        groups.append(_CellGroup(anchors[key], f"{results.variants[variant]}, {target}", count))
    return groups


def _classes(cell: GridCell, number: bool) -> Markup:
    """The attribute with the classes of a cell; none where it has none."""
    named = (cell.kind if cell.kind != "number" else "", cell.strong and "best", cell.unclear and "unclear")
    words = " ".join(word for word in (*named, number and "num") if word)
    return Markup(' class="{}"').format(words) if words else Markup()


def _sort_key(cell: GridCell) -> Markup:
    """The attribute by which a column is sorted, with six digits; none where the script finds the same without it.

    An empty one sorts last.
    """
    value = "" if cell.sort is None else f"{cell.sort:.6g}" if isinstance(cell.sort, float) else str(cell.sort)
    # Of a cell without the attribute, the script takes a dash and what is missing for empty, and reads other text in
    # lower case. Repeated, thousands of words and whole numbers would make a page large.
    plain = cell.text.lower().removeprefix("+") if cell.text != "–" and cell.kind != "missing" else ""
    if not cell.marks and plain == value.lower():
        return Markup()
    return Markup(' data-sort="{}"').format(value)
