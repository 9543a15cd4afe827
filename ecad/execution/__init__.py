"""Running schedules: the plan (numpy), and the passes that execute it (torch, loaded on first use).

>>> from ecad.execution import lower
>>> from ecad.schedule import heuristics, layouts
>>> plan = lower(heuristics.fora(layouts.layout("storybook"), rows=20, n=3))
>>> plan.computed
588
"""

from __future__ import annotations

import importlib
from typing import Any

from ecad.execution.errors import Cancelled, ExecutionError
from ecad.execution.plan import Plan, lower

# Loaded on first use, because they load torch.
_LAZY = {
    "AppliedSchedule": "ecad.execution.apply",
    "apply_schedule": "ecad.execution.apply",
    "Pass": "ecad.execution.passes",
}

__all__ = ["AppliedSchedule", "Cancelled", "ExecutionError", "Pass", "Plan", "apply_schedule", "lower"]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'ecad.execution' has no attribute {name!r}")
    value = getattr(importlib.import_module(_LAZY[name]), name)
    globals()[name] = value
    return value
