"""`apply_schedule`: run a stock diffusers pipeline under a schedule.

The pipeline stays as it is; only its transformer's `forward` is replaced on the instance, beneath
accelerate's offloading hooks where there are any, and put back on removal.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

import torch

from ecad.execution.errors import ExecutionError
from ecad.execution.families import check_schedule, open_model
from ecad.execution.memory import out_of_memory_explained
from ecad.execution.passes import Pass
from ecad.execution.plan import Plan
from ecad.execution.times import check_scheduler
from ecad.schedule import Schedule

LOWER = (
    "call the pipeline with fewer images at once (num_images_per_prompt) or a smaller size (height, width), or load"
    " it in half precision (dtype torch.bfloat16)"
)


class AppliedSchedule:
    """A schedule in force on a pipeline. A context manager: it is removed on exit, or by `remove()`.

    `plan` is what its rows do. Each call of the pipeline is a pass of its own; the row is read from the
    pipeline's scheduler, so an aborted call leaves nothing behind that a later one could see.
    """

    def __init__(self, pipe: Any, schedule: Schedule, mode: str, compile: bool | str = False) -> None:
        transformer = getattr(pipe, "transformer", None)
        if transformer is None or not hasattr(pipe, "scheduler"):
            raise ExecutionError(
                f"{type(pipe).__name__} has no transformer and scheduler to run a schedule on"
            )
        if getattr(transformer, "_ecad_schedule", None) is not None:
            raise ExecutionError("the pipeline already runs a schedule; call its `remove()` first")
        self._pipe, self._transformer = pipe, transformer
        self.model = open_model(transformer, mode, compile)
        check_schedule(schedule, self.model.layout)
        check_scheduler(pipe.scheduler)
        self.schedule = schedule
        self.plan: Plan = self.model.lower(schedule)
        # A pipeline that calls the model several times a step names each kind of call by `cache_context`;
        # every kind has its own pass.
        self._passes: dict[str, Pass] = {}
        self._context = "step"
        self._signature = inspect.signature(type(transformer).forward)
        self._forward_here = self._forward  # one bound method, so that removal can recognise it
        self._install()

    def __enter__(self) -> AppliedSchedule:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.remove()

    def _install(self) -> None:
        # accelerate and diffusers' own offloading replace `forward` on the instance and keep the one they
        # found in `_old_forward`; ours goes underneath, so that their hooks still move the weights before it
        # runs.
        attributes = self._transformer.__dict__
        self._slot = "_old_forward" if "_old_forward" in attributes else "forward"
        self._found = attributes.get(self._slot)
        attributes[self._slot] = self._forward_here
        self._transformer._ecad_schedule = self
        if hasattr(self._transformer, "cache_context"):
            attributes["cache_context"] = self._cache_context

    @contextmanager
    def _cache_context(self, name: str, **about: Any) -> Iterator[None]:
        """The transformer's own `cache_context`, remembering the name."""
        before, self._context = self._context, name
        try:
            with type(self._transformer).cache_context(self._transformer, name, **about):
                yield
        finally:
            self._context = before

    def remove(self) -> None:
        """Give the pipeline its own forward back, wherever hooks have moved ours meanwhile. Safe to call
        twice.
        """
        attributes = self._transformer.__dict__
        if attributes.get("_ecad_schedule") is not self:
            return
        for slot in ("forward", "_old_forward"):
            if attributes.get(slot) is self._forward_here:
                if slot == "_old_forward":
                    stock = type(self._transformer).forward.__get__(self._transformer)
                    attributes[slot] = self._found if self._found is not None else stock
                elif self._found is not None and self._slot == "forward":
                    attributes[slot] = self._found
                else:
                    del attributes[slot]
        attributes.pop("cache_context", None)
        del self._transformer._ecad_schedule
        self._passes.clear()

    @torch.no_grad()
    def _forward(self, *args: Any, **kwargs: Any) -> Any:
        """The transformer's forward under the schedule; same arguments, same kind of answer."""
        inputs = dict(self._signature.bind(self._transformer, *args, **kwargs).arguments)
        inputs.pop("self")
        return_dict = inputs.pop("return_dict", True)
        scheduler = self._pipe.scheduler
        row = scheduler.step_index or 0
        kind = self._context
        if row == 0:
            self._passes[kind] = self._begin(scheduler, inputs)
        if kind not in self._passes:
            raise ExecutionError(
                f"the pipeline called the model at row {row} without having called it at row 0"
            )
        try:
            with out_of_memory_explained(LOWER):
                output = self.model.run(self._passes[kind], row, inputs)
        except BaseException:
            self._passes.clear()  # what it kept is memory that the next call needs
            raise
        if row == self.plan.rows - 1:
            del self._passes[kind]
            if not self._passes and "_hf_hook" in vars(
                self._transformer
            ):  # accelerate may want the memory now
                self.model.release()
        if not return_dict:
            return (output,)
        from diffusers.models.modeling_outputs import Transformer2DModelOutput

        return Transformer2DModelOutput(sample=output)

    def _begin(self, scheduler: Any, inputs: dict[str, Any]) -> Pass:
        """A new pass, once the pipeline's scheduler is seen to stand where the schedule's rows stand."""
        check_scheduler(scheduler)
        rows, times = self.plan.rows, scheduler.timesteps
        call = ", ".join(f"{name}={value}" for name, value in self.schedule.call().items())
        if len(times) != rows:
            raise ExecutionError(
                f"the schedule has {rows} rows, but the pipeline was called with {len(times)} steps;"
                f" call it with {call}"
            )
        expected = self.model.grid(scheduler, self.schedule, inputs)
        if not torch.allclose(expected.to(times), times, rtol=1e-5, atol=1e-3):
            raise ExecutionError(
                f"the schedule stands at the times {_short(expected)}, but the pipeline's scheduler holds"
                f" {_short(times)}; call it with {call}"
            )
        if not self.model.at_first_time(inputs, times):
            raise ExecutionError(
                "the model was called at another time than the first of this pipeline's scheduler; apply the"
                " schedule to the pipeline that is called, not to another one that shares its transformer"
            )
        with out_of_memory_explained(LOWER):
            return Pass(self.plan, self.model.components(self.plan, times))


def _short(times: torch.Tensor) -> str:
    shown = [f"{float(t):g}" for t in times]
    return ", ".join(shown) if len(shown) <= 6 else ", ".join([*shown[:3], "...", shown[-1]])


def apply_schedule(
    pipe: Any, schedule: Schedule, mode: str = "fast", *, compile: bool | str = False
) -> AppliedSchedule:
    """Run every call of a stock diffusers pipeline under a schedule, until removed.

    Args:
        pipe: a PixArtAlphaPipeline, PixArtSigmaPipeline or FluxPipeline, or another whose transformer is of
        theirs.
        schedule: made for the transformer's layout. Call the pipeline with `**schedule.call()`.
        mode: "fast" (the default) computes with few large operations, equal to float tolerance; "reference"
        runs
            the model's own modules and equals the stock pipeline bit for bit where everything is computed.
        compile: let torch compile the fast mode's components, once for all blocks; a text names its backend. Off,
            because on a CPU it gains nothing and on a GPU it is not measured yet. The first calls compile.

    Raises:
        ExecutionError: another layout, pipeline class or sampler; and, from the pipeline's call, other steps
        or times.

    >>> with apply_schedule(pipe, schedule):                                        # doctest: +SKIP
    ...     image = pipe("a red house at sea", **schedule.call()).images[0]
    """
    return AppliedSchedule(pipe, schedule, mode, compile)
