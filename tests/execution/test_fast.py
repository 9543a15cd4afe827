"""The fast mode computes what the reference mode computes, to float tolerance, and keeps no more than the plan says."""

from __future__ import annotations

import pytest
import torch

from ecad.execution import ExecutionError, apply_schedule, lower
from ecad.schedule import heuristics
from ecad.schedule.layouts import pixart_layout

LAYOUT = pixart_layout(4)
ROWS = 6
TOLERANCE = 1e-4


def distance(a, b):
    """Largest difference over the spread: the measure of the project's tolerance."""
    return float((a - b).abs().max() / b.std())


def run(pipe, schedule, mode, latents, **call):
    with apply_schedule(pipe, schedule, mode=mode):
        return latents(pipe, **schedule.call(), **call)


@pytest.fixture(scope="module", params=["pixart", "sigma"])
def pipe(request):
    return request.getfixturevalue(request.param)


def test_fast_equals_the_oracle_for_every_heuristic(pixart, latents, oracle):
    grid = [999 - 150 * i for i in range(ROWS)]
    for schedule in heuristics.library(LAYOUT, ROWS, grid):
        if schedule.rows < 2:
            continue
        expected = oracle(pixart, schedule)
        assert distance(run(pixart, schedule, "fast", latents), expected) < TOLERANCE, schedule.name


def test_fast_equals_reference_and_oracle_for_random_schedules(pipe, latents, oracle, random_schedules):
    for schedule in random_schedules(LAYOUT, ROWS, 50 if "Alpha" in type(pipe).__name__ else 6, seed=1):
        reference = run(pipe, schedule, "reference", latents)
        assert torch.equal(reference, oracle(pipe, schedule)), schedule.name
        assert distance(run(pipe, schedule, "fast", latents), reference) < TOLERANCE, schedule.name
