"""The schedule as a grid that can be painted: a canvas, so that 8,550 cells draw in a few milliseconds."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from html import escape
from typing import Any

import gradio as gr

from .calls import named

_HERE = pathlib.Path(__file__).parent
_JS = (_HERE / "schedule_grid.js").read_text("utf-8")
_CSS = (_HERE / "schedule_grid.css").read_text("utf-8")
LARGEST_UPLOAD = 2_000_000  # bytes; the largest schedule the original ships has 205 KB

_TEMPLATE = """
<div class="grid">
  <div class="tools">
    <span class="name"></span>
    <button type="button" class="ecad-button undo" title="Ctrl+Z">Undo</button>
    <button type="button" class="ecad-button redo" title="Ctrl+Shift+Z">Redo</button>
    <select class="ecad-select presets" aria-label="Start from a preset">
      <option value="">Start from…</option></select>
    <label>Outline what differs from
      <select class="ecad-select against"><option value="">nothing</option></select></label>
    <button type="button" class="ecad-button paint" aria-pressed="false">Drag paints</button>
    <span class="gap"></span>
    <button type="button" class="ecad-button download">Download</button>
    <button type="button" class="ecad-button upload">Upload</button>
    <input type="file" accept=".json,application/json" hidden aria-label="Schedule file">
  </div>
  <div class="figures" aria-live="polite"></div>
  <div class="sheet"><canvas tabindex="0" role="application" aria-label="Schedule. Arrow keys move, space
    toggles a cell, shift and arrows paint, S toggles the step, L the component, B the block, X leaves
    the step out, I brings the next one back, control Z undoes."></canvas></div>
  <div class="foot"><span class="status" role="status"></span><span class="legend">LEGEND</span></div>
  <p class="keys">Drag to paint, Shift + drag for a rectangle, click a step or a block to toggle it,
    × to leave a step out.
    Keys: arrows, Space, S step, L component, B block, X out, I in, Ctrl+Z.</p>
</div>"""


class ScheduleGrid(gr.HTML):
    """A paintable schedule.

    The value, in Python and on the wire, is `{"rows": ["0110…", …], "times": [int, …], "own": bool, "name":
    str, "point": int | None}`: a string of bits per step (1 = compute), the time each step stands at, whether
    these are the schedule's own times, and the point of the front it came from.

    Args:
        value: the schedule shown first. (None only where Gradio copies the component for an update.)
        model: what the browser needs to know of the layout and its costs: `columns` (block, part, index of
            the part, words, MACs), `parts` (words), `fixed` (MACs per step), `once`, `uncached` (MACs of all
            steps computed) and `presets` (names).
        predict, preset, export_schedule: functions the browser calls; each takes and returns one dict.
    """

    def __init__(
        self,
        value: dict[str, Any] | None = None,
        *,
        model: dict[str, Any],
        predict: Callable[[dict], dict],
        preset: Callable[[dict], dict],
        export_schedule: Callable[[dict], dict],
        **kwargs: Any,
    ):
        legend = "".join(
            f'<span><i style="background: var(--ecad-part-{i})"></i>{escape(part)}</span>'
            for i, part in enumerate(model["parts"])
        )
        legend += '<span><i style="background: var(--ecad-cell)"></i>reused</span>'
        super().__init__(
            value=value,
            html_template=_TEMPLATE.replace("LEGEND", legend),
            css_template=_CSS,
            js_on_load=_JS,
            apply_default_css=False,
            server_functions=[
                named(predict, "predict"),
                named(preset, "preset"),
                named(export_schedule, "export_schedule"),
            ],
            model=model,
            largest=LARGEST_UPLOAD,
            **kwargs,
        )

    def preprocess(self, payload: Any) -> dict[str, Any]:
        """What the browser sent, still to be read strictly by whoever turns it into a schedule."""
        return payload if isinstance(payload, dict) else {}

    def postprocess(self, value: dict[str, Any] | None) -> dict[str, Any] | None:
        return value

    def api_info(self) -> dict[str, Any]:
        return {"type": "object", "description": "a schedule as the grid holds it"}

    def example_payload(self) -> dict[str, Any]:
        return {"rows": ["11", "01"], "times": [999, 0], "own": False, "name": "example", "point": None}

    example_value = example_payload
