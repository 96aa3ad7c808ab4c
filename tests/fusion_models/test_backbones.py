"""Backbones: what holds for each, and each against a second computation, its published sizes and its 2D origin."""

import functools
import gc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from crossfold.datasets.store.input_kinds import input_shape
from crossfold.fusion_models.backbones.audio_cnn import AudioCnn
from crossfold.fusion_models.backbones.catalogue import BACKBONES, Backbone, register, unfreeze
from crossfold.fusion_models.backbones.i3d import I3D, inflate
from crossfold.fusion_models.backbones.inputs import PicturePreparation
from crossfold.fusion_models.backbones.resnet18 import one_channel
from crossfold.fusion_models.backbones.resnet50 import FaceResNet50
from crossfold.platform.core.errors import UserError
from crossfold.platform.modeling.pretrained_catalogue import WEIGHTS

NAMES = list(BACKBONES)
SMALL = {
    "i3d": (3, 9, 40, 40),
    "r3d_18": (3, 5, 24, 24),
    "r2plus1d_18": (3, 5, 24, 24),
    "r2plus1d_18_sparse": (3, 5, 24, 24),
    "resnet18": (1, 40, 40),
}
"""Networks that average what they see take any size; the tests take a small one."""
PUBLISHED_SIZES = {
    "audio_cnn": 25 * 64
    + 25 * 64 * 128
    + 9 * 128 * 256
    + 25 * 256 * 512
    + 9 * 512 * 1024
    + 2 * (64 + 128 + 256 + 1536),
    "i3d": 12_697_264 - 1025 * 400,
    "r3d_18": 33_371_472 - 513 * 400,
    "r2plus1d_18": 31_505_325 - 513 * 400,
    "resnet18": 11_689_512 - 513 * 1000 - 2 * 49 * 64,
    "vggish": 72_141_184,
}
"""As published, less the classifier (400 classes of Kinetics, 1000 of ImageNet) and two of three colours."""


@pytest.fixture(scope="module", params=NAMES)
def built(request):
    """(backbone, module): one instance in memory at a time; VGGish alone is 288 MB."""
    torch.manual_seed(0)
    backbone = BACKBONES.get(request.param)
    yield backbone, backbone.build()
    gc.collect()


def some_input(backbone: Backbone, count: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, *SMALL.get(backbone.name, backbone.frame_shape), generator=generator)


def only_running_statistics(module: nn.Module) -> None:
    """In training, but batch norm as frozen: a shift before it would have no gradient otherwise, by its definition."""
    module.train()
    for part in module.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            part.eval()


def test_all_backbones_of_the_papers_are_there():
    assert {"resnet50", "vggish", "audio_cnn", "i3d", "r3d_18", "r2plus1d_18", "resnet18"} <= set(NAMES)
    assert BACKBONES.unavailable == {}
    with pytest.raises(UserError, match="did you mean 'resnet50'"):
        BACKBONES.get("resnet-50")


@pytest.mark.parametrize("name", NAMES)
def test_shapes_and_sizes(name):
    """At full size, on a device that holds no numbers."""
    backbone = BACKBONES.get(name)
    assert backbone.raw_shape == input_shape(backbone.input), "what a store of this input holds"
    assert backbone.weights is None or backbone.weights in WEIGHTS
    with torch.device("meta"):
        module = backbone.build().eval()
        x_BLF = torch.zeros(2, 3, *backbone.frame_shape)
        assert backbone.encode(module, x_BLF).shape == (2, 3, backbone.width)
    if name in PUBLISHED_SIZES:
        assert sum(p.numel() for p in module.parameters()) == PUBLISHED_SIZES[name]


@pytest.mark.parametrize("name", NAMES)
def test_the_groups_name_every_parameter_once(name):
    backbone = BACKBONES.get(name)
    with torch.device("meta"):
        module = backbone.build()
    prefixes = [*(prefix for group in backbone.groups for prefix in group), *backbone.stays]
    assert all(group for group in backbone.groups)
    for parameter, _ in module.named_parameters():
        assert sum(parameter.startswith(prefix) for prefix in prefixes) == 1, parameter
    for prefix in prefixes:
        assert any(parameter.startswith(prefix) for parameter, _ in module.named_parameters()), prefix


