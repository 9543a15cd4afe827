"""The closed form against two counters that run the stock models: fvcore and torch's FlopCounterMode.

fvcore counts linear and convolution as MACs and leaves scaled_dot_product_attention out unless told how; it
also counts layer norms, which we leave aside. torch counts FLOPs (two per MAC), attention products included
where attention runs as plain matrix products (its fused CPU kernel has no formula).
"""

from __future__ import annotations

import math

import pytest

from ecad.schedule.costs import cost_table
from ecad.schedule.layouts import FluxDimensions, PixArtDimensions

torch = pytest.importorskip("torch")

HALVES, TEXT = 2, 5


def pixart(sample_size=8):
    from diffusers import PixArtTransformer2DModel

    model = PixArtTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=4,
        out_channels=8,
        num_layers=2,
        cross_attention_dim=24,
        sample_size=sample_size,
        patch_size=2,
        caption_channels=10,
        use_additional_conditions=True,
    ).eval()
    inputs = {
        "hidden_states": torch.randn(HALVES, 4, sample_size, sample_size),
        "encoder_hidden_states": torch.randn(HALVES, TEXT, 10),
        "timestep": torch.full((HALVES,), 500),
        "added_cond_kwargs": {
            "resolution": torch.full((HALVES, 2), 64.0),
            "aspect_ratio": torch.ones(HALVES, 1),
        },
    }
    size = PixArtDimensions.from_config(model.config, text_tokens=TEXT)
    return model, inputs, size


def flux(batch):
    from diffusers import FluxTransformer2DModel

    model = FluxTransformer2DModel(
        patch_size=1,
        in_channels=12,
        num_layers=2,
        num_single_layers=3,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=20,
        pooled_projection_dim=14,
        guidance_embeds=True,
        axes_dims_rope=(4, 6, 6),
    ).eval()
    inputs = {
        "hidden_states": torch.randn(batch, 16, 12),
        "encoder_hidden_states": torch.randn(batch, TEXT, 20),
        "pooled_projections": torch.randn(batch, 14),
        "timestep": torch.full((batch,), 0.5),
        "guidance": torch.full((batch,), 3.5),
        "img_ids": torch.zeros(16, 3),
        "txt_ids": torch.zeros(TEXT, 3),
    }
    size = FluxDimensions.from_config(model.config, text_tokens=TEXT, height=64, width=64)
    return model, inputs, size


def by_module(model, inputs):
    """MACs of linear, convolution and attention products by module name, from fvcore."""
    from fvcore.nn import FlopCountAnalysis

    class Positional(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, *values):
            return self.model(**dict(zip(inputs, values, strict=True)), return_dict=False)[0]

    def attention(arguments, outputs):
        q, k, v = (list(value.type().sizes()) for value in arguments[:3])
        return math.prod(q[:-1]) * k[-2] * (q[-1] + v[-1])

    analysis = FlopCountAnalysis(Positional(), tuple(inputs.values()))
    analysis.set_op_handle("aten::scaled_dot_product_attention", attention)
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    counted = analysis.by_module_and_operator()
    kept = ("linear", "conv", "scaled_dot_product_attention")
    return {
        name.removeprefix("model").removeprefix("."): {
            op: int(n) for op, n in operators.items() if op in kept
        }
        for name, operators in counted.items()
    }


def without_products(operators):
    return sum(n for op, n in operators.items() if "attention" not in op)


def test_fvcore_agrees_on_every_pixart_component():
    model, inputs, size = pixart()
    counted = by_module(model, inputs)
    paper, full = (cost_table(size, convention=convention) for convention in ("paper", "full"))
    assert without_products(counted[""]) == paper.uncached(1).total
    for component in paper.layout.components:
        operators = counted[f"transformer_blocks.{component.block}.{component.name}"]
        assert without_products(operators) == paper.component[component.index]
        # full takes attn2's keys and values out of the rows
        keys_values = HALVES * 2 * 24 * 24 * TEXT if component.name == "attn2" else 0
        assert sum(operators.values()) - keys_values == full.component[component.index]


def test_fvcore_agrees_on_every_flux_component():
    modules = {
        "full_attn": "transformer_blocks.{}.attn",
        "full_ff": "transformer_blocks.{}.ff",
        "full_ff_context": "transformer_blocks.{}.ff_context",
        "single_attn": "single_transformer_blocks.{}.attn",
        "single_proj_mlp": "single_transformer_blocks.{}.proj_mlp",
        "single_proj_out": "single_transformer_blocks.{}.proj_out",
    }
    for batch, convention in ((2, "paper"), (1, "full")):
        model, inputs, size = flux(batch)
        counted = by_module(model, inputs)
        table = cost_table(size, convention=convention)
        for component in table.layout.components:
            operators = counted[modules[component.name].format(component.block.removeprefix("single_"))]
            count = without_products(operators) if convention == "paper" else sum(operators.values())
            assert count == table.component[component.index], component
        count = without_products(counted[""]) if convention == "paper" else sum(counted[""].values())
        assert count == table.uncached(1).total


def flops(model, inputs):
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(**inputs)
    return counter.get_total_flops()


def test_torch_agrees_on_a_row_of_pixart_in_full():
    model, inputs, size = pixart()
    table = cost_table(size)
    # The stock model computes the modulation, and the size conditions, for either half.
    width, third = 24, 8
    second_half = 256 * width + 7 * width**2 + 3 * (256 * third + third**2)
    assert flops(model, inputs) == 2 * (table.uncached(1).total + second_half)


def test_torch_agrees_on_a_row_of_flux_in_full():
    model, inputs, size = flux(1)
    assert flops(model, inputs) == 2 * cost_table(size).uncached(1).total
