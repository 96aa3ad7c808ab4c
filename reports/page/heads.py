"""What the heads of columns mean, in the words of a tooltip."""

from crossfold.reports.stats.hypothesis_tests import ALPHA
from crossfold.reports.tables.leaderboard import FURTHER_NOTES, GROUP_NOTE

_HEADS = {
    "CCC": "Concordance correlation coefficient, -1 to 1, of pooled frames: mean over folds of the mean over seeds; "
    "± is the spread over seeds.",
    "Measured CCC": "Concordance correlation coefficient of this implementation: mean over folds of the mean over "
    "seeds; ± is the spread over seeds.",
    "Raw CCC": "The same score without post-processing of the predictions.",
    "95% interval": "Where the true mean lies in 95 of 100 such experiments, over videos and, where at least three "
    "ran, seeds.",
    "p (family)": f"Corrected for every pair of systems of the setting; one system beats another where it is below "
    f"{ALPHA}.",
    "p": f"Corrected for every pair of systems of the setting; one system beats another where it is below {ALPHA}.",
    "Published": "The number that the paper prints.",
    "Difference": "Measured minus published, and whether the published number lies within the measured interval.",
    "Runs": "Finished training runs of those planned.",
    "Printed gain": "The difference of two numbers that the paper prints.",
    "Measured gain, 95% interval": "The difference in CCC of this implementation on the same folds, seeds and videos.",
    "Power of the paper": "The chance that a true gain as large as the printed one has a verdict with what the paper "
    "ran, and its 90% interval.",
    "Area": "The mean CCC as damage grows from none to the strongest, over the damages with two strengths or more.",
    "Gain of the gate, 95% interval": "Difference in area to the same system without its gate.",
    "Gain of modality dropout, 95% interval": "Difference in area to the same system trained without it.",
    "p (all rows)": "Corrected for all rows of this table that have such a gain.",
    "Verdict": "What the measured numbers say about the printed ones.",
    "Group": GROUP_NOTE.removeprefix("Group: "),
    "By arithmetic": "The size as it follows from the printed layers.",
}


def explained(head: str) -> str:
    """What a head means; empty for one that says it itself."""
    if head in FURTHER_NOTES:
        return FURTHER_NOTES[head].partition(": ")[2]
    if head.startswith("Gain over "):
        return f"Difference in CCC to {head.removeprefix('Gain over ')} on the same folds, seeds and videos."
    return _HEADS.get(head, "")
