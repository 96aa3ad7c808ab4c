"""Measurements for claims that no paired gain decides: other folds, a baseline of an abstract, and cost."""

from collections.abc import Sequence

from crossfold.reports.results.model import Results, Setting
from crossfold.reports.results.runs import runs_of
from crossfold.reports.stats.hypothesis_tests import Family
from crossfold.reports.stats.intervals import Gain, unpaired_gain
from crossfold.reports.stats.runs import Run
from crossfold.reports.tables.entries import Entry, Table
from crossfold.reports.tables.published import abstract_scores, table_spec


def over_other_folds(
    results: Results, setting: Setting, better: Sequence[Entry], base: Entry, targets: int
) -> tuple[Gain | None, float | None]:
    """The measured and the printed difference between the mean over some folds and one other fold.

    Folds report different videos, so nothing is paired. targets: those of the claim, which correct its p.
    """
    values = [entry.value for entry in better if entry.value is not None]
    printed = None
    if base.value is not None and len(values) == len(better):
        printed = round(sum(values) / len(values) - base.value, 6)
    if any(entry.mean is None for entry in (*better, base)):
        return None, printed
    others = [run for entry in better for run in _runs(results, setting, entry)]
    return unpaired_gain([others], [_runs(results, setting, base)], Family(2, targets)), printed


def over_abstract(
    results: Results, table: Table, paper: str, others: str, entry: Entry, targets: int
) -> tuple[Gain | None, float | None]:
    """The measured and the printed difference to a score of others that the abstract prints for the official split.

    None without the paper's corpus and its fold 0: the score is about these videos only.
    """
    against = abstract_scores(paper, others)[entry.column]
    printed = None if entry.value is None else round(entry.value - against, 6)
    if entry.mean is None or entry.folds != (0,) or table.setting.corpus != table_spec(table.id).corpus:
        return None, printed
    return unpaired_gain([_runs(results, table.setting, entry)], against, Family(2, targets)), printed


def window_flops(results: Results, setting: Setting, entry: Entry) -> float | None:
    """Operations of one prediction, median over the finished cells of an entry; None where none counted them."""
    rows = results.rows(entry.elsewhere or setting, variant=entry.variant, status="done")
    known = rows["flops"].dropna()
    return float(known.median()) if len(known) else None


def _runs(results: Results, setting: Setting, entry: Entry) -> list[Run]:
    return runs_of(results, entry.elsewhere or setting, entry.variant, entry.target, entry.folds, entry.post)
