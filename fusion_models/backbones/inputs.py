"""From the stored input of a frame, pixels or a spectrogram, to the input of a network.

Legend: B windows, L frames of a window, T frames of a clip, H height, W width of the stored picture, C colours, S side
of the crop, F rows and G columns of a spectrogram.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Prepare = Callable[[Tensor, bool, torch.Generator | None], Tensor]
"""(raw : B x L x *raw_shape, training, generator) -> B x L x *frame_shape, float32."""


@dataclass(frozen=True, kw_only=True)
class PicturePreparation:
    """Pixels to a normalised crop. Training moves and mirrors the crop, once a window; else it is the centre.

    All frames of a window share the crop: with one for each frame, the face would jump.
    """

    side: int
    """S, of what the network takes."""
    margin: int = 0
    """Pixels repeated around the picture before it is cropped, where the crop is as large as the picture."""
    flip: bool = False
    """Whether training mirrors half of the windows."""
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    """Of the colours on [0, 1] (002: mean and standard deviation 0.5, read as (x - 0.5) / 0.5, D6)."""

    def __call__(self, raw: Tensor, training: bool, generator: torch.Generator | None) -> Tensor:
        """uint8 B x L x [T x] H x W x C -> float32 B x L x C x [T x] S x S."""
        x_BLTHWC = raw if raw.ndim == 6 else raw.unsqueeze(2)
        height, width = x_BLTHWC.shape[3:5]
        room_down, room_right = (size + 2 * self.margin - self.side for size in (height, width))
        if room_down < 0 or room_right < 0:
            raise ValueError(f"pictures of {height} x {width} cannot be cropped to {self.side} x {self.side}")
        cropped = []
        for window in x_BLTHWC:
            down, right, mirrored = room_down // 2, room_right // 2, False
            if training:
                down = _draw(room_down + 1, generator)
                right = _draw(room_right + 1, generator)
                mirrored = self.flip and bool(_draw(2, generator))
            rows = _places(down - self.margin, self.side, height, window.device)
            columns = _places(right - self.margin, self.side, width, window.device)
            cropped.append(window[:, :, rows][:, :, :, columns.flip(0) if mirrored else columns])
        # Pixels stay bytes until they are cropped: a window of raw pictures is large.
        x_BLTSSC = torch.stack(cropped).to(torch.float32) / 255
        mean_C, std_C = (torch.tensor(value, device=raw.device) for value in (self.mean, self.std))
        x_BLCTSS = ((x_BLTSSC - mean_C) / std_C).movedim(-1, 2)
        return (x_BLCTSS if raw.ndim == 6 else x_BLCTSS.squeeze(3)).contiguous()


def _draw(below: int, generator: torch.Generator | None) -> int:
    return int(torch.randint(below, (), generator=generator))


def _places(start: int, count: int, size: int, device: torch.device) -> Tensor:
    """Indices start, start + 1, ..., held within the picture: outside it, its border repeats."""
    return torch.arange(start, start + count, device=device).clamp(0, size - 1)


def prepare_spectrogram(raw: Tensor, training: bool, generator: torch.Generator | None) -> Tensor:
    """float16 B x L x F x G -> float32 B x L x 1 x F x G. Log-mel is left as it is (D6) and never augmented."""
    return raw.to(torch.float32).unsqueeze(2)
