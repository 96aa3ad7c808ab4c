"""An LSTM over the frames of a window that never reads padding.

Legend: B batch, L frames, I input features, H features of the hidden state.
"""

from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence


class Recurrent(nn.Module):
    """LSTM in one or both directions; both start from the first and the last real frame."""

    def __init__(
        self, inputs: int, hidden: int, *, layers: int = 1, dropout: float = 0.0, bidirectional: bool = False
    ) -> None:
        super().__init__()
        between = dropout if layers > 1 else 0.0
        self.lstm = nn.LSTM(inputs, hidden, layers, batch_first=True, dropout=between, bidirectional=bidirectional)
        self.width = hidden * (2 if bidirectional else 1)

    def forward(self, x_BLI: Tensor, mask_BL: Tensor) -> Tensor:
        """B x L x width, zero on padded frames, which are the last of a window."""
        # Padding comes last, so a forward LSTM reads it after every real frame and needs no packing.
        if not self.lstm.bidirectional:
            h_BLH: Tensor = self.lstm(x_BLI)[0]
            return h_BLH * mask_BL.unsqueeze(-1)
        lengths_B = mask_BL.sum(dim=1).clamp(min=1).cpu()  # torch packs no sequence of length zero
        packed = pack_padded_sequence(x_BLI, lengths_B, batch_first=True, enforce_sorted=False)
        both_BLH, _ = pad_packed_sequence(self.lstm(packed)[0], batch_first=True, total_length=x_BLI.shape[1])
        return both_BLH * mask_BL.unsqueeze(-1)
