import copy

import pytest
import torch

from crossfold.fusion_models.blocks.frame_norm import FrameNorm

REAL = {"all": [5, 5, 5], "some": [5, 2, 4], "two frames": [0, 2, 0], "one frame": [0, 1, 0]}


def mask_of(lengths):
    return torch.arange(5) < torch.tensor(lengths).unsqueeze(-1)


@pytest.mark.parametrize("real", REAL)
def test_it_is_batch_normalisation_of_the_real_frames(real):
    torch.manual_seed(0)
    mask_BL, width = mask_of(REAL[real]), 4
    layer = FrameNorm(width).double()
    torch.nn.init.normal_(layer.norm.weight)
    torch.nn.init.normal_(layer.norm.bias)
    plain = copy.deepcopy(layer.norm)
    for _ in range(3):
        ours_BLH = torch.randn(3, 5, width, dtype=torch.float64, requires_grad=True)
        theirs_BLH = ours_BLH.detach().clone().requires_grad_()
        weight_BLH = torch.randn(3, 5, width, dtype=torch.float64)
        y_BLH = layer(ours_BLH, mask_BL)
        gathered = theirs_BLH[mask_BL]
        right_NH = plain(gathered) if len(gathered) > 1 else gathered
        torch.testing.assert_close(y_BLH[mask_BL], right_NH, rtol=0, atol=1e-12)
        assert not y_BLH[~mask_BL].any()
        (y_BLH * weight_BLH).sum().backward()
        (right_NH * weight_BLH[mask_BL]).sum().backward()
        torch.testing.assert_close(ours_BLH.grad, theirs_BLH.grad, rtol=0, atol=1e-11)
    for name, right in plain.state_dict().items():
        torch.testing.assert_close(layer.norm.state_dict()[name], right, rtol=0, atol=1e-12)
    if len(gathered) > 1:
        torch.testing.assert_close(layer.norm.weight.grad, plain.weight.grad, rtol=0, atol=1e-11)
    layer.eval()
    x_BLH = torch.randn(3, 5, width, dtype=torch.float64)
    torch.testing.assert_close(layer(x_BLH, mask_BL)[mask_BL], plain.eval()(x_BLH[mask_BL]), rtol=0, atol=1e-12)


def test_what_padding_holds_changes_nothing():
    mask_BL, layer = mask_of([5, 2, 4]), FrameNorm(4)
    x_BLH = torch.randn(3, 5, 4)
    other_BLH = torch.where(mask_BL.unsqueeze(-1), x_BLH, 1e6)
    torch.testing.assert_close(layer(x_BLH, mask_BL), layer(other_BLH, mask_BL), rtol=0, atol=0)
