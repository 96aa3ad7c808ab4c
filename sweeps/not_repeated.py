"""What the authors' public code does and `+released` does not repeat: the one list, shown in docs/released.md."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class NotRepeated:
    """One fact of released code that Crossfold leaves out."""

    recipes: tuple[str, ...]
    """Those that would repeat it."""
    fact: str
    """Its number in the decisions, such as `G2b`."""
    code: str
    """What the code does."""
    why: str
    """Why it is left out."""
    field: str = ""
    """The field of a recipe that it is about; empty: no field can say it."""
    released: Any = None
    """What the field would be. Where the recipe has this value, the fact is repeated, and has no place in the list."""


CA, DCA, RJCMA, GRJCA, V1 = (
    f"{name}+released" for name in ("ca2021", "dca2024", "rjcma2024", "grjca2025", "grjca2025_v1")
)
SCORES = "It changes the score, and no number could be compared with another."
SEPARATE = "It is no part of the method, and would hide what the method does."

NOT_REPEATED: Sequence[NotRepeated] = (
    NotRepeated((CA,), "G1a", "In evaluation, attention is computed and thrown away.", SEPARATE),
    NotRepeated(
        (CA,),
        "G1b",
        "Predictions and labels are scaled to [0, 1] by the evaluated set, and the mean of the predictions is moved to "
        "that of the labels before CCC.",
        SCORES,
        "post.steps",
    ),
    NotRepeated(
        (CA,),
        "G1c",
        "The product of attention has shapes that do not fit, and there is no residual.",
        "It does not run on these features.",
    ),
    NotRepeated(
        (CA,),
        "G1d",
        "Features of both modalities are added; the largest of 8 sub-sequences gives one prediction for 128 frames.",
        "004 prints concatenation and a prediction for a sub-sequence.",
        "clip.frames",
        128,
    ),
    NotRepeated(
        (DCA,),
        "G2b",
        "Spatial attention, guided by sound, over 7 x 7 maps precedes the fusion.",
        "No paper has it, and it reads the maps in the wrong order.",
    ),
    NotRepeated(
        (DCA,),
        "G2f",
        "An epoch of training ends after six batches, and validation after three.",
        "It is what was left of a search for an error.",
    ),
    NotRepeated(
        (DCA,), "G3a", "Frames without a label count in CCC, with prediction 0 and label 0.", SCORES, "invalid"
    ),
    NotRepeated(
        (DCA,),
        "G3c",
        "The backbones were trained on Aff-Wild2 by third parties.",
        "Their training videos may hold reported ones.",
        "weights",
    ),
    NotRepeated(
        (RJCMA,),
        "G4b",
        "The configuration has TCN widths of 512, 128 and 512, which the fusion does not take.",
        "It does not run; the widths are those of its model.",
        "temporal.widths",
        {"visual": 512, "audio": 128, "text": 512},
    ),
    NotRepeated((RJCMA,), "G4d", "After dropped frames, faces slip against the labels.", SEPARATE),
    NotRepeated(
        (RJCMA, GRJCA, V1),
        "D7",
        "Features are normalised by the statistics of the partition that they are in, also of the evaluated one.",
        "The evaluated partition would be used before it is evaluated.",
    ),
    NotRepeated(
        (RJCMA, GRJCA, V1),
        "G5",
        "Zeros that fill up videos shorter than a window count in the loss.",
        "They are no frames and have no labels.",
    ),
)


def left_out_of(recipe: str) -> list[NotRepeated]:
    """The entries of one recipe; variants such as `+features` have those of the recipe under them."""
    names = {"+".join(recipe.split("+")[:n]) for n in range(1, recipe.count("+") + 2)}
    return [entry for entry in NOT_REPEATED if names & set(entry.recipes)]
