"""State and buttons of the one search that all visitors share."""

from __future__ import annotations

import pathlib
from typing import Any

import gradio as gr

_HERE = pathlib.Path(__file__).parent
_JS = (_HERE / "search_panel.js").read_text("utf-8")
_CSS = (_HERE / "search_panel.css").read_text("utf-8")

_TEMPLATE = """
<div class="row"><span class="word" role="status">idle</span>
  <button type="button" class="ecad-button start">Start search</button>
  <button type="button" class="ecad-button pause" hidden>Pause</button>
  <button type="button" class="ecad-button resume" hidden>Resume</button>
  <button type="button" class="ecad-button stop" hidden>Stop</button></div>
<progress class="bar" max="1" value="0" hidden aria-label="Progress of the search"></progress>
<dl class="numbers"></dl>
<p class="message" hidden></p>"""


class SearchPanel(gr.HTML):
    """Triggers `start`, `pause`, `resume` and `stop`; draws the state that the front's poll hands round."""

    def __init__(self, value: dict[str, Any] | None = None, **kwargs: Any):
        super().__init__(
            value=value or {},
            html_template=_TEMPLATE,
            css_template=_CSS,
            js_on_load=_JS,
            apply_default_css=False,
            **kwargs,
        )

    def preprocess(self, payload: Any) -> dict[str, Any]:
        return payload if isinstance(payload, dict) else {}

    def postprocess(self, value: dict[str, Any] | None) -> dict[str, Any] | None:
        return value

    def api_info(self) -> dict[str, Any]:
        return {"type": "object", "description": "state of the shared search"}

    def example_payload(self) -> dict[str, Any]:
        return {}

    example_value = example_payload
