"""The plan follows from the bits alone: what is read is kept, until its last reader, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from ecad.execution import lower
from ecad.execution.plan import Combine, Compute
from ecad.schedule import Schedule, heuristics
from ecad.schedule.layouts import flux_layout, pixart_layout

PIXART = pixart_layout(3)
FLUX = flux_layout(2, 2)
GATES = ["msa", "", "mlp"] * 3


def replay(plan):
    """Walk the plan; every read finds its value, every value kept is read, and nothing stays at the end."""
    values, segments, reads = {}, {}, {}
    for row, steps in enumerate(plan.steps):
        for step in steps:
            if isinstance(step, Compute):
                for v in step.wanted:
                    for source in plan.layout.values[v].reads_values:
                        reads[source, values[source]] = True
                for v in step.keep:
                    assert v not in values or (v, values[v]) in reads, "a kept value was never read"
                    values[v] = row
                if step.segment is not None:
                    segments[step.segment] = row
            else:
                for v in step.values:
                    reads[v, values[v]] = True
                for segment in step.segments:
                    assert segment in segments and segment.row < row < segment.until
                for segment in step.free_segments:
                    del segments[segment]
            for v in step.free:
                assert (v, values.pop(v)) in reads
    assert not values and not segments


@pytest.mark.parametrize("layout", [PIXART, FLUX])
def test_every_read_finds_its_value_and_nothing_outlives_its_last_reader(layout, random_schedules):
    for schedule in random_schedules(layout, 7, 40):
        replay(lower(schedule))
        if layout is PIXART:
            replay(lower(schedule, gates=GATES))


def test_all_true_keeps_nothing_and_combines_nothing():
    plan = lower(heuristics.uncached(PIXART, 4), gates=GATES)
    assert plan.computed == 4 * len(PIXART) and plan.peak_cache(1) == 0
    assert all(isinstance(step, Compute) for steps in plan.steps for step in steps)


def test_fora_keeps_three_tensors_as_sums_and_all_of_them_as_values():
    schedule = heuristics.fora(PIXART, 6, 3)
    assert lower(schedule, gates=GATES).peak_cache(1) == 3
    assert lower(schedule).peak_cache(1) == len(PIXART)


def test_a_short_segment_is_kept_as_values():
    bits = np.ones((3, len(PIXART)), dtype=bool)
    bits[1, :2] = False  # two components read once: sums would move as much
    plan = lower(Schedule(PIXART, bits), gates=GATES)
    assert plan.steps[1][0] == Combine(values=(0, 1), free=(0, 1))


def test_dead_work_of_flux_is_not_planned():
    bits = np.ones((3, len(FLUX)), dtype=bool)
    attention, _, out = (
        FLUX.by_place["single_1", name] for name in ("single_attn", "single_proj_mlp", "single_proj_out")
    )
    bits[1:, out] = False  # nobody reads the attention of rows 1 and 2
    plan = lower(Schedule(FLUX, bits))
    assert plan.computes[0, attention] and not plan.computes[1:, attention].any()


def test_flux_attention_keeps_only_the_half_that_is_read():
    """The last rows' text is read by no attention: of a reused full_attn only the image half is added
    there.
    """
    bits = np.ones((2, len(FLUX)), dtype=bool)
    bits[1] = False
    plan = lower(Schedule(FLUX, bits))
    kept = {v for step in plan.steps[0] for v in step.keep if plan.layout.values[v].adds_to == "text"}
    assert not kept  # row 1 computes nothing, so nothing there reads the text


def test_the_summary_names_rows_and_totals():
    text = lower(heuristics.fora(PIXART, 4, 2), gates=GATES).summary(bytes_of=1_000_000)
    assert "18 of 36 component computations (50.0%)" in text and "peak cache 3.00 MB" in text
    assert len(text.splitlines()) == 1 + 4 + 2