@pytest.mark.parametrize(
    ("name", "ranges"),
    [("resnet50", [(4, 10), (163, 187), (142, 163)]), ("vggish", [(16, 18), (14, 16), (12, 14)])],
)
def test_the_groups_are_those_of_the_release(name, ranges):
    """G4, G5, G9: ranges of numbered parameters; the released face network has its output layer before the body."""
    backbone = BACKBONES.get(name)
    with torch.device("meta"):
        named = [parameter for parameter, _ in backbone.build().named_parameters()]
    body = [parameter for parameter in named if parameter.startswith("body.")]
    released = [p for p in named if p.startswith(("input_", "output_"))] + body if name == "resnet50" else named
    groups = [{p for p in named if p.startswith(group)} for group in backbone.groups]
    assert groups == [set(released[first:end]) for first, end in ranges]


def test_a_row_depends_on_no_other_row(built):
    backbone, module = built
    module.eval()
    with torch.no_grad():
        x = some_input(backbone, 3)
        y = module(x)
        assert y.shape == (3, backbone.width)
        assert torch.equal(y, module(x)), "eval repeats"
        other = torch.cat([x[:1], some_input(backbone, 2, seed=1)])
        # Other batches are other products for a library, and values near zero lose more digits than large ones.
        rounding = 1e-5 * float(y.abs().max())
        torch.testing.assert_close(module(other)[0], y[0], rtol=1e-4, atol=rounding)
        torch.testing.assert_close(module(x[:1])[0], y[0], rtol=1e-4, atol=rounding)
    assert (y[0] - y[1]).abs().max() > 1e-5, "it reads its input"


def test_a_gradient_reaches_every_parameter(built):
    backbone, module = built
    unfreeze(backbone, module, None)
    only_running_statistics(module)
    module.zero_grad()
    y = module(some_input(backbone, 2))
    (y * torch.randn(y.shape, generator=torch.Generator().manual_seed(2))).sum().backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().max() > 0, name
    module.zero_grad()


def test_unfreezing_goes_group_by_group(built):
    backbone, module = built
    for count in range(4):
        module.train()
        unfreeze(backbone, module, count)
        open_prefixes = tuple(prefix for group in backbone.groups[:count] for prefix in group)
        assert {n for n, p in module.named_parameters() if p.requires_grad} == {
            n for n, _ in module.named_parameters() if n.startswith(open_prefixes)
        }
    unfreeze(backbone, module, 3, training=False)
    assert not any(part.training for part in module.modules())
    with pytest.raises(ValueError, match="4 groups"):
        unfreeze(backbone, module, 4)


def test_frozen_batch_norm_keeps_its_statistics(built):
    backbone, module = built
    statistics = {name for name, _ in module.named_buffers() if name.endswith("running_mean")}
    module.train()
    unfreeze(backbone, module, 1)
    before = {name: buffer.clone() for name, buffer in module.named_buffers()}
    with torch.no_grad():
        module(some_input(backbone, 2, seed=3))
    moved = {name for name, buffer in module.named_buffers() if not torch.equal(before[name], buffer)} & statistics
    assert moved == {name for name in statistics if name.startswith(backbone.groups[0])}


def raw_windows(backbone: Backbone, windows: int, frames: int, seed: int = 0) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    shape = (windows, frames, *backbone.raw_shape)
    if backbone.modality == "visual":
        return torch.from_numpy(rng.integers(0, 256, shape, dtype=np.uint8))
    return torch.from_numpy(rng.standard_normal(shape).astype(np.float16))


@pytest.mark.parametrize("name", NAMES)
def test_preparation_gives_what_the_network_takes(name):
    backbone = BACKBONES.get(name)
    raw = raw_windows(backbone, 1, 1)
    for training in (False, True):
        x = backbone.prepare(raw, training=training, generator=torch.Generator().manual_seed(1))
        assert x.shape == (1, 1, *backbone.frame_shape)
        assert x.dtype == torch.float32
        assert x.is_contiguous()
        assert torch.isfinite(x).all()
    with pytest.raises(ValueError, match=f"{name} reads {backbone.input}"):
        backbone.prepare(raw[..., :-1], training=False)


def test_faces_are_cropped_in_the_centre_and_put_on_minus_one_to_one():
    backbone = BACKBONES.get("resnet50")
    raw = raw_windows(backbone, 2, 3)
    x = backbone.prepare(raw, training=False)
    reference = (raw.numpy()[:, :, 4:44, 4:44].astype(np.float64) / 255 - 0.5) / 0.5
    np.testing.assert_allclose(x.numpy(), np.moveaxis(reference, -1, 2), atol=1e-6)
    assert x.min() >= -1
    assert x.max() <= 1
    black = backbone.prepare(torch.zeros_like(raw), training=False)
    assert torch.equal(black, torch.full_like(black, -1)), "a missing face is black"


