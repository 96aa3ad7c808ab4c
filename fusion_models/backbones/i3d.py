"""I3D: the face network of 004 (secs. III-A, IV-B). Inception v1, inflated from pictures to clips; 1024-d.

Carreira and Zisserman 2017 (004 [14]): every k x k kernel becomes k x k x k, the 2D weights repeated over time and
divided by k, so that a clip of one repeated picture has the features of that picture; the first two pools do not
pool time. The 2D network is torchvision's GoogLeNet, whose ImageNet weights load by `inflate`; its widths, its order
of layers and its names are kept, so that the two can be compared layer by layer.

Legend: N clips, T frames, S side, C channels, D features.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from crossfold.fusion_models.backbones.catalogue import Backbone, State, register
from crossfold.fusion_models.backbones.inputs import PicturePreparation

WIDTH = 1024
MIXED = {
    "inception3a": (192, 64, 96, 128, 16, 32, 32),
    "inception3b": (256, 128, 128, 192, 32, 96, 64),
    "inception4a": (480, 192, 96, 208, 16, 48, 64),
    "inception4b": (512, 160, 112, 224, 24, 64, 64),
    "inception4c": (512, 128, 128, 256, 24, 64, 64),
    "inception4d": (512, 112, 144, 288, 32, 64, 64),
    "inception4e": (528, 256, 160, 320, 32, 128, 128),
    "inception5a": (832, 256, 160, 320, 32, 128, 128),
    "inception5b": (832, 384, 192, 384, 48, 128, 128),
}
"""Inputs; then channels of branch 1, of branch 2 reduced and out, of branch 3 reduced and out, of branch 4 (GoogLeNet's
Table 1). Branch 3 has 3 x 3 kernels where that table says 5 x 5: the published weights are so, 2D and 3D."""


class Conv(nn.Module):
    """Convolution over time and picture, batch norm, ReLU."""

    def __init__(self, inputs: int, channels: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv3d(inputs, channels, kernel, stride, padding=kernel // 2, bias=False)
        self.bn = nn.BatchNorm3d(channels, eps=0.001)
        # With the default of torch, twenty layers of random weights shrink the features to almost zero.
        nn.init.kaiming_normal_(self.conv.weight, nonlinearity="relu")

    def forward(self, x_NCTSS: Tensor) -> Tensor:
        """N x channels x (T / stride) x (S / stride) x (S / stride)."""
        return nn.functional.relu(self.bn(self.conv(x_NCTSS)), inplace=True)


class Mixed(nn.Module):
    """Four branches side by side: 1, 1 then 3, 1 then 3, pool then 1."""

    def __init__(self, inputs: int, one: int, reduce2: int, out2: int, reduce3: int, out3: int, out4: int) -> None:
        super().__init__()
        self.branch1 = Conv(inputs, one, 1)
        self.branch2 = nn.Sequential(Conv(inputs, reduce2, 1), Conv(reduce2, out2, 3))
        self.branch3 = nn.Sequential(Conv(inputs, reduce3, 1), Conv(reduce3, out3, 3))
        self.branch4 = nn.Sequential(nn.MaxPool3d(3, stride=1, padding=1), Conv(inputs, out4, 1))

    def forward(self, x_NCTSS: Tensor) -> Tensor:
        """N x (one + out2 + out3 + out4) x T x S x S."""
        return torch.cat(
            [self.branch1(x_NCTSS), self.branch2(x_NCTSS), self.branch3(x_NCTSS), self.branch4(x_NCTSS)], dim=1
        )


def _pool(kernel: int, *, time: bool) -> nn.MaxPool3d:
    # `ceil_mode` is TensorFlow's padding at the far side only, which the published weights were trained with.
    sizes = (kernel, kernel, kernel) if time else (1, kernel, kernel)
    return nn.MaxPool3d(sizes, stride=(2, 2, 2) if time else (1, 2, 2), ceil_mode=True)


class I3D(nn.Module):
    """N x 3 x T x S x S -> N x 1024; T from 16 and S = 224 in 004. 12.3 million parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = Conv(3, 64, 7, stride=2)
        self.maxpool1 = _pool(3, time=False)
        self.conv2 = Conv(64, 64, 1)
        self.conv3 = Conv(64, 192, 3)
        self.maxpool2 = _pool(3, time=False)
        self.inception3a = Mixed(*MIXED["inception3a"])
        self.inception3b = Mixed(*MIXED["inception3b"])
        self.maxpool3 = _pool(3, time=True)
        self.inception4a = Mixed(*MIXED["inception4a"])
        self.inception4b = Mixed(*MIXED["inception4b"])
        self.inception4c = Mixed(*MIXED["inception4c"])
        self.inception4d = Mixed(*MIXED["inception4d"])
        self.inception4e = Mixed(*MIXED["inception4e"])
        self.maxpool4 = _pool(2, time=True)
        self.inception5a = Mixed(*MIXED["inception5a"])
        self.inception5b = Mixed(*MIXED["inception5b"])

    def maps(self, x_NCTSS: Tensor) -> Tensor:
        """N x 1024 x (T / 8) x (S / 32) x (S / 32), before the average."""
        for layer in self.children():
            x_NCTSS = layer(x_NCTSS)
        return x_NCTSS

    def forward(self, x_NCTSS: Tensor) -> Tensor:
        """N x 1024."""
        return self.maps(x_NCTSS).mean(dim=(2, 3, 4))


def inflate(flat: Mapping[str, Tensor]) -> State:
    """The state dict of a 2D network as that of its inflation: kernels repeated over time, divided by their depth.

    Only square kernels are convolutions of a picture; their depth is their width (1, 3 or 7). The rest, batch norm and
    its statistics, is as it was. Weights that are 3D already stay so.
    """
    state = {}
    for name, weight in flat.items():
        if weight.ndim == 4:
            depth = weight.shape[-1]
            weight = weight.unsqueeze(2).repeat(1, 1, depth, 1, 1) / depth
        state[name] = weight
    return state


I3D_BACKBONE = register(
    Backbone(
        name="i3d",
        title="I3D (Inception v1, inflated)",
        source="004 secs. III-A and IV-B; Carreira and Zisserman 2017",
        modality="visual",
        input="clips16@224",
        raw_shape=(16, 224, 224, 3),
        frame_shape=(3, 16, 224, 224),
        width=WIDTH,
        build=I3D,
        # 004 prints "random cropping" and faces of 224 x 224 for a net of 224 x 224; the sixteen pixels are a choice.
        preparation=PicturePreparation(side=224, margin=16),
        groups=(
            ("inception5a.", "inception5b."),
            ("inception4a.", "inception4b.", "inception4c.", "inception4d.", "inception4e."),
            ("inception3a.", "inception3b.", "conv3.", "conv2.", "conv1."),
        ),
        weights="googlenet-imagenet",
        adapt=inflate,
        unused=("fc.", "aux1.", "aux2."),
    )
)
