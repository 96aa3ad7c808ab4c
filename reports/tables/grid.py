"""A `Table` laid out as a grid of plain strings, once, for every format."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from crossfold.platform.core.errors import UserError, did_you_mean
from crossfold.reports.results.areas import AREAS
from crossfold.reports.stats.formatting import DASH, gain_text, interval_text, listing, number, p_text, signed
from crossfold.reports.stats.intervals import Gain
from crossfold.reports.tables.entries import NOT_MEASURABLE, SEEN_MARK, Entry, Table
from crossfold.reports.tables.published import MEAN

WIDE = 4
"""The most columns of scores with intervals in the table itself; more have a second table below."""


@dataclass(frozen=True)
class GridCell:
    """One string of a table, and how a format may show it."""

    text: str
    sort: float | str | None = None
    """The value by which a column is sorted; None sorts last."""
    kind: str = "number"
    """label, number, published, measured, words or missing."""
    strong: bool = False
    """In bold: the highest measured number of its column, or a published one that print sets in bold."""
    unclear: bool = False
    """A gain that is no verdict: neither system beats the other."""
    link: tuple[str, str, str] | None = None
    """Variant, target and setting (empty: the table's) of the cells behind the number."""
    marks: tuple[str, ...] = ()


def label_cell(text: str, marks: tuple[str, ...] = ()) -> GridCell:
    """The head of a row."""
    return GridCell(text, sort=text.lower(), kind="label", marks=marks)


def words_cell(text: str) -> GridCell:
    """Words, in alphabetical order; a dash for none."""
    return GridCell(text or DASH, sort=text.lower(), kind="words")


def printed_cell(gain: float | None) -> GridCell:
    """A gain in print."""
    return GridCell(DASH if gain is None else signed(gain), sort=gain)


def gain_cell(gain: Gain | None, *, unclear: bool = False, seen: bool = False) -> GridCell:
    """A measured gain with its interval."""
    marks = (SEEN_MARK,) if seen and gain else ()
    return GridCell(gain_text(gain), sort=gain.mean if gain else None, unclear=unclear, marks=marks)


def p_cell(p: float | None) -> GridCell:
    """A p value."""
    return GridCell(p_text(p), sort=p)


@dataclass(frozen=True)
class Grid:
    """Two rows of heads and the rows below them."""

    groups: tuple[tuple[str, int], ...]
    """Heads that span columns: text and width, from the first column on."""
    heads: tuple[str, ...]
    rows: tuple[tuple[GridCell, ...], ...]
    ranked: int | None = None
    """The column by which the rows are in descending order already."""


def flat_heads(grid: Grid) -> list[str]:
    """One head per column: where there are no spanning heads, each repeats its group."""
    groups = [text for text, width in grid.groups for _ in range(width)] or [""] * len(grid.heads)
    return [f"{group}: {head}" if group else head for group, head in zip(groups, grid.heads, strict=True)]


def narrowed(grid: Grid, columns: Sequence[str]) -> Grid:
    """The grid with chosen columns in the order given; all of them where none is.

    columns: heads, in any case: the whole of one, as `Valence: CCC`, or its part after the group, which takes the first
    column of that name. Raises `UserError` for a head that the table lacks.
    """
    if not columns:
        return grid
    whole = [head.lower() for head in flat_heads(grid)]
    parts = [head.lower() for head in grid.heads]
    chosen = []
    for column in columns:
        name = column.strip().lower()
        found = whole.index(name) if name in whole else parts.index(name) if name in parts else None
        if found is None:
            raise UserError(
                f"the table has no column {column.strip()!r}{did_you_mean(column.strip(), flat_heads(grid))}",
                "name heads of the table, separated by commas",
            )
        chosen.append(found)
    heads = [flat_heads(grid)[at] if parts.count(parts[at]) > 1 else grid.heads[at] for at in chosen]
    return Grid((), tuple(heads), tuple(tuple(row[at] for at in chosen) for row in grid.rows))


def part_of(grid: Grid, columns: Sequence[int]) -> Grid:
    """Some columns of a grid, in order, below the groups that they belong to."""
    groups = [text for text, width in grid.groups for _ in range(width)]
    kept = [(text, len(list(inside))) for text, inside in groupby(groups[at] for at in columns)] if groups else []
    rows = tuple(tuple(row[at] for at in columns) for row in grid.rows)
    return Grid(tuple(kept), tuple(grid.heads[at] for at in columns), rows)


def main_grid(table: Table) -> Grid:
    """The table itself. Where its first column is the mean over the others, these show their score alone."""
    printed = any(entry.printed is not None for entry in table.entries)  # false for leaderboards
    short = table.columns[0] == MEAN
    best = [_best(table, index) for index in range(len(table.columns))]
    # All rows have the same sub-columns, so that a column can be sorted.
    shown = [_shown(table, index, printed=printed, short=short) for index in range(len(table.columns))]
    declared = printed or any(entry.column for entry in table.entries)  # a paper's, with or without numbers
    heads = [table.row_head or ("Row" if declared else "System"), *table.word_heads]
    groups = [("", len(heads))]
    for index in range(len(table.columns)):
        inside = [_head(name, table, printed=printed) for name in shown[index]]
        # A column that cannot be measured says so in its head, instead of once a row.
        inside = [f"Published, {NOT_MEASURABLE}"] if _unmeasurable(table, index) else inside
        for rival in table.rivals if index == 0 else ():
            inside += [f"Gain over {rival}", "p (family)"]
        heads += inside
        groups.append((_column_head(table, index), len(inside)))
    heads += table.extra
    if table.extra:
        groups.append(("", len(table.extra)))
    rows = []
    for line in table.lines:
        row = [label_cell(line.label, line.marks), *map(words_cell, line.words)]
        for index, entry in enumerate(line.entries):
            cells = _entry_cells(entry, best[index])
            row += [cells[name] for name in shown[index]]
            row += _against_cells(entry, table.rivals if index == 0 else ())
        marks = (SEEN_MARK,) if any(entry.seen for entry in line.entries) else ()
        row += [
            GridCell(value, kind="missing")
            if isinstance(value, str)
            else GridCell(_whole(value), sort=value, marks=marks if value is not None else ())
            for value in line.extra
        ]
        rows.append(tuple(row))
    return Grid(tuple(groups), tuple(heads), tuple(rows), ranked=None if declared else 1 + len(table.word_heads))


def further_grids(table: Table) -> list[tuple[str, Grid]]:
    """The tables below the table itself, each with its heading."""
    grids = [
        ("Every measured cell", cells_grid(table)),
        ("Gains, printed and measured", gains_grid(table)),
        ("By target", target_grid(table)),
        (AREAS, areas_grid(table)),
    ]
    return [(heading, grid) for heading, grid in grids if grid]


def cells_grid(table: Table) -> Grid | None:
    """The measured cells one a row, for tables that are too wide for an interval next to each number."""
    if len(table.columns) <= WIDE or table.idle:
        return None
    shown = ("published", "measured", "interval", *(("raw",) if _has_raw(table) else ()), "runs")
    shown += ("difference",) if table.comparable else ()
    heads = [table.row_head or "Row", "Column", *(_head(name, table, printed=True) for name in shown)]
    best = [_best(table, index) for index in range(len(table.columns))]
    rows = []
    for line in table.lines:
        for index, entry in enumerate(line.entries):
            if entry.planned:
                cells = _entry_cells(entry, best[index])
                column = words_cell(_column_head(table, index))
                rows.append((label_cell(line.label), column, *(cells[name] for name in shown)))
    return Grid((), tuple(heads), tuple(rows))


def target_grid(table: Table) -> Grid | None:
    """The targets with interval and gain over the best row; None where the first column is not their mean."""
    if table.columns[0] != MEAN:
        return None
    rivals = (table.best,) if table.best else ()
    inside = ["CCC", "95% interval", *(head for rival in rivals for head in (f"Gain over {rival}", "p (family)"))]
    targets = range(1, len(table.columns))
    best = [_best(table, index) for index in range(len(table.columns))]
    rows = []
    for line in table.lines:
        row = [label_cell(line.label)]
        for index in targets:
            cells = _entry_cells(line.entries[index], best[index])
            row += [cells["measured"], cells["interval"], *_against_cells(line.entries[index], rivals)]
        rows.append(tuple(row))
    groups = [("", 1), *((_column_head(table, index), len(inside)) for index in targets)]
    return Grid(tuple(groups), ("System", *inside * len(targets)), tuple(rows))


def areas_grid(table: Table) -> Grid | None:
    """Areas below the stress curves with their intervals, and what gates and modality dropout add to them.

    None where no row has an area. Columns of gains that no row has are left out.
    """
    if not table.areas:
        return None
    names = {
        "gate": ("Gain of the gate, 95% interval", "p (family)"),
        "dropout": ("Gain of modality dropout, 95% interval", "p (all rows)"),
    }
    shown = {name: heads for name, heads in names.items() if any(getattr(line, name) for line in table.areas)}
    most = max(line.area for line in table.areas)
    rows = []
    for line in table.areas:
        marks = (SEEN_MARK,) if line.seen else ()
        row = [
            label_cell(line.label),
            GridCell(number(line.area), sort=line.area, kind="measured", strong=line.area == most, marks=marks),
            GridCell(interval_text(line.interval), sort=line.interval.low if line.interval else None),
            GridCell(number(line.whole), sort=line.whole, kind="measured", marks=marks),
        ]
        for name in shown:
            gain: Gain | None = getattr(line, name)
            row += [gain_cell(gain, unclear=gain is not None and gain.sign == 0), p_cell(gain.p if gain else None)]
        rows.append(tuple(row))
    heads = (
        "System",
        "Area",
        "95% interval",
        "CCC without damage",
        *(head for pair in shown.values() for head in pair),
    )
    return Grid((), heads, tuple(rows))


def gains_grid(table: Table) -> Grid | None:
    """Printed and measured gains of one component; None where the table declares no pairs."""
    if not table.gains:
        return None
    rows = tuple(
        (
            label_cell(line.label),
            words_cell(line.target),
            printed_cell(line.printed),
            gain_cell(line.gain, seen=line.seen),
            p_cell(line.gain.p if line.gain else None),
            GridCell(line.verdict, sort=line.verdict, kind="words" if line.gain else "missing"),
        )
        for line in table.gains
    )
    heads = ("Component added", "Target", "Printed gain", "Measured gain, 95% interval", "p (family)", "Verdict")
    return Grid((), heads, rows)


def _shown(table: Table, index: int, *, printed: bool, short: bool) -> tuple[str, ...]:
    """The sub-columns of one column of scores; a column that cannot be measured needs no interval."""
    if table.architecture:
        return ("published", "measured", "verdict")
    if _unmeasurable(table, index):
        return ("published",)
    names = ("published", "measured") if printed else ("measured",)
    if short and index:
        return names
    wide = len(table.columns) > WIDE
    raw = ("raw",) if _has_raw(table) and not wide else ()
    return (*names, *raw, *(() if wide else ("interval",)), *(("difference",) if table.comparable and printed else ()))


def _head(name: str, table: Table, *, printed: bool) -> str:
    if table.architecture and name == "measured":
        return "By arithmetic"
    return {
        "published": "Published",
        "measured": "Measured CCC" if printed else "CCC",
        "raw": "Raw CCC",
        "interval": "95% interval",
        "difference": "Difference",
        "verdict": "Verdict",
        "runs": "Runs",
    }[name]


def _unmeasurable(table: Table, index: int) -> bool:
    return all(line.entries[index].verdict == NOT_MEASURABLE for line in table.lines)


def _has_raw(table: Table) -> bool:
    return any(entry.raw is not None for entry in table.entries)


def _entry_cells(entry: Entry, best: float | None) -> dict[str, GridCell]:
    """The cell of each sub-column, by its name."""
    kind, strong = "missing" if entry.mean is None else "measured", best is not None and entry.mean == best
    place = (entry.variant, entry.target, entry.elsewhere.key if entry.elsewhere else "") if entry.planned else None
    published = entry.printed or DASH
    if entry.recomputed is not None:
        published += f" [{f'{entry.recomputed:.4f}'.rstrip('0')}]"
    marks = (SEEN_MARK,) if entry.seen and entry.mean is not None else ()
    raw = DASH if entry.raw is None else number(entry.raw)
    low = entry.interval.low if entry.interval else None
    difference = _difference(entry)
    return {
        "published": GridCell(published, sort=entry.value, kind="published", strong=entry.bold),
        "measured": GridCell(entry.text, sort=entry.mean, kind=kind, strong=strong, link=place, marks=marks),
        "raw": GridCell(raw, sort=entry.raw, marks=marks if entry.raw is not None else ()),
        "interval": GridCell(interval_text(entry.interval), sort=low, marks=marks if entry.interval else ()),
        "difference": replace(difference, marks=marks if entry.difference is not None else ()),
        "verdict": words_cell(entry.verdict),
        "runs": GridCell(f"{entry.done}/{entry.planned}", sort=float(entry.done)),
    }


def _against_cells(entry: Entry, rivals: Sequence[str]) -> list[GridCell]:
    """Gain and p over each of `rivals`; a dash where the entry has none."""
    found = {against.rival: against for against in entry.gains}
    cells = []
    for rival in rivals:
        gain = found[rival].gain if rival in found else None
        unclear = gain is not None and gain.sign == 0
        cells += [
            gain_cell(gain, unclear=unclear, seen=rival in found and found[rival].seen),
            p_cell(gain.p if gain else None),
        ]
    return cells


def _column_head(table: Table, index: int) -> str:
    if table.heads:
        return table.heads[index]
    column = table.columns[index]
    if column == MEAN:
        return f"Mean of {listing([target for target in table.columns if target != MEAN])}"
    return column.capitalize()


def _difference(entry: Entry) -> GridCell:
    if entry.difference is None:
        # Where a number is missing, the measured cell says why.
        both = entry.mean is not None and entry.printed is not None
        return GridCell(entry.verdict if both else DASH, kind="missing")
    return GridCell(f"{signed(entry.difference)} {entry.verdict}", sort=entry.difference, kind="words")


def _best(table: Table, index: int) -> float | None:
    means = [line.entries[index].mean for line in table.lines]
    return max((mean for mean in means if mean is not None), default=None)


def _whole(value: float | None) -> str:
    """A count with thin spaces between thousands; small values keep a decimal, and scores three."""
    if value is None:
        return DASH
    if value < 1:
        return number(value)
    return f"{value:.1f}" if value < 100 else f"{value:,.0f}".replace(",", "\u202f")
