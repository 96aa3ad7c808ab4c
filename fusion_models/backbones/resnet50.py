"""The face network of 001, 002 and 003 on 40 x 40 crops of 48 x 48 faces: ResNet-50, MS-Celeb-1M then FER+, 512-d.

Our reading: the 50-layer residual network of face recognition ("IR-50"), not torchvision's. The papers print only
"Resnet-50", but follow a line of ABAW entries (002 [42]) whose public FER+ weights are of this network, and its output
is the 512-d of the spec, where the other's is 2048-d. Its stem keeps the resolution: 40 x 40 pixels end as a map of
5 x 5, of which a fully connected layer reads every place; torchvision's stem would leave 2 x 2, averaged.

Parameter names are those of the public weights. Legend: N faces, S side, C channels, D features.
"""

import torch
from torch import Tensor, nn

from crossfold.fusion_models.backbones.catalogue import Backbone, register
from crossfold.fusion_models.backbones.inputs import PicturePreparation

WIDTH = 512
CROP = 40
_DROPOUT = 0.4
STAGES = ((64, 3, 1), (128, 4, 2), (256, 14, 2), (512, 3, 2))
"""Channels, units and first stride of each stage: 24 units of two convolutions, stem and output layer make 50."""


class Unit(nn.Module):
    """shortcut(x) + BN(conv(PReLU(conv(BN(x))))): batch norm comes before the first convolution, too."""

    def __init__(self, inputs: int, channels: int, stride: int) -> None:
        super().__init__()
        self.shortcut_layer: nn.Module
        if inputs == channels:
            self.shortcut_layer = nn.MaxPool2d(1, stride)
        else:
            self.shortcut_layer = nn.Sequential(
                nn.Conv2d(inputs, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )
        self.res_layer = nn.Sequential(
            nn.BatchNorm2d(inputs),
            nn.Conv2d(inputs, channels, 3, padding=1, bias=False),
            nn.PReLU(channels),
            nn.Conv2d(channels, channels, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x_NCSS: Tensor) -> Tensor:
        """N x channels x (S / stride) x (S / stride)."""
        y_NCSS: Tensor = self.shortcut_layer(x_NCSS) + self.res_layer(x_NCSS)
        return y_NCSS


class FaceResNet50(nn.Module):
    """Faces on [-1, 1] -> features of length one: N x 3 x 40 x 40 -> N x 512."""

    def __init__(self) -> None:
        super().__init__()
        stem, _, _ = STAGES[0]
        self.input_layer = nn.Sequential(
            nn.Conv2d(3, stem, 3, padding=1, bias=False), nn.BatchNorm2d(stem), nn.PReLU(stem)
        )
        units: list[nn.Module] = []
        inputs, side = stem, CROP
        for channels, count, stride in STAGES:
            units.append(Unit(inputs, channels, stride))
            units += [Unit(channels, channels, 1) for _ in range(count - 1)]
            inputs, side = channels, -(-side // stride)
        self.body = nn.Sequential(*units)
        last = nn.Linear(inputs * side * side, WIDTH)
        nn.init.xavier_uniform_(last.weight)
        nn.init.zeros_(last.bias)
        self.output_layer = nn.Sequential(
            nn.BatchNorm2d(inputs), nn.Dropout(_DROPOUT), nn.Flatten(), last, nn.BatchNorm1d(WIDTH)
        )

    def forward(self, x_NCSS: Tensor) -> Tensor:
        """N x 512, each of length one as in released code (G5)."""
        y_ND = self.output_layer(self.body(self.input_layer(x_NCSS)))
        unit_ND: Tensor = y_ND / torch.linalg.vector_norm(y_ND, dim=1, keepdim=True)
        return unit_ND


def _units(first: int, last: int) -> tuple[str, ...]:
    return tuple(f"body.{unit}." for unit in range(first, last + 1))


RESNET50 = register(
    Backbone(
        name="resnet50",
        title="ResNet-50 of faces, 48 x 48 cropped to 40 x 40",
        source="001 sec. 4.3, 002 secs. 3.1 and 4.2, 003 secs. 1.1 and 2.2; layers and groups as released (G4, G5)",
        modality="visual",
        input="crops48",
        raw_shape=(48, 48, 3),
        frame_shape=(3, CROP, CROP),
        width=WIDTH,
        build=FaceResNet50,
        preparation=PicturePreparation(side=CROP, flip=True),
        # Three groups by number, not by stage: the output layer, the last stage, three units of the stage before.
        groups=(("output_layer.",), _units(21, 23), _units(18, 20)),
        stays=(*_units(0, 17), "input_layer."),
        weights="resnet50-ms-celeb-ferplus",
        unused=("logits.",),
    )
)
