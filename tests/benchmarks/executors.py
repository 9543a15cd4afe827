"""Other ways to execute the same savings, each in the place of our executor (`ecad.execution.families.Model`).

An image generator calls its model through four names: `layout`, `lower`, `components` and `run`. What stands
here answers to them, so that every way of caching runs in the same denoising loop, on the same noise, with the
same sampler. Each holds at most the features of one pass; `forget` drops them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from ecad.execution import Plan, lower
from ecad.execution.kept import KeptValues
from ecad.schedule import Layout, Schedule

# Where FLUX's components lie in diffusers' modules; PixArt's carry their own names.
MODULES = {
    "full_attn": "attn",
    "full_ff": "ff",
    "full_ff_context": "ff_context",
    "single_attn": "attn",
    "single_proj_mlp": "proj_mlp",
    "single_proj_out": "proj_out",
}


def modules_of(transformer: torch.nn.Module, layout: Layout) -> list[torch.nn.Module]:
    """The stock module of every component, in the layout's order."""
    found = []
    for component in layout.components:
        if component.block.startswith("single_"):
            block = transformer.single_transformer_blocks[int(component.block.removeprefix("single_"))]
        else:
            block = transformer.transformer_blocks[int(component.block)]
        found.append(getattr(block, MODULES.get(component.name, component.name)))
    return found


class Stock:
    """The stock transformer, whatever the schedule's bits say (its times are the sampler's)."""

    def __init__(self, transformer: torch.nn.Module, layout: Layout) -> None:
        self.transformer, self.layout = transformer, layout

    def lower(self, schedule: Schedule) -> Plan:
        """A plan, which the image generator asks for; only its schedule is used here, with its own bits."""
        return replace(lower(schedule), schedule=schedule)

    def components(self, plan: Plan, timesteps: torch.Tensor) -> None:
        """A new pass begins."""
        self.begin(plan.schedule)

    def begin(self, schedule: Schedule) -> None:
        """A new pass of this schedule begins."""

    def forget(self) -> None:
        """Drop what a pass kept."""

    def run(self, one_pass: Any, row: int, inputs: dict[str, Any]) -> torch.Tensor:
        """One row: the model's output."""
        return self.transformer(**inputs, return_dict=False)[0]


class ModuleHooks(Stock):
    """The original's way: every block runs, its attention and feed-forward modules return their last output or
    compute; norms, modulations, gates and residuals are always computed, and every output is kept."""

    def begin(self, schedule: Schedule) -> None:
        self.bits, self.kept = schedule.bits, {}

    def forget(self) -> None:
        self.kept = {}

    def run(self, one_pass: Any, row: int, inputs: dict[str, Any]) -> torch.Tensor:
        modules = modules_of(self.transformer, self.layout)
        for column, module in enumerate(modules):

            def call(*args: Any, module: Any = module, column: int = column, **kwargs: Any) -> Any:
                if self.bits[row, column] or column not in self.kept:
                    self.kept[column] = type(module).forward(module, *args, **kwargs)
                return self.kept[column]

            module.forward = call
        try:
            return super().run(one_pass, row, inputs)
        finally:
            for module in modules:
                del module.forward


class StepMask(Stock):
    """Whole rows only: a masked row's output is the last one (order 0) or extrapolated over the row number
    (order 1). Cheaper than the masks of other libraries, which keep the first block in every row."""

    def __init__(self, transformer: torch.nn.Module, layout: Layout, order: int) -> None:
        super().__init__(transformer, layout)
        self.order = order

    def begin(self, schedule: Schedule) -> None:
        self.mask, self.known = schedule.bits.any(axis=1), []

    def forget(self) -> None:
        self.known = []

    def run(self, one_pass: Any, row: int, inputs: dict[str, Any]) -> torch.Tensor:
        if row == 0 or self.mask[row]:
            output = super().run(one_pass, row, inputs)
            self.known = [*self.known[-1:], (row, output)]
            return output
        last_row, last = self.known[-1]
        if self.order == 0 or len(self.known) == 1:
            return last
        first_row, first = self.known[0]
        return last + (last - first) * ((row - last_row) / (last_row - first_row))


class FirstBlock:
    """The first-block threshold over our own components of PixArt.

    Every row computes block 0. If what it adds has changed little since the last row that was computed whole,
    the sum of all that the other blocks added there is added again; else the row is computed whole. "Little":
    the mean absolute change over the mean absolute value is at most `threshold`, one decision for the whole
    batch, as diffusers' FirstBlockCache takes it (which refuses PixArt). A negative threshold computes always.
    """

    def __init__(self, fast: Any, threshold: float) -> None:
        self.fast, self.threshold, self.layout = fast, threshold, fast.layout
        self.first = sum(component.block == "0" for component in fast.layout.components)
        self.forget()

    def lower(self, schedule: Schedule) -> Plan:
        """The plan of our fast mode; its rows are run whole or up to block 0."""
        if not schedule.bits.all():
            raise ValueError("a threshold decides by itself what is computed; give it the uncached schedule")
        return self.fast.lower(schedule)

    def components(self, plan: Plan, timesteps: torch.Tensor) -> Any:
        """The components of our fast mode."""
        self.forget()
        self.whole: list[bool] = []  # row by row, whether all blocks ran
        return self.fast.components(plan, timesteps)

    def forget(self) -> None:
        """Drop what a pass kept."""
        self.residual: torch.Tensor | None = None  # what block 0 added in the last whole row
        self.rest: torch.Tensor | None = None  # what all other blocks added there

    @property
    def bits(self) -> np.ndarray:
        """What the last pass really computed, bool [R, C]."""
        bits = np.repeat(np.array(self.whole)[:, None], len(self.layout), axis=1)
        bits[:, : self.first] = True
        return bits

    def run(self, one_pass: Any, row: int, inputs: dict[str, Any]) -> torch.Tensor:
        """One row: the model's output."""
        parts, steps = one_pass.components, one_pass.plan.steps[row]
        parts.begin(row, **inputs)
        before = parts.hidden.clone()  # the stream is changed in place
        for step in steps[: self.first]:
            parts.compute(step, KeptValues())
        residual = parts.hidden - before
        self.whole.append(not self._is_like_the_last(residual))
        if not self.whole[-1]:
            parts.hidden += self.rest
            return parts.finish()
        after = before.copy_(parts.hidden)
        for step in steps[self.first :]:
            parts.compute(step, KeptValues())
        self.residual, self.rest = residual, parts.hidden - after
        return parts.finish()

    def _is_like_the_last(self, residual: torch.Tensor) -> bool:
        if self.residual is None:
            return False
        change = (residual - self.residual).abs().mean() / self.residual.abs().mean()
        return float(change) <= self.threshold
