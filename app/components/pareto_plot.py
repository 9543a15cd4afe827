"""The Pareto front in Plotly, mounted once and fed by deltas.

`gr.Plot` cannot say which point was clicked and draws itself anew at every value, which loses zoom and
selection; so Plotly.js (from the plotly package's own files, nothing from the network) is driven by our own
few lines.
"""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import Any

import gradio as gr
import plotly

from .calls import named

_HERE = pathlib.Path(__file__).parent
_JS = (_HERE / "pareto_plot.js").read_text("utf-8")
_CSS = (_HERE / "pareto_plot.css").read_text("utf-8")
PLOTLY_JS = pathlib.Path(plotly.__file__).parent / "package_data" / "plotly.min.js"
MOST_SELECTED = 3

_TEMPLATE = """
<div class="head">
  <label>Quality <select class="ecad-select metric" aria-label="Quality shown"></select></label>
  <label>Cost <select class="ecad-select axis" aria-label="Cost shown">
    <option value="speed">times fewer MACs</option><option value="macs">GMACs</option></select></label>
  <label hidden>Run <select class="ecad-select run" aria-label="Run shown"></select></label>
  <span class="gap"></span>
  <button type="button" class="ecad-button more" aria-pressed="false"
    title="Or hold Shift while you click">Add to comparison</button>
</div>
<p class="note" role="note" hidden></p>
<div class="frame" tabindex="0" role="group"
  aria-label="Pareto front. Left and right arrow keys move along it; Home and End jump to its ends.">
  <div class="gd"></div></div>
<div class="under"><span class="line" role="status"></span></div>
<span class="chosen" role="status"></span>"""


class ParetoPlot(gr.HTML):
    """Every evaluation of a run as a point; `pick` is triggered when the visitor chooses one.

    The value is `{"run": str, "ids": [int, …]}`, the selected points in the order of their letters.

    Args:
        poll: called with `{"run", "since"}`, answers with the points from `since` on (see `services.points`).
    """

    def __init__(self, value: dict[str, Any] | None = None, *, poll: Callable[[dict], dict], **kwargs: Any):
        super().__init__(
            value=value or {"run": None, "ids": []},
            html_template=_TEMPLATE,
            css_template=_CSS,
            js_on_load=_JS,
            head=f'<script src="/gradio_api/file={PLOTLY_JS}"></script>',
            apply_default_css=False,
            server_functions=[named(poll, "poll")],
            most=MOST_SELECTED,
            **kwargs,
        )

    def preprocess(self, payload: Any) -> dict[str, Any]:
        """The selection; anything can be posted here, so what is no list of small whole numbers is
        dropped."""
        if not isinstance(payload, dict) or not isinstance(payload.get("ids"), list):
            return {"run": None, "ids": []}
        ids = [i for i in payload["ids"] if isinstance(i, int) and not isinstance(i, bool) and i >= 0]
        return {"run": payload.get("run"), "ids": ids[:MOST_SELECTED]}

    def postprocess(self, value: dict[str, Any] | None) -> dict[str, Any] | None:
        return value

    def api_info(self) -> dict[str, Any]:
        return {"type": "object", "description": "the selected points of a run"}

    def example_payload(self) -> dict[str, Any]:
        return {"run": None, "ids": []}

    example_value = example_payload
