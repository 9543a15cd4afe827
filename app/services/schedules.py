"""Schedules between the browser and the library: what the grid holds, what a file says, what a preset
makes."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np

from ecad import Calibration, Schedule, ScheduleError, heuristics

_WORDS = {
    "attn1": "self-attention",
    "attn2": "cross-attention",
    "ff": "feed-forward",
    "full_attn": "joint attention",
    "full_ff": "image feed-forward",
    "full_ff_context": "text feed-forward",
    "single_attn": "attention",
    "single_proj_mlp": "MLP in",
    "single_proj_out": "output projection",
}
LARGEST_FILE = 2_000_000  # bytes


class PageError(ValueError):
    """A visitor's input cannot be used; the message is the one sentence they see."""

    user_facing = True


class Schedules:
    """Reads and writes schedules of one image generator.

    Args:
        generator: the loaded image generator; only its layout, grid and cost table are used.
        calibration: gives what predicts times on this device, or None as long as there is none.
    """

    def __init__(self, generator: Any, calibration: Callable[[], Calibration | None] = lambda: None):
        self._calibration = calibration
        self.layout = generator.layout
        self.model = generator.name
        self.rows = generator.rows
        self.grid = tuple(generator.timesteps)
        self.costs = generator.cost_table("full")
        self.uncached = Schedule(
            self.layout, np.ones((self.rows, len(self.layout)), dtype=bool), name="uncached", model=self.model
        )
        self.uncached_macs = int(self.costs.macs(self.uncached).total)
        library = heuristics.library(self.layout, self.rows, grid=self.grid)
        self.presets = {schedule.name: schedule for schedule in library if _is_preset(schedule.name)}

    def describe(self) -> dict[str, Any]:
        """What the grid in the browser must know of the layout: its columns in words, with their costs."""
        names = list(self.layout.names)
        blocks = list(self.layout.blocks)
        several = self.layout.family == "flux"
        words = [_WORDS.get(name, name) for name in names]
        columns = [
            {
                "block": component.block,
                "part": component.name,
                "index": names.index(component.name),
                "words": f"block {blocks.index(component.block)}, {words[names.index(component.name)]}",
                "cost": int(self.costs.component[component.index]),
                "gated": 0
                if component.name == self.layout.gated
                else int(self.costs.component_gated[component.index]),
            }
            for component in self.layout.components
        ]
        return {
            "columns": columns,
            "parts": [(_prefix(name) if several else "") + _WORDS.get(name, name) for name in names],
            "fixed": int(self.costs.fixed),
            "fixedGated": int(self.costs.fixed_gated),
            "once": int(self.costs.once),
            "uncached": self.uncached_macs,
            "grid": list(self.grid),
            "presets": list(self.presets),
        }

    def to_wire(
        self, schedule: Schedule, *, name: str | None = None, point: int | None = None
    ) -> dict[str, Any]:
        """The grid's value for a schedule; see `ScheduleGrid`."""
        own = schedule.times is not None
        times = list(schedule.times) if own else (list(self.grid) if schedule.rows == self.rows else None)
        return {
            "rows": ["".join("1" if bit else "0" for bit in row) for row in schedule.bits],
            "times": times,
            "own": own,
            "gate": schedule.gate_step,
            "name": name or schedule.name or "schedule",
            "point": point,
        }

    def from_wire(self, value: Any) -> Schedule:
        """The schedule that the grid holds. Anybody can post anything here, so nothing is taken on trust."""
        rows = value.get("rows") if isinstance(value, dict) else None
        good = isinstance(rows, list) and rows and all(isinstance(row, str) for row in rows)
        if (
            not good
            or len(rows) > 1000
            or any(len(row) != len(self.layout) or set(row) - {"0", "1"} for row in rows)
        ):
            raise PageError(f"The grid does not hold a schedule of {len(self.layout)} components.")
        bits = np.array([[cell == "1" for cell in row] for row in rows])
        times = {}
        if value.get("own") and isinstance(value.get("times"), list):
            times = {self.layout.times_name: value["times"]}
        gate = value.get("gate")
        return Schedule(
            self.layout,
            bits,
            name=str(value.get("name") or "edited by hand")[:120],
            model=self.model,
            gate_step=gate if isinstance(gate, int) else None,
            **times,
        )

    def from_file(self, name: str, text: str | None, size: int) -> Schedule:
        """The schedule of an uploaded file, read strictly; `text` is None where the browser sent none."""
        name = re.sub(r"[^\w .()+-]", "_", str(name))[:80] or "the file"
        if text is None or size > LARGEST_FILE or len(text) > LARGEST_FILE:
            raise PageError(
                f"{name} has {size / 1e6:.0f} MB; a schedule has at most {LARGEST_FILE / 1e6:.0f} MB,"
                " so it was not read."
            )
        schedule = Schedule.from_json(text, source=name, layout=self.layout)
        return schedule if schedule.name else schedule.replace(name=name.removesuffix(".json"))

    def preset(self, name: str) -> Schedule:
        """The preset of that name."""
        try:
            return self.presets[name]
        except (KeyError, TypeError):
            raise PageError(f"There is no preset called {str(name)[:40]!r}.") from None

    def macs(self, schedule: Schedule) -> int:
        """Multiply-accumulates of one image, `full` convention."""
        return int(self.costs.macs(schedule).total)

    def predict(self, value: Any) -> dict[str, Any]:
        """What running the grid's schedule costs, and how much faster it should be; `{"error": sentence}` where the
        grid holds none."""
        try:
            schedule = self.from_wire(value)
        except (PageError, ScheduleError) as error:
            return {"error": str(error)}
        return {**self.predicted(schedule), "key": schedule.key}

    def predicted(self, schedule: Schedule) -> dict[str, Any]:
        """`macs`, `times_fewer` than uncached, and how many times `faster` it should be, predicted `by` what."""
        macs = self.macs(schedule)
        times_fewer = self.uncached_macs / macs
        calibration = self._calibration()
        if calibration is None:
            faster, by = times_fewer, "MACs"
        else:
            faster, by = 1 / calibration.share(schedule), "this device's calibration"
        return {"macs": macs, "times_fewer": times_fewer, "faster": faster, "by": by}

    def export(self, value: Any) -> dict[str, Any]:
        """The schedule file of what the grid holds, and a name for it."""
        try:
            schedule = self.from_wire(value)
        except (PageError, ScheduleError) as error:
            return {"error": str(error)}
        schedule = schedule.replace(metrics={"total_macs": self.macs(schedule)})
        stem = re.sub(r"[^a-z0-9]+", "-", schedule.name.lower()).strip("-") or "schedule"
        return {"name": f"{stem}.json", "json": schedule.to_json()}


def _is_preset(name: str) -> bool:
    """A choice a person can overlook: every kind of heuristic, not every number of steps in every variant."""
    return (
        not name.startswith("steps-")
        or re.fullmatch(r"steps-(4|6|8|10|12|15)(-late)?(-fora-2)?", name) is not None
    )


def _prefix(name: str) -> str:
    return "single block: " if name.startswith("single") else "double block: "
