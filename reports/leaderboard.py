"""The table that is no paper's: every variant that ran, and what fusion gained over one modality."""

from dataclasses import replace

from crossfold.reports.cells import Results, Setting
from crossfold.reports.comparison import corpus_name
from crossfold.reports.measure import measure, method_notes, runs_of
from crossfold.reports.palette import system_rank
from crossfold.reports.specs import LEADERBOARD
from crossfold.reports.statistics import holm, paired_gain
from crossfold.reports.values import Entry, Line, Table

UNIMODAL = "unimodal_"
GAIN_NOTE = (
    "Gain: CCC minus that of the best unimodal system of the target, on the same folds, seeds and resampled videos. "
    "p: paired t test over fold x seed, Holm-corrected over the table; runs of one fold share their data, so read "
    "the interval first."
)


def build_leaderboard(results: Results, setting: Setting, suffix: str = "") -> Table:
    """Every variant that ran in a setting, with its gain over the best unimodal system of each target. Pure.

    suffix: appended to the table's id where a report has several leaderboards.
    """
    cells = results.cells[results.cells["setting"] == setting.key]
    targets = setting_targets(results, setting)
    systems = setting_variants(results, setting)
    entries = {(v, t): measure(results, setting, v, t) for v in systems for t in targets}
    best = {target: best_unimodal(entries, systems, target) for target in targets}
    for (variant, target), entry in entries.items():
        rival = best[target]
        if rival and not systems[variant].startswith(UNIMODAL) and entry.mean is not None:
            ours, theirs = (runs_of(results, setting, name, target) for name in (variant, rival))
            entries[variant, target] = replace(entry, gain=paired_gain(ours, theirs))
    corrected = holm([entry.gain.p if entry.gain else None for entry in entries.values()])
    entries = {key: replace(entry, p=p) for (key, entry), p in zip(entries.items(), corrected, strict=True)}
    parameters = cells[cells["status"] == "done"].groupby("variant")["parameters"].median()
    named = "; ".join(f"{target} {results.variants[variant]}" for target, variant in best.items() if variant)
    notes = method_notes(list(entries.values()), setting)
    return Table(
        id=LEADERBOARD + suffix,
        heading=f"Leaderboard, recipe {setting.recipe}",
        title=f"All systems on {corpus_name(setting.corpus)}",
        caption="",
        setting=setting,
        comparable=False,
        columns=targets,
        lines=tuple(
            Line(
                label=results.variants[variant],
                system=system,
                entries=tuple(entries[variant, target] for target in targets),
                extra=(float(parameters[variant]) if variant in parameters.index else None,),
            )
            for variant, system in systems.items()
        ),
        sentences=(f"Best unimodal system by the same scores: {named}.",) if named else (),
        notes=(*notes, GAIN_NOTE) if named else notes,
        extra=("Parameters",),
        against="best unimodal" if named else "",
    )


def setting_targets(results: Results, setting: Setting) -> tuple[str, ...]:
    """The targets that ran, valence first."""
    found = {str(target) for target in results.cells.loc[results.cells["setting"] == setting.key, "target"]}
    return tuple(sorted(found, key=lambda target: (target != "valence", target)))


def setting_variants(results: Results, setting: Setting) -> dict[str, str]:
    """Variant -> system of everything that ran or was asked for, in the order of tables and figures."""
    cells = results.cells[results.cells["setting"] == setting.key]
    systems = {str(v): str(s) for v, s in zip(cells["variant"], cells["system"], strict=True)}
    return dict(sorted(systems.items(), key=lambda item: (system_rank(item[1]), item[0])))


def best_unimodal(entries: dict[tuple[str, str], Entry], systems: dict[str, str], target: str) -> str:
    """The variant with the highest mean among the complete unimodal ones; empty where there is none."""
    scores = {
        variant: entry.mean
        for (variant, of), entry in entries.items()
        if of == target and systems[variant].startswith(UNIMODAL) and entry.mean is not None
    }
    return max(scores, key=lambda variant: (scores[variant], variant)) if scores else ""
