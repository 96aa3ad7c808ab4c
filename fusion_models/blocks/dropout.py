"""Dropout by the masks of `kernels/keep_mask.py`."""

from torch import Tensor, nn

from crossfold.fusion_models.kernels.keep_mask import keep_mask, kept_share


class Dropout(nn.Module):
    """Drops values with probability p in training, and scales the others so that the mean stays (Srivastava 2014)."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    @property
    def rate(self) -> float:
        """The probability at present: none in evaluation."""
        return self.p if self.training else 0.0

    def forward(self, x: Tensor) -> Tensor:
        """The shape of x."""
        return x * keep_mask(x.shape, self.p, x).div_(kept_share(self.p)) if self.rate else x

    def extra_repr(self) -> str:
        """For `print(model)`."""
        return f"p={self.p}"