def test_a_training_crop_moves_and_mirrors_by_window_and_repeats_by_its_generator():
    backbone = BACKBONES.get("resnet50")
    raw = raw_windows(backbone, 60, 1).expand(-1, 2, -1, -1, -1)
    x = backbone.prepare(raw, training=True, generator=torch.Generator().manual_seed(5))
    assert torch.equal(x[:, 0], x[:, 1]), "frames of a window share the crop"
    assert torch.equal(x, backbone.prepare(raw, training=True, generator=torch.Generator().manual_seed(5)))
    found = []
    for window in range(len(raw)):
        pixels = raw[window, 0].permute(2, 0, 1).float() / 255 * 2 - 1
        places = [
            (down, right, mirrored)
            for down in range(9)
            for right in range(9)
            for mirrored in (False, True)
            for crop in [pixels[:, down : down + 40, right : right + 40]]
            if torch.allclose(x[window, 0], crop.flip(-1) if mirrored else crop, atol=1e-6)
        ]
        assert len(places) == 1
        found += places
    down, right, mirrored = zip(*found, strict=True)
    assert (min(down), max(down)) == (0, 8), "every place, its ends included"
    assert (min(right), max(right)) == (0, 8)
    assert 10 < sum(mirrored) < 50


@settings(max_examples=40, deadline=None)
@given(
    height=st.integers(3, 9),
    width=st.integers(3, 9),
    margin=st.integers(0, 3),
    seed=st.integers(0, 999),
    data=st.data(),
)
def test_a_crop_against_padding_and_slicing(height, width, margin, seed, data):
    side = data.draw(st.integers(1, min(height, width) + 2 * margin))
    clip = data.draw(st.booleans())
    shape = (2, 3, *((4,) if clip else ()), height, width, 3)
    raw = torch.from_numpy(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))
    prepare = PicturePreparation(side=side, margin=margin, mean=(0.1, 0.2, 0.3), std=(0.5, 1.0, 2.0))
    x = prepare(raw, False, None)
    edges = [(0, 0)] * (raw.ndim - 3) + [(margin, margin), (margin, margin), (0, 0)]
    padded = np.pad(raw.numpy(), edges, mode="edge")
    top, left = (height + 2 * margin - side) // 2, (width + 2 * margin - side) // 2
    crop = padded[..., top : top + side, left : left + side, :] / 255
    reference = np.moveaxis((crop - [0.1, 0.2, 0.3]) / [0.5, 1.0, 2.0], -1, 2)
    np.testing.assert_allclose(x.numpy(), reference, atol=1e-5)


def test_a_picture_smaller_than_the_crop_is_refused():
    with pytest.raises(ValueError, match="3 x 9 cannot be cropped to 4 x 4"):
        PicturePreparation(side=4)(torch.zeros(1, 1, 3, 9, 3, dtype=torch.uint8), False, None)


def conv_bn_relu(x, state, name, stride=1, padding=0, eps=1e-5):
    """From the state dict, with batch norm written out."""
    y = nn.functional.conv2d(x, state[f"{name}.0.weight"], None, stride, padding)
    mean, var, gain, shift = (
        state[f"{name}.1.{part}"][:, None, None] for part in ("running_mean", "running_var", "weight", "bias")
    )
    return ((y - mean) / (var + eps).sqrt() * gain + shift).clamp_min(0)


def random_statistics(module: nn.Module, seed: int = 0) -> nn.Module:
    """Batch norm that does something in `eval`."""
    generator = torch.Generator().manual_seed(seed)
    for part in module.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            part.running_mean.normal_(0, 0.1, generator=generator)
            part.running_var.uniform_(0.5, 1.5, generator=generator)
            part.weight.data.uniform_(0.5, 1.5, generator=generator)
            part.bias.data.normal_(0, 0.1, generator=generator)
    return module.eval()


