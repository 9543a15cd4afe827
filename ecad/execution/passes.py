"""One pass: a plan executed row by row over a model's components, with the pass's own cache.

The model is given as `Components`: its blocks as a few methods over streams that only they know. The pass
holds everything that outlives a row, so no image ever sees another image's features, and a dropped pass
frees it all.
"""

from __future__ import annotations

from typing import Any, Protocol

from ecad.execution.errors import ExecutionError
from ecad.execution.plan import Compute, Plan, Segment


class Components(Protocol):
    """A model's components as the pass sees them. One object serves one pass.

    `begin` takes one model call's inputs and sets the streams; `compute` evaluates a component on them and
    on the kept values, adds what it yields with the gates of this row, and returns the values to keep by
    their positions in `Layout.values` (DESIGN C1: before gate and residual); `combine` adds a stretch of
    kept values and segments; `finish` turns the streams into the model's output.
    """

    def begin(self, row: int, **inputs: Any) -> None: ...

    def compute(self, step: Compute, values: dict[int, Any]) -> dict[int, Any]: ...

    def combine(self, values: list[tuple[int, Any]], segments: list[tuple[Segment, Any]]) -> None: ...

    def open_segment(self, segment: Segment) -> None: ...

    def close_segment(self, segment: Segment) -> Any: ...

    def finish(self) -> Any: ...


class Pass:
    """The state of one denoising loop under a plan: call it once per row, in order.

    >>> output = a_pass(row, hidden_states=..., timestep=...)        # doctest: +SKIP
    """

    def __init__(self, plan: Plan, components: Components) -> None:
        self.plan = plan
        self.components = components
        self.next_row = 0
        self.values: dict[int, Any] = {}
        self.segments: dict[Segment, Any] = {}

    def __call__(self, row: int, **inputs: Any) -> Any:
        """Run one row; returns the model's output.

        Raises ExecutionError when rows do not come in order: the kept values would be another row's.
        """
        if row != self.next_row:
            raise ExecutionError(
                f"row {row} of the schedule was called where row {self.next_row} was due; start the pass anew"
            )
        components, values = self.components, self.values
        components.begin(row, **inputs)
        segment = None
        for step in self.plan.steps[row]:
            if type(step) is Compute:
                if step.segment is not segment:
                    self._close(segment)
                    segment = step.segment
                    if segment is not None:
                        components.open_segment(segment)
                yielded = components.compute(step, values)
                for v in step.keep:
                    values[v] = yielded[v]
                del yielded
            else:
                self._close(segment)
                segment = None
                components.combine(
                    [(v, values[v]) for v in step.values],
                    [(one, self.segments[one]) for one in step.segments],
                )
                for one in step.free_segments:
                    del self.segments[one]
            for v in step.free:
                del values[v]
        self._close(segment)
        self.next_row = row + 1
        return components.finish()

    def _close(self, segment: Segment | None) -> None:
        if segment is not None:
            self.segments[segment] = self.components.close_segment(segment)
