"""The whole model: backbones where the recipe has any, an encoder per modality, a fusion system, a head per
target.

Legend: B batch, L frames, I input features of one modality, F the shape of a raw frame, Z features of the readout,
T targets.
"""

import contextlib
from collections.abc import Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from crossfold.fusion_models.blocks.heads import MLPHead, recurrent_mix
from crossfold.fusion_models.blocks.temporal import encoded_width, temporal_context, temporal_encoder
from crossfold.fusion_models.catalogue import find_system, own_title
from crossfold.fusion_models.system import Features, Fusion, Notes, zeroed
from crossfold.platform.core.base_model import FrozenModel
from crossfold.platform.core.cell import Cell
from crossfold.platform.core.errors import UserError
from crossfold.platform.core.recipe import Recipe
from crossfold.platform.core.seeds import weight_seed
from crossfold.platform.modeling.frame_encoder import FrameEncoder, frame_encoders
from crossfold.platform.modeling.initial_weights import draw_weights


class EmotionModel(nn.Module):
    """Frames or features -> encoded modalities -> fusion -> y : B x L x T."""

    def __init__(
        self,
        inputs: Mapping[str, int],
        fusion: Fusion,
        recipe: Recipe,
        targets: int,
        frames: Mapping[str, FrameEncoder] | None = None,
    ) -> None:
        """`inputs`: I of each modality; `frames`: the backbones of those that come as raw frames."""
        super().__init__()
        self.frames: Mapping[str, FrameEncoder] = nn.ModuleDict(dict(frames or {}))  # type: ignore[assignment]
        self.encoders = nn.ModuleDict({m: temporal_encoder(inputs[m], recipe.temporal, m) for m in fusion.modalities})
        self.fusion = fusion
        shared = recipe.head.recurrent and recipe.head.recurrent_shared
        self.mix = recurrent_mix(fusion.width, recipe.head) if shared else None
        width = self.mix.width if self.mix is not None else fusion.width
        self.heads = nn.ModuleList(MLPHead(width, recipe.head) for _ in range(targets))
        self.narrow = False
        """Whether features, products and convolutions are bfloat16 at present. Only training turns it on: what is
        reported and what a saved model predicts is float32, so that it depends on no machine."""

    def forward(
        self, x: Mapping[str, Tensor], mask_BL: Tensor, notes: Notes | None = None, seeds: Sequence[int] | None = None
    ) -> Tensor:
        """y : B x L x T from x[m] : B x L x I_m, or B x L x F as stored; padded frames influence no real one.

        seeds: one per window, of the random crops in training; None: none.
        """
        return self.fuse(self.encode(x, mask_BL, seeds), mask_BL, notes)

    def encode(self, x: Mapping[str, Tensor], mask_BL: Tensor, seeds: Sequence[int] | None = None) -> dict[str, Tensor]:
        """The encodings of those modalities that `x` holds: B x L x their width each.

        No encoding depends on another modality, so what shows a window several times may keep those that stay equal.
        """
        with self._arithmetic(mask_BL):
            read = [m for m in self.encoders if m in x]
            features = {m: self.frames[m](x[m], mask_BL, seeds) if m in self.frames else x[m] for m in read}
            # Padding must not reach real frames through a convolution.
            x = {m: zeroed(features[m], mask_BL) for m in read}
            if self.narrow:
                # Once, here: what is narrow already is not cast again before each product.
                x = {m: x_BLI.to(torch.bfloat16) for m, x_BLI in x.items()}
            return {m: self.encoders[m](x_BLI, mask_BL) for m, x_BLI in x.items()}

    def fuse(self, encoded: dict[str, Tensor], mask_BL: Tensor, notes: Notes | None = None) -> Tensor:
        """y : B x L x T from the encodings of every modality."""
        with self._arithmetic(mask_BL):
            z_BLZ = self.fusion(Features.masked(encoded, mask_BL), notes)
            if self.mix is not None:
                z_BLZ = self.mix(z_BLZ, mask_BL)
            return torch.stack([head(z_BLZ, mask_BL) for head in self.heads], dim=-1)

    def _arithmetic(self, mask_BL: Tensor) -> contextlib.AbstractContextManager[object]:
        """Of the products."""
        return torch.autocast(mask_BL.device.type, torch.bfloat16) if self.narrow else contextlib.nullcontext()


