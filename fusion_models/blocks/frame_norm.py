"""Batch normalisation of frames, without padding.

Legend: B batch, L frames, N real frames of a batch, H features.
"""

from torch import Tensor, nn


class FrameNorm(nn.Module):
    """Batch normalisation over the real frames of a batch; padding has no part in it (release of 002)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(width)

    def forward(self, h_BLH: Tensor, mask_BL: Tensor) -> Tensor:
        """B x L x H."""
        real_NH = h_BLH[mask_BL]
        # The batch statistics of a single frame are undefined, and torch raises an error for them.
        normed_NH = self.norm(real_NH) if len(real_NH) > 1 or not self.training else real_NH
        y_BLH = h_BLH.new_zeros(h_BLH.shape, dtype=normed_NH.dtype)
        y_BLH[mask_BL] = normed_NH
        return y_BLH
