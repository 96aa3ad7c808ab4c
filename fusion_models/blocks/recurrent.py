"""An LSTM over the frames of a window that never reads padding, and one with a residual path.

Legend: B batch, L frames, I input features, H features of the result, S layers x directions of the LSTM.
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from crossfold.fusion_models.blocks.dropout import Dropout
from crossfold.fusion_models.system import zeroed


class Recurrent(nn.Module):
    """LSTM in one or both directions; both start from the first and the last real frame."""

    def __init__(
        self,
        inputs: int,
        hidden: int,
        *,
        layers: int = 1,
        dropout: float = 0.0,
        bidirectional: bool = False,
        learnt_state: bool = False,
    ) -> None:
        """`learnt_state`: whether hidden and cell state begin with learnt numbers instead of zeros."""
        super().__init__()
        between = dropout if layers > 1 else 0.0
        self.lstm = nn.LSTM(inputs, hidden, layers, batch_first=True, dropout=between, bidirectional=bidirectional)
        self.width = hidden * (2 if bidirectional else 1)
        self.initial = InitialState(layers * (2 if bidirectional else 1), hidden) if learnt_state else None

    def forward(self, x_BLI: Tensor, mask_BL: Tensor) -> Tensor:
        """B x L x width, zero on padded frames, which are the last of a window."""
        state = self.initial(len(x_BLI)) if self.initial is not None else None
        kind = x_BLI.device.type
        if torch.is_autocast_enabled(kind):
            # Torch chooses the library by the type of x, and only then casts it: oneDNN, which is quicker in float32,
            # has no LSTM in bfloat16 for processors without such instructions, and would fail.
            x_BLI = x_BLI.to(torch.get_autocast_dtype(kind))
        # Padding comes last, so a forward LSTM reads it after every real frame and needs no packing.
        if not self.lstm.bidirectional:
            h_BLH: Tensor = self.lstm(x_BLI, state)[0]
            return zeroed(h_BLH, mask_BL)
        if mask_BL.device.type != "cpu":
            return self._both_ways(x_BLI, state, mask_BL)
        lengths_B = mask_BL.sum(dim=1).clamp(min=1)  # torch packs no sequence of length zero
        packed = pack_padded_sequence(x_BLI, lengths_B, batch_first=True, enforce_sorted=False)
        both_BLH, _ = pad_packed_sequence(self.lstm(packed, state)[0], batch_first=True, total_length=x_BLI.shape[1])
        return zeroed(both_BLH, mask_BL)

    def _both_ways(self, x_BLI: Tensor, state: tuple[Tensor, Tensor] | None, mask_BL: Tensor) -> Tensor:
        """The same without packing, for which the host would have to wait for the lengths that a device holds.

        The backward direction of each layer reads the real frames in reverse, and the padding after them.
        """
        place_L = torch.arange(mask_BL.shape[1], device=mask_BL.device)
        reverse_BL = torch.where(mask_BL, mask_BL.sum(dim=1, keepdim=True) - 1 - place_L, place_L)
        h_BLH = x_BLI
        for layer in range(self.lstm.num_layers):
            ways = []
            for s, backward in ((2 * layer, False), (2 * layer + 1, True)):
                start_BH = h_BLH.new_zeros(1, len(h_BLH), self.lstm.hidden_size)
                start = (start_BH, start_BH) if state is None else (state[0][s : s + 1], state[1][s : s + 1])
                read_BLH = _reordered(h_BLH, reverse_BL) if backward else h_BLH
                weights: list[Tensor] = list(self.lstm.all_weights[s])
                way_BLH = torch.lstm(read_BLH, start, weights, True, 1, 0.0, self.training, False, True)[0]
                ways.append(_reordered(way_BLH, reverse_BL) if backward else way_BLH)
            h_BLH = torch.cat(ways, dim=-1)
            if layer + 1 < self.lstm.num_layers:
                h_BLH = nn.functional.dropout(h_BLH, self.lstm.dropout, self.training)
        return zeroed(h_BLH, mask_BL)


def _reordered(x_BLH: Tensor, order_BL: Tensor) -> Tensor:
    """Frames of each window in another order: B x L x H."""
    return x_BLH.gather(1, order_BL.unsqueeze(-1).expand_as(x_BLH))


class InitialState(nn.Module):
    """The hidden and the cell state before the first frame, the same for every window. state : 2 x S x H."""

    def __init__(self, layers: int, hidden: int) -> None:
        super().__init__()
        self.state = nn.Parameter(torch.empty(2, layers, hidden))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Xavier, over the states of all layers as one matrix (release of 000)."""
        nn.init.xavier_uniform_(self.state.data.flatten(0, 1))

    def forward(self, batch: int) -> tuple[Tensor, Tensor]:
        """Hidden and cell state, each S x B x H."""
        hidden_SBH, cell_SBH = self.state.unsqueeze(2).expand(-1, -1, batch, -1).contiguous()
        return hidden_SBH, cell_SBH


class RecurrentMix(nn.Module):
    """Z' = M / |M| : B x L x H, as released with 000 (G2c).

    M = BiLSTM(Z) + W Z with `sum`; M = W [Z ; BiLSTM(Z)], from a learnt initial state, with `concat` (G8).
    """

    def __init__(
        self,
        inputs: int,
        hidden: int,
        *,
        layers: int = 1,
        dropout: float = 0.0,
        form: Literal["sum", "concat"] = "sum",
    ) -> None:
        """`dropout`: between the layers, and with `concat` on [Z ; BiLSTM(Z)]."""
        super().__init__()
        self.concat = form == "concat"
        self.recurrent = Recurrent(
            inputs,
            max(hidden // 2, 1),
            layers=layers,
            dropout=dropout,
            bidirectional=True,
            learnt_state=self.concat,
        )
        self.width = hidden if self.concat else self.recurrent.width
        self.residual = nn.Linear(inputs + (self.recurrent.width if self.concat else 0), self.width)
        self.dropout = Dropout(dropout)

    def forward(self, z_BLI: Tensor, mask_BL: Tensor) -> Tensor:
        """B x L x H."""
        h_BLH = self.recurrent(z_BLI, mask_BL)
        if self.concat:
            mixed_BLH = self.residual(self.dropout(torch.cat([z_BLI, h_BLH], dim=-1)))  # G8
        else:
            mixed_BLH = h_BLH + self.residual(z_BLI)  # G2c
        return nn.functional.normalize(mixed_BLH, dim=-1)