@pytest.mark.parametrize(("steps", "pool"), [(129, 4), (65, 2)])
def test_audio_cnn_is_table_one(steps, pool):
    """004 Tab. I, its printed sizes on the way; 128 x 65 reaches the same through a pool of 4 x 2 (D4)."""
    torch.manual_seed(1)
    module = random_statistics(AudioCnn(pool))
    state = module.state_dict()
    x = torch.randn(2, 1, 128, steps)
    with torch.no_grad():
        one = nn.functional.max_pool2d(conv_bn_relu(x, state, "block1.0", (1, 2)), (4, pool))
        assert one.shape[1:] == (64, 31, 15)
        two = conv_bn_relu(conv_bn_relu(one, state, "block2.0", (1, 2), 1), state, "block2.1", 1, 1)
        two = nn.functional.max_pool2d(
            nn.functional.pad(two, (0, two.shape[-1] % 2, 0, two.shape[-2] % 2), value=-torch.inf), 2
        )
        assert two.shape[1:] == (256, 15, 4)
        three = conv_bn_relu(conv_bn_relu(two, state, "block3.0", 1, 1), state, "block3.1", 1, 1)
        assert three.shape[1:] == (1024, 13, 2)
        torch.testing.assert_close(module(x), three.mean((2, 3)), rtol=1e-4, atol=1e-5)


def test_weights_of_one_audio_cnn_load_into_the_other():
    long, short = AudioCnn(4), AudioCnn(2)
    short.load_state_dict(long.state_dict())
    for (name, a), (other, b) in zip(long.named_parameters(), short.named_parameters(), strict=True):
        assert name == other
        assert torch.equal(a, b)


def test_convolutions_of_audio_cnn_start_normal():
    """004: "values from normal distribution": the tails are there, which a uniform start would cut off."""
    torch.manual_seed(0)
    weight = AudioCnn(4).block3[0][0].weight.detach()
    scaled = weight / weight.std()
    assert abs(float(scaled.mean())) < 0.01
    assert abs(float((scaled**4).mean()) - 3) < 0.05
    assert abs(float(weight.std()) - (2 / (256 * 25)) ** 0.5) < 1e-3


TORCHVGGISH = [f"features.{i}.{part}" for i in (0, 3, 6, 8, 11, 13) for part in ("weight", "bias")] + [
    f"embeddings.{i}.{part}" for i in (0, 2, 4) for part in ("weight", "bias")
]


@pytest.mark.parametrize("built", ["vggish"], indirect=True)
def test_vggish_against_a_second_computation(built):
    _, module = built
    state = {name: value.detach().double() for name, value in module.state_dict().items()}
    assert list(state) == TORCHVGGISH
    x = torch.randn(2, 1, 96, 64, generator=torch.Generator().manual_seed(4))
    y = x.double()
    for index, pooled in zip((0, 3, 6, 8, 11, 13), (True, True, False, True, False, True), strict=True):
        y = nn.functional.conv2d(
            y, state[f"features.{index}.weight"], state[f"features.{index}.bias"], padding=1
        ).clamp_min(0)
        y = y.unflatten(3, (-1, 2)).unflatten(2, (-1, 2)).amax((3, 5)) if pooled else y
    # TensorFlow flattens N x H x W x C.
    flat = torch.stack([picture.permute(1, 2, 0).reshape(-1) for picture in y])
    for index, last in ((0, False), (2, False), (4, True)):
        flat = flat @ state[f"embeddings.{index}.weight"].T + state[f"embeddings.{index}.bias"]
        flat = flat if last else flat.clamp_min(0)
    with torch.no_grad():
        torch.testing.assert_close(module.eval()(x).double(), flat, rtol=1e-4, atol=1e-6)
    assert flat.min() < 0, "no ReLU at the end"


