"""The MACs of one model at one size, term by term: what a layout file hands to `costs`."""

from __future__ import annotations

from dataclasses import dataclass

from ecad.schedule.layouts.base import Layout


@dataclass(frozen=True, kw_only=True)
class Terms:
    """Multiply-accumulates by component name, and around the components.

    Attributes:
        component: one computation of a component of this name.
        component_gated: the same in a row after T-GATE's gate, where one guidance half is left.
        fixed: what every row costs besides its components; `fixed_gated` after T-GATE's gate.
        once: what a pass costs besides its rows.
        cache_values: how many values a component of this name keeps for one image.
    """

    layout: Layout
    component: dict[str, int]
    component_gated: dict[str, int]
    fixed: int
    fixed_gated: int
    once: int
    cache_values: dict[str, int]
