"""Going to the canonical form changes no image by one bit, seen on the stock modules and on our own."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ecad.execution import apply_schedule
from ecad.schedule import Schedule
from ecad.schedule.layouts import flux_layout, pixart_layout

ROWS = 5
CASES = {"pixart": (pixart_layout(4), {}), "flux": (flux_layout(2, 3), {"height": 64, "width": 64})}


@pytest.fixture
def schedules(random_schedules):
    """Random ones with their neutral bits, and for FLUX one whose last rows reuse what later work would feed."""

    def make(layout):
        made = random_schedules(layout, ROWS, 20, seed=11)
        out = [c.index for c in layout.components if c.name == "single_proj_out"]
        if out:
            bits = np.ones((ROWS, len(layout)), dtype=bool)
            bits[2:, out] = False
            made.append(Schedule(layout, bits, name="dead"))
        return made

    return make


@pytest.mark.parametrize("family", CASES)
def test_neutral_bits_change_nothing_on_the_stock_modules(family, request, schedules, oracle):
    layout, size = CASES[family]
    pipe = request.getfixturevalue(family)
    neutral = [
        schedule for schedule in schedules(layout) if (schedule.bits != schedule.canonical().bits)[1:].any()
    ]
    assert len(neutral) > 3 or family == "pixart"  # where only the first row has neutral bits
    for schedule in neutral or schedules(layout)[:5]:
        canonical = schedule.canonical()
        assert not np.array_equal(canonical.bits, schedule.bits)
        assert torch.equal(oracle(pipe, schedule, **size), oracle(pipe, canonical, **size)), schedule.name


@pytest.mark.parametrize("family", CASES)
def test_neutral_bits_change_nothing_in_the_reference_mode(
    family, request, schedules, oracle, latents, distance
):
    """The oracle runs the bits as they stand, the reference mode never runs a neutral one."""
    layout, size = CASES[family]
    pipe = request.getfixturevalue(family)
    for schedule in schedules(layout):
        with apply_schedule(pipe, schedule, mode="reference") as applied:
            assert np.array_equal(applied.plan.computes, schedule.canonical().bits), schedule.name
            ours = latents(pipe, **schedule.call(), **size)
        assert torch.equal(ours, oracle(pipe, schedule, **size)), schedule.name
