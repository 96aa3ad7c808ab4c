"""The table that is no paper's: every variant that ran, and what fusion gained over one modality."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from crossfold.reports.results.areas import AREA, area_lines, area_notes
from crossfold.reports.results.comparable import (
    comparable_variants,
    gain_over,
    mean_ranks,
    setting_targets,
    setting_variants,
    standing_of,
)
from crossfold.reports.results.model import Results, Setting
from crossfold.reports.results.robustness_scores import area_scores, stress_scores
from crossfold.reports.results.runs import runs_of
from crossfold.reports.results.systems import corpus_name, system_kind, system_rank
from crossfold.reports.stats.formatting import listing, number
from crossfold.reports.stats.hypothesis_tests import ALPHA
from crossfold.reports.stats.intervals import MIN_SEEDS, MIN_VIDEOS
from crossfold.reports.tables.entries import Against, Entry, Line, Table
from crossfold.reports.tables.measure import measure, measure_mean, method_notes
from crossfold.reports.tables.notes import legend
from crossfold.reports.tables.published import LEADERBOARD, MEAN

GAIN_NOTE = (
    "Gain: difference in CCC, or in its mean over targets, on the same folds, seeds and videos, with its own 95% "
    f"interval. p: corrected for every pair of systems of the setting, in the mean or on each target. One system beats "
    f"another where p is below {ALPHA}; headline, groups, gains and claims follow this rule alone."
)
ORDER_NOTE = "Complete rows are sorted by the first column, highest first; rows with unfinished cells come last."

RANK, PARAMETERS, SECONDS, STRESS = "Mean rank", "Parameters", "Training, s", "Stress CCC"
MEMORY = {"memory_device": "GPU memory, MiB", "memory_process": "Memory, MiB"}
"""One kind per column: memory of a GPU and memory of a process cannot be compared."""
NOT_MEASURED = "not measured"
ENSEMBLE, FLOPS = "Seed ensemble CCC", "MFLOPs a window"
GROUP_NOTE = (
    "Group: of two complete systems that share a letter, neither beats the other; of two that share none, one does."
)
FURTHER_NOTES = {
    RANK: "Mean rank: over target x fold, seeds averaged first, among the complete systems that ran the same of "
    "them; 1 is the best.",
    SECONDS: "Training: median over cells; it depends on the machine and on what else ran there.",
    MEMORY["memory_device"]: "GPU memory: largest share of the GPU that a cell held at once, mean over cells.",
    MEMORY["memory_process"]: "Memory: largest private memory that a cell added to its process on a CPU, mean over "
    "cells; it depends on the machine.",
    ENSEMBLE: "Seed ensemble CCC: of the mean prediction of all seeds of a fold, mean over folds and targets; it took "
    "the training of several models, so compare it with other ensembles only.",
    FLOPS: "MFLOPs: millions of operations of one prediction; absent for models with LSTMs, whose kernels torch's "
    "counter does not see.",
    STRESS: "Stress CCC: mean over the entries of the stress suite, targets, folds and seeds; damage to a modality "
    "that a system does not read leaves its score as it is.",
    AREA: "Stress area: area below the curve of CCC against the strength of damage, over the range of strengths: the "
    "mean CCC as damage grows from none to the strongest. Mean over the damages with two strengths or more.",
}


@dataclass(frozen=True)
class _Row:
    variant: str
    system: str
    name: str
    entries: tuple[Entry, ...]

    @property
    def first(self) -> Entry:
        """The entry that counts: the mean over targets, or that of the only target."""
        return self.entries[0]

    @property
    def unimodal(self) -> bool:
        return system_kind(self.system) == "unimodal"


def build_leaderboard(results: Results, setting: Setting, suffix: str = "") -> Table:
    """Every variant that ran in a setting, by its mean over targets, with its gain over each unimodal system. Pure.

    With one target the mean is that target. suffix: appended to the table's id where a report has several.
    """
    targets = setting_targets(results, setting)
    rows = []
    for variant, system in setting_variants(results, setting).items():
        entries = tuple(measure(results, setting, variant, target) for target in targets)
        if len(targets) > 1:
            entries = (measure_mean(results, setting, variant, entries), *entries)
        rows.append(_Row(variant, system, results.variants[variant], entries))
    rivals = sorted(
        (row for row in rows if row.unimodal and row.first.mean is not None),
        key=lambda row: (-(row.first.mean or 0), row.variant),
    )
    rows = _with_gains(rows, rivals, results, setting)
    standing = standing_of(results, setting)
    letters = standing.letters if standing else {}
    areas = area_lines(results, setting)
    further = _further(results, setting, mean_ranks(comparable_variants(results, setting)))
    gained = any(entry.gains for row in rows for entry in row.entries)
    # Rows with unfinished cells have no mean to be sorted by, so they come last, in the order of figures.
    order = sorted(
        rows, key=lambda row: (row.first.mean is None, -(row.first.mean or 0), system_rank(row.system), row.variant)
    )
    return Table(
        id=LEADERBOARD + suffix,
        heading=f"Leaderboard, recipe {setting.recipe}" + (", one model for all targets" if setting.joint else ""),
        title=f"All systems on {corpus_name(setting.corpus)}",
        caption="",
        setting=setting,
        comparable=False,
        columns=(MEAN, *targets) if len(targets) > 1 else targets,
        lines=tuple(
            Line(
                row.name,
                row.system,
                row.entries,
                words=(letters.get(row.variant, ""),) if standing else (),
                extra=tuple(_value(head, row, values) for head, values in further.items()),
            )
            for row in order
        ),
        headline=headline(rows, setting, targets),
        sentences=(),
        findings=_findings(rivals, targets),
        legend=legend([entry for row in rows for entry in row.entries]),
        notes=(
            *method_notes([entry for row in rows for entry in row.entries], setting),
            ORDER_NOTE,
            *((GAIN_NOTE,) if gained else ()),
            *((GROUP_NOTE,) if standing else ()),
            *(note for head, note in FURTHER_NOTES.items() if head in further),
            *area_notes(areas),
        ),
        # In the order of the rows, as the page filters both alike.
        areas=tuple(area for row in order for area in areas if area.variant == row.variant),
        word_heads=("Group",) if standing else (),
        extra=tuple(further),
        rivals=tuple(row.name for row in sorted(rivals, key=lambda row: system_rank(row.system))) if gained else (),
        best=rivals[0].name if gained and len(targets) > 1 else "",
    )


def headline(rows: Sequence[_Row], setting: Setting, targets: Sequence[str]) -> str:
    """How many of the fusion systems beat every unimodal one, or why that is open.

    rows: with the gain of the first entry over each complete unimodal system.
    """
    unimodal, fusion = ([row for row in rows if row.unimodal == wanted] for wanted in (True, False))
    if not unimodal or not fusion:
        return ""
    corpus = corpus_name(setting.corpus)
    score = f"the mean of {listing(targets)} CCC" if len(targets) > 1 else f"{targets[0]} CCC"
    count = {1: f"the only unimodal system that ran, {unimodal[0].name},", 2: "both unimodal systems"}
    rivals = count.get(len(unimodal), f"all {len(unimodal)} unimodal systems")
    question = f"Whether fusion beats {rivals} on {score} cannot be said yet on {corpus}"
    unfinished = [f"{row.name} ({row.first.text})" for row in unimodal if row.first.mean is None]
    if unfinished:
        return f"{question}: not complete: {listing(unfinished)}."
    complete = [row for row in fusion if row.first.mean is not None]
    if not complete:
        return f"{question}: no fusion system is complete."
    judged = [row for row in complete if all(each.gain and each.gain.judged for each in row.first.gains)]
    if not judged:
        return f"{question}: fewer than {MIN_SEEDS} seeds or {MIN_VIDEOS} videos in a fold."
    winners = [row.name for row in judged if all(each.gain and each.gain.sign > 0 for each in row.first.gains)]
    if len(judged) == 1:
        says = f"the one complete fusion system, {judged[0].name}, {'beats' if winners else 'does not beat'}"
    elif not winners:
        says = f"none of the {len(judged)} fusion systems beats"
    else:
        some = f"all {len(judged)}" if len(winners) == len(judged) else f"{len(winners)} of {len(judged)}"
        says = f"{some} fusion systems beat" + ("s" if len(winners) == 1 else "")
    named = f": {listing(winners)}" if winners and len(judged) > 1 else ""
    left_out = len(fusion) - len(judged)
    compared = [*unimodal, *judged]
    marked = [row.name for row in compared if row.first.seen]
    whose = "every system" if len(marked) == len(compared) > 1 else listing(marked)
    seen = f" Some numbers of {whose} have the mark seen." if marked else ""
    return (
        f"On {corpus}, {says} {rivals} on {score} (p below {ALPHA}, corrected for all "
        f"pairs of systems){named}" + (f" ({left_out} more cannot be compared yet)." if left_out else ".") + seen
    )


def _with_gains(rows: Sequence[_Row], rivals: Sequence[_Row], results: Results, setting: Setting) -> list[_Row]:
    """The rows with the gains of fusion: the first entry over each rival, the others over the best."""
    gains: dict[tuple[str, int], list[Against]] = {}
    for row in rows:
        for index, entry in enumerate(row.entries):
            if row.unimodal or entry.mean is None:  # the question is what fusion gains
                continue
            targets = [other.target for other in row.entries if other.target != MEAN] if index == 0 else [entry.target]
            for rival in rivals if index == 0 else rivals[:1]:
                own, base = ([runs_of(results, setting, v, t) for t in targets] for v in (row.variant, rival.variant))
                seen = any(each.seen for each in (*row.entries, *rival.entries))
                against = Against(rival.name, gain_over(results, setting, own, base), seen)
                gains.setdefault((row.variant, index), []).append(against)
    return [
        replace(
            row,
            entries=tuple(replace(e, gains=tuple(gains.get((row.variant, i), ()))) for i, e in enumerate(row.entries)),
        )
        for row in rows
    ]


def _findings(rivals: Sequence[_Row], targets: Sequence[str]) -> tuple[str, ...]:
    """Which unimodal system is best."""
    if not rivals:
        return ()
    by = "the mean" if len(targets) > 1 else targets[0]
    return (f"Best unimodal system by {by}: {rivals[0].name} ({number(rivals[0].first.mean or 0)}).",)


def _further(results: Results, setting: Setting, ranks: Mapping[str, float]) -> dict[str, Mapping[str, float]]:
    """The columns behind the scores, each by variant; without those that nothing is known for."""
    done = results.rows(setting, status="done")

    def by_variant(column: str, statistic: str) -> dict[str, float]:
        known = done[["variant", column]].dropna().groupby("variant")[column].agg(statistic)
        return {str(variant): float(value) for variant, value in known.items()}

    found: dict[str, Mapping[str, float]] = {
        RANK: ranks,
        ENSEMBLE: ensemble_scores(results, setting),
        STRESS: stress_scores(results, setting),
        AREA: area_scores(results, setting),
        PARAMETERS: by_variant("parameters", "median"),
        FLOPS: {variant: flops / 1e6 for variant, flops in by_variant("flops", "median").items()},
        SECONDS: by_variant("train_seconds", "median"),
        **{head: by_variant(column, "mean") for column, head in MEMORY.items()},
    }
    return {head: values for head, values in found.items() if values}


def _value(head: str, row: _Row, values: Mapping[str, float]) -> float | str | None:
    """The value of a further column; a finished row without a record of its memory says so."""
    return values.get(row.variant, NOT_MEASURED if head in MEMORY.values() and row.first.done else None)


def ensemble_scores(results: Results, setting: Setting) -> dict[str, float]:
    """Variant -> CCC of the mean prediction of its seeds, mean over folds and targets.

    Only variants of which every planned run has finished, and whose seeds of every fold have a saved ensemble.
    """
    found: dict[str, float] = {}
    for variant in setting_variants(results, setting):
        scores: list[float | None] = []
        for target in setting_targets(results, setting):
            rows = results.groups.get((setting.key, variant, target))
            for _, runs in rows.groupby("fold") if rows is not None else ():
                metrics = results.ensembles.get(frozenset(runs["cell_id"]), {}).get(target, {})
                # An ensemble of some seeds would be smaller than those of the other folds.
                scores.append(metrics.get("ccc") if (runs["status"] == "done").all() else None)
        known = [score for score in scores if score is not None]
        if known and len(known) == len(scores):
            found[variant] = sum(known) / len(known)
    return found
