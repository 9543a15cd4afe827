"""Layouts, one file per family."""

from ecad.schedule.layouts.base import Component, Layout, Value
from ecad.schedule.layouts.flux import FluxDimensions, flux_layout
from ecad.schedule.layouts.known import MODELS, default_rows, dimensions, layout, local_dimensions, model_name
from ecad.schedule.layouts.pixart import PixArtDimensions, pixart_layout

__all__ = [
    "MODELS",
    "Component",
    "FluxDimensions",
    "Layout",
    "PixArtDimensions",
    "Value",
    "default_rows",
    "dimensions",
    "flux_layout",
    "layout",
    "local_dimensions",
    "model_name",
    "pixart_layout",
]
