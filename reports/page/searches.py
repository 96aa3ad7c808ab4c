"""The part of the page on searches: for each file of searches a table and its figures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

from crossfold.platform.workspace.workspace import Workspace
from crossfold.reports.figures.base import Figure
from crossfold.reports.figures.searches import search_figures
from crossfold.reports.results.model import EMBEDDED, Results
from crossfold.reports.results.searches import STATES, FoundSearch, load_searches
from crossfold.reports.results.systems import system_label
from crossfold.reports.stats.formatting import DASH, interval_text, number
from crossfold.reports.stats.intervals import mean_interval, paired_gain
from crossfold.reports.stats.runs import Run, mean_scores, mean_sd, restrict_to_common_runs
from crossfold.reports.tables.entries import SEEN_MARK
from crossfold.reports.tables.grid import Grid, GridCell, gain_cell, label_cell, words_cell
from crossfold.reports.tables.published import MEAN, Row, TableSpec, declared, table_spec

HEADS = (
    "System", "Tuned", "Default", "Tuned minus default", "Printed", "Inner folds", "Fresh seeds", "Complete", "Pruned",
    "Failed", "Budget", "Spent", "Chosen parameters",
)  # fmt: skip
NONE_PRINTED = "none printed"
FUSION = ("", "fusion")
"""Streams of the columns of printed tables whose numbers are of the whole system."""
UNITS = {"trials": "trials", "hours": "hours", "cell_epochs": "cell epochs"}


@dataclass(frozen=True)
class SearchSection:
    """The searches of one file."""

    name: str
    label: str
    """The warning that a corpus is an embedded one; else empty."""
    sentence: str
    grid: Grid
    figures: Sequence[Figure]


def search_sections(workspace: Workspace, results: Results, *, figures: bool) -> list[SearchSection]:
    """One section for each file whose searches have ended."""
    sections = []
    for name, searches in load_searches(workspace).items():
        first = searches[0].record
        corpus = first["corpus"]
        sweeps = [sweep for each in searches for sweep in (f"{each.name}-winner", _default_name(each, results))]
        opened = "numbers of clips that were looked at before have the mark seen" if _marks(results, *sweeps) else ""
        opened = opened or "which no trial opened"
        sentence = (
            f"Corpus {corpus}; sampler {first['sampler']['kind']}, scheduler {first['scheduler']['kind']}; trials are "
            f"judged by the {first['objective']}, on {first['search']['inner_folds']} inner folds of fold "
            f"{first['search']['fold']}. Tuned and default are ordinary cells on the reported split, {opened}; "
            "defaults are those of the system, which the papers print, and of the recipe. Printed is the best row of "
            "each table of the papers with this system, corpus and folds, mean over targets; their features are others."
        )
        sections.append(
            SearchSection(
                name,
                f"embedded corpus: {corpus} - not the papers' data" if corpus.startswith(EMBEDDED) else "",
                sentence,
                Grid((), HEADS, tuple(_row(search, results) for search in searches)),
                search_figures(name, searches) if figures else (),
            )
        )
    return sections


def _row(search: FoundSearch, results: Results) -> tuple[GridCell, ...]:
    record = search.record
    winner, base = f"{search.name}-winner", _default_name(search, results)
    tuned, default = _groups(winner, results), _groups(base, results)
    gain = None
    if tuned and default and len(tuned) == len(default):
        common = restrict_to_common_runs([run for pair in zip(tuned, default, strict=True) for run in pair])
        gain = paired_gain(common[0::2], common[1::2]) if common and common[0] else None
    chosen = next((each for each in record["retrained"] if each["params"] == record["best_params"]), None)
    fresh = f"{number(chosen['mean'])} [{number(chosen['low'])}, {number(chosen['high'])}]" if chosen else DASH
    return (
        label_cell(search.name if record["repeat"] else system_label(search.system)),
        replace(_score(tuned), marks=_marks(results, winner) if tuned else ()),
        replace(_score(default), marks=_marks(results, base) if default else ()),
        gain_cell(gain, unclear=bool(gain and not gain.sign), seen=bool(_marks(results, winner, base))),
        _printed(search),
        GridCell(number(record["best_value"]), sort=record["best_value"]),
        GridCell(fresh, sort=chosen["mean"] if chosen else None),
        *(GridCell(str(count), sort=float(count)) for count in (record["trials"][state] for state in STATES)),
        words_cell(_amounts(record["budget"])),
        words_cell(_amounts({key: record["spent"][key] for key in record["budget"]})),
        words_cell(", ".join(f"{key} {_short(value)}" for key, value in record["best_params"].items())),
    )


def _printed(search: FoundSearch) -> GridCell:
    asked = search.record["search"]
    # The corpora of the papers have one name; folds of the winner are those of the search unless it says otherwise.
    folds = asked.get("winner", {}).get("folds") or [asked["fold"]]
    scores = printed_scores(search.record["corpus"], search.system, folds, asked.get("params"))
    text = "; ".join(f"{number(score.mean)} ({score.place})" for score in scores)
    return GridCell(text or NONE_PRINTED, sort=max((score.mean for score in scores), default=None), kind="words")


def _default_name(search: FoundSearch, results: Results) -> str:
    """The sweep of the defaults; repeated searches share one."""
    names = (f"{search.name}-default", f"{search.name.rpartition('-r')[0]}-default")
    return next((name for name in names if name in results.sweep_cells), names[0])


def _marks(results: Results, *sweeps: str) -> tuple[str, ...]:
    """The mark of numbers of some sweeps of which a cell has the label `seen`."""
    asked = frozenset[str]().union(*(results.sweep_cells.get(name, frozenset()) for name in sweeps))
    return (SEEN_MARK,) if asked & results.seen else ()


def _groups(sweep: str, results: Results) -> list[list[Run]]:
    """The runs of a sweep, one group a target; empty while some of its cells have not finished."""
    wanted = results.sweep_cells.get(sweep, frozenset())
    rows = results.cells[results.cells["cell_id"].isin(wanted)]
    if rows.empty or (rows["status"] != "done").any() or rows["cell_id"].nunique() < len(wanted):
        return []
    return [
        [results.runs[str(cell), str(target)] for cell in group["cell_id"]] for target, group in rows.groupby("target")
    ]


def _score(groups: Sequence[Sequence[Run]]) -> GridCell:
    if not groups:
        return GridCell(DASH, kind="missing")
    mean, interval = mean_sd(mean_scores(groups)).mean, mean_interval(groups)
    text = f"{number(mean)} {interval_text(interval)}" if interval else number(mean)
    return GridCell(text, sort=mean, kind="measured")


def _amounts(amounts: Mapping[str, Any]) -> str:
    return ", ".join(f"{_short(value)} {UNITS[key]}" for key, value in amounts.items())


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


@dataclass(frozen=True)
class PrintedScore:
    """The mean over targets that one row of a paper's table prints."""

    place: str
    """Paper and number of the table, and the row where rows are not systems."""
    mean: float


