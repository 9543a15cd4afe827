"""Random schedules of a given cost whose stretches have a given mean length, the same on every machine."""

from __future__ import annotations

import numpy as np

from ecad.schedule import Layout, Schedule
from ecad.schedule.costs import CostTable

TRIES = 3000


def mean_stretch(bits: np.ndarray) -> float:
    """Mean length of the runs of skipped components within rows. bits: bool [R, C]; nan if none is skipped."""
    padded = np.pad(~bits, ((0, 0), (1, 1))).astype(np.int8)
    starts = (np.diff(padded, axis=1) == 1).sum()
    return float((~bits).sum() / starts) if starts else float("nan")


def random_schedule(
    layout: Layout, rows: int, table: CostTable, *, ratio: float = 5.0, stretch: float = 12.0
) -> Schedule:
    """The first random schedule found that costs 1 / ratio (2 % off at most) with this mean stretch (0.1 off).

    Both are taken of the canonical form, which is what a plan runs: `table.macs`, and its bits. Within a row,
    computed and skipped runs alternate with geometric lengths; their two means are steered by what the tries
    before gave, and try k draws from rng k.

    Raises ValueError where no try fits, as for a layout too short to hold such stretches.
    """
    full = table.uncached(rows).total
    share, length = 1 / ratio, float(stretch)  # of components computed; mean of the draws' stretches
    for seed in range(TRIES):
        bits = _draw(np.random.default_rng(seed), rows, len(layout), share, length)
        schedule = Schedule(layout, bits, name=f"random {ratio:g}x, stretches of {stretch:g}")
        reached = full / table.macs(schedule).total
        mean = mean_stretch(schedule.canonical().bits)
        if abs(reached / ratio - 1) <= 0.02 and abs(mean - stretch) <= 0.1:
            return schedule
        share = float(np.clip(share * (reached / ratio) ** 0.3, 0.002, 0.95))
        if np.isfinite(mean):
            length = float(np.clip(length * (stretch / mean) ** 0.3, 1, 100 * stretch))
    raise ValueError(f"no random schedule of {layout.name} costs 1/{ratio:g} with stretches of {stretch:g}")


def _draw(rng: np.random.Generator, rows: int, columns: int, share: float, length: float) -> np.ndarray:
    """Bool [rows, columns]: row 0 computed; each other a walk that leaves a run with a fixed chance a step."""
    computed = max(1.0, length * share / (1 - share))
    leave = {True: 1 / computed, False: 1 / max(1.0, length)}
    bits = np.ones((rows, columns), dtype=bool)
    for row in range(1, rows):
        state = bool(rng.random() < share)
        for column in range(columns):
            bits[row, column] = state
            if rng.random() < leave[state]:
                state = not state
    return bits
