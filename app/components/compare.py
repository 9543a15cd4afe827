"""Images of the chosen schedules beside the uncached one, with one zoom for all of them."""

from __future__ import annotations

import pathlib
from typing import Any

import gradio as gr

_HERE = pathlib.Path(__file__).parent
_JS = (_HERE / "compare.js").read_text("utf-8")
_CSS = (_HERE / "compare.css").read_text("utf-8")

_TEMPLATE = """
<div class="bar">
  <div class="modes" role="radiogroup" aria-label="How to compare">
    <button type="button" class="mode" role="radio" data-mode="side" aria-checked="true">Side by side</button>
    <button type="button" class="mode" role="radio" data-mode="wipe" aria-checked="false">Wipe</button>
    <button type="button" class="mode" role="radio" data-mode="difference" aria-checked="false"
      title="Absolute difference to the uncached image, four times as bright">Difference</button>
  </div>
  <span class="wiping" hidden><select class="ecad-select pair" aria-label="Image under the wipe"></select>
    <input class="wipe-at" type="range" min="0" max="100" value="50"
      aria-label="Where the wipe stands"></span>
  <span class="gap"></span>
  <button type="button" class="ecad-button in" aria-label="Zoom in">Zoom in</button>
  <button type="button" class="ecad-button reset" disabled>Reset zoom</button>
</div>
<p class="empty" hidden>Choose a point of the front: its image appears here beside the uncached one.</p>
<div class="views"></div>"""


class Compare(gr.HTML):
    """Side by side, wipe or difference of any number of images; the first is the uncached one.

    The value is `{"images": [card, …]}` as `services.cards` makes them.
    """

    def __init__(self, value: dict[str, Any] | None = None, **kwargs: Any):
        super().__init__(
            value=value or {"images": []},
            html_template=_TEMPLATE,
            css_template=_CSS,
            js_on_load=_JS,
            apply_default_css=False,
            **kwargs,
        )

    def preprocess(self, payload: Any) -> dict[str, Any]:
        return payload if isinstance(payload, dict) else {"images": []}

    def postprocess(self, value: dict[str, Any] | None) -> dict[str, Any] | None:
        return value

    def api_info(self) -> dict[str, Any]:
        return {"type": "object", "description": "the images shown"}

    def example_payload(self) -> dict[str, Any]:
        return {"images": []}

    example_value = example_payload
