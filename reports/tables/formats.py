"""A `Table` as Markdown, LaTeX and CSV. Names come from users and data, so every special character is escaped."""

import csv
import io
from collections.abc import Iterator, Mapping

from crossfold.reports.stats.bootstrap import Gain
from crossfold.reports.tables.entries import Entry, Line, Table
from crossfold.reports.tables.escape import NUMERIC_KINDS, csv_value, latex, markdown
from crossfold.reports.tables.grid import Grid, GridCell, further_grids, main_grid

_NO_WIDER_THAN_LINE = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}"

CSV_COLUMNS = (
    "table", "kind", "row", "column", "system", "variant", "target", "published", "recomputed", "measured", "sd", "low",
    "high", "video_mean", "post", "raw", "difference", "verdict", "done", "planned", "folds", "seeds", "against",
    "gain_pairs", "gain_p_holm", "gain_p_wilcoxon",
    "corpus", "store", "recipe", "recipe_hash", "protocol", "selection", "label", "versions", "made", "cells",
)  # fmt: skip


def to_markdown(table: Table) -> str:
    """A section with the table as a GitHub-flavoured pipe table."""
    parts = [f"## {markdown(table.heading)}", f"**{markdown(table.title)}**"]
    if table.setting.label:
        parts.append(f"> {markdown(table.setting.label)}")
    if table.headline:
        parts.append(f"**{markdown(table.headline)}**")
    parts += [markdown(sentence) for sentence in table.sentences]
    parts.append(pipe_table(main_grid(table)))
    for heading, grid in further_grids(table):
        parts += [f"### {markdown(heading)}", pipe_table(grid)]
    parts += [f"{mark}. {markdown(text)}" for mark, text in table.footnotes]
    parts += [markdown(note) for note in table.notes]
    if table.provenance:
        parts.append(markdown(provenance_line(table)))
    return "\n\n".join(parts) + "\n"


def to_latex(table: Table) -> str:
    """A `table` environment with booktabs rules; needs the packages booktabs and graphicx.

    A tabular that is wider than the line is scaled down to it. Notes on method are comments: a float must fit a page.
    """
    label = table.setting.label.capitalize() + "." if table.setting.label else ""
    sentences = [label, table.headline, *table.sentences]
    caption = " ".join([f"{table.heading}. {table.title}.", *filter(None, sentences)])
    below = [f"{mark}: {text}" for mark, text in table.footnotes]
    below += [provenance_line(table)] if table.provenance else []
    return "\n".join(
        [
            "% needs \\usepackage{booktabs,graphicx}",
            *(f"% {latex(note)}" for note in table.notes),
            "\\begin{table}[t]",
            "\\centering\\small",
            f"\\caption{{{latex(caption)}}}",
            f"\\label{{tab:{table.id}}}",
            tabular(main_grid(table)),
            *(
                part
                for heading, grid in further_grids(table)
                for part in (f"\\par\\medskip {latex(heading)}\\par\\smallskip", tabular(grid))
            ),
            *(f"\\par\\smallskip\\scriptsize {latex(line)}" for line in below),
            "\\end{table}",
            "",
        ]
    )


def to_csv(table: Table) -> str:
    """One line a row and target, with numbers as numbers; for other programs.

    Lines of kind `gain` hold a gain instead of a score: of one printed component, or over the row in `against`.
    Lines of kind `further` hold what the columns behind the scores do, such as parameters and memory.
    """
    out = io.StringIO()
    writer = csv.DictWriter(out, CSV_COLUMNS, lineterminator="\n")
    writer.writeheader()
    for line in table.lines:
        for entry in line.entries:
            writer.writerow({key: csv_value(value) for key, value in _record(table, line, entry).items()})
    for record in (*_gain_records(table), *_further_records(table)):
        writer.writerow({key: csv_value(value) for key, value in record.items()})
    return out.getvalue()


def provenance_line(table: Table) -> str:
    """Where the numbers come from, in one line."""
    return "; ".join(f"{term}: {value}" for term, value in table.provenance if value) + "."


def pipe_table(grid: Grid) -> str:
    """A grid as a GitHub-flavoured table."""
    lines = [
        "| " + " | ".join(markdown(head) for head in _flat_heads(grid)) + " |",
        "|" + "|".join(" --- " if not _is_numeric(grid, i) else " ---: " for i in range(len(grid.heads))) + "|",
    ]
    lines += ["| " + " | ".join(_markdown_cell(cell) for cell in row) + " |" for row in grid.rows]
    return "\n".join(lines)


def _markdown_cell(cell: GridCell) -> str:
    text = markdown(cell.text) + (f"<sup>{','.join(cell.marks)}</sup>" if cell.marks else "")
    return f"**{text}**" if cell.strong else text


def tabular(grid: Grid, widths: Mapping[int, str] | None = None) -> str:
    """A grid as a LaTeX tabular with booktabs rules, no wider than the line.

    widths: column -> the width at which its text breaks into lines, such as `5cm`.
    """
    kinds = ["r" if _is_numeric(grid, i) else "l" for i in range(len(grid.heads))]
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


def _flat_heads(grid: Grid) -> list[str]:
    """One head a column: formats without spanning heads repeat the group in each."""
    groups = [text for text, width in grid.groups for _ in range(width)] or [""] * len(grid.heads)
    return [f"{group}: {head}" if group else head for group, head in zip(groups, grid.heads, strict=True)]


def _is_numeric(grid: Grid, column: int) -> bool:
    return any(row[column].kind in NUMERIC_KINDS for row in grid.rows)


def _record(table: Table, line: Line, entry: Entry) -> dict[str, object]:
    interval = entry.interval
    return {
        "table": table.id,
        "kind": "score",
        "row": line.label,
        "column": entry.column,
        "system": line.system or entry.variant.partition(" ")[0],
        "variant": entry.variant,
        "target": entry.target,
        "published": entry.printed if table.architecture else entry.value,
        "recomputed": entry.text if table.architecture else entry.recomputed,
        "measured": entry.mean,
        "sd": entry.sd,
        "low": interval.low if interval else None,
        "high": interval.high if interval else None,
        "video_mean": entry.video_mean,
        "post": entry.post if entry.mean is not None else None,
        "raw": entry.raw,
        "difference": entry.difference,
        "verdict": entry.verdict,
        "done": entry.done,
        "planned": entry.planned,
        "folds": " ".join(str(fold) for fold in entry.folds),
        "seeds": " ".join(str(seed) for seed in entry.seeds),
        **_setting_record(table),
        **({"store": entry.elsewhere.store} if entry.elsewhere else {}),
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


def _further_records(table: Table) -> Iterator[dict[str, object]]:
    for line in table.lines:
        for head, value in zip(table.extra, line.extra, strict=True):
            known: dict[str, object] = {"measured": value} if isinstance(value, float) else {"verdict": value}
            yield {
                "table": table.id,
                "kind": "further",
                "row": line.label,
                "column": head,
                "system": line.system,
                "variant": next((entry.variant for entry in line.entries if entry.variant), ""),
                **known,
                **_setting_record(table),
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
    setting, known = table.setting, dict(table.provenance)
    return {
        "corpus": setting.corpus,
        "store": setting.store,
        "recipe": setting.recipe,
        "recipe_hash": setting.recipe_hash,
        "protocol": setting.protocol,
        "selection": setting.selection,
        "label": setting.label,
        "versions": known.get("versions"),
        "made": known.get("made"),
    }
