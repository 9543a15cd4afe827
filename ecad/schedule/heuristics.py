"""Schedules by rule: the baselines that a search starts from and must beat.

The rules of FORA, cross-and-self, T-GATE and evenly spaced caching are those of the original's generators.
Row numbers count from 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ecad.schedule.errors import ScheduleError
from ecad.schedule.layouts.base import Layout
from ecad.schedule.schedule import Schedule

# The components that mix tokens, by family; the others work on one token at a time.
_ATTENTION = {"pixart": ("attn1", "attn2"), "flux": ("full_attn", "single_attn")}


def uncached(layout: Layout, rows: int) -> Schedule:
    """Everything computed in every row: the stock pipeline."""
    return Schedule(layout, np.ones((rows, len(layout)), dtype=bool), name="uncached")


def fora(layout: Layout, rows: int, n: int) -> Schedule:
    """FORA: everything in every n-th row, nothing between (Selvaraju et al., arXiv 2407.01425).

    Raises:
        ScheduleError: n is below 1.
    """
    _at_least("n", n, 1)
    bits = np.zeros((rows, len(layout)), dtype=bool)
    bits[::n] = True
    return Schedule(layout, bits, name=f"fora-{n}", attributes={"rule": "fora", "n": n})


def cross_and_self(layout: Layout, rows: int, n: int) -> Schedule:
    """All attention in every n-th row, all else in every row. In FLUX: both kinds of blocks' attention.

    Raises:
        ScheduleError: n is below 1.
    """
    _at_least("n", n, 1)
    bits = np.ones((rows, len(layout)), dtype=bool)
    off = np.arange(rows) % n != 0
    bits[np.ix_(off, layout.columns(_ATTENTION[layout.family]))] = False
    return Schedule(layout, bits, name=f"cross-and-self-{n}", attributes={"rule": "cross-and-self", "n": n})


def tgate(
    layout: Layout, rows: int, gate: int = 10, interval: int = 5, warmup: int = 2, *, averaged: bool = False
) -> Schedule:
    """T-GATE (Zhang et al., arXiv 2404.02747): cross-attention to the gate, self-attention sparse before it.

    Before row `gate`: attn1 in the first `warmup` rows and where the row number divides by `interval`, attn2
    always. From the gate on: attn1 always, attn2 never. ff always. Without averaging it is an ordinary
    schedule; with `averaged`, true T-GATE: the mean of attn2's halves is kept and guidance is dropped from
    the gate on.

    Raises:
        ScheduleError: the layout has no cross-attention, the gate is outside 1 ... rows or the interval below
        1.
    """
    if layout.gated is None:
        raise ScheduleError(f"T-GATE needs cross-attention, which {layout.name} does not have.")
    _at_least("interval", interval, 1)
    _at_least("warmup", warmup, 0)
    if not 1 <= gate <= rows:
        raise ScheduleError(f"gate must be 1 to {rows}, the number of rows, not {gate}.")
    row = np.arange(rows)
    bits = np.ones((rows, len(layout)), dtype=bool)
    bits[:, layout.columns("attn1")] = ((row >= gate) | (row < warmup) | (row % interval == 0))[:, None]
    bits[:, layout.columns("attn2")] = (row < gate)[:, None]
    rule = "tgate-averaged" if averaged else "tgate"
    return Schedule(
        layout,
        bits,
        name=f"{rule}-{gate}-{interval}",
        gate_step=gate if averaged else None,
        attributes={
            "rule": rule,
            "gate_step": gate,
            "sp_interval": interval,
            "fi_interval": 1,
            "warmup": warmup,
        },
    )


def evenly_spaced(layout: Layout, rows: int, component: str, blocks: int, steps: int) -> Schedule:
    """One kind of component reused in `blocks` blocks x `steps` rows, both evenly spread; all else computed.

    Of the L blocks that have it: round(j (L-1) / (blocks-1)) for j < blocks (the middle one if blocks is 1).
    Rows: ceil(x - 1) for the inner points x of `steps` + 2 even ones from 0 to rows + 1.

    Raises:
        ScheduleError: no component of this name, or more blocks or steps than there are.
    """
    columns = layout.columns(component)
    if not columns:
        raise ScheduleError(
            f"{layout.name} has no component {component!r}; expected one of {', '.join(layout.names)}."
        )
    if not 1 <= blocks <= len(columns) or not 1 <= steps <= rows:
        raise ScheduleError(
            f"Evenly spaced {component} takes 1 to {len(columns)} blocks and 1 to {rows} steps, "
            f"not {blocks} and {steps}."
        )
    last = len(columns) - 1
    chosen = [round(j * last / (blocks - 1)) for j in range(blocks)] if blocks > 1 else [last // 2]
    # In integers, ceil(k (rows + 1) / (steps + 1) - 1), so that no rounding error can move a row.
    at = [-(-k * (rows + 1) // (steps + 1)) - 1 for k in range(1, steps + 1)]
    bits = np.ones((rows, len(layout)), dtype=bool)
    bits[np.ix_(at, [columns[block] for block in chosen])] = False
    name = f"evenly-{component.replace('_', '-')}-{blocks}x{steps}"
    return Schedule(
        layout,
        bits,
        name=name,
        attributes={
            "rule": "evenly",
            "component": component,
            "num_affected_blocks": blocks,
            "num_affected_steps": steps,
        },
    )


def fewer_steps(
    layout: Layout, rows: int, *, spacing: str = "uniform", grid: Sequence[float], every: int = 1
) -> Schedule:
    """`rows` of the sampler's own times `grid`, and FORA with n = `every` on them: what caching must beat.

    With G times in the grid, row k of R stands at the time of index G f(k / R), rounded half up, f(u) = u for
    "uniform" and f(u) = 1 - (1 - u)^2 for "late", which puts more rows where the image is nearly done;
    indices that would coincide move apart. Both keep the grid's first time (the noise the pass starts from is
    of that time) and treat its end, the image, as row R: so uniform times are those the sampler itself takes
    for R steps, up to the rounding.

    Args:
        grid: the sampler's own times for its full number of steps, falling: integers for PixArt, unshifted
            sigmas for FLUX.

    Raises:
        ScheduleError: more rows than times, an unknown spacing, or times that are none.
    """
    _at_least("every", every, 1)
    indices = subset(rows, len(grid), spacing)
    bits = np.zeros((rows, len(layout)), dtype=bool)
    bits[::every] = True
    name = f"steps-{rows}" + ("-late" if spacing == "late" else "") + (f"-fora-{every}" if every > 1 else "")
    times: dict[str, Any] = {}
    if rows < len(grid):  # with every time of the grid it stands on the sampler's own
        times[layout.times_name] = [grid[index] for index in indices]
    attributes = {"rule": "fewer-steps", "spacing": spacing, "every": every, "of_steps": len(grid)}
    return Schedule(layout, bits, name=name, attributes=attributes, **times)


def subset(rows: int, of: int, spacing: str = "uniform") -> tuple[int, ...]:
    """Which `rows` of `of` times `fewer_steps` takes: strictly rising indices, the first 0.

    >>> subset(8, 20), subset(8, 20, "late")
    ((0, 3, 5, 8, 10, 13, 15, 18), (0, 5, 9, 12, 15, 17, 18, 19))

    Raises:
        ScheduleError: more rows than times, none, or an unknown spacing.
    """
    if spacing not in ("uniform", "late"):
        raise ScheduleError(f"The spacing must be uniform or late, not {spacing!r}.")
    if not 1 <= rows <= of:
        raise ScheduleError(f"Fewer steps of {of} are 1 to {of} rows, not {rows}.")
    indices: list[int] = []
    for k in range(rows):
        # The same in integers: of k / rows, or of (1 - (1 - k / rows)^2), rounded half up.
        if spacing == "uniform":
            index = (2 * of * k + rows) // (2 * rows)
        else:
            index = (2 * of * (rows**2 - (rows - k) ** 2) + rows**2) // (2 * rows**2)
        index = min(index, of - (rows - k))  # room for the rows to come
        indices.append(max(index, indices[-1] + 1) if indices else index)
    return tuple(indices)


def library(layout: Layout, rows: int, grid: Sequence[float] | None = None) -> list[Schedule]:
    """All of these for a layout, each once: the seeds of a search and the lines of a plot.

    Uncached; FORA; cross-and-self; T-GATE without averaging and evenly spaced (PixArt); with a grid of `rows`
    times also fewer steps, 2 ... rows - 1, uniform and late, each uncached, with FORA-2 and with FORA-3.

    Raises:
        ScheduleError: the grid has another number of times than `rows`.
    """
    if grid is not None and len(grid) != rows:
        raise ScheduleError(f"The grid must hold {rows} times, one per row, not {len(grid)}.")
    found = [uncached(layout, rows)]
    found += [fora(layout, rows, n) for n in (2, 3, 4, 5, 7, 10, 20) if n < max(rows, 3)]
    found += [cross_and_self(layout, rows, n) for n in (2, 3, 4, 5, 7, 10) if n < max(rows, 3)]
    if layout.gated is not None:
        gates = sorted({max(1, rows // 2), max(1, 3 * rows // 4)})
        found += [tgate(layout, rows, gate, interval) for gate in gates for interval in (1, 3, 5)]
        deep = len(layout.columns("attn1"))
        spread = [
            (deep - 1 if deep > 1 else 1, steps) for steps in (rows // 4, rows // 2, 3 * rows // 4) if steps
        ]
        found += [evenly_spaced(layout, rows, name, *where) for name in layout.names for where in spread]
    if grid is not None:
        found += [
            fewer_steps(layout, count, spacing=spacing, grid=grid, every=every)
            for count in range(2, rows)
            for spacing in ("uniform", "late")
            for every in (1, 2, 3)
        ]
    unique: dict[str, Schedule] = {}
    for schedule in found:
        unique.setdefault(schedule.key, schedule)
    return list(unique.values())


def _at_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise ScheduleError(f"{name} must be at least {least}, not {value}.")
