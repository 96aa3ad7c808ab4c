"""Iterating an attention block. The result is the whole trajectory, between whose feature sets a gate may choose.

Legend: B batch, L frames, D features of one modality.
"""

from collections.abc import Callable
from typing import Literal

from pydantic import Field
from torch import nn

from crossfold.fusion_models.blocks.joint_attention import JointAttention, JointAttentionParams
from crossfold.fusion_models.system import Features, Modal, ModalityParams, Notes, Widths, part
from crossfold.platform.core.base_model import MOST_LAYERS, FrozenModel


class Recursion(nn.Module):
    """X^(t) = block^(t)(X^(t-1)), t = 1..M.

    [A5] Every iteration has weights of its own and recomputes J, unless `tied`.
    """

    def __init__(
        self,
        block: Callable[[], nn.Module],
        steps: int,
        *,
        tied: bool = False,
        dense: bool = False,
        input_norm: Literal["none", "l2"] = "none",
    ) -> None:
        """`dense`: a block is also given all features before those it attends to, for its residual (A12)."""
        super().__init__()
        self.dense = dense
        self.steps = steps
        self.normalises = input_norm == "l2"
        self.blocks = nn.ModuleList(block() for _ in range(1 if tied else steps))

    def forward(self, features: Features, notes: Notes | None = None) -> list[Modal]:
        """The trajectory [X^(0), ..., X^(M)], M + 1 feature sets of B x L x d_m each."""
        trajectory = [features.x]
        if self.normalises:  # X^(0) := X / |X|, frame by frame    release of 000 and 001 (G7)
            trajectory = [{m: nn.functional.normalize(x_BLD, dim=-1) for m, x_BLD in features.x.items()}]
        for t in range(self.steps):
            step_notes: Notes | None = None if notes is None else {}
            block = self.blocks[t % len(self.blocks)]
            earlier = (trajectory[:-1],) if self.dense else ()
            current = Features(trajectory[-1], features.mask_BL)
            trajectory.append(block(current, step_notes, *earlier))  # 001 eqs 7-8; 002 eqs 11-13; 003 eqs 8-9
            if notes is not None and step_notes is not None:
                notes.update({f"{name}.{t + 1}": value for name, value in step_notes.items()})
        return trajectory


class RecursionParams(FrozenModel):
    """Choices of the recursion."""

    iterations: int = Field(3, ge=1, le=MOST_LAYERS)
    """M (l in 001 and 002): 3 is best in both (A6)."""
    tied: bool = False
    """A5: one set of weights for all iterations instead of own ones."""


class InputParams(FrozenModel):
    """What happens to the features before the first iteration."""

    input_norm: Literal["none", "l2"] = "none"
    """`l2`: the features of a frame are scaled to length one, as released with 000 and 001 (G7); not printed."""


JOINT_PARTS = (JointAttentionParams, RecursionParams, ModalityParams, InputParams)
"""The parameters of every system that iterates joint cross-attention."""

RELEASED_JOINT = (
    ("input_norm", "l2"),
    ("axis", "feature"),
    ("attention_bias", True),
    ("gain", 1.0),
    ("score_dropout", 0.6),
    ("squash", True),
    ("attended_relu", True),
    ("attended_dropout", 0.6),
)
"""G2a, G7, G8: the choices that the JCA, RJCA, DCA and GRJCA repositories share (J keeps its FC there)."""


def recursive_joint_attention(
    params: FrozenModel, widths: Widths, frames: int, around: Callable[[nn.Module], nn.Module] = lambda block: block
) -> Recursion:
    """M iterations of joint cross-attention: the attention of rjca, grjca, hgrjca and rjcma.

    around: JCB of an iteration -> the block that takes its place, such as one that gates its output.
    """
    joint, recursion = part(JointAttentionParams, params), part(RecursionParams, params)
    return Recursion(
        lambda: around(JointAttention(joint, widths, frames)),
        recursion.iterations,
        tied=recursion.tied,
        input_norm=part(InputParams, params).input_norm,
    )


def single_joint_attention(params: FrozenModel, widths: Widths, frames: int) -> Recursion:
    """One iteration: the attention of jca."""
    joint = part(JointAttentionParams, params)
    return Recursion(lambda: JointAttention(joint, widths, frames), 1, input_norm=part(InputParams, params).input_norm)
