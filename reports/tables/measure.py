"""From finished cells to the entries of a table, and the words that say how they were made."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence, Set
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from crossfold.platform.core.cell import PROTOCOL, SEEN
from crossfold.reports.results.model import Results, Setting
from crossfold.reports.results.runs import RAW, cells_of_variant, runs_of
from crossfold.reports.stats.formatting import listing, with_sd
from crossfold.reports.stats.intervals import MIN_SEEDS, MIN_VIDEOS, mean_interval
from crossfold.reports.stats.runs import Run, mean_scores, mean_sd, restrict_to_common_runs
from crossfold.reports.tables.entries import ABOVE, AGREES, BELOW, NOT_COMPARABLE, NOT_RUN, Entry
from crossfold.reports.tables.published import MEAN

POST_WORDS = {
    RAW: "none",
    "fixed": "the fixed chain of the recipe (nothing fitted)",
    "train": "the recipe's chain, fitted on predictions of the training clips",
    "oracle": "the recipe's chain fitted on the labels of the reported split itself, as in the 2021 paper (an oracle)",
}
"""What the names of `post` in `result.json` mean."""

NO_COMMIT, CHANGED = "not recorded", " with local changes"

_SELECTION = {
    "reported": "best epoch picked on the reported split itself, as in the papers, which flatters every row",
    "held_out": "best epoch picked on a held-out part of the training videos",
}


def measure(
    results: Results, setting: Setting, variant: str, target: str, folds: Sequence[int] = (), post: str = RAW
) -> Entry:
    """The entry of one variant and target; `folds` limits it to some, else all count.

    post: the post-processing that is wanted; where a run was not scored with it, the entry is raw and says so.
    """
    cells = cells_of_variant(results, setting, variant, target, folds)
    if len(cells) == 0:
        return Entry(NOT_RUN, NOT_RUN, target=target)
    entry = _counted(cells, variant, target, results.seen)
    if entry.verdict != NOT_COMPARABLE:
        return entry
    raw = runs_of(results, setting, variant, target, folds)
    runs = runs_of(results, setting, variant, target, folds, post)
    video_mean = float(cells.groupby("fold")["ccc_video_mean"].mean().mean())
    # A mean over raw and processed runs would be a score of neither.
    if post == RAW or len(runs) < len(raw):
        return _scored(entry, [raw], RAW, None, video_mean)
    return _scored(entry, [runs], post, mean_sd(mean_scores([raw])).mean, video_mean)


def measure_mean(
    results: Results,
    setting: Setting,
    variant: str,
    entries: Sequence[Entry],
    folds: Sequence[int] = (),
    post: str = RAW,
) -> Entry:
    """The mean over targets of one variant, from its entries; only where every target is complete."""
    cells = pd.concat([cells_of_variant(results, setting, variant, entry.target, folds) for entry in entries])
    if len(cells) == 0:
        return Entry(NOT_RUN, NOT_RUN, target=MEAN)
    # A cell with all targets counts once.
    entry = _counted(cells.drop_duplicates("cell_id"), variant, MEAN, results.seen)
    entry = replace(entry, text=f"{entry.done}/{entry.planned} cells", verdict=NOT_RUN)
    if any(target.mean is None for target in entries):
        failed = sorted({target.verdict for target in entries if target.verdict.startswith("failed")})
        if failed:
            return replace(entry, text=f"{failed[0]} ({entry.text})", verdict=failed[0])
        absent = [target.target for target in entries if target.planned == 0]
        return replace(entry, text=f"no {listing(absent)}") if absent and entry.done == entry.planned else entry
    used = post if all(target.post == post for target in entries) else RAW
    groups = restrict_to_common_runs([runs_of(results, setting, variant, each.target, folds, used) for each in entries])
    if not groups[0]:
        return replace(entry, text="no fold and seed with all targets")
    raw = [target.raw for target in entries if target.raw is not None]
    video_mean = float(np.mean([target.video_mean for target in entries if target.video_mean is not None]))
    return _scored(entry, groups, used, None if used == RAW else float(np.mean(raw)), video_mean)


def _scored(entry: Entry, groups: Sequence[Sequence[Run]], post: str, raw: float | None, video_mean: float) -> Entry:
    """The entry with the mean over the runs, one group per target, and their folds, seeds and videos."""
    mean, runs = mean_sd(mean_scores(groups)), groups[0]
    return replace(
        entry,
        text=with_sd(mean.mean, mean.sd),
        verdict=NOT_COMPARABLE,
        mean=mean.mean,
        sd=mean.sd,
        post=post,
        raw=raw,
        interval=mean_interval(groups),
        video_mean=video_mean,
        folds=tuple(sorted({run.fold for run in runs})),
        seeds=tuple(sorted({run.seed for run in runs})),
        videos=tuple(len(videos) for _, videos in sorted({run.fold: run.videos for run in runs}.items())),
    )


def with_published(entry: Entry, printed: str | None, value: float | None, *, comparable: bool) -> Entry:
    """The entry with the published number, and a verdict where the two may be compared.

    It agrees where the published number lies within the interval of the measured one.
    """
    entry = replace(entry, printed=printed, value=value)
    if not comparable or entry.mean is None or entry.interval is None or value is None:
        return entry
    if entry.interval.low <= value <= entry.interval.high:
        return replace(entry, verdict=AGREES)
    return replace(entry, verdict=BELOW if entry.mean < value else ABOVE)


def find_variant(
    results: Results, setting: Setting, system: str, where: Mapping[str, Any], folds: Sequence[int] = ()
) -> tuple[str, list[str]]:
    """The variant of `system` that has the parameters `where`, and the others that have them too.

    With several, the table shows the one with the most cells in `folds` and names the rest below: an average over
    different parameters would be no system at all. Cells of older versions lack the parameters that were added
    since, which then count as equal. The first is empty where there is none.
    """
    known = results.variants_of.get((setting.key, system), {})
    matching = [
        v for v, params in known.items() if all(params.get(key, value) == value for key, value in where.items())
    ]
    if len(matching) > 1:
        cells = results.rows(setting, system=system)
        count = cells[cells["fold"].isin(folds or cells["fold"])]["variant"].value_counts()
        matching.sort(key=lambda variant: (-int(count.get(variant, 0)), variant))
    return (matching[0], matching[1:]) if matching else ("", [])


def protocol_words(setting: Setting) -> str:
    """The protocol of a setting, with a label where it is not today's."""
    label = "" if setting.protocol == PROTOCOL else f" (of an earlier version; today's is {PROTOCOL})"
    return f"protocol {setting.protocol}{label}"


