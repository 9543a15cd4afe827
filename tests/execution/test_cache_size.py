"""What a pass keeps, in bytes, for models too large to run here: the plan's count over the model's own sizes."""

from __future__ import annotations

import pytest

from ecad.execution import lower
from ecad.execution.cache_size import value_bytes
from ecad.schedule import heuristics
from ecad.schedule.layouts import FluxDimensions, PixArtDimensions

FLUX_1024 = FluxDimensions(height=1024, width=1024)


def test_keeping_everything_takes_what_the_tensors_shapes_say():
    # Two-stream blocks keep two values of all tokens, single ones attention, 4 D before GELU, and the output.
    assert sum(value_bytes(FLUX_1024)) == (4096 + 512) * 3072 * 2 * (19 * 2 + 38 * 6) == 7_530_872_832
    assert sum(value_bytes(FluxDimensions())) == (256 + 512) * 3072 * 2 * (19 * 2 + 38 * 6)
    assert sum(value_bytes(PixArtDimensions(), 4)) == 2 * 256 * 1152 * 84 * 4  # both guidance halves
    assert sum(value_bytes(PixArtDimensions(halves=1))) == 256 * 1152 * 84 * 2


@pytest.mark.parametrize("whole", [False, True], ids=["fast", "reference"])
def test_flux_at_1024_px_needs_a_third_of_keeping_everything(alternating_ends, whole):
    """For a schedule of the form that searches find for FLUX: rows without work, rows at one end of the model."""
    sizes = value_bytes(FLUX_1024)
    schedule = alternating_ends(FLUX_1024.layout, 20)
    assert 3 < 20 * len(schedule.layout) / schedule.bits.sum() < 5
    peak = lower(schedule, whole=whole).peak_cache(sizes)
    assert sum(sizes) / 10 < peak <= sum(sizes) / 3


def test_sums_keep_three_tensors_of_pixart_whatever_its_depth():
    dimensions = PixArtDimensions()
    gates = ["msa", "", "mlp"] * 28
    peak = lower(heuristics.fora(dimensions.layout, 20, 3), gates=gates).peak_cache(value_bytes(dimensions))
    assert peak == 3 * 2 * 256 * 1152 * 2
