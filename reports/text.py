"""A `Table` as Markdown, LaTeX and CSV. Names come from users and data, so every special character is escaped."""

import csv
import io
import re
from collections.abc import Iterator

from crossfold.reports.layout import Grid, GridCell, further_grids, main_grid
from crossfold.reports.statistics import Gain
from crossfold.reports.values import Entry, Line, Table

_MARKDOWN = re.compile(r"([\\`*_\[\]|#~$])")
_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "_": r"\_",
    "%": r"\%",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",
    "−": r"$-$",
    "±": r"$\pm$",
    "→": r"$\rightarrow$",
    "–": "--",
    "\u202f": r"\,",
    "[": "{[}",
    "]": "{]}",
    "\n": " ",
}
_NO_WIDER_THAN_LINE = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}"
_NUMERIC = ("number", "published", "measured")

CSV_COLUMNS = (
    "table", "kind", "row", "system", "variant", "target", "published", "measured", "sd", "low", "high", "video_mean",
    "difference", "verdict", "done", "planned", "against", "gain_pairs", "gain_p_holm", "gain_p_wilcoxon",
    "corpus", "store", "recipe", "protocol", "selection", "cells",
)  # fmt: skip


def to_markdown(table: Table) -> str:
    """A section with the table as a GitHub-flavoured pipe table."""
    parts = [f"## {markdown(table.heading)}", f"**{markdown(table.title)}**"]
    if table.setting.label:
        parts.append(f"> {markdown(table.setting.label)}")
    if table.headline:
        parts.append(f"**{markdown(table.headline)}**")
    parts += [markdown(sentence) for sentence in table.sentences]
    parts.append(_pipe_table(main_grid(table)))
    for heading, grid in further_grids(table):
        parts += [f"### {markdown(heading)}", _pipe_table(grid)]
    parts += [f"{mark}. {markdown(text)}" for mark, text in table.footnotes]
    parts += [markdown(note) for note in table.notes]
    return "\n\n".join(parts) + "\n"


def to_latex(table: Table) -> str:
    """A `table` environment with booktabs rules; needs the packages booktabs and graphicx.

    A tabular that is wider than the line is scaled down to it.
    """
    label = table.setting.label.capitalize() + "." if table.setting.label else ""
    sentences = [label, table.headline, *table.sentences]
    caption = " ".join([f"{table.heading}. {table.title}.", *filter(None, sentences)])
    notes = [*(f"{mark}: {text}" for mark, text in table.footnotes), *table.notes]
    return "\n".join(
        [
            "% needs \\usepackage{booktabs,graphicx}",
            "\\begin{table}[t]",
            "\\centering\\small",
            f"\\caption{{{latex(caption)}}}",
            f"\\label{{tab:{table.id}}}",
            _tabular(main_grid(table)),
            *(
                part
                for heading, grid in further_grids(table)
                for part in (f"\\par\\medskip {latex(heading)}\\par\\smallskip", _tabular(grid))
            ),
            *(f"\\par\\smallskip\\footnotesize {latex(note)}" for note in notes),
            "\\end{table}",
            "",
        ]
    )


def to_csv(table: Table) -> str:
    """One line a row and target, with numbers as numbers; for other programs.

    Lines of kind `gain` hold a gain instead of a score: of one printed component, or over the row in `against`.
    """
    out = io.StringIO()
    writer = csv.DictWriter(out, CSV_COLUMNS, lineterminator="\n")
    writer.writeheader()
    for line in table.lines:
        for entry in line.entries:
            writer.writerow({key: _csv_value(value) for key, value in _record(table, line, entry).items()})
    for record in _gain_records(table):
        writer.writerow({key: _csv_value(value) for key, value in record.items()})
    return out.getvalue()


def markdown(text: str) -> str:
    """Text without meaning to Markdown or HTML."""
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("\n", " ")
    return _MARKDOWN.sub(r"\\\1", text)


def latex(text: str) -> str:
    """Text without meaning to LaTeX."""
    return "".join(_LATEX.get(character, character) for character in text)


def _pipe_table(grid: Grid) -> str:
    lines = [
        "| " + " | ".join(markdown(head) for head in _flat_heads(grid)) + " |",
        "|" + "|".join(" --- " if not _is_numeric(grid, i) else " ---: " for i in range(len(grid.heads))) + "|",
    ]
    lines += ["| " + " | ".join(_markdown_cell(cell) for cell in row) + " |" for row in grid.rows]
    return "\n".join(lines)


def _markdown_cell(cell: GridCell) -> str:
    text = markdown(cell.text) + (f"<sup>{','.join(cell.marks)}</sup>" if cell.marks else "")
    return f"**{text}**" if cell.strong else text


def _tabular(grid: Grid) -> str:
    columns = "".join("r" if _is_numeric(grid, i) else "l" for i in range(len(grid.heads)))
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


def _flat_heads(grid: Grid) -> list[str]:
    """One head a column: formats without spanning heads repeat the group in each."""
    groups = [text for text, width in grid.groups for _ in range(width)] or [""] * len(grid.heads)
    return [f"{group}: {head}" if group else head for group, head in zip(groups, grid.heads, strict=True)]


def _is_numeric(grid: Grid, column: int) -> bool:
    return any(row[column].kind in _NUMERIC for row in grid.rows)


def _record(table: Table, line: Line, entry: Entry) -> dict[str, object]:
    interval = entry.interval
    return {
        "table": table.id,
        "kind": "score",
        "row": line.label,
        "system": line.system,
        "variant": entry.variant,
        "target": entry.target,
        "published": entry.value,
        "measured": entry.mean,
        "sd": entry.sd,
        "low": interval.low if interval else None,
        "high": interval.high if interval else None,
        "video_mean": entry.video_mean,
        "difference": entry.difference,
        "verdict": entry.verdict,
        "done": entry.done,
        "planned": entry.planned,
        **_setting_record(table),
        "cells": " ".join(entry.cell_ids),
    }


def _gain_records(table: Table) -> Iterator[dict[str, object]]:
    for gain in table.gains:
        yield {
            "row": gain.label,
            "target": gain.target,
            "published": gain.printed,
            "verdict": gain.verdict,
            **_gain_record(table, gain.gain, gain.p),
        }
    for line in table.lines:
        for entry in line.entries:
            for against in entry.gains:
                yield {
                    "row": line.label,
                    "system": line.system,
                    "variant": entry.variant,
                    "target": entry.target,
                    "against": against.rival,
                    **_gain_record(table, against.gain, against.p),
                }


def _gain_record(table: Table, gain: Gain | None, p: float | None) -> dict[str, object]:
    return {
        "table": table.id,
        "kind": "gain",
        "measured": gain.mean if gain else None,
        "low": gain.low if gain else None,
        "high": gain.high if gain else None,
        "gain_pairs": gain.n if gain else None,
        "gain_p_holm": p,
        "gain_p_wilcoxon": gain.p_wilcoxon if gain else None,
        **_setting_record(table),
    }


def _setting_record(table: Table) -> dict[str, object]:
    setting = table.setting
    return {
        "corpus": setting.corpus,
        "store": setting.store,
        "recipe": setting.recipe,
        "protocol": setting.protocol,
        "selection": setting.selection,
    }


def _csv_value(value: object) -> object:
    """Floats to six digits; text that a spreadsheet would run as a formula gets a quote before it."""
    if isinstance(value, float):
        return f"{value:.6f}"
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r"):
        return "'" + value
    return value
