"""The kernels of weight norm and their gradients, against the equation in plain torch."""

import torch

from crossfold.fusion_models.kernels.weight_norm import normed_kernels


def test_kernels_and_gradients_equal_the_plain_equation():
    generator = torch.Generator().manual_seed(0)
    v_DIK = torch.randn(6, 4, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    g_D11 = torch.randn(6, 1, 1, generator=generator, dtype=torch.float64, requires_grad=True)
    weight_KID = torch.randn(5, 4, 6, generator=generator, dtype=torch.float64)
    found_KID = normed_kernels(v_DIK, g_D11)
    expected_KID = (g_D11 * v_DIK / v_DIK.square().sum(dim=(1, 2), keepdim=True).sqrt()).permute(2, 1, 0)
    assert found_KID.is_contiguous()
    torch.testing.assert_close(found_KID, expected_KID, rtol=1e-12, atol=1e-12)
    found = torch.autograd.grad((found_KID * weight_KID).sum(), [v_DIK, g_D11])
    expected = torch.autograd.grad((expected_KID * weight_KID).sum(), [v_DIK, g_D11])
    for ours, plain in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-12, atol=1e-12)


def test_a_gradient_that_is_used_elsewhere_is_left_as_it_was():
    """One gradient may reach several functions: this one works on a copy."""
    v_DIK, g_D11 = torch.ones(1, 1, 1, requires_grad=True), torch.ones(1, 1, 1, requires_grad=True)
    given_KID = torch.full((1, 1, 1), 3.0)
    normed_kernels(v_DIK, g_D11).backward(given_KID)
    assert given_KID.item() == 3.0
