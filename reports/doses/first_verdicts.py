"""What fusion, attention and gates add at a dose, a short sentence each: for the first screen of a page."""

from collections.abc import Iterator, Sequence

from crossfold.reports.doses.scores import CONCAT, DosePoint, SystemScore
from crossfold.reports.doses.tables import dose_words
from crossfold.reports.stats.formatting import gain_text, p_text
from crossfold.reports.stats.intervals import Gain

FUSION, ATTENTION, GATE = "Fusion", "Attention", "A gate"
KINDS = {
    FUSION: "concatenation over the better modality",
    ATTENTION: "over concatenation",
    GATE: "over the system without it",
}
"""What each kind adds to, in the order of sentences."""


def first_verdicts(points: Sequence[DosePoint]) -> list[str]:
    """For each kind that was judged, its clearest verdict by the rule of the leaderboard, with the dose."""
    found = [(kind, point, score, gain) for point in points for kind, score, gain in _judged(point)]
    sentences = []
    for kind, words in KINDS.items():
        own = [(point, score, gain) for name, point, score, gain in found if name == kind]
        clear = sorted((each for each in own if each[2].sign), key=lambda each: -abs(each[2].mean))
        if not own:
            continue
        if not clear:
            none = "the difference is not clear" if len(own) == 1 else f"of {len(own)} comparisons none is clear"
            sentences.append(f"{kind}, {words}: {none}.")
            continue
        point, score, gain = clear[0]
        verb = "beats" if gain.sign > 0 else "is beaten by"
        more = f" Of {len(own)} comparisons {len(clear)} {'is' if len(clear) == 1 else 'are'} clear."
        sentences.append(
            f"{kind}, {words}: {score.name} {verb} {score.simpler} ({gain_text(gain)}, p {p_text(gain.p)}) at "
            f"{dose_words(point.dose)}.{more if len(own) > 1 else ''}"
        )
    return sentences


def _judged(point: DosePoint) -> Iterator[tuple[str, SystemScore, Gain]]:
    for score in point.systems:
        gain = score.over_simpler
        if gain is not None and gain.judged:
            kind = GATE if score.base else FUSION if score.system == CONCAT else ATTENTION
            if kind != ATTENTION or any(other.system == CONCAT for other in point.systems):
                yield kind, score, gain
