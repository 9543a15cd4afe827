"""In half precision the fast mode is as near to the float32 result as the model's own modules are.

What stock computes is the pipeline itself where all is computed, and its own modules one by one (the reference mode,
which equals it bit for bit) where something is reused.
"""

from __future__ import annotations

import pytest
import torch

from ecad.execution import apply_schedule
from ecad.schedule import heuristics
from ecad.schedule.layouts import flux_layout, pixart_layout

ROWS, IMAGES = 6, 8
CASES = {
    "pixart": (pixart_layout(4), (4, 32, 32), {}),
    "flux": (flux_layout(2, 3), (16, 16), {"height": 64, "width": 64}),
}


def loaded(family, path, dtype):
    """A pipeline with the weights as they were drawn; predicting velocity, so that the model's errors count."""
    from diffusers import DiffusionPipeline, DPMSolverMultistepScheduler

    pipe = DiffusionPipeline.from_pretrained(path, dtype=dtype)
    if family == "pixart":
        pipe.scheduler = DPMSolverMultistepScheduler.from_config(
            pipe.scheduler.config, prediction_type="v_prediction"
        )
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("family", CASES)
def test_fast_is_no_farther_from_float32_than_stock(family, dtype, request, random_schedules):
    layout, shape, size = CASES[family]
    path = request.getfixturevalue(f"tiny_{family}_path")
    noise = torch.randn((IMAGES, *shape), generator=torch.Generator().manual_seed(1))
    exact, half = loaded(family, path, torch.float32), loaded(family, path, dtype)

    def run(pipe, schedule, mode):
        def call():
            given = {"latents": noise.to(pipe.dtype), "max_sequence_length": 24, **size, **schedule.call()}
            return pipe(["a red house"] * IMAGES, output_type="latent", **given).images.float()

        if mode is None:
            return call()
        with apply_schedule(pipe, schedule, mode=mode):
            return call()

    schedules = [heuristics.fora(layout, ROWS, 2), heuristics.fora(layout, ROWS, 3)]
    for schedule in [
        heuristics.uncached(layout, ROWS),
        *schedules,
        *random_schedules(layout, ROWS, 3, seed=4),
    ]:
        stock_mode = None if schedule.bits.all() else "reference"
        truth = run(exact, schedule, stock_mode)
        fast, stock = (
            (run(half, schedule, mode) - truth).square().mean().sqrt() for mode in ("fast", stock_mode)
        )
        assert 0 < fast <= 1.25 * stock, (schedule.name, float(fast / stock))
