"""How the page looks: one theme, the colours of what is drawn, and the style of plain controls. Nothing from
a CDN."""

from __future__ import annotations

import pathlib

import gradio as gr

_FONT = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "Helvetica Neue", "sans-serif")
_MONO = ("ui-monospace", "SF Mono", "Cascadia Mono", "Consolas", "monospace")


def theme() -> gr.themes.ThemeClass:
    """Black on white and white on near-black, with the system's own fonts: nothing competes with the
    pictures."""
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


CSS = (pathlib.Path(__file__).parent / "theme.css").read_text("utf-8")
"""Colours of what is drawn, and the style of plain controls."""
