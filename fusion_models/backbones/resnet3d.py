"""Clip networks of 000 (sec. 4 B) and of the cited RJCA: R3D-18, and the R(2+1)D-18 of released code; 512-d.

torchvision's networks and Kinetics-400 weights, with the colours normalised as those weights expect. 000 prints no
augmentation and keeps both frozen, so a training crop is the same as any other.

Legend: N clips, T frames, C colours, S side.
"""

from collections.abc import Callable
from functools import partial

from torch import nn
from torchvision.models.video import r2plus1d_18, r3d_18

from crossfold.fusion_models.backbones.catalogue import Backbone, register
from crossfold.fusion_models.backbones.inputs import PicturePreparation

_KINETICS = PicturePreparation(side=112, mean=(0.43216, 0.394666, 0.37645), std=(0.22803, 0.22145, 0.216989))


def headless(network: Callable[..., nn.Module]) -> nn.Module:
    """N x 3 x T x 112 x 112 -> N x 512: a network of torchvision without its classifier."""
    module = network(weights=None)
    module.fc = nn.Identity()
    return module


def _backbone(
    name: str, title: str, network: Callable[..., nn.Module], source: str, frames: int, kind: str
) -> Backbone:
    return Backbone(
        name=name,
        title=title,
        source=source,
        modality="visual",
        input=kind,
        raw_shape=(frames, 112, 112, 3),
        frame_shape=(3, frames, 112, 112),
        width=512,
        build=partial(headless, network),
        preparation=_KINETICS,
        groups=(("layer4.",), ("layer3.",), ("layer2.", "layer1.", "stem.")),
        weights="r3d-18-kinetics400" if network is r3d_18 else "r2plus1d-18-kinetics400",
        unused=("fc.",),
    )


R3D_18 = register(_backbone("r3d_18", "R3D-18", r3d_18, "000 sec. 4 B; 002 [27], Tran et al. 2018", 16, "clips16@112"))
R2PLUS1D_18 = register(
    _backbone("r2plus1d_18", "R(2+1)D-18", r2plus1d_18, "003 Tab. 1, Kuhnke et al. 2020", 16, "clips16@112")
)
R2PLUS1D_18_SPARSE = register(
    _backbone(
        "r2plus1d_18_sparse",
        "R(2+1)D-18, every fourth of 32 frames",
        r2plus1d_18,
        "000 as released (G3c)",
        8,
        "clips8/4@112",
    )
)
