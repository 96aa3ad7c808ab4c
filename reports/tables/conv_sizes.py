"""Output sizes of a printed convolutional network, by arithmetic on the strings as printed."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

_LAYER = re.compile(r"(Conv|Max pool|Avg pool|Linear)\s*:\s*(.*?)(?=(?:Conv|Max pool|Avg pool|Linear)\s*:|$)")
_PAIR = re.compile(r"(\d+)\s*x\s*(\d+)")


def recomputed_sizes(blocks: Sequence[Sequence[str]], pads: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """The size after each block, written as the block prints it: `C x H x W`, or `Cx1` after a linear layer.

    blocks: stage, layers and output size as printed; the first is the input, and its size is taken as printed.
    pads: of the blocks after the input, `padding` of each convolution and whether the pool rounds up (`ceil`), which
    print does not say. Raises `ValueError` for a layer it cannot read.
    """
    channels, height, width = (int(part) for part in re.findall(r"\d+", blocks[0][2]))
    sizes = [f"{channels} x {height} x {width}"]
    for index, (_, layers, _) in enumerate(blocks[1:]):
        pad = pads[index] if index < len(pads) else {}
        found = _LAYER.findall(layers)
        if not found:
            raise ValueError(f"no layer in {layers!r}")
        for kind, words in found:
            if kind == "Linear":  # it changes the number of channels alone
                channels = int(re.findall(r"\d+", words)[-1])
                continue
            (kernel_h, kernel_w), (stride_h, stride_w) = (tuple(map(int, pair)) for pair in _PAIR.findall(words))
            padding = int(pad.get("padding", 0)) if kind == "Conv" else 0  # the printed pools have no padding
            up = bool(pad.get("ceil", False)) and kind != "Conv"
            height = _after(height, kernel_h, stride_h, padding, up=up)
            width = _after(width, kernel_w, stride_w, padding, up=up)
            if kind == "Conv":
                channels = int(words.split(",")[0])
        sizes.append(f"{channels}x1" if found[-1][0] == "Linear" else f"{channels} x {height} x {width}")
    return tuple(sizes)


def _after(size: int, kernel: int, stride: int, padding: int, *, up: bool) -> int:
    """Length after a window slides over `size` values, as convolution and pooling layers count it."""
    steps = (size + 2 * padding - kernel) / stride
    return (math.ceil(steps) if up else math.floor(steps)) + 1
