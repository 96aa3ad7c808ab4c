"""The report as one HTML file that needs nothing else: no network, no folder beside it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
from crossfold.reports.results.systems import UNIMODAL_PREFIX, is_gated
from crossfold.reports.stats.formatting import DASH
from crossfold.reports.tables.claims import METHOD, Verdict, claims_grid, comparisons_grid, count_words
from crossfold.reports.tables.claims_formats import TITLE, labels, origins
from crossfold.reports.tables.entries import Table
from crossfold.reports.tables.grid import Grid, GridCell, further_grids, main_grid
from crossfold.reports.tables.published import MEAN


def packed(spec: Mapping[str, Any]) -> dict[str, Any]:
    """A chart as the page holds it: rows of a map begin with the number of empty cells that are left out there."""
    data = []
    for trace in spec["data"]:
        if trace.get("meta") in (DIVERGING_MAP, SEQUENTIAL_MAP):
            rows = []
            for row in trace["z"]:
                full = [at for at, value in enumerate(row) if value is not None] or [0]
                rows.append([full[0], *row[full[0] : full[-1] + 1]])
            trace = {**trace, "z": rows}
        data.append(trace)
    return {**spec, "data": data}


TEMPLATES = Path(__file__).parent / "templates"
KINDS = {"unimodal": "one modality", "fusion": "fusion without a gate", "gated": "fusion with a gate"}


@dataclass(frozen=True)
class _Row:
    """What a reader filters a row of a leaderboard by."""

    kind: str
    """A key of `KINDS`."""
    rest: bool
    """Not complete, or with other folds and seeds than most: not shown at first."""


@dataclass(frozen=True)
class _CellGroup:
    """The cells behind one variant and target."""

    anchor: str
    label: str
    count: str


def render(page: Page, results: Results, workspace: Workspace | None = None, *, live: bool = False) -> str:
    """The page as text. live: it asks its server for news, and loads again when there are any."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
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
        anchor_of=lambda table, link: _anchor(anchors, table, *link),
        numeric=_numeric,
        sort_key=_sort_key,
        css=Markup((TEMPLATES / "report.css").read_text(encoding="utf-8")),
        js=Markup((TEMPLATES / "report.js").read_text(encoding="utf-8")),
        plotly=Markup(get_plotlyjs()) if page.figures else "",
        script_json=script_json,
        packed=packed,
        live=live,
    )


def _anchor(anchors: Mapping[tuple[str, str, str], str], table: Table, variant: str, target: str, setting: str) -> str:
    """Where a number leads; a mean over targets leads to the first of them."""
    targets = [target] if target != MEAN else [entry.target for entry in table.entries if entry.variant == variant]
    return next(
        (anchors[key] for each in targets if (key := (setting or table.setting.key, variant, each)) in anchors), ""
    )


def _folded(table: Table, page: Page) -> bool:
    """Whether a table stands folded below the others, because nothing of it has run."""
    return table.idle and len(page.tables) + sum(block.leaderboard is not None for block in page.blocks) > 1


def _rows(table: Table, results: Results) -> list[_Row]:
    """What each line of a leaderboard is filtered by, in order."""
    budget = comparable_variants(results, table.setting).variants
    return [
        _Row(
            "unimodal" if line.system.startswith(UNIMODAL_PREFIX) else "gated" if is_gated(line.system) else "fusion",
            not any(entry.variant in budget for entry in line.entries),
        )
        for line in table.lines
    ]


def _overview(blocks: Sequence[Block]) -> Grid | None:
    """Systems x settings, by the first column of each leaderboard; None where there are not several."""
    boards = [(block, block.leaderboard) for block in blocks if block.leaderboard]
    if len(boards) < 2:
        return None
    found = [{line.label: line.entries[0] for line in table.lines} for _, table in boards]
    rows = []
    for label in dict.fromkeys(line.label for _, table in boards for line in table.lines):
        cells = [GridCell(label, sort=label.lower(), kind="label")]
        for entries in found:
            entry = entries.get(label)
            if entry is None:
                cells.append(GridCell(DASH, kind="missing"))
            else:
                best = max((each.mean for each in entries.values() if each.mean is not None), default=None)
                kind = "missing" if entry.mean is None else "measured"
                strong = entry.mean is not None and entry.mean == best
                cells.append(GridCell(entry.text, sort=entry.mean, kind=kind, strong=strong))
        rows.append(tuple(cells))
    heads = ("System", *(block.name for block, _ in boards))
    return Grid((), heads, tuple(rows))


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
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def _groups(results: Results, block: Block, anchors: Mapping[tuple[str, str, str], str]) -> Sequence[_CellGroup]:
    groups = []
    for variant, target in group_keys(results, block.setting):
        anchor = anchors.get((block.setting.key, variant, target))
        if anchor is None:
            continue
        chosen = results.groups[block.setting.key, variant, target]
        done = int((chosen["status"] == "done").sum())
        few = f"{done} cell{'s' if done != 1 else ''}"
        count = few if done == len(chosen) else f"{done}/{len(chosen)} cells"
        groups.append(_CellGroup(anchor, f"{results.variants[variant]}, {target}", count))
    return groups


def _sort_key(cell: GridCell) -> Markup:
    """The attribute that a column is sorted by, with no more digits than tell numbers apart; an empty one sorts last.

    None where it would repeat the text of the cell: a large page repeats thousands of words.
    """
    if isinstance(cell.sort, str) and cell.sort.lower() == cell.text.lower() and not cell.marks:
        return Markup()
    value = "" if cell.sort is None else f"{cell.sort:.6g}" if isinstance(cell.sort, float) else cell.sort
    return Markup(' data-sort="{}"').format(value)


def _numeric(grid: Grid, column: int) -> bool:
    return any(row[column].kind in ("number", "published", "measured") for row in grid.rows)
