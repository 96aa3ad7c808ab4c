"""The sound network of 004 (Tab. I, sec. IV-B): five convolutions on a spectrogram, trained from scratch; 1024-d.

Blocks 1-3 of the table; blocks 4 and 5, the linear layers of 1024 -> 256 -> 1, are the head that a recipe chooses.
The printed sizes (64 x 31 x 15, 256 x 15 x 4, 1024 x 1 x 1) of an input of 128 x 129 hold for no padding in block 1,
a padding of one in blocks 2 and 3, and a pool of block 2 that keeps its last, incomplete row and column.

`audio_cnn_short` reads sub-segments of 0.64 s, 128 x 65, through a pool of 4 x 2 in block 1 as released (D4). Nothing
else differs: weights of one load into the other.

Legend: N spectrograms, F mels, G time steps, C channels, D features.
"""

from functools import partial

from torch import Tensor, nn

from crossfold.fusion_models.backbones.catalogue import Backbone, register
from crossfold.fusion_models.backbones.inputs import prepare_spectrogram

WIDTH = 1024


def _conv(inputs: int, channels: int, kernel: int, *, stride: tuple[int, int] = (1, 1), padding: int) -> nn.Sequential:
    """Convolution, batch norm, ReLU (caption of Tab. I). No bias: batch norm subtracts it again."""
    conv = nn.Conv2d(inputs, channels, kernel, stride, padding, bias=False)
    # 004: "values from normal distribution"; its width is not printed, so He's is used, which keeps the variance.
    nn.init.kaiming_normal_(conv.weight, mode="fan_in", nonlinearity="relu")
    return nn.Sequential(conv, nn.BatchNorm2d(channels), nn.ReLU(inplace=True))


class AudioCnn(nn.Module):
    """N x 1 x 128 x 129 -> N x 1024 (time_pool 4), or N x 1 x 128 x 65 -> N x 1024 (time_pool 2)."""

    def __init__(self, time_pool: int) -> None:
        super().__init__()
        self.block1 = nn.Sequential(_conv(1, 64, 5, stride=(1, 2), padding=0), nn.MaxPool2d((4, time_pool)))
        self.block2 = nn.Sequential(
            _conv(64, 128, 5, stride=(1, 2), padding=1), _conv(128, 256, 3, padding=1), nn.MaxPool2d(2, ceil_mode=True)
        )
        self.block3 = nn.Sequential(
            _conv(256, 512, 5, padding=1), _conv(512, WIDTH, 3, padding=1), nn.AvgPool2d((13, 2), stride=1)
        )

    def forward(self, x_NCFG: Tensor) -> Tensor:
        """N x 1024."""
        y_ND: Tensor = self.block3(self.block2(self.block1(x_NCFG))).flatten(1)
        return y_ND


def _backbone(name: str, title: str, kind: str, steps: int, time_pool: int) -> Backbone:
    return Backbone(
        name=name,
        title=title,
        source="004 Tab. I, sec. IV-B",
        modality="audio",
        input=kind,
        raw_shape=(128, steps),
        frame_shape=(1, 128, steps),
        width=WIDTH,
        build=partial(AudioCnn, time_pool),
        preparation=prepare_spectrogram,
        groups=(("block3.",), ("block2.",), ("block1.",)),
    )


AUDIO_CNN = register(_backbone("audio_cnn", "CNN of 004, 5.12 s", "spectrogram128", 129, 4))
AUDIO_CNN_SHORT = register(_backbone("audio_cnn_short", "CNN of 004, 0.64 s", "spectrogram128x65", 65, 2))
