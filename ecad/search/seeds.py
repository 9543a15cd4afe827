"""The schedules a search begins with: the heuristics anyone could use without it.

In the preset "default" the lines of fewer steps come first, evenly spaced and dense late, so that the front
starts at the baselines to beat and children descend from the better of them.
"""

from __future__ import annotations

from collections.abc import Sequence

from ecad.schedule import Layout, Schedule, heuristics
from ecad.search.settings import SearchSettings


def seed_schedules(
    layout: Layout, rows: int, grid: Sequence[float], settings: SearchSettings
) -> list[Schedule]:
    """Named schedules for generation 0, different ones, at most `settings.seeds_wanted`, uncached first.

    Args:
        grid: the sampler's own times for `rows` rows.
    """
    if settings.preset == "paper":
        library = heuristics.library(layout, rows, grid)
        tiers = [[schedule for schedule in library if schedule.times is None and schedule.rows == rows]]
    else:
        shorter = range(2, rows)
        intervals = [n for n in (2, 3, 4, 5, 7, 10) if n < rows]
        # Rows that stand densely at the end are the stronger baseline; with most of the rows kept it does
        # not matter where they stand.
        dense = range(3, max(4, 2 * rows // 3 + 1))

        def line(spacing: str, every: int = 1) -> list[Schedule]:
            counts = shorter if spacing == "uniform" else dense
            return [
                heuristics.fewer_steps(layout, n, spacing=spacing, grid=grid, every=every)
                for n in counts
                if n < rows and (every == 1 or n > 3 * every)
            ]

        tiers = [
            [heuristics.uncached(layout, rows), *line("uniform")],
            line("late"),
            [heuristics.fora(layout, rows, n) for n in intervals],
            line("late", every=2),
            [
                *(heuristics.cross_and_self(layout, rows, n) for n in intervals),
                *line("uniform", every=2),
            ],
        ]
    chosen: dict[str, Schedule] = {}
    for tier in tiers:
        fresh = {schedule.key: schedule for schedule in tier if schedule.key not in chosen}
        chosen |= {
            schedule.key: schedule
            for schedule in _spread([*fresh.values()], settings.seeds_wanted - len(chosen))
        }
    return list(chosen.values())


def _spread(schedules: list[Schedule], count: int) -> list[Schedule]:
    """At most `count` of them, evenly over the list, its first and last among them."""
    if count >= len(schedules):
        return schedules
    if count <= 1:
        return schedules[: max(0, count)]
    return [schedules[round(i * (len(schedules) - 1) / (count - 1))] for i in range(count)]
