"""A `Table` as Markdown, LaTeX and CSV. Names come from users and data, so every special character is escaped."""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict

from crossfold.reports.results.model import Setting
from crossfold.reports.stats.formatting import facts_text
from crossfold.reports.stats.intervals import Gain
from crossfold.reports.tables.entries import Entry, Line, Table
from crossfold.reports.tables.escape import csv_value, latex, markdown, visible
from crossfold.reports.tables.grid import Grid, GridCell, flat_heads, further_grids, main_grid, narrowed, part_of
from crossfold.reports.tables.notes import caption

# `\\resizebox` alone would also stretch a narrow table to the width of the line.
_NO_WIDER_THAN_LINE = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}"

WIDEST = 640.0
"""Points of a table that is scaled to the 516 points of a two-column paper: 9 pt letters become 7.3 pt ones."""
MOST_LINES = 50
"""Lines of 9 pt that fit a page, caption and small print included."""
_LETTER, _BETWEEN = 4.5, 12.0
"""Points of a digit of Times at 9 pt, of most letters at most, and of the space between two columns."""

CSV_COLUMNS = (
    "table", "kind", "row", "column", "system", "variant", "target", "published", "recomputed", "measured", "sd", "low",
    "high", "video_mean", "post", "raw", "difference", "verdict", "seen", "done", "planned", "folds", "seeds",
    "against", "gain_pairs", "gain_p_family",
    "corpus", "store", "recipe", "recipe_hash", "protocol", "selection", "fold_rule", "label", "versions", "made",
    "cells",
)  # fmt: skip


GAIN_COLUMNS = {"mean": "measured", "n": "gain_pairs", "p": "gain_p_family"}
"""Field of a gain -> its column."""


def to_markdown(table: Table) -> str:
    """A section with the table as a GitHub-flavoured pipe table."""
    parts = [f"## {markdown(table.heading)}", f"**{markdown(table.title)}**"]
    if table.setting.label:
        parts.append(f"> {markdown(table.setting.label)}")
    parts += [markdown(sentence) for sentence in (*table.sentences, table.legend) if sentence]
    if table.headline:
        parts.append(f"**{markdown(table.headline)}**")
    parts.append(pipe_table(main_grid(table)))
    for heading, grid in further_grids(table):
        parts += [f"### {markdown(heading)}", pipe_table(grid)]
    parts += [f"{mark}. {markdown(text)}" for mark, text in table.footnotes]
    parts += [markdown(note) for note in (*table.findings, *table.notes)]
    if table.provenance:
        parts.append(markdown(facts_text(table.provenance)))
    return "\n\n".join(parts) + "\n"


def to_latex(table: Table) -> str:
    """A `table` environment with booktabs rules; needs the packages booktabs and graphicx.

    A tabular that is wider than the line is scaled down to it. Notes on method are comments: a float must fit a page.
    """
    below = [*filter(None, [table.headline]), *table.findings, *(f"{mark}: {text}" for mark, text in table.footnotes)]
    below += [facts_text(table.provenance)] if table.provenance else []
    grids = tabulars(main_grid(table))
    for heading, grid in further_grids(table):
        grids += [f"\\par\\medskip {latex(heading)}\\par\\smallskip", *tabulars(grid)]
    notes = [f"% {latex(note)}" for note in table.notes]
    words = f"{table.heading}. {caption(table)}"
    lines = ["% needs \\usepackage{booktabs,graphicx}", *notes, *latex_float(words, table.id, grids, below), ""]
    return "\n".join(lines)


def latex_float(words: str, label: str, body: Sequence[str], below: Sequence[str]) -> list[str]:
    """The lines of a `table` environment: the body is LaTeX, the caption and the small print below are plain text."""
    return [
        "\\begin{table}[t]",
        "\\centering\\small",
        f"\\caption{{{latex(words)}}}",
        f"\\label{{tab:{label}}}",
        *body,
        *(f"\\par\\smallskip\\scriptsize {latex(line)}" for line in below),
        "\\end{table}",
    ]