@pytest.mark.parametrize("built", ["resnet50"], indirect=True)
def test_face_resnet50_against_a_second_computation(built):
    backbone, module = built
    random_statistics(module)
    state = module.state_dict()

    def norm(x, name):
        return nn.functional.batch_norm(
            x, *(state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
        )

    x = some_input(backbone, 2)
    y = norm(nn.functional.conv2d(x, state["input_layer.0.weight"], padding=1), "input_layer.1")
    y = torch.where(y > 0, y, y * state["input_layer.2.weight"][:, None, None])
    unit, sides = 0, []
    for channels, count in ((64, 3), (128, 4), (256, 14), (512, 3)):
        for first in [True] + [False] * (count - 1):
            stride = 2 if first and channels > 64 else 1
            name = f"body.{unit}"
            if f"{name}.shortcut_layer.0.weight" in state:
                short = norm(
                    nn.functional.conv2d(y, state[f"{name}.shortcut_layer.0.weight"], stride=stride),
                    f"{name}.shortcut_layer.1",
                )
            else:
                short = y[:, :, ::stride, ::stride]
            z = nn.functional.conv2d(norm(y, f"{name}.res_layer.0"), state[f"{name}.res_layer.1.weight"], padding=1)
            z = torch.where(z > 0, z, z * state[f"{name}.res_layer.2.weight"][:, None, None])
            z = nn.functional.conv2d(z, state[f"{name}.res_layer.3.weight"], stride=stride, padding=1)
            y = short + norm(z, f"{name}.res_layer.4")
            unit += 1
        sides.append(y.shape[-1])
    assert (unit, sides) == (24, [40, 20, 10, 5])
    y = norm(y, "output_layer.0").flatten(1) @ state["output_layer.3.weight"].T + state["output_layer.3.bias"]
    y = norm(y, "output_layer.4")
    with torch.no_grad():
        torch.testing.assert_close(module(x), y / y.square().sum(1, keepdim=True).sqrt(), rtol=1e-3, atol=1e-5)


def test_face_resnet50_has_the_size_of_ir50():
    """Published: 43.6 M for faces of 112 x 112, whose last map is 7 x 7 instead of 5 x 5."""
    with torch.device("meta"):
        size = sum(p.numel() for p in FaceResNet50().parameters())
    assert size + 512 * 512 * (7 * 7 - 5 * 5) == 43_574_976


@functools.cache
def flat_and_inflated():
    """torchvision's GoogLeNet with lively random weights, and its inflation."""
    from torchvision.models import googlenet

    torch.manual_seed(0)
    flat = googlenet(weights=None, aux_logits=False, init_weights=False)
    for part in flat.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight)
    random_statistics(flat)
    solid = I3D().eval()
    state = {name: value for name, value in inflate(flat.state_dict()).items() if not name.startswith("fc.")}
    solid.load_state_dict(state)
    return flat, solid


def flat_maps(flat, picture):
    layers = {name: layer for name, layer in flat.named_children() if layer is not None}
    for name, layer in layers.items():
        picture = picture if name in ("avgpool", "dropout", "fc") else layer(picture)
    return picture


def test_a_video_that_stands_still_gives_what_the_picture_gave():
    """The defining property of inflation, away from the ends, where zeros stand in for frames before and after."""
    flat, solid = flat_and_inflated()
    picture = torch.randn(2, 3, 48, 48, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        wanted = flat_maps(flat, picture)
        maps = solid.maps(picture.unsqueeze(2).expand(-1, -1, 160, -1, -1))
        assert maps.shape[:3] == (2, 1024, 20)
        # The receptive field is 99 frames: seven steps of eight frames on either side see an end.
        interior = maps[:, :, 7:-7]
        torch.testing.assert_close(interior.mean(2), wanted, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(interior[:, :, 0], interior[:, :, -1], rtol=1e-3, atol=1e-4)
        assert wanted.std() > 0.1, "alive"
        assert (maps[:, :, 0] - wanted).abs().max() > 1e-2, "the ends do see zeros"


def test_inflated_kernels_keep_their_sum_and_the_rest_is_as_it_was():
    flat, solid = flat_and_inflated()
    inflated = inflate(flat.state_dict())
    for name, weight in flat.state_dict().items():
        if weight.ndim == 4:
            assert inflated[name].shape == (*weight.shape[:2], weight.shape[-1], *weight.shape[2:])
            torch.testing.assert_close(inflated[name].sum(2), weight)
        else:
            assert torch.equal(inflated[name], weight)
    again = inflate(solid.state_dict())
    assert all(torch.equal(again[name], value) for name, value in solid.state_dict().items()), "3D weights stay"


def test_one_channel_gives_a_third_of_what_grey_gave():
    from torchvision.models import resnet18

    torch.manual_seed(0)
    colour = resnet18(weights=None)
    single = BACKBONES.get("resnet18").build()
    state = one_channel(colour.state_dict())
    single.load_state_dict({name: value for name, value in state.items() if not name.startswith("fc.")})
    x = torch.randn(2, 1, 20, 30)
    torch.testing.assert_close(single.conv1(x) * 3, colour.conv1(x.expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-5)
    assert torch.equal(one_channel(state)["conv1.weight"], state["conv1.weight"]), "of one channel already"


def test_a_name_that_is_taken_is_an_error():
    taken = BACKBONES.get("audio_cnn")
    with pytest.raises(UserError, match="registered by both"):
        register(taken)
