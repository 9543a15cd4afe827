"""Which code executes which model class. Looked up by class name, imported when first needed.

A family's module offers one class with the methods of `Model`; nothing else here knows a family.
"""

from __future__ import annotations

import importlib
from typing import Any, Protocol

from ecad.execution.errors import ExecutionError
from ecad.execution.lowering import Lowering
from ecad.execution.passes import Components, Pass
from ecad.execution.plan import Plan
from ecad.schedule import Layout, Schedule

MODES = ("reference", "fast")

# Class name of the transformer -> (module, class) of its family.
FAMILIES = {
    "FluxTransformer2DModel": ("ecad.models.flux", "FluxModel"),
    "PixArtTransformer2DModel": ("ecad.models.pixart", "PixArtModel"),
}


class Model(Protocol):
    """A loaded transformer, ready to execute schedules. Holds what passes share (packed weights), never a
    cache.
    """

    layout: Layout
    lower: Lowering
    """`lower(schedule)`: the plan of this mode for a schedule of this layout."""

    def components(self, plan: Plan, timesteps: Any) -> Components:
        """The components of one new pass whose rows stand at `timesteps` [R], the scheduler's own tensor."""

    def grid(self, scheduler: Any, schedule: Schedule, inputs: dict[str, Any]) -> Any:
        """The timesteps [R] that `scheduler` holds when the pipeline is called as `schedule.call()` says."""

    def run(self, one_pass: Pass, row: int, inputs: dict[str, Any]) -> Any:
        """One row of a pass: the model's output for the inputs of its forward."""

    def release(self) -> None:
        """Hold no packed weights between passes, for a transformer that is offloaded."""

    def at_first_time(self, inputs: dict[str, Any], timesteps: Any) -> bool:
        """Whether a model call's inputs stand at the first of these timesteps."""


def open_model(transformer: Any, mode: str, compile: bool | str = False) -> Model:
    """The family's model for a transformer.

    mode: "reference" or "fast". compile: whether torch compiles the fast mode's components; a text names its backend.

    Raises ExecutionError for another mode or a class without a family.
    """
    check_mode(mode)
    if compile and mode != "fast":
        raise ExecutionError(
            "only the fast mode is compiled; the reference mode runs the model's own modules"
        )
    for kind in type(transformer).__mro__:
        if kind.__name__ in FAMILIES:
            module, name = FAMILIES[kind.__name__]
            return getattr(importlib.import_module(module), name)(transformer, mode, compile)
    supported = ", ".join(sorted(FAMILIES))
    raise ExecutionError(
        f"{type(transformer).__name__} is not supported: schedules run on pipelines whose transformer is"
        f" {supported}"
    )


def check_mode(mode: str) -> None:
    """Raise ExecutionError for a mode that does not exist."""
    if mode not in MODES:
        raise ExecutionError(f"the mode is one of {', '.join(MODES)}, not {mode!r}")


def check_schedule(schedule: Schedule, layout: Layout) -> None:
    """Raise ExecutionError unless the schedule was made for this layout."""
    if schedule.layout != layout:
        raise ExecutionError(
            f"the schedule is for {schedule.layout.name} ({len(schedule.layout)} components a row),"
            f" but the model is {layout.name} ({len(layout)} components a row)"
        )