def one_table(table: Table, form: str, columns: Sequence[str] = ()) -> str:
    """The table alone, without what stands around it, as text of a form in `FORMS`, with chosen columns (`narrowed`).

    The LaTeX has caption and label, booktabs rules, and is no wider than the line.
    """
    grid = narrowed(main_grid(table), columns)
    if form == "tex":
        needs = "% needs \\usepackage{booktabs,graphicx}"
        return "\n".join([needs, *latex_float(caption(table), table.id, tabulars(grid), []), ""])
    rows = [flat_heads(grid), *([_marked(cell) for cell in row] for row in grid.rows)]
    if form == "csv":
        out = io.StringIO()
        csv.writer(out, lineterminator="\n").writerows([[csv_value(text) for text in row] for row in rows])
        return out.getvalue()
    words = caption(table)
    if form == "md":
        return f"{markdown(words)}\n\n{pipe_table(grid)}\n"
    wide = [max(len(row[at]) for row in rows) for at in range(len(grid.heads))]
    right = [numeric(grid, at) for at in range(len(grid.heads))]
    lines = [
        "  ".join(t.rjust(w) if end else t.ljust(w) for t, w, end in zip(row, wide, right, strict=True)) for row in rows
    ]
    return "\n".join([visible(words), "", *(visible(line.rstrip()) for line in lines), ""])


FORMS = ("txt", "csv", "md", "tex")
"""The formats of a single table."""


def _marked(cell: GridCell) -> str:
    return cell.text + (f"^{','.join(cell.marks)}" if cell.marks else "")


def to_csv(table: Table) -> str:
    """One line per row and target, with numbers as numbers; for other programs.

    Lines of kind `gain` hold a gain instead of a score: of one printed component, or over the row in `against`.
    Lines of kind `further` hold the columns behind the scores, such as parameters and memory; those of kind `area` the
    area below the stress curves, or what it gains over the row in `against`.
    """
    return csv_text(
        CSV_COLUMNS,
        (*_score_records(table), *_gain_records(table), *_further_records(table), *_area_records(table)),
    )


def csv_text(columns: Sequence[str], records: Iterable[Mapping[str, object]]) -> str:
    """Records as CSV, with a line of heads; what a record lacks is empty."""
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: csv_value(value) for key, value in record.items()} for record in records)
    return out.getvalue()


def pipe_table(grid: Grid) -> str:
    """A grid as a GitHub-flavoured table."""
    lines = [
        "| " + " | ".join(markdown(head) for head in flat_heads(grid)) + " |",
        "|" + "|".join(" --- " if not numeric(grid, i) else " ---: " for i in range(len(grid.heads))) + "|",
    ]
    lines += ["| " + " | ".join(_markdown_cell(cell) for cell in row) + " |" for row in grid.rows]
    return "\n".join(lines)


def _markdown_cell(cell: GridCell) -> str:
    text = markdown(cell.text) + (f"<sup>{','.join(cell.marks)}</sup>" if cell.marks else "")
    return f"**{text}**" if cell.strong else text


def tabulars(grid: Grid) -> list[str]:
    """A grid as LaTeX, in several parts below each other where one would be scaled down too far to be read.

    Each part begins with the heads of the rows, and is by estimate no wider than `WIDEST`. A table whose parts would be
    longer than a page stays whole: choose fewer columns of it.
    """
    texts = [[head, *(cell.text for cell in column)] for head, *column in zip(grid.heads, *grid.rows, strict=True)]
    breadths = [_LETTER * max(map(len, column)) + _BETWEEN for column in texts]
    parts: list[list[int]] = [[0]]
    for at in range(1, len(breadths)):
        if len(parts[-1]) > 1 and sum(breadths[each] for each in [*parts[-1], at]) > WIDEST:
            parts.append([0])
        parts[-1].append(at)
    if len(parts) * (len(grid.rows) + 2) > MOST_LINES:
        return [tabular(grid)]
    found = [tabular(part_of(grid, part)) for part in parts]
    return [text if at == 0 else f"\\par\\smallskip {text}" for at, text in enumerate(found)]


def tabular(grid: Grid, widths: Mapping[int, str] | None = None) -> str:
    """A grid as a LaTeX tabular with booktabs rules, no wider than the line.

    widths: column -> the width at which its text breaks into lines, such as `5cm`.
    """
    kinds = ["r" if numeric(grid, i) else "l" for i in range(len(grid.heads))]
    for index, breadth in (widths or {}).items():
        kinds[index] = f"p{{{breadth}}}"
    columns = "".join(kinds)
    lines = [_NO_WIDER_THAN_LINE + "{%", f"\\begin{{tabular}}{{{columns}}}", "\\toprule"]
    if grid.groups:
        spans = [
            f"\\multicolumn{{{width}}}{{c}}{{{latex(text)}}}" if text else " & ".join([""] * width)
            for text, width in grid.groups
        ]
        lines.append(" & ".join(spans) + r" \\")
        start = 1
        for text, width in grid.groups:
            if text:
                lines.append(f"\\cmidrule(lr){{{start}-{start + width - 1}}}")
            start += width
    lines += [" & ".join(latex(head) for head in grid.heads) + r" \\", "\\midrule"]
    lines += [" & ".join(_latex_cell(cell) for cell in row) + r" \\" for row in grid.rows]
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}}"])


