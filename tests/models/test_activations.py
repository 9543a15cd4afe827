"""GELU written out is torch's GELU, at its edges too."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from ecad.models.activations import gelu_tanh


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_it_is_torchs_own_to_rounding_and_leaves_its_input_alone(dtype):
    rng = torch.Generator().manual_seed(0)
    x = (3 * torch.randn(2, 7, 64, generator=rng)).to(dtype)
    x[0, 0, :6] = torch.tensor([0.0, -0.0, 1e4, -1e4, 30.0, -30.0])
    before, exact = x.clone(), F.gelu(x.double(), approximate="tanh")
    ours = gelu_tanh(x)
    assert torch.equal(x, before) and ours.dtype == dtype
    error = (F.gelu(x, approximate="tanh").double() - exact).abs().max()
    assert (ours.double() - exact).abs().max() <= 1.5 * error


def test_it_takes_any_view():
    x = torch.randn(4, 6, 8)[:, 2:].transpose(0, 1)
    torch.testing.assert_close(gelu_tanh(x), F.gelu(x, approximate="tanh"), rtol=1e-6, atol=1e-6)
