"""Writing a schedule file.

The original's skeleton, which the original can read, and what it lacks (the contract C3).
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from ecad.schedule.errors import ScheduleError
from ecad.schedule.layouts.flux import SINGLE_PREFIX
from ecad.schedule.reading import FORMAT, TGATE

if TYPE_CHECKING:
    from ecad.schedule.schedule import Schedule


def to_json(schedule: Schedule) -> str:
    """The text of a schedule's file; see `Schedule.to_json`."""
    try:
        return json.dumps(as_dict(schedule), indent=4, allow_nan=False) + "\n"
    except (TypeError, ValueError) as error:
        raise ScheduleError(f"The schedule {schedule.name!r} holds what JSON cannot: {error}.") from error


def as_dict(schedule: Schedule) -> dict[str, Any]:
    """The content of a schedule's file, in the order of the original's keys."""
    layout = schedule.layout
    singles = sum(block.startswith(SINGLE_PREFIX) for block in layout.blocks)
    body: dict[str, Any] = {
        "num_blocks": len(layout.blocks) - singles,
        "num_inference_steps": schedule.rows,
        "name": schedule.name,
        "attributes": schedule.attributes,
        "schedule": {f"{row:03}": _row(schedule, row) for row in range(schedule.rows)},
    }
    if layout.family == "flux":
        body["num_single_blocks"] = singles
    top: dict[str, Any] = {"format": FORMAT}
    if schedule.model is not None:
        top["model"] = schedule.model
    return top | {
        "cache_schedule": body,
        "config": _config(schedule),
        "metrics": schedule.metrics,
        **{key: value for key, value in schedule.extra.items() if key not in top},
    }


def _row(schedule: Schedule, row: int) -> dict[str, Any]:
    bits = schedule.bits[row].tolist()
    blocks: dict[str, Any] = {}
    for block, components in schedule.layout.by_block.items():
        blocks[block] = {component.name: bits[component.index] for component in components}
        if schedule.gate_step is not None:
            blocks[block]["custom_compute_attn"] = {
                "name": TGATE,
                "kwargs": {"gate_step": schedule.gate_step},
            }
    return blocks


def _config(schedule: Schedule) -> dict[str, Any]:
    config = {key: value for key, value in schedule.config.items() if key not in ("timesteps", "sigmas")}
    if schedule.timesteps is not None:
        config["timesteps"] = list(schedule.timesteps)
    if schedule.sigmas is not None:
        config["sigmas"] = list(schedule.sigmas)
    if schedule.gate_step is not None:
        # The original runs T-GATE in a pipeline of its own.
        config["pipeline"] = {"name": "tgate", "kwargs": {"gate_step": schedule.gate_step}}
    return config
