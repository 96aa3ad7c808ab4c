"""A fusion system: how its features attend to each other, how Z is read out of them, and its paper.

Legend: B batch, L frames of a window, D features of one modality, Z features of the readout.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Annotated, Any, Literal, TypeVar

import torch
from pydantic import ConfigDict, Field, create_model, model_validator
from torch import Tensor, nn

from crossfold.platform.core.base_model import FrozenModel

P = TypeVar("P", bound=FrozenModel)

Modal = dict[str, Tensor]
"""One tensor a modality, each B x L x d_m, in canonical order: audio, visual, text."""

Widths = Mapping[str, int]
"""d_m of each modality that enters the fusion."""

Notes = dict[str, Tensor]
"""Named intermediates: attention maps, gate weights, the trajectory. Blocks add theirs when notes are given."""


@dataclass(frozen=True)
class Features:
    """The modalities of a batch on one time axis, and which frames are real.

    x: B x L x d_m each; mask_BL: bool, false where the window is padding. Padded rows are zero, so that no value
    there can reach a real frame.
    """

    x: Modal
    mask_BL: Tensor

    def __post_init__(self) -> None:
        for modality, x_BLD in self.x.items():
            if x_BLD.shape[:2] != self.mask_BL.shape:
                raise ValueError(
                    f"modality {modality!r} has {tuple(x_BLD.shape[:2])} (batch, frames), "
                    f"the mask has {tuple(self.mask_BL.shape)}"
                )

    @classmethod
    def masked(cls, x: Modal, mask_BL: Tensor) -> "Features":
        """Features whose padded rows are set to zero."""
        return cls({m: zeroed(x_BLD, mask_BL) for m, x_BLD in x.items()}, mask_BL)


def is_whole(mask_BL: Tensor) -> bool:
    """Whether no frame is padding, as far as the host knows: it does not wait for a GPU to say so."""
    return mask_BL.device.type == "cpu" and bool(mask_BL.all())


def zeroed(x_BLD: Tensor, mask_BL: Tensor) -> Tensor:
    """x with padded rows set to zero; x itself, not a copy, where no window is known to be padded."""
    return x_BLD if is_whole(mask_BL) else x_BLD * mask_BL.unsqueeze(-1)


def widened(x: Tensor) -> Tensor:
    """x in float32 where its type is narrower; x itself, not a copy, where it is not."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


@dataclass(frozen=True)
class Trajectory:
    """The input of a readout: the feature sets [X^(0), ..., X^(M)], and which frames are real."""

    x: list[Modal]
    mask_BL: Tensor


Preset = tuple[tuple[str, Any], ...]
"""Parameters and the values they take under `variant: released`."""

WHOLE_PAST = math.inf
"""The context of a system or encoder that sees every past frame."""


class ModalityParams(FrozenModel):
    """The modalities of a system that is defined for several subsets."""

    modalities: Literal["audio+visual", "audio+text", "visual+text", "audio+visual+text"] = "audio+visual"
    """Which enter the fusion, in canonical order."""


class Unattended(nn.Module):
    """The trajectory of a system that does not attend: [X^(0)]."""

    steps = 0

    def forward(self, features: Features, notes: Notes | None = None) -> list[Modal]:
        """The features as they came."""
        return [features.x]


