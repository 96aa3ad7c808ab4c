"""The table that is no paper's: every variant that ran, and what fusion gained over one modality."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from crossfold.reports.results.comparable import (
    comparable_variants,
    group_letters,
    ranks_of,
    setting_targets,
    setting_variants,
)
from crossfold.reports.results.model import Results, Setting
from crossfold.reports.results.robustness_scores import stress_scores
from crossfold.reports.results.runs import runs_of
from crossfold.reports.results.systems import UNIMODAL_PREFIX, corpus_name, system_rank
from crossfold.reports.stats.bootstrap import Gain, holm, paired_mean_gain
from crossfold.reports.stats.formatting import listing, number
from crossfold.reports.tables.comparison import ALPHA
from crossfold.reports.tables.entries import Against, Entry, Line, Table
from crossfold.reports.tables.measure import measure, measure_mean, method_notes
from crossfold.reports.tables.published import LEADERBOARD, MEAN

GAIN_NOTE = (
    "Gain: difference in CCC, or in its mean over targets, on the same folds, seeds and resampled videos; both systems "
    "and all targets meet the same draw. p: paired t test over fold x seed, Holm-corrected over all gains of the "
    "table's first group, and apart from those over all gains by target; runs of one fold share their data, so read "
    "the interval first. Intervals are not corrected for the number of systems."
)
ORDER_NOTE = "Complete rows stand by the first column, highest first; rows with unfinished cells stand last."

RANK, PARAMETERS, SECONDS, STRESS = "Mean rank", "Parameters", "Training, s", "Stress CCC"
MEMORY = {"memory_device": "GPU memory, MiB", "memory_process": "Memory, MiB"}
"""One kind a column: what a GPU holds and what a process holds cannot be compared."""
NOT_MEASURED = "not measured"
ENSEMBLE, FLOPS = "Seed ensemble CCC", "MFLOPs a window"
GROUP_NOTE = (
    "Group: two systems that share a letter are not distinguishable (Nemenyi, 0.05, over target x fold x seed); a "
    "system without a letter can be told from all others."
)
FURTHER_NOTES = {
    RANK: "Mean rank: over target x fold x seed, among the complete systems that ran the same of them; 1 is the best.",
    SECONDS: "Training: median over cells; it depends on the machine and on what else ran there.",
    MEMORY["memory_device"]: "GPU memory: largest share of the GPU that a cell held at once, mean over cells.",
    MEMORY["memory_process"]: "Memory: largest private memory that a cell added to its process on a CPU, mean over "
    "cells; it depends on the machine.",
    ENSEMBLE: "Seed ensemble CCC: of the mean prediction of all seeds of a fold, mean over folds and targets; it has "
    "more than the budget of a row, so compare it with other ensembles only.",
    FLOPS: "MFLOPs: millions of operations of one prediction; not counted for models with LSTMs, whose kernels torch's "
    "counter does not see.",
    STRESS: "Stress CCC: mean over the entries of the stress battery, targets, folds and seeds; what a system does not "
    "read cannot be damaged for it.",
}


def build_leaderboard(results: Results, setting: Setting, suffix: str = "") -> Table:
    """Every variant that ran in a setting, by its mean over targets, with its gain over each unimodal system. Pure.

    With one target the mean is that target. suffix: appended to the table's id where a report has several.
    """
    targets = setting_targets(results, setting)
    columns = (MEAN, *targets) if len(targets) > 1 else targets
    systems = setting_variants(results, setting)
    rows: dict[str, tuple[Entry, ...]] = {}
    for variant in systems:
        entries = tuple(measure(results, setting, variant, target) for target in targets)
        rows[variant] = (measure_mean(results, setting, variant, entries), *entries) if len(targets) > 1 else entries
    rivals = _rivals(rows, systems)
    rows = _with_gains(rows, systems, rivals, results, setting)
    notes = method_notes([entry for entries in rows.values() for entry in entries], setting)
    ranks = ranks_of(comparable_variants(results, setting))
    letters = group_letters(ranks)
    further = _further(results, setting, {} if ranks is None else {str(v): float(r) for v, r in ranks.mean.items()})
    best = results.variants[rivals[0]] if rivals else ""
    gained = any(entry.gains for entries in rows.values() for entry in entries)
    return Table(
        id=LEADERBOARD + suffix,
        heading=f"Leaderboard, recipe {setting.recipe}" + (", one model for all targets" if setting.joint else ""),
        title=f"All systems on {corpus_name(setting.corpus)}",
        caption="",
        setting=setting,
        comparable=False,
        columns=columns,
        lines=tuple(
            Line(
                results.variants[variant],
                systems[variant],
                rows[variant],
                words=(letters.get(variant, ""),) if letters else (),
                extra=tuple(_value(head, variant, values, rows[variant][0]) for head, values in further.items()),
            )
            for variant in sorted(rows, key=lambda variant: _order(rows[variant], systems[variant], variant))
        ),
        headline=headline(rows, systems, results.variants, setting, targets),
        sentences=_sentences(rows, rivals, results.variants, targets),
        notes=(
            *notes,
            ORDER_NOTE,
            *((GAIN_NOTE,) if gained else ()),
            *((GROUP_NOTE,) if letters else ()),
            *(note for head, note in FURTHER_NOTES.items() if head in further),
        ),
        word_heads=("Group",) if letters else (),
        extra=tuple(further),
        rivals=tuple(results.variants[variant] for variant in sorted(rivals, key=lambda v: system_rank(systems[v])))
        if gained
        else (),
        best=best if gained and len(targets) > 1 else "",
    )


def headline(
    rows: Mapping[str, Sequence[Entry]],
    systems: Mapping[str, str],
    names: Mapping[str, str],
    setting: Setting,
    targets: Sequence[str],
) -> str:
    """How many of the fusion systems beat every unimodal one with an interval that excludes zero, or why none can say.

    rows: variant -> entries, the one that counts first, with its gain over each complete unimodal system.
    """
    unimodal = [variant for variant in rows if systems[variant].startswith(UNIMODAL_PREFIX)]
    fusion = [variant for variant in rows if variant not in unimodal]
    score = f"the mean of {listing(targets)} CCC" if len(targets) > 1 else f"{targets[0]} CCC"
    if not unimodal or not fusion:
        return ""
    rivals = {1: f"the only unimodal system that ran, {names[unimodal[0]]},", 2: "both unimodal systems"}.get(
        len(unimodal), f"all {len(unimodal)} unimodal systems"
    )
    question = f"Whether fusion beats {rivals} on {score} cannot be said yet on {corpus_name(setting.corpus)}"
    unfinished = [variant for variant in unimodal if rows[variant][0].mean is None]
    if unfinished:
        state = listing([f"{names[variant]} ({rows[variant][0].text})" for variant in unfinished])
        return f"{question}: not complete: {state}."
    complete = [variant for variant in fusion if rows[variant][0].mean is not None]
    if not complete:
        return f"{question}: no fusion system is complete."
    judged = [variant for variant in complete if _has_intervals(rows[variant][0])]
    if not judged:
        return f"{question}: too few videos for an interval."
    winners = [variant for variant in judged if _beats_all(rows[variant][0])]
    if len(judged) == 1:
        says = f"the one complete fusion system, {names[judged[0]]}, {'beats' if winners else 'does not beat'}"
    elif not winners:
        says = f"none of the {len(judged)} fusion systems beats"
    else:
        count = f"all {len(judged)}" if len(winners) == len(judged) else f"{len(winners)} of {len(judged)}"
        says = f"{count} fusion systems beat" + ("s" if len(winners) == 1 else "")
    named = f": {listing([names[variant] for variant in winners])}" if winners and len(judged) > 1 else ""
    left_out = len(fusion) - len(judged)
    return (
        f"On {corpus_name(setting.corpus)}, {says} {rivals.removesuffix(',')} on {score} "
        f"with a 95% paired interval that excludes zero{named}"
        + (f" ({left_out} more cannot be compared yet)." if left_out else ".")
    )


def _rivals(rows: Mapping[str, Sequence[Entry]], systems: Mapping[str, str]) -> list[str]:
    """The complete unimodal variants, the best by the first column first."""
    means = {
        variant: entries[0].mean for variant, entries in rows.items() if systems[variant].startswith(UNIMODAL_PREFIX)
    }
    complete = {variant: mean for variant, mean in means.items() if mean is not None}
    return sorted(complete, key=lambda variant: (-complete[variant], variant))


def _with_gains(
    rows: Mapping[str, tuple[Entry, ...]],
    systems: Mapping[str, str],
    rivals: Sequence[str],
    results: Results,
    setting: Setting,
) -> dict[str, tuple[Entry, ...]]:
    """The rows with the gains of fusion: the first entry over each rival, the others over the best."""
    found: list[tuple[str, int, str, Gain | None]] = []
    for variant, entries in rows.items():
        if systems[variant].startswith(UNIMODAL_PREFIX):
            continue
        for index, entry in enumerate(entries):
            if entry.mean is None:
                continue
            targets = [other.target for other in entries if other.target != MEAN] if index == 0 else [entry.target]
            for rival in rivals if index == 0 else rivals[:1]:
                ours, theirs = (
                    [runs_of(results, setting, name, target) for target in targets] for name in (variant, rival)
                )
                found.append((variant, index, rival, paired_mean_gain(ours, theirs)))
    gains: dict[tuple[str, int], list[Against]] = {}
    for first in (True, False):
        family = [item for item in found if (item[1] == 0) == first]
        corrected = holm([gain.p if gain else None for *_, gain in family])
        for (variant, index, rival, gain), p in zip(family, corrected, strict=True):
            gains.setdefault((variant, index), []).append(Against(results.variants[rival], gain, p))
    return {
        variant: tuple(replace(entry, gains=tuple(gains.get((variant, i), ()))) for i, entry in enumerate(entries))
        for variant, entries in rows.items()
    }


def _sentences(
    rows: Mapping[str, Sequence[Entry]], rivals: Sequence[str], names: Mapping[str, str], targets: Sequence[str]
) -> tuple[str, ...]:
    """Which unimodal system is best, and what the test over runs says beside the interval."""
    if not rivals:
        return ()
    mean = rows[rivals[0]][0].mean
    by = "the mean" if len(targets) > 1 else targets[0]
    sentences = [
        f"Best unimodal system by {by}: {names[rivals[0]]}" + (f" ({number(mean)})." if mean is not None else ".")
    ]
    gains = [entries[0].gains for entries in rows.values() if entries[0].gains]
    pairs = sorted({against.gain.n for group in gains for against in group if against.gain})
    if pairs and pairs[-1] > 1:
        passed = sum(
            all(each.gain and each.gain.mean > 0 and each.p is not None and each.p < ALPHA for each in group)
            for group in gains
        )
        over = f"{pairs[0]}" if len(pairs) == 1 else f"{pairs[0]} to {pairs[-1]}"
        sentences.append(
            f"A paired t test over {over} fold x seed pairs, Holm-corrected, gives p below "
            f"{ALPHA} over every unimodal system for {passed or 'none'} of {len(gains)}."
        )
    return (" ".join(sentences),)


def _has_intervals(entry: Entry) -> bool:
    return bool(entry.gains) and all(each.gain is not None and each.gain.low is not None for each in entry.gains)


def _beats_all(entry: Entry) -> bool:
    return bool(entry.gains) and all(against.gain is not None and against.gain.sign > 0 for against in entry.gains)


def _order(entries: Sequence[Entry], system: str, variant: str) -> tuple[bool, float, tuple[int, int, str], str]:
    """Complete rows by their mean, then the others in the order of figures."""
    mean = entries[0].mean
    return (mean is None, -mean if mean is not None else 0.0, system_rank(system), variant)


def _further(results: Results, setting: Setting, ranks: Mapping[str, float]) -> dict[str, Mapping[str, float]]:
    """The columns beside the scores, each by variant; without those that nothing is known for."""
    cells = results.cells[(results.cells["setting"] == setting.key) & (results.cells["status"] == "done")]
    columns = ("parameters", "flops", "train_seconds", *MEMORY)
    numbers = {column: cells[["variant", column]].dropna() for column in columns}
    medians = {
        column: {str(variant): float(value) for variant, value in rows.groupby("variant")[column].median().items()}
        for column, rows in numbers.items()
    }
    found: dict[str, Mapping[str, float]] = {
        RANK: ranks,
        ENSEMBLE: ensemble_scores(results, setting),
        STRESS: stress_scores(results, setting),
        PARAMETERS: medians["parameters"],
        FLOPS: {variant: flops / 1e6 for variant, flops in medians["flops"].items()},
        SECONDS: medians["train_seconds"],
        **{
            head: {str(v): float(size) for v, size in numbers[column].groupby("variant")[column].mean().items()}
            for column, head in MEMORY.items()
        },
    }
    return {head: values for head, values in found.items() if values}


def _value(head: str, variant: str, values: Mapping[str, float], first: Entry) -> float | str | None:
    """What stands in a further column; a finished row says so where nobody measured its memory."""
    absent = NOT_MEASURED if head in MEMORY.values() and first.done else None
    return values.get(variant, absent)


def ensemble_scores(results: Results, setting: Setting) -> dict[str, float]:
    """Variant -> CCC of the mean prediction of its seeds, mean over folds and targets.

    Only variants of which every planned run has finished, and whose seeds of every fold were put together.
    """
    found: dict[str, float] = {}
    for variant in setting_variants(results, setting):
        scores: list[float | None] = []
        for target in setting_targets(results, setting):
            rows = results.groups.get((setting.key, variant, target))
            for _, runs in rows.groupby("fold") if rows is not None else ():
                metrics = results.ensembles.get(frozenset(runs["cell_id"]), {}).get(target, {})
                scores.append(metrics.get("ccc") if (runs["status"] == "done").all() else None)
        whole = [score for score in scores if score is not None]
        if whole and len(whole) == len(scores):
            found[variant] = sum(whole) / len(whole)
    return found
