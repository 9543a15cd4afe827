"""How a model in a mode lowers its schedules, as data: a calibration keeps it and needs no model to predict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ecad.execution.plan import Plan, lower
from ecad.schedule import Schedule


@dataclass(frozen=True)
class Lowering:
    """The arguments of `lower`, fit for JSON. Calling it lowers a schedule.

    gates: component name -> the gate it shares with its like, "" for none; None: values are kept one by one.
    whole: all values of a component are computed and added, or none.
    """

    gates: Mapping[str, str] | None = None
    whole: bool = False

    def __call__(self, schedule: Schedule) -> Plan:
        """The plan of a schedule."""
        if self.gates is None:
            return lower(schedule, whole=self.whole)
        gates: dict[str, str | None] = dict(self.gates)
        if schedule.gate_step is not None:
            gates[schedule.layout.gated] = None  # T-GATE keeps its mean apart
        return lower(schedule, gates=[gates[one.name] for one in schedule.layout.components])
