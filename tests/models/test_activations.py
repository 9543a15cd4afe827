"""A product and its GELU, made at once where oneDNN does that, is torch's one after the other."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from ecad.models import activations
from ecad.models.activations import gelu_of
from ecad.models.packing import Linear

EDGES = torch.tensor([0.0, -0.0, 1e4, -1e4, 30.0, -30.0])


def layer(dtype: torch.dtype, bias: bool = True) -> Linear:
    rng = torch.Generator().manual_seed(0)
    weight = torch.randn(96, 64, generator=rng).to(dtype) / 3
    return Linear(weight, torch.randn(96, generator=rng).to(dtype) if bias else None)


@pytest.fixture
def x():
    given = torch.randn(2, 7, 64, generator=torch.Generator().manual_seed(1))
    given[0, 0, :6] = EDGES
    return given


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@torch.no_grad()
def test_it_is_as_near_to_the_exact_result_as_torchs_own(x, dtype, bias):
    x, product = x.to(dtype), layer(dtype, bias)
    before = x.clone()
    exact = F.gelu(
        F.linear(x.double(), product.weight.double(), product.bias.double() if bias else None),
        approximate="tanh",
    )
    apart = F.gelu(product(x), approximate="tanh")
    ours = gelu_of(product, x)
    assert torch.equal(x, before) and ours.dtype == dtype and ours.shape == apart.shape
    # Relative to the largest number that enters: the two orders of adding differ by rounding.
    scale = exact.abs().max()
    assert (ours - exact).abs().max() / scale <= 1.5 * (apart - exact).abs().max() / scale + 1e-6


@torch.no_grad()
def test_it_takes_any_view(x):
    product = layer(torch.float32)
    view = x.expand(3, 2, 7, 64)[:, :, 2:].transpose(0, 1)
    torch.testing.assert_close(gelu_of(product, view), F.gelu(product(view), approximate="tanh"))


@torch.no_grad()
def test_a_changed_weight_is_seen(x):
    product = layer(torch.float32)
    first = gelu_of(product, x)
    product.weight.mul_(2)
    torch.testing.assert_close(gelu_of(product, x), F.gelu(product(x), approximate="tanh"))
    assert not torch.allclose(first, gelu_of(product, x))


def test_gradients_and_other_modules_go_the_plain_way(x):
    module = torch.nn.Linear(64, 96)
    assert torch.equal(gelu_of(module, x), F.gelu(module(x), approximate="tanh"))
    product = Linear(module.weight, module.bias)
    gelu_of(product, x).sum().backward()
    assert module.weight.grad is not None


@torch.no_grad()
def test_a_torch_without_the_operator_takes_the_plain_way(x, monkeypatch):
    monkeypatch.setattr(activations, "_has_fused", lambda dtype: False)
    product = layer(torch.float32)
    assert torch.equal(gelu_of(product, x), F.gelu(product(x), approximate="tanh"))
