"""Schedules: layouts, the schedule itself and its file, heuristics, edits and costs.

Numpy only, never torch.
"""

from ecad.schedule.errors import ScheduleError
from ecad.schedule.layouts import Component, Layout, flux_layout, layout, pixart_layout
from ecad.schedule.schedule import Schedule

__all__ = ["Component", "Layout", "Schedule", "ScheduleError", "flux_layout", "layout", "pixart_layout"]
