"""ECAD Explorer: find, run and explore caching schedules for diffusion transformers.

A schedule says, for every denoising row and every cacheable component of a model, whether to compute it or to
reuse its last value. The names below are the whole public surface; each is imported on first use, so that
reading or costing a schedule file never loads torch.

>>> from ecad import Schedule, heuristics, layout
>>> schedule = heuristics.fora(layout("storybook"), rows=20, n=3)
>>> int(schedule.canonical().bits.sum())
588
"""

from __future__ import annotations

import importlib
from typing import Any

# Public name -> (module, attribute); attribute None means the module itself.
_EXPORTS: dict[str, tuple[str, str | None]] = {
    # schedules: numpy only
    "Layout": ("ecad.schedule", "Layout"),
    "Schedule": ("ecad.schedule", "Schedule"),
    "ScheduleError": ("ecad.schedule", "ScheduleError"),
    "cost_table": ("ecad.schedule.costs", "cost_table"),
    "edits": ("ecad.schedule.edits", None),
    "heuristics": ("ecad.schedule.heuristics", None),
    "layout": ("ecad.schedule.layouts", "layout"),
    # execution and models: torch
    "apply_schedule": ("ecad.execution", "apply_schedule"),
    "Cancelled": ("ecad.execution", "Cancelled"),
    "ExecutionError": ("ecad.execution", "ExecutionError"),
    "load_image_generator": ("ecad.models", "load_image_generator"),
    "PROMPT_LIMIT": ("ecad.models", "PROMPT_LIMIT"),
    # latency
    "Calibration": ("ecad.execution.latency", "Calibration"),
    "calibrate": ("ecad.models.calibrating", "calibrate"),
    "store_calibration": ("ecad.models.calibrating", "store_calibration"),
    "stored_calibration": ("ecad.models.calibrating", "stored_calibration"),
    # quality
    "load_judge": ("ecad.storybook.judge", "load_judge"),
    "metric": ("ecad.metrics", "metric"),
    "storybook_world": ("ecad.storybook.world", None),
    # search
    "data_folder": ("ecad.search", "data_folder"),
    "Evaluator": ("ecad.search", "Evaluator"),
    "find_run": ("ecad.search", "find_run"),
    "fingerprint_differences": ("ecad.search.run", "differences"),
    "make_evaluator": ("ecad.search", "make_evaluator"),
    "open_run": ("ecad.search", "open_run"),
    "run_path": ("ecad.search", "run_path"),
    "runs_folder": ("ecad.search", "runs_folder"),
    "RunStore": ("ecad.search", "RunStore"),
    "Search": ("ecad.search", "Search"),
    "SearchError": ("ecad.search", "SearchError"),
    "search": ("ecad.search.run", "search"),
    "SearchSettings": ("ecad.search", "SearchSettings"),
}

__all__ = sorted(_EXPORTS)
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    try:
        module, attribute = _EXPORTS[name]
    except KeyError:
        raise AttributeError(f"module 'ecad' has no attribute {name!r}") from None
    loaded = importlib.import_module(module)
    value = loaded if attribute is None else getattr(loaded, attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
