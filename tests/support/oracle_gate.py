"""A plug-in: weights for each modality that follow from the modality `text`, which says what is damaged."""

from typing import Any

import torch
from torch import Tensor, nn

from crossfold.fusion_models.catalogue import register
from crossfold.fusion_models.system import Notes, System, Trajectory, Widths
from crossfold.platform.core.base_model import FrozenModel


class OracleParams(FrozenModel):
    """It has none."""


class OracleGate(nn.Module):
    """Z : B x L x 2, of each of audio and visual one linear map of its frame times one of the text's frame."""

    width = 2

    def __init__(self, params: Any, widths: Widths, steps: int) -> None:
        super().__init__()
        self.says = nn.ModuleDict({m: nn.Linear(widths[m], 1) for m in ("audio", "visual")})
        self.trusts = nn.ModuleDict({m: nn.Linear(widths["text"], 1) for m in self.says})

    def forward(self, trajectory: Trajectory, notes: Notes | None = None) -> Tensor:
        x = trajectory.x[-1]
        return torch.cat([says(x[m]) * self.trusts[m](x["text"]) for m, says in self.says.items()], dim=-1)


ORACLE_GATE = register(
    System(
        name="oracle_gate",
        title="Oracle gate",
        source="a test",
        equations="Z = [a(x_a) g_a(x_t) ; v(x_v) g_v(x_t)]",
        bibtex="@misc{oracle}",
        params=OracleParams,
        modalities=("audio", "visual", "text"),
        readout=OracleGate,
    )
)
