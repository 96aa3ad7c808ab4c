"""VGGish, the sound network of 001 (sec. 4.3) and 002 (secs. 3.2, 4.2): 0.96 s of log-mel -> 128-d. From AudioSet.

Layers from Hershey et al. 2017 (002 [44]) and the names of torchvggish's state dict, whose weights load as they are.
Two decisions. The last layer has no ReLU: AudioSet's own graph ends before it since 2022, the released code of 002
too, and the network learns on from there. No PCA and no 8-bit quantisation follow: they served a file format.

Legend: N examples, G time steps (96), M mels (64), C channels, D features.
"""

from torch import Tensor, nn

from crossfold.fusion_models.backbones.catalogue import Backbone, register
from crossfold.fusion_models.backbones.inputs import prepare_spectrogram

WIDTH = 128
LAYERS = (64, "pool", 128, "pool", 256, 256, "pool", 512, 512, "pool")
"""Channels of 3 x 3 convolutions, each with a ReLU, and 2 x 2 max pools."""
_MAP = (6, 4)
_HIDDEN = 4096


class VGGish(nn.Module):
    """N x 1 x 96 x 64 -> N x 128. 72.1 million parameters, 95 % of them in the fully connected layers."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 1
        for layer in LAYERS:
            if isinstance(layer, int):
                layers += [nn.Conv2d(channels, layer, 3, padding=1), nn.ReLU(inplace=True)]
                channels = layer
            else:
                layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.embeddings = nn.Sequential(
            nn.Linear(channels * _MAP[0] * _MAP[1], _HIDDEN),
            nn.ReLU(inplace=True),
            nn.Linear(_HIDDEN, _HIDDEN),
            nn.ReLU(inplace=True),
            nn.Linear(_HIDDEN, WIDTH),
        )

    def forward(self, x_NCGM: Tensor) -> Tensor:
        """N x 128."""
        map_NCGM = self.features(x_NCGM)
        # TensorFlow's order: channels vary fastest. The weights of the first layer come from there.
        y_ND: Tensor = self.embeddings(map_NCGM.permute(0, 2, 3, 1).flatten(1))
        return y_ND


VGGISH = register(
    Backbone(
        name="vggish",
        title="VGGish",
        source="001 sec. 4.3, 002 secs. 3.2 and 4.2 (Hershey et al. 2017); groups as released (G9)",
        modality="audio",
        input="vggish",
        raw_shape=(96, 64),
        frame_shape=(1, 96, 64),
        width=WIDTH,
        build=VGGish,
        preparation=prepare_spectrogram,
        # One fully connected layer at a time, from the last one (G9): 0.5, 16.8 and 50.3 million parameters.
        groups=(("embeddings.4.",), ("embeddings.2.",), ("embeddings.0.",)),
        stays=("features.",),
        weights="vggish-audioset",
        unused=("pproc.",),
    )
)
