"""Samplers' times: what a pass checks before its first row, since diffusers checks neither order nor
range.
"""

from __future__ import annotations

import copy
from typing import Any

from ecad.execution.errors import ExecutionError
from ecad.schedule import Schedule


def check_scheduler(scheduler: Any) -> None:
    """Raise ExecutionError for a sampler whose rows cannot be told apart or that calls the model twice a
    step.
    """
    name = type(scheduler).__name__
    if getattr(scheduler, "order", 1) != 1:
        raise ExecutionError(
            f"{name} calls the model {scheduler.order} times a step, and a schedule has one row per step;"
            " use a sampler that calls it once, such as DPMSolverMultistepScheduler"
        )
    if not hasattr(scheduler, "step_index"):
        raise ExecutionError(
            f"{name} does not tell which step it is at (it has no `step_index`); use another sampler"
        )


def own_grid(scheduler: Any, rows: int) -> tuple[int, ...]:
    """The sampler's own timesteps for this number of rows. The scheduler itself is left as it is."""
    grid = copy.deepcopy(scheduler)
    grid.set_timesteps(rows)
    return tuple(int(t) for t in grid.timesteps)


def set_times(scheduler: Any, schedule: Schedule, device: Any = None) -> Any:
    """Put a PixArt-style scheduler on the schedule's times; returns its timesteps [R].

    Raises ExecutionError when the schedule's own timesteps leave the sampler's range, or the sampler takes
    none.
    """
    if schedule.sigmas is not None:
        raise ExecutionError("the schedule names sigmas, but this sampler's rows stand at timesteps")
    if schedule.timesteps is None:
        scheduler.set_timesteps(schedule.rows, device=device)
        return scheduler.timesteps
    times = list(schedule.timesteps)  # the schedule has checked that they are whole numbers and fall
    limit = int(scheduler.config.num_train_timesteps)
    if times[0] >= limit:
        raise ExecutionError(
            f"the schedule's timesteps must lie in 0 ... {limit - 1}, but they begin at {times[0]}"
        )
    try:
        scheduler.set_timesteps(timesteps=times, device=device)
    except (TypeError, ValueError) as error:
        raise ExecutionError(
            f"{type(scheduler).__name__} cannot run on a schedule's own timesteps: {error}"
        ) from error
    return scheduler.timesteps
