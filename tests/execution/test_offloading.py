"""Offloading and schedules come and go in any order. On the CPU the hooks run and move nothing."""

from __future__ import annotations

import pytest
import torch

from ecad.execution import apply_schedule
from ecad.schedule import heuristics
from ecad.schedule.layouts import flux_layout, pixart_layout

ROWS = 4
CASES = {"pixart": (pixart_layout(4), {}), "flux": (flux_layout(2, 3), {"height": 64, "width": 64})}


@pytest.mark.parametrize("apply_first", [True, False], ids=["applied-first", "offloaded-first"])
@pytest.mark.parametrize("remove_first", [True, False], ids=["onloaded-first", "removed-first"])
@pytest.mark.parametrize("family", CASES)
def test_model_offloading_before_and_after_a_schedule(family, apply_first, remove_first, request, latents):
    from diffusers import DiffusionPipeline

    layout, size = CASES[family]
    pipe = DiffusionPipeline.from_pretrained(request.getfixturevalue(f"tiny_{family}_path"))
    pipe.set_progress_bar_config(disable=True)
    schedule = heuristics.fora(layout, ROWS, 2)

    def run():
        return latents(pipe, **size, **schedule.call())

    stock = run()
    with apply_schedule(pipe, schedule):
        expected = run()
    assert not torch.equal(stock, expected)
    if apply_first:
        applied = apply_schedule(pipe, schedule)
        pipe.enable_model_cpu_offload(device="cpu")
    else:
        pipe.enable_model_cpu_offload(device="cpu")
        applied = apply_schedule(pipe, schedule)
    assert hasattr(pipe.transformer, "_hf_hook")
    for _ in range(2):
        assert torch.equal(run(), expected)
    if remove_first:
        pipe.remove_all_hooks()
        assert torch.equal(run(), expected)
        applied.remove()
    else:
        applied.remove()
        assert torch.equal(run(), stock)
        pipe.remove_all_hooks()
    assert torch.equal(run(), stock)
    assert "_ecad_schedule" not in vars(pipe.transformer)
