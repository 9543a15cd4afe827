"""What a schedule is: its identity, its immutability, what it refuses."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys

import numpy as np
import pytest

from ecad.schedule import Schedule, ScheduleError, flux_layout, heuristics, layout, pixart_layout
from ecad.schedule.times import dpm_solver_timesteps, flow_sigmas

TINY = pixart_layout(2)


def test_importing_schedules_costs_and_commands_loads_no_torch():
    code = (
        "import sys, ecad, ecad.schedule, ecad.schedule.costs, ecad.schedule.heuristics, ecad.schedule.edits;"
        "import ecad.workbench.macs, ecad.workbench.schedules;"
        "sys.exit(any(heavy in sys.modules for heavy in ('torch', 'diffusers', 'transformers', 'pandas')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_layouts_are_block_major_in_the_order_of_the_original():
    pixart, flux = layout("pixart-alpha"), layout("flux-dev")
    assert (len(pixart), len(flux)) == (84, 171)
    assert (pixart.name, flux.name) == ("pixart-28", "flux-19-38")
    # The original's genome order: block * 3 + offset, and 57 + single block * 3 + offset.
    assert pixart.by_place["5", "ff"] == 5 * 3 + 2
    assert flux.by_place["5", "full_ff_context"] == 5 * 3 + 2
    assert flux.by_place["single_5", "single_proj_mlp"] == 57 + 5 * 3 + 1
    assert [c.index for c in flux.components] == list(range(171))
    assert flux.names[:3] == ("full_attn", "full_ff", "full_ff_context")
    assert layout("flux-2-3") == flux_layout(2, 3) != pixart_layout(2)


def test_names_metrics_and_neutral_bits_are_no_part_of_the_identity():
    schedule = heuristics.fora(TINY, 6, 2)
    bits = schedule.bits.copy()
    bits[0, 1] = False
    other = Schedule(
        TINY, bits, name="other", model="x", config={"height": 1}, metrics={"a": 1}, attributes={"b": 2}
    )
    assert schedule == other
    assert hash(schedule) == hash(other)
    assert schedule.key == other.key
    assert len({schedule, other}) == 1


def test_bits_times_layout_and_gate_are():
    schedule = heuristics.fora(TINY, 6, 2)
    bits = schedule.bits.copy()
    bits[1, 0] = True
    different = [
        schedule,
        schedule.replace(bits=bits),
        schedule.replace(timesteps=[999, 800, 600, 400, 200, 1]),
        schedule.replace(timesteps=[999, 800, 600, 400, 200, 2]),
        schedule.replace(gate_step=2),
        schedule.replace(gate_step=4),
        heuristics.fora(TINY, 7, 2),
        heuristics.fora(pixart_layout(3), 6, 2),
    ]
    assert len({s.key for s in different}) == len(different)


def test_a_gate_after_the_last_row_does_nothing():
    schedule = heuristics.fora(TINY, 6, 2)
    assert schedule.replace(gate_step=6) == schedule


def test_the_key_is_stable_over_processes_and_versions():
    """Stored runs are found again by it."""
    assert heuristics.fora(layout("storybook"), 20, 3).key == "f9334e9ecaac2bfa3f59b082ac55c056"
    assert (
        heuristics.fora(layout("flux-dev"), 20, 3).replace(sigmas=flow_sigmas(20)).key
        == "b7f6d1e63312980189a46fbf044027f3"
    )


def test_a_schedule_does_not_change():
    given = np.ones((3, len(TINY)), bool)
    schedule = Schedule(TINY, given, config={"a": [1]})
    given[:] = False
    assert schedule.bits.all()
    with pytest.raises(ValueError, match="read-only"):
        schedule.bits[0, 0] = False
    with pytest.raises(AttributeError, match="replace"):
        schedule.name = "x"
    config = {"a": [1]}
    schedule = Schedule(TINY, given, config=config)
    config["a"].append(2)
    assert schedule.config == {"a": [1]}


def test_copies_and_pickles_are_equal_and_carry_everything():
    schedule = heuristics.fora(TINY, 4, 2).replace(
        timesteps=[900, 500, 100, 0], model="m", metrics={"x": 1}, extra={"note": "y"}
    )
    for other in (copy.deepcopy(schedule), pickle.loads(pickle.dumps(schedule))):
        assert other == schedule
        assert (other.model, other.metrics, other.extra) == ("m", {"x": 1}, {"note": "y"})
        assert not other.bits.flags.writeable


def test_replacing_bits_drops_what_was_measured_of_the_old_ones():
    schedule = heuristics.fora(TINY, 4, 2).replace(metrics={"total_macs": 5}, attributes={"n": 2})
    assert schedule.replace(name="x").metrics == {"total_macs": 5}
    changed = schedule.replace(bits=np.ones((4, len(TINY)), bool))
    assert (changed.metrics, changed.attributes) == ({}, {})
    with pytest.raises(TypeError, match="colour"):
        schedule.replace(colour="red")


def test_call_names_what_the_pipeline_must_be_called_with():
    schedule = heuristics.uncached(TINY, 3)
    assert schedule.call() == {"num_inference_steps": 3}
    assert schedule.replace(timesteps=np.array([9, 5, 0])).call() == {"timesteps": [9, 5, 0]}
    flux = heuristics.uncached(flux_layout(1, 1), 2)
    assert flux.replace(sigmas=[1, 0.5]).call() == {"sigmas": [1.0, 0.5]}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"timesteps": [1, 2, 3]}, r"fall strictly, but timesteps\[1\] is 2 after 1"),
        ({"timesteps": [5, 5, 3]}, "fall strictly"),
        ({"timesteps": [5, 3]}, "hold 3 times, one per row, not 2"),
        ({"timesteps": [1000, 3, 1]}, r"timesteps\[0\] must lie in 0 to 999, not 1000"),
        ({"timesteps": [5, 3, -1]}, r"timesteps\[2\] must lie in 0 to 999"),
        ({"timesteps": [5, 3.0, 1]}, r"timesteps\[1\] must be an integer, not 3.0"),
        ({"timesteps": [5, 3, True]}, r"timesteps\[2\] must be an integer"),
        ({"sigmas": [1.0, 0.5, 0.1]}, "sigmas are for FLUX"),
        ({"gate_step": 0}, "from 1 to 3"),
        ({"gate_step": 4}, "from 1 to 3"),
        ({"bits": np.ones((3, 5), bool)}, "shape rows x 6, not 3 x 5"),
        ({"bits": np.ones((3, 6), int)}, "booleans, not int64"),
        ({"bits": np.ones((0, 6), bool)}, "1 to 1000 rows, not 0"),
    ],
)
def test_wrong_pixart_schedules_are_refused(changes, says):
    schedule = heuristics.uncached(TINY, 3)
    with pytest.raises(ScheduleError, match=says):
        schedule.replace(**changes)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"sigmas": [0.5, 0.6, 0.1]}, r"sigmas\[1\] is 0.6 after 0.5"),
        ({"sigmas": [1.0, 0.5, 0.0]}, r"sigmas\[2\] must be above 0 and at most 1, not 0.0"),
        ({"sigmas": [1.5, 0.5, 0.1]}, r"sigmas\[0\]"),
        ({"sigmas": [1.0, float("nan"), 0.1]}, r"sigmas\[1\] must be above 0"),
        ({"sigmas": [1.0, "0.5", 0.1]}, r"sigmas\[1\] must be a number"),
        ({"timesteps": [3, 2, 1]}, "timesteps are for PixArt"),
        ({"gate_step": 2}, "T-GATE is for PixArt"),
    ],
)
def test_wrong_flux_schedules_are_refused(changes, says):
    schedule = heuristics.uncached(flux_layout(1, 1), 3)
    with pytest.raises(ScheduleError, match=says):
        schedule.replace(**changes)


def test_tgate_needs_the_other_components_in_the_row_of_the_gate():
    """Their kept values are of both guidance halves, and one is left."""
    schedule = heuristics.fora(TINY, 6, 2)
    with pytest.raises(ScheduleError, match="Step 003, block 0: attn1 must be true"):
        schedule.replace(gate_step=3)


def test_canonical_keeps_what_is_said_and_returns_itself_when_there_is_nothing_to_do():
    schedule = heuristics.fora(TINY, 4, 2)
    assert schedule.canonical() is schedule
    bits = schedule.bits.copy()
    bits[0] = False
    raw = Schedule(
        TINY, bits, name="n", attributes={"a": 1}, metrics={"total_macs": 1}, timesteps=[4, 3, 2, 1]
    )
    canonical = raw.canonical()
    assert (canonical.name, canonical.attributes, canonical.timesteps) == ("n", {"a": 1}, (4, 3, 2, 1))
    assert canonical.metrics == {}


def test_grids_equal_those_of_the_samplers_in_diffusers():
    diffusers = pytest.importorskip("diffusers")
    sampler = diffusers.DPMSolverMultistepScheduler()
    for rows in (1, 2, 3, 8, 14, 20, 50, 100):
        sampler.set_timesteps(rows)
        assert dpm_solver_timesteps(rows) == tuple(sampler.timesteps.tolist())
    assert dpm_solver_timesteps(20)[:3] == (999, 949, 899)
    assert flow_sigmas(4) == (1.0, 0.75, 0.5, 0.25)
