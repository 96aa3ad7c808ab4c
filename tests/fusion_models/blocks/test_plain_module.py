"""A plain torch module becomes a system: what it may return, and the error for anything else."""

import pytest
import torch
from torch import nn

from crossfold.fusion_models.baselines import NoParams
from crossfold.fusion_models.blocks.plain_module import module_attention
from crossfold.fusion_models.blocks.readout import LastReadout
from crossfold.fusion_models.system import Features, System
from crossfold.platform.core.errors import UserError

WIDTHS = {"audio": 4, "visual": 6}


class Returns(nn.Module):
    """Gives back what a function makes of both modalities."""

    def __init__(self, function):
        super().__init__()
        self.lazy, self.function = nn.LazyLinear(3), function

    def forward(self, audio, visual, mask):
        assert mask.dtype == torch.bool
        return self.function(self.lazy(torch.cat([audio, visual], dim=-1)) + 1, audio, visual)


def system_of(function):
    return System(
        name="mine",
        title="Mine",
        source="own",
        equations="Z",
        bibtex="@misc{mine}",
        params=NoParams,
        attend=module_attention(lambda params, widths, frames: Returns(function)),
        readout=lambda params, widths, steps: LastReadout(widths),
    )


def build(function):
    return system_of(function).build(NoParams(), WIDTHS, 5)


def features():
    generator = torch.Generator().manual_seed(0)
    x = {m: torch.randn(2, 5, width, generator=generator) for m, width in WIDTHS.items()}
    return Features.masked(x, torch.arange(5) < torch.tensor([[5], [2]]))


def test_one_tensor_of_any_width_is_z_and_zero_on_padded_frames():
    fusion, given = build(lambda mixed, audio, visual: mixed), features()
    z = fusion(given)
    assert (fusion.width, z.shape) == (3, (2, 5, 3))
    expected = fusion.attend.module(*given.x.values(), given.mask_BL)
    assert torch.equal(z[given.mask_BL], expected[given.mask_BL])
    assert not z[~given.mask_BL].any()


def test_a_tuple_is_the_attended_features_of_each_modality():
    fusion = build(lambda mixed, audio, visual: (2 * audio, visual[..., :2]))
    given, notes = features(), {}
    z = fusion(given, notes)
    assert (fusion.width, fusion.attend.widths) == (6, {"audio": 4, "visual": 2})
    assert torch.equal(z, torch.cat([2 * given.x["audio"], given.x["visual"][..., :2]], dim=-1))
    assert torch.equal(notes["x.audio.0"], given.x["audio"])


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda mixed, audio, visual: None, "a value of type NoneType"),
        (lambda mixed, audio, visual: (audio,), "a tuple of Tensor"),
        (lambda mixed, audio, visual: {"audio": audio}, "a value of type dict"),
        (lambda mixed, audio, visual: (audio, "x"), "a tuple of Tensor, str"),
        (lambda mixed, audio, visual: mixed.mean(1), r"\(1, 3\) for fused of 1 window of 5 frames"),
        (lambda mixed, audio, visual: (audio, visual[:, :3]), r"\(1, 3, 6\) for visual"),
    ],
)
def test_anything_else_is_refused_when_the_model_is_built(function, said):
    with pytest.raises(UserError, match=rf"Returns.forward returns {said}"):
        build(function)


def test_the_run_on_zeros_draws_no_random_numbers_and_keeps_the_mode():
    def draws(mixed, audio, visual):
        return mixed + torch.rand(())

    torch.manual_seed(5)
    build(lambda mixed, audio, visual: mixed)
    without = torch.rand(3)
    torch.manual_seed(5)
    fusion = build(draws)
    assert torch.equal(torch.rand(3), without)
    assert fusion.training
