"""One pass: a plan executed row by row over a model's components, with the pass's own cache.

The model is given as `Components`: its blocks as a few methods over streams that only they know. The pass
holds everything that outlives a row, so no image ever sees another image's features, and a dropped pass
frees it all.
"""

from __future__ import annotations

from typing import Any, Protocol

from ecad.execution.errors import ExecutionError
from ecad.execution.kept import KeptValues
from ecad.execution.plan import Compute, Plan, Segment, Step


class Components(Protocol):
    """A model's components as the pass sees them. One object serves one pass.

    `begin` takes one model call's inputs and sets the streams; `compute` evaluates a component on them and
    on the kept values, adds what it yields with the gates of this row, and returns the values to keep by
    their positions in `Layout.values` (before gate and residual), which it may have written into
    `values.room(...)`; `combine` adds a stretch of kept values and segments; `finish` turns the streams into
    the model's output.
    """

    def begin(self, row: int, **inputs: Any) -> None: ...

    def compute(self, step: Compute, values: KeptValues) -> dict[int, Any]: ...

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
        self.values = KeptValues()
        self.segments: dict[Segment, Any] = {}
        self.segment: Segment | None = None  # the one that is being summed

    def __call__(self, row: int, **inputs: Any) -> Any:
        """Run one row; returns the model's output.

        Raises ExecutionError when rows do not come in order: the kept values would be another row's.
        """
        if row != self.next_row:
            raise ExecutionError(
                f"row {row} of the schedule was called where row {self.next_row} was due; start the pass anew"
            )
        self.components.begin(row, **inputs)
        for step in self.plan.steps[row]:
            self._step(step)
        self._open(None)
        self.next_row = row + 1
        return self.components.finish()

    def _step(self, step: Step) -> None:
        values = self.values
        if type(step) is Compute:
            if step.segment is not self.segment:
                self._open(step.segment)
            yielded = self.components.compute(step, values)
            for v in step.keep:
                values[v] = yielded[v]
        else:
            if self.segment is not None:
                self._open(None)
            self.components.combine(
                [(v, values[v]) for v in step.values],
                [(one, self.segments[one]) for one in step.segments],
            )
            for one in step.free_segments:
                del self.segments[one]
        for v in step.free:
            del values[v]

    def _open(self, segment: Segment | None) -> None:
        """Close the segment that is being summed, and open this one."""
        if self.segment is not None:
            self.values.release()  # with free rooms beside it a segment could raise the peak of memory
            self.segments[self.segment] = self.components.close_segment(self.segment)
        self.segment = segment
        if segment is not None:
            self.components.open_segment(segment)
