"""The table of areas below the stress curves: their intervals, and what gates and modality dropout add to them."""

from collections.abc import Sequence
from dataclasses import dataclass

from crossfold.reports.results.comparable import gain_over, gate_pairs, setting_variants
from crossfold.reports.results.model import Results, Setting
from crossfold.reports.results.robustness_scores import area_runs, area_scores, trained_whole
from crossfold.reports.stats.hypothesis_tests import Family
from crossfold.reports.stats.intervals import Gain, Interval, mean_interval, paired_gain

AREA = "Stress area"
"""Head of the column of the leaderboard, and of the table below it."""
AREAS = "Areas below the stress curves"
"""Heading of the table below the leaderboard."""
INTERVAL_NOTE = (
    f"{AREAS}: the interval is made as that of a CCC, from the area without each video and, where three seeds ran, "
    "from the spread over seeds."
)
GATE_NOTE = (
    "Gain of the gate: over the same system without it; p is corrected for every pair of systems of the setting."
)
DROPOUT_NOTE = (
    "Gain of modality dropout: over the same system trained without it, on the same folds, seeds and videos; p is "
    "corrected for all rows that have such a gain."
)
NO_INTERVAL_NOTE = (
    f"{AREAS}: no interval where cells keep no numbers by video under damage, as those that version 0.1 evaluated; "
    "`crossfold rescore SWEEP --by-video` adds them."
)


@dataclass(frozen=True)
class AreaLine:
    """The area below the curves of CCC against damage, of one row, and what it gains over two others."""

    label: str
    system: str
    variant: str
    area: float
    """The mean CCC as damage grows."""
    whole: float
    """The CCC without damage."""
    interval: Interval | None
    """Of the area; None where the cells keep no numbers by video, or a fold has too few videos."""
    by_video: bool = True
    """Whether the cells keep numbers by video under damage."""
    gate: Gain | None = None
    """Of the area over that of the system without its gate."""
    dropout: Gain | None = None
    """Of the area over that of the same system trained without modality dropout."""
    seen: bool = False
    """Whether a cell has the label `seen`."""


def area_lines(results: Results, setting: Setting) -> tuple[AreaLine, ...]:
    """One line for each variant that has an area, in the order of figures."""
    areas, runs = area_scores(results, setting), area_runs(results, setting)
    if not areas:
        return ()
    systems, done = setting_variants(results, setting), results.rows(setting, status="done")
    whole = done.groupby("variant")["ccc"].mean()
    seen = set(done.loc[done["cell_id"].isin(results.seen), "variant"])
    base = {gated: base for base, gated in gate_pairs(results, setting)}
    plain = trained_whole(results, setting)
    without = area_runs(results, plain) if plain else {}
    pairs = Family(2, max(1, len(runs.keys() & without.keys())))
    return tuple(
        AreaLine(
            label=results.variants[variant],
            system=systems[variant],
            variant=variant,
            area=areas[variant],
            whole=float(whole[variant]),
            interval=mean_interval(own) if own else None,
            by_video=own is not None,
            gate=gain_over(results, setting, own, runs[base[variant]]) if own and base.get(variant) in runs else None,
            dropout=paired_gain(own, without[variant], pairs) if own and variant in without else None,
            seen=variant in seen,
        )
        for variant in systems
        if variant in areas
        for own in [runs.get(variant)]
    )


def area_notes(lines: Sequence[AreaLine]) -> tuple[str, ...]:
    """What the numbers are; and why some have no interval."""
    shown = {
        INTERVAL_NOTE: any(line.interval for line in lines),
        GATE_NOTE: any(line.gate for line in lines),
        DROPOUT_NOTE: any(line.dropout for line in lines),
        NO_INTERVAL_NOTE: not all(line.by_video for line in lines),
    }
    return tuple(note for note, true in shown.items() if true)
