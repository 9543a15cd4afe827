"""diffusers' own caches on FLUX (which PixArt's class does not take): enabled by `transformer.enable_cache`.

Each runs on a module tree of its own, over the same weights, so that their hooks never meet.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from diffusers import (
    FirstBlockCacheConfig,
    MagCacheConfig,
    PyramidAttentionBroadcastConfig,
    TaylorSeerCacheConfig,
)
from diffusers.hooks.mag_cache import FLUX_MAG_RATIOS
from executors import Stock

from ecad.schedule import Layout, Schedule

# TaylorSeer forecasts what its authors cache, the outputs of attention and feed-forward, and not attention
# alone, which is what its configuration takes where nothing is named.
TAYLOR_MODULES = [
    r"transformer_blocks\.\d+\.(attn|ff|ff_context)",
    r"single_transformer_blocks\.\d+\.(attn|proj_mlp|proj_out)",
]


def tree_of_its_own(transformer: torch.nn.Module) -> torch.nn.Module:
    """The same model as other module objects: parameters and buffers are shared, hooks are not."""
    shared = {id(tensor): tensor for tensor in [*transformer.parameters(), *transformer.buffers()]}
    return copy.deepcopy(transformer, shared)


class DiffusersCache(Stock):
    """The stock transformer with one of diffusers' caches enabled."""

    def __init__(self, transformer: torch.nn.Module, layout: Layout, config: Any) -> None:
        super().__init__(tree_of_its_own(transformer), layout)
        self.config = config
        self.transformer.enable_cache(config)

    def begin(self, schedule: Schedule) -> None:
        self.forget()

    def forget(self) -> None:
        self.transformer._reset_stateful_cache()  # as pipelines do between calls

    def run(self, one_pass: Any, row: int, inputs: dict[str, Any]) -> torch.Tensor:
        with self.transformer.cache_context("cond"):  # as FluxPipeline calls it
            return super().run(one_pass, row, inputs)


def first_block(threshold: float) -> FirstBlockCacheConfig:
    """First block cache: all other blocks are skipped while the first one's residual has changed by less."""
    return FirstBlockCacheConfig(threshold=threshold)


def taylor(interval: int, dtype: torch.dtype, lite: bool = False) -> TaylorSeerCacheConfig:
    """TaylorSeer of order 1 with one whole row in `interval` from row 2 on (and row 0), its factors in `dtype`.

    lite: whole rows are skipped and only the last projection is forecast, diffusers' variant of little memory.
    """
    return TaylorSeerCacheConfig(
        cache_interval=interval,
        disable_cache_before_step=1,
        max_order=1,
        taylor_factors_dtype=dtype,
        cache_identifiers=None if lite else TAYLOR_MODULES,
        use_lite_mode=lite,
    )


def broadcast(interval: int) -> PyramidAttentionBroadcastConfig:
    """Pyramid attention broadcast: attention in every `interval`-th row, at all times; all else always."""
    return PyramidAttentionBroadcastConfig(
        spatial_attention_block_skip_range=interval,
        spatial_attention_timestep_skip_range=(-1, 1001),
        current_timestep_callback=lambda: 500,  # within the range, whatever the row
    )


def mag(interval: int, rows: int) -> MagCacheConfig:
    """MagCache with FLUX's published curve, at most `interval` - 1 rows skipped in a row, and no limit by error:
    its curve is FLUX's, so it would be the only judge of these weights."""
    return MagCacheConfig(
        threshold=1e9 if interval > 1 else -1.0,
        max_skip_steps=interval - 1,
        retention_ratio=1 / rows,
        num_inference_steps=rows,
        mag_ratios=FLUX_MAG_RATIOS,
    )


def thresholds_for(
    levels: list[int], ratio_of: Callable[[float], float], tries: int = 12
) -> dict[int, float]:
    """Per cost level the threshold that comes closest to it.

    ratio_of: threshold -> MACs ratio, rising but for a few steps. Every level halves the bracket (in the
    logarithm) that the tries so far left around it, until it is within 5 % or `tries` are spent.
    """
    if not levels:
        return {}
    known = {threshold: ratio_of(threshold) for threshold in (1e-3, 1e-1, 1e1)}
    for level in levels:
        for _ in range(tries):
            if min(abs(ratio / level - 1) for ratio in known.values()) <= 0.05:
                break
            below = max((t for t, ratio in known.items() if ratio < level), default=None)
            above = min((t for t, ratio in known.items() if ratio >= level), default=None)
            if below is None or above is None or below >= above:
                break
            middle = (below * above) ** 0.5
            known[middle] = ratio_of(middle)
    return {level: min(known, key=lambda t: (abs(known[t] / level - 1), t)) for level in levels}
