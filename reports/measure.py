"""From finished cells to the entries of a table, and the words that say how they were made."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from crossfold.reports.cells import Results, Setting
from crossfold.reports.statistics import (
    DRAWS,
    Run,
    ccc_interval,
    mean_interval,
    mean_scores,
    mean_sd,
    on_common_ground,
)
from crossfold.reports.values import (
    ABOVE,
    AGREES,
    BELOW,
    MEAN,
    NOT_COMPARABLE,
    NOT_RUN,
    Entry,
    listing,
    with_sd,
)


def measure(results: Results, setting: Setting, variant: str, target: str, folds: Sequence[int] = ()) -> Entry:
    """What was measured for one variant and target; `folds` limits it to some, else all count."""
    cells = _cells_of(results, setting, variant, target, folds)
    if len(cells) == 0:
        return Entry(NOT_RUN, NOT_RUN, target=target)
    done = cells[cells["status"] == "done"]
    failed = cells[cells["status"] == "failed"]
    entry = Entry(
        text=f"{len(done)}/{len(cells)} cells",
        verdict=NOT_RUN,
        variant=variant,
        target=target,
        done=len(done),
        planned=len(cells),
        cell_ids=tuple(str(cell_id) for cell_id in cells["cell_id"]),
    )
    if len(failed):
        why = "failed: " + ", ".join(sorted({str(kind) for kind in failed["failure"]}))
        return replace(entry, text=f"{why} ({entry.text})", verdict=why)
    if len(done) < len(cells):
        return entry
    runs = runs_of(results, setting, variant, target, folds)
    mean = mean_sd(done)
    return replace(
        entry,
        text=with_sd(mean.mean, mean.sd),
        verdict=NOT_COMPARABLE,
        mean=mean.mean,
        sd=mean.sd,
        interval=ccc_interval(runs),
        video_mean=float(done.groupby("fold")["ccc_video_mean"].mean().mean()),
        folds=tuple(sorted(int(fold) for fold in done["fold"].unique())),
        seeds=tuple(sorted(int(seed) for seed in done["seed"].unique())),
        videos=tuple(len(videos) for _, videos in sorted({run.fold: run.videos for run in runs}.items())),
    )


def measure_mean(results: Results, setting: Setting, variant: str, entries: Sequence[Entry]) -> Entry:
    """The mean over targets of one variant, from its entries; only where every target is complete."""
    cells = results.cells[(results.cells["setting"] == setting.key) & (results.cells["variant"] == variant)]
    cells = cells.drop_duplicates("cell_id")
    done = int((cells["status"] == "done").sum())
    entry = Entry(
        text=f"{done}/{len(cells)} cells",
        verdict=NOT_RUN,
        variant=variant,
        target=MEAN,
        done=done,
        planned=len(cells),
        cell_ids=tuple(str(cell_id) for cell_id in cells["cell_id"]),
    )
    if any(target.mean is None for target in entries):
        failed = sorted({target.verdict for target in entries if target.verdict.startswith("failed")})
        if failed:
            return replace(entry, text=f"{failed[0]} ({entry.text})", verdict=failed[0])
        absent = [target.target for target in entries if target.planned == 0]
        return replace(entry, text=f"no {listing(absent)}") if absent and done == len(cells) else entry
    groups = on_common_ground([runs_of(results, setting, variant, target.target) for target in entries])
    if not groups[0]:
        return replace(entry, text="no fold and seed with all targets")
    scores = mean_scores(groups)
    mean = mean_sd(scores)
    return replace(
        entry,
        text=with_sd(mean.mean, mean.sd),
        verdict=NOT_COMPARABLE,
        mean=mean.mean,
        sd=mean.sd,
        interval=mean_interval(groups),
        video_mean=float(np.mean([target.video_mean for target in entries if target.video_mean is not None])),
        folds=tuple(sorted(int(fold) for fold in scores["fold"].unique())),
        seeds=tuple(sorted(int(seed) for seed in scores["seed"].unique())),
        videos=tuple(len(videos) for _, videos in sorted({run.fold: run.videos for run in groups[0]}.items())),
    )


def runs_of(results: Results, setting: Setting, variant: str, target: str, folds: Sequence[int] = ()) -> list[Run]:
    """The finished runs of one variant and target."""
    cells = _cells_of(results, setting, variant, target, folds)
    return [results.runs[str(cell_id), target] for cell_id in cells.loc[cells["status"] == "done", "cell_id"]]


def beside(entry: Entry, printed: str | None, value: float | None, *, comparable: bool) -> Entry:
    """The entry with the published number beside it, and a verdict where the two may be compared.

    It agrees where the published number lies within the interval of the measured one.
    """
    entry = replace(entry, printed=printed, value=value)
    if not comparable or entry.mean is None or entry.interval is None or value is None:
        return entry
    if entry.interval.low <= value <= entry.interval.high:
        return replace(entry, verdict=AGREES)
    return replace(entry, verdict=BELOW if entry.mean < value else ABOVE)


def find_variant(results: Results, setting: Setting, system: str, where: Mapping[str, Any]) -> tuple[str, list[str]]:
    """The variant of `system` that has the parameters `where`, and the others that have them too.

    With several, the one with the most cells stands in the table and the rest are named below it: an average over
    different parameters would be no system at all. The first is empty where there is none.
    """
    cells = results.cells
    cells = cells[(cells["setting"] == setting.key) & (cells["system"] == system)]
    params = {str(v): json.loads(p) for v, p in zip(cells["variant"], cells["params"], strict=True)}
    matching = [v for v, values in params.items() if all(values.get(key) == value for key, value in where.items())]
    matching.sort(key=lambda variant: (-int((cells["variant"] == variant).sum()), variant))
    return (matching[0], matching[1:]) if matching else ("", [])


def method_notes(entries: Sequence[Entry], setting: Setting) -> tuple[str, ...]:
    """How the measured numbers of a table were made, in words."""
    shapes = sorted({(entry.folds, entry.seeds) for entry in entries if entry.mean is not None})
    if not shapes:
        return ()
    folds, seeds = max(shapes, key=lambda shape: len(shape[0]) * len(shape[1]))
    sizes = sorted({entry.videos for entry in entries if entry.folds == folds})
    videos = " or ".join(listing(size) for size in sizes)
    fixed = "; a fold with one video stays as it is" if any(1 in size for size in sizes) else ""
    notes = [
        "Measured: CCC over the concatenated labelled frames of the reported split; mean over "
        f"{_several('fold', folds)} of the mean over {_several('seed', seeds)}; ± is the spread over seeds (root of "
        "the mean variance within folds).",
        "Interval: 95%, percentile bootstrap that resamples whole videos within each fold "
        f"({DRAWS} draws; {videos} videos in {_several('fold', folds)}{fixed}); the spread over seeds is not in it.",
        f"Recipe {setting.recipe} ({setting.recipe_hash}), protocol {setting.protocol}; {selection_words(setting)}; "
        "no post-processing.",
    ]
    if len(shapes) > 1:
        notes.append(
            "Rows differ in their folds or seeds: compare the paired gains, which use what both have, not the means."
        )
    return tuple(notes)


def selection_words(setting: Setting) -> str:
    """Which data picked the epoch that is scored."""
    words = {
        "reported": "best epoch picked on the reported split itself, as in the papers, which flatters every row",
        "held_out": "best epoch picked on a held-out part of the training videos",
    }
    return words.get(setting.selection, setting.selection)


def _several(what: str, values: tuple[int, ...]) -> str:
    return f"{what} {listing(values)}" if len(values) == 1 else f"{what}s {listing(values)}"


def _cells_of(results: Results, setting: Setting, variant: str, target: str, folds: Sequence[int]) -> pd.DataFrame:
    cells = results.cells
    chosen = (cells["setting"] == setting.key) & (cells["variant"] == variant) & (cells["target"] == target)
    if folds:
        chosen &= cells["fold"].isin(list(folds))
    return cells[chosen]