def method_notes(entries: Sequence[Entry], setting: Setting) -> tuple[str, ...]:
    """How the measured numbers of a table were made, in words."""
    shapes = sorted({(entry.folds, entry.seeds) for entry in entries if entry.mean is not None})
    if not shapes:
        return ()
    # The note describes the largest rows; a second note says that others are smaller.
    folds, seeds = max(shapes, key=lambda shape: len(shape[0]) * len(shape[1]))
    sizes = sorted({entry.videos for entry in entries if entry.folds == folds})
    one = all(size == (1,) for size in sizes)
    videos = " or ".join(listing(size) for size in sizes) + (" video" if one else " videos")
    measured = [entry for entry in entries if entry.mean is not None]
    seeds_in = {len(entry.seeds) >= MIN_SEEDS for entry in measured if entry.interval}
    few = any(entry.interval is None for entry in measured)
    posts = sorted({entry.post for entry in measured})
    spread = "; ± is the spread over seeds (root of the mean variance within folds)"
    enough = f"which takes {MIN_SEEDS} seeds a fold"
    of_seeds = {
        frozenset({True}): "is part of it",
        frozenset({False}): f"is not in it, {enough}",
        frozenset({True, False}): f"is part of it in some rows only, {enough}",
    }
    notes = [
        "Measured: CCC over the concatenated labelled frames of the reported split; mean over "
        f"{_several('fold', folds)} of the mean over {_several('seed', seeds)}"
        f"{spread if any(entry.sd is not None for entry in measured) else ''}.",
    ]
    if seeds_in:
        notes.append(
            "Interval: 95%, jackknife over whole videos within each fold with a t quantile, on Fisher's z scale for "
            f"CCC ({videos} in {_several('fold', folds)}); the spread over seeds {of_seeds[frozenset(seeds_in)]}."
        )
    notes.append(
        f"Recipe {setting.recipe} ({setting.recipe_hash}), {protocol_words(setting)}; {selection_words(setting)}; "
        f"post-processing: {listing([POST_WORDS.get(post, post) for post in posts])}."
    )
    notes.append(f"Rule of the folds: {setting.folds_words}.")
    if any(entry.seen for entry in measured):
        notes.append(f"Numbers with the mark seen are no estimate of what new clips give: {SEEN}.")
    if few:
        notes.append(
            f"No interval: at least one fold reports fewer than {MIN_VIDEOS} videos, which say too little about others."
        )
    if len(shapes) > 1:
        notes.append(
            "Rows differ in their folds or seeds: compare the paired gains, which use what both have, not the means."
        )
    return tuple(notes)


