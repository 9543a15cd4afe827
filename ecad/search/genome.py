"""Genomes: what the search varies, and the way from them to schedules and back.

`RawGenome` is the paper's: every bit of the schedule. `RowGenome` is ours: besides the bits it decides which
rows of the sampler's grid exist at all, so that "fewer steps" and caching are one search space. Only free
bits are in
it: the first row always exists and always computes everything.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from ecad.schedule import Layout, Schedule
from ecad.search.errors import SearchError


class Genome(Protocol):
    """A coding of schedules as bool [length]."""

    length: int

    def encode(self, schedule: Schedule) -> np.ndarray:
        """The genome of a schedule; `SearchError` if this search has none for it."""

    def decode(self, genome: np.ndarray) -> Schedule:
        """The schedule of any genome."""


class RawGenome:
    """All R x C bits of a schedule on the sampler's own grid."""

    def __init__(self, layout: Layout, rows: int):
        self.layout, self.rows = layout, rows
        self.length = rows * len(layout)

    def encode(self, schedule: Schedule) -> np.ndarray:
        _check_layout(schedule, self.layout)
        if schedule.rows != self.rows:
            raise SearchError(
                f"this search takes schedules of {self.rows} steps; {_named(schedule)} has {schedule.rows}"
            )
        if schedule.times is not None:
            raise SearchError(f"this search keeps the sampler's own times; {_named(schedule)} brings others")
        return schedule.bits.reshape(-1).copy()

    def decode(self, genome: np.ndarray) -> Schedule:
        return Schedule(self.layout, genome.reshape(self.rows, -1))


class RowGenome:
    """Which of the grid's later rows exist, bool [R - 1], then their bits, bool [(R - 1) x C].

    Bits of a row that does not exist are true and mean nothing: `normalise` sees to it, so that no two
    genomes differ in them. At least one row besides the first exists, because stock pipelines fail on a
    single step.

    Args:
        grid: the sampler's own times for all rows, falling.
        kind: how a schedule takes them, "timesteps" or "sigmas".
    """

    def __init__(self, layout: Layout, grid: Sequence[float], *, kind: str = "timesteps"):
        if len(grid) < 3:
            raise SearchError(f"a search needs a sampler of at least 3 steps, not {len(grid)}")
        self.layout, self.grid, self.kind = layout, tuple(grid), kind
        self.rows = len(self.grid)
        self.length = (self.rows - 1) * (1 + len(layout))

    def parts(self, genome: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Views of a genome: exists bool [R - 1], bits bool [R - 1, C]."""
        later = self.rows - 1
        return genome[:later], genome[later:].reshape(later, len(self.layout))

    def normalise(self, genome: np.ndarray) -> np.ndarray:
        """Make a genome valid, in place: some later row exists, rows that do not have neutral bits."""
        exists, bits = self.parts(genome)
        if not exists.any():
            exists[len(exists) // 2] = True
        bits[~exists] = True
        return genome

    def encode(self, schedule: Schedule) -> np.ndarray:
        _check_layout(schedule, self.layout)
        genome = np.ones(self.length, dtype=bool)
        exists, bits = self.parts(genome)
        exists[:] = False
        for row, place in enumerate(self._places(schedule)):
            if row:
                exists[place - 1] = True
                bits[place - 1] = schedule.bits[row]
        return genome

    def _places(self, schedule: Schedule) -> list[int]:
        """The grid's index of each row of a schedule."""
        times = schedule.timesteps if self.kind == "timesteps" else schedule.sigmas
        other = schedule.sigmas if self.kind == "timesteps" else schedule.timesteps
        if times is None and other is None and schedule.rows == self.rows:
            return list(range(self.rows))
        index = {time: place for place, time in enumerate(self.grid)}
        fits = (
            times is not None
            and len(times) >= 2
            and times[0] == self.grid[0]
            and all(t in index for t in times)
        )
        if not fits:
            raise SearchError(
                f"{_named(schedule)} cannot enter this search: its rows must stand on at least two of the"
                f" sampler's {self.rows} {self.kind}, the first of them included"
            )
        return [index[time] for time in times]

    def decode(self, genome: np.ndarray) -> Schedule:
        exists, bits = self.parts(self.normalise(genome.copy()))
        kept = np.flatnonzero(exists)
        full = np.concatenate([np.ones((1, len(self.layout)), dtype=bool), bits[kept]])
        if len(kept) == self.rows - 1:
            return Schedule(self.layout, full)
        return Schedule(self.layout, full, **{self.kind: tuple(self.grid[i] for i in (0, *(kept + 1)))})


def _check_layout(schedule: Schedule, layout: Layout) -> None:
    if schedule.layout.name != layout.name:
        raise SearchError(
            f"{_named(schedule)} is for {schedule.layout.name}, but this search is for {layout.name}"
        )


def _named(schedule: Schedule) -> str:
    return f"the schedule {schedule.name!r}" if schedule.name else "the schedule"