@dataclass(frozen=True, kw_only=True)
class System:
    """A fusion system: its paper, its parameters, and the two functions from which `build` makes the module."""

    name: str
    title: str
    source: str
    """Paper and equations, as in `001 eqs 9-13`, or `our reading` with what was read."""
    equations: str
    """The printed equations, one a line."""
    bibtex: str
    params: type[FrozenModel]
    modalities: tuple[str, ...] = ("audio", "visual")
    """Those of the default parameters."""
    attend: Callable[[Any, Widths, int], nn.Module] = lambda params, widths, frames: Unattended()
    """(params, widths, frames) -> a module Features -> trajectory [X^(0), ..., X^(M)] with an int `steps`; and with
    `widths`, those of X^(M), if they are not those of X^(0)."""
    readout: Callable[[Any, Widths, int], nn.Module]
    """(params, widths, M) -> a module `Trajectory` -> Z with an int `width`."""
    yields_pairs: bool = False
    """Whether the trajectory holds (unattended, attended) features, so that `+dca` can gate between them."""
    revision: int = 1
    """Higher by one after each change of the system's numbers on purpose; part of the identity of its cells."""
    space: Mapping[str, Any] = field(default_factory=dict)
    """The parameters that a search may vary, as a sweep file writes them."""
    released: Preset = ()
    """The parameters that `variant: released` changes, if released code differs from print (decisions G)."""
    context: Callable[[Any], float | None] = lambda params: None
    """params -> number of past frames that a row of Z depends on; None if it depends on future ones too."""

    def resolved(self, params: Mapping[str, Any]) -> FrozenModel:
        """The parameters that a cell holds. Those that were added since it was made take their printed defaults.

        Raises `UserError` for parameters that this version does not have.
        """
        # What `variant: released` set is in the cell, as far as it was known then.
        dropped = "variant" if self.released else None
        return self.params.parse({k: v for k, v in params.items() if k != dropped}, f"parameters of {self.name}")

    def modalities_for(self, params: FrozenModel) -> tuple[str, ...]:
        """The modalities under these parameters, in canonical order."""
        if "modalities" not in type(params).model_fields:
            return self.modalities
        return tuple(str(getattr(params, "modalities")).split("+"))  # noqa: B009

    def build(self, params: FrozenModel, widths: Widths, frames: int) -> "Fusion":
        """The fusion module for these widths and this window length L."""
        modalities = self.modalities_for(params)
        missing = [m for m in modalities if m not in widths]
        if missing:
            raise ValueError(f"{self.name} needs {', '.join(missing)}; given {', '.join(widths)}")
        used = {m: widths[m] for m in modalities}
        attend = self.attend(params, used, frames)
        assert isinstance(attend.steps, int)
        return Fusion(modalities, attend, self.readout(params, getattr(attend, "widths", used), attend.steps))


class Fusion(nn.Module):
    """Features -> Z : B x L x width, by attending and reading out."""

    def __init__(self, modalities: tuple[str, ...], attend: nn.Module, readout: nn.Module) -> None:
        super().__init__()
        self.modalities = modalities
        self.attend = attend
        self.readout = readout
        assert isinstance(readout.width, int)
        self.width: int = readout.width

    def forward(self, features: Features, notes: Notes | None = None) -> Tensor:
        """Z : B x L x width. Intermediates are written into `notes` when it is given."""
        used = Features({m: features.x[m] for m in self.modalities}, features.mask_BL)
        trajectory = Trajectory(self.attend(used, notes), features.mask_BL)
        if notes is not None:
            notes |= {f"x.{m}.{t}": x_BLD.detach() for t, x in enumerate(trajectory.x) for m, x_BLD in x.items()}
        z_BLZ: Tensor = self.readout(trajectory, notes)
        return z_BLZ


def note(notes: Notes | None, name: str, value: Tensor) -> None:
    """Adds an intermediate to the notes; without notes it costs nothing."""
    if notes is not None:
        notes[name] = value.detach()


def concatenated(x: Modal) -> Tensor:
    """[X_a ; X_v ; X_t] : B x L x d, in canonical order (A10: any order is the same before an FC)."""
    return torch.cat(list(x.values()), dim=-1)


class _Undocumented(FrozenModel):
    """Has no attributes in a file: looking for their docstrings through every module takes 0.1 s of a start."""

    model_config = ConfigDict(use_attribute_docstrings=False)


@cache
def combined(name: str, *kinds: type[FrozenModel], released: Preset = (), **defaults: Any) -> type[FrozenModel]:
    """The fields of several parameter classes side by side, so that a sweep names them flat.

    `defaults` replace those of the parts. With `released`, there is a field `variant`, and `variant: released`
    sets those values for every parameter that a user does not give.
    """
    fields: dict[str, Any] = {}
    for kind in kinds:
        clash = fields.keys() & kind.model_fields.keys()
        assert not clash, f"{name}: {clash} in two parts"
        fields |= {field: (info.annotation, info) for field, info in kind.model_fields.items()}
    for key, value in defaults.items():
        # The constraints and the description of the part stay; only its default is replaced.
        annotation, info = fields[key]
        fields[key] = (Annotated[annotation, Field(description=info.description), *info.metadata], value)
    validators: dict[str, Any] = {}
    if released:
        assert {key for key, _ in released} <= fields.keys(), f"{name}: released fields it does not have"
        about = "`released` sets the switches that released code has differently (decisions G)."
        fields["variant"] = (Literal["printed", "released"], Field("printed", description=about))

        def preset(data: Any) -> Any:
            asked = isinstance(data, dict) and data.get("variant") == "released"
            return {**dict(released), **data} if asked else data

        validators["preset"] = model_validator(mode="before")(preset)
    made: type[FrozenModel] = create_model(name, __base__=_Undocumented, __validators__=validators, **fields)
    return made


def part(kind: type[P], params: FrozenModel) -> P:
    """The fields of one part, taken out of a combination."""
    return kind.model_validate({field: getattr(params, field) for field in kind.model_fields})
