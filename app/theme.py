"""How the page looks: one theme, the colours of what is drawn, and the style of plain controls. Nothing from a CDN."""

from __future__ import annotations

import gradio as gr

_FONT = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "Helvetica Neue", "sans-serif")
_MONO = ("ui-monospace", "SF Mono", "Cascadia Mono", "Consolas", "monospace")


def theme() -> gr.themes.ThemeClass:
    """Black on white and white on near-black, with the system's own fonts: nothing competes with the pictures."""
    return gr.themes.Monochrome(
        font=list(_FONT),
        font_mono=list(_MONO),
        radius_size=gr.themes.sizes.radius_md,
        text_size=gr.themes.sizes.text_md,
    ).set(
        body_background_fill="#fbfbfa",
        body_background_fill_dark="#141517",
        background_fill_primary_dark="#1b1c1f",
        background_fill_secondary_dark="#222428",
        block_background_fill="#ffffff",
        block_background_fill_dark="#1b1c1f",
        block_border_width="1px",
        block_border_color="#e4e4e0",
        block_border_color_dark="#303338",
        border_color_primary="#e0e0dc",
        border_color_primary_dark="#34373d",
        body_text_color="#1c1d1f",
        body_text_color_dark="#ececea",
        body_text_color_subdued="#5d6066",
        body_text_color_subdued_dark="#a6aab1",
        block_label_text_weight="500",
        block_title_text_weight="500",
        block_shadow="none",
        input_border_width="1px",
        input_border_color="#c9c9c4",
        input_border_color_dark="#464a52",
        layout_gap="16px",
        block_padding="10px 12px",
        button_border_width="1px",
        button_large_padding="8px 16px",
        button_large_text_size="14px",
        button_large_text_weight="550",
        button_large_radius="6px",
        button_secondary_border_color="#c9c9c4",
        button_secondary_border_color_dark="#464a52",
        button_secondary_background_fill="#ffffff",
        button_secondary_background_fill_dark="#222428",
        button_secondary_background_fill_hover="#f3f3f0",
        button_secondary_background_fill_hover_dark="#2b2d32",
        button_secondary_text_color="#1c1d1f",
        button_secondary_text_color_dark="#ececea",
        button_secondary_text_color_hover="#1c1d1f",
        button_secondary_text_color_hover_dark="#ececea",
        button_primary_border_color="#0b5cad",
        button_primary_border_color_dark="#2f7fd1",
        input_background_fill="#ffffff",
        input_background_fill_dark="#17181a",
        button_primary_background_fill="#0b5cad",
        button_primary_background_fill_hover="#094b8e",
        button_primary_background_fill_dark="#2f7fd1",
        button_primary_background_fill_hover_dark="#4590dd",
        button_primary_text_color="#ffffff",
        button_primary_text_color_dark="#0c0d0e",
    )


# Okabe and Ito's colours, told apart by the colour-blind, in a darker or lighter cut where contrast asks for it.
CSS = """
:root { --ecad-accent: #0b5cad; --ecad-cloud: #8a8d93; --ecad-fewer: #007a57; --ecad-fora: #b35c00; --ecad-edited: #c2398f;
  --ecad-part-0: #0072b2; --ecad-part-1: #e69f00; --ecad-part-2: #009e73; --ecad-part-3: #cc79a7; --ecad-part-4: #56b4e9;
  --ecad-part-5: #d55e00; --ecad-cell: #ececea; --ecad-right: #006b4a; --ecad-wrong: #b3261e; --ecad-veil: #0b5cad; }
.dark { --ecad-accent: #5aa9f2; --ecad-cloud: #868a92; --ecad-fewer: #3ecf9c; --ecad-fora: #f0a24a; --ecad-edited: #f08cc8;
  --ecad-part-0: #3d9be0; --ecad-part-1: #e0a32c; --ecad-part-2: #2bb58a; --ecad-cell: #2b2d32; --ecad-right: #5fd3a8;
  --ecad-wrong: #ff8a80; --ecad-veil: #5aa9f2; }
.gradio-container { max-width: 1320px !important; margin: 0 auto; }
.html-container { padding: 0 !important; }
#header h1 { font-size: 26px; font-weight: 650; letter-spacing: -0.01em; margin: 0 0 4px; }
#header p { font-size: 15px; margin: 0; max-width: 105ch; line-height: 1.5; }
#header .about { color: var(--body-text-color-subdued); font-size: 13px; margin-top: 6px; }
.panel-title h2 { font-size: 16px; font-weight: 600; margin: 0; }
.panel-title p { font-size: 13px; margin: 2px 0 0; color: var(--body-text-color-subdued); }
.column:has(> .panel-title) { background: var(--block-background-fill); border: 1px solid var(--block-border-color); border-radius: 10px; padding: 16px !important; gap: 12px !important; }
.ecad-button, .ecad-select { font: inherit; font-size: 13px; line-height: 1.2; min-height: 30px; padding: 4px 10px; border-radius: 6px;
  border: 1px solid var(--input-border-color); background: var(--background-fill-primary); color: var(--body-text-color); cursor: pointer; }
.ecad-select { padding-right: 26px; max-width: 100%; }
.ecad-button:hover:not(:disabled) { border-color: var(--body-text-color-subdued); }
.ecad-button:disabled { opacity: 0.45; cursor: default; }
.ecad-button[aria-pressed="true"] { background: var(--body-text-color); color: var(--background-fill-primary); }
.ecad-button:focus-visible, .ecad-select:focus-visible { outline: 2px solid var(--ecad-accent); outline-offset: 2px; }
#ask, #act { align-items: end; gap: 10px; }
#ask button, #act button { min-height: 40px; white-space: nowrap; }
#act button { min-width: max-content !important; }
#act { align-items: center; }
.column:has(> .panel-title) .form { border: 0; background: transparent; box-shadow: none; gap: 10px; }
.column:has(> .panel-title) .form > .block { padding: 0; border: 0; background: transparent; }
#ask input { height: 40px; }
.status-line { min-height: 20px; font-size: 13px; color: var(--body-text-color-subdued); }
@media (max-width: 640px) { .row:has(> .column #front) > .column { display: contents; } .column:has(> #search) { order: 9; }
  .gradio-container { padding: 10px !important; } .column:has(> .panel-title) { padding: 12px !important; } }
"""