def stored_narrow(cell: Cell) -> bool:
    """Whether a finished cell of `precision: bf16` stored what the narrow network predicts, as all did before 0.2.

    Since then such cells have a revision above that of their system, and store what float32 predicts.
    """
    return cell.recipe.precision == "bf16" and cell.revision <= find_system(cell.system).revision


def build_model(cell: Cell, inputs: Mapping[str, int]) -> EmotionModel:
    """The untrained model of a cell for these widths of its inputs; torch's generator stays as it was."""
    system = find_system(cell.system)
    params = _params(cell)
    modalities = system.modalities_for(params)
    frames: dict[str, FrameEncoder] = {}
    with torch.random.fork_rng(devices=[]):
        for m in modalities:
            # What a backbone starts from depends on the whole of it: its parts are not drawn again below.
            torch.default_generator.manual_seed(weight_seed(cell, f"frames.{m}", {}))
            frames |= frame_encoders(cell.recipe, [m])
        torch.default_generator.manual_seed(weight_seed(cell, "", {}))
        widths = {m: encoded_width(inputs[m], cell.recipe.temporal, m) for m in modalities}
        fusion = system.build(params, widths, cell.recipe.window)
        model = EmotionModel(inputs, fusion, cell.recipe, len(cell.targets), frames)
        draw_weights(model, partial(weight_seed, cell))
    return model


class Stream:
    """Predicts frames as they come; together they equal the prediction of the window that begins with the first.

    Of the past it keeps what a prediction depends on, and no more: none for frame-wise models, the reach of a TCN,
    everything for LSTMs and causal attention, which then cost more with every frame.
    """

    def __init__(self, cell: Cell, model: EmotionModel) -> None:
        """`model`: that of the cell, trained. Raises `UserError` if its predictions depend on future frames."""
        fusion = find_system(cell.system).context(_params(cell))
        encoder = temporal_context(cell.recipe.temporal)
        if cell.recipe.backbones or cell.recipe.clip.frames > 1:
            raise UserError(
                "streams take features, and give one prediction per frame", "use a recipe without backbones and clips"
            )
        if fusion is None or encoder is None or cell.recipe.head.recurrent:
            culprit = f"encoder {cell.recipe.temporal.kind}" if encoder is None else f"system {cell.system}"
            if cell.recipe.head.recurrent:
                culprit = "the BiLSTM of the head"
            raise UserError(
                f"{culprit} sees future frames, so it cannot predict a stream",
                "encoders none, tcn and lstm are causal; of the systems concat, unimodal_*, lstm and leader_follower, "
                "and the transformers with causal=true",
            )
        self.context = fusion + encoder
        self._model = model.eval()
        self._past: dict[str, Tensor] = {}

    @torch.no_grad()
    def push(self, x: Mapping[str, Tensor], notes: Notes | None = None) -> Tensor:
        """y : B x N x T of the N new frames x[m] : B x N x I_m.

        notes: filled as by the model, for the frames that it keeps and then the new ones.
        """
        known = {m: torch.cat([self._past[m], new], dim=1) if self._past else new for m, new in x.items()}
        first = next(iter(known.values()))
        frames, fresh = first.shape[1], next(iter(x.values())).shape[1]
        y_BLT: Tensor = self._model(known, torch.ones_like(first[..., 0], dtype=torch.bool), notes)
        # `context` is infinite for an LSTM.
        kept = int(min(frames, self.context))
        self._past = {m: values[:, frames - kept :] for m, values in known.items()}
        return y_BLT[:, frames - fresh :]


def modalities_of(cell: Cell) -> tuple[str, ...]:
    """The modalities that the system of a cell takes under its parameters."""
    return find_system(cell.system).modalities_for(_params(cell))


def title_of(cell: Cell) -> str | None:
    """What reports call the system of a cell where it is one of a plug-in; Crossfold's own have names there."""
    return own_title(cell.system)


def _params(cell: Cell) -> FrozenModel:
    return find_system(cell.system).resolved(cell.params)
