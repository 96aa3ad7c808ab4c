"""How fast backbones read: frames a second of one core, and what our way costs over torchvision's bare network.

The bare network is given its input ready; ours prepares stored pixels or spectrograms and keeps windows. Both run in
turns in one thread, whose own time is counted, and the best of several turns counts: others on the machine do not.
The share of the limit is the time of the network's products and convolutions at the rate of a product, over all of it.
"""

import gc
import time

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from crossfold.fusion_models.backbones.catalogue import BACKBONES

FRAMES = {"i3d": 1, "r3d_18": 2, "r2plus1d_18": 2, "r2plus1d_18_sparse": 4}
"""Frames a turn; 32 for those that read pictures and spectrograms."""
TURNS = 3


def bare(name):
    """torchvision's network of the same features, in its own words."""
    from torchvision.models import resnet18
    from torchvision.models.video import r2plus1d_18, r3d_18

    if name == "resnet18":
        network = resnet18(weights=None, num_classes=1)
        network.conv1 = nn.Conv2d(1, 64, 7, 2, 3, bias=False)
    else:
        network = {"r3d_18": r3d_18, "r2plus1d_18": r2plus1d_18}[name](weights=None, num_classes=1)
    return network.eval()


def raw_window(backbone):
    count = FRAMES.get(backbone.name, 32)
    generator = torch.Generator().manual_seed(0)
    if backbone.modality == "visual":
        return torch.randint(0, 256, (1, count, *backbone.raw_shape), dtype=torch.uint8, generator=generator)
    return torch.randn(1, count, *backbone.raw_shape, generator=generator).half()


def seconds(work):
    began = time.thread_time()
    work()
    return time.thread_time() - began


@pytest.mark.benchmark
@torch.inference_mode()
def test_frames_per_second_of_each_encoder(rates, figure):
    products = rates().products
    for name in BACKBONES:
        backbone = BACKBONES.get(name)
        module, raw = backbone.build().eval(), raw_window(backbone)
        count = raw.shape[1]
        prepare = lambda b=backbone, x=raw: b.prepare(x, training=False)  # noqa: E731
        ready = prepare()
        encode = lambda b=backbone, m=module, x=ready: b.encode(m, x)  # noqa: E731
        with FlopCounterMode(display=False) as counter:
            encode()
        best = min(seconds(encode) for _ in range(TURNS))
        first = min(seconds(prepare) for _ in range(TURNS))
        rate = count / (best + first)
        figure(
            f"{name} reads {backbone.input}",
            rate,
            "frames/s",
            why="The bare networks of torchvision, of three of them, are the rivals of the next benchmark.",
            share=counter.get_total_flops() / products / (best + first),
        )
        assert rate > 0.05
        del module, raw, ready, encode, prepare
        gc.collect()


@pytest.mark.benchmark
@pytest.mark.parametrize("name", ["resnet18", "r3d_18", "r2plus1d_18"])
@torch.inference_mode()
def test_windows_cost_little_over_the_bare_network(one_core, compared, name):
    backbone = BACKBONES.get(name)
    ours, theirs, raw = backbone.build().eval(), bare(name), raw_window(backbone)
    ready = backbone.prepare(raw, training=False).flatten(0, 1)
    whole, plain = [], []
    for _ in range(TURNS + 1):
        plain.append(seconds(lambda: theirs(ready)))
        whole.append(seconds(lambda: backbone.encode(ours, backbone.prepare(raw, training=False))))
    compared(f"windows of {name}", "the bare network", ours=whole[1:], theirs=plain[1:])
    assert min(whole[1:]) / min(plain[1:]) < 1.1, "preparation and windows, together"
