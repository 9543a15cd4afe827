"""What a schedule costs in multiply-accumulates and in cache memory, by closed form (the contract C5).

Two conventions. `paper` is the original's: linear and convolution only, a batch of two (PixArt's two guidance
halves are one image; FLUX's two are two images), the schedule's own bits with never-computed components
computed. It equals every figure stored in the original's files to the integer. `full` is what the plan
executes for one image: attention products too, the canonical form, what depends on the prompt alone once per
pass. Norms, activations, softmax and additions count in neither; the text encoder, the autoencoder and the
sampler are outside.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from ecad.schedule.errors import ScheduleError
from ecad.schedule.layouts.base import Layout
from ecad.schedule.layouts.flux import FluxDimensions
from ecad.schedule.layouts.known import Dimensions, dimensions
from ecad.schedule.layouts.pixart import PixArtDimensions
from ecad.schedule.schedule import Schedule

Convention = Literal["paper", "full"]
CONVENTIONS: tuple[Convention, ...] = ("paper", "full")


@dataclass(frozen=True)
class Macs:
    """Multiply-accumulates of one pass: `total` is `once` plus the sum of `by_row`."""

    total: int
    by_row: tuple[int, ...]
    once: int = 0


@dataclass(frozen=True, eq=False)
class CostTable:
    """The costs of one model at one size in one convention.

    Attributes:
        component: int64 [C], MACs of one computation of each component.
        component_gated: int64 [C], the same in a row after T-GATE's gate.
        fixed: MACs of every row besides its components; `fixed_gated` after T-GATE's gate.
        once: MACs of a pass besides its rows (0 in `paper`, which counts them in every row).
        cache_values: int64 [C], how many numbers each component keeps for one image (with both guidance
            halves).
    """

    layout: Layout
    convention: Convention
    component: np.ndarray
    component_gated: np.ndarray
    fixed: int
    fixed_gated: int
    once: int
    cache_values: np.ndarray

    def macs(self, schedule: Schedule) -> Macs:
        """What a schedule costs.

        Raises:
            ScheduleError: the schedule is for another layout.
        """
        if schedule.layout != self.layout:
            raise ScheduleError(
                f"The schedule is for {schedule.layout.name}; expected one for {self.layout.name}."
            )
        paper = self.convention == "paper"
        bits = schedule.effective_bits() if paper else schedule.canonical().bits
        gate = schedule.rows if schedule.gate_step is None else schedule.gate_step
        rows = [int(macs) + self.fixed for macs in bits[:gate] @ self.component]
        rows += [int(macs) + self.fixed_gated for macs in bits[gate:] @ self.component_gated]
        return Macs(self.once + sum(rows), tuple(rows), self.once)

    def uncached(self, rows: int) -> Macs:
        """What a pass of this many rows costs when everything is computed in each."""
        row = int(self.component.sum()) + self.fixed
        return Macs(self.once + rows * row, (row,) * rows, self.once)


def cost_table(
    model: str | Dimensions,
    *,
    height: int | None = None,
    width: int | None = None,
    convention: str = "full",
    num_blocks: int | tuple[int, int] | None = None,
) -> CostTable:
    """The cost table of a model.

    Args:
        model: a known model's name ("storybook", "pixart-alpha", "pixart-sigma", "flux-dev", "flux-schnell",
            or the original's class names) or the dimensions of any other PixArt or FLUX model.
        height, width: pixels; the dimensions' own, or the size the paper searched at, if not given.
        convention: "full" or "paper".
        num_blocks: another depth; for FLUX a pair (full blocks, single blocks).

    Raises:
        ScheduleError: no such model, size or convention.

    >>> cost_table("pixart-alpha", convention="paper").uncached(1).total
    285689806848
    """
    if convention not in CONVENTIONS:
        raise ScheduleError(f"The convention must be paper or full, not {convention!r}.")
    if isinstance(model, str):
        size = dimensions(model, height=height, width=width)
    elif isinstance(model, PixArtDimensions | FluxDimensions):
        size = replace(model, height=height or model.height, width=width or model.width)
    else:
        raise TypeError(f"model must be a name or dimensions, not {type(model).__name__}")
    terms = _deepened(size, num_blocks).terms(convention)

    def column(by_name: dict[str, int]) -> np.ndarray:
        array = np.array([by_name[component.name] for component in terms.layout.components], dtype=np.int64)
        array.setflags(write=False)
        return array

    return CostTable(
        layout=terms.layout,
        convention="paper" if convention == "paper" else "full",
        component=column(terms.component),
        component_gated=column(terms.component_gated),
        fixed=terms.fixed,
        fixed_gated=terms.fixed_gated,
        once=terms.once,
        cache_values=column(terms.cache_values),
    )


def _deepened(size: Dimensions, num_blocks: int | tuple[int, int] | None) -> Dimensions:
    if num_blocks is None:
        return size
    if isinstance(size, FluxDimensions):
        if not isinstance(num_blocks, tuple):
            raise ScheduleError(f"FLUX needs num_blocks as (full, single), not {num_blocks!r}.")
        return replace(size, num_blocks=num_blocks[0], num_single_blocks=num_blocks[1])
    if isinstance(num_blocks, tuple):
        raise ScheduleError(f"PixArt needs num_blocks as one number, not {num_blocks!r}.")
    return replace(size, num_blocks=num_blocks)
