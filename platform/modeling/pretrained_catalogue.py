"""The pretrained weights that the papers use: what each is, where to get it, its file name and its digest.

None of them ships and none is downloaded: licences differ, and some were trained on data that may not be used for
every purpose.
"""

from dataclasses import dataclass

from crossfold.platform.core.errors import UserError, did_you_mean


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What the publisher reports for a given input: mean and standard deviation of all outputs."""

    probe: str
    """Which input: `tone`, three seconds of a sine of 1 kHz as VGGish examples."""
    relu: bool
    """Whether the published numbers are of the outputs after a ReLU."""
    mean: float
    std: float
    tolerance: float
    """Relative, as published."""
    source: str


@dataclass(frozen=True, kw_only=True)
class Weights:
    """One set of pretrained weights: a file, or a folder with certain files."""

    name: str
    title: str
    page: str
    """Where a person finds it."""
    licence: str
    place: str
    """File or folder, below the weights folder."""
    holds: tuple[str, ...] = ()
    """For a folder: the files that must be in it."""
    sha256: str | None = None
    """The digest or its beginning, as published; None: recorded when first used, and compared from then on."""
    expected: Expected | None = None

    @property
    def is_folder(self) -> bool:
        """Whether `place` is a folder."""
        return bool(self.holds)


_TORCHVISION = "https://docs.pytorch.org/vision/stable/models"
_TONE = Expected(
    probe="tone", relu=True, mean=0.131, std=0.238, tolerance=0.1, source="smoke test of AudioSet's VGGish (2017)"
)

_PUBLISHED = (
    Weights(
        name="resnet50-ms-celeb-ferplus",
        title="ResNet-50 of faces, MS-Celeb-1M then FER+ (001, 002, 003)",
        page="https://github.com/sucv/ABAW3 (its readme links the file)",
        licence="not stated; MS-Celeb-1M was withdrawn by its publisher",
        place="res50_ir_0.887.pth",
    ),
    Weights(
        name="vggish-audioset",
        title="VGGish, AudioSet (001, 002)",
        page="https://github.com/harritaylor/torchvggish/releases",
        licence="Apache-2.0",
        place="vggish-10086976.pth",
        expected=_TONE,
    ),
    Weights(
        name="googlenet-imagenet",
        title="Inception v1, ImageNet, to be inflated to I3D (004)",
        page=f"{_TORCHVISION}/googlenet.html",
        licence="BSD-3-Clause; ImageNet is for non-commercial research",
        place="googlenet-1378be20.pth",
        sha256="1378be20",
    ),
    Weights(
        name="resnet18-imagenet",
        title="ResNet-18, ImageNet, to be averaged to one channel (000)",
        page=f"{_TORCHVISION}/resnet.html",
        licence="BSD-3-Clause; ImageNet is for non-commercial research",
        place="resnet18-f37072fd.pth",
        sha256="f37072fd",
    ),
    Weights(
        name="r3d-18-kinetics400",
        title="R3D-18, Kinetics-400 (000)",
        page=f"{_TORCHVISION}/video_resnet.html",
        licence="BSD-3-Clause; annotations of Kinetics CC BY 4.0",
        place="r3d_18-b3b3357e.pth",
        sha256="b3b3357e",
    ),
    Weights(
        name="r2plus1d-18-kinetics400",
        title="R(2+1)D-18, Kinetics-400 (000 as released)",
        page=f"{_TORCHVISION}/video_resnet.html",
        licence="BSD-3-Clause; annotations of Kinetics CC BY 4.0",
        place="r2plus1d_18-91a641e6.pth",
        sha256="91a641e6",
    ),
    Weights(
        name="bert-base-uncased",
        title="BERT base, uncased: word features (002)",
        page="https://huggingface.co/google-bert/bert-base-uncased",
        licence="Apache-2.0",
        place="bert-base-uncased",
        holds=("config.json", "tokenizer.json", "model.safetensors"),
    ),
    Weights(
        name="vosk-en-us",
        title="Vosk en-us 0.22: words with times (002)",
        page="https://alphacephei.com/vosk/models",
        licence="Apache-2.0",
        place="vosk-model-en-us-0.22",
        holds=("am/final.mdl", "conf/model.conf"),
    ),
    Weights(
        name="punctuation",
        title="deepmultilingualpunctuation: sentence marks (002)",
        page="https://huggingface.co/oliverguhr/fullstop-punctuation-multilang-large",
        licence="MIT",
        place="fullstop-punctuation-multilang-large",
        holds=("config.json", "model.safetensors"),
    ),
)

WEIGHTS = {entry.name: entry for entry in _PUBLISHED}
"""Every set of pretrained weights by name."""


def register_weights(entry: Weights) -> Weights:
    """Adds weights of your own, for a backbone of a plugin. A name that stands for other weights is an error."""
    if WEIGHTS.setdefault(entry.name, entry) != entry:
        raise UserError(f"weights {entry.name!r} are registered twice, with different facts", "rename one of them")
    return entry


def weights_entry(name: str) -> Weights:
    """An entry by name, or a `UserError` with the nearest right one."""
    if name not in WEIGHTS:
        raise UserError(
            f"unknown weights {name!r}{did_you_mean(name, WEIGHTS)}", "`crossfold list weights` shows all of them"
        )
    return WEIGHTS[name]
