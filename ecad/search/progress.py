"""Where a search stands, and when it will end."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from ecad.search.settings import SearchSettings

OVERHEAD = 0.25  # what an evaluation takes besides denoising, as a share of an uncached one
USUAL_COST = 0.4  # of a child that is not born yet


@dataclass(frozen=True)
class Progress:
    """Where a search stands.

    Attributes:
        state: "new", "running", "pausing", "paused", "stopping", "stopped", "finished" or "failed".
        message: why it finished or failed, or what it is doing, in words.
        generation: number of the present generation, 0 for the seeds.
        generations: the last generation's number, or None without such a limit.
        done, wanted: candidates of the present generation evaluated, and all of them.
        evaluations: finished evaluations of the run, brought in by anyone.
        seconds: device time spent on evaluations, all sessions together.
        eta: seconds to the end at the present pace; None where no limit allows a guess.
        hypervolume: of the front after the last finished generation; None before the first.
    """

    state: str
    message: str
    generation: int
    generations: int | None
    done: int
    wanted: int
    evaluations: int
    seconds: float
    eta: float | None
    hypervolume: float | None


class Pace:
    """Seconds per effort of the last evaluations, where effort is cost plus a constant overhead."""

    def __init__(self) -> None:
        self._taken: deque[tuple[float, float]] = deque(maxlen=16)  # (effort, wall seconds)
        self._left = 0.0  # effort of the present generation's candidates that are not evaluated yet

    def took(self, cost: float, seconds: float) -> None:
        """Note an evaluation that was computed."""
        self._taken.append((cost + OVERHEAD, seconds))

    def left(self, costs: Sequence[float]) -> None:
        """Say which candidates of the present generation are still to do."""
        self._left = sum(cost + OVERHEAD for cost in costs)

    def eta(
        self, settings: SearchSettings, generation: int, evaluations: int, seconds: float
    ) -> float | None:
        """Seconds to the first limit one can foresee; None before the first evaluation or without one."""
        taken = list(self._taken)
        if not taken:
            return None
        per_effort = sum(seconds for _, seconds in taken) / sum(effort for effort, _ in taken)
        child = (USUAL_COST + OVERHEAD) * per_effort
        ends = []
        if settings.generations is not None:
            later = max(0, settings.generations - generation) * settings.population
            ends.append(later * child + self._left * per_effort)
        if settings.evaluations is not None:
            ends.append((settings.evaluations - evaluations) * child)
        if settings.time_limit is not None:
            ends.append(settings.time_limit - seconds)
        return max(0.0, min(ends)) if ends else None
