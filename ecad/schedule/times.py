"""The times the rows stand at: checks of a schedule's own times, and the samplers' own grids."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from ecad.schedule.errors import ScheduleError
from ecad.schedule.layouts.base import Layout

TRAIN_STEPS = 1000  # PixArt and Storybook are trained on the times 0 ... 999


def dpm_solver_timesteps(rows: int, train_steps: int = TRAIN_STEPS) -> tuple[int, ...]:
    """The grid of diffusers' `DPMSolverMultistepScheduler` for this many steps with linspace spacing.

    The times divide [0, train_steps - 1] evenly, from the highest down, without 0: at 0 stands the image.

    >>> dpm_solver_timesteps(4)
    (999, 749, 500, 250)
    """
    grid = np.linspace(0, train_steps - 1, rows + 1).round()[::-1][:-1]
    return tuple(int(t) for t in grid)


def flow_sigmas(rows: int) -> tuple[float, ...]:
    """The unshifted sigmas that diffusers' `FluxPipeline` gives its sampler for this many steps.

    1 down to 1 / rows.
    """
    return tuple(float(s) for s in np.linspace(1.0, 1 / rows, rows))


def own_grid(layout: Layout, rows: int) -> tuple[int, ...] | tuple[float, ...]:
    """The sampler's own grid for a layout's family: timesteps for PixArt, sigmas for FLUX."""
    return flow_sigmas(rows) if layout.family == "flux" else dpm_solver_timesteps(rows)


def check_timesteps(timesteps: Iterable[int] | None, rows: int, layout: Layout) -> tuple[int, ...] | None:
    """`timesteps` as a tuple of Python integers.

    Raises:
        ScheduleError: they do not belong to this layout, are not `rows` integers in [0, 999], or do not fall.
    """
    if timesteps is None:
        return None
    if layout.family != "pixart":
        raise ScheduleError(
            f"timesteps are for PixArt; a schedule for {layout.name} names its times as sigmas."
        )
    given = list(timesteps)
    for row, t in enumerate(given):
        if isinstance(t, bool | np.bool_) or not isinstance(t, int | np.integer):
            raise ScheduleError(f"timesteps[{row}] must be an integer, not {t!r}.")
        if not 0 <= t < TRAIN_STEPS:
            raise ScheduleError(f"timesteps[{row}] must lie in 0 to {TRAIN_STEPS - 1}, not {t}.")
    _check_count_and_fall("timesteps", given, rows)
    return tuple(int(t) for t in given)


def check_sigmas(sigmas: Iterable[float] | None, rows: int, layout: Layout) -> tuple[float, ...] | None:
    """`sigmas` as a tuple of Python floats.

    Raises:
        ScheduleError: they do not belong to this layout, are not `rows` numbers in (0, 1], or do not fall.
    """
    if sigmas is None:
        return None
    if layout.family != "flux":
        raise ScheduleError(
            f"sigmas are for FLUX; a schedule for {layout.name} names its times as timesteps."
        )
    given = list(sigmas)
    for row, s in enumerate(given):
        if isinstance(s, bool | np.bool_) or not isinstance(s, int | float | np.number):
            raise ScheduleError(f"sigmas[{row}] must be a number, not {s!r}.")
        if not (math.isfinite(s) and 0 < s <= 1):
            raise ScheduleError(f"sigmas[{row}] must be above 0 and at most 1, not {s}.")
    _check_count_and_fall("sigmas", given, rows)
    return tuple(float(s) for s in given)


def check_gate_step(gate_step: int | None, bits: np.ndarray, layout: Layout) -> int | None:
    """T-GATE's gate as a Python integer.

    Raises:
        ScheduleError: the layout knows no T-GATE, the gate is outside 1 ... R, or in the gate's row a
            component would reuse a value of both guidance halves where one half is left.
    """
    if gate_step is None:
        return None
    if layout.gated is None:
        raise ScheduleError(f"T-GATE is for PixArt; a schedule for {layout.name} cannot have a gate_step.")
    rows = len(bits)
    if (
        isinstance(gate_step, bool)
        or not isinstance(gate_step, int | np.integer)
        or not 1 <= gate_step <= rows
    ):
        raise ScheduleError(
            f"gate_step must be an integer from 1 to {rows}, the number of rows, not {gate_step!r}."
        )
    if gate_step < rows:
        for component in layout.components:
            if component.name != layout.gated and not bits[gate_step, component.index]:
                raise ScheduleError(
                    f"Step {gate_step:03}, block {component.block}: {component.name} must be true in the "
                    "gate_step of T-GATE, for its kept value is of both guidance halves."
                )
    return int(gate_step)


def _check_count_and_fall(what: str, times: list, rows: int) -> None:
    if len(times) != rows:
        raise ScheduleError(f"{what} must hold {rows} times, one per row, not {len(times)}.")
    for row in range(1, rows):
        if times[row] >= times[row - 1]:
            raise ScheduleError(
                f"{what} must fall strictly, but {what}[{row}] is {times[row]} after {times[row - 1]}."
            )
