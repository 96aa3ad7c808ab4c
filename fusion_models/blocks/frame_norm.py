"""Batch normalisation of frames, without padding.

Legend: B batch, L frames, H features.
"""

import torch
from torch import Tensor, nn

from crossfold.fusion_models.system import is_whole, widened


class FrameNorm(nn.Module):
    """Batch normalisation over the real frames of a batch; padding has no part in it (release of 002).

    It is `nn.BatchNorm1d` of the real frames alone, without gathering them: how many there are is known to the device
    only, and a GPU would have to be waited for. A CPU knows whether there is padding; without, torch's is quicker.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(width)

    def forward(self, h_BLH: Tensor, mask_BL: Tensor) -> Tensor:
        """B x L x H, zero where a frame is padding."""
        if is_whole(mask_BL) and (mask_BL.numel() > 1 or not self.training):
            normed_BLH: Tensor = self.norm(h_BLH.flatten(0, 1)).view(h_BLH.shape)
            return normed_BLH
        norm, real_BL1 = self.norm, mask_BL.unsqueeze(-1)
        x_BLH = widened(h_BLH)
        if not self.training:
            assert norm.running_mean is not None and norm.running_var is not None
            y_BLH = self._scaled(x_BLH - norm.running_mean, norm.running_var)
        else:
            count = real_BL1.sum()
            mean_H = (x_BLH * real_BL1).sum((0, 1)) / count.clamp(min=1)
            centred_BLH = x_BLH - mean_H
            variance_H = (centred_BLH.square() * real_BL1).sum((0, 1)) / count.clamp(min=1)
            # The statistics of a single frame are undefined: it stays as it is.
            several = count > 1
            self._remember(mean_H, variance_H * count / (count - 1).clamp(min=1), several)
            y_BLH = torch.where(several, self._scaled(centred_BLH, variance_H), x_BLH)
        return torch.where(real_BL1, y_BLH, 0.0).to(h_BLH.dtype)

    def _scaled(self, centred_BLH: Tensor, variance_H: Tensor) -> Tensor:
        return centred_BLH * (variance_H + self.norm.eps).rsqrt() * self.norm.weight + self.norm.bias

    @torch.no_grad()
    def _remember(self, mean_H: Tensor, variance_H: Tensor, several: Tensor) -> None:
        """Takes statistics of a batch into the running ones, where there are any."""
        norm = self.norm
        assert norm.running_mean is not None and norm.running_var is not None and norm.num_batches_tracked is not None
        for running_H, found_H in ((norm.running_mean, mean_H), (norm.running_var, variance_H)):
            running_H.lerp_(found_H.to(running_H.dtype), several.to(running_H.dtype) * (norm.momentum or 0.0))
        norm.num_batches_tracked.add_(several)
