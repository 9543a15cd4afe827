"""Each heuristic follows its rule."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from ecad.schedule import ScheduleError, flux_layout, heuristics, layout, pixart_layout
from ecad.schedule.times import dpm_solver_timesteps, flow_sigmas

GRID = dpm_solver_timesteps(20)
PIXART, FLUX = layout("pixart-alpha"), layout("flux-dev")


@pytest.mark.parametrize("n", range(1, 21))
def test_fora_computes_all_in_every_nth_row(n):
    bits = heuristics.fora(PIXART, 20, n).bits
    assert [row for row in range(20) if bits[row].any()] == list(range(0, 20, n))
    assert all(bits[row].all() for row in range(0, 20, n))


def test_cross_and_self_reuses_attention_only():
    bits = heuristics.cross_and_self(PIXART, 20, 3).bits
    off = [row for row in range(20) if row % 3]
    assert not bits[np.ix_(off, PIXART.columns(("attn1", "attn2")))].any()
    assert bits[:, list(PIXART.columns("ff"))].all()
    flux = heuristics.cross_and_self(FLUX, 4, 2).bits
    assert {FLUX.components[c].name for c in np.flatnonzero(~flux[1])} == {"full_attn", "single_attn"}


def test_tgate_follows_the_rule_of_the_original():
    bits = heuristics.tgate(PIXART, 20, 10, 3, 2).bits
    rows = {name: bits[:, list(PIXART.columns(name))] for name in PIXART.names}
    assert np.flatnonzero(rows["attn1"].all(1)).tolist() == [0, 1, 3, 6, 9, *range(10, 20)]
    assert np.flatnonzero(rows["attn2"].all(1)).tolist() == list(range(10))
    assert rows["ff"].all()
    assert all((r.all(1) == r.any(1)).all() for r in rows.values())


def test_true_tgate_has_the_same_bits_and_a_gate():
    plain, true = heuristics.tgate(PIXART, 20, 10, 3), heuristics.tgate(PIXART, 20, 10, 3, averaged=True)
    assert np.array_equal(plain.bits, true.bits)
    assert (plain.gate_step, true.gate_step) == (None, 10)
    assert plain != true


@pytest.mark.parametrize("steps", range(1, 21))
def test_evenly_spaced_rows_are_those_of_the_original(steps):
    bits = heuristics.evenly_spaced(PIXART, 20, "attn2", 27, steps).bits
    rows = np.ceil(np.round(np.linspace(0, 21, steps + 2)[1:-1] - 1, 9)).astype(int)
    assert np.flatnonzero(~bits.all(1)).tolist() == rows.tolist()
    blocks = [round(j * 27 / 26) for j in range(27)]
    off = [PIXART.components[c] for c in np.flatnonzero(~bits[rows[0]])]
    assert [(c.block, c.name) for c in off] == [(str(block), "attn2") for block in blocks]


@pytest.mark.parametrize("rows", range(2, 20))
@pytest.mark.parametrize("spacing", ["uniform", "late"])
def test_fewer_steps_stand_on_a_falling_subset_of_the_grid_from_its_first_time(rows, spacing):
    schedule = heuristics.fewer_steps(PIXART, rows, spacing=spacing, grid=GRID)
    times = schedule.timesteps
    assert len(times) == schedule.rows == rows
    assert times[0] == GRID[0] == 999
    assert set(times) <= set(GRID)
    assert all(a > b for a, b in itertools.pairwise(times))
    assert schedule.bits.all()


@pytest.mark.parametrize("rows", [2, 4, 5, 10])
def test_uniform_fewer_steps_are_the_samplers_own_where_they_divide_the_grid(rows):
    times = heuristics.fewer_steps(PIXART, rows, grid=GRID).timesteps
    assert times == pytest.approx(dpm_solver_timesteps(rows), abs=1)  # the sampler rounds to integers
    sigmas = heuristics.fewer_steps(FLUX, rows, grid=flow_sigmas(20)).sigmas
    assert sigmas == pytest.approx(flow_sigmas(rows))


def test_late_steps_lie_denser_towards_the_end():
    gaps = np.diff(heuristics.subset(8, 20, "late"))
    assert (np.diff(gaps) <= 0).all()
    assert gaps[0] > gaps[-1] == 1


def test_fewer_steps_with_fora_compute_every_nth_of_them():
    schedule = heuristics.fewer_steps(PIXART, 9, grid=GRID, every=3)
    assert np.flatnonzero(schedule.bits.all(1)).tolist() == [0, 3, 6]
    assert not schedule.bits[[1, 2, 4, 5, 7, 8]].any()
    assert schedule.name == "steps-9-fora-3"


def test_all_steps_of_the_grid_are_the_uncached_schedule():
    assert heuristics.fewer_steps(PIXART, 20, grid=GRID) == heuristics.uncached(PIXART, 20)


@pytest.mark.parametrize(
    "of", [pixart_layout(28), pixart_layout(1), pixart_layout(2), flux_layout(1, 1), FLUX]
)
@pytest.mark.parametrize("rows", [1, 2, 3, 4, 20])
def test_the_library_holds_no_schedule_and_no_name_twice(of, rows):
    grid = flow_sigmas(rows) if of.family == "flux" else dpm_solver_timesteps(rows)
    found = heuristics.library(of, rows, grid)
    assert len({s.key for s in found}) == len({s.name for s in found}) == len(found)
    assert found[0].name == "uncached"
    assert all(s.rows <= rows for s in found)


def test_the_library_holds_what_a_search_is_measured_against():
    names = {s.name for s in heuristics.library(PIXART, 20, GRID)}
    expected = {f"fora-{n}" for n in (2, 3, 4, 5, 7)} | {"cross-and-self-3", "tgate-10-5", "evenly-ff-27x10"}
    expected |= {f"steps-{n}{tail}" for n in range(3, 20) for tail in ("", "-fora-2")}
    expected |= {f"steps-{n}-late" for n in range(3, 19)}
    assert expected <= names
    # Without a grid, no schedule has times of its own.
    assert all(s.times is None for s in heuristics.library(PIXART, 20))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: heuristics.fora(PIXART, 20, 0), "n must be at least 1"),
        (lambda: heuristics.tgate(FLUX, 20), "needs cross-attention"),
        (lambda: heuristics.tgate(PIXART, 20, 21), "gate must be 1 to 20"),
        (lambda: heuristics.evenly_spaced(PIXART, 20, "attn3", 1, 1), "expected one of attn1, attn2, ff"),
        (
            lambda: heuristics.evenly_spaced(PIXART, 20, "ff", 29, 1),
            "1 to 28 blocks and 1 to 20 steps, not 29 and 1",
        ),
        (lambda: heuristics.fewer_steps(PIXART, 21, grid=GRID), "1 to 20 rows, not 21"),
        (lambda: heuristics.fewer_steps(PIXART, 5, grid=GRID, spacing="early"), "uniform or late"),
        (lambda: heuristics.library(PIXART, 20, GRID[:5]), "20 times, one per row, not 5"),
    ],
)
def test_impossible_rules_are_refused(make, says):
    with pytest.raises(ScheduleError, match=says):
        make()
