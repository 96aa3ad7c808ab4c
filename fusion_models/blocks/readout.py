"""From a trajectory [X^(0), ..., X^(M)] to Z: the last features, or gates between the iterations.

Legend: B batch, L frames, D features of one modality, K gate columns, M iterations, Z features of all modalities.
"""

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from crossfold.fusion_models.blocks.gates import GateParams, ModalGate
from crossfold.fusion_models.system import Modal, Notes, Trajectory, Widths, concatenated
from crossfold.platform.core.base_model import FrozenModel


class LastReadout(nn.Module):
    """Z = [X_a^(M) ; X_v^(M)]: RJCA, RJCMA, and every system without a gate."""

    def __init__(self, widths: Widths) -> None:
        super().__init__()
        self.width = sum(widths.values())

    def forward(self, trajectory: Trajectory, notes: Notes | None = None) -> Tensor:
        """Z : B x L x sum of d_m."""
        return concatenated(trajectory.x[-1])  # 002 eq 14


class PairGate(nn.Module):
    """DCA on any base: unattended X^(0) against attended X^(M), per frame and modality (000 eqs 2-5).

    [B2] Column 0 is unattended, column 1 attended. The readout of the base gets the gated features in place of X^(M).
    """

    roles: ClassVar = {"gate": "gates.0", "then": ""}

    def __init__(self, params: GateParams, widths: Widths, then: nn.Module) -> None:
        super().__init__()
        self.gate = ModalGate(params, widths, 2)
        self.then = then
        assert isinstance(then.width, int)
        self.width = then.width

    def forward(self, trajectory: Trajectory, notes: Notes | None = None) -> Tensor:
        """Z of the base, from X_g in place of X^(M)."""
        unattended, attended = trajectory.x[0], trajectory.x[-1]
        gated = self.gate([attended], [unattended, attended], notes, "gate")  # 000 eqs 2-5
        z_BLZ: Tensor = self.then(Trajectory([*trajectory.x[:-1], gated], trajectory.mask_BL), notes)
        return z_BLZ


class FlatGateParams(FrozenModel):
    """Choices of the gate of GRJCA."""

    gate_input: Literal["last", "each"] = "last"
    """B4: the input of the gate: the last iteration (001 eqs 9-10), or each column's own iteration (001's text)."""


class FlatGate(nn.Module):
    """One gate per modality over all M + 1 feature sets (001 eqs 9-13).

    W_gl,m : D x (M + 1). [B4] [B5] the summand is X_att^(t), with X^(0) the input.
    """

    roles: ClassVar = {"gate": "gates.0"}

    def __init__(self, params: GateParams, flat: FlatGateParams, widths: Widths, steps: int) -> None:
        super().__init__()
        self.gate = ModalGate(params, widths, steps + 1)
        self.each = flat.gate_input == "each"
        self.width = sum(widths.values())

    def forward(self, trajectory: Trajectory, notes: Notes | None = None) -> Tensor:
        """Z = [X_g,a ; X_g,v] : B x L x sum of d_m."""
        read = trajectory.x if self.each else trajectory.x[-1:]
        return concatenated(self.gate(read, trajectory.x, notes, "gate"))  # 001 eqs 9-13


class HierarchyParams(FrozenModel):
    """Choices of the two-level gate of HGRJCA."""

    final_gate_input: Literal["attended", "last", "all"] = "attended"
    """B7: what G^(f) reads, for which no equation is printed: the ungated last attended features X^(M), as the public
    code of 001 does (G7); or, our earlier readings, the last gated features, or those of all iterations."""
    stage_gate: Literal["pair", "all_before"] = "pair"
    """G7: the gate of iteration t chooses between X^(t-1) and X^(t), as printed, or among X^(0), ..., X^(t), as
    released."""
    feedback: bool = False
    """B8: the next iteration starts from the gated features; printed is a side branch. With `tied`, gates are too. Then
    every feature of the recursion is gated: a gate chooses between the input and the output of its iteration, and
    `attended` is `last`."""


class FinalGate(nn.Module):
    """The high-level gate over gated features X_g^(1..M) (001 eqs 19-20; 003 eqs 14-15).

    W_f,m : D x M, or MD x M if it reads all. [B6] G_a^(f) for audio; [B7] softmax_k(X^(M) W_f / T).
    With M = 1 there is one set to choose, and the gate has no weights.
    """

    def __init__(self, params: GateParams, hierarchy: HierarchyParams, widths: Widths, steps: int) -> None:
        super().__init__()
        self.reads = hierarchy.final_gate_input
        read = {m: d * steps if self.reads == "all" else d for m, d in widths.items()}
        self.gate = ModalGate(params, read, steps) if steps > 1 else None
        self.width = sum(widths.values())

    def forward(self, trajectory: Trajectory, notes: Notes | None = None) -> Tensor:
        """Z = [X_f,a ; X_f,v], from a trajectory whose recursion is gated; X^(0) is left out."""
        return self.choose(trajectory.x[1:], trajectory.x[-1], notes)

    def choose(self, gated: Sequence[Modal], attended: Modal, notes: Notes | None) -> Tensor:
        """Z = [X_f,a ; X_f,v] from X_g^(1..M) and the attended features X^(M)."""
        if self.gate is None:
            return concatenated(gated[-1])
        read = attended if self.reads == "attended" else gated[-1]
        if self.reads == "all":
            read = {m: torch.cat([x[m] for x in gated], dim=-1) for m in attended}
        return concatenated(self.gate([read], gated, notes, "gate.final"))  # 001 eqs 19-20; 003 eqs 14-15


class HierarchicalGate(nn.Module):
    """A gate per iteration, between its input and its output, then the high-level gate (001 eqs 14-20; 003 eqs 10-15).

    W_gl,m^(t) : D x 2, or D x (t + 1) where it chooses among all features so far. [B8] A side branch: the recursion
    itself goes on ungated.
    """

    roles: ClassVar = {"final": ""}

    def __init__(self, params: GateParams, hierarchy: HierarchyParams, widths: Widths, steps: int) -> None:
        super().__init__()
        self.first = [0 if hierarchy.stage_gate == "all_before" else t - 1 for t in range(1, steps + 1)]
        """For each iteration t, the first of the feature sets up to X^(t) that its gate chooses from."""
        self.gates = nn.ModuleList(ModalGate(params, widths, t + 1 - first) for t, first in enumerate(self.first, 1))
        self.final = FinalGate(params, hierarchy, widths, steps)
        self.width = self.final.width

    def forward(self, trajectory: Trajectory, notes: Notes | None = None) -> Tensor:
        """Z = [X_f,a ; X_f,v] : B x L x sum of d_m."""
        x = trajectory.x
        gated = [
            gate([x[t]], x[first : t + 1], notes, f"gate.{t}")  # 001 eqs 14-18; 003 eqs 10-13
            for t, (first, gate) in enumerate(zip(self.first, self.gates, strict=True), start=1)
        ]
        return self.final.choose(gated, x[-1], notes)
