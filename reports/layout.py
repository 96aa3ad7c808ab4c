"""A `Table` laid out as a grid of plain strings, once, for every format."""

from collections.abc import Sequence
from dataclasses import dataclass

from crossfold.reports.values import (
    DASH,
    MEAN,
    NOT_MEASURABLE,
    Entry,
    Table,
    gain_text,
    interval_text,
    listing,
    p_text,
    signed,
)


@dataclass(frozen=True)
class GridCell:
    """One printed string and what a format may do with it."""

    text: str
    sort: float | str | None = None
    """What a reader sorts by; None sorts last."""
    kind: str = "number"
    """label, number, published, measured, words or missing."""
    strong: bool = False
    """The best of its column."""
    unclear: bool = False
    """A gain whose interval does not exclude zero."""
    link: tuple[str, str] | None = None
    """Variant and target whose cells stand behind the number."""
    marks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Grid:
    """Two rows of heads and the rows below them."""

    groups: tuple[tuple[str, int], ...]
    """Heads that span columns: text and width, from the first column on."""
    heads: tuple[str, ...]
    rows: tuple[tuple[GridCell, ...], ...]
    ranked: int | None = None
    """The column by which the rows are in descending order already."""


def main_grid(table: Table) -> Grid:
    """The table itself. Where its first column is the mean over the others, these show their score alone."""
    printed = any(entry.printed is not None for entry in table.entries)
    short = table.columns[0] == MEAN
    best = [_best(table, index) for index in range(len(table.columns))]
    heads = ["System" if not printed else "Row"]
    groups = [("", 1)]
    for index, target in enumerate(table.columns):
        inside = [*(["Published"] if printed else []), "Measured CCC" if printed else "CCC"]
        inside += [] if short and index else ["95% interval"]
        inside += ["Difference"] if table.comparable else []
        for rival in table.rivals if index == 0 else ():
            inside += [f"Gain over {rival}", "p (Holm)"]
        heads += inside
        groups.append((_column_head(table, target), len(inside)))
    heads += table.extra
    if table.extra:
        groups.append(("", len(table.extra)))
    rows = []
    for line in table.lines:
        row = [GridCell(line.label, sort=line.label.lower(), kind="label", marks=line.marks)]
        for index, entry in enumerate(line.entries):
            cells = _entry_cells(table, entry, printed=printed, best=best[index])
            row += cells[:1] if short and index else cells
            row += _against_cells(entry, table.rivals if index == 0 else ())
        row += [GridCell(_whole(value), sort=value) for value in line.extra]
        rows.append(tuple(row))
    return Grid(tuple(groups), tuple(heads), tuple(rows), ranked=None if printed else 1)


def further_grids(table: Table) -> list[tuple[str, Grid]]:
    """What stands below the table itself, each with its heading."""
    grids = [("Gains, printed and measured", gains_grid(table)), ("By target", target_grid(table))]
    return [(heading, grid) for heading, grid in grids if grid]


def target_grid(table: Table) -> Grid | None:
    """The targets with interval and gain over the best row; None where the first column is not their mean."""
    if table.columns[0] != MEAN:
        return None
    rivals = (table.best,) if table.best else ()
    groups, heads = [("", 1)], ["System"]
    for target in table.columns[1:]:
        inside = ["CCC", "95% interval", *(head for rival in rivals for head in (f"Gain over {rival}", "p (Holm)"))]
        groups.append((_column_head(table, target), len(inside)))
        heads += inside
    best = [_best(table, index) for index in range(len(table.columns))]
    rows = []
    for line in table.lines:
        row = [GridCell(line.label, sort=line.label.lower(), kind="label")]
        for index, entry in enumerate(line.entries[1:], start=1):
            row += [*_entry_cells(table, entry, printed=False, best=best[index]), *_against_cells(entry, rivals)]
        rows.append(tuple(row))
    return Grid(tuple(groups), tuple(heads), tuple(rows))


def gains_grid(table: Table) -> Grid | None:
    """Printed and measured gains of one component; None where the table declares no pairs."""
    if not table.gains:
        return None
    rows = tuple(
        (
            GridCell(line.label, sort=line.label.lower(), kind="label"),
            GridCell(line.target, sort=line.target, kind="words"),
            GridCell(signed(line.printed), sort=line.printed),
            GridCell(gain_text(line.gain), sort=line.gain.mean if line.gain else None, kind="number"),
            GridCell(p_text(line.p), sort=line.p),
            GridCell(line.verdict, sort=line.verdict, kind="words" if line.gain else "missing"),
        )
        for line in table.gains
    )
    heads = ("Component added", "Target", "Printed gain", "Measured gain, 95% interval", "p (Holm)", "Verdict")
    return Grid((), heads, rows)


def _entry_cells(table: Table, entry: Entry, *, printed: bool, best: float | None) -> list[GridCell]:
    cells = []
    if printed:
        cells.append(GridCell(entry.printed or DASH, sort=entry.value, kind="published"))
    if entry.mean is None:
        cells.append(GridCell(entry.text, kind="missing", link=_link(entry)))
    else:
        strong = best is not None and entry.mean == best
        cells.append(GridCell(entry.text, sort=entry.mean, kind="measured", strong=strong, link=_link(entry)))
    cells.append(GridCell(interval_text(entry.interval), sort=entry.interval.low if entry.interval else None))
    if table.comparable:
        cells.append(_difference(entry))
    return cells


def _against_cells(entry: Entry, rivals: Sequence[str]) -> list[GridCell]:
    """Gain and p over each of `rivals`; a dash where the entry has none."""
    found = {against.rival: against for against in entry.gains}
    cells = []
    for rival in rivals:
        against = found.get(rival)
        gain = against.gain if against else None
        unclear = gain is not None and gain.sign == 0
        cells.append(GridCell(gain_text(gain), sort=gain.mean if gain else None, unclear=unclear))
        cells.append(GridCell(p_text(against.p if against else None), sort=against.p if against else None))
    return cells


def _column_head(table: Table, column: str) -> str:
    if column == MEAN:
        return f"Mean of {listing([target for target in table.columns if target != MEAN])}"
    return column.capitalize()


def _difference(entry: Entry) -> GridCell:
    if entry.difference is None:
        return GridCell(DASH if entry.verdict != NOT_MEASURABLE else NOT_MEASURABLE, kind="missing")
    return GridCell(f"{signed(entry.difference)} {entry.verdict}", sort=entry.difference, kind="words")


def _link(entry: Entry) -> tuple[str, str] | None:
    return (entry.variant, entry.target) if entry.planned else None


def _best(table: Table, index: int) -> float | None:
    means = [line.entries[index].mean for line in table.lines]
    return max((mean for mean in means if mean is not None), default=None)


def _whole(value: float | None) -> str:
    """A count with thin spaces between thousands; small values keep a decimal."""
    if value is None:
        return DASH
    return f"{value:.1f}" if value < 100 else f"{value:,.0f}".replace(",", "\u202f")
