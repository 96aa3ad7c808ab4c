"""The report as one HTML file that needs nothing else: no network, no folder beside it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from crossfold.reports.budget import setting_targets, setting_variants
from crossfold.reports.cells import Results, Setting
from crossfold.reports.claims import METHOD, Verdict, claims_grid, comparisons_grid, count_words
from crossfold.reports.claims_text import TITLE, labels
from crossfold.reports.figures import Figure
from crossfold.reports.layout import Grid, further_grids, main_grid
from crossfold.reports.values import Table, number

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Page:
    """Everything the page shows, already computed."""

    title: str
    date: str
    summary: str
    """What was measured, in one sentence."""
    facts: Sequence[tuple[str, str]]
    """How it was run, as term and description."""
    tables: Sequence[Table]
    figures: Sequence[Figure]
    notices: Sequence[str]
    setting: Setting
    """The one that the figures are made from."""
    verdicts: Sequence[Verdict] = ()
    """On the papers' claims."""


@dataclass(frozen=True)
class _CellGroup:
    """The cells behind one variant and target."""

    anchor: str
    label: str
    count: str
    cells: Sequence[Mapping[str, Any]]


def render(page: Page, results: Results) -> str:
    """The page as text."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    anchors = _anchors(results)
    shown = {table.setting.key: table.setting for table in page.tables}
    return environment.get_template("report.html.j2").render(
        page=page,
        sections=[(table, main_grid(table), further_grids(table)) for table in page.tables if not _folded(table, page)],
        folded=[(table, main_grid(table)) for table in page.tables if _folded(table, page)],
        claims=_claims(page.verdicts),
        groups=[group for setting in shown.values() for group in _groups(results, setting, anchors)],
        failures=results.failures,
        anchor_of=lambda table, link: anchors.get((table.setting.key, *link), ""),
        numeric=_numeric,
        css=Markup((TEMPLATES / "report.css").read_text(encoding="utf-8")),
        js=Markup((TEMPLATES / "report.js").read_text(encoding="utf-8")),
        plotly=Markup(get_plotlyjs()) if page.figures else "",
        script_json=script_json,
    )


def _folded(table: Table, page: Page) -> bool:
    """Whether a table stands folded below the others, because nothing of it has run."""
    return table.idle and len(page.tables) > 1


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
    }


def script_json(value: Any) -> Markup:
    """JSON for a script element: nothing in it can end the element or begin a comment."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def _anchors(results: Results) -> dict[tuple[str, str, str], str]:
    """(setting, variant, target) -> the id of its block of cells; numbered, so that names never reach an id."""
    keys = results.cells[["setting", "variant", "target"]].drop_duplicates().to_numpy()
    return {(str(s), str(v), str(t)): f"cells-{index}" for index, (s, v, t) in enumerate(keys, start=1)}


def _groups(results: Results, setting: Setting, anchors: Mapping[tuple[str, str, str], str]) -> Sequence[_CellGroup]:
    groups = []
    for variant in setting_variants(results, setting):
        for target in setting_targets(results, setting):
            anchor = anchors.get((setting.key, variant, target))
            if anchor is None:
                continue
            cells = results.cells
            chosen = cells[
                (cells["setting"] == setting.key) & (cells["variant"] == variant) & (cells["target"] == target)
            ]
            done = int((chosen["status"] == "done").sum())
            groups.append(
                _CellGroup(
                    anchor=anchor,
                    label=f"{results.variants[variant]}, {target}",
                    count=f"{done} cell{'s' if done != 1 else ''}"
                    if done == len(chosen)
                    else f"{done}/{len(chosen)} cells",
                    cells=[_cell(row) for row in chosen.to_dict("records")],
                )
            )
    return groups


def _cell(row: Mapping[Any, Any]) -> dict[str, Any]:
    done = row["status"] == "done"
    return {
        "fold": int(row["fold"]),
        "seed": int(row["seed"]),
        "ccc": number(row["ccc"]) if done else f"failed: {row['failure']}" if row["status"] == "failed" else "not run",
        "video_mean": number(row["ccc_video_mean"]) if done else "",
        "epochs": f"{int(row['best_epoch'])} of {int(row['epochs'])}" if done else "",
        "id": row["cell_id"],
    }


def _numeric(grid: Grid, column: int) -> bool:
    return any(row[column].kind in ("number", "published", "measured") for row in grid.rows)
