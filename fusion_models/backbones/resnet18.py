"""ResNet-18 of one channel on a spectrogram: the audio net of 000 (sec. 4 B) and of the cited RJCA (decision A14).

torchvision's network, its first layer reading one channel. Weights of three colours are averaged over them: a grey
picture of value x had the sum of the three kernels as its response, a spectrogram has a third of it, and the batch
norm that follows takes that up.

Legend: N spectrograms, F mels, G time steps.
"""

from collections.abc import Mapping

from torch import Tensor, nn
from torchvision.models import resnet18

from crossfold.fusion_models.backbones.catalogue import Backbone, State, register
from crossfold.fusion_models.backbones.inputs import prepare_spectrogram


def build() -> nn.Module:
    """N x 1 x F x G -> N x 512."""
    module = resnet18(weights=None)
    module.conv1 = nn.Conv2d(1, 64, kernel_size=7, stride=2, padding=3, bias=False)
    nn.init.kaiming_normal_(module.conv1.weight, mode="fan_out", nonlinearity="relu")
    module.fc = nn.Identity()
    built: nn.Module = module
    return built


def one_channel(state: Mapping[str, Tensor]) -> State:
    """Weights of a three-colour ResNet for one channel; those of one channel stay as they are."""
    return {name: x.mean(1, keepdim=True) if name == "conv1.weight" else x for name, x in state.items()}


RESNET18 = register(
    Backbone(
        name="resnet18",
        title="ResNet-18, one channel",
        source="000 sec. 4 B and 003 Tab. 1 (cited RJCA); mel clips of 64 x 107 as in released code (D1)",
        modality="audio",
        input="mel64x107",
        raw_shape=(64, 107),
        frame_shape=(1, 64, 107),
        width=512,
        build=build,
        preparation=prepare_spectrogram,
        groups=(("layer4.",), ("layer3.",), ("layer2.", "layer1.", "bn1.", "conv1.")),
        weights="resnet18-imagenet",
        adapt=one_channel,
        unused=("fc.",),
    )
)