def printed_scores(
    corpus: str, system: str, folds: Sequence[int], fixed: Mapping[str, Any] | None = None
) -> list[PrintedScore]:
    """The best row of each table that prints the system on exactly these folds of this corpus, table by table.

    fixed: parameters that a search fixes; a row with other values of them is another system. Numbers of test
    partitions, of one modality alone, and those that a paper quotes from another pipeline are left out.
    """
    found = []
    for name, mapping in declared().tables.items():
        spec = table_spec(name)
        if mapping.unprinted or spec.corpus != corpus:
            continue
        rows = [(mean, row) for row in spec.rows if (mean := _mean(spec, row, system, folds, fixed or {})) is not None]
        if rows:
            mean, row = max(rows, key=lambda pair: pair[0])
            paper = next(key for key, title in declared().papers.items() if title == spec.paper)
            which = f", {row.label}" if spec.row_axis else ""
            found.append(PrintedScore(f"{declared().short[paper]}, {spec.number}{which}", mean))
    return found


def _mean(spec: TableSpec, row: Row, system: str, folds: Sequence[int], fixed: Mapping[str, Any]) -> float | None:
    """Over the targets of a row; None where it is of something else, or lacks one of them."""
    values = []
    for column in spec.columns:
        asked = spec.asked(row, column)
        if column.target == MEAN or column.stream not in FUSION or not column.measurable or asked.system != system:
            continue
        differs = any(fixed.get(key, value) != value for key, value in asked.params.items())
        if differs or not asked.judged or set(asked.folds) != set(folds):
            return None
        values.append(row.values.get(column.key))
    known = [value for value in values if value is not None]
    return fmean(known) if known and len(known) == len(values) else None
