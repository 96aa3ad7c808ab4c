"""What the numbers of corpora with a dose say, in sentences: they stand above the figures and tables."""

import math
from collections.abc import Iterator, Sequence

from crossfold.reports.doses.scores import LEAST_WAY, Axis, DosePoint, SystemScore
from crossfold.reports.doses.tables import dose_words, share_text
from crossfold.reports.doses.truth import ESTIMATED, EXACT
from crossfold.reports.results.systems import system_label
from crossfold.reports.stats.formatting import gain_text, listing, number, p_text
from crossfold.reports.stats.hypothesis_tests import ALPHA
from crossfold.reports.stats.intervals import Gain

MOST_NAMED = 6
"""Verdicts of each kind that the sentence on them names, those with the largest differences."""


def dose_findings(points: Sequence[DosePoint], axes: Sequence[Axis]) -> list[str]:
    """One sentence for each question that the finished runs answer, none for the others."""
    made = (
        dose_verdicts(points),
        _taken(points),
        ceiling_words(points),
        _gains(points),
        *_slopes(axes),
        _places(points),
        _detection(points),
        *_curves(axes),
    )
    return [sentence for sentence in made if sentence]


def dose_verdicts(points: Sequence[DosePoint]) -> str:
    """Which systems beat a simpler one and which are beaten by it, with the dose; empty where no pair is judged."""
    found = [
        (gain, score, point) for point in points for score in point.systems if (gain := score.over_simpler) is not None
    ]
    if not any(gain.judged for gain, _, _ in found):
        return ""

    def named(sign: int, verb: str) -> str:
        clear = sorted((each for each in found if each[0].sign == sign), key=lambda each: -abs(each[0].mean))
        names = [
            f"{score.name} {verb} {score.simpler} at {dose_words(point.dose)} ({gain_text(gain)}, p {p_text(gain.p)})"
            for gain, score, point in clear[:MOST_NAMED]
        ]
        more = [f"{len(clear) - MOST_NAMED} more"] if len(clear) > MOST_NAMED else []
        return "; ".join([*names, *more]) or "none"

    return (
        f"Gains over a simpler system, with p below {ALPHA} corrected for all pairs of systems: {named(1, 'beats')}. "
        f"Losses against one, by the same rule: {named(-1, 'is beaten by')}."
    )


def _gated(points: Sequence[DosePoint]) -> Iterator[tuple[DosePoint, SystemScore, Gain]]:
    return ((point, score, score.gain) for point in points for score in point.systems if score.gain is not None)


def _taken(points: Sequence[DosePoint]) -> str:
    found = [(score.share.mean, score, point) for point in points for score in point.systems if score.share]
    if not found:
        return ""
    found.sort(key=lambda each: each[0])
    (_, low, low_at), (_, high, high_at) = found[0], found[-1]
    return (
        f"Of what the ideal observer gains over the best fixed weights, where that is more than {LEAST_WAY:g} CCC, a "
        f"system takes between {share_text(low.share)} ({low.name} at {dose_words(low_at.dose)}) and "
        f"{share_text(high.share)} ({high.name} at {dose_words(high_at.dose)}). Below 0 %, training costs more than "
        "fusion gains."
    )


def ceiling_words(points: Sequence[DosePoint]) -> str:
    """Which ceilings are estimated, and where there is none and why; empty where all are exact."""
    at: dict[str, list[str]] = {}
    for point in points:
        at.setdefault(point.ceiling_origin, []).append(dose_words(point.dose))
    made = []
    if ESTIMATED in at:
        made.append(
            "On puppets the best fixed weights and the ideal observer are estimated, not exact: a system can be better "
            "than an estimated observer."
        )
    made += [
        f"At {listing(doses)} there is {origin}." for origin, doses in at.items() if origin not in (EXACT, ESTIMATED)
    ]
    return " ".join(made)


def _gains(points: Sequence[DosePoint]) -> str:
    found = [(point, score, gain) for point, score, gain in _gated(points) if gain.judged]
    if len(found) < 2:  # of one gain the verdicts say all
        return ""
    clear = {
        sign: [
            f"{score.name} at {dose_words(point.dose)} ({gain_text(gain)})"
            for point, score, gain in found
            if gain.sign == sign
        ]
        for sign in (1, -1)
    }
    more, less = (f": {listing(names)}" if names else "" for names in clear.values())
    return (
        f"Of {len(found)} gains of a gate over the system without it, {len(clear[1])} are above zero with p below "
        f"{ALPHA}{more}; {len(clear[-1])} below zero{less}. p is not corrected for their number."
    )


def _slopes(axes: Sequence[Axis]) -> Iterator[str]:
    found = [(axis, score, slope) for axis in axes for score, slope in axis.slopes() if slope.judged]
    clear = [each for each in found if each[2].sign]
    for axis, score, slope in clear:
        ends = [point.by_system[score.system].gain for point in (axis.points[0], axis.points[-1])]
        way = f"from {_mean(ends[0])} at {axis.values[0]:g} to {_mean(ends[1])} at {axis.values[-1]:g}"
        yield (
            f"The gain of {score.name} over {system_label(score.base)} {'grows' if slope.sign > 0 else 'falls'} with "
            f"{axis.parameter}, {way} (slope {gain_text(slope)}, p {p_text(slope.p)})."
        )
    if found:
        rest, which = len(found) - len(clear), "No other" if clear else "No"
        yield f"{which} slope of a gain is clear: {rest} of {len(found)} have p above {ALPHA}."


def _places(points: Sequence[DosePoint]) -> str:
    found = [score for _, score, gain in _gated(points) if gain.sign > 0 and score.places]
    kinds = {
        words: [
            any(gain.sign > 0 for kind, gain in score.places.items() if (kind == "good") == good) for score in found
        ]
        for words, good in (("good", True), ("damaged", False))
    }
    if not found:
        return ""
    counts = {words: sum(hits) for words, hits in kinds.items()}
    return (
        f"Where a gate gains, the error is smaller in good episodes in {counts['good']} of {len(found)} cases, and in "
        f"damaged ones in {counts['damaged']} (p below {ALPHA})."
    )


def _detection(points: Sequence[DosePoint]) -> str:
    found = [
        (score.gate.auroc, f"{score.name} at {dose_words(point.dose)}")
        for point in points
        for score in point.systems
        if score.gate and math.isfinite(score.gate.auroc)
    ]
    if not found:
        return ""
    (low, lowest), (high, highest) = min(found), max(found)
    if len(found) == 1:
        return (
            f"As a detector of damage the gate of {lowest} has an AUROC of {low:.2f}; 0.5 is chance, and 0 separates "
            "as well as 1, the other way round."
        )
    return (
        f"As detectors of damage the gates have an AUROC between {low:.2f} ({lowest}) and {high:.2f} ({highest}); 0.5 "
        "is chance, and 0 separates as well as 1, the other way round."
    )


def _curves(axes: Sequence[Axis]) -> Iterator[str]:
    for axis in (axis for axis in axes if axis.parameter == "clips"):
        first, last = axis.points[0], axis.points[-1]
        names = [
            f"{score.name} {number(first.by_system[score.system].ccc)} to {number(score.ccc)}"
            for score in last.by_system.values()
            if score.system in first.by_system
        ]
        ideal = f"; the ideal observer has {number(last.ceilings['ideal'])}" if last.ceilings else ""
        yield f"CCC from {axis.values[0]:g} to {axis.values[-1]:g} training clips: {listing(names)}{ideal}."


def _mean(gain: Gain | None) -> str:
    return "-" if gain is None else gain_text(Gain(gain.mean, None, gain.n))