def provenance(results: Results, setting: Setting, entries: Sequence[Entry], made: str) -> tuple[tuple[str, str], ...]:
    """The line below every table: everything that must be equal to measure its numbers again.

    made: the date of the report, such as `2025-01-02 03:04 UTC`.
    """
    measured = [entry for entry in entries if entry.mean is not None]
    facts = origin(
        results,
        setting,
        {cell_id for entry in entries for cell_id in entry.cell_ids},
        folds={fold for entry in measured for fold in entry.folds},
        seeds={seed for entry in measured for seed in entry.seeds},
        stores=[setting.store, *(entry.elsewhere.store for entry in measured if entry.elsewhere)],
        posts={entry.post for entry in measured} or {RAW},
    )
    return (*facts, ("made", made))


def origin(
    results: Results,
    setting: Setting,
    cell_ids: Collection[str],
    *,
    folds: Collection[int],
    seeds: Collection[int],
    stores: Sequence[str],
    posts: Collection[str],
) -> tuple[tuple[str, str], ...]:
    """Where numbers come from, as term and value; a value is empty where nothing is measured."""
    return (
        ("corpus", setting.corpus + (f" ({setting.label})" if setting.label else "")),
        ("store", ", ".join(dict.fromkeys(stores))),
        ("recipe", f"{setting.recipe} ({setting.recipe_hash or 'unknown'})"),
        ("protocol", str(setting.protocol)),
        ("selection", setting.selection),
        ("post-processing", ", ".join(sorted(posts))),
        ("folds", listing(sorted(folds)) if folds else ""),
        ("fold rule", setting.fold_rule or "not known"),
        ("seen", seen_words(results, setting, cell_ids)),
        ("seeds", listing(sorted(seeds)) if seeds else ""),
        ("versions", versions_of(results, cell_ids)),
    )


def seen_words(results: Results, setting: Setting, cell_ids: Collection[str]) -> str:
    """Which systems of some cells of a setting have the label `seen`, and what it means; empty for none."""
    cells = results.rows(setting)
    labelled = cells[cells["cell_id"].isin(results.seen & {*cell_ids})]
    names = sorted({results.variants[str(variant)] for variant in labelled["variant"]})
    return f"{listing(names)} ({labelled['cell_id'].nunique()} of {len({*cell_ids})} cells): {SEEN}" if names else ""


def versions_of(results: Results, cell_ids: Collection[str]) -> str:
    """The versions of the libraries that finished cells ran with."""
    versions: dict[str, set[str]] = {}
    for cell_id in results.records.keys() & cell_ids:
        for name, version in results.records[cell_id].env.get("versions", {}).items():
            versions.setdefault(name, set()).add(str(version))
    return ", ".join(f"{name} {'/'.join(sorted(found))}" for name, found in sorted(versions.items()))


def commits_of(results: Results, cell_ids: Collection[str]) -> dict[str, int]:
    """The commits of the code that finished cells ran with, in words -> how many cells, the most frequent first."""
    found = Counter(
        commit_words(results.records[cell_id].env.get("code")) for cell_id in results.records.keys() & cell_ids
    )
    return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))


def commit_words(code: Mapping[str, Any] | None) -> str:
    """The commit in `env.json`, and whether the code differed from it."""
    if not code:
        return NO_COMMIT
    return str(code["commit"])[:12] + ("" if code["clean"] else CHANGED)


def selection_words(setting: Setting) -> str:
    """Which data picked the epoch that is scored."""
    return _SELECTION.get(setting.selection, setting.selection)


def _counted(cells: pd.DataFrame, variant: str, target: str, seen: Set[str]) -> Entry:
    """What is done of some cells; the verdict is `NOT_COMPARABLE` where all are, and else why there is no number."""
    status = cells["status"].to_numpy()
    done, failed = int((status == "done").sum()), cells[status == "failed"]
    entry = Entry(
        text=f"{done}/{len(cells)} cells",
        verdict=NOT_COMPARABLE if done == len(cells) else NOT_RUN,
        variant=variant,
        target=target,
        done=done,
        planned=len(cells),
        cell_ids=tuple(str(cell_id) for cell_id in cells["cell_id"]),
        seen=int(cells["cell_id"].isin(seen).sum()),
    )
    if len(failed):
        why = "failed: " + ", ".join(sorted({str(kind) for kind in failed["failure"]}))
        return replace(entry, text=f"{why} ({entry.text})", verdict=why)
    return entry


def _several(what: str, values: tuple[int, ...]) -> str:
    return f"{what} {listing(values)}" if len(values) == 1 else f"{what}s {listing(values)}"