def _latex_cell(cell: GridCell) -> str:
    text = latex(cell.text) + (f"\\textsuperscript{{{','.join(cell.marks)}}}" if cell.marks else "")
    return f"\\textbf{{{text}}}" if cell.strong else text


def numeric(grid: Grid, column: int) -> bool:
    """Whether a column holds numbers, which are aligned at the right."""
    return any(row[column].kind in ("number", "published", "measured") for row in grid.rows)


def _score_records(table: Table) -> Iterator[dict[str, object]]:
    same = ("column", "variant", "target", "sd", "video_mean", "raw", "difference", "verdict", "done", "planned")
    for line, entry in _entries(table):
        yield {
            **_common(table, "score", line),
            **{name: getattr(entry, name) for name in same},
            "system": line.system or entry.variant.partition(" ")[0],
            "published": entry.printed if table.architecture else entry.value,
            "recomputed": entry.text if table.architecture else entry.recomputed,
            "measured": entry.mean,
            "low": entry.interval.low if entry.interval else None,
            "high": entry.interval.high if entry.interval else None,
            "post": entry.post if entry.mean is not None else None,  # "raw" of a cell without a number says nothing
            "seen": entry.seen if entry.mean is not None else None,
            "folds": " ".join(str(fold) for fold in entry.folds),
            "seeds": " ".join(str(seed) for seed in entry.seeds),
            **({"store": entry.elsewhere.store} if entry.elsewhere else {}),
            "cells": " ".join(entry.cell_ids),
        }


def _gain_records(table: Table) -> Iterator[dict[str, object]]:
    for gain in table.gains:
        yield {
            **_common(table, "gain"),
            "row": gain.label,
            "target": gain.target,
            "published": gain.printed,
            "verdict": gain.verdict,
            "seen": int(gain.seen) if gain.gain else None,
            **gain_columns(gain.gain, **GAIN_COLUMNS),
        }
    for line, entry in _entries(table):
        for against in entry.gains:
            yield {
                **_common(table, "gain", line),
                "variant": entry.variant,
                "target": entry.target,
                "against": against.rival,
                "seen": int(against.seen) if against.gain else None,
                **gain_columns(against.gain, **GAIN_COLUMNS),
            }


def _further_records(table: Table) -> Iterator[dict[str, object]]:
    for line in table.lines:
        for head, value in zip(table.extra, line.extra, strict=True):
            yield {
                **_common(table, "further", line),
                "column": head,
                "variant": next((entry.variant for entry in line.entries if entry.variant), ""),
                "seen": max((entry.seen for entry in line.entries), default=0),
                "measured" if isinstance(value, float) else "verdict": value,
            }


def _area_records(table: Table) -> Iterator[dict[str, object]]:
    for line in table.areas:
        same = {**_common(table, "area"), "row": line.label, "system": line.system, "variant": line.variant}
        ends = {"low": line.interval.low, "high": line.interval.high} if line.interval else {}
        yield {**same, "seen": int(line.seen), "measured": line.area, **ends}
        for against, gain in (("without its gate", line.gate), ("without modality dropout", line.dropout)):
            if gain is not None:
                yield {**same, "seen": int(line.seen), "against": against, **gain_columns(gain, **GAIN_COLUMNS)}


def _entries(table: Table) -> Iterator[tuple[Line, Entry]]:
    return ((line, entry) for line in table.lines for entry in line.entries)


def _common(table: Table, kind: str, line: Line | None = None) -> dict[str, object]:
    known = {"row": line.label, "system": line.system} if line else {}
    return {"table": table.id, "kind": kind, **known, **origin_columns(table.setting, table.provenance)}


def origin_columns(setting: Setting, provenance: Iterable[tuple[str, str]]) -> dict[str, object]:
    """The columns of a CSV that say where a number comes from."""
    known, facts = dict(provenance), asdict(setting)
    del facts["joint"]  # two targets in one cell show it already
    return facts | {"label": setting.label, "versions": known.get("versions"), "made": known.get("made")}


def gain_columns(gain: Gain | None, **columns: str) -> dict[str, object]:
    """The ends of a gain's interval, and each named field of it under the name of a column; empty without a gain."""
    return {column: getattr(gain, name, None) for name, column in {"low": "low", "high": "high", **columns}.items()}
