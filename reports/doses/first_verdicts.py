"""What fusion, attention and gates add at a dose, a short sentence each: for the first screen of a page."""

from collections.abc import Iterator, Sequence

from crossfold.reports.doses.scores import CONCAT, DosePoint, SystemScore
from crossfold.reports.doses.tables import dose_words
from crossfold.reports.stats.formatting import gain_text, p_text
from crossfold.reports.stats.intervals import Gain

FUSION, ATTENTION, GATE = "Fusion", "Attention", "Gate"
"""Concatenation over the better modality, attention over concatenation, and a gate over the system without it."""


def first_verdicts(points: Sequence[DosePoint]) -> list[str]:
    """For each kind that was judged, its clearest verdict by the rule of the leaderboard, with the dose."""
    found = [(kind, point, score, gain) for point in points for kind, score, gain in _judged(point)]
    sentences = []
    for kind in (FUSION, ATTENTION, GATE):
        own = [(point, score, gain) for name, point, score, gain in found if name == kind]
        clear = sorted((each for each in own if each[2].sign), key=lambda each: -abs(each[2].mean))
        if not own:
            continue
        point, score, gain = (clear or own)[0]
        many = f"{len(clear) or 'none'} of {len(own)} comparisons {'is' if len(clear) < 2 else 'are'} clear"
        if clear:
            verb = "beats" if gain.sign > 0 else "is beaten by"
            sentences.append(
                f"{kind}: {score.name} {verb} {score.simpler} ({gain_text(gain)}, p {p_text(gain.p)}) at "
                f"{dose_words(point.dose)}{f'; {many}' if len(own) > 1 else ''}."
            )
        elif len(own) > 1:
            sentences.append(f"{kind}: {many}.")
        else:
            sentences.append(f"{kind}: whether {score.name} beats {score.simpler} at {dose_words(point.dose)} is open.")
    return sentences


def _judged(point: DosePoint) -> Iterator[tuple[str, SystemScore, Gain]]:
    for score in point.systems:
        gain = score.over_simpler
        if gain is not None and gain.judged:
            kind = GATE if score.base else FUSION if score.system == CONCAT else ATTENTION
            if kind != ATTENTION or any(other.system == CONCAT for other in point.systems):
                yield kind, score, gain
