"""One leaderboard of several workspaces: each row with its origin and with what was verified of it."""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from crossfold.platform.core.cell import SEEN
from crossfold.reports.page.sheets import Section, Sheet
from crossfold.reports.page.verified import Verified, verified_of
from crossfold.reports.results.comparable import setting_targets, setting_variants
from crossfold.reports.results.load import variant_names
from crossfold.reports.results.model import Results, Setting
from crossfold.reports.results.runs import runs_of
from crossfold.reports.results.systems import corpus_name
from crossfold.reports.stats.formatting import DASH, interval_text, listing, number
from crossfold.reports.stats.hypothesis_tests import ALPHA, Family
from crossfold.reports.stats.intervals import paired_gain
from crossfold.reports.stats.runs import Run
from crossfold.reports.tables.entries import SEEN_MARK, Entry
from crossfold.reports.tables.grid import Grid, GridCell, gain_cell, label_cell, p_cell, words_cell
from crossfold.reports.tables.measure import measure, measure_mean

RULE = (
    "Only rows of one corpus, feature store, recipe, protocol, selection, and of the same videos in each fold share a "
    "table. Gain: difference in CCC to the first row on the same folds, seeds and videos, with its own 95% interval; p "
    f"is corrected for every pair of rows, and one row beats another where it is below {ALPHA}. Verified: the score of "
    "so many cells was computed again and agreed, from their predictions, or, in exported results, from the moments of "
    "each video. The digits are of the SHA-256 of the predictions; exported results state it, and nothing here can "
    "check it."
)
SEEN_RULE = f"Numbers with the mark seen are no estimate of what new clips give: {SEEN}."
HEADS = ("System", "Mean CCC", "95% interval", "Gain over the first", "p", "Seeds", "From", "Verified")


@dataclass(frozen=True)
class _Row:
    label: str
    entry: Entry
    runs: Sequence[Sequence[Run]]
    origin: str
    check: Verified
    revision: int
    """Of the system."""


def joined(groups: Mapping[str, Results], date: str) -> Sheet:
    """The sheet of all complete rows of several workspaces. groups: what to call each workspace -> its results."""
    tables: dict[tuple[str, ...], list[_Row]] = defaultdict(list)
    places: dict[tuple[str, ...], tuple[Setting, tuple[str, ...], Sequence[Run]]] = {}
    left_out = 0
    # Together, as parameters that are alike within each workspace may differ between them.
    titles = {name: title for results in groups.values() for name, title in results.titles.items()}
    names = variant_names(pd.concat([results.cells for results in groups.values()], ignore_index=True), titles)
    for origin, results in groups.items():
        for setting in results.settings.values():
            targets = setting_targets(results, setting)
            for variant in setting_variants(results, setting):
                entries = tuple(measure(results, setting, variant, target) for target in targets)
                entry = entries[0] if len(entries) == 1 else measure_mean(results, setting, variant, entries)
                if entry.mean is None:
                    left_out += 1
                    continue
                runs = [runs_of(results, setting, variant, target) for target in targets]
                key = (setting.key, setting.selection, ",".join(targets), _fold_digest(runs))
                places.setdefault(key, (setting, targets, runs[0]))
                ids = sorted({cell_id for each in entries for cell_id in each.cell_ids})
                check = verified_of(results, ids)
                revision = max(results.records[cell_id].cell.revision for cell_id in ids)
                row = _Row(names[variant], entry, runs, origin, check, revision)
                tables[key].append(row)
    sections = [_section(_without_copies(tables[key]), *places[key], key[-1]) for key in sorted(tables)]
    sections.sort(key=lambda section: -len(section.grid.rows))
    words = f" {left_out} unfinished rows are left out." if left_out else ""
    return Sheet(
        title="Joint leaderboard",
        date=date,
        summary=f"Complete systems of {len(groups)} workspaces: {listing(list(groups))}.{words}",
        sections=sections,
    )


def _section(
    rows: Sequence[_Row], setting: Setting, targets: Sequence[str], runs: Sequence[Run], folds: str
) -> Section:
    rows = _with_revisions(rows)
    ranked = sorted(rows, key=lambda row: (-(row.entry.mean or 0), row.label, row.origin))
    family = Family(max(2, len(ranked)))
    cells = []
    for row in ranked:
        gain = paired_gain(row.runs, ranked[0].runs, family) if row is not ranked[0] else None
        unclear = gain is not None and gain.sign == 0
        marks = (SEEN_MARK,) if row.entry.seen else ()
        seen = bool(row.entry.seen or ranked[0].entry.seen)
        cells.append(
            (
                label_cell(row.label),
                GridCell(
                    number(row.entry.mean or 0),
                    sort=row.entry.mean,
                    kind="measured",
                    strong=row is ranked[0],
                    marks=marks,
                ),
                GridCell(interval_text(row.entry.interval), marks=marks if row.entry.interval else ()),
                gain_cell(gain, unclear=unclear, seen=seen),
                p_cell(gain.p if gain else None),
                words_cell(listing(list(row.entry.seeds)) if row.entry.seeds else DASH),
                words_cell(row.origin),
                words_cell(row.check.words),
            )
        )
    videos = {run.fold: len(run.videos) for run in runs}
    counted = ", ".join(f"{count} in fold {fold}" for fold, count in sorted(videos.items()))
    return Section(
        heading=f"{corpus_name(setting.corpus)}, {listing(list(targets))}, recipe {setting.recipe}",
        label=setting.label,
        above=(
            f"Store {setting.store}, recipe {setting.recipe_hash or 'unknown'}, protocol {setting.protocol}, selection "
            f"{setting.selection}, rule of the folds {setting.fold_rule or 'not known'}; videos: {counted} (SHA-256 of "
            f"the folds {folds}).",
        ),
        grid=Grid((), HEADS, tuple(cells)),
        below=(RULE, *((SEEN_RULE,) if any(row.entry.seen for row in ranked) else ())),
    )


def _with_revisions(rows: Sequence[_Row]) -> list[_Row]:
    """The rows, with the revision of a system in its name where several ran: their mathematics differs."""
    revisions: dict[str, set[int]] = defaultdict(set)
    for row in rows:
        revisions[row.label].add(row.revision)
    return [
        replace(row, label=f"{row.label}, revision {row.revision}") if len(revisions[row.label]) > 1 else row
        for row in rows
    ]


def _without_copies(rows: Iterable[_Row]) -> list[_Row]:
    """A row that two workspaces have with the same predictions, as after a merge, once and with both origins."""
    found: dict[tuple[str, str, float | None], _Row] = {}
    for row in rows:
        # A stored score that its predictions do not give makes two rows of one hash.
        key = (f"{row.label} {row.revision}", row.check.digest or f"{row.origin} {len(found)}", row.entry.mean)
        if key in found:
            old = found[key]
            entry = old.entry if old.entry.seen else row.entry  # what one workspace has seen is seen
            better = row if old.check.stated else old  # predictions that are here say more than a statement
            row = replace(better, entry=entry, origin=f"{old.origin} and {row.origin}")
        found[key] = row
    return list(found.values())


def _fold_digest(groups: Sequence[Sequence[Run]]) -> str:
    """The first 8 digits of the SHA-256 of the videos that each fold scores."""
    folds = {run.fold: sorted(run.videos) for group in groups for run in group}
    return hashlib.sha256(json.dumps(sorted(folds.items())).encode()).hexdigest()[:8]
