"""What stands around a table: a caption that says how to read it, and notes that are shown only where they are true."""

from collections.abc import Callable, Mapping, Sequence

from crossfold.platform.core.cell import AS_RELEASED, EARLIER_FOLDS, GIVEN_FOLDS, GROUPED
from crossfold.reports.results.model import Setting
from crossfold.reports.results.runs import RAW
from crossfold.reports.stats.intervals import MIN_SEEDS
from crossfold.reports.tables.entries import Entry, Table
from crossfold.reports.tables.published import Note, TableSpec

RELEASED = "+released"
"""Ends the name of a recipe that follows released code instead of print."""


def _ruled(spec: TableSpec, setting: Setting, entries: Sequence[Entry], rule: str) -> bool:
    """Whether some entry is of folds 1 to 5 of the paper's corpus, which follow this rule."""
    others = any(fold != 0 for entry in entries for fold in entry.folds)
    return setting.corpus == spec.corpus and setting.fold_rule == rule and others


_Condition = Callable[[TableSpec, Setting, Sequence[Entry]], bool]
CONDITIONS: Mapping[str, _Condition] = {
    "measured": lambda _spec, _setting, _entries: True,
    "processed": lambda _spec, _setting, entries: all(entry.post != RAW for entry in entries),
    "own_recipe": lambda spec, setting, _entries: setting.recipe.removesuffix(RELEASED) == spec.recipe,
    "folds_as_released": lambda spec, setting, entries: _ruled(spec, setting, entries, AS_RELEASED),
    "folds_grouped": lambda spec, setting, entries: _ruled(spec, setting, entries, GROUPED),
    "folds_upwards": lambda spec, setting, entries: _ruled(spec, setting, entries, EARLIER_FOLDS),
    "folds_listed": lambda spec, setting, entries: _ruled(spec, setting, entries, GIVEN_FOLDS),
    "folds_unknown": lambda spec, setting, entries: _ruled(spec, setting, entries, ""),
    "official_76": lambda spec, setting, entries: (
        setting.corpus == spec.corpus and all((entry.folds, entry.videos) == ((0,), (76,)) for entry in entries)
    ),
    "elsewhere": lambda _spec, _setting, entries: any(entry.elsewhere for entry in entries),
}
"""When a sentence about measurements is true of some measured entries; without any, none is."""


def note_text(note: Note, spec: TableSpec, setting: Setting, entries: Sequence[Entry]) -> str:
    """What a note says about print, and about the measured ones of these entries as far as it is true of them."""
    measured = [entry for entry in entries if entry.mean is not None]
    true = [words for name, words in note.where.items() if measured and CONDITIONS[name](spec, setting, measured)]
    return " ".join(filter(None, (note.says, *true)))


def legend(entries: Sequence[Entry]) -> str:
    """What a measured number, ±, the interval and bold mean; it belongs to the caption in every format."""
    measured = [entry for entry in entries if entry.mean is not None]
    printed = "published numbers as in print" if any(entry.bold for entry in entries) else ""
    if not measured:
        return f"Bold: {printed}." if printed else ""
    spread = "; ±: spread over seeds" if any(entry.sd is not None for entry in measured) else ""
    known = [entry for entry in measured if entry.interval is not None]
    seeds = all(_seeds_count(entry) for entry in known)
    over = "videos and seeds" if seeds else "videos and, where at least three ran, seeds"
    over = "videos alone" if not any(_seeds_count(entry) for entry in known) else over
    interval = f"; brackets: 95% interval over {over}" if known else ""
    bold = f" Bold: highest measured CCC{f'; {printed}' if printed else ''}."
    return f"Measured CCC: mean over folds of the mean over seeds{spread}{interval}.{bold}"


def caption(table: Table) -> str:
    """The caption of a table: what it is, on which data, and how its numbers are read. Results belong below it."""
    label = f"{table.setting.label.capitalize()}." if table.setting.label else ""
    return " ".join(filter(None, (f"{table.title}.", label, *table.sentences, table.legend)))


def _seeds_count(entry: Entry) -> bool:
    return len(entry.seeds) >= MIN_SEEDS
